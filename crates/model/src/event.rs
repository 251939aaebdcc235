//! What the pipeline tells those who watch: progress, lag, timings.

use std::time::Duration;

use crate::name::TableName;

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Check,
    Schema,
    Load,
    /// Changes are applied, the target is not consistent yet or lags.
    CatchUp,
    Streaming,
    Finish,
}

impl Phase {
    pub fn word(self) -> &'static str {
        match self {
            Phase::Check => "check",
            Phase::Schema => "schema",
            Phase::Load => "load",
            Phase::CatchUp => "catch-up",
            Phase::Streaming => "streaming",
            Phase::Finish => "finish",
        }
    }
}

/// The stages a change passes; each reports how long its batches took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From the item before it until the source gave this one. A transaction's first item carries no changes, so that the
    /// wait for users does not count; where transactions come while they are under way it does.
    Read,
    Logged,
    Mapped,
    Applied,
    Committed,
}

#[derive(Clone, Debug)]
pub enum Event {
    Phase(Phase),
    /// A table's load was planned.
    TablePlanned {
        table: TableName,
        chunks: u64,
        estimated_rows: u64,
    },
    /// One chunk is durable in the target.
    ChunkLoaded {
        table: TableName,
        rows: u64,
    },
    /// A schema step was done: `INDEX public.orders_created_idx`.
    SchemaStep {
        id: String,
    },
    /// Every selected table is past its P1 and all indexes are valid.
    Consistent,
    /// A table was altered or rewritten at the source in a way that the log does not tell in full: its rows are compared
    /// and read again. Until `Consistent` comes again the target is not one state of the source.
    Reopened {
        table: TableName,
    },
    /// Changes were committed to the target.
    Committed {
        transactions: u64,
        changes: u64,
    },
    /// Age of the oldest change not yet applied, and bytes of the change log not yet applied.
    Lag {
        age: Duration,
        bytes: u64,
    },
    /// How long one batch spent in a stage.
    Timing {
        stage: Stage,
        changes: u64,
        took: Duration,
    },
    /// A transient error; the pipeline tries again after `wait`.
    Retrying {
        what: String,
        wait: Duration,
    },
    /// For a person; no row values.
    Note(String),
    Warning(String),
}

/// Takes events. Called from many threads; must not block.
pub trait Observer: Send + Sync {
    fn event(&self, event: Event);
}

/// Nobody watches.
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _event: Event) {}
}
