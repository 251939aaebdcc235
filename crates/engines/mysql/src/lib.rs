//! The MySQL and MariaDB engine.

mod charset;
mod connect;
mod error;
mod logged;
mod quote;
mod types;
mod values;
