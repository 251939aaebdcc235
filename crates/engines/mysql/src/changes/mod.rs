//! The changes of a source, as its binary log tells them.
//!
//! `sight` asks the server what a stream must know before it begins; `beginning` knows the last transaction again; `tables` knows the selected tables and holds the log's
//! own description of them against theirs; `agree` says whether two types are one; `transaction` gathers one transaction, with
//! its savepoints; `feed` turns events into items.

mod agree;
mod beginning;
mod feed;
mod sight;
mod tables;
mod transaction;

pub(crate) use feed::Changes;
pub(crate) use sight::{end_of_log, must_hold, must_log_rows, store_mark};
