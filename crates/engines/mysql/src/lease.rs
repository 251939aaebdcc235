//! Godwit's own tables on a target: one lease row per task, and its ledger.
//!
//! A write counts only if the lease row still has the writer's epoch. The proof stands last in the writer's transaction,
//! in one message with the COMMIT: the row is locked for no round trip, a taker of the lease waits for a commit under way
//! and for nothing else, and a process that stands still holds no lock on it.
//!
//! Names and keys are bytes: `utf8mb4_bin` pads, and would take a key for the same one with a space behind it.

use bytes::Bytes;
use godwit_model::{Checkpoint, Entry, Error, Holder, Lease, LeaseRecord, LogId, Position, Result, Sequence, TaskName, codes};
use mysql_async::prelude::{FromValue, Queryable as _};
use mysql_async::{Conn, Row};

use crate::script::{Failed, Script, execute, number_of};
use crate::{error, quote, writers};

/// Whoever makes or drops Godwit's own tables or its database holds this lock of the server, also on a source.
pub(crate) const INSTALL_LOCK: &str = "godwit install";
/// Seconds.
const INSTALL_WAIT: u32 = 30;

const DATABASE: &str = "CREATE DATABASE IF NOT EXISTS godwit CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";
const TABLES: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS godwit.lease (
        task varbinary(255) NOT NULL PRIMARY KEY, epoch bigint unsigned NOT NULL, counter bigint unsigned NOT NULL,
        host varchar(255), boot varchar(255), pid bigint unsigned, started bigint unsigned,
        `position` longblob, log varbinary(16), `sequence` bigint unsigned
    ) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS godwit.ledger (
        task varbinary(255) NOT NULL, `key` varbinary(2000) NOT NULL, value longblob NOT NULL, PRIMARY KEY (task, `key`)
    ) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
];

pub(crate) async fn install(conn: &mut Conn) -> Result<()> {
    if installed(conn).await? {
        return Ok(());
    }
    lock(conn).await?;
    let made = make(conn).await;
    unlock(conn).await?;
    made
}

async fn make(conn: &mut Conn) -> Result<()> {
    // an account that may not make databases gets one that an administrator made
    if !counted(conn, "information_schema.schemata WHERE schema_name = 'godwit'").await?.eq(&1) {
        execute(conn, DATABASE).await?;
    }
    for table in TABLES {
        execute(conn, table).await?;
    }
    Ok(())
}

pub(crate) async fn lock(conn: &mut Conn) -> Result<()> {
    let sql = format!("SELECT GET_LOCK('{INSTALL_LOCK}', {INSTALL_WAIT})");
    let locked: Option<Option<i64>> = conn.query_first(sql).await.map_err(error::from_server)?;
    if locked.flatten() != Some(1) {
        return Err(Error::new(&codes::BUSY, "another process makes or removes Godwit's own tables"));
    }
    Ok(())
}

pub(crate) async fn unlock(conn: &mut Conn) -> Result<()> {
    execute(conn, format!("DO RELEASE_LOCK('{INSTALL_LOCK}')")).await.map(drop)
}

async fn counted(conn: &mut Conn, from: &str) -> Result<u64> {
    let count: Option<u64> = conn.query_first(format!("SELECT count(*) FROM {from}")).await.map_err(error::from_server)?;
    count.ok_or_else(|| Error::internal("a count without a row"))
}

pub(crate) async fn installed(conn: &mut Conn) -> Result<bool> {
    let from = "information_schema.tables WHERE table_schema = 'godwit' AND table_name IN ('lease', 'ledger')";
    Ok(counted(conn, from).await? == 2)
}

/// No database or no table of Godwit's.
fn is_absent(problem: &mysql_async::Error) -> bool {
    matches!(number_of(problem), Some(1049 | 1146))
}

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

fn cell<T: FromValue>(row: &Row, place: usize) -> Result<Option<T>> {
    match row.get_opt::<Option<T>, _>(place) {
        Some(Ok(value)) => Ok(value),
        _ => Err(damaged()),
    }
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
    lock(conn).await?;
    let taken = match installed(conn).await? {
        true => take_locked(conn, task, holder, seen).await,
        false => Err(Error::new(&codes::BUSY, "another process removed Godwit's own tables")),
    };
    unlock(conn).await?;
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
const NO_SAVEPOINT: u16 = 1305;

pub(crate) fn rolled_back() -> Error {
    Error::new(&codes::RETRYABLE, "the server rolled the transaction back").effect("nothing was written")
}

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
    bytes.map_or("NULL".to_owned(), |bytes| format!("x'{}'", hex(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// How the end of a transaction failed.
pub(crate) enum Unended {
    /// The lease row was not as expected: the transaction is open, and nothing was committed.
    Unproved,
    Failed(Error),
}

impl From<Error> for Unended {
    fn from(error: Error) -> Self {
        Unended::Failed(error)
    }
}

/// Ends the open transaction with its entries under the lease.
pub(crate) async fn commit(conn: &mut Conn, message: usize, lease: &Lease, entries: &[Entry]) -> Result<()> {
    match end_with(conn, message, lease, Script::default(), raise(lease), entries).await {
        Ok(()) => Ok(()),
        Err(Unended::Failed(error)) => Err(error),
        Err(Unended::Unproved) => {
            execute(conn, "ROLLBACK").await?;
            Err(lost(lease))
        }
    }
}

/// Ends the open transaction with its entries, moving the checkpoint. `before` runs in the same message.
pub(crate) async fn commit_at(
    conn: &mut Conn,
    message: usize,
    lease: &Lease,
    before: Script,
    (previous, next): (Option<&Checkpoint>, &Checkpoint),
    entries: &[Entry],
) -> Result<()> {
    match end_with(conn, message, lease, before, advance(lease, previous, next), entries).await {
        Ok(()) => Ok(()),
        Err(Unended::Failed(error)) => Err(error),
        Err(Unended::Unproved) => {
            execute(conn, "ROLLBACK").await?;
            Err(unmoved(conn, lease).await?)
        }
    }
}

/// Many entries go ahead of the proof, so that its message stays small; few go behind it, where nobody can be in the way.
async fn end_with(
    conn: &mut Conn,
    message: usize,
    lease: &Lease,
    mut script: Script,
    proof: String,
    entries: &[Entry],
) -> Result<(), Unended> {
    let mut statements = entry_statements(&lease.task, entries, message);
    if statements.iter().map(String::len).sum::<usize>() > message {
        for statement in statements.drain(..) {
            execute(conn, statement).await?;
        }
    }
    script.add(proof);
    let proof = script.len();
    script.add(PROOF);
    statements.iter().for_each(|statement| script.add(statement));
    script.add("COMMIT");
    match script.run(conn).await {
        Ok(_) => Ok(()),
        Err(failed) if failed.statement == proof && failed.number() == Some(OUT_OF_RANGE) => Err(Unended::Unproved),
        Err(failed) if failed.number() == Some(NO_SAVEPOINT) => Err(Unended::Failed(rolled_back())),
        Err(failed) => Err(Unended::Failed(failed.into())),
    }
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

/// The pipeline's entries; those of this engine's own (`OWN`) are not among them.
pub(crate) async fn ledger(conn: &mut Conn, task: &TaskName) -> Result<Vec<Entry>> {
    let entries = all_entries(conn, task).await?;
    Ok(entries.into_iter().filter(|entry| !entry.key.starts_with(OWN)).collect())
}

/// What the keys of this engine's own entries begin with.
pub(crate) const OWN: &str = "mysql/";

async fn all_entries(conn: &mut Conn, task: &TaskName) -> Result<Vec<Entry>> {
    let sql = format!("SELECT `key`, value FROM godwit.ledger WHERE task = {} ORDER BY `key`", quote::literal(task.as_str()));
    match conn.query::<Row, _>(sql).await {
        Ok(rows) => rows.iter().map(entry_of).collect(),
        Err(problem) if is_absent(&problem) => Ok(Vec::new()),
        Err(problem) => Err(error::from_server(problem)),
    }
}

fn entry_of(row: &Row) -> Result<Entry> {
    let key: Vec<u8> = cell(row, 0)?.ok_or_else(damaged)?;
    let value: Vec<u8> = cell(row, 1)?.ok_or_else(damaged)?;
    Ok(Entry { key: String::from_utf8(key).map_err(|_| damaged())?, value: Bytes::from(value) })
}

/// One entry of this engine's own.
pub(crate) async fn own_entry(conn: &mut Conn, task: &TaskName, key: &str) -> Result<Option<Bytes>> {
    let sql = format!("SELECT value FROM godwit.ledger WHERE task = {} AND `key` = {}", quote::literal(task.as_str()), quote::literal(key));
    let value: Option<Vec<u8>> = conn.query_first(sql).await.map_err(error::from_server)?;
    Ok(value.map(Bytes::from))
}

/// Statements that write these entries, each of about `size` bytes. Of two entries with one key the last counts.
fn entry_statements(task: &TaskName, entries: &[Entry], size: usize) -> Vec<String> {
    let last: std::collections::BTreeMap<&str, &[u8]> = entries.iter().map(|entry| (entry.key.as_str(), &entry.value[..])).collect();
    let task = quote::literal(task.as_str());
    let mut statements: Vec<String> = Vec::new();
    let mut is_open = false;
    for (key, value) in last.iter().filter(|(_, value)| !value.is_empty()) {
        let row = format!("({task}, {}, x'{}')", quote::literal(key), hex(value));
        match statements.last_mut().filter(|text| is_open && text.len() + row.len() < size) {
            Some(text) => {
                text.push_str(", ");
                text.push_str(&row);
            }
            None => {
                close(&mut statements, is_open);
                statements.push(format!("INSERT INTO godwit.ledger (task, `key`, value) VALUES {row}"));
                is_open = true;
            }
        }
    }
    close(&mut statements, is_open);
    let removed: Vec<&str> = last.into_iter().filter(|(_, value)| value.is_empty()).map(|(key, _)| key).collect();
    for some in removed.chunks(500) {
        let keys = quote::list(some.iter().map(|key| quote::literal(key)));
        statements.push(format!("DELETE FROM godwit.ledger WHERE task = {task} AND `key` IN ({keys})"));
    }
    statements
}

fn close(statements: &mut [String], is_open: bool) {
    if let Some(text) = statements.last_mut().filter(|_| is_open) {
        text.push_str(" ON DUPLICATE KEY UPDATE value = VALUES(value)");
    }
}

/// What Godwit keeps here for the task.
pub(crate) async fn traces(conn: &mut Conn, task: &TaskName) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if read(conn, task).await?.is_some() {
        found.push(format!("lease and checkpoint of {task} in table godwit.lease"));
    }
    let entries = all_entries(conn, task).await?.len();
    if entries > 0 {
        found.push(format!("{entries} entries of {task} in table godwit.ledger"));
    }
    if installed(conn).await? && others(conn, task).await? == 0 {
        found.extend(["table godwit.lease", "table godwit.ledger"].map(str::to_owned));
    }
    Ok(found)
}

async fn others(conn: &mut Conn, task: &TaskName) -> Result<u64> {
    counted(conn, &format!("godwit.lease WHERE task <> {}", quote::literal(task.as_str()))).await
}

/// Removes the task's rows, the tables when no other task uses them, and the database when nothing else is in it.
pub(crate) async fn remove(conn: &mut Conn, task: &TaskName) -> Result<()> {
    lock(conn).await?;
    let removed = remove_locked(conn, task).await;
    unlock(conn).await?;
    removed
}

async fn remove_locked(conn: &mut Conn, task: &TaskName) -> Result<()> {
    if !installed(conn).await? {
        return Ok(());
    }
    let name = quote::literal(task.as_str());
    let mut script = Script::default();
    script.add("START TRANSACTION");
    script.add(format!("DELETE FROM godwit.lease WHERE task = {name}"));
    script.add(format!("DELETE FROM godwit.ledger WHERE task = {name}"));
    script.add("COMMIT");
    script.run(conn).await?;
    if others(conn, task).await? > 0 {
        return Ok(());
    }
    execute(conn, "DROP TABLE godwit.lease, godwit.ledger").await?;
    drop_empty_database(conn).await
}

pub(crate) async fn drop_empty_database(conn: &mut Conn) -> Result<()> {
    let objects = counted(conn, "information_schema.tables WHERE table_schema = 'godwit'").await?
        + counted(conn, "information_schema.routines WHERE routine_schema = 'godwit'").await?;
    if objects == 0 {
        execute(conn, "DROP DATABASE godwit").await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: &'static [u8]) -> Entry {
        Entry { key: key.to_owned(), value: Bytes::from_static(value) }
    }

    #[test]
    fn entries_become_few_statements_of_a_bounded_size() {
        let task = TaskName::parse("shop").unwrap();
        let entries = [entry("a", b"1"), entry("b", b""), entry("c", b"2"), entry("a", b"3")];
        let whole = entry_statements(&task, &entries, 1000);
        assert_eq!(
            whole,
            [
                "INSERT INTO godwit.ledger (task, `key`, value) VALUES ('shop', 'a', x'33'), ('shop', 'c', x'32') ON DUPLICATE KEY UPDATE value = VALUES(value)",
                "DELETE FROM godwit.ledger WHERE task = 'shop' AND `key` IN ('b')"
            ]
        );
        let cut = entry_statements(&task, &entries, 10);
        assert_eq!(cut.len(), 3);
        assert!(cut[..2].iter().all(|text| text.ends_with("VALUES(value)")));
        assert!(entry_statements(&task, &[], 10).is_empty());
    }
}
