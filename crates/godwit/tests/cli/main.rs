//! The built binary, as its users meet it: on SQLite files, with writers at work.

#![allow(clippy::unwrap_used)]

mod process;
mod shop;

mod control;
mod crash;
mod demo;
mod finish;
mod input;
mod output;
mod stop;
mod verify;
