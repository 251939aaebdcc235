//! The pipeline on the memory engine: whole tasks, with and without faults.

#![allow(clippy::unwrap_used)]

mod found;
mod simulation;
mod tasks;
mod world;
