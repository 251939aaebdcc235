//! The PostgreSQL engine.

mod alter;
mod apply;
mod changes;
mod check;
mod chunk;
mod connect;
mod digest;
mod error;
mod establish;
mod fence;
mod grants;
mod identity;
mod keyed;
mod lease;
mod leftover;
mod load;
mod look;
mod marker;
mod names;
mod pgoutput;
mod position;
mod present;
mod quote;
mod read;
mod replication;
mod rows;
mod schema;
mod sessions;
mod snapshot;
mod source;
mod steps;
mod target;
mod traces;
mod values;
mod writer;

use std::sync::Arc;

use godwit_model::{Result, Source, Target, Task};
pub use grants::{grants_unasked, source_grants, target_grants};

/// The task's source. Connects when it is first asked for something.
pub fn source(task: &Task) -> Result<Arc<dyn Source>> {
    connect::Address::parse(&task.source)?;
    Ok(Arc::new(source::PostgresSource::new(task)))
}

/// The task's target. Connects when it is first asked for something.
pub fn target(task: &Task) -> Result<Arc<dyn Target>> {
    connect::Address::parse(&task.target)?;
    Ok(Arc::new(target::PostgresTarget::new(task)))
}
