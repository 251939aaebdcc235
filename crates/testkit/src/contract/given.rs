//! Rows handed to a target as if a source had read them.

use std::collections::VecDeque;

use async_trait::async_trait;
use godwit_model::{ChunkEnd, Error, LoadBlock, Result, RowBatch, RowReader, codes};

/// Yields these batches, then ends as it is told.
pub(super) struct GivenRows {
    batches: VecDeque<RowBatch>,
    rows: u64,
    end: End,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum End {
    Valid,
    Stale,
    /// The connection breaks after the last batch.
    Broken,
}

impl GivenRows {
    pub fn new(batches: Vec<RowBatch>, end: End) -> Self {
        let rows = batches.iter().map(|batch| batch.len() as u64).sum();
        GivenRows { batches: batches.into(), rows, end }
    }
}

#[async_trait]
impl RowReader for GivenRows {
    async fn next(&mut self) -> Result<Option<LoadBlock>> {
        match (self.batches.pop_front(), self.end) {
            (Some(batch), _) => Ok(Some(LoadBlock::Rows(batch))),
            (None, End::Broken) => Err(Error::new(&codes::CONNECTION_LOST, "the source went away")),
            (None, _) => Ok(None),
        }
    }

    async fn finish(&mut self) -> Result<ChunkEnd> {
        assert!(self.batches.is_empty(), "a chunk is asked for its end after its last row");
        Ok(if self.end == End::Stale { ChunkEnd::Stale } else { ChunkEnd::Valid { rows: self.rows } })
    }
}
