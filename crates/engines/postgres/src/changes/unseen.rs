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

/// A transaction whose work is to be seen, and the part of it that did that work, if the whole is perhaps not committed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Unseen {
    pub(super) whole: Xid,
    pub(super) part: Option<Xid>,
}

impl Unseen {
    pub(super) fn committed(whole: Xid) -> Self {
        Unseen { whole, part: None }
    }
}

/// Numbers of the log are 32 bits wide: the one that is nearest to today's is meant.
const UNSEEN: &str = "
SELECT EXISTS (
    SELECT FROM pg_locks l
    WHERE l.locktype = 'transactionid' AND l.transactionid::text = $1 AND l.mode = 'ExclusiveLock' AND l.granted),
    coalesce((
        SELECT pg_xact_status((full_number + CASE WHEN full_number > today + 2147483648 THEN -4294967296
                                                  WHEN full_number < today - 2147483648 THEN 4294967296 ELSE 0 END)::text::xid8)
        FROM (SELECT today, (today >> 32 << 32) + $2::int8 AS full_number
              FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8 AS today) now) near
    ) = 'aborted', false)";

/// Returns when every later question sees what the transaction did.
pub(super) async fn until_seen(client: &Client, unseen: Unseen) -> Result<()> {
    let (number, part) = (unseen.whole.0.to_string(), unseen.part.map(|part| i64::from(part.0)));
    let began = Instant::now();
    loop {
        let row = client.query_one(UNSEEN, &[&number, &part]).await.map_err(error::from_server)?;
        if row.get(1) {
            // what is rolled back by now the server does not tell again
            return Err(Error::new(&codes::RETRYABLE, "a large transaction rolled back a table that it made")
                .effect("nothing of the transaction was taken over; the log is read again"));
        }
        if !row.get::<_, bool>(0) {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            let what = format!("a transaction that made or altered a table is not seen by others within {} s", PATIENCE.as_secs());
            return Err(Error::new(&codes::RETRYABLE, what)
                .remedy("look for a standby that commits wait for, or let the transaction end; it is tried again"));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
