//! The SQLite engine against real files, through the contracts alone.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking, as its tests do")]

mod capture;
mod contract;
mod examine;
mod load;
mod replay;
mod schema;
mod stream;
mod target;
mod values;
mod world;
