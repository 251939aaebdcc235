//! The PostgreSQL engine against real servers.

#![allow(clippy::unwrap_used)]

mod capture;
mod check;
mod contract;
mod encryption;
mod keys;
mod literals;
mod load;
mod objects;
mod pair;
mod part;
mod schema;
mod target;
mod unwritten;
mod values;
