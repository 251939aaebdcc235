//! The store as a target.

use std::sync::Arc;

use async_trait::async_trait;
use godwit_model::{
    Alteration, Applier, Capabilities, ChunkEnd, ChunkMode, ChunkWrite, ChunkWritten, Description, Entry, Error, Examiner, Feature,
    Finding, Holder, Lease, LeaseRecord, LoadBlock, Present, Result, RowBatch, RowReader, SchemaItem, SequenceValue, Stage, TableMapping,
    TableName, TableWrite, Target, TargetNeeds, TaskName, Trace, WriteKind, codes,
};

use super::alter;
use super::applier::MemoryApplier;
use super::examiner::MemoryExaminer;
use super::godwit::{Fenced, Godwit};
use super::heap::Heap;
use super::schema_text;
use super::source::{capabilities, is_behind};
use super::state::State;
use super::store::{CommitAs, Core, MemoryStore};
use super::write;

pub(super) struct MemoryTarget {
    store: MemoryStore,
    examiner: MemoryExaminer,
}

impl MemoryTarget {
    pub fn new(store: MemoryStore) -> Self {
        let examiner = MemoryExaminer::new(store.clone());
        MemoryTarget { store, examiner }
    }

    fn read<T>(&self, work: impl FnOnce(&State) -> T) -> Result<T> {
        self.store.quiet(|core| core.connect().map(|_| work(&core.committed)))
    }

    /// One short durable transaction.
    fn write<T>(&self, work: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        self.store.change(|core| {
            core.connect()?;
            core.publish_by_godwit(work)
        })
    }
}

#[async_trait]
impl Target for MemoryTarget {
    fn capabilities(&self) -> Capabilities {
        capabilities(&self.store)
    }

    async fn check(&self, _needs: &TargetNeeds<'_>) -> Result<Vec<Finding>> {
        self.store.quiet(|core| core.connect().map(|_| core.findings.clone()))
    }

    async fn present(&self, tables: &[TableName]) -> Result<Vec<Present>> {
        self.read(|state| {
            let outside = |name: &TableName| {
                let pairs = state.references.iter().filter(|(from, to)| to == name && !tables.contains(from));
                pairs.map(|(from, _)| from.clone()).collect()
            };
            let heaps = tables.iter().filter_map(|name| state.tables.get(name));
            let present = |heap: &Arc<Heap>| Present {
                table: schema_text::describe(heap),
                has_rows: !heap.rows.is_empty(),
                referenced_by: outside(&heap.spec.name),
            };
            heaps.map(present).collect()
        })
    }

    /// Everything this engine describes it can make.
    async fn adapt(&self, description: Description) -> Result<Description> {
        Ok(description)
    }

    /// The whole script before the load.
    fn staged(&self, sql: &str) -> Vec<SchemaItem> {
        vec![SchemaItem { id: "FILE schema.create".to_owned(), stage: Stage::BeforeLoad, table: None, sql: vec![sql.to_owned()] }]
    }

    async fn install(&self) -> Result<()> {
        self.write(|state| {
            state.godwit.get_or_insert_with(Godwit::default);
            Ok(())
        })
    }

    async fn lease(&self, task: &TaskName) -> Result<Option<LeaseRecord>> {
        self.read(|state| state.godwit.as_ref()?.leases.get(task).cloned())
    }

    async fn take_lease(&self, task: &TaskName, holder: &Holder, seen: Option<&LeaseRecord>) -> Result<Option<LeaseRecord>> {
        self.write(|state| {
            let missing = || Error::new(&codes::TABLE_MISSING, "Godwit's own tables are not there");
            Ok(state.godwit.as_mut().ok_or_else(missing)?.take(task, holder, seen))
        })
    }

    async fn renew(&self, lease: &Lease) -> Result<()> {
        self.record(lease, &[]).await
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        self.write(|state| {
            Fenced::entries(lease, &[]).apply(state)?;
            let record = state.godwit.as_mut().and_then(|godwit| godwit.leases.get_mut(&lease.task));
            record.expect("the row was just written").holder = None;
            Ok(())
        })
    }

    async fn ledger(&self, task: &TaskName) -> Result<Vec<Entry>> {
        self.read(|state| {
            let ledger = state.godwit.as_ref().and_then(|godwit| godwit.ledger.get(task));
            let entry = |(key, value): (&String, &bytes::Bytes)| Entry { key: key.clone(), value: value.clone() };
            ledger.into_iter().flatten().map(entry).collect()
        })
    }

    async fn record(&self, lease: &Lease, entries: &[Entry]) -> Result<()> {
        self.write(|state| Fenced::entries(lease, entries).apply(state))
    }

    async fn perform(&self, lease: &Lease, items: &[&SchemaItem], done: &[Entry]) -> Result<()> {
        self.store.change(|core| {
            core.connect()?;
            items.iter().filter_map(|item| item.table.as_ref()).try_for_each(|table| core.untouched(table))?;
            let files: Vec<u64> = items.iter().map(|_| core.next_file()).collect();
            core.publish_by_godwit(|state| {
                Fenced::entries(lease, done).apply(state)?;
                let step = |(item, file): (&&SchemaItem, u64)| {
                    schema_text::perform(state, item, file).map_err(|error| error.at_least_at(|| item.id.clone()))
                };
                items.iter().zip(files).try_for_each(step)
            })
        })
    }

    async fn empty(&self, lease: &Lease, tables: &[TableName], drop: bool, entries: &[Entry]) -> Result<()> {
        self.store.change(|core| {
            core.connect()?;
            tables.iter().try_for_each(|table| core.untouched(table))?;
            let file = core.next_file();
            core.publish_by_godwit(|state| {
                Fenced::entries(lease, entries).apply(state)?;
                tables.iter().try_for_each(|table| empty_one(state, table, tables, drop, file))
            })
        })
    }

    async fn alter(&self, lease: &Lease, alteration: &Alteration<'_>, entries: &[Entry]) -> Result<()> {
        self.store.change(|core| {
            core.connect()?;
            core.untouched(&alteration.after.target)?;
            core.publish_by_godwit(|state| {
                Fenced::entries(lease, entries).apply(state)?;
                alter::perform(state, alteration)
            })
        })
    }

    async fn structure(&self, mappings: &[Arc<TableMapping>], _asked: &[Feature]) -> Result<Vec<Feature>> {
        self.read(|state| {
            let heaps = mappings.iter().filter_map(|mapping| state.tables.get(&mapping.target));
            heaps.flat_map(|heap| schema_text::features(&heap.spec, &heap.spec.name, |name| Some(name.to_owned()))).collect()
        })
    }

    async fn write_chunk(&self, lease: &Lease, write: &ChunkWrite<'_>, rows: &mut dyn RowReader) -> Result<ChunkWritten> {
        let generation = self.store.quiet(|core| core.connect())?;
        let writes = read_chunk(write, rows).await?;
        if rows.finish().await? == ChunkEnd::Stale {
            return Ok(ChunkWritten::Stale);
        }
        loop {
            let mut news = self.store.news();
            let answer = self.store.quiet(|core| {
                core.alive(generation)?;
                write_and_mark(core, lease, write, &writes)
            });
            match answer {
                // Another transaction holds one of the rows: wait for it, as a server would.
                Err(error) if error.is(&codes::RETRYABLE) => {
                    news.changed().await.map_err(|_| Error::internal("the store is gone"))?;
                }
                answer => {
                    self.store.change(|_| ());
                    return answer.map(|rows| ChunkWritten::Written { rows });
                }
            }
        }
    }

    async fn applier(&self, lease: &Lease, _mappings: &[Arc<TableMapping>]) -> Result<Box<dyn Applier>> {
        let generation = self.store.quiet(|core| {
            let mut state = core.committed.clone();
            Fenced::entries(lease, &[]).apply(&mut state)?; // only to see whether the lease holds
            core.connect()
        })?;
        Ok(Box::new(MemoryApplier::new(self.store.clone(), lease.clone(), generation)))
    }

    async fn set_sequences(&self, lease: &Lease, values: &[SequenceValue]) -> Result<()> {
        self.write(|state| {
            Fenced::entries(lease, &[]).apply(state)?;
            for value in values {
                if state.sequences.get(&value.name).is_none_or(|present| is_behind(present, value)) {
                    state.sequences.insert(value.name.clone(), value.clone());
                }
            }
            Ok(())
        })
    }

    async fn analyze(&self, tables: &[TableName]) -> Result<()> {
        self.read(|state| tables.iter().try_for_each(|table| state.heap(table).map(|_| ())))?
    }

    async fn traces(&self, task: &TaskName) -> Result<Vec<Trace>> {
        self.read(|state| {
            let Some(godwit) = &state.godwit else { return Vec::new() };
            let lease = godwit.leases.contains_key(task).then(|| format!("lease row of task {task}"));
            let ledger = godwit.ledger.contains_key(task).then(|| format!("ledger of task {task}"));
            lease.into_iter().chain(ledger).map(|what| Trace { what }).collect()
        })
    }

    async fn remove_traces(&self, task: &TaskName) -> Result<()> {
        self.write(|state| {
            if let Some(godwit) = &mut state.godwit {
                godwit.forget(task);
            }
            if state.godwit.as_ref().is_some_and(|godwit| godwit.leases.is_empty()) {
                state.godwit = None;
            }
            Ok(())
        })
    }

    fn examiner(&self) -> &dyn Examiner {
        &self.examiner
    }
}

/// The chunk's rows as writes of one transaction.
async fn read_chunk(write: &ChunkWrite<'_>, rows: &mut dyn RowReader) -> Result<Vec<TableWrite>> {
    let mapping = Arc::new(write.mapping.clone());
    let upsert = write.mode == ChunkMode::Upsert && mapping.has_key();
    let kind = if upsert { WriteKind::Upsert } else { WriteKind::Insert };
    let write_of =
        |rows: RowBatch| TableWrite { mapping: mapping.clone(), kind, columns: (0..mapping.columns.len()).collect(), rows, strict: true };
    let mut writes = Vec::new();
    while let Some(block) = rows.next().await? {
        match block {
            LoadBlock::Rows(batch) => writes.push(write_of(batch)),
            LoadBlock::Native(_) => return Err(Error::internal("the memory engine takes no native load blocks")),
        }
    }
    Ok(writes)
}

fn write_and_mark(core: &mut Core, lease: &Lease, write: &ChunkWrite<'_>, writes: &[TableWrite]) -> Result<u64> {
    let mut open = core.begin(false);
    let mut rows = 0;
    for one in writes {
        match write::run(core, &mut open, one) {
            Ok(touched) => rows += touched,
            Err(error) => {
                core.abort(&mut open);
                return Err(error);
            }
        }
    }
    let fenced = Fenced::entries(lease, std::slice::from_ref(write.done));
    let origin = Some(format!("godwit_{}", lease.task));
    core.commit(&mut open, CommitAs { origin, asynchronous: false, fenced: Some(fenced) })?;
    Ok(rows)
}

fn empty_one(state: &mut State, table: &TableName, all: &[TableName], drop: bool, file: u64) -> Result<()> {
    if state.references.iter().any(|(from, to)| to == table && !all.contains(from)) {
        return Err(Error::new(&codes::TARGET_REFERENCED, format!("table {table} is referenced by another table")));
    }
    if drop {
        state.tables.remove(table);
        return Ok(());
    }
    let next = Heap::new((*state.heap(table)?.spec).clone(), file);
    state.tables.insert(table.clone(), Arc::new(next));
    Ok(())
}
