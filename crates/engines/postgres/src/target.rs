//! The store that rows and changes go to.
//!
//! Sessions are opened when they are needed and used again; those that write are made ready by `writer`.

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use godwit_model::{
    Alteration, Applier, Capabilities, ChunkWrite, ChunkWritten, Description, Entry, Error, Examiner, Feature, Finding, Holder, Lease,
    LeaseRecord, Present, Result, RowReader, SchemaItem, SequenceValue, TableMapping, TableName, Target, TargetNeeds, Task, TaskName,
    Trace, codes,
};
use tokio_postgres::Client;

use crate::digest::ServerExaminer;
use crate::sessions::Sessions;
use crate::{alter, apply, check, connect, error, identity, lease, leftover, load, present, quote, schema, steps, writer};

pub(crate) struct PostgresTarget {
    sessions: Arc<Sessions>,
    examiner: ServerExaminer,
    capabilities: Capabilities,
    known: OnceLock<Capabilities>,
}

impl PostgresTarget {
    pub(crate) fn new(task: &Task) -> Self {
        let sessions = Arc::new(Sessions::of_writer(task.target.clone(), "godwit target"));
        PostgresTarget {
            examiner: ServerExaminer::new(sessions.clone()),
            capabilities: identity::before_connecting(&task.target),
            known: OnceLock::new(),
            sessions,
        }
    }

    /// Remembers who the server is, for `capabilities`, which cannot ask.
    async fn learn(&self, client: &Client) -> Result<()> {
        if self.known.get().is_none() {
            let _ = self.known.set(identity::ask(client).await?);
        }
        Ok(())
    }
}

#[async_trait]
impl Target for PostgresTarget {
    fn capabilities(&self) -> Capabilities {
        self.known.get().unwrap_or(&self.capabilities).clone()
    }

    async fn check(&self, needs: &TargetNeeds<'_>) -> Result<Vec<Finding>> {
        let session = self.sessions.take().await?;
        self.learn(&session).await?;
        let findings = check::target(&session, needs).await?;
        session.give_back();
        Ok(findings)
    }

    async fn present(&self, tables: &[TableName]) -> Result<Vec<Present>> {
        let session = self.sessions.take().await?;
        self.learn(&session).await?;
        let present = present::read(&session, tables).await?;
        session.give_back();
        Ok(present)
    }

    async fn adapt(&self, description: Description) -> Result<Description> {
        if description.items.is_empty() {
            return Ok(description);
        }
        let session = self.sessions.take().await?;
        self.learn(&session).await?;
        let mut here = schema::Here::ask(&session).await?;
        here.ask_for_labels(&session, &description).await?;
        session.give_back();
        Ok(here.adapt(description))
    }

    fn staged(&self, sql: &str) -> Vec<SchemaItem> {
        schema::staged(sql)
    }

    async fn install(&self) -> Result<()> {
        let session = self.sessions.take().await?;
        self.learn(&session).await?;
        lease::install(&session).await?;
        session.give_back();
        Ok(())
    }

    async fn lease(&self, task: &TaskName) -> Result<Option<LeaseRecord>> {
        let session = self.sessions.take().await?;
        self.learn(&session).await?;
        let record = lease::read(&session, task).await?;
        session.give_back();
        Ok(record)
    }

    async fn take_lease(&self, task: &TaskName, holder: &Holder, seen: Option<&LeaseRecord>) -> Result<Option<LeaseRecord>> {
        let session = self.sessions.take().await?;
        let record = self.raised(task, seen, lease::take(&session, task, holder, seen)).await?;
        if let Some(record) = &record {
            leftover::end_older(&session, task, record.epoch).await?;
        }
        session.give_back();
        Ok(record)
    }

    async fn renew(&self, lease: &Lease) -> Result<()> {
        let session = self.sessions.take().await?;
        lease::fence(&session, lease).await?;
        session.give_back();
        Ok(())
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        let session = self.sessions.take().await?;
        lease::release(&session, lease).await?;
        session.give_back();
        Ok(())
    }

    async fn ledger(&self, task: &TaskName) -> Result<Vec<Entry>> {
        let session = self.sessions.take().await?;
        let entries = lease::ledger(&session, task).await?;
        session.give_back();
        Ok(entries)
    }

    async fn record(&self, lease: &Lease, entries: &[Entry]) -> Result<()> {
        self.in_transaction(lease, &[], entries).await
    }

    async fn perform(&self, lease: &Lease, items: &[&SchemaItem], done: &[Entry]) -> Result<()> {
        let session = self.sessions.take().await?;
        steps::perform(&session, lease, items, done).await?;
        session.give_back();
        Ok(())
    }

    async fn empty(&self, lease: &Lease, tables: &[TableName], drop: bool, entries: &[Entry]) -> Result<()> {
        let names = tables.iter().map(quote::table).collect::<Vec<_>>().join(", ");
        if !drop {
            self.must_be_there(tables).await?;
        }
        let verb = if drop { "DROP TABLE IF EXISTS" } else { "TRUNCATE" };
        let statements = if names.is_empty() { Vec::new() } else { vec![alter::LOCK_PATIENCE.to_owned(), format!("{verb} {names}")] };
        self.in_transaction(lease, &statements, entries).await
    }

    async fn alter(&self, lease: &Lease, alteration: &Alteration<'_>, entries: &[Entry]) -> Result<()> {
        let session = self.sessions.take().await?;
        let begin = steps::begin(lease);
        session.batch_execute(&begin).await.map_err(error::from_server)?;
        alter::perform(&session, alteration).await?;
        lease::write_entries(&session, &lease.task, entries).await?;
        lease::fence(&session, lease).await?;
        session.batch_execute("COMMIT").await.map_err(error::from_server)?;
        session.give_back();
        Ok(())
    }

    async fn structure(&self, mappings: &[Arc<TableMapping>], asked: &[Feature]) -> Result<Vec<Feature>> {
        let session = self.sessions.take().await?;
        let features = schema::structure_of_target(&session, mappings, asked).await?;
        session.give_back();
        Ok(features)
    }

    async fn write_chunk(&self, lease: &Lease, write: &ChunkWrite<'_>, rows: &mut dyn RowReader) -> Result<ChunkWritten> {
        let session = self.sessions.take().await?;
        let written = load::write_chunk(&session, lease, write, rows).await;
        let written = written.map_err(|error| error.at_least_at(|| format!("table {}", write.mapping.target)))?;
        session.give_back();
        Ok(written)
    }

    async fn applier(&self, lease: &Lease, _mappings: &[Arc<TableMapping>]) -> Result<Box<dyn Applier>> {
        let session = connect::sql(self.sessions.endpoint(), "godwit apply").await?;
        let is_replica = writer::prepare(&session).await?;
        Ok(Box::new(apply::PostgresApplier::open(session, lease, is_replica).await?))
    }

    async fn set_sequences(&self, lease: &Lease, values: &[SequenceValue]) -> Result<()> {
        let session = self.sessions.take().await?;
        for some in values.chunks(schema::MOVED_AT_ONCE) {
            session.batch_execute(&writer::begin(lease, "")).await.map_err(error::from_server)?;
            lease::fence(&session, lease).await?;
            schema::set_values(&session, some).await?;
            session.batch_execute("COMMIT").await.map_err(error::from_server)?;
        }
        session.give_back();
        Ok(())
    }

    async fn analyze(&self, tables: &[TableName]) -> Result<()> {
        let session = self.sessions.take().await?;
        for table in tables {
            session.batch_execute(&format!("ANALYZE {}", quote::table(table))).await.map_err(error::from_server)?;
        }
        session.give_back();
        Ok(())
    }

    async fn traces(&self, task: &TaskName) -> Result<Vec<Trace>> {
        let session = self.sessions.take().await?;
        let mut traces = Vec::new();
        if lease::installed(&session).await? {
            let rows = lease::read(&session, task).await?.is_some() as usize + lease::ledger(&session, task).await?.len();
            if rows > 0 {
                traces.push(Trace { what: format!("{rows} rows for task {task} in the tables lease and ledger of schema godwit") });
            }
        }
        session.give_back();
        Ok(traces)
    }

    async fn remove_traces(&self, task: &TaskName) -> Result<()> {
        let session = self.sessions.take().await?;
        lease::remove(&session, task).await?;
        session.give_back();
        Ok(())
    }

    fn examiner(&self) -> &dyn Examiner {
        &self.examiner
    }
}

/// How long a commit under way may keep the lease's row from whoever takes the lease.
const COMMIT_TAKES: Duration = Duration::from_secs(5);

impl PostgresTarget {
    /// The answer of `raise`. A transaction that is lost between its proof of the lease and its commit keeps the row locked,
    /// and would keep everybody out.
    async fn raised<T>(&self, task: &TaskName, seen: Option<&LeaseRecord>, raise: impl Future<Output = Result<T>>) -> Result<T> {
        let mut raise = pin!(raise);
        if let Ok(answer) = tokio::time::timeout(COMMIT_TAKES, raise.as_mut()).await {
            return answer;
        }
        if let Some(seen) = seen {
            let other = self.sessions.take().await?;
            leftover::end_silent(&other, task, seen.epoch + 1).await?;
            other.give_back();
        }
        raise.await
    }

    async fn must_be_there(&self, tables: &[TableName]) -> Result<()> {
        let session = self.sessions.take().await?;
        let names: Vec<String> = tables.iter().map(quote::table).collect();
        let sql =
            "SELECT n.place FROM unnest($1::text[]) WITH ORDINALITY n(name, place) WHERE to_regclass(n.name) IS NULL ORDER BY 1 LIMIT 1";
        let missing = session.query_opt(sql, &[&names]).await.map_err(error::from_server)?;
        session.give_back();
        let place = missing.and_then(|row| usize::try_from(row.get::<_, i64>(0) - 1).ok());
        let Some(table) = place.and_then(|place| tables.get(place)) else { return Ok(()) };
        Err(Error::new(&codes::TABLE_MISSING, "the table that was to be emptied is not there")
            .at(format!("table {table}"))
            .effect("nothing was emptied"))
    }

    /// Statements, entries and the proof of the lease in one durable transaction.
    async fn in_transaction(&self, lease: &Lease, statements: &[String], entries: &[Entry]) -> Result<()> {
        let session = self.sessions.take().await?;
        session.batch_execute(&writer::begin(lease, "")).await.map_err(error::from_server)?;
        for statement in statements {
            session.batch_execute(statement).await.map_err(error::from_server)?;
        }
        lease::commit_with(&session, lease, entries).await?;
        session.give_back();
        Ok(())
    }
}
