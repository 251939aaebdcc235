//! The messages of the `pgoutput` plugin, decoded.
//!
//! `decode` is total: any bytes give a message or `LOG_UNDECODABLE`, never a panic. Values are slices of the message.
//! Written after the protocol's documentation ("Logical Replication Message Formats"), versions 1 to 4, without
//! two-phase commit and without parallel streaming, which are never asked for.

mod decode;
mod message;
mod reader;

pub(crate) use decode::{decode, glance};
pub(crate) use message::{Message, Old, Relation, Xid};
