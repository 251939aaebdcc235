//! The MySQL and MariaDB engine against real servers.

#![allow(clippy::unwrap_used)]

mod contract;
