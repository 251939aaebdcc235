//! The MySQL and MariaDB engine.

mod apply;
mod catalog;
mod charset;
mod chunk;
mod chunks;
mod connect;
mod created;
mod ddl;
mod describe;
mod digest;
#[cfg(test)]
mod digest_tests;
mod durability;
mod error;
#[cfg(test)]
mod lab;
mod lease;
mod logged;
mod look;
mod members;
mod numbers;
mod performing;
mod present;
mod quote;
mod read;
mod renaming;
mod rows;
mod script;
mod seats;
mod sending;
mod shape;
mod snapshot;
#[cfg(test)]
mod snapshot_tests;
mod statements;
mod structure;
mod target;
#[cfg(test)]
mod target_tests;
mod tokens;
mod types;
mod values;
mod writers;
