//! The server's binary log, as a replica is sent it.
//!
//! `stream` connects as a replica and hands out raw events; `reader` takes bytes apart; `events` knows which event is which, and
//! refuses those it does not know: an event that is skipped may be rows that are lost. `column` and `table_map` say how the rows that
//! follow are written, `rows` cuts them into values. Nothing here knows which tables a task wants.

mod column;
mod decompress;
mod events;
mod reader;
mod rows;
mod stream;
mod table_map;

pub(crate) use column::{DECIMAL_DIGITS, LoggedType, decimal_length, is_number, kind, length_width};
pub(crate) use events::{Event, GtidEvent, Header, Query, decode, xa};
pub(crate) use rows::{Image, RowsEvent, RowsKind};
pub(crate) use stream::{Binlog, Raw};
pub(crate) use table_map::{LoggedTable, Metadata, TableMap};

/// Of the log, never of a row's value.
pub(crate) fn undecodable(what: impl Into<String>) -> godwit_model::Error {
    godwit_model::Error::new(&godwit_model::codes::LOG_UNDECODABLE, what)
}
