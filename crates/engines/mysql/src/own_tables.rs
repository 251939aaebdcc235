//! Godwit's own tables on a target: made, found, and taken away with the last task.

use godwit_model::{Error, Result, TaskName, codes};
use mysql_async::prelude::{FromValue, Queryable as _};
use mysql_async::{Conn, Row};

use crate::script::{Script, execute, number_of};
use crate::{error, lease, ledger, quote};

/// Whoever makes or drops Godwit's own tables or its database holds this lock of the server, also on a source.
pub(crate) const INSTALL_LOCK: &str = "godwit install";
/// Seconds.
const INSTALL_WAIT: u32 = 30;

const DATABASE: &str = "CREATE DATABASE IF NOT EXISTS godwit CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";
/// Names and keys are bytes: `utf8mb4_bin` pads, and would take a key for the same one with a space behind it.
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
pub(crate) fn is_absent(problem: &mysql_async::Error) -> bool {
    matches!(number_of(problem), Some(1049 | 1146))
}

/// A cell of a row of theirs; None: NULL.
pub(crate) fn cell<T: FromValue>(row: &Row, place: usize) -> Result<Option<T>> {
    match row.get_opt::<Option<T>, _>(place) {
        Some(Ok(value)) => Ok(value),
        _ => Err(Error::new(&codes::TARGET_CHANGED, "a row is not as Godwit writes it").at("database godwit")),
    }
}

/// What Godwit keeps here for the task.
pub(crate) async fn traces(conn: &mut Conn, task: &TaskName) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if lease::read(conn, task).await?.is_some() {
        found.push(format!("lease and checkpoint of {task} in table godwit.lease"));
    }
    let entries = ledger::all(conn, task).await?.len();
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
