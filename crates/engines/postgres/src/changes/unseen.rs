//! Waits until others see what a transaction of the stream did.
//!
//! A commit is in the log before it is seen; a server that waits for a standby shows it at will. A transaction holds the
//! lock on its own number until it is visible.

use std::time::Duration;

use godwit_model::{Error, Result, codes};
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::error;
use crate::pgoutput::Xid;

/// A standby may be away, or the transaction not be over, for long; then the attempt is made again.
const PATIENCE: Duration = Duration::from_secs(10);
/// The server tells nobody when a transaction ends; waiting on its lock would need its number written to.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

const UNSEEN: &str = "
SELECT EXISTS (
    SELECT FROM pg_locks l
    WHERE l.locktype = 'transactionid' AND l.transactionid::text = $1 AND l.mode = 'ExclusiveLock' AND l.granted)";

/// Returns when every later question sees what the transaction did.
pub(super) async fn until_seen(client: &Client, transaction: Xid) -> Result<()> {
    let number = transaction.0.to_string();
    let began = Instant::now();
    while client.query_one(UNSEEN, &[&number]).await.map_err(error::from_server)?.get(0) {
        if began.elapsed() > PATIENCE {
            let what = format!("a transaction that made or altered a table is not seen by others within {} s", PATIENCE.as_secs());
            return Err(Error::new(&codes::RETRYABLE, what)
                .remedy("look for a standby that commits wait for, or let the transaction end; it is tried again"));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}
