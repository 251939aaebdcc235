//! Godwit's own table on a source, `godwit.marker`: one row for each task, and one that tells this store from others.
//!
//! A marker is a row put into it: that row in the log is the place. The task's older row goes in the same transaction, and
//! its new one is always an insert: an update to the same name would not be logged at all, and one of few changed columns not
//! in full.

use godwit_model::{Error, Marker, Result, TableName, TaskName, Value};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, TxOpts};

use crate::binlog::{LoggedTable, LoggedType, RowsEvent, RowsKind, kind, undecodable};
use crate::position::StoreMark;
use crate::values::Codec;
use crate::{error, own_tables, quote};

pub(crate) const DATABASE: &str = "godwit";
const TABLE: &str = "marker";
/// The type of both columns; no task and no marker has a longer name.
const TEXT: &str = "varchar(255)";
const TEXT_IN_FULL: &str = "varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";
/// The "task" of the row that tells the store. No task has an empty name.
const STORE: &str = "";

pub(crate) async fn is_there(conn: &mut Conn) -> Result<bool> {
    let sql = format!("SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{DATABASE}' AND TABLE_NAME = '{TABLE}'");
    let found: Option<u8> = conn.query_first(sql).await.map_err(error::from_server)?;
    Ok(found.is_some())
}

/// Makes what is absent: database, table and the store's mark. Two who come at once agree on one mark.
pub(crate) async fn make(conn: &mut Conn) -> Result<()> {
    own_tables::lock(conn).await?;
    let made = make_locked(conn).await;
    own_tables::unlock(conn).await?;
    made
}

async fn make_locked(conn: &mut Conn) -> Result<()> {
    if !is_there(conn).await? {
        let statements = [
            format!("CREATE DATABASE IF NOT EXISTS {DATABASE} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"),
            format!(
                "CREATE TABLE IF NOT EXISTS {DATABASE}.{TABLE} (task {TEXT} NOT NULL PRIMARY KEY, name {TEXT} NOT NULL) \
                 ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
            ),
        ];
        for statement in statements {
            conn.query_drop(statement).await.map_err(error::from_server)?;
        }
    }
    let known: Option<String> = conn.query_first(read_store_mark()).await.map_err(error::from_server)?;
    if known.as_deref().and_then(StoreMark::parse).is_none() {
        let sql = format!("INSERT IGNORE INTO {DATABASE}.{TABLE} (task, name) VALUES ('{STORE}', '{}')", StoreMark::random());
        conn.query_drop(sql).await.map_err(error::from_server)?;
    }
    Ok(())
}

/// Before the first marker: from here on the task's own row is there until its traces are removed.
pub(crate) async fn begin(conn: &mut Conn, task: &TaskName) -> Result<()> {
    let sql = format!("INSERT IGNORE INTO {DATABASE}.{TABLE} (task, name) VALUES ({}, '')", quote::literal(task.as_str()));
    conn.query_drop(sql).await.map_err(error::from_server)
}

/// Whether the task began here and its traces were not removed.
pub(crate) async fn has_begun(conn: &mut Conn, task: &TaskName) -> Result<bool> {
    let found: Option<u64> = conn.query_first(count("=", task)).await.map_err(error::from_server)?;
    Ok(found.unwrap_or(0) > 0)
}

pub(crate) fn read_store_mark() -> String {
    format!("SELECT name FROM {DATABASE}.{TABLE} WHERE task = '{STORE}'")
}

/// Places the marker, in a transaction of its own. A transaction is visible only after it is in the log, so that this one
/// lies behind all that were visible before.
pub(crate) async fn mark(conn: &mut Conn, task: &TaskName, marker: &Marker) -> Result<()> {
    let (task, name) = (quote::literal(task.as_str()), quote::literal(&marker.0));
    let mut transaction = conn.start_transaction(TxOpts::default()).await.map_err(error::from_server)?;
    let statements = [
        format!("DELETE FROM {DATABASE}.{TABLE} WHERE task = {task}"),
        format!("INSERT INTO {DATABASE}.{TABLE} (task, name) VALUES ({task}, {name})"),
    ];
    for statement in statements {
        transaction.query_drop(statement).await.map_err(error::from_server)?;
    }
    transaction.commit().await.map_err(error::from_server)
}

/// What is left here of the task, in words for a person.
pub(crate) async fn traces(conn: &mut Conn, task: &TaskName) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if !is_there(conn).await? {
        return Ok(found);
    }
    if has_begun(conn, task).await? {
        found.push(format!("the last marker of {task} in table {DATABASE}.{TABLE}"));
    }
    if others(conn, task).await? == 0 {
        found.push(format!("table {DATABASE}.{TABLE}"));
    }
    Ok(found)
}

fn count(compare: &str, task: &TaskName) -> String {
    format!("SELECT COUNT(*) FROM {DATABASE}.{TABLE} WHERE task {compare} {} AND task <> '{STORE}'", quote::literal(task.as_str()))
}

async fn others(conn: &mut Conn, task: &TaskName) -> Result<u64> {
    let found: Option<u64> = conn.query_first(count("<>", task)).await.map_err(error::from_server)?;
    Ok(found.unwrap_or(0))
}

/// Removes the task's row, the table when no other task has one, and the database when nothing else is in it.
pub(crate) async fn remove(conn: &mut Conn, task: &TaskName) -> Result<()> {
    own_tables::lock(conn).await?;
    let removed = remove_locked(conn, task).await;
    own_tables::unlock(conn).await?;
    removed
}

async fn remove_locked(conn: &mut Conn, task: &TaskName) -> Result<()> {
    if !is_there(conn).await? {
        return Ok(());
    }
    let own = format!("DELETE FROM {DATABASE}.{TABLE} WHERE task = {}", quote::literal(task.as_str()));
    conn.query_drop(own).await.map_err(error::from_server)?;
    if others(conn, task).await? > 0 {
        return Ok(());
    }
    conn.query_drop(format!("DROP TABLE {DATABASE}.{TABLE}")).await.map_err(error::from_server)?;
    own_tables::drop_empty_database(conn).await
}

/// What the stream reads of it.
pub(crate) struct MarkerTable {
    task: TaskName,
}

impl MarkerTable {
    pub(crate) fn of(task: &TaskName) -> Self {
        MarkerTable { task: task.clone() }
    }

    pub(crate) fn is(&self, table: &TableName) -> bool {
        table.schema == DATABASE && table.name == TABLE
    }

    pub(crate) fn must_agree(&self, map: &LoggedTable) -> Result<()> {
        let is_text = |column: &LoggedType| column.kind == kind::VARCHAR && column.meta == 255 * 4;
        if map.columns.len() == 2 && map.columns.iter().all(is_text) {
            return Ok(());
        }
        Err(undecodable("Godwit's own table has another structure than it was made with")
            .at(format!("table {DATABASE}.{TABLE}"))
            .remedy("drop it, and run with --resync"))
    }

    /// The task's own markers among these rows.
    pub(crate) fn read(&self, rows: &RowsEvent<'_>, columns: &[LoggedType]) -> Result<Vec<Marker>> {
        let mut markers = Vec::new();
        if rows.kind != RowsKind::Insert {
            return Ok(markers);
        }
        let codec = Codec::of(TEXT_IN_FULL)?;
        let value = |index: usize, mut raw: &[u8]| codec.from_log(columns[index], &mut raw);
        rows.each(columns, value, |row, _| {
            let [Value::Text(task), Value::Text(name)] = row.as_slice() else {
                return Err(Error::internal("a marker that is no text"));
            };
            if task.as_ref() == self.task.as_str().as_bytes() && !name.is_empty() {
                markers.push(Marker(String::from_utf8_lossy(name).into_owned()));
            }
            Ok(())
        })?;
        Ok(markers)
    }
}
