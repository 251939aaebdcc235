//! XA transactions that lie across a position: prepared before it, committed behind it.
//!
//! Their rows are in the log where they are prepared, and behind the position only the word that they are committed; no
//! snapshot shows them before that. So there must be none.

use std::collections::HashSet;
use std::time::Duration;

use godwit_model::{Error, Result, codes};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::time::Instant;

use crate::binlog::{Binlog, Event, decode, xa};
use crate::gtid::{Gtid, GtidPosition};
use crate::{changes, error};

/// For XA transactions that are prepared to end.
const LIMIT: Duration = Duration::from_secs(120);
/// The server tells nobody when one ends.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Whoever waits for XA transactions, and since when.
#[derive(Clone, Copy)]
pub(crate) struct Waiting(Instant);

impl Waiting {
    pub(crate) fn begin() -> Self {
        Waiting(Instant::now())
    }

    /// Returns when none is prepared.
    pub(crate) async fn until_none(self, conn: &mut Conn) -> Result<()> {
        loop {
            let open = names(conn).await?;
            if open.is_empty() {
                return Ok(());
            }
            let named = open.iter().take(5).map(String::as_str).collect::<Vec<_>>().join("; ");
            self.must_go_on(&format!("stay prepared ({named})"))?;
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// `what`: XA transactions do.
    pub(crate) fn must_go_on(self, what: &str) -> Result<()> {
        if self.0.elapsed() <= LIMIT {
            return Ok(());
        }
        let what = format!("XA transactions {what} for {} s, so that no beginning of the changes can be told", LIMIT.as_secs());
        Err(Error::new(&codes::RETRYABLE, what)
            .remedy("end them with XA COMMIT or XA ROLLBACK; it is tried again")
            .effect("nothing was read"))
    }
}

/// How many XA transactions were prepared, committed and rolled back since the server started.
pub(crate) async fn counted(conn: &mut Conn) -> Result<Vec<(String, String)>> {
    conn.query("SHOW GLOBAL STATUS WHERE Variable_name IN ('Com_xa_prepare', 'Com_xa_commit', 'Com_xa_rollback')")
        .await
        .map_err(error::from_server)
}

/// What people know of XA transactions that are prepared.
pub(crate) async fn names(conn: &mut Conn) -> Result<Vec<String>> {
    let rows: Vec<(i64, i64, i64, String)> = conn.query("XA RECOVER FORMAT = 'SQL'").await.map_err(error::from_server)?;
    Ok(rows.into_iter().map(|(_, _, _, name)| name).collect())
}

/// Refuses a position, of any age, that an XA transaction lies across. `log` begins there: when none is prepared any more,
/// those that did are committed in what it has by then.
pub(crate) async fn must_not_lie_across(from: &GtidPosition, mut log: Binlog, conn: &mut Conn) -> Result<()> {
    Waiting::begin().until_none(conn).await?;
    let end = changes::end_of_log(conn).await?;
    let mut passed = from.clone();
    let mut begun = HashSet::new();
    let mut open: Option<(Gtid, bool)> = None;
    while end.ahead_of(&passed).is_some() {
        let raw = log.next().await?;
        match decode(raw.header(), raw.body())? {
            Event::Heartbeat => {}
            Event::Gtid(event) => {
                let is_foreign = match xa(raw.body())? {
                    Some(name) if event.prepared => {
                        begun.insert(name);
                        false
                    }
                    Some(name) => !begun.remove(&name),
                    None => false,
                };
                open = Some((event.gtid, is_foreign));
            }
            event => {
                let Some((gtid, is_foreign)) = open.take() else { continue };
                if is_foreign && !is_rollback(&event) {
                    return Err(lies_across(gtid));
                }
                passed.add(gtid);
            }
        }
    }
    Ok(())
}

/// What ends an XA transaction is a statement, in the server's own words.
fn is_rollback(event: &Event<'_>) -> bool {
    matches!(event, Event::Query(query) if query.sql.starts_with(b"XA ROLLBACK"))
}

fn lies_across(end: Gtid) -> Error {
    let what = format!("an XA transaction whose rows lie before the position is committed behind it, with {end}");
    Error::new(&codes::OUT_OF_SIGHT, what)
        .remedy(format!("begin from a position before its XA PREPARE, or from {end} on if the target has its rows"))
        .effect("nothing was read")
}
