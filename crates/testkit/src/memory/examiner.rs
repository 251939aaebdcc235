//! Digests of a table's committed rows.

use std::collections::BTreeMap;

use async_trait::async_trait;
use godwit_model::{BlockDigest, DigestPlan, Examiner, KeyedHash, KeyedHashes, Result, Row, RowBatch, Value};

use super::heap::{Heap, encode};
use super::snapshot::columns;
use super::state::State;
use super::store::MemoryStore;

pub(super) struct MemoryExaminer {
    store: MemoryStore,
    /// The state that is looked at; None: what is committed now.
    fixed: Option<State>,
}

impl MemoryExaminer {
    pub fn new(store: MemoryStore) -> Self {
        MemoryExaminer { store, fixed: None }
    }

    pub fn of(store: MemoryStore, state: State) -> Self {
        MemoryExaminer { store, fixed: Some(state) }
    }

    fn state(&self) -> Result<State> {
        self.store.quiet(|core| core.connect().map(|_| self.fixed.clone().unwrap_or_else(|| core.committed.clone())))
    }
}

/// One row as the digest sees it.
struct Digested {
    block: u32,
    key: Row,
    hash: u64,
}

fn digested(heap: &Heap, plan: &DigestPlan) -> Result<Vec<Digested>> {
    let columns = columns(heap, plan.columns.iter().map(|(name, _)| name.as_str()))?;
    let digest = |row: &Row| {
        let values: Row = columns.iter().map(|index| row[*index].clone()).collect();
        let key: Row = plan.key.iter().map(|index| values[*index].clone()).collect();
        let hash = hash(&values);
        let dealt_by = if key.is_empty() { hash } else { self::hash(&key) };
        let block = u32::try_from(dealt_by % u64::from(plan.blocks.max(1))).expect("less than the number of blocks");
        Digested { block, key, hash }
    };
    Ok(heap.rows.values().map(|row| digest(row)).collect())
}

#[async_trait]
impl Examiner for MemoryExaminer {
    fn scheme(&self) -> &'static str {
        "memory"
    }

    async fn digest(&self, plan: &DigestPlan) -> Result<Vec<BlockDigest>> {
        let mut blocks: BTreeMap<u32, BlockDigest> = BTreeMap::new();
        for row in digested(self.state()?.heap(&plan.table)?, plan)? {
            let digest = blocks.entry(row.block).or_insert(BlockDigest { block: row.block, rows: 0, sum: 0 });
            digest.rows += 1;
            digest.sum = digest.sum.wrapping_add(u128::from(row.hash));
        }
        Ok(blocks.into_values().collect())
    }

    async fn hashes(&self, plan: &DigestPlan, blocks: &[u32]) -> Result<KeyedHashes> {
        let rows = digested(self.state()?.heap(&plan.table)?, plan)?.into_iter();
        Ok(rows.filter(|row| blocks.contains(&row.block)).map(|row| KeyedHash { key: row.key, hash: row.hash }).collect())
    }

    async fn hashes_of(&self, plan: &DigestPlan, keys: &RowBatch) -> Result<Vec<Option<u64>>> {
        let state = self.state()?;
        let heap = state.heap(&plan.table)?;
        let columns = columns(heap, plan.columns.iter().map(|(name, _)| name.as_str()))?;
        let hash_at = |slot| hash(&columns.iter().map(|index| heap.rows[&slot][*index].clone()).collect::<Row>());
        Ok(keys.rows().map(|key| heap.by_key(key).map(hash_at)).collect())
    }
}

/// FNV-1a over the values' encoding, then mixed.
fn hash(values: &[Value]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in encode(values.iter(), false) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}
