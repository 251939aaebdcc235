//! Faults while a chunk is read.

use std::sync::Arc;

use async_trait::async_trait;
use godwit_model::{ChunkEnd, LoadBlock, Result, RowReader};

use super::plan::{Broken, FaultPlan};

pub(super) struct FaultyReader {
    inner: Box<dyn RowReader>,
    plan: Arc<FaultPlan>,
    broken: Broken,
}

impl FaultyReader {
    pub fn new(inner: Box<dyn RowReader>, plan: Arc<FaultPlan>) -> Self {
        FaultyReader { inner, plan, broken: Broken::default() }
    }
}

#[async_trait]
impl RowReader for FaultyReader {
    async fn next(&mut self) -> Result<Option<LoadBlock>> {
        self.broken.check()?;
        let answer = self.plan.around("reader.next", self.inner.next()).await;
        self.broken.judged(answer)
    }

    async fn finish(&mut self) -> Result<ChunkEnd> {
        self.broken.check()?;
        let answer = self.plan.around("reader.finish", self.inner.finish()).await;
        self.broken.judged(answer)
    }
}
