//! The store that rows and changes go to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use godwit_model::{
    Alteration, Applier, Capabilities, ChunkWrite, ChunkWritten, Description, Entry, Error, Examiner, Feature, Finding, Holder, Lease,
    LeaseRecord, Present, Result, RowReader, SchemaItem, SequenceValue, Stage, TableMapping, TableName, Target, TargetNeeds, Task,
    TaskName, Trace, codes,
};
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use tokio::sync::OwnedMutexGuard;

use crate::apply::MySqlApplier;
use crate::connect::{Endpoint, Purpose, Server, Sessions};
use crate::digest::ServerExaminer;
use crate::script::{execute, number_of};
use crate::transaction::{self, Begun};
use crate::writers::Writers;
use crate::{capabilities, check, chunk, error, lease, ledger, numbers, own_tables, performing, present, quote, structure};

pub(crate) struct MySqlTarget {
    endpoint: Endpoint,
    readers: Arc<Sessions>,
    writers: Writers,
    known: OnceLock<Server>,
    examiner: ServerExaminer,
    /// Steps of one table wait for each other here: on the server they would wait for its metadata lock, which ends in an
    /// error before a long index is made.
    turns: Mutex<HashMap<TableName, Arc<tokio::sync::Mutex<()>>>>,
}

impl MySqlTarget {
    pub(crate) fn new(task: &Task) -> Result<Self> {
        Ok(Self::of(Endpoint::new(&task.target)?, task.name.clone()))
    }

    pub(crate) fn of(endpoint: Endpoint, task: TaskName) -> Self {
        let readers = Arc::new(Sessions::new(endpoint.clone(), Purpose::Read));
        MySqlTarget {
            examiner: ServerExaminer::new(readers.clone()),
            readers,
            writers: Writers::new(endpoint.clone(), task),
            endpoint,
            known: OnceLock::new(),
            turns: Mutex::default(),
        }
    }

    #[cfg(test)]
    pub(crate) fn writers(&self) -> &Writers {
        &self.writers
    }

    fn placed<T>(&self, answer: Result<T>) -> Result<T> {
        answer.map_err(|error| error.at_least_at(|| self.endpoint.display.clone()))
    }

    /// A session that reads, or that changes nothing but the lease row. Remembers who the server is.
    async fn session(&self) -> Result<Conn> {
        let mut conn = self.readers.take().await?;
        if self.known.get().is_none() {
            let _ = self.known.set(self.endpoint.ask(&mut conn).await?);
        }
        Ok(conn)
    }

    /// Runs something on such a session, which is used again only if that succeeded.
    async fn with<T>(&self, act: impl AsyncFnOnce(&mut Conn) -> Result<T>) -> Result<T> {
        let mut conn = self.placed(self.session().await)?;
        let answer = self.placed(act(&mut conn).await)?;
        self.readers.give_back(conn);
        Ok(answer)
    }

    async fn asking<T>(&self, question: impl AsyncFnOnce(&mut Conn, &Server) -> Result<T>) -> Result<T> {
        self.with(async |conn| {
            let server = self.known.get().ok_or_else(|| Error::internal("a session of a server that nobody asked"))?;
            question(conn, server).await
        })
        .await
    }

    async fn turn(&self, table: &TableName) -> OwnedMutexGuard<()> {
        let turn = self.turns.lock().unwrap_or_else(PoisonError::into_inner).entry(table.clone()).or_default().clone();
        turn.lock_owned().await
    }

    /// The steps' tables, in one order for everybody.
    async fn turns(&self, items: &[&SchemaItem]) -> Vec<OwnedMutexGuard<()>> {
        let tables: std::collections::BTreeSet<&TableName> = items.iter().filter_map(|item| item.table.as_ref()).collect();
        let mut turns = Vec::with_capacity(tables.len());
        for table in tables {
            turns.push(self.turn(table).await);
        }
        turns
    }

    /// DROP commits by itself: it stands between a proof of the lease and the entries, and finds nothing when repeated.
    async fn drop_tables(&self, lease: &Lease, tables: &[TableName], entries: &[Entry]) -> Result<()> {
        let mut writer = self.writers.take().await?;
        lease::renew(&mut writer, lease).await?;
        if !tables.is_empty() {
            execute(&mut writer, format!("DROP TABLE IF EXISTS {}", quote::list(tables.iter().map(quote::table)))).await?;
        }
        transaction::open(&mut writer).await?;
        lease::commit(&mut writer, lease, Begun::Here, entries).await?;
        self.writers.give_back(writer);
        Ok(())
    }

    /// TRUNCATE would commit by itself, and an old process could empty what a new one has filled.
    async fn delete_rows(&self, lease: &Lease, tables: &[TableName], entries: &[Entry]) -> Result<()> {
        let mut writer = self.writers.take().await?;
        transaction::open(&mut writer).await?;
        for table in tables {
            let deleted = writer.query_drop(format!("DELETE FROM {}", quote::table(table))).await;
            deleted.map_err(|problem| unemptied(problem, table))?;
        }
        lease::commit(&mut writer, lease, Begun::Here, entries).await?;
        self.writers.give_back(writer);
        Ok(())
    }
}

fn unemptied(problem: mysql_async::Error, table: &TableName) -> Error {
    let place = format!("table {table}");
    match number_of(&problem) {
        Some(1146 | 1049) => {
            Error::new(&codes::TABLE_MISSING, "the table that was to be emptied is not there").at(place).effect("nothing was emptied")
        }
        _ => error::from_server(problem).at_least_at(|| place),
    }
}

#[async_trait]
impl Target for MySqlTarget {
    fn capabilities(&self) -> Capabilities {
        capabilities::of(&self.endpoint, self.known.get())
    }

    async fn check(&self, needs: &TargetNeeds<'_>) -> Result<Vec<Finding>> {
        self.asking(async |conn, server| check::target(conn, server, needs).await).await
    }

    async fn present(&self, tables: &[TableName]) -> Result<Vec<Present>> {
        self.asking(async |conn, server| present::read(conn, server, tables).await).await
    }

    /// What this engine describes it can make.
    async fn adapt(&self, description: Description) -> Result<Description> {
        Ok(description)
    }

    /// The whole file before the load, as one step: what it sets for its session holds for all of it.
    fn staged(&self, sql: &str) -> Vec<SchemaItem> {
        vec![SchemaItem { id: "FILE schema.create".to_owned(), stage: Stage::BeforeLoad, table: None, sql: vec![sql.to_owned()] }]
    }

    async fn install(&self) -> Result<()> {
        self.with(own_tables::install).await
    }

    /// What this process left behind is ended first: a commit of it has happened by then, or never will.
    async fn lease(&self, task: &TaskName) -> Result<Option<LeaseRecord>> {
        self.placed(self.writers.settle().await)?;
        self.with(async |conn| lease::read(conn, task).await).await
    }

    async fn take_lease(&self, task: &TaskName, holder: &Holder, seen: Option<&LeaseRecord>) -> Result<Option<LeaseRecord>> {
        self.writers.forget_idle();
        self.placed(self.writers.settle().await)?;
        self.with(async |conn| lease::take(conn, task, holder, seen).await).await
    }

    async fn renew(&self, lease: &Lease) -> Result<()> {
        self.with(async |conn| lease::renew(conn, lease).await).await
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        self.with(async |conn| lease::release(conn, lease).await).await
    }

    async fn ledger(&self, task: &TaskName) -> Result<Vec<Entry>> {
        self.placed(self.writers.settle().await)?;
        self.with(async |conn| ledger::read(conn, task).await).await
    }

    async fn record(&self, lease: &Lease, entries: &[Entry]) -> Result<()> {
        self.placed(self.delete_rows(lease, &[], entries).await)
    }

    async fn perform(&self, lease: &Lease, items: &[&SchemaItem], done: &[Entry]) -> Result<()> {
        let _turns = self.turns(items).await;
        self.placed(self.writers.settle().await)?;
        let writer = self.placed(self.writers.open().await)?;
        self.placed(performing::perform(writer, lease, items, done).await)
    }

    async fn empty(&self, lease: &Lease, tables: &[TableName], drop: bool, entries: &[Entry]) -> Result<()> {
        let emptied = match drop {
            true => self.drop_tables(lease, tables, entries).await,
            false => self.delete_rows(lease, tables, entries).await,
        };
        self.placed(emptied)
    }

    async fn alter(&self, _lease: &Lease, alteration: &Alteration<'_>, _entries: &[Entry]) -> Result<()> {
        Err(Error::new(&codes::DDL_STOPPED, "schema changes are not carried to this engine in this version")
            .at(format!("table {}", alteration.after.target))
            .remedy("alter the target alike, then run with --resync"))
    }

    async fn structure(&self, mappings: &[Arc<TableMapping>], asked: &[Feature]) -> Result<Vec<Feature>> {
        self.asking(async |conn, server| structure::of_target(conn, server, mappings, asked).await).await
    }

    async fn write_chunk(&self, lease: &Lease, write: &ChunkWrite<'_>, rows: &mut dyn RowReader) -> Result<ChunkWritten> {
        let written = chunk::write(&self.writers, lease, write, rows).await;
        written.map_err(|error| error.at_least_at(|| format!("table {}", write.mapping.target)))
    }

    async fn applier(&self, lease: &Lease, _mappings: &[Arc<TableMapping>]) -> Result<Box<dyn Applier>> {
        let writer = self.placed(self.writers.take().await)?;
        Ok(Box::new(self.placed(MySqlApplier::open(writer, lease).await)?))
    }

    async fn set_sequences(&self, lease: &Lease, values: &[SequenceValue]) -> Result<()> {
        let mut writer = self.placed(self.writers.take().await)?;
        self.placed(lease::renew(&mut writer, lease).await)?;
        self.placed(numbers::raise(&mut writer, values).await)?;
        self.writers.give_back(writer);
        Ok(())
    }

    async fn analyze(&self, tables: &[TableName]) -> Result<()> {
        let act = async |conn: &mut Conn| {
            for table in tables {
                conn.query_drop(format!("ANALYZE NO_WRITE_TO_BINLOG TABLE {}", quote::table(table))).await.map_err(error::from_server)?;
            }
            Ok(())
        };
        self.with(act).await
    }

    async fn traces(&self, task: &TaskName) -> Result<Vec<Trace>> {
        let found = self.with(async |conn| own_tables::traces(conn, task).await).await?;
        Ok(found.into_iter().map(|what| Trace { what }).collect())
    }

    async fn remove_traces(&self, task: &TaskName) -> Result<()> {
        self.writers.forget_idle();
        self.placed(self.writers.settle().await)?;
        self.with(async |conn| own_tables::remove(conn, task).await).await
    }

    fn examiner(&self) -> &dyn Examiner {
        &self.examiner
    }
}
