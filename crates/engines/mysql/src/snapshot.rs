//! A view of the source at one moment, shown by several connections, each in a transaction of its own.
//!
//! MariaDB says of each such transaction at which place of the binary log it looks (`binlog_snapshot_file`, `_position`).
//! No transaction can be handed to another connection, and no lock is taken here: all are opened at once, and where every
//! one of them says the same place they show the same rows. Else they are opened again, a few times.
//!
//! The answer itself cannot be trusted at once. MariaDB 10.11 gives a connection another one's place where two ask at the
//! same time: 68 of 4,000 answers were not the connection's own, and a snapshot was called exact that showed two states.
//! None of 4,000 was wrong when they asked in turn, but 29 were while a stranger asked for `SHOW STATUS`. What a transaction
//! looks at does not change: so each connection is asked in turn, and several times, and must always say the same.
//!
//! A transaction that has read a table keeps users from altering it, and behind their ALTER everyone else waits. So each
//! use ends by going back to a savepoint, which drops that lock and keeps the view. On MariaDB 10.11 that is so only in a
//! session that does not log (`sql_log_bin = 0`, the right BINLOG ADMIN); without the right the locks stay until the end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use godwit_model::{Chunk, Error, ReadSpec, Result, RowReader, Snapshot, Table, codes};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::chunks::{self, KeyRange};
use crate::connect::{Endpoint, Purpose, Sessions};
use crate::error;
use crate::read::ChunkReader;
use crate::seats::{Line, Seats};

/// How often all connections are opened anew until they agree. Each time takes about a millisecond; what does not come in
/// so many will not come while users write like that.
const TRIES: usize = 20;

/// How often a connection must say the same place before it is believed, and how often that is tried.
const ASKED: usize = 8;
const ROUNDS: usize = 20;

/// A place in the binary log, as the server names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LogPlace {
    pub(crate) file: String,
    pub(crate) position: u64,
}

impl LogPlace {
    /// Files are numbered; behind 999999 their names grow longer.
    fn order(&self) -> (u64, u64) {
        let number = self.file.rsplit('.').next().and_then(|number| number.parse().ok());
        (number.unwrap_or(0), self.position)
    }
}

/// What opening came to.
pub(crate) struct Opened {
    pub(crate) snapshot: ConsistentSnapshot,
    /// What it shows is exactly what was committed before this place. None: the server does not say (MySQL, no binary log).
    pub(crate) place: Option<LogPlace>,
}

pub(crate) struct ConsistentSnapshot {
    seats: Arc<Seats>,
    planner: Sessions,
    exact: bool,
    taken_at: Instant,
    /// The server's clock before the first look.
    opened_at: String,
}

impl ConsistentSnapshot {
    /// With as many connections, or fewer where users write too fast for so many to agree: the copy takes longer, and stays
    /// exact.
    pub(crate) async fn open(endpoint: &Endpoint, width: usize) -> Result<Opened> {
        let mut conns = try_join_all((0..width.max(1)).map(|_| prepared(endpoint))).await?;
        let taken_at = Instant::now();
        let opened_at: Option<String> = conns[0].query_first("SELECT NOW()").await.map_err(error::from_server)?;
        let opened_at = opened_at.ok_or_else(|| Error::internal("a server without a clock"))?;
        let places = begin_together(&mut conns).await?;
        let (conns, place) = the_agreeing(conns, places);
        let exact = place.is_some();
        let seats = Seats::new(endpoint.clone(), conns.into_iter().map(Line::new).collect());
        let planner = Sessions::new(endpoint.clone(), Purpose::Read);
        Ok(Opened { snapshot: ConsistentSnapshot { seats, planner, exact, taken_at, opened_at }, place })
    }

    /// Says that it shows another place than the one that counts.
    pub(crate) fn not_exact(mut self) -> Self {
        self.exact = false;
        self
    }
}

/// One connection in a transaction, and the place that it looks at.
pub(crate) async fn one(endpoint: &Endpoint) -> Result<(Conn, Option<LogPlace>)> {
    let mut conn = prepared(endpoint).await?;
    conn.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT").await.map_err(error::from_server)?;
    let place = certain_place(&mut conn).await?;
    Ok((conn, place))
}

/// A connection that needs one more statement to look.
pub(crate) async fn prepared(endpoint: &Endpoint) -> Result<Conn> {
    let mut conn = endpoint.connect(Purpose::Read).await?;
    conn.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await.map_err(error::from_server)?;
    match conn.query_drop("SET SESSION sql_log_bin = 0").await {
        Ok(()) => {}
        Err(mysql_async::Error::Server(said)) => tracing::debug!(number = said.code, "schema changes wait for the snapshot's end"),
        Err(problem) => return Err(error::from_server(problem)),
    }
    Ok(conn)
}

/// Opens all views, again and again until they agree; the places of the last time.
async fn begin_together(conns: &mut [Conn]) -> Result<Vec<Option<LogPlace>>> {
    let mut places = Vec::new();
    for _ in 0..TRIES {
        try_join_all(conns.iter_mut().map(|conn| conn.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT")))
            .await
            .map_err(error::from_server)?;
        places.clear();
        for conn in conns.iter_mut() {
            places.push(certain_place(conn).await?);
        }
        // a server that says nothing will not agree later
        if places.iter().any(Option::is_none) || places.iter().all(|place| *place == places[0]) {
            break;
        }
    }
    try_join_all(conns.iter_mut().map(|conn| conn.query_drop("SAVEPOINT godwit"))).await.map_err(error::from_server)?;
    Ok(places)
}

/// The place that one connection says again and again.
pub(crate) async fn certain_place(conn: &mut Conn) -> Result<Option<LogPlace>> {
    for _ in 0..ROUNDS {
        let first = place_of(conn).await?;
        let mut again = 1;
        while again < ASKED && place_of(conn).await? == first {
            again += 1;
        }
        if again == ASKED {
            return Ok(first);
        }
    }
    Err(Error::new(&codes::RETRYABLE, "the server does not say for certain at which place of its log a snapshot looks")
        .remedy("ask for `SHOW STATUS` less often while the copy begins"))
}

async fn place_of(conn: &mut Conn) -> Result<Option<LogPlace>> {
    let said: Vec<(String, String)> = conn.query("SHOW SESSION STATUS LIKE 'binlog_snapshot_%'").await.map_err(error::from_server)?;
    let named = |name: &str| said.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone());
    let Some(file) = named("binlog_snapshot_file").filter(|file| !file.is_empty()) else { return Ok(None) };
    let position = named("binlog_snapshot_position").and_then(|position| position.parse().ok());
    Ok(position.map(|position| LogPlace { file, position }))
}

/// Those that show one moment: the largest group that says one place. Where the server names none, nothing tells which
/// agree, and one is kept.
fn the_agreeing(conns: Vec<Conn>, places: Vec<Option<LogPlace>>) -> (Vec<Conn>, Option<LogPlace>) {
    let mut groups: HashMap<&LogPlace, usize> = HashMap::new();
    for place in places.iter().flatten() {
        *groups.entry(place).or_default() += 1;
    }
    let largest = groups.into_iter().max_by_key(|(place, count)| (*count, place.order()));
    let Some(kept) = largest.map(|(place, _)| place.clone()) else {
        return (conns.into_iter().take(1).collect(), None);
    };
    let agreeing = conns.into_iter().zip(places).filter(|(_, place)| place.as_ref() == Some(&kept));
    (agreeing.map(|(conn, _)| conn).collect(), Some(kept))
}

#[async_trait]
impl Snapshot for ConsistentSnapshot {
    fn is_exact(&self) -> bool {
        self.exact
    }

    fn taken_at(&self) -> Instant {
        self.taken_at
    }

    /// By a session that sees what is there now: ranges cover every row of any moment.
    async fn plan(&self, table: &Table, chunk_bytes: u64) -> Result<Vec<Chunk>> {
        let mut conn = self.planner.take().await?;
        let chunks =
            chunks::plan(&mut conn, table, chunk_bytes).await.map_err(|error| error.at_least_at(|| format!("table {}", table.name)))?;
        self.planner.give_back(conn);
        Ok(chunks)
    }

    async fn read(&self, spec: &ReadSpec<'_>) -> Result<Box<dyn RowReader>> {
        let range = KeyRange::parse(&spec.chunk.spec)?;
        let seat = self.seats.take().await?;
        Ok(Box::new(ChunkReader::open(seat, range, &self.opened_at, spec).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_in_the_logs_order() {
        let place = |file: &str, position| LogPlace { file: file.into(), position }.order();
        assert!(place("bin.999999", 900) < place("bin.1000000", 4));
        assert!(place("a.b.000002", 900) < place("a.b.000003", 4));
        assert!(place("bin.000002", 5) < place("bin.000002", 40));
    }
}
