//! The contract of the change log: Godwit's own durable copy of a source's changes, in commit order.

use std::sync::Arc;

use async_trait::async_trait;
use godwit_model::{Layout, LogId, Position, Result, Sequence};

use crate::record::Record;

/// Up to where a log is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// The last durable record; 0: none yet.
    pub sequence: Sequence,
    /// Of the last durable `Commit` or `Progress`: what may be acknowledged to the source.
    pub position: Option<Position>,
}

/// One writer appends, any number of readers read, one caller trims; all side by side on one value.
///
/// ```text
///   oldest()           cursor of a reader          durable()        last appended
///      |  trimmed later      |                         |   buffered       |
///  ----[=====================|=========================]..................)
///       kept for readers and for a target that falls back
/// ```
///
/// *Order*: records have the sequences 1, 2, 3 ... in the order they were appended, without gaps; the log itself may
/// put in a `Layout` that is needed again. *Durability*: an appended record is durable when a later `sync` has
/// returned; readers see only durable records. *Crash*: after reopening, every transaction whose `Commit` was durable
/// is there, once; what follows the last complete transaction is cut off, and its sequences are given again. So only
/// the sequence of a `Commit`, `Abort`, `Progress` or `Layout` outside a transaction may be stored elsewhere.
/// *Errors*: after a failed write or sync the log refuses all but reading, trimming and questions, until it is opened
/// again; what was durable stays. *Layouts*: a change may use only a layout that was appended before.
#[async_trait]
pub trait ChangeLog: Send + Sync {
    fn id(&self) -> LogId;

    /// Puts the record at the end. Does not wait and does no I/O; whoever appends awaits `room` first, which is what
    /// bounds memory and disk. Records out of order (`Commit` without `Begin`) are refused and change nothing.
    fn append(&self, record: &Record) -> Result<Sequence>;

    /// Makes everything appended before the call durable and wakes the readers. Appends may go on meanwhile. Dropped
    /// while pending, it still happens. Called when the input idles, and every so many bytes or milliseconds.
    async fn sync(&self) -> Result<Durable>;

    /// Resolves when a record may be appended: the write queue is short, and the log is within its budget. Inside a
    /// transaction the budget does not count, because waiting could free nothing of it: a transaction may exceed the
    /// budget by its own size. Safe to drop.
    async fn room(&self) -> Result<()>;

    /// A reader whose first numbered record is `from`, which is at most one behind the last durable record.
    /// `STATE_LOST` if it was trimmed or never was.
    async fn read_from(&self, from: Sequence) -> Result<Box<dyn LogReader>>;

    /// Says that no reader needs the records before this sequence any more. Whole segments behind the retention go,
    /// oldest first; over three quarters of the budget the retention does not hold. Dropped while pending, it still happens.
    async fn trim(&self, before: Sequence) -> Result<()>;

    fn durable(&self) -> Durable;

    /// The position of `durable()`: where capture goes on after a restart.
    fn last_position(&self) -> Option<Position> {
        self.durable().position
    }

    /// The newest layout of each table, by number, durable or not.
    fn layouts(&self) -> Vec<Arc<Layout>>;

    /// The first sequence that can be read.
    fn oldest(&self) -> Sequence;

    /// Bytes the log takes.
    fn size(&self) -> u64;

    /// Size as a share of the budget; may exceed 1. People are warned at 0.5 and 0.8.
    fn fill(&self) -> f64;

    /// Roughly how many bytes of records lie behind this sequence; 0 exactly if none does.
    fn bytes_behind(&self, sequence: Sequence) -> u64;
}

/// A cursor in a change log.
#[async_trait]
pub trait LogReader: Send {
    /// The next record; waits until there is one. Safe to drop while pending: nothing is skipped.
    ///
    /// First come the layouts that were said before the reader's start and may be used after it, all with the sequence
    /// before the start. Then every record from the start on, once each. When the log has failed and all that is
    /// durable was read, the log's error. `STATE_LOST` if the reader was so slow that its place was trimmed.
    async fn next(&mut self) -> Result<(Sequence, Record)>;
}
