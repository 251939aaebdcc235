//! Comparing both sides while both live.
//!
//! Blocks of rows are compared by digests that each server computes; only blocks that differ are looked into, down to
//! keys. A key that looks different may only have been on its way: it is looked at again, before and after replication has
//! passed a marker, until the source's row held still and the target's either equals it or does not. Rows without a key
//! cannot be told apart: while they change, the target is held at the very place of the source's log at which the source
//! is looked at.

use std::future::Future;
use std::sync::Arc;

use godwit_model::{
    BlockDigest, Column, DigestPlan, Examiner, KeyedHash, Result, Row, RowBatch, Source, TableMapping, TableName, Target, Value,
};
use hashbrown::HashMap;

use crate::coalesce::{Reread, key_bytes};
use crate::load::Route;
use crate::running::Still;

/// Rows a block should hold: small enough to list, large enough that digests are few.
const ROWS_PER_BLOCK: u64 = 512;
/// How many times more blocks than planned a table may ask for before it is dealt anew.
const MOST_COARSE: u64 = 8;
/// Digests held at once, 40 bytes each on both sides.
const MOST_BLOCKS: u64 = 1 << 16;
/// Blocks listed key by key in one question: about `ROWS_PER_BLOCK` times this many rows in memory for each side.
const BLOCKS_AT_ONCE: usize = 32;
/// Keys that are looked at again and reported by name; more are counted only.
const MOST_KEYS: usize = 100_000;
/// How often a key that keeps changing is looked at.
const ROUNDS: usize = 20;
/// A row that held still and differs must do so this often: one look may meet a value that came back in between.
const STRIKES: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DifferenceKind {
    /// At the source, not at the target.
    Missing,
    /// At the target, not at the source.
    Surplus,
    /// On both sides, with other values.
    Different,
}

/// One row that differs. Its key is for a person's terminal.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    pub kind: DifferenceKind,
    /// Empty for a table without a key.
    pub key: Row,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TableReport {
    pub source: TableName,
    pub target: TableName,
    /// Rows of the source, as compared.
    pub rows: u64,
    pub differences: Vec<Difference>,
    /// Keys that looked different but were too many to look at again.
    pub unlisted: u64,
    /// Keys that changed each time they were looked at.
    pub unsettled: u64,
}

impl TableReport {
    pub fn is_equal(&self) -> bool {
        self.differences.is_empty() && self.unlisted == 0 && self.unsettled == 0
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct VerifyReport {
    pub tables: Vec<TableReport>,
}

impl VerifyReport {
    pub fn is_equal(&self) -> bool {
        self.tables.iter().all(TableReport::is_equal)
    }

    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }
}

pub(crate) trait Settle {
    /// Waits until replication has passed everything committed at the source so far.
    fn settle(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// Holds both sides at one place, if the source can be looked at so.
    fn still(&mut self) -> impl Future<Output = Result<Option<Still>>> + Send;
}

pub(crate) async fn verify(source: &dyn Source, target: &dyn Target, routes: &[Route], settle: &mut impl Settle) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    let generated = generated_on_both(target, routes).await?;
    for (route, generated) in routes.iter().zip(&generated) {
        let table = Compare::of(source, target, route, generated);
        report.tables.push(table.run(settle).await?);
    }
    Ok(report)
}

/// Keys that look different at this moment.
pub(crate) struct SuspectKeys {
    pub keys: Vec<Reread>,
    /// Whether these are all.
    pub complete: bool,
}

/// One look at every table with a key, without waiting for replication.
pub(crate) async fn suspects(source: &dyn Source, target: &dyn Target, routes: &[Route]) -> Result<SuspectKeys> {
    let mut found = SuspectKeys { keys: Vec::new(), complete: true };
    for route in routes.iter().filter(|route| route.mapping.has_key()) {
        // a value that the target computes cannot be copied anew
        let mut compare = Compare::of(source, target, route, &[]);
        let (_, blocks) = compare.differing_blocks().await?;
        let mut suspects = Suspects::new();
        for some in blocks.chunks(BLOCKS_AT_ONCE) {
            found.complete &= compare.suspects(some, &mut suspects).await? == 0;
        }
        found.keys.extend(suspects.into_values().map(|key| Reread { mapping: route.mapping.clone(), key }));
    }
    Ok(found)
}

type GeneratedColumns = Vec<(String, String)>;

/// Columns that both sides compute, with their types: they are never written, and must come out alike.
async fn generated_on_both(target: &dyn Target, routes: &[Route]) -> Result<Vec<GeneratedColumns>> {
    let has_any = |route: &Route| route.table.columns.iter().any(|column| column.generated);
    if !routes.iter().any(has_any) {
        return Ok(vec![Vec::new(); routes.len()]);
    }
    let names: Vec<TableName> = routes.iter().filter(|route| has_any(route)).map(|route| route.mapping.target.clone()).collect();
    let present = target.present(&names).await?;
    let there: HashMap<&TableName, &[Column]> = present.iter().map(|present| (&present.table.name, &present.table.columns[..])).collect();
    let of = |route: &Route| {
        let columns = there.get(&route.mapping.target).copied().unwrap_or_default();
        let alike = |name: &str| columns.iter().any(|column| column.generated && column.name == name);
        let here = route.table.columns.iter().filter(|column| column.generated && alike(&column.name));
        here.map(|column| (column.name.clone(), column.type_name.clone())).collect()
    };
    Ok(routes.iter().map(of).collect())
}

struct Compare<'a> {
    mapping: &'a Arc<TableMapping>,
    source: &'a dyn Examiner,
    target: &'a dyn Examiner,
    at_source: DigestPlan,
    at_target: DigestPlan,
}

/// Keys that look different, by their bytes.
type Suspects = HashMap<Box<[u8]>, Row>;

impl<'a> Compare<'a> {
    fn of(source: &'a dyn Source, target: &'a dyn Target, route: &'a Route, generated: &[(String, String)]) -> Self {
        let blocks = blocks_for(route.table.estimated_rows);
        let (mut at_source, mut at_target) = (DigestPlan::of_source(&route.mapping, blocks), DigestPlan::of_target(&route.mapping, blocks));
        at_source.columns.extend_from_slice(generated);
        at_target.columns.extend_from_slice(generated);
        Compare { mapping: &route.mapping, source: source.examiner(), target: target.examiner(), at_source, at_target }
    }

    async fn run(mut self, settle: &mut impl Settle) -> Result<TableReport> {
        if !self.mapping.has_key() {
            return self.run_without_key(settle).await;
        }
        let (rows, blocks) = self.differing_blocks().await?;
        let mut report = self.report(rows);
        let mut suspects = Suspects::new();
        for some in blocks.chunks(BLOCKS_AT_ONCE) {
            report.unlisted += self.suspects(some, &mut suspects).await?;
        }
        self.settle_suspects(suspects, settle, &mut report).await?;
        report.differences.sort_by_key(|difference| difference.kind);
        Ok(report)
    }

    fn report(&self, rows: u64) -> TableReport {
        let (source, target) = (self.mapping.source.clone(), self.mapping.target.clone());
        TableReport { source, target, rows, differences: Vec::new(), unlisted: 0, unsettled: 0 }
    }

    /// The source's row count and the blocks whose digests differ.
    async fn differing_blocks(&mut self) -> Result<(u64, Vec<u32>)> {
        loop {
            let (here, there) = tokio::try_join!(self.source.digest(&self.at_source), self.target.digest(&self.at_target))?;
            let blocks = differing(&here, &there);
            if blocks.is_empty() || !self.cut_finer(&here, &there) {
                return Ok((count(&here), blocks));
            }
        }
    }

    /// Whether blocks hold so many more rows than the plan thought that they could not be listed, and are smaller now.
    fn cut_finer(&mut self, here: &[BlockDigest], there: &[BlockDigest]) -> bool {
        let wanted = blocks_for(count(here).max(count(there)));
        let coarse = u64::from(wanted) > u64::from(self.at_source.blocks) * MOST_COARSE;
        if coarse {
            (self.at_source.blocks, self.at_target.blocks) = (wanted, wanted);
        }
        coarse
    }

    /// Collects keys whose hashes differ; counts those there is no room for.
    async fn suspects(&self, blocks: &[u32], suspects: &mut Suspects) -> Result<u64> {
        let (here, there) = tokio::try_join!(self.source.hashes(&self.at_source, blocks), self.target.hashes(&self.at_target, blocks))?;
        let mut left: HashMap<Box<[u8]>, KeyedHash> = there.into_iter().map(|row| (key_bytes(&row.key), row)).collect();
        let mut unlisted = 0;
        let mut suspect = |place: Box<[u8]>, key: Row| {
            if suspects.len() < MOST_KEYS {
                suspects.insert(place, key);
            } else {
                unlisted += 1;
            }
        };
        for row in here {
            let place = key_bytes(&row.key);
            match left.remove(&place) {
                Some(other) if other.hash == row.hash => {}
                _ => suspect(place, row.key),
            }
        }
        for (place, row) in left {
            suspect(place, row.key);
        }
        Ok(unlisted)
    }

    async fn settle_suspects(&self, suspects: Suspects, settle: &mut impl Settle, report: &mut TableReport) -> Result<()> {
        let mut open: Vec<(Row, u8)> = suspects.into_values().map(|key| (key, 0)).collect();
        for _ in 0..ROUNDS {
            if open.is_empty() {
                return Ok(());
            }
            let mut keys = RowBatch::new(self.mapping.key.len());
            open.iter().for_each(|(key, _)| keys.push(key.iter().cloned()));
            let before = self.source.hashes_of(&self.at_source, &keys).await?;
            settle.settle().await?;
            let there = self.target.hashes_of(&self.at_target, &keys).await?;
            let after = self.source.hashes_of(&self.at_source, &keys).await?;
            let looks = before.into_iter().zip(there).zip(after);
            let mut next = Vec::new();
            for ((key, strikes), ((before, there), after)) in open.into_iter().zip(looks) {
                match judge(before, there, after) {
                    Look::Equal => {}
                    Look::Moving => next.push((key, 0)),
                    Look::Differs(kind) if strikes + 1 >= STRIKES => report.differences.push(Difference { kind, key }),
                    Look::Differs(_) => next.push((key, strikes + 1)),
                }
            }
            open = next;
        }
        report.unsettled = open.len() as u64;
        Ok(())
    }

    /// Without a key rows are a multiset of hashes; it is compared whenever the source held still around the look.
    async fn run_without_key(&mut self, settle: &mut impl Settle) -> Result<TableReport> {
        for _ in 0..ROUNDS {
            let before = self.source.digest(&self.at_source).await?;
            settle.settle().await?;
            let there = self.target.digest(&self.at_target).await?;
            let after = self.source.digest(&self.at_source).await?;
            let mut report = self.report(count(&after));
            if differing(&after, &there).is_empty() {
                return Ok(report);
            }
            let held_still = differing(&before, &after).is_empty();
            if self.cut_finer(&after, &there) {
                continue;
            }
            if held_still {
                self.multisets(self.source, &differing(&after, &there), &mut report).await?;
                return Ok(report);
            }
            if let Some(still) = settle.still().await? {
                return self.run_at_one_place(&still).await;
            }
        }
        let mut report = self.report(0);
        report.unsettled = 1;
        Ok(report)
    }

    /// Neither side moves: one look is the answer.
    async fn run_at_one_place(&self, still: &Still) -> Result<TableReport> {
        let here = still.source.digest(&self.at_source).await?;
        let there = self.target.digest(&self.at_target).await?;
        let mut report = self.report(count(&here));
        self.multisets(&*still.source, &differing(&here, &there), &mut report).await?;
        Ok(report)
    }

    async fn multisets(&self, source: &dyn Examiner, blocks: &[u32], report: &mut TableReport) -> Result<()> {
        for some in blocks.chunks(BLOCKS_AT_ONCE) {
            self.multiset(source, some, report).await?;
        }
        Ok(())
    }

    async fn multiset(&self, source: &dyn Examiner, blocks: &[u32], report: &mut TableReport) -> Result<()> {
        let (here, there) = tokio::try_join!(source.hashes(&self.at_source, blocks), self.target.hashes(&self.at_target, blocks))?;
        let mut balance: HashMap<u64, i64> = HashMap::new();
        here.iter().for_each(|row| *balance.entry(row.hash).or_default() += 1);
        there.iter().for_each(|row| *balance.entry(row.hash).or_default() -= 1);
        for count in balance.into_values() {
            let kind = if count > 0 { DifferenceKind::Missing } else { DifferenceKind::Surplus };
            let room = (MOST_KEYS - report.differences.len().min(MOST_KEYS)) as u64;
            let named = count.unsigned_abs().min(room);
            report.differences.extend((0..named).map(|_| Difference { kind, key: Vec::<Value>::new() }));
            report.unlisted += count.unsigned_abs() - named;
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq)]
enum Look {
    Equal,
    Moving,
    Differs(DifferenceKind),
}

/// What three looks at one key say: the source's row before, the target's, the source's row after.
fn judge(before: Option<u64>, there: Option<u64>, after: Option<u64>) -> Look {
    if there == after {
        return Look::Equal;
    }
    match (before == after, after, there) {
        (false, _, _) => Look::Moving,
        (true, Some(_), None) => Look::Differs(DifferenceKind::Missing),
        (true, None, Some(_)) => Look::Differs(DifferenceKind::Surplus),
        (true, _, _) => Look::Differs(DifferenceKind::Different),
    }
}

fn count(blocks: &[BlockDigest]) -> u64 {
    blocks.iter().map(|block| block.rows).sum()
}

fn blocks_for(rows: u64) -> u32 {
    (rows / ROWS_PER_BLOCK).clamp(1, MOST_BLOCKS) as u32
}

/// Blocks whose count or sum differ; a block that one side does not name is empty there.
fn differing(here: &[BlockDigest], there: &[BlockDigest]) -> Vec<u32> {
    let by_number = |blocks: &[BlockDigest]| -> HashMap<u32, BlockDigest> {
        blocks.iter().filter(|block| block.rows > 0).map(|block| (block.block, *block)).collect()
    };
    let (here, there) = (by_number(here), by_number(there));
    let mut blocks: Vec<u32> = here.keys().chain(there.keys().filter(|number| !here.contains_key(*number))).copied().collect();
    blocks.retain(|number| here.get(number) != there.get(number));
    blocks.sort_unstable();
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_held_still_and_differs_is_named_by_its_kind() {
        assert_eq!(judge(Some(1), Some(1), Some(1)), Look::Equal);
        assert_eq!(judge(Some(1), None, Some(1)), Look::Differs(DifferenceKind::Missing));
        assert_eq!(judge(None, Some(1), None), Look::Differs(DifferenceKind::Surplus));
        assert_eq!(judge(Some(1), Some(2), Some(1)), Look::Differs(DifferenceKind::Different));
        assert_eq!(judge(None, None, None), Look::Equal);
    }

    #[test]
    fn a_row_that_moved_is_looked_at_again() {
        assert_eq!(judge(Some(1), Some(1), Some(2)), Look::Moving);
        assert_eq!(judge(Some(1), None, None), Look::Equal);
        assert_eq!(judge(None, None, Some(1)), Look::Moving);
    }

    #[test]
    fn a_block_only_one_side_names_differs_unless_it_is_empty() {
        let block = |block, rows, sum| BlockDigest { block, rows, sum };
        assert_eq!(differing(&[block(1, 2, 5), block(2, 1, 1)], &[block(1, 2, 5)]), [2]);
        assert_eq!(differing(&[], &[block(3, 0, 0)]), Vec::<u32>::new());
        assert_eq!(differing(&[block(1, 2, 5)], &[block(1, 2, 6)]), [1]);
    }
}
