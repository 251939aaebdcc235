//! What apply asks a target to do: whole groups of set-based writes.

use std::sync::Arc;

use crate::batch::RowBatch;
use crate::mapping::TableMapping;

/// What one write does. Rows of `rows` hold, in this order: the key's columns (where the kind says "by key"), then
/// the values of `columns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteKind {
    /// New rows; `columns` are all that are known. Each row must be new: a key that is there is an error.
    Insert,
    /// New rows or, where the key is there, those columns overwritten: the key too where equal keys may differ in
    /// their bytes (`key_is_exact`). The key stands among `columns`; rows do not lead with it. Touches exactly one row
    /// per row.
    Upsert,
    /// By key. Sets `columns` where the key is there. A key column may stand among `columns` (the key changes).
    Update,
    /// By key, `columns` empty.
    Delete,
    /// Without a key: `columns` are all columns of the old row; one row that equals it in all of them goes.
    DeleteWhole,
    /// Without a key: rows hold the full old row, then the new values of `columns` (all); one equal row changes.
    UpdateWhole,
    /// Every row of the table; `rows` is empty and the count is never compared.
    Truncate,
}

/// One set-based write. Within one write no two rows have the same key, except for the `Whole` kinds.
#[derive(Clone, Debug)]
pub struct TableWrite {
    pub mapping: Arc<TableMapping>,
    pub kind: WriteKind,
    /// Indices into `mapping.columns`.
    pub columns: Vec<usize>,
    pub rows: RowBatch,
    /// Whether the number of rows touched must equal the number of rows; false in the convergent window.
    pub strict: bool,
}

/// Writes in the order they run, all of whole source transactions.
#[derive(Clone, Debug, Default)]
pub struct Group {
    pub writes: Vec<TableWrite>,
    /// Name and position of the first source of these changes, for provenance.
    pub origin: String,
}
