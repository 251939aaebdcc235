//! The store that rows and changes come from: composes what the other rooms do.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use godwit_model::{
    Capabilities, ChangeStream, Description, Established, Examiner, Finding, Marker, Position, Result, RowBatch, SequenceValue, Snapshot,
    Source, SourceNeeds, Table, TableMapping, Task, Trace,
};
use tokio_postgres::Client;

use crate::changes::ChangeFeed;
use crate::digest::ServerExaminer;
use crate::establish::SlotSnapshot;
use crate::sessions::Sessions;
use crate::snapshot::ExportedSnapshot;
use crate::{changes, check, establish, fence, identity, marker, rows, schema, traces};

pub(crate) struct PostgresSource {
    task: Task,
    sessions: Arc<Sessions>,
    examiner: ServerExaminer,
    capabilities: Capabilities,
    known: OnceLock<Capabilities>,
}

impl PostgresSource {
    pub(crate) fn new(task: &Task) -> Self {
        let sessions = Arc::new(Sessions::new(task.source.clone(), "godwit source"));
        PostgresSource {
            task: task.clone(),
            examiner: ServerExaminer::new(sessions.clone()),
            capabilities: identity::before_connecting(&task.source),
            known: OnceLock::new(),
            sessions,
        }
    }

    async fn learn(&self, client: &Client) -> Result<()> {
        if self.known.get().is_none() {
            let _ = self.known.set(identity::ask(client).await?);
        }
        Ok(())
    }
}

#[async_trait]
impl Source for PostgresSource {
    fn capabilities(&self) -> Capabilities {
        self.known.get().unwrap_or(&self.capabilities).clone()
    }

    async fn check(&self, needs: &SourceNeeds<'_>) -> Result<Vec<Finding>> {
        let session = self.sessions.take().await?;
        self.learn(&session).await?;
        let findings = check::source(&session, needs).await?;
        session.give_back();
        Ok(findings)
    }

    async fn describe(&self, task: &Task) -> Result<Description> {
        let session = self.sessions.take().await?;
        self.learn(&session).await?;
        let description = schema::describe(&session, task).await?;
        session.give_back();
        Ok(description)
    }

    async fn establish(&self, tables: &[Arc<Table>], known: Option<&Position>) -> Result<Established> {
        let founded = establish::establish(&self.task, tables, known).await?;
        let exact = |slot: SlotSnapshot| -> Box<dyn Snapshot> {
            Box::new(ExportedSnapshot::held_by(self.task.source.clone(), slot.name, true, Box::new(slot.holder)))
        };
        Ok(Established { position: founded.position, snapshot: founded.snapshot.map(exact) })
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>> {
        Ok(Box::new(ExportedSnapshot::open(self.sessions.endpoint()).await?))
    }

    async fn changes(&self, from: &Position, tables: &[Arc<Table>]) -> Result<Box<dyn ChangeStream>> {
        Ok(Box::new(ChangeFeed::open(&self.task, from, tables).await?))
    }

    async fn mark(&self, marker: &Marker) -> Result<()> {
        let session = self.sessions.take().await?;
        marker::mark(&session, &self.task.name, marker).await?;
        session.give_back();
        Ok(())
    }

    async fn rows(&self, mapping: &TableMapping, keys: &RowBatch) -> Result<RowBatch> {
        let session = self.sessions.take().await?;
        let found = rows::by_key(&session, mapping, keys).await?;
        session.give_back();
        Ok(found)
    }

    async fn sequences(&self, task: &Task) -> Result<Vec<SequenceValue>> {
        let session = self.sessions.take().await?;
        let values = schema::read_values(&session, task).await?;
        session.give_back();
        Ok(values)
    }

    async fn backlog(&self) -> Result<Option<u64>> {
        let session = self.sessions.take().await?;
        let bytes = changes::backlog(&session, &self.task.name).await?;
        session.give_back();
        Ok(bytes)
    }

    async fn set_read_only(&self, tables: &[Arc<Table>], on: bool) -> Result<()> {
        let session = self.sessions.take().await?;
        if on {
            fence::close(&session, &self.task.name, tables).await?;
        } else {
            fence::open(&session, &self.task.name).await?;
        }
        session.give_back();
        Ok(())
    }

    async fn traces(&self) -> Result<Vec<Trace>> {
        let session = self.sessions.take().await?;
        let mut list = traces::list(&session, &self.task.name).await?;
        if fence::is_closed(&session, &self.task.name).await? {
            list.push(Trace { what: "revoked rights to write, kept in table godwit.read_only".to_owned() });
        }
        session.give_back();
        Ok(list)
    }

    async fn remove_traces(&self) -> Result<()> {
        let session = self.sessions.take().await?;
        traces::remove(&session, &self.task.name).await?;
        fence::forget(&session, &self.task.name).await?;
        session.give_back();
        Ok(())
    }

    fn examiner(&self) -> &dyn Examiner {
        &self.examiner
    }
}
