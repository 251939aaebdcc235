//! The MySQL and MariaDB engine.

mod apply;
mod binlog;
mod capabilities;
mod cascades;
mod catalog;
mod changes;
mod charset;
mod check;
mod chunk;
mod chunks;
mod connect;
mod created;
mod cutting;
mod ddl;
mod describe;
mod digest;
#[cfg(test)]
mod digest_tests;
mod durability;
mod error;
mod establish;
mod fingerprint;
mod fitting;
mod grants;
mod gtid;
mod hex;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod lab_tests;
mod lease;
mod ledger;
mod logged;
mod look;
mod marker;
mod members;
mod numbers;
mod own_tables;
mod patience;
mod performing;
mod position;
mod prepared;
mod present;
mod quote;
mod read;
mod renaming;
mod rights;
mod rows;
mod script;
mod seats;
mod sending;
mod shape;
mod snapshot;
#[cfg(test)]
mod snapshot_tests;
mod source;
mod statement;
mod statements;
mod structure;
mod target;
#[cfg(test)]
mod target_tests;
mod tokens;
mod transaction;
mod types;
mod values;
mod writers;

use std::sync::Arc;

use godwit_model::{Result, Source, Target, Task};

pub use grants::{grants_unasked, source_grants, target_grants};

/// The task's source. Connects when it is first asked for something.
pub fn source(task: &Task) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(source::MySqlSource::new(task)?))
}

/// The task's target. Connects when it is first asked for something.
pub fn target(task: &Task) -> Result<Arc<dyn Target>> {
    Ok(Arc::new(target::MySqlTarget::new(task)?))
}
