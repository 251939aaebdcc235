//! Applies groups of changes: one transaction over any number of groups, each under a savepoint.
//!
//! The session is the transaction: if the applier is dropped, its connection closes and SQLite rolls back. While the
//! transaction is open it holds the file's one write lock, and in this process the turn to write.

use std::sync::Arc;

use async_trait::async_trait;
use godwit_model::{
    Applied, Applier, Checkpoint, Entry, Error, Group, Lease, Mismatch, Result, TableMapping, TableName, TableWrite, WriteKind, codes,
    failpoint,
};
use rusqlite::Connection;
use tokio::sync::OwnedMutexGuard;

use crate::connect::{Location, Purpose};
use crate::error::{from_sqlite, is_duplicate_row, is_refusal};
use crate::lease;
use crate::session::Session;
use crate::statements::{Writer, Writers, batch, key_text, run, still_open, writers};
use crate::target::Turn;

pub(crate) struct SqliteApplier {
    session: Session,
    lease: Lease,
    writers: Arc<Writers>,
    turn: Turn,
    /// Held while the transaction is open.
    open: Option<OwnedMutexGuard<()>>,
}

impl SqliteApplier {
    pub(crate) async fn open(location: &Location, lease: &Lease, mappings: &[Arc<TableMapping>], turn: Turn) -> Result<Self> {
        let location = location.clone();
        let session = Session::open("apply", move || location.open(Purpose::WriteTarget)).await?;
        let mappings = mappings.to_vec();
        let writers = session.run(move |connection| writers(connection, &mappings)).await?;
        Ok(SqliteApplier { session, lease: lease.clone(), writers: Arc::new(writers), turn, open: None })
    }

    async fn begin(&mut self) -> Result<()> {
        if self.open.is_some() {
            return Ok(());
        }
        let turn = self.turn.take().await?;
        let lease = self.lease.clone();
        self.session
            .run(move |connection| {
                // An earlier call of ours may have been dropped between its BEGIN and here.
                if !connection.is_autocommit() {
                    batch(connection, "ROLLBACK")?;
                }
                batch(connection, "BEGIN IMMEDIATE")?;
                let raised = lease::raise(connection, &lease);
                if raised.is_err() {
                    batch(connection, "ROLLBACK")?;
                }
                raised
            })
            .await?;
        self.open = Some(turn);
        Ok(())
    }
}

#[async_trait]
impl Applier for SqliteApplier {
    async fn apply(&mut self, group: &Group) -> Result<Applied> {
        self.begin().await?;
        let (writers, group) = (self.writers.clone(), group.clone());
        self.session.run(move |connection| apply(connection, &writers, &group)).await
    }

    async fn commit(&mut self, previous: Option<&Checkpoint>, next: &Checkpoint, entries: &[Entry]) -> Result<()> {
        self.begin().await?;
        let (lease, previous, next, entries) = (self.lease.clone(), previous.cloned(), next.clone(), entries.to_vec());
        let answer = self
            .session
            .run(move |connection| {
                let done = commit(connection, &lease, previous.as_ref(), &next, &entries);
                if done.is_err() && !connection.is_autocommit() {
                    batch(connection, "ROLLBACK")?;
                }
                done
            })
            .await;
        self.open = None;
        answer
    }

    /// With `synchronous = FULL` a commit is on disk when it returns.
    async fn durable(&mut self) -> Result<()> {
        Ok(())
    }

    async fn abandon(&mut self) -> Result<()> {
        let rolled_back =
            self.session.run(|connection| if connection.is_autocommit() { Ok(()) } else { batch(connection, "ROLLBACK") }).await;
        self.open = None;
        rolled_back
    }
}

fn commit(connection: &Connection, lease: &Lease, previous: Option<&Checkpoint>, next: &Checkpoint, entries: &[Entry]) -> Result<()> {
    still_open(connection)?;
    lease::advance(connection, lease, previous, next)?;
    lease::record_entries(connection, &lease.task, entries)?;
    batch(connection, "COMMIT")?;
    // committed, and nobody knows it yet
    failpoint("apply.commit.sent");
    Ok(())
}

/// Runs a group; anything but `AsExpected` is rolled back to where the group began.
fn apply(connection: &Connection, writers: &Writers, group: &Group) -> Result<Applied> {
    still_open(connection)?;
    batch(connection, "SAVEPOINT godwit_group")?;
    for (index, write) in group.writes.iter().enumerate() {
        let outcome = match write_rows(connection, writers, write)? {
            Wrote::Touched(touched) => compare(index, write, touched),
            Wrote::Refused(error) => Some(Applied::Refused(error)),
        };
        if let Some(outcome) = outcome {
            still_open(connection)?;
            batch(connection, "ROLLBACK TO godwit_group; RELEASE godwit_group")?;
            return Ok(outcome);
        }
    }
    batch(connection, "RELEASE godwit_group")?;
    Ok(Applied::AsExpected)
}

enum Wrote {
    Touched(u64),
    Refused(Error),
}

fn compare(write: usize, what: &TableWrite, touched: u64) -> Option<Applied> {
    let expected = what.rows.len() as u64;
    let counts = what.strict && what.kind != WriteKind::Truncate;
    (counts && touched != expected).then_some(Applied::Unexpected(Mismatch { write, expected, touched }))
}

fn write_rows(connection: &Connection, writers: &Writers, write: &TableWrite) -> Result<Wrote> {
    let writer = find(writers, &write.mapping.target)?;
    let sql = writer.sql(write.kind, &write.columns)?;
    if write.kind == WriteKind::Truncate {
        return one(connection, write, &sql, &[]);
    }
    let mut touched = 0;
    for row in write.rows.rows() {
        match one(connection, write, &sql, row)? {
            Wrote::Touched(count) => touched += count,
            refused @ Wrote::Refused(_) => return Ok(refused),
        }
    }
    Ok(Wrote::Touched(touched))
}

fn one(connection: &Connection, write: &TableWrite, sql: &str, row: &[godwit_model::Value]) -> Result<Wrote> {
    match run(connection, sql, row) {
        Ok(touched) => Ok(Wrote::Touched(touched as u64)),
        Err(error) if is_refusal(&error) => Ok(Wrote::Refused(refused(error, write, row))),
        Err(error) => Err(from_sqlite(error).at_least_at(|| format!("table {}", write.mapping.target))),
    }
}

fn refused(error: rusqlite::Error, write: &TableWrite, row: &[godwit_model::Value]) -> Error {
    let key = key_text(&write.mapping, write.kind, &write.columns, row);
    let place = format!("table {}", write.mapping.target);
    if is_duplicate_row(&error) {
        let what = "another row of the target holds a unique value of this one";
        return Error::new(&codes::CONFLICT, what).at(place).detail(key).remedy("look at both rows, then run with --resync");
    }
    from_sqlite(error).at(place).detail(key)
}

fn find<'a>(writers: &'a Writers, table: &TableName) -> Result<&'a Writer> {
    writers.get(table).ok_or_else(|| Error::internal("a write for a table the applier was not opened with").at(format!("table {table}")))
}
