//! The MySQL and MariaDB engine.

mod binlog;
mod changes;
mod charset;
mod connect;
mod error;
mod establish;
mod gtid;
mod logged;
mod marker;
mod position;
mod quote;
mod statement;
mod types;
mod values;

#[cfg(test)]
mod lab_tests;
