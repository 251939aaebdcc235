//! Transactions of users that making a slot, or trusting a snapshot, must wait for.
//!
//! A transaction whose commit is in the log may still be invisible, for instance while it waits for a standby: the log
//! will not tell it again, and no snapshot shows it yet. It holds the lock on its own number until it is visible, so
//! that those locks are what to wait for; comparing snapshots proves nothing.

use std::time::Duration;

use godwit_model::{Error, Result, codes};
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::error;

/// For the slot, and for the transactions under way behind it, each.
pub(super) const LIMIT: Duration = Duration::from_secs(120);
/// The server tells nobody when a transaction ends; waiting on its lock would need its number written to.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

const OPEN: &str = "
SELECT l.transactionid::text
FROM pg_locks l WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()";

const NAMED: &str = "
SELECT coalesce('server process ' || l.pid || coalesce(' of ' || a.usename, '') || coalesce(', open for ' || date_trunc('second', clock_timestamp() - a.xact_start), ''),
                'prepared transaction ' || quote_literal(x.gid) || ' of ' || x.owner || ', prepared ' || date_trunc('second', clock_timestamp() - x.prepared) || ' ago',
                'a prepared transaction')
FROM pg_locks l
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_prepared_xacts x ON x.transaction = l.transactionid
WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted
  AND l.pid IS DISTINCT FROM pg_backend_pid() AND l.pid IS DISTINCT FROM $1
ORDER BY coalesce(a.xact_start, x.prepared) LIMIT 5";

/// The oldest of them in words.
pub(crate) async fn name_all(client: &Client, but: i32) -> Result<Vec<String>> {
    let rows = client.query(NAMED, &[&but]).await.map_err(error::from_server)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

pub(super) fn too_long(what: &str, within: Duration, blockers: Vec<String>) -> Error {
    let blockers = if blockers.is_empty() { "none is left now".to_owned() } else { blockers.join("; ") };
    Error::new(&codes::RETRYABLE, format!("{what} within {} s, because of open transactions: {blockers}", within.as_secs()))
        .remedy("end these transactions (COMMIT, ROLLBACK PREPARED, pg_terminate_backend); it is tried again")
        .effect("the slot was removed; nothing was read")
}

async fn open(client: &Client) -> Result<Vec<String>> {
    let rows = client.query(OPEN, &[]).await.map_err(error::from_server)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Returns when every transaction that is open now has ended.
pub(super) async fn wait_for_commits_under_way(client: &Client) -> Result<()> {
    let began = Instant::now();
    let mut waited_for = open(client).await?;
    while !waited_for.is_empty() {
        if began.elapsed() > LIMIT {
            return Err(too_long(
                "the transactions open when the replication slot was made did not end",
                LIMIT,
                name_all(client, 0).await?,
            ));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
        let now = open(client).await?;
        waited_for.retain(|transaction| now.contains(transaction));
    }
    Ok(())
}
