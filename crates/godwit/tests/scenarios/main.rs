//! Whole tasks, run by the real binary on real stores: the same scenarios for every engine.

#![allow(clippy::unwrap_used)]

mod alterations;
mod bank;
mod island;
mod pair;
mod postgres;
mod process;
mod sqlite;
mod store;

mod adversity;
mod at_target;
mod binary_log;
mod budgets;
mod changes;
mod changes_alone;
mod clock;
mod differences;
mod existing;
mod failover;
mod foreign_databases;
// release builds have none
#[cfg(debug_assertions)]
mod failpoints;
mod full_disk;
mod holders;
mod input;
mod kill_commands;
mod kill_loop;
mod large_objects;
mod many;
mod mapping;
mod mysql;
mod network;
mod rights;
mod schema_changes;
mod schema_file;
mod stops;
mod versions;
mod without_pg_dump;
