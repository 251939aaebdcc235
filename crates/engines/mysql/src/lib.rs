//! The MySQL and MariaDB engine.

mod catalog;
mod charset;
mod connect;
mod created;
mod ddl;
mod describe;
mod error;
mod logged;
mod look;
mod members;
mod present;
mod quote;
mod renaming;
mod structure;
mod tokens;
mod types;
mod values;
