//! The server that rows and changes come from.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use godwit_model::{
    Altered, Appearance, Capabilities, ChangeStream, Description, Error, Established, Examiner, Feature, Finding, Look, Marker, Position,
    Result, RowBatch, SequenceValue, Snapshot, Source, SourceNeeds, Table, TableAppearance, TableMapping, TableName, Task, Trace, codes,
};
use mysql_async::Conn;

use crate::changes::Changes;
use crate::connect::{Endpoint, Purpose, Server, Sessions};
use crate::digest::ServerExaminer;
use crate::patience::answered_of;
use crate::position::Place;
use crate::snapshot::ConsistentSnapshot;
use crate::{capabilities, cascades, catalog, check, describe, establish, look, marker, rows, structure};

pub(crate) struct MySqlSource {
    task: Task,
    endpoint: Endpoint,
    sessions: Arc<Sessions>,
    /// Sessions that place markers.
    writers: Sessions,
    known: OnceLock<Server>,
    examiner: ServerExaminer,
}

impl MySqlSource {
    pub(crate) fn new(task: &Task) -> Result<Self> {
        let endpoint = Endpoint::new(&task.source)?;
        let sessions = Arc::new(Sessions::new(endpoint.clone(), Purpose::Read));
        Ok(MySqlSource {
            task: task.clone(),
            examiner: ServerExaminer::new(sessions.clone()),
            sessions,
            writers: Sessions::new(endpoint.clone(), Purpose::Write),
            endpoint,
            known: OnceLock::new(),
        })
    }

    fn placed<T>(&self, answer: Result<T>) -> Result<T> {
        answer.map_err(|error| error.at_least_at(|| self.endpoint.display.clone()))
    }

    /// Asks on a session that is used again only if it answered.
    async fn ask<T>(&self, question: impl AsyncFnOnce(&mut Conn, &Server) -> Result<T>) -> Result<T> {
        let mut conn = self.placed(self.sessions.take().await)?;
        let server = match self.known.get() {
            Some(server) => server,
            None => {
                let server = self.placed(self.endpoint.ask(&mut conn).await)?;
                self.known.get_or_init(|| server)
            }
        };
        let answer = self.placed(question(&mut conn, server).await)?;
        self.sessions.give_back(conn);
        Ok(answer)
    }

    fn width(&self) -> usize {
        self.task.limits.source_connections.max(1)
    }
}

#[async_trait]
impl Source for MySqlSource {
    fn capabilities(&self) -> Capabilities {
        capabilities::of(&self.endpoint, self.known.get())
    }

    async fn check(&self, needs: &SourceNeeds<'_>) -> Result<Vec<Finding>> {
        self.ask(async |conn, server| check::source(conn, server, needs).await).await
    }

    async fn describe(&self, task: &Task) -> Result<Description> {
        self.ask(async |conn, server| describe::describe(conn, server, task).await).await
    }

    async fn establish(&self, _tables: &[Arc<Table>], known: Option<&Position>) -> Result<Established> {
        let founded = establish::establish(&self.endpoint, &self.task, self.width(), known).await?;
        let snapshot = founded.snapshot.map(|snapshot| Box::new(snapshot) as Box<dyn Snapshot>);
        Ok(Established { position: founded.position, snapshot })
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>> {
        let opened = self.placed(ConsistentSnapshot::open(&self.endpoint, self.width()).await)?;
        Ok(Box::new(opened.snapshot.not_exact()))
    }

    async fn changes(&self, from: &Position, tables: &[Arc<Table>]) -> Result<Box<dyn ChangeStream>> {
        let names: Vec<TableName> = tables.iter().map(|table| table.name.clone()).collect();
        answered_of(names.len(), self.ask(async |conn, _| cascades::must_be_none(conn, &names).await)).await?;
        Ok(Box::new(self.placed(Changes::open(&self.endpoint, &self.task.name, from, tables).await)?))
    }

    async fn mark(&self, marker: &Marker) -> Result<()> {
        let mut conn = self.placed(self.writers.take().await)?;
        self.placed(marker::mark(&mut conn, &self.task.name, marker).await)?;
        self.writers.give_back(conn);
        Ok(())
    }

    async fn appearances(&self, tables: &[TableName]) -> Result<Vec<TableAppearance>> {
        self.ask(async |conn, server| look::appearances(conn, server, tables).await).await
    }

    /// The log holds no rows of a selected table behind a schema change of it that this version reads.
    async fn altered(&self, before: &Table, _look: &Appearance, _columns: &[(String, String)]) -> Result<Altered> {
        Err(Error::new(&codes::DDL_STOPPED, "the table was altered, which this version does not follow in a binary log")
            .at(format!("table {}", before.name))
            .remedy("alter the target alike, then run with --resync"))
    }

    async fn selected(&self, task: &Task) -> Result<Vec<TableName>> {
        self.ask(async |conn, _| catalog::selected(conn, &task.select, &task.source.database).await).await
    }

    async fn structure(&self, mappings: &[Arc<TableMapping>]) -> Result<Vec<Feature>> {
        self.ask(async |conn, server| structure::of_source(conn, server, mappings).await).await
    }

    async fn rows(&self, mapping: &TableMapping, keys: &RowBatch) -> Result<RowBatch> {
        self.ask(async |conn, _| rows::by_key(conn, mapping, keys).await).await
    }

    async fn sequences(&self, task: &Task) -> Result<Vec<SequenceValue>> {
        self.ask(async |conn, server| describe::sequences(conn, server, task).await).await
    }

    /// The server keeps its log by time and size, whatever was read of it.
    async fn backlog(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    async fn set_read_only(&self, _tables: &[Arc<Table>], on: bool) -> Result<()> {
        if !on {
            return Ok(());
        }
        Err(Error::new(&codes::TASK_UNSUPPORTED, "this version does not shut users out of a MySQL or MariaDB server")
            .at(self.endpoint.display.clone())
            .remedy("stop the writers yourself, then run `godwit finish` without --read-only-source")
            .effect("nothing was changed"))
    }

    async fn traces(&self) -> Result<Vec<Trace>> {
        let found = self.ask(async |conn, _| marker::traces(conn, &self.task.name).await).await?;
        Ok(found.into_iter().map(|what| Trace { what }).collect())
    }

    async fn left_to_others(&self) -> Result<Vec<Trace>> {
        Ok(Vec::new())
    }

    async fn remove_traces(&self) -> Result<()> {
        let mut conn = self.placed(self.writers.take().await)?;
        self.placed(marker::remove(&mut conn, &self.task.name).await)?;
        self.writers.give_back(conn);
        Ok(())
    }

    fn examiner(&self) -> &dyn Examiner {
        &self.examiner
    }

    async fn look(&self) -> Result<Option<Look>> {
        let Some(seen) = self.placed(establish::look(&self.endpoint).await)? else { return Ok(None) };
        Ok(Some(Look { position: seen.position, examiner: Box::new(ServerExaminer::of(seen.conn)) }))
    }

    fn shows(&self, look: &Position, commit: &Position) -> Result<bool> {
        Ok(Place::parse(look)?.shows(&Place::parse(commit)?))
    }
}
