//! Cutting a table into ranges of physical blocks, and the text in which such a range is stored.
//!
//! A range names the relation (a leaf, for a partitioned table) and the file it had when the plan was made. The last
//! range of each relation is open-ended, so that blocks added later belong to it.

use godwit_model::{Chunk, Error, Result};

/// A relation with storage, measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Measured {
    pub(crate) oid: u32,
    pub(crate) filenode: u32,
    pub(crate) blocks: u64,
    /// With what lies outside of the main file (large values).
    pub(crate) bytes: u64,
    pub(crate) rows: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockRange {
    pub(crate) oid: u32,
    pub(crate) filenode: u32,
    pub(crate) from: u64,
    /// Exclusive; None is open-ended.
    pub(crate) to: Option<u64>,
}

/// More chunks than this per relation cost more in bookkeeping than their size saves.
const MOST_CHUNKS: u64 = 100_000;

pub(crate) fn cut(relation: Measured, chunk_bytes: u64) -> Vec<Chunk> {
    let pieces = relation.bytes.div_ceil(chunk_bytes.max(1)).clamp(1, MOST_CHUNKS);
    let step = relation.blocks.div_ceil(pieces).max(1);
    let count = relation.blocks.div_ceil(step).max(1);
    let ranges = (0..count).map(|index| {
        let to = (index + 1 < count).then(|| (index + 1) * step);
        BlockRange { oid: relation.oid, filenode: relation.filenode, from: index * step, to }
    });
    ranges.map(|range| Chunk { spec: write(&range), estimated_rows: relation.rows / count }).collect()
}

fn write(range: &BlockRange) -> String {
    let to = range.to.map_or_else(|| "end".to_owned(), |to| to.to_string());
    format!("blocks1 {} {} {} {to}", range.oid, range.filenode, range.from)
}

pub(crate) fn parse(spec: &str) -> Result<BlockRange> {
    read(spec).ok_or_else(|| Error::internal(format!("`{spec}` is no chunk of this engine")))
}

fn read(spec: &str) -> Option<BlockRange> {
    let mut words = spec.split(' ');
    if words.next()? != "blocks1" {
        return None;
    }
    let oid = words.next()?.parse().ok()?;
    let filenode = words.next()?.parse().ok()?;
    let from = words.next()?.parse().ok()?;
    let to = match words.next()? {
        "end" => None,
        number => Some(number.parse().ok()?),
    };
    words.next().is_none().then_some(BlockRange { oid, filenode, from, to })
}

impl BlockRange {
    /// The condition on a row's place; empty for a whole relation, which then may have any access method.
    pub(crate) fn condition(&self) -> String {
        let from = (self.from > 0).then(|| format!("ctid >= '({},0)'::tid", self.from));
        let to = self.to.map(|to| format!("ctid < '({to},0)'::tid"));
        let parts: Vec<String> = from.into_iter().chain(to).collect();
        if parts.is_empty() { String::new() } else { format!(" WHERE {}", parts.join(" AND ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELATION: Measured = Measured { oid: 7, filenode: 9, blocks: 10, bytes: 81_920, rows: 100 };

    #[test]
    fn ranges_join_without_a_gap_and_the_last_is_open() {
        let ranges: Vec<BlockRange> = cut(RELATION, 30_000).iter().map(|chunk| parse(&chunk.spec).unwrap()).collect();
        assert_eq!(ranges.first().unwrap().from, 0);
        assert_eq!(ranges.last().unwrap().to, None);
        assert!(ranges.windows(2).all(|pair| pair[0].to == Some(pair[1].from)));
        assert_eq!(ranges.len(), 3);
    }

    #[test]
    fn an_empty_table_is_one_chunk_of_everything() {
        let chunks = cut(Measured { blocks: 0, bytes: 0, rows: 0, ..RELATION }, 1024);
        assert_eq!(chunks.len(), 1);
        assert_eq!(parse(&chunks[0].spec).unwrap().condition(), "");
    }

    #[test]
    fn large_values_outside_make_ranges_shorter() {
        let chunks = cut(Measured { bytes: 819_200, ..RELATION }, 81_920);
        assert_eq!(chunks.len(), 10);
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for spec in ["", "blocks2 1 2 3 4", "blocks1 1 2 3", "blocks1 1 2 3 4 5", "blocks1 a 2 3 4"] {
            assert!(parse(spec).is_err(), "{spec}");
        }
    }
}
