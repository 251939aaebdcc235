//! What an engine does as a source.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;

use crate::alter::{Altered, Appearance, TableAppearance};
use crate::batch::RowBatch;
use crate::change::Captured;
use crate::error::Result;
use crate::examine::Examiner;
use crate::finding::Finding;
use crate::mapping::TableMapping;
use crate::name::TableName;
use crate::position::{Marker, Position};
use crate::schema::{Description, SequenceValue, Table};
use crate::structure::Feature;
use crate::task::Task;

/// A store that rows and changes come from. One value serves one task; methods may be called side by side unless said
/// otherwise, and each opens the connections it needs. Every method may be dropped while pending: the server then ends
/// whatever was open, and nothing that was promised is lost.
#[async_trait]
pub trait Source: Send + Sync {
    fn capabilities(&self) -> Capabilities;

    /// Tries what the task needs and leaves nothing behind. Findings, not errors, for all that is wrong with the
    /// store; an error only if it cannot be asked at all.
    async fn check(&self, needs: &SourceNeeds<'_>) -> Result<Vec<Finding>>;

    /// Tables the task selects, and the steps that make them elsewhere, mapping applied.
    async fn describe(&self, task: &Task) -> Result<Description>;

    /// Everything that capture needs, in the order that makes P0 true (DESIGN of the engine in docs/engines), and P0.
    ///
    /// `known` is the position from which changes will be read next: P0 at first, later the last one durable in the
    /// change log. None: whatever an earlier, unrecorded attempt left is removed and made anew. Some: what is there is
    /// checked against it and kept; then `snapshot` is None and `position` is `known`, in the engine's own form if a
    /// person wrote it (the task's `from`). `POSITION_LOST`: the source no
    /// longer keeps what lies behind it. `SOURCE_CHANGED`: it is another store, or one whose log ends before it (a
    /// backup was restored, a standby that lagged was promoted).
    /// When this returns, every transaction before P0 is visible to every snapshot opened later. Only who holds the task's
    /// lease calls it, before the first snapshot of an attempt: readers of the task that the store still keeps are ended.
    async fn establish(&self, tables: &[Arc<Table>], known: Option<&Position>) -> Result<Established>;

    /// A snapshot for reading chunks, opened now. Never older than P0 of an `establish` that has returned.
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>>;

    /// The changes behind `from`: every transaction that is not wholly at or before it, once each, in commit order.
    /// At most one stream at a time; a stream left by a process that died is waited for and taken over. Refuses as
    /// `establish` does; where both position and what captures changes are gone, `POSITION_LOST`.
    ///
    /// A store whose log does not tell transactions apart (SQLite) gives several neighbouring ones as one; none is ever
    /// split over two.
    async fn changes(&self, from: &Position, tables: &[Arc<Table>]) -> Result<Box<dyn ChangeStream>>;

    /// Places the marker in the log, in a transaction of its own. When this returns, the marker lies behind everything
    /// that was visible before the call. Durable or not: it may be lost in a crash and be placed again, and a second one
    /// of the same name does no harm.
    ///
    /// A source that may be written to (`task.writes`) holds it in its own log. One that may not keeps, in this value,
    /// how far its log went at the call (an upper bound of what was visible: never what is flushed or sent), and its
    /// stream gives the marker as a transaction of its own as soon as it has come that far. Then it is lost with this
    /// value, and streams of other processes never tell it.
    async fn mark(&self, marker: &Marker) -> Result<()>;

    /// How these tables look now; those that are not there are missing.
    async fn appearances(&self, tables: &[TableName]) -> Result<Vec<TableAppearance>>;

    /// What a schema change made of a table that was `before` and looked like `look`: `columns` (name, type) are what the
    /// stream states since, and the store's own catalog may be further. Types are turned into those that DDL writes; what
    /// the stream does not state of a column (NOT NULL) comes from the catalog where it agrees. `DDL_STOPPED` where the
    /// columns cannot be told, or such a change cannot be carried.
    async fn altered(&self, before: &Table, look: &Appearance, columns: &[(String, String)]) -> Result<Altered>;

    /// The names of the tables that the task selects now. Cheap: asked again and again, to see what has come.
    async fn selected(&self, task: &Task) -> Result<Vec<TableName>>;

    /// What these tables are besides their rows, spelled as a target of the same dialect spells it, with the mapping's names.
    /// What cannot be said with those names is left out. In an order in which all of it can be made. Columns' own first.
    async fn structure(&self, mappings: &[Arc<TableMapping>]) -> Result<Vec<Feature>>;

    /// The rows of `keys` (key columns in the mapping's order) as they are now; those that are gone are missing.
    /// Values in the order of the mapping's columns, encoded as the change stream encodes them.
    async fn rows(&self, mapping: &TableMapping, keys: &RowBatch) -> Result<RowBatch>;

    /// Where the sequences that belong to these tables (or, with `create: all`, all of them) stand now.
    async fn sequences(&self, task: &Task) -> Result<Vec<SequenceValue>>;

    /// How far the source's log has grown behind what was confirmed, in bytes, and what is still free, where known.
    async fn backlog(&self) -> Result<Option<u64>>;

    /// Shuts users out of writing to these tables, or undoes that. Only on `finish --read-only-source`.
    async fn set_read_only(&self, tables: &[Arc<Table>], on: bool) -> Result<()>;

    /// What Godwit left on this store for the task, in words for a person.
    async fn traces(&self) -> Result<Vec<Trace>>;

    /// What its administrator made on this store for the task, and only he removes, in words for a person.
    async fn left_to_others(&self) -> Result<Vec<Trace>>;

    /// Removes all traces; what is gone already is no error.
    async fn remove_traces(&self) -> Result<()>;

    fn examiner(&self) -> &dyn Examiner;

    /// Opens a view of the store at one exact place of its log, for comparing. The place lies behind everything that a
    /// stream has given before the call. None: the store cannot tell now (no free slot, a transaction that stays open).
    async fn look(&self) -> Result<Option<Look>>;

    /// Whether a transaction that a stream gave with this position shows in a look at that place.
    fn shows(&self, look: &Position, commit: &Position) -> Result<bool>;
}

/// The store as it was at one place of its log. Dropping it lets the store go on.
pub struct Look {
    pub position: Position,
    pub examiner: Box<dyn Examiner>,
}

/// Facts that planning asks instead of the engine's name.
#[derive(Clone, Debug, PartialEq)]
pub struct Capabilities {
    /// Two endpoints of the same dialect may exchange native values, native load blocks and DDL.
    pub dialect: &'static str,
    /// Whether changes can be followed at a source that may not be written to. Says nothing of a target.
    pub follows_unwritten: bool,
    /// Whether this particular store is the one `other` names (for source = target).
    pub identity: String,
    /// Server name and version for people.
    pub version: String,
}

/// What the task will do, for checks.
#[derive(Clone, Copy, Debug)]
pub struct SourceNeeds<'a> {
    pub task: &'a Task,
    pub tables: &'a [Arc<Table>],
    /// False for a task that only loads.
    pub changes: bool,
}

/// One thing Godwit made: `replication slot godwit_shop`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    pub what: String,
}

pub struct Established {
    pub position: Position,
    /// The snapshot that shows the store exactly at P0, where the engine has one.
    pub snapshot: Option<Box<dyn Snapshot>>,
}

/// A view of the store at one moment. Chunks may be read from it side by side. Dropping it lets the store go on.
#[async_trait]
pub trait Snapshot: Send + Sync {
    /// Whether what it shows is exactly P0: then no change before P1 can already be in what was copied.
    fn is_exact(&self) -> bool;

    fn taken_at(&self) -> Instant;

    /// Cuts a table into chunks of roughly `chunk_bytes`; together they cover every row, also rows inserted behind the
    /// last one. `spec`s are stored and given back to `read` of a later snapshot, also by another process.
    async fn plan(&self, table: &Table, chunk_bytes: u64) -> Result<Vec<Chunk>>;

    async fn read(&self, spec: &ReadSpec<'_>) -> Result<Box<dyn RowReader>>;
}

/// A piece of one table that is loaded and recorded as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The engine's own text, versioned by it.
    pub spec: String,
    pub estimated_rows: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct ReadSpec<'a> {
    pub mapping: &'a TableMapping,
    pub chunk: &'a Chunk,
    /// Whether the target takes this engine's native load blocks.
    pub native: bool,
    /// Upper bound for one block.
    pub block_bytes: usize,
}

/// A piece of a chunk on its way.
#[derive(Clone, Debug)]
pub enum LoadBlock {
    /// An engine's own bulk format, cut anywhere; all blocks of a chunk together are whole.
    Native(Bytes),
    /// Columns in the mapping's order.
    Rows(RowBatch),
}

/// The rows of one chunk. Not safe to drop and go on: a chunk is read to its end or not at all.
#[async_trait]
pub trait RowReader: Send {
    async fn next(&mut self) -> Result<Option<LoadBlock>>;

    /// After `next` gave None: says whether the chunk counts. Must be asked before the target commits the chunk.
    async fn finish(&mut self) -> Result<ChunkEnd>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkEnd {
    Valid {
        rows: u64,
    },
    /// The table was rewritten since the plan was made; all chunks of this plan are worth nothing.
    Stale,
}

/// The changes of a source.
#[async_trait]
pub trait ChangeStream: Send {
    /// The next item, in the order of the log. Safe to drop while pending. A server that is away or refuses for now is
    /// a transient error; the caller opens a new stream from the last durable position.
    async fn next(&mut self) -> Result<Captured>;

    /// Says that everything up to `position` is durable in the change log: the source may forget it. Positions are
    /// those the stream yielded, in their order.
    async fn confirm(&mut self, position: &Position) -> Result<()>;
}
