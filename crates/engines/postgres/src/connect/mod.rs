//! Connections to a server: address, socket, encryption, login, and the settings every session of ours has.
//!
//! The socket and its encryption are made here for both clients, the SQL client (`sql`) and the replication client, so
//! that both reach a server by the same rules and notice a dead network by the same means. `watch` notices an SQL
//! connection that is open and carries nothing any more.

mod address;
mod gathering;
mod session;
mod settings;
mod socket;
mod tls;
mod watch;

pub(crate) use address::Address;
pub(crate) use session::{Session, major_version, sql, within_limit, without_encryption};
pub(crate) use settings::settings_for;
pub(crate) use socket::{Stream, open};
