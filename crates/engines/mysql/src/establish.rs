//! P0, or the proof that a known position still serves.
//!
//! P0 comes from a consistent snapshot: the server says at which place of the log it lies, exactly, and which GTIDs that is. `@@gtid_binlog_pos` would be ahead of what the snapshot shows. What the snapshot does not show and the
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
use crate::snapshot::{ConsistentSnapshot, LogPlace, Width};
use crate::{changes, error, marker, quote, snapshot};

/// For XA transactions that are prepared to end.
const LIMIT: Duration = Duration::from_secs(120);
/// The server tells nobody when one ends.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What `establish` made or found.
pub(crate) struct Founded {
    pub(crate) position: Position,
    /// Shows the source exactly at P0. Only where P0 was made now.
    pub(crate) snapshot: Option<ConsistentSnapshot>,
}

/// `known`: what an earlier call gave and the task relies on; then it is only checked.
pub(crate) async fn establish(endpoint: &Endpoint, task: &Task, width: usize, known: Option<&Position>) -> Result<Founded> {
    let mut conn = endpoint.connect(Purpose::Read).await?;
    match known {
        Some(position) => recognize(endpoint, task, &mut conn, position).await,
        None => found(endpoint, task, width, conn).await,
    }
    .map_err(|error| error.at_least_at(|| endpoint.display.clone()))
}

/// The server itself says whether it still keeps the log from there on: it is asked to send it.
async fn recognize(endpoint: &Endpoint, task: &Task, conn: &mut Conn, position: &Position) -> Result<Founded> {
    let mut place = Place::parse(position)?;
    changes::must_hold(endpoint, conn, &task.name, &place).await?;
    drop(Binlog::open(endpoint, &place.gtids).await?);
    if place.store.is_none() {
        leave_mark(conn, task).await?;
        place.store = changes::store_mark(conn).await?;
    }
    Ok(Founded { position: place.position(), snapshot: None })
}

async fn found(endpoint: &Endpoint, task: &Task, width: usize, mut conn: Conn) -> Result<Founded> {
    changes::must_log_rows(endpoint, &mut conn).await?;
    leave_mark(&mut conn, task).await?;
    let store = changes::store_mark(&mut conn).await?;
    open_snapshot(endpoint, conn, width, store).await
}

async fn leave_mark(conn: &mut Conn, task: &Task) -> Result<()> {
    if task.writes == Writes::Never {
        return Ok(());
    }
    marker::make(conn).await?;
    marker::begin(conn, &task.name).await
}

async fn open_snapshot(endpoint: &Endpoint, mut asking: Conn, width: usize, store: Option<StoreMark>) -> Result<Founded> {
    let began = Instant::now();
    loop {
        let counted = counted(&mut asking).await?;
        wait_for_prepared(&mut asking, began).await?;
        // where users write too fast for several to agree, one is enough: the copy takes longer, and stays exact
        let opened = ConsistentSnapshot::open(endpoint, Width { wanted: width, enough: 1 }).await?;
        let place = opened.place.as_ref().ok_or_else(says_no_place)?;
        let gtids = gtids_at(endpoint, &mut asking, place).await?;
        // one that was prepared before the snapshot's place may be committed by now
        let is_quiet = prepared(&mut asking).await?.is_empty() && self::counted(&mut asking).await? == counted;
        match gtids {
            Some(gtids) if is_quiet => {
                return Ok(Founded { position: Place { gtids, store, last: None }.position(), snapshot: Some(opened.snapshot) });
            }
            _ if began.elapsed() > LIMIT => return Err(never_quiet("go on without a pause")),
            _ => {}
        }
    }
}

fn says_no_place() -> Error {
    Error::new(&codes::SETTING_UNSUITABLE, "the server does not say where in its log a snapshot lies")
}

/// None: the file was removed meanwhile.
async fn gtids_at(endpoint: &Endpoint, conn: &mut Conn, place: &LogPlace) -> Result<Option<GtidPosition>> {
    let sql = format!("SELECT BINLOG_GTID_POS({}, {})", quote::literal(&place.file), place.position);
    let said: Option<Option<String>> = conn.query_first(sql).await.map_err(error::from_server)?;
    let Some(gtids) = said.flatten() else { return counted_in_file(endpoint, &place.file, place.position).await };
    let read = GtidPosition::parse(&gtids).ok_or_else(|| Error::internal(format!("the server's position `{gtids}` cannot be read")))?;
    Ok(Some(read))
}

/// One moment of the source, with its place in the log.
pub(crate) struct Seen {
    pub(crate) position: Position,
    pub(crate) conn: Conn,
}

/// None: the server removed the file of the log that the moment lies in.
pub(crate) async fn look(endpoint: &Endpoint) -> Result<Option<Seen>> {
    let mut asking = endpoint.connect(Purpose::Read).await?;
    let (conn, place) = snapshot::one(endpoint).await?;
    let place = place.ok_or_else(says_no_place)?;
    let Some(gtids) = gtids_at(endpoint, &mut asking, &place).await? else { return Ok(None) };
    Ok(Some(Seen { position: Place { gtids, store: None, last: None }.position(), conn }))
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
