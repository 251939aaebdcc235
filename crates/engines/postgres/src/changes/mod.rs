//! The changes of a source, as its logical decoding tells them.
//!
//! `slot` sees that the log is still kept from the wanted position on, by the server it was, and that the slot is free;
//! `relations` knows which table a relation of the stream belongs to; `unseen` waits for a catalog that is not behind the
//! stream; `sight` sees that every table is still in the log; `assemble` turns messages into items, purely; `awaited` keeps
//! markers that are in no log; `hurry` has an idle server flush what lies before them; `feed` drives them all.

mod assemble;
mod awaited;
mod feed;
mod hurry;
mod layouts;
mod relations;
mod sight;
mod slot;
mod unseen;

pub(crate) use awaited::{Awaited, Wanted};
pub(crate) use feed::ChangeFeed;
pub(crate) use hurry::end_hurries;
pub(crate) use slot::{Slot, backlog, missing, release, same_system};
