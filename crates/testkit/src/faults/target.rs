//! Faults around a target and its applier.

use std::sync::Arc;

use async_trait::async_trait;
use godwit_model::{
    Alteration, Applied, Applier, Capabilities, Checkpoint, ChunkWrite, ChunkWritten, Description, Entry, Examiner, Feature, Finding,
    Group, Holder, Lease, LeaseRecord, Present, Result, RowReader, SchemaItem, SequenceValue, TableMapping, TableName, Target, TargetNeeds,
    TaskName, Trace,
};

use super::plan::{Broken, FaultPlan};

pub(super) struct FaultyTarget {
    inner: Arc<dyn Target>,
    plan: Arc<FaultPlan>,
}

impl FaultyTarget {
    pub fn new(inner: Arc<dyn Target>, plan: Arc<FaultPlan>) -> Self {
        FaultyTarget { inner, plan }
    }
}

faulty_examiner!(FaultyTarget, "target");

#[async_trait]
impl Target for FaultyTarget {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn check(&self, needs: &TargetNeeds<'_>) -> Result<Vec<Finding>> {
        self.plan.around("target.check", self.inner.check(needs)).await
    }

    async fn present(&self, tables: &[TableName]) -> Result<Vec<Present>> {
        self.plan.around("target.present", self.inner.present(tables)).await
    }

    async fn adapt(&self, description: Description) -> Result<Description> {
        self.plan.around("target.adapt", self.inner.adapt(description)).await
    }

    fn staged(&self, sql: &str) -> Vec<SchemaItem> {
        self.inner.staged(sql)
    }

    async fn install(&self) -> Result<()> {
        self.plan.around("target.install", self.inner.install()).await
    }

    async fn lease(&self, task: &TaskName) -> Result<Option<LeaseRecord>> {
        self.plan.around("target.lease", self.inner.lease(task)).await
    }

    async fn take_lease(&self, task: &TaskName, holder: &Holder, seen: Option<&LeaseRecord>) -> Result<Option<LeaseRecord>> {
        self.plan.around("target.take_lease", self.inner.take_lease(task, holder, seen)).await
    }

    async fn renew(&self, lease: &Lease) -> Result<()> {
        self.plan.around("target.renew", self.inner.renew(lease)).await
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        self.plan.around("target.release", self.inner.release(lease)).await
    }

    async fn ledger(&self, task: &TaskName) -> Result<Vec<Entry>> {
        self.plan.around("target.ledger", self.inner.ledger(task)).await
    }

    async fn record(&self, lease: &Lease, entries: &[Entry]) -> Result<()> {
        self.plan.around("target.record", self.inner.record(lease, entries)).await
    }

    async fn perform(&self, lease: &Lease, items: &[&SchemaItem], done: &[Entry]) -> Result<()> {
        self.plan.around("target.perform", self.inner.perform(lease, items, done)).await
    }

    async fn empty(&self, lease: &Lease, tables: &[TableName], drop: bool, entries: &[Entry]) -> Result<()> {
        self.plan.around("target.empty", self.inner.empty(lease, tables, drop, entries)).await
    }

    async fn alter(&self, lease: &Lease, alteration: &Alteration<'_>, entries: &[Entry]) -> Result<()> {
        self.plan.around("target.alter", self.inner.alter(lease, alteration, entries)).await
    }

    async fn structure(&self, mappings: &[Arc<TableMapping>], asked: &[Feature]) -> Result<Vec<Feature>> {
        self.plan.around("target.structure", self.inner.structure(mappings, asked)).await
    }

    async fn write_chunk(&self, lease: &Lease, write: &ChunkWrite<'_>, rows: &mut dyn RowReader) -> Result<ChunkWritten> {
        self.plan.around("target.write_chunk", self.inner.write_chunk(lease, write, rows)).await
    }

    async fn applier(&self, lease: &Lease, mappings: &[Arc<TableMapping>]) -> Result<Box<dyn Applier>> {
        let inner = self.plan.around("target.applier", self.inner.applier(lease, mappings)).await?;
        Ok(Box::new(FaultyApplier { inner, plan: self.plan.clone(), broken: Broken::default() }))
    }

    async fn set_sequences(&self, lease: &Lease, values: &[SequenceValue]) -> Result<()> {
        self.plan.around("target.set_sequences", self.inner.set_sequences(lease, values)).await
    }

    async fn analyze(&self, tables: &[TableName]) -> Result<()> {
        self.plan.around("target.analyze", self.inner.analyze(tables)).await
    }

    async fn traces(&self, task: &TaskName) -> Result<Vec<Trace>> {
        self.plan.around("target.traces", self.inner.traces(task)).await
    }

    async fn remove_traces(&self, task: &TaskName) -> Result<()> {
        self.plan.around("target.remove_traces", self.inner.remove_traces(task)).await
    }

    fn examiner(&self) -> &dyn Examiner {
        self
    }
}

struct FaultyApplier {
    inner: Box<dyn Applier>,
    plan: Arc<FaultPlan>,
    broken: Broken,
}

#[async_trait]
impl Applier for FaultyApplier {
    async fn apply(&mut self, group: &Group) -> Result<Applied> {
        self.broken.check()?;
        let answer = self.plan.around("applier.apply", self.inner.apply(group)).await;
        self.broken.judged(answer)
    }

    async fn commit(&mut self, previous: Option<&Checkpoint>, next: &Checkpoint, entries: &[Entry]) -> Result<()> {
        self.broken.check()?;
        let answer = self.plan.around("applier.commit", self.inner.commit(previous, next, entries)).await;
        self.broken.judged(answer)
    }

    async fn durable(&mut self) -> Result<()> {
        self.broken.check()?;
        let answer = self.plan.around("applier.durable", self.inner.durable()).await;
        self.broken.judged(answer)
    }

    async fn abandon(&mut self) -> Result<()> {
        self.broken.check()?;
        let answer = self.plan.around("applier.abandon", self.inner.abandon()).await;
        self.broken.judged(answer)
    }
}
