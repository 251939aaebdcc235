//! Makes an idle server flush its log, so that a marker that is a place in it is passed.
//!
//! What open transactions wrote may lie unflushed until the server's next snapshot record, for 15 s, and a stream shows
//! only what is flushed. The making of a logical slot writes that record at once and flushes it before it waits for
//! anything. Such a slot is no write to a database; it is temporary, and goes with its session.

use std::time::Duration;

use godwit_model::{EndpointConfig, Result};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_postgres::Client;

use super::awaited::Awaited;
use crate::{connect, error, quote};

/// A server at work needs no help within this time.
const AFTER: Duration = Duration::from_secs(1);
/// A help that did not help is not repeated without a pause.
const AGAIN: Duration = Duration::from_secs(5);
/// The record is flushed long before; the slot then waits for transactions that are open, and we do not.
const WITHIN: &str = "SET statement_timeout = '500ms'";

/// The server tells nobody when a session is over.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Whatever still holds a session then is not waited for: the slot goes with it all the same.
const MOST_LOOKS: u32 = 100;

fn slots(name: &str) -> String {
    format!("{name}_hurry_")
}

/// Ends what a stream that is gone may have left at work for a moment.
pub(crate) async fn end_hurries(client: &Client, name: &str) -> Result<()> {
    let sql = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE starts_with(slot_name, $1) AND temporary AND active_pid IS NOT NULL";
    for _ in 0..MOST_LOOKS {
        if client.query(sql, &[&slots(name)]).await.map_err(error::from_server)?.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

/// At most one at a time, which ends with its owner.
pub(super) struct Hurry {
    endpoint: EndpointConfig,
    /// Of the task's publication and slot.
    name: String,
    last: Option<Instant>,
    work: Option<JoinHandle<()>>,
}

impl Drop for Hurry {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Hurry {
    pub(super) fn new(endpoint: EndpointConfig, name: String) -> Self {
        Hurry { endpoint, name, last: None, work: None }
    }

    /// Returns when a marker has waited for so long that the server should be helped. Safe to drop.
    pub(super) async fn due(&self, awaited: &Awaited) {
        let Some(oldest) = awaited.oldest() else { return std::future::pending().await };
        let earliest = self.last.map_or(oldest + AFTER, |last| (last + AGAIN).max(oldest + AFTER));
        tokio::time::sleep_until(earliest).await;
    }

    pub(super) fn begin(&mut self) {
        self.stop();
        self.last = Some(Instant::now());
        let (endpoint, slot) = (self.endpoint.clone(), format!("{}{:08x}", slots(&self.name), fastrand::u32(..)));
        self.work = Some(tokio::spawn(async move {
            if let Err(error) = flush(&endpoint, &slot).await {
                tracing::debug!(%error, "the source's log could not be flushed");
            }
        }));
    }

    fn stop(&mut self) {
        if let Some(work) = self.work.take() {
            work.abort();
        }
    }
}

async fn flush(endpoint: &EndpointConfig, slot: &str) -> Result<()> {
    let session = connect::sql(endpoint, "godwit hurry").await?;
    // a standby writes no record of its own
    let is_standby: bool = session.query_one("SELECT pg_is_in_recovery()", &[]).await.map_err(error::from_server)?.get(0);
    if is_standby {
        return Ok(());
    }
    session.batch_execute(WITHIN).await.map_err(error::from_server)?;
    let sql = format!("SELECT pg_create_logical_replication_slot({}, 'pgoutput', true)", quote::literal(slot));
    session.batch_execute(&sql).await.map_err(error::from_server)
}
