//! The MySQL and MariaDB engine.

mod catalog;
mod charset;
mod chunks;
mod connect;
mod created;
mod ddl;
mod describe;
mod digest;
#[cfg(test)]
mod digest_tests;
mod error;
#[cfg(test)]
mod lab;
mod logged;
mod look;
mod members;
mod present;
mod quote;
mod read;
mod renaming;
mod rows;
mod seats;
mod snapshot;
#[cfg(test)]
mod snapshot_tests;
mod structure;
mod tokens;
mod types;
mod values;
