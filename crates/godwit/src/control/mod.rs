//! Speaking to a run from another process, through a socket in its state folder.
//!
//! While a run is alive it alone may write for its task; what others ask is carried out inside it (`server`), and they
//! are shown its progress and given the answer (`client`). A socket that nobody answers at is stale: its run is gone.

mod door;
mod protocol;

mod client;
mod server;

pub use client::Live;
pub use protocol::Command;
pub use server::{Control, Order};
