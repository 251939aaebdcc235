//! The replication connection, which the SQL client does not speak: login with `replication=database`, commands, and the
//! two-way copy in which a server sends its log and hears how far it is durable here.
//!
//! `wire` frames bytes, `login` proves who we are, `command` asks questions, `copy` says what travels in the stream, and
//! `pump` keeps the stream alive whatever its reader does. What is inside the log's messages is `pgoutput`'s business.

mod command;
mod copy;
mod login;
mod pump;
mod wire;

pub(crate) use command::{Replication, ServerIdentity};
pub(crate) use copy::LogMessage;
pub(crate) use pump::{Limits, Pump, Received};
pub(crate) use wire::Oversize;
