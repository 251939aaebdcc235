//! What a stream must know of the server before it begins, and whether it is the right one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use godwit_model::{Error, Result, Table, TableName, TaskName, codes};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::beginning;
use crate::connect::{Endpoint, Flavor, Server};
use crate::gtid::GtidPosition;
use crate::marker;
use crate::patience::answered;
use crate::position::{Place, StoreMark};
use crate::{error, quote};

/// What the catalog of now says; a stream that begins far behind meets the schema changes in between, and stops there.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// Names of tables compare without regard to case.
    pub(super) folds_case: bool,
    /// Columns that the server hides behind the table's own: the hashes of unique keys over long values. The log has them.
    pub(super) hidden: HashMap<TableName, usize>,
}

pub(super) async fn look(conn: &mut Conn, tables: &[Arc<Table>]) -> Result<Sight> {
    let case: Option<u8> = conn.query_first("SELECT @@lower_case_table_names").await.map_err(error::from_server)?;
    let mut sight = Sight { folds_case: case != Some(0), hidden: HashMap::new() };
    let wanted: HashSet<&TableName> = tables.iter().map(|table| &table.name).collect();
    let databases: HashSet<&str> = tables.iter().map(|table| table.name.schema.as_str()).collect();
    for database in databases {
        look_into(conn, database, &wanted, &mut sight).await?;
    }
    Ok(sight)
}

async fn look_into(conn: &mut Conn, database: &str, wanted: &HashSet<&TableName>, sight: &mut Sight) -> Result<()> {
    let database_text = quote::literal(database);
    let sql = format!(
        "SELECT TABLE_NAME, COALESCE(ENGINE, ''), TABLE_TYPE FROM information_schema.TABLES \
         WHERE TABLE_SCHEMA = {database_text} AND (TABLE_TYPE <> 'BASE TABLE' OR ENGINE <> 'InnoDB')"
    );
    let others: Vec<(String, String, String)> = conn.query(sql).await.map_err(error::from_server)?;
    for (name, engine, kind) in others {
        let table = TableName::new(database, name);
        if wanted.contains(&table) {
            return Err(not_followed(&table, &engine, &kind));
        }
    }
    let sql = format!(
        "SELECT TABLE_NAME, COUNT(DISTINCT INDEX_NAME) FROM information_schema.STATISTICS \
         WHERE TABLE_SCHEMA = {database_text} AND INDEX_TYPE = 'HASH' GROUP BY TABLE_NAME"
    );
    let hidden: Vec<(String, usize)> = conn.query(sql).await.map_err(error::from_server)?;
    sight.hidden.extend(hidden.into_iter().map(|(name, count)| (TableName::new(database, name), count)));
    Ok(())
}

fn not_followed(table: &TableName, engine: &str, kind: &str) -> Error {
    let what = match kind {
        "SYSTEM VERSIONED" => "the log of a table with system versioning also holds the rows of its history".to_owned(),
        "BASE TABLE" => format!("the engine {engine} has no transactions: its changes cannot be followed exactly"),
        other => format!("it is no table but a {}", other.to_lowercase()),
    };
    Error::new(&codes::TASK_UNSUPPORTED, what)
        .at(format!("table {table}"))
        .remedy("leave it out of the selection, or make it an InnoDB table")
}

/// The mark that Godwit wrote to this store; None: it was never here, or its database was removed.
pub(crate) async fn store_mark(conn: &mut Conn) -> Result<Option<StoreMark>> {
    if !marker::is_there(conn).await? {
        return Ok(None);
    }
    let text: Option<String> = conn.query_first(marker::read_store_mark()).await.map_err(error::from_server)?;
    Ok(text.as_deref().and_then(StoreMark::parse))
}

/// Refuses a server that is not the one the position was taken on, or whose log ends before it or is another one. That the
/// log still begins before it is for the server itself to say, when it is asked to send it.
pub(crate) async fn must_hold(endpoint: &Endpoint, conn: &mut Conn, task: &TaskName, place: &Place) -> Result<Server> {
    let server = answered(must_be_the_store(endpoint, conn, task, place)).await?;
    // the server may look for long in a large file, and the transaction may be large
    beginning::must_be_there(endpoint, place, &server).await.map_err(|error| error.at_least_at(|| endpoint.display.clone()))?;
    Ok(server)
}

/// As far as the server can answer at once.
async fn must_be_the_store(endpoint: &Endpoint, conn: &mut Conn, task: &TaskName, place: &Place) -> Result<Server> {
    let server = must_log_rows(endpoint, conn).await?;
    let placed = |error: Error| error.at_least_at(|| endpoint.display.clone());
    let mark = store_mark(conn).await?;
    if place.store.is_some() && mark.is_some() && mark != place.store {
        return Err(placed(
            Error::new(
                &codes::SOURCE_CHANGED,
                "the source is not the store that its position was taken on: it bears another mark of Godwit's",
            )
            .remedy("name the store that the task began with; if this one took its place, run with --resync"),
        ));
    }
    let end = end_of_log(conn).await?;
    if let Some(gtid) = place.gtids.ahead_of(&end) {
        return Err(placed(
            Error::new(&codes::SOURCE_CHANGED, format!("the source's log ends before the position: {gtid} is not in it, its end is {end}"))
                .remedy("name the server that the position was taken on; if it was restored from a backup, run with --resync"),
        ));
    }
    if place.store.is_some() && (mark.is_none() || !marker::has_begun(conn, task).await?) {
        return Err(placed(
            Error::new(&codes::POSITION_LOST, "what Godwit left at the source for this task was removed, or this is another source")
                .remedy(
                    "name the source that the task began with; if it is this one, run with --resync, which makes the target equal again",
                ),
        ));
    }
    Ok(server)
}

/// How far the log goes. A transaction is in it, and sent to replicas, before others see its rows.
pub(crate) async fn end_of_log(conn: &mut Conn) -> Result<GtidPosition> {
    let end: Option<String> = conn.query_first("SELECT @@gtid_binlog_pos").await.map_err(error::from_server)?;
    GtidPosition::parse(&end.unwrap_or_default()).ok_or_else(|| Error::internal("a server's position that cannot be read"))
}

/// A log is there, and new sessions log rows. Sessions may still say otherwise: the stream sees what they log.
pub(crate) async fn must_log_rows(endpoint: &Endpoint, conn: &mut Conn) -> Result<Server> {
    let server = endpoint.ask(conn).await?;
    if server.flavor != Flavor::MariaDb {
        return Err(
            Error::new(&codes::TASK_UNSUPPORTED, "changes are followed on MariaDB servers only, in this version").at(&endpoint.display)
        );
    }
    let row: Option<(bool, String)> = conn.query_first("SELECT @@log_bin, @@GLOBAL.binlog_format").await.map_err(error::from_server)?;
    let (logs, format) = row.unwrap_or_default();
    let lack = match (logs, format.as_str()) {
        (false, _) => "the server writes no binary log",
        (true, "ROW") => return Ok(server),
        (true, _) => "the server logs statements instead of rows",
    };
    Err(Error::new(&codes::SETTING_UNSUITABLE, lack)
        .at(&endpoint.display)
        .remedy("start the server with log_bin and binlog_format = ROW, and end the sessions that began before"))
}
