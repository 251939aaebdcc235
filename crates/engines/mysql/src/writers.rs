//! Sessions that write for a task, and the end of those that somebody left behind.
//!
//! A connection that is lost on its way takes the news of its end with it: the server's session keeps its transaction and
//! its locks for hours. So every session that writes for a task holds a lock of the server's own kind (`GET_LOCK`) that no
//! other session of the task holds, its claim. It goes with the session and cannot outlive the server, so a session that it
//! names is never somebody else's. Whoever takes the lease ends the sessions of all claims; whoever leaves a session in
//! the middle of something (a dropped future, an error) has it ended, and waited for, before the next one is taken: then
//! whatever that session was still told, a commit too, has either happened or never will.
//!
//! Where no claim can be had (all are taken, or a cluster without such locks) the session's number and its client's address
//! say for this process's own which one it is; what another process left keeps its locks until the server notices.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use godwit_model::{Error, Result, TaskName, codes};
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use crate::connect::{Endpoint, Flavor, Purpose};
use crate::fingerprint::fingerprint;
use crate::script::number_of;
use crate::{error, quote};

/// Sessions of one task that may be marked at one time; far more than any task has.
pub(crate) const CLAIMS: usize = 48;
/// Statements are sent in messages of about this size: large enough that the way there and back is not felt.
const MESSAGE: usize = 1 << 20;
/// How long a session that was left may need to roll back, in seconds.
const ENDING: u32 = 30;
/// Nothing but asking tells when a session without a claim has ended.
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) struct Writers {
    endpoint: Endpoint,
    task: TaskName,
    idle: Mutex<Vec<Writer>>,
    left: Arc<Mutex<Vec<Left>>>,
}

/// A session that writes. Dropped, it is ended before the next one is taken; `give_back` it when no transaction is open.
pub(crate) struct Writer {
    conn: Conn,
    /// Bytes after which a message is sent.
    pub(crate) message: usize,
    /// Largest message the server takes.
    pub(crate) most: usize,
    pub(crate) flavor: Flavor,
    mark: Mark,
    left: Arc<Mutex<Vec<Left>>>,
}

/// By what a session is known to be ours, besides its number, which another one may have after the server was started anew.
#[derive(Clone, PartialEq)]
enum Mark {
    Claim(String),
    /// Of the client, its port with it.
    Address(String),
}

/// A session that was left in the middle of something.
#[derive(Clone, PartialEq)]
struct Left {
    mark: Mark,
    session: u32,
}

impl Drop for Writer {
    fn drop(&mut self) {
        let left = Left { mark: self.mark.clone(), session: self.conn.id() };
        self.left.lock().unwrap_or_else(PoisonError::into_inner).push(left);
    }
}

impl Deref for Writer {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.conn
    }
}

impl DerefMut for Writer {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.conn
    }
}

impl Writers {
    pub(crate) fn new(endpoint: Endpoint, task: TaskName) -> Self {
        Writers { endpoint, task, idle: Mutex::default(), left: Arc::default() }
    }

    pub(crate) async fn take(&self) -> Result<Writer> {
        self.settle().await?;
        let waiting = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match waiting {
            Some(writer) => Ok(writer),
            None => self.open().await,
        }
    }

    pub(crate) fn give_back(&self, writer: Writer) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(writer);
    }

    /// A session of its own, for what may leave settings behind.
    pub(crate) async fn open(&self) -> Result<Writer> {
        let mut conn = self.endpoint.connect(Purpose::Write).await?;
        let server = self.endpoint.ask(&mut conn).await?;
        let mark = match claim(&mut conn, &self.task).await? {
            Some(claim) => Mark::Claim(claim),
            None => Mark::Address(address(&mut conn).await?),
        };
        // some bytes of every message are the protocol's
        let most = server.max_packet.saturating_sub(64);
        Ok(Writer { conn, message: MESSAGE.min(most / 2), most, flavor: server.flavor, mark, left: self.left.clone() })
    }

    /// Ends what was left by this process, and waits for its end.
    pub(crate) async fn settle(&self) -> Result<()> {
        let left: Vec<Left> = self.left.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if left.is_empty() {
            return Ok(());
        }
        let mut conn = self.endpoint.connect(Purpose::Read).await?;
        for one in &left {
            end(&mut conn, one).await?;
            self.left.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| other != one);
        }
        Ok(())
    }

    /// Forgets sessions that wait: their lease is about to become another one.
    pub(crate) fn forget_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// MySQL takes names of up to 64 characters.
pub(crate) fn name(task: &TaskName, number: usize) -> String {
    format!("godwit writes {:016x} {number}", fingerprint(task.as_str().bytes()))
}

/// The first claim that is free. None: the server has no such locks (a cluster), or all are taken.
async fn claim(conn: &mut Conn, task: &TaskName) -> Result<Option<String>> {
    let free: Vec<String> =
        (0..CLAIMS).map(|number| format!("WHEN GET_LOCK({}, 0) = 1 THEN {number}", quote::literal(&name(task, number)))).collect();
    let sql = format!("SELECT CASE {} ELSE -1 END", free.join(" "));
    let taken: Option<i64> = match conn.query_first(sql).await {
        Ok(taken) => taken,
        Err(problem) if number_of(&problem).is_some() => None,
        Err(problem) => return Err(error::from_server(problem)),
    };
    let number = taken.and_then(|number| usize::try_from(number).ok());
    if number.is_none() {
        tracing::warn!("a session that writes could not be marked: if it is lost, its locks stay until the server ends it");
    }
    Ok(number.map(|number| name(task, number)))
}

/// Ends every session that writes for the task. They are told to end, and not waited for: whoever needs their locks waits
/// for these. A server that lets nobody do so does not keep the task from going on.
pub(crate) async fn end_all(conn: &mut Conn, task: &TaskName) -> Result<()> {
    let asked: Vec<String> =
        (0..CLAIMS).map(|number| format!("SELECT IS_USED_LOCK({}) AS session", quote::literal(&name(task, number)))).collect();
    let sql = format!("SELECT c.session FROM ({}) c WHERE c.session IS NOT NULL", asked.join(" UNION ALL "));
    let sessions: Vec<u32> = match conn.query(sql).await {
        Ok(sessions) => sessions,
        Err(problem) if number_of(&problem).is_some() => Vec::new(),
        Err(problem) => return Err(error::from_server(problem)),
    };
    for session in &sessions {
        kill(conn, *session).await?;
    }
    if !sessions.is_empty() {
        tracing::info!(sessions = sessions.len(), "sessions of an earlier attempt were still open and were ended");
    }
    Ok(())
}

async fn address(conn: &mut Conn) -> Result<String> {
    let sql = "SELECT host FROM information_schema.processlist WHERE id = CONNECTION_ID()";
    let host: Option<String> = conn.query_first(sql).await.map_err(error::from_server)?;
    host.ok_or_else(|| Error::internal("a session that its server does not list"))
}

async fn end(conn: &mut Conn, left: &Left) -> Result<()> {
    match &left.mark {
        Mark::Claim(claim) => end_claimed(conn, claim, left.session).await,
        Mark::Address(address) => end_unclaimed(conn, address, left.session).await,
    }
}

async fn end_unclaimed(conn: &mut Conn, address: &str, session: u32) -> Result<()> {
    let sql = format!("SELECT count(*) FROM information_schema.processlist WHERE id = {session} AND host = {}", quote::literal(address));
    let mut is_told = false;
    let ending = async {
        while conn.query_first::<u64, _>(&sql).await.map_err(error::from_server)? != Some(0) {
            if !std::mem::replace(&mut is_told, true) {
                kill(conn, session).await?;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    };
    tokio::time::timeout(Duration::from_secs(ENDING.into()), ending).await.unwrap_or_else(|_| Err(still_ending()))
}

fn still_ending() -> Error {
    Error::new(&codes::BUSY, "a session that was left is still rolling back")
}

async fn end_claimed(conn: &mut Conn, claim: &str, session: u32) -> Result<()> {
    let claim = quote::literal(claim);
    let holds: Option<Option<u32>> = conn.query_first(format!("SELECT IS_USED_LOCK({claim})")).await.map_err(error::from_server)?;
    if holds.flatten() != Some(session) {
        return Ok(());
    }
    kill(conn, session).await?;
    let waited: Option<Option<i64>> = conn.query_first(format!("SELECT GET_LOCK({claim}, {ENDING})")).await.map_err(error::from_server)?;
    if waited.flatten() != Some(1) {
        return Err(still_ending());
    }
    conn.query_drop(format!("DO RELEASE_LOCK({claim})")).await.map_err(error::from_server)
}

/// 1094: it is gone. 1095: it is another account's.
async fn kill(conn: &mut Conn, session: u32) -> Result<()> {
    match conn.query_drop(format!("KILL CONNECTION {session}")).await {
        Ok(()) => Ok(()),
        Err(problem) => match number_of(&problem) {
            Some(1094) => Ok(()),
            Some(1095) => {
                tracing::warn!("a session of an earlier attempt cannot be ended: it may hold locks");
                Ok(())
            }
            _ => Err(error::from_server(problem)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other processes, also of other versions, know these names.
    #[test]
    fn claims_are_told_apart_and_stay_what_they_are() {
        let shop = TaskName::parse("shop").unwrap();
        assert_eq!(name(&shop, 7), "godwit writes 46dc5e18e28e2409 7");
        assert_ne!(name(&shop, 7), name(&TaskName::parse("other").unwrap(), 7));
        assert!(name(&shop, CLAIMS).len() <= 64);
    }
}
