//! The MySQL and MariaDB engine.

mod connect;
mod error;
mod quote;
mod types;
