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
use crate::{error, quote};

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
            if task.as_ref() == self.task.as_str().as_bytes() {
                markers.push(Marker(String::from_utf8_lossy(name).into_owned()));
            }
            Ok(())
        })?;
        Ok(markers)
    }
}
