//! The lease: one row of a task, its proof, and commits under it.
//!
//! A write counts only if the lease row still has the writer's epoch. The proof stands last in the writer's transaction,
//! in one message with the COMMIT: the row is locked for no round trip, a taker of the lease waits for a commit under way
//! and for nothing else, and a process that stands still holds no lock on it.

use bytes::Bytes;
use godwit_model::{Checkpoint, Entry, Error, Holder, Lease, LeaseRecord, LogId, Position, Result, Sequence, TaskName, codes};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Row};

use crate::ledger::Lengths;
use crate::own_tables::{self, cell, is_absent};
use crate::script::{Failed, Script, execute};
use crate::transaction::Begun;
use crate::writers::{self, Writer};
use crate::{error, hex, ledger, quote, transaction};

const FIELDS: &str = "epoch, counter, host, boot, pid, started, `position`, log, `sequence`";

pub(crate) async fn read(conn: &mut Conn, task: &TaskName) -> Result<Option<LeaseRecord>> {
    let sql = format!("SELECT {FIELDS} FROM godwit.lease WHERE task = {}", quote::literal(task.as_str()));
    match conn.query_first::<Row, _>(sql).await {
        Ok(row) => row.as_ref().map(record_of).transpose(),
        Err(problem) if is_absent(&problem) => Ok(None),
        Err(problem) => Err(error::from_server(problem)),
    }
}

fn record_of(row: &Row) -> Result<LeaseRecord> {
    let holder = match (cell(row, 2)?, cell(row, 3)?, cell::<u32>(row, 4)?, cell(row, 5)?) {
        (Some(host), Some(boot), Some(pid), Some(started)) => Some(Holder { host, boot, pid, started }),
        _ => None,
    };
    let checkpoint = match (cell::<Vec<u8>>(row, 6)?, cell::<Vec<u8>>(row, 7)?, cell(row, 8)?) {
        (Some(position), Some(log), Some(sequence)) => Some(Checkpoint {
            position: Position(Bytes::from(position)),
            log: LogId(u128::from_be_bytes(log.try_into().map_err(|_| damaged())?)),
            sequence: Sequence(sequence),
        }),
        (None, None, None) => None,
        _ => return Err(damaged()),
    };
    let number = |place| cell(row, place)?.ok_or_else(damaged);
    Ok(LeaseRecord { holder, checkpoint, epoch: number(0)?, counter: number(1)? })
}

fn damaged() -> Error {
    Error::new(&codes::TARGET_CHANGED, "the row of the lease is not as Godwit writes it").at("table godwit.lease")
}

/// See `Target::take_lease`. Sessions of former holders are ended while the row is locked: nobody else can have taken the
/// lease meanwhile, and so none of them is of a later epoch.
pub(crate) async fn take(conn: &mut Conn, task: &TaskName, holder: &Holder, seen: Option<&LeaseRecord>) -> Result<Option<LeaseRecord>> {
    if seen.is_some() {
        return take_locked(conn, task, holder, seen).await;
    }
    // the last other task may be about to take the tables away
    own_tables::lock(conn).await?;
    let taken = match own_tables::installed(conn).await? {
        true => take_locked(conn, task, holder, seen).await,
        false => Err(Error::new(&codes::BUSY, "another process removed Godwit's own tables")),
    };
    own_tables::unlock(conn).await?;
    taken
}

async fn take_locked(conn: &mut Conn, task: &TaskName, holder: &Holder, seen: Option<&LeaseRecord>) -> Result<Option<LeaseRecord>> {
    execute(conn, "START TRANSACTION").await?;
    if !raised(conn, task, holder, seen).await? {
        execute(conn, "ROLLBACK").await?;
        return Ok(None);
    }
    writers::end_all(conn, task).await?;
    let taken = read(conn, task).await?;
    execute(conn, "COMMIT").await?;
    Ok(taken)
}

async fn raised(conn: &mut Conn, task: &TaskName, holder: &Holder, seen: Option<&LeaseRecord>) -> Result<bool> {
    let task = quote::literal(task.as_str());
    let (host, boot) = (quote::literal(&holder.host), quote::literal(&holder.boot));
    let (pid, started) = (holder.pid, holder.started);
    let Some(seen) = seen else {
        let sql = format!(
            "INSERT INTO godwit.lease (task, epoch, counter, host, boot, pid, started) VALUES ({task}, 1, 1, {host}, {boot}, {pid}, {started})"
        );
        return match run_one(conn, &sql).await {
            Ok(_) => Ok(true),
            Err(failed) if failed.number() == Some(1062) => Ok(false),
            Err(failed) => Err(failed.into()),
        };
    };
    let sql = format!(
        "UPDATE godwit.lease SET epoch = epoch + 1, counter = counter + 1, host = {host}, boot = {boot}, pid = {pid}, started = {started}
         WHERE task = {task} AND epoch = {} AND counter = {}",
        seen.epoch, seen.counter
    );
    Ok(execute(conn, sql).await? == 1)
}

async fn run_one(conn: &mut Conn, sql: &str) -> Result<(), Failed> {
    let mut script = Script::default();
    script.add(sql);
    script.run(conn).await.map(drop)
}

/// Raises the counter, outside of a transaction.
pub(crate) async fn renew(conn: &mut Conn, lease: &Lease) -> Result<()> {
    let touched = execute(conn, raise(lease)).await?;
    if touched == 1 { Ok(()) } else { Err(lost(lease)) }
}

fn raise(lease: &Lease) -> String {
    format!("UPDATE godwit.lease SET counter = counter + 1 WHERE {}", is_ours(lease))
}

fn is_ours(lease: &Lease) -> String {
    format!("task = {} AND epoch = {}", quote::literal(lease.task.as_str()), lease.epoch)
}

pub(crate) async fn release(conn: &mut Conn, lease: &Lease) -> Result<()> {
    let sql = format!(
        "UPDATE godwit.lease SET counter = counter + 1, host = NULL, boot = NULL, pid = NULL, started = NULL WHERE {}",
        is_ours(lease)
    );
    let touched = execute(conn, sql).await?;
    if touched == 1 { Ok(()) } else { Err(lost(lease)) }
}

pub(crate) fn lost(lease: &Lease) -> Error {
    Error::new(&codes::LEASE_LOST, format!("another process took over task {}", lease.task))
        .effect("nothing of this process was written after that")
        .remedy("let the other process go on")
}

/// Fails with 1690 (out of range) unless the statement before it touched exactly one row.
const PROOF: &str = "SET @godwit_proof = 18446744073709551615 + (ROW_COUNT() <> 1)";
const OUT_OF_RANGE: u16 = 1690;

/// What moves the checkpoint, if it still stands at `previous`.
fn advance(lease: &Lease, previous: Option<&Checkpoint>, next: &Checkpoint) -> String {
    let position = bytes_or_null(previous.map(|old| &old.position.0[..]));
    let log = bytes_or_null(previous.map(|old| old.log.0.to_be_bytes()).as_ref().map(|log| &log[..]));
    let sequence = previous.map_or("NULL".to_owned(), |old| old.sequence.0.to_string());
    format!(
        "UPDATE godwit.lease SET counter = counter + 1, `position` = {}, log = {}, `sequence` = {}
         WHERE {} AND `position` <=> {position} AND log <=> {log} AND `sequence` <=> {sequence}",
        bytes_or_null(Some(&next.position.0)),
        bytes_or_null(Some(&next.log.0.to_be_bytes())),
        next.sequence.0,
        is_ours(lease)
    )
}

fn bytes_or_null(bytes: Option<&[u8]>) -> String {
    bytes.map_or("NULL".to_owned(), hex::literal)
}

/// How the end of a transaction failed.
pub(crate) enum Unended {
    /// The lease row was not as expected: the transaction is open, and nothing was committed.
    Unproved,
    Failed(Error),
}

/// Ends the open transaction with its entries under the lease.
pub(crate) async fn commit(writer: &mut Writer, lease: &Lease, begun: Begun, entries: &[Entry]) -> Result<()> {
    match end_with(writer, lease, begun, raise(lease), entries).await {
        Ok(()) => Ok(()),
        Err(Unended::Failed(error)) => Err(error),
        Err(Unended::Unproved) => {
            execute(writer, "ROLLBACK").await?;
            Err(lost(lease))
        }
    }
}

/// The same for a transaction that was begun here, moving the checkpoint.
pub(crate) async fn commit_at(
    writer: &mut Writer,
    lease: &Lease,
    (previous, next): (Option<&Checkpoint>, &Checkpoint),
    entries: &[Entry],
) -> Result<()> {
    match end_with(writer, lease, Begun::Here, advance(lease, previous, next), entries).await {
        Ok(()) => Ok(()),
        Err(Unended::Failed(error)) => Err(error),
        Err(Unended::Unproved) => {
            execute(writer, "ROLLBACK").await?;
            Err(unmoved(writer, lease).await?)
        }
    }
}

/// Many entries go ahead of the proof, so that its message stays small; few go behind it, where nobody can be in the way.
/// Only in a transaction is that one act: outside of it each statement would commit alone.
async fn end_with(writer: &mut Writer, lease: &Lease, begun: Begun, proof: String, entries: &[Entry]) -> Result<(), Unended> {
    if let Some(entry) = entries.iter().find(|entry| entry.value.len() > writer.most) {
        return Err(Unended::Failed(too_large(entry)));
    }
    let lengths = Lengths { wanted: writer.message, most: writer.most };
    let mut statements = ledger::statements(&lease.task, entries, lengths);
    if statements.iter().map(String::len).sum::<usize>() > writer.message {
        for statement in statements.drain(..) {
            let mut script = begun.still_open();
            script.add(statement);
            script.run(writer).await.map_err(unended)?;
        }
    }
    let mut script = begun.ending();
    script.add(proof);
    let proof = script.len();
    script.add(PROOF);
    statements.iter().for_each(|statement| script.add(statement));
    script.add("COMMIT");
    match script.run(writer).await {
        Ok(_) => Ok(()),
        Err(failed) if failed.statement == proof && failed.number() == Some(OUT_OF_RANGE) => Err(Unended::Unproved),
        Err(failed) => Err(unended(failed)),
    }
}

fn unended(failed: Failed) -> Unended {
    Unended::Failed(if transaction::is_gone(&failed) { transaction::rolled_back() } else { failed.into() })
}

/// The server joins no longer texts, and answers with no longer rows.
fn too_large(entry: &Entry) -> Error {
    Error::new(
        &codes::VALUE_TOO_LARGE,
        format!("what the ledger keeps as `{}` is larger than the largest message the target takes", entry.key),
    )
    .at("table godwit.ledger")
    .remedy("raise `max_allowed_packet` of the target")
}

/// Why the checkpoint did not move.
async fn unmoved(conn: &mut Conn, lease: &Lease) -> Result<Error> {
    let record = read(conn, &lease.task).await?;
    if record.is_none_or(|record| record.epoch != lease.epoch) {
        return Ok(lost(lease));
    }
    Ok(Error::new(&codes::TARGET_CHANGED, "the checkpoint in the target is not the one this process moved last")
        .at("table godwit.lease")
        .effect("the transaction was rolled back")
        .remedy("find out who changed the row or restored the target, then run again"))
}
