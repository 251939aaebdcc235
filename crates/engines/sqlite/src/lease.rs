//! Godwit's own tables in a target file: the lease with its checkpoint, and the ledger.
//!
//! Every write first raises the counter of the lease row `WHERE epoch = mine`, inside its own transaction. SQLite has
//! one writer at a time (`BEGIN IMMEDIATE`), so from there to the commit nobody else can take the lease.

use bytes::Bytes;
use godwit_model::{Checkpoint, Entry, Error, Holder, Lease, LeaseRecord, LogId, Position, Result, Sequence, TaskName, codes};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior};

use crate::error::Told;

pub(crate) const LEASE: &str = "godwit_lease";
pub(crate) const LEDGER: &str = "godwit_ledger";

pub(crate) fn install(connection: &mut Connection) -> Result<()> {
    let sql = "CREATE TABLE IF NOT EXISTS godwit_lease (
                   task TEXT NOT NULL PRIMARY KEY, epoch INTEGER NOT NULL, counter INTEGER NOT NULL,
                   host TEXT, boot TEXT, pid INTEGER, started INTEGER, position BLOB, log BLOB, sequence INTEGER);
               CREATE TABLE IF NOT EXISTS godwit_ledger (
                   task TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (task, key)) WITHOUT ROWID;";
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).told()?;
    transaction.execute_batch(sql).told()?;
    transaction.commit().told()
}

pub(crate) fn is_installed(connection: &Connection) -> Result<bool> {
    connection.table_exists(None, LEASE).told()
}

pub(crate) fn read(connection: &Connection, task: &TaskName) -> Result<Option<LeaseRecord>> {
    if !is_installed(connection)? {
        return Ok(None);
    }
    let sql = "SELECT epoch, counter, host, boot, pid, started, position, log, sequence FROM godwit_lease WHERE task = ?1";
    connection.query_row(sql, [task.as_str()], |row| Ok(record(row))).optional().told()?.transpose()
}

fn record(row: &Row<'_>) -> Result<LeaseRecord> {
    Ok(LeaseRecord {
        epoch: unsigned(row.get(0).told()?),
        counter: unsigned(row.get(1).told()?),
        holder: holder(row)?,
        checkpoint: checkpoint(row)?,
    })
}

fn holder(row: &Row<'_>) -> Result<Option<Holder>> {
    let Some(host) = row.get::<_, Option<String>>(2).told()? else { return Ok(None) };
    Ok(Some(Holder { host, boot: row.get(3).told()?, pid: row.get(4).told()?, started: unsigned(row.get(5).told()?) }))
}

fn checkpoint(row: &Row<'_>) -> Result<Option<Checkpoint>> {
    let Some(position) = row.get::<_, Option<Vec<u8>>>(6).told()? else { return Ok(None) };
    let log: [u8; 16] = row.get(7).told()?;
    Ok(Some(Checkpoint {
        position: Position(Bytes::from(position)),
        log: LogId(u128::from_be_bytes(log)),
        sequence: Sequence(unsigned(row.get(8).told()?)),
    }))
}

/// SQLite's integers are signed; numbers beyond keep their bits.
fn unsigned(number: i64) -> u64 {
    u64::from_ne_bytes(number.to_ne_bytes())
}

fn signed(number: u64) -> i64 {
    i64::from_ne_bytes(number.to_ne_bytes())
}

/// See `Target::take_lease`.
pub(crate) fn take(
    connection: &mut Connection,
    task: &TaskName,
    holder: &Holder,
    seen: Option<&LeaseRecord>,
) -> Result<Option<LeaseRecord>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).told()?;
    let now = read(&transaction, task)?;
    let same = match (&now, seen) {
        (None, None) => true,
        (Some(now), Some(seen)) => now.epoch == seen.epoch && now.counter == seen.counter,
        _ => false,
    };
    if !same {
        return Ok(None);
    }
    let epoch = now.as_ref().map_or(0, |record| record.epoch) + 1;
    let sql = "INSERT INTO godwit_lease (task, epoch, counter, host, boot, pid, started) VALUES (?1, ?2, 1, ?3, ?4, ?5, ?6)
               ON CONFLICT (task) DO UPDATE SET epoch = excluded.epoch, counter = counter + 1, host = excluded.host,
                   boot = excluded.boot, pid = excluded.pid, started = excluded.started";
    let values = (task.as_str(), signed(epoch), &holder.host, &holder.boot, holder.pid, signed(holder.started));
    transaction.execute(sql, values).told()?;
    let taken = read(&transaction, task)?;
    transaction.commit().told()?;
    Ok(taken)
}

/// Begins a write under the lease: the counter is raised, the file is ours until commit or rollback.
pub(crate) fn begin<'a>(connection: &'a mut Connection, lease: &Lease) -> Result<Transaction<'a>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).told()?;
    raise(&transaction, lease)?;
    Ok(transaction)
}

/// Raises the counter in the transaction that is open.
pub(crate) fn raise(connection: &Connection, lease: &Lease) -> Result<()> {
    if !is_installed(connection)? {
        return Err(lost());
    }
    let sql = "UPDATE godwit_lease SET counter = counter + 1 WHERE task = ?1 AND epoch = ?2";
    let touched = connection.prepare_cached(sql).told()?.execute((lease.task.as_str(), signed(lease.epoch))).told()?;
    if touched == 1 { Ok(()) } else { Err(lost()) }
}

/// Moves the checkpoint in the transaction that is open, if it still stands at `previous`.
pub(crate) fn advance(connection: &Connection, lease: &Lease, previous: Option<&Checkpoint>, next: &Checkpoint) -> Result<()> {
    let sql = "UPDATE godwit_lease SET counter = counter + 1, position = ?3, log = ?4, sequence = ?5
               WHERE task = ?1 AND epoch = ?2 AND position IS ?6 AND log IS ?7 AND sequence IS ?8";
    let position = previous.map(|checkpoint| checkpoint.position.0.to_vec());
    let log = previous.map(|checkpoint| checkpoint.log.0.to_be_bytes());
    let sequence = previous.map(|checkpoint| signed(checkpoint.sequence.0));
    let next = (next.position.0.to_vec(), next.log.0.to_be_bytes(), signed(next.sequence.0));
    let values = (lease.task.as_str(), signed(lease.epoch), next.0, next.1, next.2, position, log, sequence);
    let touched = connection.prepare_cached(sql).told()?.execute(values).told()?;
    if touched == 1 { Ok(()) } else { Err(unmoved(connection, lease)?) }
}

/// Why the checkpoint did not move.
fn unmoved(connection: &Connection, lease: &Lease) -> Result<Error> {
    let record = read(connection, &lease.task)?;
    if record.is_none_or(|record| record.epoch != lease.epoch) {
        return Ok(lost());
    }
    let what = "the checkpoint in the target is not the one this process moved last";
    Ok(Error::new(&codes::TARGET_CHANGED, what)
        .at("table godwit_lease")
        .effect("the transaction was rolled back")
        .remedy("find out who changed the row or restored the target, then run again"))
}

pub(crate) fn renew(connection: &mut Connection, lease: &Lease) -> Result<()> {
    begin(connection, lease)?.commit().told()
}

pub(crate) fn release(connection: &mut Connection, lease: &Lease) -> Result<()> {
    let transaction = begin(connection, lease)?;
    let sql = "UPDATE godwit_lease SET host = NULL, boot = NULL, pid = NULL, started = NULL WHERE task = ?1";
    transaction.execute(sql, [lease.task.as_str()]).told()?;
    transaction.commit().told()
}

pub(crate) fn lost() -> Error {
    Error::new(&codes::LEASE_LOST, "another process took this task over")
        .effect("nothing was written")
        .remedy("let the other process run, or stop it and start this one again")
}

pub(crate) fn ledger(connection: &Connection, task: &TaskName) -> Result<Vec<Entry>> {
    if !connection.table_exists(None, LEDGER).told()? {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare("SELECT key, value FROM godwit_ledger WHERE task = ?1 ORDER BY key").told()?;
    let rows = statement.query_map([task.as_str()], |row| Ok(Entry { key: row.get(0)?, value: Bytes::from(row.get::<_, Vec<u8>>(1)?) }));
    rows.told()?.collect::<rusqlite::Result<Vec<_>>>().told()
}

/// Writes entries in the transaction that is open.
pub(crate) fn record_entries(connection: &Connection, task: &TaskName, entries: &[Entry]) -> Result<()> {
    let put =
        "INSERT INTO godwit_ledger (task, key, value) VALUES (?1, ?2, ?3) ON CONFLICT (task, key) DO UPDATE SET value = excluded.value";
    let remove = "DELETE FROM godwit_ledger WHERE task = ?1 AND key = ?2";
    for entry in entries {
        if entry.value.is_empty() {
            connection.prepare_cached(remove).told()?.execute((task.as_str(), &entry.key)).told()?;
        } else {
            connection.prepare_cached(put).told()?.execute((task.as_str(), &entry.key, &entry.value[..])).told()?;
        }
    }
    Ok(())
}

/// What Godwit keeps here for the task.
pub(crate) fn traces(connection: &Connection, task: &TaskName) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if !is_installed(connection)? {
        return Ok(found);
    }
    if read(connection, task)?.is_some() {
        found.push(format!("lease and checkpoint of {task} in table {LEASE}"));
    }
    let entries = ledger(connection, task)?.len();
    if entries > 0 {
        found.push(format!("{entries} entries of {task} in table {LEDGER}"));
    }
    if others(connection, task)? == 0 {
        found.extend([LEASE, LEDGER].map(|table| format!("table {table}")));
    }
    Ok(found)
}

fn others(connection: &Connection, task: &TaskName) -> Result<i64> {
    connection.query_row("SELECT count(*) FROM godwit_lease WHERE task <> ?1", [task.as_str()], |row| row.get(0)).told()
}

/// Removes the task's rows, and the tables when no other task uses them.
pub(crate) fn remove(connection: &mut Connection, task: &TaskName) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).told()?;
    if !is_installed(&transaction)? {
        return Ok(());
    }
    transaction.execute("DELETE FROM godwit_lease WHERE task = ?1", [task.as_str()]).told()?;
    transaction.execute("DELETE FROM godwit_ledger WHERE task = ?1", [task.as_str()]).told()?;
    if others(&transaction, task)? == 0 {
        transaction.execute_batch("DROP TABLE godwit_lease; DROP TABLE godwit_ledger;").told()?;
    }
    transaction.commit().told()
}
