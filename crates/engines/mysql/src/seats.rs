//! Connections that look at one moment and cannot be made again: each is one seat, and readers wait for a free one.
//!
//! A seat that is given up in the middle of an answer has its statement killed by another connection and comes back with its
//! transaction as it was: the moment it shows can be read on. What cannot be saved is cut off.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use godwit_model::{Error, Result, codes};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, QueryResult, Row, TextProtocol};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::connect::{Endpoint, Purpose};
use crate::error;

/// What a seat's transaction goes back to after every use. The locks that hold up users' schema changes go with it, where
/// the session does not log (see `snapshot`).
pub(crate) const GO_BACK: &str = "ROLLBACK TO SAVEPOINT godwit";

/// A kill is answered at once; what was sent before it is read in this time or the seat is lost.
const RECOVERY_LIMIT: Duration = Duration::from_secs(20);

/// A connection that is cut at once when it is dropped in the middle of an answer. The client would read the answer to its
/// end instead, in the background, and the server would compute all of it.
pub(crate) struct Line {
    conn: Option<Conn>,
    busy: bool,
}

impl Line {
    pub(crate) fn new(conn: Conn) -> Self {
        Line { conn: Some(conn), busy: false }
    }

    pub(crate) fn conn(&mut self) -> Result<&mut Conn> {
        self.conn.as_mut().ok_or_else(error::lost)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Some(mut conn) = self.conn.take().filter(|_| self.busy) else { return };
        // a request that is not waited for leaves the client sure that nothing can be asked here any more
        let _ = conn.ping().now_or_never();
    }
}

pub(crate) struct Seats {
    endpoint: Endpoint,
    idle: Mutex<Vec<Line>>,
    /// As many permits as there are idle lines; closed when the last line is lost.
    free: Semaphore,
    open: AtomicUsize,
    returning: Mutex<JoinSet<()>>,
}

impl Seats {
    pub(crate) fn new(endpoint: Endpoint, lines: Vec<Line>) -> Arc<Self> {
        let (free, open) = (Semaphore::new(lines.len()), AtomicUsize::new(lines.len()));
        Arc::new(Seats { endpoint, idle: Mutex::new(lines), free, open, returning: Mutex::default() })
    }

    /// Waits for a free seat.
    pub(crate) async fn take(self: &Arc<Self>) -> Result<Seat> {
        let gone = || Error::new(&codes::RETRYABLE, "the snapshot is no longer there");
        self.free.acquire().await.map_err(|_| gone())?.forget();
        let mut line = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().ok_or_else(gone)?;
        line.busy = true;
        Ok(Seat { line: Some(line), seats: self.clone() })
    }

    fn give_back(&self, mut line: Line) {
        line.busy = false;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        self.free.add_permits(1);
    }

    fn lose(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.free.close();
        }
    }

    fn recover(self: &Arc<Self>, line: Line) {
        let Ok(runtime) = Handle::try_current() else { return self.lose() };
        let (endpoint, home) = (self.endpoint.clone(), Arc::downgrade(self));
        let mut returning = self.returning.lock().unwrap_or_else(PoisonError::into_inner);
        while returning.try_join_next().is_some() {}
        let work = async move {
            let line = tokio::time::timeout(RECOVERY_LIMIT, interrupted(&endpoint, line)).await;
            let Some(home) = home.upgrade() else { return };
            match line {
                Ok(Ok(line)) => home.give_back(line),
                _ => home.lose(),
            }
        };
        returning.spawn_on(work, &runtime);
    }
}

/// The line with its statement ended and its answer read.
async fn interrupted(endpoint: &Endpoint, mut line: Line) -> Result<Line> {
    let conn = line.conn()?;
    let mut other = endpoint.connect(Purpose::Read).await?;
    // one that has ended by itself is no error here
    other.query_drop(format!("KILL QUERY {}", conn.id())).await.map_err(error::from_server)?;
    loop {
        match QueryResult::<'_, '_, TextProtocol>::new(&mut *conn).next().await {
            Ok(Some(_)) => {}
            Ok(None) | Err(mysql_async::Error::Server(_)) => break,
            Err(problem) => return Err(error::from_server(problem)),
        }
    }
    // a kill that came too late for its statement may end the next one
    if conn.query_drop("DO 0").await.is_err() {
        conn.query_drop("DO 0").await.map_err(error::from_server)?;
    }
    conn.query_drop(GO_BACK).await.map_err(error::from_server)?;
    Ok(line)
}

/// One connection, for as long as it is used. Dropped without `leave`, its statement is killed.
pub(crate) struct Seat {
    line: Option<Line>,
    seats: Arc<Seats>,
}

impl Seat {
    pub(crate) fn conn(&mut self) -> Result<&mut Conn> {
        self.line.as_mut().ok_or_else(error::lost)?.conn()
    }

    /// The next row of the answer under way.
    pub(crate) async fn next(&mut self) -> Result<Option<Row>, mysql_async::Error> {
        let lost = || mysql_async::Error::Driver(mysql_async::DriverError::ConnectionClosed);
        let conn = self.line.as_mut().and_then(|line| line.conn.as_mut()).ok_or_else(lost)?;
        QueryResult::<'_, '_, TextProtocol>::new(conn).next().await
    }

    /// For a seat whose answers are all read and whose transaction went back.
    pub(crate) fn leave(mut self) {
        if let Some(line) = self.line.take() {
            self.seats.give_back(line);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            self.seats.recover(line);
        }
    }
}
