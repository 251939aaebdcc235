//! Words and contracts that every other room of Godwit speaks.
//!
//! This crate holds no I/O, knows no engine by name and derives nothing heavy. The modules come in the order in which
//! data meets them: a task names tables, a source describes them, rows and changes travel, a target takes them.
//! What each contract promises (order, durability, cancellation) stands in the doc of its trait.

pub mod codes;
mod error;

mod name;
mod task;

mod schema;
mod value;

mod batch;
mod change;
mod position;

mod mapping;
mod write;

mod alter;
mod structure;

mod examine;
mod source;
mod target;

mod event;
mod failpoint;
mod finding;

pub use alter::{Alteration, Altered, Appearance, TableAppearance};
pub use batch::{Row, RowBatch};
pub use change::{Captured, Change, ChangeBatch, ChangeOperation, Layout, LayoutColumn, LayoutId, OldImage, RowImages, TransactionId};
pub use error::{Code, Error, Kind, Result};
pub use event::{Event, Observer, Phase, Silent, Stage as PipelineStage};
pub use examine::{BlockDigest, DigestPlan, Examiner, KeyedHash, KeyedHashes};
pub use failpoint::{Failpoints, failpoint};
pub use finding::{Finding, GrantStatements, Severity};
pub use mapping::{ColumnMapping, TableMapping};
pub use name::{TableName, glob_matches};
pub use position::{Checkpoint, LogId, Marker, Micros, Position, Sequence};
pub use schema::{Column, Description, Key, NotCarried, SchemaItem, SequenceValue, Stage, Table, UniqueKey};
pub use source::{
    Capabilities, ChangeStream, Chunk, ChunkEnd, Established, LoadBlock, Look, ReadSpec, RowReader, Snapshot, Source, SourceNeeds, Trace,
};
pub use structure::{Bearing, Feature, Scope};
pub use target::{
    Applied, Applier, ChunkMode, ChunkWrite, ChunkWritten, Entry, Holder, Lease, LeaseRecord, Mismatch, Present, Target, TargetNeeds,
};
pub use task::{
    BudgetEnd, ByteCount, ColumnRule, Create, DdlPolicy, EndpointConfig, Existing, Grants, Limits, LogBudget, MapRule, Mode, Owners,
    Phases, SchemaPolicy, Secret, Selection, Task, TaskName, Tls, TlsMode, Writes,
};
pub use value::Value;
pub use write::{Group, TableWrite, WriteKind};
