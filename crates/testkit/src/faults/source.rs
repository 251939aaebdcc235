//! Faults around a source, its snapshots and its stream.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use godwit_model::{
    Altered, Appearance, Capabilities, Captured, ChangeStream, Chunk, Description, Established, Examiner, Feature, Finding, Look, Marker,
    Position, ReadSpec, Result, RowBatch, RowReader, SequenceValue, Snapshot, Source, SourceNeeds, Table, TableAppearance, TableMapping,
    TableName, Task, Trace,
};

use super::plan::{Broken, FaultPlan};
use super::reader::FaultyReader;

pub(super) struct FaultySource {
    inner: Arc<dyn Source>,
    plan: Arc<FaultPlan>,
}

impl FaultySource {
    pub fn new(inner: Arc<dyn Source>, plan: Arc<FaultPlan>) -> Self {
        FaultySource { inner, plan }
    }

    fn wrap(&self, inner: Box<dyn Snapshot>) -> Box<dyn Snapshot> {
        Box::new(FaultySnapshot { inner, plan: self.plan.clone() })
    }
}

faulty_examiner!(FaultySource, "source");

#[async_trait]
impl Source for FaultySource {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn check(&self, needs: &SourceNeeds<'_>) -> Result<Vec<Finding>> {
        self.plan.around("source.check", self.inner.check(needs)).await
    }

    async fn describe(&self, task: &Task) -> Result<Description> {
        self.plan.around("source.describe", self.inner.describe(task)).await
    }

    async fn establish(&self, tables: &[Arc<Table>], known: Option<&Position>) -> Result<Established> {
        let established = self.plan.around("source.establish", self.inner.establish(tables, known)).await?;
        let snapshot = established.snapshot.map(|snapshot| self.wrap(snapshot));
        Ok(Established { position: established.position, snapshot })
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>> {
        self.plan.around("source.snapshot", self.inner.snapshot()).await.map(|snapshot| self.wrap(snapshot))
    }

    async fn changes(&self, from: &Position, tables: &[Arc<Table>]) -> Result<Box<dyn ChangeStream>> {
        let inner = self.plan.around("source.changes", self.inner.changes(from, tables)).await?;
        Ok(Box::new(FaultyStream { inner, plan: self.plan.clone(), broken: Broken::default() }))
    }

    async fn mark(&self, marker: &Marker) -> Result<()> {
        self.plan.around("source.mark", self.inner.mark(marker)).await
    }

    async fn appearances(&self, tables: &[TableName]) -> Result<Vec<TableAppearance>> {
        self.plan.around("source.appearances", self.inner.appearances(tables)).await
    }

    async fn altered(&self, before: &Table, look: &Appearance, columns: &[(String, String)]) -> Result<Altered> {
        self.plan.around("source.altered", self.inner.altered(before, look, columns)).await
    }

    async fn selected(&self, task: &Task) -> Result<Vec<TableName>> {
        self.plan.around("source.selected", self.inner.selected(task)).await
    }

    async fn structure(&self, mappings: &[Arc<TableMapping>]) -> Result<Vec<Feature>> {
        self.plan.around("source.structure", self.inner.structure(mappings)).await
    }

    async fn rows(&self, mapping: &TableMapping, keys: &RowBatch) -> Result<RowBatch> {
        self.plan.around("source.rows", self.inner.rows(mapping, keys)).await
    }

    async fn sequences(&self, task: &Task) -> Result<Vec<SequenceValue>> {
        self.plan.around("source.sequences", self.inner.sequences(task)).await
    }

    async fn backlog(&self) -> Result<Option<u64>> {
        self.plan.around("source.backlog", self.inner.backlog()).await
    }

    async fn set_read_only(&self, tables: &[Arc<Table>], on: bool) -> Result<()> {
        self.plan.around("source.set_read_only", self.inner.set_read_only(tables, on)).await
    }

    async fn traces(&self) -> Result<Vec<Trace>> {
        self.plan.around("source.traces", self.inner.traces()).await
    }

    async fn left_to_others(&self) -> Result<Vec<Trace>> {
        self.plan.around("source.left_to_others", self.inner.left_to_others()).await
    }

    async fn remove_traces(&self) -> Result<()> {
        self.plan.around("source.remove_traces", self.inner.remove_traces()).await
    }

    fn examiner(&self) -> &dyn Examiner {
        self
    }

    async fn look(&self) -> Result<Option<Look>> {
        self.plan.around("source.look", self.inner.look()).await
    }

    fn shows(&self, look: &Position, commit: &Position) -> Result<bool> {
        self.inner.shows(look, commit)
    }
}

struct FaultySnapshot {
    inner: Box<dyn Snapshot>,
    plan: Arc<FaultPlan>,
}

#[async_trait]
impl Snapshot for FaultySnapshot {
    fn is_exact(&self) -> bool {
        self.inner.is_exact()
    }

    fn taken_at(&self) -> Instant {
        self.inner.taken_at()
    }

    async fn plan(&self, table: &Table, chunk_bytes: u64) -> Result<Vec<Chunk>> {
        self.plan.around("snapshot.plan", self.inner.plan(table, chunk_bytes)).await
    }

    async fn read(&self, spec: &ReadSpec<'_>) -> Result<Box<dyn RowReader>> {
        let inner = self.plan.around("snapshot.read", self.inner.read(spec)).await?;
        Ok(Box::new(FaultyReader::new(inner, self.plan.clone())))
    }
}

struct FaultyStream {
    inner: Box<dyn ChangeStream>,
    plan: Arc<FaultPlan>,
    broken: Broken,
}

#[async_trait]
impl ChangeStream for FaultyStream {
    /// As safe to drop while pending as the stream inside: the item it may hold is lost only together with the stream.
    async fn next(&mut self) -> Result<Captured> {
        self.broken.check()?;
        let answer = self.plan.around("stream.next", self.inner.next()).await;
        self.broken.judged(answer)
    }

    async fn confirm(&mut self, position: &Position) -> Result<()> {
        self.broken.check()?;
        let answer = self.plan.around("stream.confirm", self.inner.confirm(position)).await;
        self.broken.judged(answer)
    }
}
