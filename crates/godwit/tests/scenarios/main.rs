//! Whole tasks, run by the real binary on real stores: the same scenarios for every engine.

#![allow(clippy::unwrap_used)]

mod bank;
mod pair;
mod postgres;
mod process;
mod sqlite;
mod store;

mod changes;
mod changes_alone;
mod differences;
mod existing;
// release builds have none
#[cfg(debug_assertions)]
mod failpoints;
mod full_disk;
mod holders;
mod input;
mod kill_loop;
mod mapping;
mod rights;
mod schema_changes;
mod stops;
