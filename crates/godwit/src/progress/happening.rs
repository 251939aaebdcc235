//! What the world outside is told of a task at work. Versioned: these are the JSON events and the lines of the socket.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Happening {
    Phase { phase: String },
    TablePlanned { table: String, chunks: u64, estimated_rows: u64 },
    TableLoaded { table: String, rows: u64 },
    SchemaStep { step: String },
    Consistent,
    Retrying { what: String, wait_ms: u64 },
    Note { text: String },
    Warning { text: String },
    Progress(Progress),
}

/// Where the task stands, told a few times a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub phase: String,
    pub elapsed_ms: u64,
    pub load: LoadProgress,
    pub changes: ChangeProgress,
    /// How long each stage worked since the last telling, over all its threads.
    pub stages: Vec<StageTime>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadProgress {
    pub tables: u64,
    pub tables_loaded: u64,
    pub rows: u64,
    pub estimated_rows: u64,
    pub rows_per_second: u64,
    /// Until the load is complete, where it can be told.
    pub left_ms: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChangeProgress {
    pub transactions: u64,
    pub changes: u64,
    pub changes_per_second: u64,
    pub consistent: bool,
    /// Age of the oldest change not yet applied.
    pub lag_ms: Option<u64>,
    /// What of the change log is not yet applied.
    pub lag_bytes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageTime {
    pub stage: String,
    pub changes: u64,
    pub took_us: u64,
}
