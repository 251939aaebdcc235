//! DDL on a live table: a lock that waits makes every user wait behind it, so ours waits a moment only, and tries again.

use std::time::Duration;

use godwit_model::{Error, Result, codes};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::error;

/// Users wait at most this long behind us.
const LOCK_TIMEOUT: &str = "200ms";
/// About a minute with the pauses.
const ATTEMPTS: u32 = 100;
const SHORTEST_PAUSE: u64 = 100;
const LONGEST_PAUSE: u64 = 700;

/// Runs the statements in one transaction under a short lock timeout, again and again.
pub(crate) async fn with_short_locks(client: &Client, statements: &str, place: &str) -> Result<()> {
    let sql = format!("BEGIN; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; {statements}; COMMIT");
    for _ in 0..ATTEMPTS {
        let Err(problem) = client.batch_execute(&sql).await else { return Ok(()) };
        let state = problem.code().cloned();
        let error = error::from_server(problem);
        if client.is_closed() {
            return Err(error);
        }
        client.batch_execute("ROLLBACK").await.map_err(error::from_server)?;
        if state != Some(SqlState::LOCK_NOT_AVAILABLE) && state != Some(SqlState::T_R_DEADLOCK_DETECTED) {
            return Err(error.at_least_at(|| place.to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(SHORTEST_PAUSE..LONGEST_PAUSE))).await;
    }
    Err(Error::new(&codes::BUSY, format!("a lock was not free within {LOCK_TIMEOUT} in {ATTEMPTS} attempts"))
        .at(place)
        .remedy("look in pg_locks for the session that holds it; it is tried again")
        .effect("nothing was changed; no user waited longer than the lock timeout"))
}
