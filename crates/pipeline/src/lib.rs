//! The data plane: how rows and changes get from a source to a target, exactly once.
//!
//! It knows the contracts of `godwit-model` and `godwit-store` and nothing of engines, servers or files. Modules in the
//! order data meets them. What decides is pure (`coalesce`, `assemble`, `routes`, `project`, the verdicts in `carry`, the verdict in `tenure`);
//! the rest is a thin shell of I/O around it.

mod holder;
mod patience;
mod storage;
mod tenure;

mod facts;
pub mod script;
mod setup;
mod steps;
mod structure;

mod beginning;
mod load;
mod torn;

mod ahead;
mod capture;
mod rhythm;

mod project;
mod routes;

mod assemble;
mod carry;
mod coalesce;

mod apply;
mod passages;
mod replay;
mod reread;
mod stillness;
mod upkeep;

mod examine;
mod finish;
mod job;
mod running;
mod survey;

pub use examine::{Difference, DifferenceKind, TableReport, VerifyReport};
pub use finish::{Completion, Removal};
pub use holder::{life_of, this_process};
pub use job::{Described, Job};
pub use load::CHUNK_BYTES;
pub use running::{Running, Status, Until};
pub use storage::{FolderStorage, Storage};
pub use structure::Leftover;
pub use survey::{CheckReport, PlanReport, Survey};
pub use tenure::Life;
