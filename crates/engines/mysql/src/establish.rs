//! P0, or the proof that a known position still serves.
//!
//! P0 comes from one session's own consistent snapshot: the server says at which place of the log it lies, exactly, and
//! which GTIDs that is. `@@gtid_binlog_pos` would be ahead of what the snapshot shows. What the snapshot does not show and the
//! log holds before P0 are XA transactions that are prepared: their rows are before it, their commit behind. So there must
//! be none.

use std::cmp::Ordering;
use std::time::Duration;

use godwit_model::{Error, Position, Result, Task, Writes, codes};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::time::Instant;

use crate::binlog::{Binlog, Event, decode};
use crate::connect::{Endpoint, Purpose};
use crate::gtid::GtidPosition;
use crate::position::{Place, StoreMark};
use crate::{changes, error, marker, quote};

/// For XA transactions that are prepared to end.
const LIMIT: Duration = Duration::from_secs(120);
/// The server tells nobody when one ends.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What `establish` made or found.
pub(crate) struct Founded {
    pub(crate) position: Position,
    /// A session in a transaction that shows the source exactly at P0. Only where P0 was made now.
    pub(crate) snapshot: Option<Conn>,
}

/// `known`: what an earlier call gave and the task relies on; then it is only checked.
pub(crate) async fn establish(endpoint: &Endpoint, task: &Task, known: Option<&Position>) -> Result<Founded> {
    let mut conn = endpoint.connect(Purpose::Read).await?;
    match known {
        Some(position) => recognize(endpoint, &mut conn, position).await,
        None => found(endpoint, task, conn).await,
    }
    .map_err(|error| error.at_least_at(|| endpoint.display.clone()))
}

/// The server itself says whether it still keeps the log from there on: it is asked to send it.
async fn recognize(endpoint: &Endpoint, conn: &mut Conn, position: &Position) -> Result<Founded> {
    let mut place = Place::parse(position)?;
    changes::must_hold(endpoint, conn, &place).await?;
    drop(Binlog::open(endpoint, &place.gtids).await?);
    if place.store.is_none() {
        place.store = changes::store_mark(conn).await?;
    }
    Ok(Founded { position: place.position(), snapshot: None })
}

async fn found(endpoint: &Endpoint, task: &Task, mut conn: Conn) -> Result<Founded> {
    changes::must_log_rows(endpoint, &mut conn).await?;
    if task.writes != Writes::Never {
        marker::make(&mut conn).await?;
    }
    let store = changes::store_mark(&mut conn).await?;
    open_snapshot(endpoint, conn, store).await
}

async fn open_snapshot(endpoint: &Endpoint, mut conn: Conn, store: Option<StoreMark>) -> Result<Founded> {
    // asked on a session of its own: on the other the snapshot is open
    let mut asking = endpoint.connect(Purpose::Read).await?;
    let began = Instant::now();
    loop {
        let counted = counted(&mut asking).await?;
        wait_for_prepared(&mut asking, began).await?;
        let gtids = begin(endpoint, &mut conn).await?;
        // one that was prepared before the snapshot's place may be committed by now
        let is_quiet = prepared(&mut asking).await?.is_empty() && self::counted(&mut asking).await? == counted;
        match gtids {
            Some(gtids) if is_quiet => return Ok(Founded { position: Place { gtids, store }.position(), snapshot: Some(conn) }),
            _ if began.elapsed() > LIMIT => return Err(never_quiet("go on without a pause")),
            _ => conn.query_drop("ROLLBACK").await.map_err(error::from_server)?,
        }
    }
}

/// Opens the snapshot and gives its place in GTIDs. None: the file was removed meanwhile.
async fn begin(endpoint: &Endpoint, conn: &mut Conn) -> Result<Option<GtidPosition>> {
    for sql in ["SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"] {
        conn.query_drop(sql).await.map_err(error::from_server)?;
    }
    let status: Vec<(String, String)> = conn.query("SHOW STATUS LIKE 'binlog\\_snapshot\\_%'").await.map_err(error::from_server)?;
    let value = |wanted: &str| status.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.as_str());
    let (Some(file), Some(Ok(place))) = (value("binlog_snapshot_file"), value("binlog_snapshot_position").map(str::parse::<u64>)) else {
        return Err(Error::new(&codes::SETTING_UNSUITABLE, "the server does not say where in its log a snapshot lies"));
    };
    let sql = format!("SELECT BINLOG_GTID_POS({}, {place})", quote::literal(file));
    let said: Option<Option<String>> = conn.query_first(sql).await.map_err(error::from_server)?;
    let Some(gtids) = said.flatten() else { return counted_in_file(endpoint, file, place).await };
    let read = GtidPosition::parse(&gtids).ok_or_else(|| Error::internal(format!("the server's position `{gtids}` cannot be read")))?;
    Ok(Some(read))
}

/// The same by reading the file as a replica does. The server's own function gives NULL where an event before the place is
/// larger than `max_allowed_packet`, as an update of two large rows may be (seen on 10.11); what it sends is not limited.
async fn counted_in_file(endpoint: &Endpoint, file: &str, place: u64) -> Result<Option<GtidPosition>> {
    let mut log = match Binlog::open_file(endpoint, file).await {
        Err(error) if error.is(&codes::POSITION_LOST) => return Ok(None),
        opened => opened?,
    };
    let mut gtids = GtidPosition::default();
    loop {
        let raw = log.next().await?;
        match decode(raw.header(), raw.body())? {
            Event::GtidList(list) => list.into_iter().for_each(|gtid| gtids.add(gtid)),
            Event::Gtid(event) => gtids.add(event.gtid),
            Event::Rotate | Event::Heartbeat => return Err(past(file, place)),
            _ => {}
        }
        match u64::from(raw.header().end).cmp(&place) {
            Ordering::Less => {}
            Ordering::Equal => return Ok(Some(gtids)),
            Ordering::Greater => return Err(past(file, place)),
        }
    }
}

fn past(file: &str, place: u64) -> Error {
    Error::new(
        &codes::RETRYABLE,
        format!("the server's log file {file} has no event that ends at {place}, where it says that its snapshot lies"),
    )
    .remedy("FLUSH BINARY LOGS begins a new file; it is tried again")
    .effect("nothing was read")
}

/// How many XA transactions were prepared, committed and rolled back since the server started.
async fn counted(conn: &mut Conn) -> Result<Vec<(String, String)>> {
    conn.query("SHOW GLOBAL STATUS WHERE Variable_name IN ('Com_xa_prepare', 'Com_xa_commit', 'Com_xa_rollback')")
        .await
        .map_err(error::from_server)
}

/// What people know of XA transactions that are prepared.
async fn prepared(conn: &mut Conn) -> Result<Vec<String>> {
    let rows: Vec<(i64, i64, i64, String)> = conn.query("XA RECOVER FORMAT = 'SQL'").await.map_err(error::from_server)?;
    Ok(rows.into_iter().map(|(_, _, _, name)| name).collect())
}

/// Returns when there is none.
async fn wait_for_prepared(conn: &mut Conn, began: Instant) -> Result<()> {
    loop {
        let open = prepared(conn).await?;
        if open.is_empty() {
            return Ok(());
        }
        if began.elapsed() > LIMIT {
            let named = open.iter().take(5).map(String::as_str).collect::<Vec<_>>().join("; ");
            return Err(never_quiet(&format!("stay prepared ({named})")));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn never_quiet(what: &str) -> Error {
    let what = format!("XA transactions {what} for {} s, so that no beginning of the changes can be told", LIMIT.as_secs());
    Error::new(&codes::RETRYABLE, what).remedy("end them with XA COMMIT or XA ROLLBACK; it is tried again").effect("nothing was read")
}
