//! The MySQL and MariaDB engine.

mod catalog;
mod connect;
mod created;
mod ddl;
mod describe;
mod error;
mod look;
mod members;
mod present;
mod quote;
mod renaming;
mod structure;
mod tokens;
mod types;
