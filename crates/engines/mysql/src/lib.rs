//! The MySQL and MariaDB engine.

mod apply;
mod charset;
mod chunk;
mod connect;
mod durability;
mod error;
mod lease;
mod logged;
mod numbers;
mod performing;
mod quote;
mod script;
mod sending;
mod shape;
mod statements;
mod target;
#[cfg(test)]
mod target_tests;
mod types;
mod values;
mod writers;
