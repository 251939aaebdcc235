//! Applying groups of changes: set-based statements, pipelined, one target transaction at a time.
//!
//! `table` reads what a statement must know of a target table, `statement` builds the SQL, `piece` turns rows into
//! parameters, `applier` sends and judges the answers.

mod applier;
mod piece;
mod statement;
mod table;

pub(crate) use applier::PostgresApplier;
pub(crate) use statement::overwrite;
pub(crate) use table::read as read_table;
