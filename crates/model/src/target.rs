//! What an engine does as a target.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::alter::Alteration;
use crate::error::{Error, Result};
use crate::examine::Examiner;
use crate::finding::Finding;
use crate::mapping::TableMapping;
use crate::name::TableName;
use crate::position::Checkpoint;
use crate::schema::{Description, SchemaItem, SequenceValue, Table};
use crate::source::{Capabilities, RowReader, Trace};
use crate::structure::Feature;
use crate::task::{Task, TaskName};
use crate::write::Group;

/// A store that rows and changes go to.
///
/// It keeps, in tables of Godwit's own, one lease row per task (holder, counter, epoch, checkpoint) and a ledger of
/// small named entries. Every write that carries a lease takes effect only if the lease row still has that epoch, in
/// the same transaction: an old process that wakes up cannot write (`LEASE_LOST`).
#[async_trait]
pub trait Target: Send + Sync {
    fn capabilities(&self) -> Capabilities;

    /// As for a source.
    async fn check(&self, needs: &TargetNeeds<'_>) -> Result<Vec<Finding>>;

    /// Which of these tables are there, and what they look like.
    async fn present(&self, tables: &[TableName]) -> Result<Vec<Present>>;

    /// The steps as this store can perform them: what it cannot make, or not as asked (a role that is missing, what only
    /// an administrator may make), is taken out of `items`, with what needs it, and put under `not_carried`. Pure but
    /// for questions: the same description gives the same answer while roles and offers stay the same.
    async fn adapt(&self, description: Description) -> Result<Description>;

    /// The steps of a schema's file that a person wrote in this store's dialect: statements that are known to wait (for
    /// the load or for finish) wait, all others run before the load, in their order. Ids begin with `FILE`, or name what
    /// the step makes.
    fn staged(&self, sql: &str) -> Vec<SchemaItem>;

    /// Makes Godwit's own tables where they are missing. Idempotent, safe side by side.
    async fn install(&self) -> Result<()>;

    /// None: no lease row (or no tables of Godwit's at all).
    async fn lease(&self, task: &TaskName) -> Result<Option<LeaseRecord>>;

    /// Makes `holder` the holder if the row still has `seen`'s epoch and counter (or is still missing), raising the
    /// epoch, under the row's lock, so that a commit under way is waited for. None: someone else was faster. The record
    /// returned is read in the same transaction: its checkpoint is the true one. Comes after `install`, as does
    /// everything that carries a lease. Transactions of older epochs that the store still keeps open, because nobody told it
    /// that their owner is gone, are ended: they could commit nothing, and no lock of theirs is waited for.
    async fn take_lease(&self, task: &TaskName, holder: &Holder, seen: Option<&LeaseRecord>) -> Result<Option<LeaseRecord>>;

    /// Raises the counter. `LEASE_LOST` if the epoch is another.
    async fn renew(&self, lease: &Lease) -> Result<()>;

    /// Gives the lease up: the holder becomes none, so that the next process need not wait. Epoch and checkpoint stay.
    async fn release(&self, lease: &Lease) -> Result<()>;

    async fn ledger(&self, task: &TaskName) -> Result<Vec<Entry>>;

    /// Writes these entries in one durable transaction under the lease.
    async fn record(&self, lease: &Lease, entries: &[Entry]) -> Result<()>;

    /// Runs these schema steps in their order and writes their entries (as many, in the same order), in one transaction
    /// under the lease where DDL is transactional; else each step with its entry. The error names the step. Rows that a
    /// key or a unique index cannot take are `KEY_EXISTS`. Called side by side for different tables, and for indexes of
    /// one.
    async fn perform(&self, lease: &Lease, items: &[&SchemaItem], done: &[Entry]) -> Result<()>;

    /// Empties or drops tables and writes the entries, in one transaction under the lease. To drop a table that is not
    /// there is fine; to empty one is `TABLE_MISSING`, and then none was emptied.
    async fn empty(&self, lease: &Lease, tables: &[TableName], drop: bool, entries: &[Entry]) -> Result<()>;

    /// Gives a table the columns of `alteration.after` and writes the entries, in one durable transaction under the lease.
    ///
    /// Columns of `before` that `after` does not have go, with whatever is the target's own on them (an object that
    /// depends on one refuses: `DDL_STOPPED`). Those of `renamed` keep their values under the new name. New ones are added, open to NULL, and filled. One whose type differs between
    /// the two is turned, its values with it where the types allow, else emptied. What is there already as asked is left as
    /// it is, so that the call may be repeated until the entries are there, and a person may do the same by hand before.
    /// The table's other columns and rows stay as they are.
    ///
    /// A store that commits each DDL by itself records the intent first, alters, compares its catalog with what was asked,
    /// and writes the entries last; the entries alone say that it is done.
    async fn alter(&self, lease: &Lease, alteration: &Alteration<'_>, entries: &[Entry]) -> Result<()>;

    /// What the target tables of these mappings are besides their rows. One that is spelled otherwise than that of the same
    /// name among `asked` and means the same, or that a table like this cannot have, is given as `asked` has it. Changes
    /// nothing.
    async fn structure(&self, mappings: &[Arc<TableMapping>], asked: &[Feature]) -> Result<Vec<Feature>>;

    /// Writes one chunk and its mark in one durable transaction under the lease. Asks `rows.finish()` before it
    /// commits; a stale chunk is rolled back. Called side by side for different chunks.
    async fn write_chunk(&self, lease: &Lease, write: &ChunkWrite<'_>, rows: &mut dyn RowReader) -> Result<ChunkWritten>;

    /// The one applier of the task; at most one at a time.
    async fn applier(&self, lease: &Lease, mappings: &[Arc<TableMapping>]) -> Result<Box<dyn Applier>>;

    /// Moves sequences to at least these values; never back.
    async fn set_sequences(&self, lease: &Lease, values: &[SequenceValue]) -> Result<()>;

    /// Refreshes the planner's statistics of these tables.
    async fn analyze(&self, tables: &[TableName]) -> Result<()>;

    async fn traces(&self, task: &TaskName) -> Result<Vec<Trace>>;

    /// Removes what Godwit keeps here for the task; its own tables too when no other task uses them. What was copied stays.
    async fn remove_traces(&self, task: &TaskName) -> Result<()>;

    fn examiner(&self) -> &dyn Examiner;
}

#[derive(Clone, Copy, Debug)]
pub struct TargetNeeds<'a> {
    pub task: &'a Task,
    pub description: &'a Description,
    pub mappings: &'a [Arc<TableMapping>],
}

/// A selected target table that is there already.
#[derive(Clone, Debug, PartialEq)]
pub struct Present {
    pub table: Table,
    pub has_rows: bool,
    /// Tables outside of those asked about whose foreign keys point here.
    pub referenced_by: Vec<TableName>,
}

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub host: String,
    /// The kernel's boot id: with pid and start time it proves that a process on this machine is gone.
    pub boot: String,
    pub pid: u32,
    /// The process's start time in clock ticks since boot.
    pub started: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    /// None: given up.
    pub holder: Option<Holder>,
    /// Raised by every renewal, chunk and batch.
    pub counter: u64,
    pub epoch: u64,
    /// None until the first apply.
    pub checkpoint: Option<Checkpoint>,
}

/// The right to write for a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub task: TaskName,
    pub epoch: u64,
}

/// A small named fact of a task that must survive and move together with what was written: `chunk/3/17`. The pipeline
/// alone knows what the bytes mean. An empty value removes the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkMode {
    /// All chunks come from one exact snapshot: rows are new, a key that is there already is `KEY_EXISTS`.
    Insert,
    /// Rows may be there already.
    Upsert,
}

#[derive(Clone, Copy, Debug)]
pub struct ChunkWrite<'a> {
    pub mapping: &'a TableMapping,
    pub mode: ChunkMode,
    pub done: &'a Entry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkWritten {
    Written { rows: u64 },
    Stale,
}

/// Applies groups of changes, one target transaction at a time: any number of `apply`, then `commit`.
///
/// After an error of kind transient the applier is of no further use: the caller drops it, reads the checkpoint again
/// and goes on from there, never from a savepoint.
#[async_trait]
pub trait Applier: Send {
    /// Runs the group's writes in order, in the open transaction (opened by the first call), under a savepoint. Anything
    /// but `AsExpected` has been rolled back to that savepoint and has left no effect; the transaction is still usable.
    async fn apply(&mut self, group: &Group) -> Result<Applied>;

    /// Moves the checkpoint from `previous` to `next` under the lease, writes the entries, and commits. When this
    /// returns the effects are visible; they are durable when `durable` says so. An epoch that is not the lease's is
    /// `LEASE_LOST`; with the right epoch another checkpoint than `previous` is `TARGET_CHANGED`. Both roll back.
    async fn commit(&mut self, previous: Option<&Checkpoint>, next: &Checkpoint, entries: &[Entry]) -> Result<()>;

    /// Waits until everything committed so far would survive a crash of the target.
    async fn durable(&mut self) -> Result<()>;

    /// Rolls the open transaction back.
    async fn abandon(&mut self) -> Result<()>;
}

#[derive(Debug)]
pub enum Applied {
    AsExpected,
    /// A strict write touched another number of rows than it had. A truncate has none and is never compared.
    Unexpected(Mismatch),
    /// The target refused a write; the transaction itself is intact. `CONFLICT`: a key or another unique value is
    /// taken (a surplus row). `VALUE_REFUSED`: a value or a row that a constraint or type does not accept. Other codes
    /// where the engine knows better (`VALUE_TOO_LARGE`, `RIGHTS_MISSING`, else `SERVER_REFUSED`). Never a transient one.
    Refused(Error),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Index into the group's writes.
    pub write: usize,
    pub expected: u64,
    pub touched: u64,
}
