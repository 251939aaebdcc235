//! The pipeline on the memory engine: whole tasks, with and without faults.

mod simulation;
mod tasks;
mod world;
