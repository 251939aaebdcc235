//! The MySQL and MariaDB engine.

mod binlog;
mod changes;
mod connect;
mod error;
mod establish;
mod gtid;
mod marker;
mod position;
mod quote;
mod statement;
mod types;
mod values;
