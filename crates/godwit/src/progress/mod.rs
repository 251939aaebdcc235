//! What is seen of a task at work: bars on a terminal, plain lines elsewhere, JSON for programs.
//!
//! The pipeline's events go into a tally (`tally`, pure); from it a thread of its own makes happenings (`happening`) and
//! hands them to one screen and to whoever else listens (`watch`). Screens know nothing of the pipeline, so that one
//! process can show what another does.

mod happening;
mod tally;

mod bars;
mod json;
mod lines;
mod screen;

mod watch;

pub use happening::Happening;
pub use watch::{Listener, Watch};
