//! What is durable on this machine: the change log, and what lies beside it.
//!
//! The change log is the only copy of a source's changes once they were acknowledged; `ChangeLog` says what it
//! promises, `FileLog` keeps it in segment files, `MemoryLog` in memory for simulations. The spool holds transactions
//! that are still under way; it is worth nothing after a crash. The state folder holds both, and says whose they are.
//! This room knows no engine and no pipeline.

mod record;

mod decode;
mod encode;
mod frame;

mod layouts;
mod segment;

mod change_log;
mod disk;
mod file_log;
mod lock;
mod memory_log;
mod reader;
mod recent;
mod recovery;
mod shared;
mod writer;

mod spool;
mod state;

#[cfg(test)]
mod tests;

pub use change_log::{ChangeLog, Durable, LogReader};
pub use decode::decode;
pub use encode::encode;
pub use file_log::{FileLog, LogOptions};
pub use memory_log::MemoryLog;
pub use record::Record;
pub use spool::{Spool, SpoolLimits, Spooled};
pub use state::{Fingerprint, StateFolder};
