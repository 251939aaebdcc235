//! The SQLite engine: a database file as a source and as a target.
//!
//! SQLite has no log that others could read, so changes are captured by triggers into a table of Godwit's own in the
//! user's file, in the very transaction that makes them. All blocking calls run on threads of their own, one for each
//! connection (`session`). Everything Godwit makes in a file is named `godwit_*` and is never selected itself.
//!
//! The rooms in the order data meets them: `connect`, `session` and `pool` reach a file, `schema` and `catalog` read it, `describe` and
//! `ddl` say how it is made elsewhere, `capture` and `triggers` log changes, `snapshot` and `changes` read, `lease`,
//! `chunk` and `apply` write, `digest` compares.

mod connect;
mod error;
mod pool;
mod session;

mod catalog;
mod ddl;
mod describe;
mod schema;
mod structure;
mod tokens;
mod values;

mod capture;
mod changes;
mod fence;
mod keyrange;
mod look;
mod snapshot;
mod triggers;

mod apply;
mod chunk;
mod lease;
mod statements;

mod check;
mod digest;
mod xxh64;

mod source;
mod target;

#[cfg(test)]
mod growth;

use std::sync::Arc;

use godwit_model::{Result, Source, Target, Task};

/// The task's source. Opens nothing yet.
pub fn source(task: &Task) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(source::SqliteSource::new(task)?))
}

/// The task's target. Opens and creates nothing yet.
pub fn target(task: &Task) -> Result<Arc<dyn Target>> {
    Ok(Arc::new(target::SqliteTarget::new(task)?))
}
