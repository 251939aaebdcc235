//! The store as a source.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use godwit_model::{
    Altered, Appearance, Capabilities, ChangeStream, Column, Description, Error, Established, Examiner, Feature, Finding, Key, Look,
    Marker, Position, Result, RowBatch, SequenceValue, Snapshot, Source, SourceNeeds, Table, TableAppearance, TableMapping, TableName,
    Task, TaskName, Trace, UniqueKey, Value, codes,
};

use super::examiner::MemoryExaminer;
use super::heap::{Heap, Shift};
use super::log::{ReplicationSlot, place, position};
use super::schema_text;
use super::snapshot::{MemorySnapshot, columns};
use super::store::{Core, MemoryStore};
use super::stream::{Awaited, MemoryStream, Start};

/// How a source behaves.
#[derive(Clone, Copy, Debug)]
pub struct SourceOptions {
    /// Whether `establish` gives the snapshot that shows exactly P0.
    pub exact_snapshot: bool,
    /// A transaction under way is streamed once it holds more changes than this; None: never.
    pub stream_after: Option<usize>,
    /// Most changes in one batch.
    pub batch_changes: usize,
    /// Whether the stream says so when it has read to the end and found nothing of interest.
    pub idle: bool,
    /// A snapshot says that it is too old after so many chunks, whatever the clock says; None: never.
    pub chunks_per_snapshot: Option<usize>,
    /// Whether markers may be written into the log; else the stream gives them where the log stood.
    pub writes: bool,
}

impl Default for SourceOptions {
    fn default() -> Self {
        SourceOptions { exact_snapshot: true, stream_after: None, batch_changes: 16, idle: true, chunks_per_snapshot: None, writes: true }
    }
}

/// How long `changes` waits for an older stream to go away before it says "busy".
const TAKEOVER_PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct MemorySource {
    store: MemoryStore,
    slot: String,
    options: SourceOptions,
    examiner: MemoryExaminer,
    awaited: Awaited,
}

impl MemorySource {
    pub fn new(store: MemoryStore, task: TaskName, options: SourceOptions) -> Self {
        let examiner = MemoryExaminer::new(store.clone());
        MemorySource { store, slot: format!("godwit_{task}"), options, examiner, awaited: Awaited::default() }
    }

    fn open_snapshot(&self, core: &Core, exact: bool) -> Result<Box<dyn Snapshot>> {
        let generation = core.connect()?;
        let state = core.committed.clone();
        let snapshot = MemorySnapshot {
            store: self.store.clone(),
            state,
            generation,
            exact,
            taken_at: Instant::now(),
            chunks_left: self.options.chunks_per_snapshot.map(AtomicUsize::new),
        };
        Ok(Box::new(snapshot))
    }

    fn check_known(&self, core: &Core, known: &Position) -> Result<()> {
        let known = place(known)?;
        let slot = core.log.slots.get(&self.slot).ok_or_else(|| self.lost())?;
        if known > core.log.end {
            return Err(behind());
        }
        if slot.created > known { Err(self.lost()) } else { Ok(()) }
    }

    fn lost(&self) -> Error {
        Error::new(&codes::POSITION_LOST, format!("replication slot {} is gone or was made anew", self.slot))
            .remedy("run with --resync to make the target equal again")
    }

    /// Takes the slot for a new stream. None: another one reads it.
    fn try_start(&self, core: &mut Core, from: &Position, tables: &[Arc<Table>]) -> Result<Option<(u64, Start)>> {
        let generation = core.connect()?;
        let from = place(from)?;
        if from > core.log.end {
            return Err(behind());
        }
        let confirmed = match core.log.slots.get(&self.slot) {
            Some(slot) if slot.confirmed <= from => slot.confirmed,
            _ => return Err(self.lost()),
        };
        let reader = core.next_transaction().0;
        let restart = core.log.restart(confirmed);
        let slot = core.log.slots.get_mut(&self.slot).ok_or_else(|| self.lost())?;
        if slot.reader.is_some() {
            return Ok(None);
        }
        slot.reader = Some(reader);
        let tables = tables.iter().map(|table| table.name.clone()).collect();
        Ok(Some((reader, Start { generation, from, restart, tables })))
    }

    async fn start(&self, from: &Position, tables: &[Arc<Table>]) -> Result<(u64, Start)> {
        loop {
            let mut news = self.store.news();
            if let Some(started) = self.store.quiet(|core| self.try_start(core, from, tables))? {
                return Ok(started);
            }
            news.changed().await.map_err(|_| Error::internal("the store is gone"))?;
        }
    }
}

fn behind() -> Error {
    Error::new(&codes::SOURCE_CHANGED, "the source's log ends before the position that was read from it")
}

#[async_trait]
impl Source for MemorySource {
    fn capabilities(&self) -> Capabilities {
        capabilities(&self.store)
    }

    async fn check(&self, _needs: &SourceNeeds<'_>) -> Result<Vec<Finding>> {
        self.store.quiet(|core| core.connect().map(|_| core.findings.clone()))
    }

    async fn describe(&self, task: &Task) -> Result<Description> {
        let state = self.store.quiet(|core| core.connect().map(|_| core.committed.clone()))?;
        let mut description = Description::default();
        for heap in state.tables.values().filter(|heap| task.select.selects(&heap.spec.name)) {
            let table = schema_text::describe(heap);
            let mapping = TableMapping::resolve(&task.map, &table)?;
            description.items.extend(schema_text::items(&heap.spec, &mapping));
            description.tables.push(table);
            description.looks.push(look(heap));
        }
        Ok(description)
    }

    async fn establish(&self, _tables: &[Arc<Table>], known: Option<&Position>) -> Result<Established> {
        self.store.change(|core| {
            core.connect()?;
            if let Some(known) = known {
                self.check_known(core, known)?;
                return Ok(Established { position: known.clone(), snapshot: None });
            }
            core.flush();
            let now = core.log.end;
            core.log.slots.insert(self.slot.clone(), ReplicationSlot { created: now, confirmed: now, reader: None });
            let snapshot = if self.options.exact_snapshot { Some(self.open_snapshot(core, true)?) } else { None };
            Ok(Established { position: position(now), snapshot })
        })
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>> {
        self.store.quiet(|core| self.open_snapshot(core, false))
    }

    async fn changes(&self, from: &Position, tables: &[Arc<Table>]) -> Result<Box<dyn ChangeStream>> {
        let waited = tokio::time::timeout(TAKEOVER_PATIENCE, self.start(from, tables)).await;
        let busy = || Error::new(&codes::BUSY, format!("another stream reads replication slot {}", self.slot));
        let (reader, start) = waited.map_err(|_| busy())??;
        let awaited = self.awaited.clone();
        Ok(Box::new(MemoryStream::new(self.store.clone(), self.slot.clone(), reader, start, self.options, awaited)))
    }

    async fn mark(&self, marker: &Marker) -> Result<()> {
        self.store.change(|core| {
            core.connect()?;
            match self.options.writes {
                true => core.mark(marker),
                false => {
                    // as a server's background does before long, or nothing would tell how far the log is
                    core.flush();
                    self.awaited.expect(core.log.end, marker);
                }
            }
            Ok(())
        })
    }

    async fn appearances(&self, tables: &[TableName]) -> Result<Vec<TableAppearance>> {
        let state = self.store.quiet(|core| core.connect().map(|_| core.committed.clone()))?;
        let heaps = tables.iter().filter_map(|name| state.tables.get(name));
        Ok(heaps.map(|heap| TableAppearance { table: heap.spec.name.clone(), look: look(heap) }).collect())
    }

    async fn altered(&self, before: &Table, seen: &Appearance, columns: &[(String, String)]) -> Result<Altered> {
        let state = self.store.quiet(|core| core.connect().map(|_| core.committed.clone()))?;
        let heap = state.heap(&before.name)?;
        let (still, shifts) = shifts(heap, seen).unwrap_or((false, &[]));
        let shifts: Vec<&Shift> = shifts.iter().filter(|shift| !matches!(shift, Shift::Bounded)).collect();
        let named = |shift: &&Shift| match shift {
            Shift::Added(name, _) | Shift::Dropped(name) | Shift::Renamed(name, _) => Some(name.clone()),
            Shift::Computed | Shift::Bounded => None,
        };
        let names: Vec<String> = shifts.iter().filter_map(named).collect();
        let once = names.iter().all(|name| names.iter().filter(|other| *other == name).count() == 1);
        let agrees = look(heap).columns == columns;
        let moved: Vec<(String, String)> = shifts
            .iter()
            .filter_map(|shift| match shift {
                Shift::Renamed(old, new) => Some((old.clone(), new.clone())),
                _ => None,
            })
            .collect();
        let plain = |(old, new): &(String, String)| {
            let other = |name: &String| {
                names.iter().filter(|there| *there == name).count() == 1 && moved.iter().filter(|(_, there)| there == name).count() <= 1
            };
            other(old)
                && !names.contains(new)
                && !seen.columns.iter().any(|(name, _)| name == new)
                && !columns.iter().any(|(name, _)| name == old)
        };
        let renamed = if agrees && still && moved.iter().all(plain) { moved } else { Vec::new() };
        let table = restated(before, columns, &schema_text::describe(heap), &renamed);
        let added = |name: &String| {
            shifts.iter().any(|shift| matches!(shift, Shift::Added(added, _) if added == name))
                || renamed.iter().any(|(_, new)| new == name)
        };
        let distinct = columns.iter().filter(|column| !seen.columns.contains(column)).all(|(name, _)| added(name));
        let told = changed(seen, columns) == names.len() + renamed.len();
        let proved = still && agrees && once && names.len() == shifts.len() && told;
        let fills = shifts.iter().filter_map(|shift| match shift {
            Shift::Added(name, value) => Some((name.clone(), value.clone())),
            _ => None,
        });
        let fills = if proved { fills.collect() } else { Vec::new() };
        Ok(Altered { table, fills, renamed, proved, distinct, look: look(heap) })
    }

    async fn selected(&self, task: &Task) -> Result<Vec<TableName>> {
        let state = self.store.quiet(|core| core.connect().map(|_| core.committed.clone()))?;
        Ok(state.tables.keys().filter(|name| task.select.selects(name)).cloned().collect())
    }

    async fn structure(&self, mappings: &[Arc<TableMapping>]) -> Result<Vec<Feature>> {
        let state = self.store.quiet(|core| core.connect().map(|_| core.committed.clone()))?;
        let features = |mapping: &Arc<TableMapping>| {
            let heap = state.tables.get(&mapping.source)?;
            let named = |name: &str| mapping.columns.iter().find(|column| column.source == name).map(|column| column.target.clone());
            Some(schema_text::features(&heap.spec, &mapping.target, named))
        };
        Ok(mappings.iter().filter_map(features).flatten().collect())
    }

    async fn rows(&self, mapping: &TableMapping, keys: &RowBatch) -> Result<RowBatch> {
        let state = self.store.quiet(|core| core.connect().map(|_| core.committed.clone()))?;
        let heap = state.heap(&mapping.source)?;
        let columns = columns(heap, mapping.columns.iter().map(|column| column.source.as_str()))?;
        let mut found = RowBatch::new(columns.len());
        for slot in keys.rows().filter_map(|key| heap.by_key(key)) {
            found.push(columns.iter().map(|index| heap.rows[&slot][*index].clone()));
        }
        Ok(found)
    }

    async fn sequences(&self, _task: &Task) -> Result<Vec<SequenceValue>> {
        self.store.quiet(|core| core.connect().map(|_| core.committed.sequences.values().cloned().collect()))
    }

    async fn backlog(&self) -> Result<Option<u64>> {
        self.store.quiet(|core| core.connect().map(|_| Some(core.log.bytes())))
    }

    async fn set_read_only(&self, tables: &[Arc<Table>], on: bool) -> Result<()> {
        let names: Vec<TableName> = tables.iter().map(|table| table.name.clone()).collect();
        self.store.change(|core| {
            core.connect()?;
            match on {
                true => core.read_only.extend(names),
                false => names.iter().for_each(|name| {
                    core.read_only.remove(name);
                }),
            }
            Ok(())
        })
    }

    async fn traces(&self) -> Result<Vec<Trace>> {
        self.store.quiet(|core| {
            core.connect()?;
            let what = format!("replication slot {}", self.slot);
            Ok(core.log.slots.contains_key(&self.slot).then_some(Trace { what }).into_iter().collect())
        })
    }

    async fn left_to_others(&self) -> Result<Vec<Trace>> {
        Ok(Vec::new())
    }

    async fn remove_traces(&self) -> Result<()> {
        self.store.change(|core| {
            core.connect()?;
            core.log.slots.remove(&self.slot);
            core.log.trim();
            Ok(())
        })
    }

    fn examiner(&self) -> &dyn Examiner {
        &self.examiner
    }

    async fn look(&self) -> Result<Option<Look>> {
        if !self.options.exact_snapshot {
            return Ok(None);
        }
        self.store.change(|core| {
            core.connect()?;
            core.flush();
            let examiner = MemoryExaminer::of(self.store.clone(), core.committed.clone());
            Ok(Some(Look { position: position(core.log.end), examiner: Box::new(examiner) }))
        })
    }

    fn shows(&self, look: &Position, commit: &Position) -> Result<bool> {
        Ok(place(commit)? <= place(look)?)
    }
}

/// The table's file and how often its definition changed: slots, rows and columns mean the same while both stay.
fn look(heap: &Heap) -> Appearance {
    heap.spec.look(format!("{}/{}", heap.file, heap.history.len()))
}

/// Schema changes since a look, and whether rows kept their slots; None: nothing is known.
fn shifts<'a>(heap: &'a Heap, seen: &Appearance) -> Option<(bool, &'a [Shift])> {
    let (file, count) = seen.stamp.split_once('/')?;
    let since = count.parse::<usize>().ok()?;
    Some((file == heap.file.to_string(), heap.history.get(since..)?))
}

/// How many columns came or went.
fn changed(seen: &Appearance, columns: &[(String, String)]) -> usize {
    let missing = |from: &[(String, String)], others: &[(String, String)]| from.iter().filter(|column| !others.contains(column)).count();
    missing(&seen.columns, columns) + missing(columns, &seen.columns)
}

/// `before` with other columns; what they may hold comes from `now` where it has the same one.
fn restated(before: &Table, columns: &[(String, String)], now: &Table, renamed: &[(String, String)]) -> Table {
    let column = |(name, type_name): &(String, String)| {
        let same = |column: &&Column| column.name == *name && column.type_name == *type_name;
        let known = before.columns.iter().find(same).or_else(|| now.columns.iter().find(same));
        known.cloned().unwrap_or_else(|| Column { name: name.clone(), type_name: type_name.clone(), nullable: true, generated: false })
    };
    let columns: Vec<Column> = columns.iter().map(column).collect();
    let name_of = |index: usize| {
        let old = &before.columns[index].name;
        renamed.iter().find(|(there, _)| there == old).map_or(old, |(_, new)| new)
    };
    let moved = |indices: &[usize]| -> Option<Vec<usize>> {
        indices.iter().map(|index| columns.iter().position(|column| column.name == *name_of(*index))).collect()
    };
    let key = before.key.as_ref().and_then(|key| moved(&key.columns)).map(|columns| Key { columns });
    let unique = |unique: &UniqueKey| Some(UniqueKey { name: unique.name.clone(), columns: moved(&unique.columns)? });
    let uniques = before.uniques.iter().filter_map(unique).collect();
    Table { key, uniques, columns, ..before.clone() }
}

pub(super) fn capabilities(store: &MemoryStore) -> Capabilities {
    let identity = store.quiet(|core| core.identity.clone());
    Capabilities { dialect: "memory", follows_unwritten: true, identity, version: "memory 1".to_owned() }
}

/// Whether a sequence at `a` is behind `b`; what is no number is never behind.
pub(super) fn is_behind(a: &SequenceValue, b: &SequenceValue) -> bool {
    match (&a.last, &b.last) {
        (Value::Int(x), Value::Int(y)) => (x, a.called) < (y, b.called),
        _ => false,
    }
}
