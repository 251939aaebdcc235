//! A view at one moment, read in chunks of slots.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use godwit_model::{
    Chunk, ChunkEnd, Error, LoadBlock, ReadSpec, Result, Row, RowBatch, RowReader, Snapshot, Table, TableName, Value, codes,
};

use super::heap::{Heap, Slot};
use super::state::State;
use super::store::MemoryStore;

pub(super) struct MemorySnapshot {
    pub store: MemoryStore,
    pub state: State,
    pub generation: u64,
    pub exact: bool,
    pub taken_at: Instant,
    /// Chunks that may still be read before the snapshot calls itself too old.
    pub chunks_left: Option<AtomicUsize>,
}

/// Older than any limit.
const LONG_AGO: Duration = Duration::from_secs(365 * 24 * 3600);

/// Version of the chunk text below.
const SPEC_VERSION: &str = "1";

/// Slots from `from` up to `to`, without end for the last chunk, of the heap with this file number.
struct Range {
    file: u64,
    from: Slot,
    to: Option<Slot>,
}

impl Range {
    fn text(&self) -> String {
        let to = self.to.map(|to| to.to_string()).unwrap_or_default();
        format!("{SPEC_VERSION}:{}:{}:{to}", self.file, self.from)
    }

    fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::internal(format!("chunk `{text}` is not one of this engine's"));
        let parts: Vec<&str> = text.split(':').collect();
        let [SPEC_VERSION, file, from, to] = parts.as_slice() else { return Err(wrong()) };
        let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
        let to = if to.is_empty() { None } else { Some(number(to)?) };
        Ok(Range { file: number(file)?, from: number(from)?, to })
    }

    fn holds(&self, slot: Slot) -> bool {
        slot >= self.from && self.to.is_none_or(|to| slot < to)
    }
}

#[async_trait]
impl Snapshot for MemorySnapshot {
    fn is_exact(&self) -> bool {
        self.exact
    }

    fn taken_at(&self) -> Instant {
        let worn = self.chunks_left.as_ref().is_some_and(|left| left.load(Ordering::Relaxed) == 0);
        if worn { self.taken_at.checked_sub(LONG_AGO).expect("a clock that reaches back a year") } else { self.taken_at }
    }

    async fn plan(&self, table: &Table, chunk_bytes: u64) -> Result<Vec<Chunk>> {
        self.store.quiet(|core| core.alive(self.generation))?;
        let heap = self.state.heap(&table.name)?;
        let rows = heap.rows.len() as u64;
        let slots = heap.end();
        let chunks = (heap.weight() / chunk_bytes.max(1) + 1).min(slots.max(1));
        let width = slots.div_ceil(chunks).max(1);
        let count = slots.div_ceil(width).max(1);
        let range = |index| Range { file: heap.file, from: index * width, to: (index + 1 < count).then_some((index + 1) * width) };
        Ok((0..count).map(|index| Chunk { spec: range(index).text(), estimated_rows: rows / count }).collect())
    }

    async fn read(&self, spec: &ReadSpec<'_>) -> Result<Box<dyn RowReader>> {
        self.store.quiet(|core| core.alive(self.generation))?;
        if let Some(left) = &self.chunks_left {
            let _ = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        }
        let range = Range::parse(&spec.chunk.spec)?;
        let heap = self.state.heap(&spec.mapping.source)?;
        let columns = columns(heap, spec.mapping.columns.iter().map(|column| column.source.as_str()))?;
        let rows = self.rows_now_in(heap, &range).iter().map(|row| columns.iter().map(|index| row[*index].clone()).collect()).collect();
        Ok(Box::new(MemoryReader {
            store: self.store.clone(),
            generation: self.generation,
            table: spec.mapping.source.clone(),
            file: range.file,
            rows,
            stride: columns.len(),
            block_bytes: spec.block_bytes,
            read: 0,
        }))
    }
}

impl MemorySnapshot {
    /// The snapshot's rows in these slots. Where the table was rewritten since, the snapshot's rows lie elsewhere now:
    /// the chunk gets the wrong ones, as it would from a heap, and only its end tells.
    fn rows_now_in(&self, heap: &Heap, range: &Range) -> Vec<Arc<Row>> {
        let file = self.store.quiet(|core| core.committed.tables.get(&heap.spec.name).map(|heap| heap.file));
        if file == Some(heap.file) && heap.file == range.file {
            return heap.rows.iter().filter(|(slot, _)| range.holds(**slot)).map(|(_, row)| row.clone()).collect();
        }
        let moved = heap.rows.values().rev().zip(0..);
        moved.filter(|(_, slot)| range.holds(*slot)).map(|(row, _)| row.clone()).collect()
    }
}

/// Indices of columns by name.
pub(super) fn columns<'a>(heap: &Heap, names: impl Iterator<Item = &'a str>) -> Result<Vec<usize>> {
    let index = |name: &str| {
        let missing = || Error::new(&codes::SCHEMA_MISMATCH, format!("table {} has no column `{name}`", heap.spec.name));
        heap.spec.index_of(name).ok_or_else(missing)
    };
    names.map(index).collect()
}

struct MemoryReader {
    store: MemoryStore,
    generation: u64,
    table: TableName,
    file: u64,
    rows: Vec<Row>,
    stride: usize,
    block_bytes: usize,
    read: usize,
}

#[async_trait]
impl RowReader for MemoryReader {
    async fn next(&mut self) -> Result<Option<LoadBlock>> {
        self.store.quiet(|core| core.alive(self.generation))?;
        let mut batch = RowBatch::new(self.stride);
        while let Some(row) = self.rows.get(self.read) {
            if !batch.is_empty() && batch.weight() + row.iter().map(Value::weight).sum::<usize>() > self.block_bytes {
                break;
            }
            batch.push(row.iter().cloned());
            self.read += 1;
        }
        Ok((!batch.is_empty()).then_some(LoadBlock::Rows(batch)))
    }

    async fn finish(&mut self) -> Result<ChunkEnd> {
        let now = self.store.quiet(|core| {
            core.alive(self.generation)?;
            Ok::<_, Error>(core.committed.tables.get(&self.table).map(|heap| heap.file))
        })?;
        Ok(if now == Some(self.file) { ChunkEnd::Valid { rows: self.read as u64 } } else { ChunkEnd::Stale })
    }
}
