//! The MySQL and MariaDB engine.

mod chunks;
mod connect;
mod digest;
#[cfg(test)]
mod digest_tests;
mod error;
#[cfg(test)]
mod lab;
mod quote;
mod read;
mod rows;
mod seats;
mod snapshot;
#[cfg(test)]
mod snapshot_tests;
mod types;
mod values;
