//! What tests share: a memory engine, fault wrappers, contract suites, private servers.
//!
//! The modules come in the order a test needs them: a task and someone who listens, a store in memory, faults around any
//! store, words for rows and transactions that every engine understands, the suites that every engine passes, the bank
//! workload, real servers, and a network that can be broken. Nothing here is part of the product.

#![allow(clippy::unwrap_used)]

pub mod recorder;
pub mod task;

pub mod memory;

pub mod faults;

pub mod dialect;
pub mod neutral;

pub mod contract;

pub mod bank;

pub mod servers;

pub mod network;
