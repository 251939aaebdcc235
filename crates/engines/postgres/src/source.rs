//! The store that rows and changes come from: composes what the other rooms do.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use godwit_model::{
    Altered, Appearance, Capabilities, ChangeStream, Description, Error, Established, Examiner, Feature, Finding, Look, Marker, Position,
    Result, RowBatch, SequenceValue, Snapshot, Source, SourceNeeds, Table, TableAppearance, TableMapping, TableName, Task, Trace, Writes,
    codes,
};
use tokio_postgres::Client;

use crate::changes::{Awaited, ChangeFeed};
use crate::digest::ServerExaminer;
use crate::establish::SlotSnapshot;
use crate::sessions::Sessions;
use crate::snapshot::ExportedSnapshot;
use crate::{changes, check, establish, fence, identity, look, marker, rows, schema, traces};

pub(crate) struct PostgresSource {
    task: Task,
    sessions: Arc<Sessions>,
    examiner: ServerExaminer,
    capabilities: Capabilities,
    known: OnceLock<Capabilities>,
    /// Only where the source may not be written to.
    awaited: Arc<Awaited>,
}

impl PostgresSource {
    pub(crate) fn new(task: &Task) -> Self {
        let sessions = Arc::new(Sessions::new(task.source.clone(), "godwit source"));
        PostgresSource {
            task: task.clone(),
            examiner: ServerExaminer::new(sessions.clone()),
            capabilities: identity::before_connecting(&task.source),
            known: OnceLock::new(),
            awaited: Arc::default(),
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
            Box::new(ExportedSnapshot::held_by(&self.task, slot.name, true, Box::new(slot.holder)))
        };
        Ok(Established { position: founded.position, snapshot: founded.snapshot.map(exact) })
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>> {
        Ok(Box::new(ExportedSnapshot::open(&self.task).await?))
    }

    async fn changes(&self, from: &Position, tables: &[Arc<Table>]) -> Result<Box<dyn ChangeStream>> {
        Ok(Box::new(ChangeFeed::open(&self.task, from, tables, &self.awaited).await?))
    }

    async fn mark(&self, marker: &Marker) -> Result<()> {
        let session = self.sessions.take().await?;
        match self.task.writes {
            Writes::Marker => marker::mark(&session, &self.task.name, marker).await?,
            Writes::Never => self.awaited.expect(marker::place(&session, marker).await?)?,
        }
        session.give_back();
        Ok(())
    }

    async fn appearances(&self, tables: &[TableName]) -> Result<Vec<TableAppearance>> {
        let session = self.sessions.take().await?;
        let looks = schema::appearances(&session, tables).await?;
        session.give_back();
        Ok(looks)
    }

    async fn altered(&self, before: &Table, look: &Appearance, columns: &[(String, String)]) -> Result<Altered> {
        let session = self.sessions.take().await?;
        let altered = schema::altered(&session, before, look, columns).await?;
        session.give_back();
        Ok(altered)
    }

    async fn selected(&self, task: &Task) -> Result<Vec<TableName>> {
        let session = self.sessions.take().await?;
        let names = schema::selected_names(&session, &task.select).await?;
        session.give_back();
        Ok(names)
    }

    async fn structure(&self, mappings: &[Arc<TableMapping>]) -> Result<Vec<Feature>> {
        let session = self.sessions.take().await?;
        let features = schema::structure_of_source(&session, mappings).await?;
        session.give_back();
        Ok(features)
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
        if self.task.writes == Writes::Never {
            if !on {
                return Ok(());
            }
            return Err(Error::new(&codes::TASK_CONTRADICTION, "shutting users out is a write, and `writes: never` forbids it")
                .at("--read-only-source")
                .remedy("stop the writers yourself, then finish without it")
                .effect("nothing was changed"));
        }
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
        if self.task.writes == Writes::Marker && fence::is_closed(&session, &self.task.name).await? {
            list.push(Trace { what: "revoked rights to write, kept in table godwit.read_only".to_owned() });
        }
        session.give_back();
        Ok(list)
    }

    async fn left_to_others(&self) -> Result<Vec<Trace>> {
        let session = self.sessions.take().await?;
        let left = traces::left_to_others(&session, &self.task.name).await?;
        session.give_back();
        Ok(left)
    }

    async fn remove_traces(&self) -> Result<()> {
        let session = self.sessions.take().await?;
        traces::remove(&session, &self.task).await?;
        if self.task.writes == Writes::Marker {
            fence::forget(&session, &self.task.name).await?;
        }
        session.give_back();
        Ok(())
    }

    fn examiner(&self) -> &dyn Examiner {
        &self.examiner
    }

    async fn look(&self) -> Result<Option<Look>> {
        look::open(&self.task).await
    }

    fn shows(&self, look: &Position, commit: &Position) -> Result<bool> {
        look::shows(look, commit)
    }
}
