//! Godwit's own tables on a target: one lease row per task, and its ledger.
//!
//! A write counts only if the lease row still has the writer's epoch; the statement that proves it (`FENCE`, or the
//! checkpoint's move) runs last in the writer's transaction, so that the row's lock is short and a taker of the lease
//! waits for a commit under way and for nothing else.

use bytes::Bytes;
use godwit_model::{Checkpoint, Entry, Error, Holder, Lease, LeaseRecord, LogId, Position, Result, Sequence, TaskName, codes};
use tokio_postgres::{Client, Row};

use crate::{error, quote, writer};

/// Any fixed number: it keeps two installs from racing on the catalog's unique indexes.
const INSTALL_LOCK: i64 = 0x676f_6477_6974;

const INSTALL: &str = "
CREATE SCHEMA IF NOT EXISTS godwit;
CREATE TABLE IF NOT EXISTS godwit.lease (
    task text PRIMARY KEY, epoch int8 NOT NULL, counter int8 NOT NULL,
    host text, boot text, pid int8, started int8,
    \"position\" bytea, log bytea, \"sequence\" int8
) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS godwit.ledger (task text NOT NULL, key text NOT NULL, value bytea NOT NULL, PRIMARY KEY (task, key))";

pub(crate) async fn install(client: &Client) -> Result<()> {
    if installed(client).await? {
        return Ok(());
    }
    let sql = format!("BEGIN; SELECT pg_advisory_xact_lock({INSTALL_LOCK}); {INSTALL}; COMMIT");
    client.batch_execute(&sql).await.map_err(error::from_server)
}

pub(crate) async fn installed(client: &Client) -> Result<bool> {
    let sql = "SELECT to_regclass('godwit.lease') IS NOT NULL AND to_regclass('godwit.ledger') IS NOT NULL";
    Ok(client.query_one(sql, &[]).await.map_err(error::from_server)?.get(0))
}

const FIELDS: &str = "epoch, counter, host, boot, pid, started, \"position\", log, \"sequence\"";

pub(crate) async fn read(client: &Client, task: &TaskName) -> Result<Option<LeaseRecord>> {
    if !installed(client).await? {
        return Ok(None);
    }
    let sql = format!("SELECT {FIELDS} FROM godwit.lease WHERE task = $1");
    let row = client.query_opt(&sql, &[&task.as_str()]).await.map_err(error::from_server)?;
    row.as_ref().map(record_of).transpose()
}

pub(crate) async fn take(client: &Client, task: &TaskName, holder: &Holder, seen: Option<&LeaseRecord>) -> Result<Option<LeaseRecord>> {
    let (pid, started) = (i64::from(holder.pid), to_signed(holder.started)?);
    let row = match seen {
        None => {
            let sql = format!(
                "INSERT INTO godwit.lease (task, epoch, counter, host, boot, pid, started) VALUES ($1, 1, 1, $2, $3, $4, $5)
                 ON CONFLICT (task) DO NOTHING RETURNING {FIELDS}"
            );
            client.query_opt(&sql, &[&task.as_str(), &holder.host, &holder.boot, &pid, &started]).await
        }
        Some(seen) => {
            let sql = format!(
                "UPDATE godwit.lease SET epoch = epoch + 1, counter = counter + 1, host = $2, boot = $3, pid = $4, started = $5
                 WHERE task = $1 AND epoch = $6 AND counter = $7 RETURNING {FIELDS}"
            );
            let (epoch, counter) = (to_signed(seen.epoch)?, to_signed(seen.counter)?);
            client.query_opt(&sql, &[&task.as_str(), &holder.host, &holder.boot, &pid, &started, &epoch, &counter]).await
        }
    };
    row.map_err(error::from_server)?.as_ref().map(record_of).transpose()
}

fn record_of(row: &Row) -> Result<LeaseRecord> {
    let holder = match (
        row.get::<_, Option<String>>(2),
        row.get::<_, Option<String>>(3),
        row.get::<_, Option<i64>>(4),
        row.get::<_, Option<i64>>(5),
    ) {
        (Some(host), Some(boot), Some(pid), Some(started)) => {
            Some(Holder { host, boot, pid: u32::try_from(pid).map_err(|_| damaged())?, started: to_unsigned(started)? })
        }
        _ => None,
    };
    let checkpoint = match (row.get::<_, Option<&[u8]>>(6), row.get::<_, Option<&[u8]>>(7), row.get::<_, Option<i64>>(8)) {
        (Some(position), Some(log), Some(sequence)) => Some(Checkpoint {
            position: Position(Bytes::copy_from_slice(position)),
            log: LogId(u128::from_be_bytes(log.try_into().map_err(|_| damaged())?)),
            sequence: Sequence(to_unsigned(sequence)?),
        }),
        (None, None, None) => None,
        _ => return Err(damaged()),
    };
    Ok(LeaseRecord { holder, checkpoint, epoch: to_unsigned(row.get(0))?, counter: to_unsigned(row.get(1))? })
}

fn damaged() -> Error {
    Error::new(&codes::TARGET_CHANGED, "the row of the lease is not as Godwit writes it").at("table godwit.lease")
}

pub(crate) fn to_signed(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| Error::internal("a counter left the range of the target's integers"))
}

fn to_unsigned(number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|_| damaged())
}

pub(crate) const FENCE: &str = "UPDATE godwit.lease SET counter = counter + 1 WHERE task = $1 AND epoch = $2";

/// Proves the lease inside the open transaction, or (outside of one) renews it.
pub(crate) async fn fence(client: &Client, lease: &Lease) -> Result<()> {
    let touched = client.execute(FENCE, &[&lease.task.as_str(), &to_signed(lease.epoch)?]).await.map_err(error::from_server)?;
    if touched == 1 { Ok(()) } else { Err(lost(lease)) }
}

pub(crate) fn lost(lease: &Lease) -> Error {
    Error::new(&codes::LEASE_LOST, format!("another process took over task {}", lease.task))
        .effect("nothing of this process was written after that")
        .remedy("let the other process go on")
}

pub(crate) async fn release(client: &Client, lease: &Lease) -> Result<()> {
    let sql = "UPDATE godwit.lease SET counter = counter + 1, host = NULL, boot = NULL, pid = NULL, started = NULL WHERE task = $1 AND epoch = $2";
    let touched = client.execute(sql, &[&lease.task.as_str(), &to_signed(lease.epoch)?]).await.map_err(error::from_server)?;
    if touched == 1 { Ok(()) } else { Err(lost(lease)) }
}

pub(crate) async fn ledger(client: &Client, task: &TaskName) -> Result<Vec<Entry>> {
    if !installed(client).await? {
        return Ok(Vec::new());
    }
    let rows = client.query("SELECT key, value FROM godwit.ledger WHERE task = $1 ORDER BY key", &[&task.as_str()]).await;
    let entry = |row: &Row| Entry { key: row.get(0), value: Bytes::copy_from_slice(row.get(1)) };
    Ok(rows.map_err(error::from_server)?.iter().map(entry).collect())
}

const WRITE_ENTRIES: &str = "
INSERT INTO godwit.ledger (task, key, value) SELECT $1, e.key, e.value FROM unnest($2::text[], $3::bytea[]) AS e(key, value)
ON CONFLICT (task, key) DO UPDATE SET value = EXCLUDED.value";
const OVERWRITE: &str = "ON CONFLICT (task, key) DO UPDATE SET value = EXCLUDED.value";
const REMOVE_ENTRIES: &str = "DELETE FROM godwit.ledger WHERE task = $1 AND key = ANY($2)";

/// What goes and what stays. Of two entries with one key the last counts.
fn last_of_each(entries: &[Entry]) -> (Vec<&str>, Vec<(&str, &[u8])>) {
    let last: std::collections::BTreeMap<&str, &[u8]> = entries.iter().map(|entry| (entry.key.as_str(), &entry.value[..])).collect();
    let (removed, kept): (Vec<_>, Vec<_>) = last.into_iter().partition(|(_, value)| value.is_empty());
    (removed.into_iter().map(|(key, _)| key).collect(), kept)
}

/// Inside the open transaction.
pub(crate) async fn write_entries(client: &Client, task: &TaskName, entries: &[Entry]) -> Result<()> {
    let (removed, kept) = last_of_each(entries);
    if !kept.is_empty() {
        let (keys, values): (Vec<&str>, Vec<&[u8]>) = kept.into_iter().unzip();
        client.execute(WRITE_ENTRIES, &[&task.as_str(), &keys, &values]).await.map_err(error::from_server)?;
    }
    if !removed.is_empty() {
        client.execute(REMOVE_ENTRIES, &[&task.as_str(), &removed]).await.map_err(error::from_server)?;
    }
    Ok(())
}

/// Bytes of keys and values. As text they are three times as many, and a session keeps the room for its largest message.
const MOST_IN_ONE_MESSAGE: usize = 64 << 10;

/// The end of a transaction: its entries, the proof of the lease and the COMMIT in one message, so that the lease's row,
/// which every writer of the task locks, is held for no round trip. Many entries go ahead of it, as they are. Without the
/// lease a division by zero keeps the COMMIT from running, and the transaction stays open, failed.
pub(crate) async fn commit_with(client: &Client, lease: &Lease, entries: &[Entry]) -> Result<()> {
    let task = quote::literal(lease.task.as_str());
    let mut sql = String::new();
    let (removed, kept) = match entries.iter().map(|entry| entry.key.len() + entry.value.len()).sum::<usize>() > MOST_IN_ONE_MESSAGE {
        true => {
            write_entries(client, &lease.task, entries).await?;
            Default::default()
        }
        false => last_of_each(entries),
    };
    if !kept.is_empty() {
        let rows: Vec<String> =
            kept.iter().map(|(key, value)| format!("({task}, {}, decode('{}', 'hex'))", quote::literal(key), hex(value))).collect();
        let rows = rows.join(", ");
        sql.push_str(&format!("INSERT INTO godwit.ledger (task, key, value) VALUES {rows} {OVERWRITE}; "));
    }
    if !removed.is_empty() {
        let keys: Vec<String> = removed.iter().map(|key| quote::literal(key)).collect();
        sql.push_str(&format!("DELETE FROM godwit.ledger WHERE task = {task} AND key IN ({}); ", keys.join(", ")));
    }
    sql.push_str(&format!(
        "WITH proof AS (UPDATE godwit.lease SET counter = counter + 1 WHERE task = {task} AND epoch = {} RETURNING 1)
         SELECT 1 / count(*)::int4 FROM proof; COMMIT",
        lease.epoch
    ));
    client.batch_execute(&sql).await.map_err(|problem| match writer::is_division_by_zero(&problem) {
        true => lost(lease),
        false => error::from_server(problem),
    })
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// Removes what is kept for the task, and Godwit's tables once no task is left in them.
pub(crate) async fn remove(client: &Client, task: &TaskName) -> Result<()> {
    if !installed(client).await? {
        return Ok(());
    }
    let sql =
        format!("BEGIN; SELECT pg_advisory_xact_lock({INSTALL_LOCK}); LOCK TABLE godwit.lease, godwit.ledger IN SHARE ROW EXCLUSIVE MODE");
    client.batch_execute(&sql).await.map_err(error::from_server)?;
    for table in ["lease", "ledger"] {
        client.execute(&format!("DELETE FROM godwit.{table} WHERE task = $1"), &[&task.as_str()]).await.map_err(error::from_server)?;
    }
    let sql = "SELECT NOT EXISTS (SELECT FROM godwit.lease) AND NOT EXISTS (SELECT FROM godwit.ledger)";
    if client.query_one(sql, &[]).await.map_err(error::from_server)?.get(0) {
        client.batch_execute("DROP TABLE godwit.lease, godwit.ledger").await.map_err(error::from_server)?;
        let others = "SELECT EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace('godwit')) OR EXISTS (SELECT FROM pg_proc WHERE pronamespace = to_regnamespace('godwit'))";
        if !client.query_one(others, &[]).await.map_err(error::from_server)?.get::<_, bool>(0) {
            client.batch_execute("DROP SCHEMA godwit").await.map_err(error::from_server)?;
        }
    }
    client.batch_execute("COMMIT").await.map_err(error::from_server)
}

/// What moves the checkpoint: one row, or an error that ends the transaction before the COMMIT that is already on its
/// way (a division by the number of rows moved).
pub(crate) const MOVE_CHECKPOINT: &str = "
WITH moved AS (
    UPDATE godwit.lease SET counter = counter + 1, \"position\" = $3, log = $4, \"sequence\" = $5
    WHERE task = $1 AND epoch = $2 AND \"position\" IS NOT DISTINCT FROM $6 AND log IS NOT DISTINCT FROM $7 AND \"sequence\" IS NOT DISTINCT FROM $8
    RETURNING 1
) SELECT 1 / count(*)::int4 FROM moved";

pub(crate) fn log_bytes(checkpoint: &Checkpoint) -> Vec<u8> {
    checkpoint.log.0.to_be_bytes().to_vec()
}
