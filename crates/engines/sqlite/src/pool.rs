//! Connections that wait for their next question.
//!
//! Each new connection reads the file's whole schema before its first answer, and a task asks some questions for every
//! table: with a connection for each, time would grow with the square of the tables. One that waits holds no lock, keeps
//! nothing that it read but the schema, and is not used again once another file has taken the place of its own.

use std::sync::{Mutex, PoisonError};

use godwit_model::Result;
use rusqlite::Connection;

use crate::connect::{Location, Purpose};
use crate::error::Told;
use crate::session::Session;

/// Kept at a time: two tables are looked at side by side. Each holds the schema in memory once more.
const MOST_WAITING: usize = 2;

pub(crate) struct Pool {
    location: Location,
    purpose: Purpose,
    name: &'static str,
    waiting: Mutex<Vec<Waiting>>,
}

struct Waiting {
    session: Session,
    /// Of the file that it was opened on.
    identity: String,
}

/// One that was taken; it is closed unless it is given back.
pub(crate) struct Taken(Waiting);

impl std::ops::Deref for Taken {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.0.session
    }
}

impl Taken {
    /// Closes the connection and waits until it is.
    pub(crate) async fn close(self) {
        self.0.session.close().await;
    }
}

impl Pool {
    pub(crate) fn new(location: &Location, purpose: Purpose, name: &'static str) -> Self {
        Pool { location: location.clone(), purpose, name, waiting: Mutex::default() }
    }

    pub(crate) async fn take(&self) -> Result<Taken> {
        let identity = self.location.identity();
        while let Some(waiting) = self.pop() {
            if waiting.identity == identity && waiting.session.run(|connection| see_schema(connection)).await.is_ok() {
                return Ok(Taken(waiting));
            }
            waiting.session.close().await;
        }
        let (location, purpose) = (self.location.clone(), self.purpose);
        let session = Session::open(self.name, move || location.open(purpose)).await?;
        Ok(Taken(Waiting { session, identity }))
    }

    /// Behind a job that went well. One with a transaction still open is closed, which rolls it back.
    pub(crate) async fn give_back(&self, taken: Taken) {
        let at_rest = taken.run(|connection| Ok(connection.is_autocommit())).await;
        let kept = match at_rest {
            Ok(true) => self.push(taken.0),
            _ => Some(taken.0),
        };
        if let Some(waiting) = kept {
            waiting.session.close().await;
        }
    }

    /// One job on a connection of the pool. Behind an error nobody knows what it is still good for.
    pub(crate) async fn run<T: Send + 'static>(&self, job: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static) -> Result<T> {
        let taken = self.take().await?;
        let answer = taken.run(job).await;
        match answer {
            Ok(_) => self.give_back(taken).await,
            Err(_) => taken.close().await,
        }
        answer
    }

    fn pop(&self) -> Option<Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Gives it back if enough are waiting.
    fn push(&self, waiting: Waiting) -> Option<Waiting> {
        let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST_WAITING {
            return Some(waiting);
        }
        all.push(waiting);
        None
    }
}

/// What SQLite tells of tables it tells from memory; a statement on the file has it look whether others altered something.
fn see_schema(connection: &Connection) -> Result<()> {
    connection.prepare_cached("SELECT 1 FROM sqlite_schema LIMIT 1").told()?.exists([]).map(drop).told()
}

/// Waits until all are closed: the last connection of a file takes its write-ahead log into it.
impl Drop for Pool {
    fn drop(&mut self) {
        let waiting = self.waiting.get_mut().unwrap_or_else(PoisonError::into_inner);
        waiting.drain(..).for_each(|waiting| waiting.session.close_now());
    }
}
