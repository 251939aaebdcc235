//! A store in memory that behaves as a real one does where it matters for not losing data.
//!
//! It keeps rows in numbered slots and moves them on update, as a heap does, so that chunks cut by slots miss or double
//! rows under renewed snapshots. It logs every transaction's changes as they happen and its commit when it comes, streams
//! transactions under way, leaves unchanged large values unsent, forgets what was confirmed, and loses on a crash what was
//! not durable. One `MemoryStore` serves as source, as target, or both. Tables are small: a snapshot is a copy.

mod spec;

mod heap;
mod state;

mod log;
mod open;

mod store;
mod transaction;

mod schema_text;

mod snapshot;
mod source;
mod stream;

mod alter;
mod applier;
mod godwit;
mod target;
mod write;

mod examiner;

mod harness;
mod neutral;

use std::sync::Arc;

use godwit_model::{Source, Target, TaskName};

pub use harness::MemoryHarness;
pub use neutral::NeutralTables;
pub use source::SourceOptions;
pub use spec::TableSpec;
pub use state::View;
pub use store::{LostCommit, MemoryStore};
pub use transaction::Transaction;

/// The store as a source of the task, with default options.
pub fn source(store: &MemoryStore, task: &TaskName) -> Arc<dyn Source> {
    source_with(store, task, SourceOptions::default())
}

pub fn source_with(store: &MemoryStore, task: &TaskName, options: SourceOptions) -> Arc<dyn Source> {
    Arc::new(source::MemorySource::new(store.clone(), task.clone(), options))
}

/// The store as a target.
pub fn target(store: &MemoryStore) -> Arc<dyn Target> {
    Arc::new(target::MemoryTarget::new(store.clone()))
}
