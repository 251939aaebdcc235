//! P0, or the proof that a known position still serves.
//!
//! P0 comes from a consistent snapshot: the server says at which place of the log it lies, exactly, and which GTIDs that is.
//! `@@gtid_binlog_pos` would be ahead of what the snapshot shows. What the snapshot does not show and the log holds before
//! P0 are XA transactions that are prepared (`prepared`): there must be none.

use std::cmp::Ordering;
use std::time::Duration;

use godwit_model::{Error, Position, Result, Task, Writes, codes};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::time::Instant;

use crate::binlog::{Binlog, Event, decode};
use crate::connect::{Endpoint, Purpose};
use crate::gtid::{Gtid, GtidPosition};
use crate::patience::answered;
use crate::position::{Place, StoreMark};
use crate::prepared::Waiting;
use crate::snapshot::{ConsistentSnapshot, LogPlace};
use crate::{changes, error, marker, prepared, quote, snapshot};

/// For what is in the log already to show: commits wait there for a disk, or for a replica that must have them first, and
/// how long is the administrator's setting.
const LIMIT: Duration = Duration::from_secs(120);
/// The server tells nobody when a commit shows.
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
    let log = Binlog::open(endpoint, &place.gtids).await?;
    // those that a stream gave follow a P0 that none lies across
    if task.from.as_ref() == Some(position) {
        prepared::must_not_lie_across(&place.gtids, log, conn).await?;
    }
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
    marker::begin(conn, &task.name).await
}

async fn open_snapshot(endpoint: &Endpoint, mut asking: Conn, width: usize, store: Option<StoreMark>) -> Result<Founded> {
    let waiting = Waiting::begin();
    loop {
        let counted = prepared::counted(&mut asking).await?;
        waiting.until_none(&mut asking).await?;
        let opened = ConsistentSnapshot::open(endpoint, width).await?;
        let place = opened.place.as_ref().ok_or_else(says_no_place)?;
        let gtids = gtids_at(endpoint, &mut asking, place).await?;
        // one that was prepared before the snapshot's place may be committed by now
        let is_quiet = prepared::names(&mut asking).await?.is_empty() && prepared::counted(&mut asking).await? == counted;
        match gtids {
            Some(gtids) if is_quiet => {
                return Ok(Founded { position: Place { gtids, store, last: None }.position(), snapshot: Some(opened.snapshot) });
            }
            _ => waiting.must_go_on("go on without a pause")?,
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
///
/// Replicas are sent what the log has, and other sessions may not see it yet: with semi-synchronous replication
/// (`AFTER_SYNC`) a commit waits between the two for seconds. So a moment counts only if it shows what the log had before.
pub(crate) async fn look(endpoint: &Endpoint) -> Result<Option<Seen>> {
    let began = Instant::now();
    let mut asking = answered(endpoint.connect(Purpose::Read)).await?;
    let given = answered(changes::end_of_log(&mut asking)).await?;
    loop {
        let (conn, place) = answered(snapshot::one(endpoint)).await?;
        let place = place.ok_or_else(says_no_place)?;
        let Some(gtids) = gtids_at(endpoint, &mut asking, &place).await? else { return Ok(None) };
        let Some(unseen) = given.ahead_of(&gtids) else {
            return Ok(Some(Seen { position: Place { gtids, store: None, last: None }.position(), conn }));
        };
        if began.elapsed() > LIMIT {
            return Err(never_shown(unseen));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn never_shown(gtid: &Gtid) -> Error {
    Error::new(&codes::RETRYABLE, format!("{gtid} is in the source's log for {} s, and its rows do not show", LIMIT.as_secs()))
        .remedy("its commit waits for a replica (rpl_semi_sync_master_timeout) or a disk; it is tried again")
        .effect("nothing was compared")
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
        match raw.header().end.cmp(&place) {
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
