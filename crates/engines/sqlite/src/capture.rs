//! The tables in the user's file that hold captured changes, how they come and go, and what is checked of them.
//!
//! One log for all tables: its rowid is the one order of all changes, so a trigger writes one row and no counter. Its
//! columns have no declared type, so every value keeps its storage class. The newest row is never removed: numbers are
//! then given out without gaps and never again, and a gap proves that changes were lost. Numbering begins at the
//! microseconds of the log's birth, so that a position of an older log is never one of this.

use std::time::{SystemTime, UNIX_EPOCH};

use godwit_model::{Error, Position, Result, TaskName, codes};
use rusqlite::{Connection, TransactionBehavior};

use crate::catalog::Catalog;
use crate::error::Told;
use crate::look::Look;
use crate::schema::{OWN, RowName, Shape};
use crate::tokens::quoted;
use crate::triggers::Capture;

/// Tables whose triggers are made in one transaction: more would keep users waiting for the lock.
const TABLES_PER_TRANSACTION: usize = 20;
/// The same when they go: as many as those tables have.
const TRIGGERS_PER_TRANSACTION: usize = 6 * TABLES_PER_TRANSACTION;
/// For each trigger that comes or goes SQLite looks through the whole schema: room for that of some thousand tables, instead
/// of reading it from the file each time. In KiB.
const SCHEMA_CACHE: i64 = 16 << 10;
/// SQLite's own default limit for the columns of a table, less those of the log itself.
pub(crate) const MOST_COLUMNS: usize = 1990;

/// What Godwit's objects in this file are called for one task.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    task: String,
    pub(crate) log: String,
    pub(crate) candidates: String,
    pub(crate) captured: String,
}

impl Names {
    pub(crate) fn new(task: &TaskName) -> Self {
        let named = |what: &str| format!("{OWN}{what}_{task}");
        Names { task: task.to_string(), log: named("change"), candidates: named("candidate"), captured: named("capture") }
    }

    pub(crate) fn trigger(&self, number: u32, kind: &str) -> String {
        format!("{OWN}{number}_{kind}_{}", self.task)
    }

    pub(crate) fn fence(&self, number: usize, event: &str) -> String {
        format!("{OWN}fence_{number}_{event}_{}", self.task)
    }

    /// Whether a trigger of that name is one of this task's.
    pub(crate) fn is_ours(&self, trigger: &str) -> bool {
        let Some(rest) = trigger.strip_prefix(OWN) else { return false };
        let rest = rest.strip_prefix("fence_").unwrap_or(rest);
        let mut parts = rest.splitn(3, '_');
        let number = parts.next().is_some_and(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
        number && parts.next().is_some() && parts.next() == Some(&self.task)
    }

    pub(crate) fn is_capture(&self, trigger: &str) -> bool {
        self.is_ours(trigger) && !trigger.starts_with("godwit_fence_")
    }

    pub(crate) fn tables(&self) -> [&str; 3] {
        [&self.log, &self.candidates, &self.captured]
    }
}

/// A table whose changes are logged.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CapturedTable {
    pub(crate) number: u32,
    pub(crate) name: String,
    look: Look,
}

/// Makes the tables of the log, when nothing of an earlier one is left but them.
pub(crate) fn establish_log(connection: &mut Connection, names: &Names, tables: &[String]) -> Result<()> {
    // all tables are read before users are kept waiting
    let width = Width::of(&Catalog::of_names(connection, tables.iter())?.shapes(connection, tables.iter())?);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).told()?;
    let number = next_number(&transaction, names)?;
    drop_tables(&transaction, names)?;
    create_tables(&transaction, names, width, number)?;
    transaction.commit().told()
}

/// With room for the schema meanwhile.
fn with_schema_kept<T>(connection: &mut Connection, act: impl FnOnce(&mut Connection) -> Result<T>) -> Result<T> {
    let usual: i64 = connection.query_row("PRAGMA cache_size", [], |row| row.get(0)).told()?;
    connection.pragma_update(None, "cache_size", -SCHEMA_CACHE).told()?;
    let done = act(connection);
    connection.pragma_update(None, "cache_size", usual).told()?;
    done
}

/// Makes the triggers of one part of the tables, complete in itself; says whether it was the last.
pub(crate) fn establish_part(connection: &mut Connection, names: &Names, tables: &[String], part: usize) -> Result<bool> {
    with_schema_kept(connection, |connection| make_part(connection, names, tables, part))
}

fn make_part(connection: &mut Connection, names: &Names, tables: &[String], part: usize) -> Result<bool> {
    let first = part * TABLES_PER_TRANSACTION;
    let these = tables.get(first..tables.len().min(first + TABLES_PER_TRANSACTION)).unwrap_or_default();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).told()?;
    let base = base_number(&transaction, names)?;
    let shapes = Catalog::of_names(&transaction, these.iter())?.shapes(&transaction, these.iter())?;
    Width::of(&shapes).must_fit(&transaction, names)?;
    let numbered =
        |at: usize| u32::try_from(first + at).map(|at| base + at).map_err(|_| Error::internal("more tables than a file can hold"));
    for (at, shape) in shapes.iter().enumerate() {
        make_triggers(&transaction, names, numbered(at)?, shape)?;
    }
    let captured = Catalog::of_names(&transaction, these.iter())?.shapes(&transaction, these.iter())?;
    for (at, shape) in captured.iter().enumerate() {
        note_captured(&transaction, names, numbered(at)?, shape)?;
    }
    transaction.commit().told()?;
    Ok(first + TABLES_PER_TRANSACTION >= tables.len())
}

/// Columns that the log needs for the values of the widest table, and for what identifies a row.
#[derive(Clone, Copy)]
struct Width {
    values: usize,
    identity: usize,
}

impl Width {
    fn of(shapes: &[Shape]) -> Self {
        let identity = |shape: &Shape| if let RowName::Key(parts) = &shape.row { parts.len() } else { 1 };
        Width {
            values: shapes.iter().map(|shape| shape.carried().len()).max().unwrap_or(0).max(1),
            identity: shapes.iter().map(identity).max().unwrap_or(1),
        }
    }

    /// A table may have been altered since the log was made; its triggers would fail, and its users with them.
    fn must_fit(self, connection: &Connection, names: &Names) -> Result<()> {
        let columns = |table: &str, besides: usize| -> Result<usize> {
            let count: i64 = connection.query_row("SELECT count(*) FROM pragma_table_info(?1)", [table], |row| row.get(0)).told()?;
            Ok(usize::try_from(count).unwrap_or(0).saturating_sub(besides))
        };
        let (values, all) = (columns(&names.log, 3)?, columns(&names.candidates, 1)?);
        if self.values <= values && self.identity + values <= all {
            return Ok(());
        }
        Err(Error::new(&codes::RETRYABLE, "a table was altered while its capture was made").effect("capture is made anew"))
    }
}

fn make_triggers(connection: &Connection, names: &Names, number: u32, shape: &Shape) -> Result<()> {
    for trigger in Capture::new(names, number, shape)?.triggers() {
        connection.execute_batch(&trigger.sql).told().map_err(|error| error.at_least_at(|| format!("table main.{}", shape.name)))?;
    }
    Ok(())
}

fn note_captured(connection: &Connection, names: &Names, number: u32, shape: &Shape) -> Result<()> {
    let now = Look::of(shape, names);
    let sql = format!("INSERT INTO {} VALUES (?1, ?2, ?3, ?4, ?5, ?6)", quoted(&names.captured));
    let values = (number, &shape.name, now.columns, now.uniques, now.own_triggers, now.user_triggers);
    connection.execute(&sql, values).told()?;
    Ok(())
}

/// Numbers of tables go on where an earlier log of this task ended: a layout's number means one layout.
fn next_number(connection: &Connection, names: &Names) -> Result<u32> {
    if !connection.table_exists(None, names.captured.as_str()).told()? {
        return Ok(1);
    }
    let sql = format!("SELECT ifnull(max(number), 0) + 1 FROM {}", quoted(&names.captured));
    connection.query_row(&sql, [], |row| row.get(0)).told()
}

/// The number before the first table's, kept in the row of the log itself.
fn base_number(connection: &Connection, names: &Names) -> Result<u32> {
    let sql = format!("SELECT number + 1 FROM {} WHERE name IS NULL", quoted(&names.captured));
    connection.query_row(&sql, [], |row| row.get(0)).told()
}

fn create_tables(connection: &Connection, names: &Names, width: Width, number: u32) -> Result<()> {
    let values = (0..width.values).map(|at| format!("c{at}")).collect::<Vec<_>>().join(", ");
    let keys = (0..width.identity).map(|at| format!("k{at}")).collect::<Vec<_>>().join(", ");
    let (log, candidates, captured) = (quoted(&names.log), quoted(&names.candidates), quoted(&names.captured));
    let sql = format!(
        "CREATE TABLE {log} (n INTEGER PRIMARY KEY, t, op, {values});
         CREATE TABLE {candidates} (t, {keys}, {values});
         CREATE TABLE {captured} (number INTEGER PRIMARY KEY, name, columns, uniques, own_triggers, user_triggers);"
    );
    connection.execute_batch(&sql).told()?;
    connection.execute(&format!("INSERT INTO {captured} (number) VALUES (?1)"), [number]).told()?;
    connection.execute(&format!("INSERT INTO {log} (n, t, op) VALUES (?1, 0, 'b')"), [birth()]).told()?;
    Ok(())
}

fn birth() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX / 2)
}

/// Removes one part of the triggers; says whether it was the last. They go before the tables that they write.
pub(crate) fn remove_part(connection: &mut Connection, names: &Names) -> Result<bool> {
    with_schema_kept(connection, |connection| drop_part(connection, names))
}

fn drop_part(connection: &mut Connection, names: &Names) -> Result<bool> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).told()?;
    let left = own_triggers(&transaction, names)?;
    for trigger in left.iter().take(TRIGGERS_PER_TRANSACTION) {
        transaction.execute_batch(&format!("DROP TRIGGER IF EXISTS {}", quoted(trigger))).told()?;
    }
    transaction.commit().told()?;
    Ok(left.len() <= TRIGGERS_PER_TRANSACTION)
}

/// A trigger that is there still, made by a process that has lost its lease since, goes first: without its tables it would
/// refuse what users write.
fn drop_tables(connection: &Connection, names: &Names) -> Result<()> {
    for trigger in own_triggers(connection, names)? {
        connection.execute_batch(&format!("DROP TRIGGER IF EXISTS {}", quoted(&trigger))).told()?;
    }
    for table in names.tables() {
        connection.execute_batch(&format!("DROP TABLE IF EXISTS {}", quoted(table))).told()?;
    }
    Ok(())
}

fn own_triggers(connection: &Connection, names: &Names) -> Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger' ORDER BY name").told()?;
    let all = statement.query_map([], |row| row.get(0)).told()?.collect::<rusqlite::Result<Vec<String>>>().told()?;
    Ok(all.into_iter().filter(|name| names.is_ours(name)).collect())
}

/// Everything of this task in the file, by name.
pub(crate) fn traces(connection: &Connection, names: &Names) -> Result<Vec<String>> {
    let mut found: Vec<String> = own_triggers(connection, names)?.into_iter().map(|name| format!("trigger {name}")).collect();
    for table in names.tables() {
        if connection.table_exists(None, table).told()? {
            found.push(format!("table {table}"));
        }
    }
    Ok(found)
}

/// Behind the last part of the triggers.
pub(crate) fn remove_log(connection: &mut Connection, names: &Names) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).told()?;
    drop_tables(&transaction, names)?;
    transaction.commit().told()
}

/// The tables captured, as they looked when capture began; None: there is no capture.
pub(crate) fn captured(connection: &Connection, names: &Names) -> Result<Option<Vec<CapturedTable>>> {
    if !connection.table_exists(None, names.captured.as_str()).told()? || !connection.table_exists(None, names.log.as_str()).told()? {
        return Ok(None);
    }
    let sql = format!(
        "SELECT number, name, columns, uniques, own_triggers, user_triggers FROM {} WHERE name IS NOT NULL ORDER BY number",
        quoted(&names.captured)
    );
    let mut statement = connection.prepare(&sql).told()?;
    let rows = statement.query_map([], |row| {
        let look = Look { columns: row.get(2)?, uniques: row.get(3)?, own_triggers: row.get(4)?, user_triggers: row.get(5)? };
        Ok(CapturedTable { number: row.get(0)?, name: row.get(1)?, look })
    });
    Ok(Some(rows.told()?.collect::<rusqlite::Result<Vec<_>>>().told()?))
}

/// Compares captured tables with what they are now; gives their shapes if nothing that matters changed.
pub(crate) fn all_unchanged(connection: &Connection, names: &Names, tables: &[CapturedTable]) -> Result<Vec<Shape>> {
    let catalog = Catalog::of_names(connection, tables.iter().map(|table| &table.name))?;
    tables.iter().map(|table| unchanged(connection, &catalog, names, table)).collect()
}

fn unchanged(connection: &Connection, catalog: &Catalog, names: &Names, table: &CapturedTable) -> Result<Shape> {
    table.look.must_be_known(&table.name)?;
    let Some(shape) = catalog.find(connection, &table.name)? else {
        return Err(changed(table, "it was dropped or renamed").at(format!("table main.{}", table.name)));
    };
    let now = Look::of(&shape, names);
    let what = if now.columns != table.look.columns {
        "its columns changed"
    } else if now.uniques != table.look.uniques {
        "its unique indexes changed"
    } else if now.user_triggers != table.look.user_triggers {
        "its triggers changed"
    } else if now.own_triggers != table.look.own_triggers {
        return Err(Error::new(&codes::OUT_OF_SIGHT, format!("table `{}` lost its capture triggers: it was rebuilt", table.name))
            .at(format!("table main.{}", table.name))
            .remedy("run with --resync: the table is copied again"));
    } else {
        return Ok(shape);
    };
    Err(changed(table, what))
}

fn changed(table: &CapturedTable, what: &str) -> Error {
    Error::new(&codes::DDL_STOPPED, format!("the schema of table `{}` was changed: {what}", table.name))
        .at(format!("table main.{}", table.name))
        .effect("the changes since the last checkpoint stay in the source's file")
        .remedy("make the same change at the target, then run with --resync")
}

/// The highest number that this connection's transaction sees; None: there is no log.
pub(crate) fn highest(connection: &Connection, names: &Names) -> Result<i64> {
    let mut statement = connection.prepare_cached(&format!("SELECT max(n) FROM {}", quoted(&names.log))).told()?;
    let highest: Option<i64> = statement.query_row([], |row| row.get(0)).told()?;
    highest.ok_or_else(|| lost("Godwit's log in the source's file is empty"))
}

/// Whether the log still holds everything behind this number.
pub(crate) fn holds(connection: &Connection, names: &Names, number: i64) -> Result<()> {
    let highest = highest(connection, names)?;
    if highest < number {
        return Err(Error::new(&codes::SOURCE_CHANGED, "the source's file is older than what was read from it")
            .effect("nothing was changed")
            .remedy("if the file was restored, run with --resync"));
    }
    let mut statement = connection.prepare_cached(&format!("SELECT min(n) FROM {} WHERE n > ?1", quoted(&names.log))).told()?;
    let next: Option<i64> = statement.query_row([number], |row| row.get(0)).told()?;
    match next {
        Some(next) if next != number + 1 => Err(lost("changes behind the checkpoint are gone from the source's file")),
        None if highest != number => Err(lost("changes behind the checkpoint are gone from the source's file")),
        _ => Ok(()),
    }
}

pub(crate) fn lost(what: &str) -> Error {
    Error::new(&codes::POSITION_LOST, what).remedy("run with --resync: the target is made equal again in place")
}

pub(crate) fn number(position: &Position) -> Result<i64> {
    let text = std::str::from_utf8(&position.0).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| lost("the checkpoint is no position of a SQLite source"))
}

pub(crate) fn position(number: i64) -> Position {
    Position::from(number.to_string())
}

/// Writes a marker record.
pub(crate) fn mark(connection: &mut Connection, names: &Names, marker: &str) -> Result<()> {
    let sql = format!("INSERT INTO {} (t, op, c0) VALUES (0, 'm', ?1)", quoted(&names.log));
    connection.execute(&sql, [marker]).told()?;
    Ok(())
}

/// Writes a marker and leaves its transaction open; gives the marker's number.
pub(crate) fn begin_marked(connection: &mut Connection, names: &Names, marker: &str) -> Result<i64> {
    connection.execute_batch("BEGIN IMMEDIATE").told()?;
    let marked = mark(connection, names, marker);
    if marked.is_err() {
        connection.execute_batch("ROLLBACK").told()?;
    }
    marked.map(|()| connection.last_insert_rowid())
}

/// Removes up to `most` records at the log's beginning, none behind `confirmed` and never the newest; and candidates
/// left over, since no statement is under way while we hold the write lock. Gives how many are known to be left.
pub(crate) fn trim(connection: &mut Connection, names: &Names, confirmed: i64, most: i64) -> Result<bool> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).told()?;
    let log = quoted(&names.log);
    let (first, last): (i64, i64) = transaction
        .query_row(&format!("SELECT (SELECT min(n) FROM {log}), (SELECT max(n) FROM {log})"), [], |row| Ok((row.get(0)?, row.get(1)?)))
        .told()?;
    let end = confirmed.min(last - 1);
    let until = end.min(first.saturating_add(most) - 1);
    transaction.execute(&format!("DELETE FROM {log} WHERE n <= ?1"), [until]).told()?;
    transaction.execute(&format!("DELETE FROM {} WHERE t > 0", quoted(&names.candidates)), []).told()?;
    transaction.commit().told()?;
    Ok(until < end)
}
