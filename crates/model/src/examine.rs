//! Comparing two stores without moving their rows.

use async_trait::async_trait;

use crate::batch::{Row, RowBatch};
use crate::error::Result;
use crate::mapping::TableMapping;
use crate::name::TableName;

/// Digests of a table's rows, computed where the rows are. Rows are dealt into blocks by a hash of their key (of the
/// whole row without a key), so that no order of either store matters. Two examiners of one `scheme` give the same
/// hashes for the same values.
#[async_trait]
pub trait Examiner: Send + Sync {
    fn scheme(&self) -> &'static str;

    /// One pass over the table: count and sum of row hashes per block; empty blocks may be missing.
    async fn digest(&self, plan: &DigestPlan) -> Result<Vec<BlockDigest>>;

    /// Key and row hash of every row in these blocks, in any order.
    async fn hashes(&self, plan: &DigestPlan, blocks: &[u32]) -> Result<KeyedHashes>;

    /// The row hash of each of these keys now, in their order; None: the row is not there.
    async fn hashes_of(&self, plan: &DigestPlan, keys: &RowBatch) -> Result<Vec<Option<u64>>>;
}

/// What to compare of one table on one side.
#[derive(Clone, Debug, PartialEq)]
pub struct DigestPlan {
    pub table: TableName,
    /// This side's names, in the mapping's order, with the type at the target.
    pub columns: Vec<(String, String)>,
    /// Indices into `columns`; empty without a key.
    pub key: Vec<usize>,
    pub blocks: u32,
}

impl DigestPlan {
    pub fn of_source(mapping: &TableMapping, blocks: u32) -> Self {
        let columns = mapping.columns.iter().map(|c| (c.source.clone(), c.type_name.clone())).collect();
        DigestPlan { table: mapping.source.clone(), columns, key: mapping.key.clone(), blocks }
    }

    pub fn of_target(mapping: &TableMapping, blocks: u32) -> Self {
        let columns = mapping.columns.iter().map(|c| (c.target.clone(), c.type_name.clone())).collect();
        DigestPlan { table: mapping.target.clone(), columns, key: mapping.key.clone(), blocks }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockDigest {
    pub block: u32,
    pub rows: u64,
    /// Wrapping sum of the row hashes: order does not matter, duplicates do.
    pub sum: u128,
}

#[derive(Clone, Debug, PartialEq)]
pub struct KeyedHash {
    /// The key's values; without a key, empty.
    pub key: Row,
    pub hash: u64,
}

pub type KeyedHashes = Vec<KeyedHash>;
