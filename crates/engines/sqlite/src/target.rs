//! SQLite as a target. Nothing is created before `install`: a file that is not there yet has no rows, no lease.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use godwit_model::{
    Alteration, Applier, Capabilities, ChunkWrite, ChunkWritten, Create, Description, Entry, Error, Examiner, Feature, Finding, Holder,
    Lease, LeaseRecord, Present, Result, RowReader, SchemaItem, SequenceValue, Stage, TableMapping, TableName, Target, TargetNeeds, Task,
    TaskName, Trace, Value, codes,
};
use rusqlite::Connection;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::apply::SqliteApplier;
use crate::catalog::Catalog;
use crate::connect::{LOCK_WAIT, Location, Purpose};
use crate::describe::COUNTERS;
use crate::digest::SqliteExaminer;
use crate::error::{Told, from_sqlite, is_duplicate_row};
use crate::pool::Pool;
use crate::schema::{Estimates, Frame, MAIN};
use crate::session::Session;
use crate::source::capabilities;
use crate::tokens::quoted;
use crate::{check, chunk, lease, structure};

/// Whose turn it is to write in this process: SQLite has one writer, and waiting here is fair and costs nothing.
#[derive(Clone, Default)]
pub(crate) struct Turn(Arc<Mutex<()>>);

impl Turn {
    pub(crate) async fn take(&self) -> Result<OwnedMutexGuard<()>> {
        let waited = tokio::time::timeout(LOCK_WAIT, self.0.clone().lock_owned()).await;
        waited.map_err(|_| Error::new(&codes::BUSY, "another write of this process holds the target's file"))
    }
}

pub(crate) struct SqliteTarget {
    location: Location,
    turn: Turn,
    readers: Arc<Pool>,
    writers: Pool,
    examiner: SqliteExaminer,
    /// Steps are a person's own, whose settings and temporary tables must end with their connection.
    by_script: bool,
}

impl SqliteTarget {
    pub(crate) fn new(task: &Task) -> Result<Self> {
        let location = Location::new(&task.target)?;
        let readers = Arc::new(Pool::new(&location, Purpose::Read, "read"));
        Ok(SqliteTarget {
            examiner: SqliteExaminer::new(location.clone(), readers.clone()),
            readers,
            writers: Pool::new(&location, Purpose::WriteTarget, "write"),
            turn: Turn::default(),
            by_script: matches!(task.schema.create, Create::File(_)),
            location,
        })
    }

    /// The job's default answer stands for a file that is not there.
    async fn read<T: Default + Send + 'static>(&self, job: impl FnOnce(&Connection) -> Result<T> + Send + 'static) -> Result<T> {
        if !self.location.exists() {
            return Ok(T::default());
        }
        self.placed(self.readers.run(move |connection| job(&*connection.transaction().told()?)).await)
    }

    async fn write<T: Send + 'static>(&self, job: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static) -> Result<T> {
        let _turn = self.turn.take().await?;
        self.placed(self.writers.run(job).await)
    }

    /// On a connection that nothing else uses. The file may have to be made.
    async fn alone<T: Send + 'static>(&self, job: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static) -> Result<T> {
        let _turn = self.turn.take().await?;
        let location = self.location.clone();
        let session = Session::open("create", move || location.open(Purpose::CreateTarget)).await?;
        let answer = session.run(job).await;
        session.close().await;
        self.placed(answer)
    }

    fn placed<T>(&self, answer: Result<T>) -> Result<T> {
        answer.map_err(|error| error.at_least_at(|| self.location.label().to_owned()))
    }
}

#[async_trait]
impl Target for SqliteTarget {
    fn capabilities(&self) -> Capabilities {
        capabilities(&self.location)
    }

    async fn check(&self, needs: &TargetNeeds<'_>) -> Result<Vec<Finding>> {
        let folder = self.location.path().parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            let what = format!("the folder {} is not there", folder.display());
            return Ok(vec![Finding::blocker("folder", &codes::UNREACHABLE, what, "make it, or name another file")]);
        }
        let asked = check::TargetQuestions::new(needs);
        let mut findings = self.read(move |connection| check::target(connection, &asked)).await?;
        if self.location.exists() {
            let location = self.location.clone();
            let session = Session::open("check", move || location.open(Purpose::WriteTarget)).await?;
            findings.extend(session.run(|connection| Ok(check::may_write(connection))).await?);
            session.close().await;
        }
        Ok(findings)
    }

    async fn present(&self, tables: &[TableName]) -> Result<Vec<Present>> {
        let tables = tables.to_vec();
        self.read(move |connection| {
            let referring = referring(connection)?;
            let asked: HashSet<String> = tables.iter().map(|table| table.name.to_ascii_lowercase()).collect();
            let outside = |name: &TableName| -> Vec<TableName> {
                let all = referring.get(&name.name.to_ascii_lowercase()).into_iter().flatten();
                all.filter(|table| !asked.contains(&table.to_ascii_lowercase())).map(|table| TableName::new(MAIN, table)).collect()
            };
            let estimates = Estimates::read(connection)?;
            tables.iter().filter_map(|name| present(connection, &estimates, name, outside(name)).transpose()).collect()
        })
        .await
    }

    /// Everything this engine describes it can make.
    async fn adapt(&self, description: Description) -> Result<Description> {
        Ok(description)
    }

    /// The whole script before the load.
    fn staged(&self, sql: &str) -> Vec<SchemaItem> {
        vec![SchemaItem { id: "FILE schema.create".to_owned(), stage: Stage::BeforeLoad, table: None, sql: vec![sql.to_owned()] }]
    }

    async fn install(&self) -> Result<()> {
        self.alone(lease::install).await
    }

    async fn lease(&self, task: &TaskName) -> Result<Option<LeaseRecord>> {
        let task = task.clone();
        self.read(move |connection| lease::read(connection, &task)).await
    }

    async fn take_lease(&self, task: &TaskName, holder: &Holder, seen: Option<&LeaseRecord>) -> Result<Option<LeaseRecord>> {
        let (task, holder, seen) = (task.clone(), holder.clone(), seen.cloned());
        self.write(move |connection| lease::take(connection, &task, &holder, seen.as_ref())).await
    }

    async fn renew(&self, lease: &Lease) -> Result<()> {
        let lease = lease.clone();
        self.write(move |connection| lease::renew(connection, &lease)).await
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        let lease = lease.clone();
        self.write(move |connection| lease::release(connection, &lease)).await
    }

    async fn ledger(&self, task: &TaskName) -> Result<Vec<Entry>> {
        let task = task.clone();
        self.read(move |connection| lease::ledger(connection, &task)).await
    }

    async fn record(&self, lease: &Lease, entries: &[Entry]) -> Result<()> {
        let (lease, entries) = (lease.clone(), entries.to_vec());
        self.write(move |connection| under_lease(connection, &lease, &entries, |_| Ok(()))).await
    }

    async fn perform(&self, lease: &Lease, items: &[&SchemaItem], done: &[Entry]) -> Result<()> {
        let items: Vec<SchemaItem> = items.iter().map(|item| (*item).clone()).collect();
        let (lease, done) = (lease.clone(), done.to_vec());
        let job = move |connection: &mut Connection| {
            under_lease(connection, &lease, &done, |connection| {
                let mut statements = items.iter().flat_map(|item| item.sql.iter().map(move |sql| (item, sql)));
                statements.try_for_each(|(item, sql)| connection.execute_batch(sql).map_err(|problem| refused_step(item, problem)))
            })
        };
        if self.by_script { self.alone(job).await } else { self.write(job).await }
    }

    async fn empty(&self, lease: &Lease, tables: &[TableName], drop: bool, entries: &[Entry]) -> Result<()> {
        let (lease, tables, entries) = (lease.clone(), tables.to_vec(), entries.to_vec());
        self.write(move |connection| under_lease(connection, &lease, &entries, |connection| empty(connection, &tables, drop))).await
    }

    async fn alter(&self, _lease: &Lease, alteration: &Alteration<'_>, _entries: &[Entry]) -> Result<()> {
        Err(Error::new(&codes::DDL_STOPPED, "schema changes are not carried to a SQLite file")
            .at(format!("table {}", alteration.after.target))
            .remedy("alter the target alike, then run with --resync"))
    }

    async fn structure(&self, mappings: &[Arc<TableMapping>], _asked: &[Feature]) -> Result<Vec<Feature>> {
        let mappings = mappings.to_vec();
        self.read(move |connection| structure::of_tables(connection, &mappings)).await
    }

    async fn write_chunk(&self, lease: &Lease, write: &ChunkWrite<'_>, rows: &mut dyn RowReader) -> Result<ChunkWritten> {
        self.placed(chunk::write(&self.writers, &self.turn, lease, write, rows).await)
    }

    async fn applier(&self, lease: &Lease, mappings: &[Arc<TableMapping>]) -> Result<Box<dyn Applier>> {
        Ok(Box::new(self.placed(SqliteApplier::open(&self.location, lease, mappings, self.turn.clone()).await)?))
    }

    async fn set_sequences(&self, lease: &Lease, values: &[SequenceValue]) -> Result<()> {
        let (lease, values) = (lease.clone(), values.to_vec());
        self.write(move |connection| under_lease(connection, &lease, &[], |connection| set_sequences(connection, &values))).await
    }

    async fn analyze(&self, tables: &[TableName]) -> Result<()> {
        let tables = tables.to_vec();
        self.write(move |connection| {
            tables.iter().try_for_each(|table| connection.execute_batch(&format!("ANALYZE {}", quoted(&table.name))).told())
        })
        .await
    }

    async fn traces(&self, task: &TaskName) -> Result<Vec<Trace>> {
        let task = task.clone();
        let found = self.read(move |connection| lease::traces(connection, &task)).await?;
        Ok(found.into_iter().map(|what| Trace { what }).collect())
    }

    async fn remove_traces(&self, task: &TaskName) -> Result<()> {
        if !self.location.exists() {
            return Ok(());
        }
        let task = task.clone();
        self.write(move |connection| lease::remove(connection, &task)).await
    }

    fn examiner(&self) -> &dyn Examiner {
        &self.examiner
    }
}

fn refused_step(item: &SchemaItem, problem: rusqlite::Error) -> Error {
    if !is_duplicate_row(&problem) {
        return from_sqlite(problem).at(item.id.clone());
    }
    let place = item.table.as_ref().map_or_else(|| item.id.clone(), |table| format!("table {table}"));
    Error::new(&codes::KEY_EXISTS, "rows that were loaded share a value of a unique index")
        .at(place)
        .detail(item.id.clone())
        .effect("the index was not made, the rows stay")
        .remedy("look whether someone else writes to the target's table; empty it, or use `existing: truncate`")
}

fn under_lease(connection: &mut Connection, lease: &Lease, entries: &[Entry], act: impl FnOnce(&Connection) -> Result<()>) -> Result<()> {
    let transaction = lease::begin(connection, lease)?;
    act(&transaction)?;
    lease::record_entries(&transaction, &lease.task, entries)?;
    transaction.commit().told()
}

fn present(connection: &Connection, estimates: &Estimates, name: &TableName, referenced_by: Vec<TableName>) -> Result<Option<Present>> {
    if name.schema != MAIN {
        return Ok(None);
    }
    let Some(shape) = Frame::find(connection, &name.name)? else { return Ok(None) };
    let has_rows = connection.prepare(&format!("SELECT 1 FROM {} LIMIT 1", shape.quoted())).told()?.exists([]).told()?;
    Ok(Some(Present { table: shape.table(estimates.of(connection, &shape)?), has_rows, referenced_by }))
}

/// Tables by the one they refer to, whose name's case means nothing.
fn referring(connection: &Connection) -> Result<HashMap<String, Vec<String>>> {
    let sql = "SELECT DISTINCT lower(f.\"table\"), l.name FROM pragma_table_list l, pragma_foreign_key_list(l.name) f
               WHERE l.schema = 'main' AND l.type = 'table' ORDER BY 2";
    let mut statement = connection.prepare(sql).told()?;
    let mut found: HashMap<String, Vec<String>> = HashMap::new();
    let mut rows = statement.query([]).told()?;
    while let Some(row) = rows.next().told()? {
        found.entry(row.get(0).told()?).or_default().push(row.get(1).told()?);
    }
    Ok(found)
}

fn empty(connection: &Connection, tables: &[TableName], drop: bool) -> Result<()> {
    for table in tables {
        let action = if drop { "DROP TABLE IF EXISTS" } else { "DELETE FROM" };
        if !drop {
            // Says TABLE_MISSING in our own words.
            Frame::of(connection, &table.name)?;
        }
        let sql = format!("{action} {}", quoted(&table.name));
        connection.execute_batch(&sql).told().map_err(|error| error.at(format!("table {table}")))?;
    }
    Ok(())
}

/// Tables without AUTOINCREMENT have no counter; then there is nothing to move.
fn set_sequences(connection: &Connection, values: &[SequenceValue]) -> Result<()> {
    if !connection.table_exists(None, "sqlite_sequence").told()? {
        return Ok(());
    }
    let places = counters(connection)?;
    let mut catalog = None;
    let mut raise = connection.prepare_cached("UPDATE sqlite_sequence SET seq = ?2 WHERE rowid = ?1").told()?;
    for value in values {
        let Value::Int(last) = value.last else { return Err(Error::internal("a SQLite counter is an integer")) };
        let name = &value.name.name;
        match places.get(name) {
            Some((_, at)) if *at >= last => {}
            Some((place, _)) => drop(raise.execute((place, last)).told()?),
            None => {
                let known = match catalog.take() {
                    Some(known) => known,
                    None => Catalog::of_names(connection, values.iter().map(|value| &value.name.name))?,
                };
                if catalog.insert(known).shape(connection, name)?.counts_up() {
                    connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)", (name, last)).told()?;
                }
            }
        }
    }
    Ok(())
}

/// Where each table's counter is, and what it says.
fn counters(connection: &Connection) -> Result<HashMap<String, (i64, i64)>> {
    let mut statement = connection.prepare_cached(COUNTERS).told()?;
    let mut rows = statement.query([]).told()?;
    let mut found = HashMap::new();
    while let Some(row) = rows.next().told()? {
        found.entry(row.get(0).told()?).or_insert((row.get(1).told()?, row.get(2).told()?));
    }
    Ok(found)
}
