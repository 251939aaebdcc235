//! The log as a stream of transactions in commit order.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use godwit_model::{
    Captured, Change, ChangeBatch, ChangeOperation, ChangeStream, Error, Layout, LayoutId, Marker, Micros, OldImage, Position, Result,
    TableName, TransactionId, codes,
};

use super::log::{Place, Record, RowChange, What, place, position};
use super::source::SourceOptions;
use super::store::{Core, MemoryStore, now};

/// Markers that are in no log: where the log stood when each was asked for.
#[derive(Clone, Default)]
pub(super) struct Awaited(Arc<Mutex<Vec<(Place, Marker)>>>);

impl Awaited {
    pub fn expect(&self, place: Place, marker: &Marker) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((place, marker.clone()));
    }

    /// Those at or before `place`; each is given once.
    fn reached(&self, place: Place) -> Vec<(Place, Marker)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extract_if(.., |(wanted, _)| *wanted <= place).collect()
    }
}

pub(super) struct MemoryStream {
    awaited: Awaited,
    store: MemoryStore,
    slot: String,
    reader: u64,
    generation: u64,
    decoder: Decoder,
}

impl MemoryStream {
    /// The slot's reader is set already.
    pub fn new(store: MemoryStore, slot: String, reader: u64, start: Start, options: SourceOptions, awaited: Awaited) -> Self {
        let decoder = Decoder::new(start.from, start.restart, start.tables, options);
        MemoryStream { awaited, store, slot, reader, generation: start.generation, decoder }
    }

    /// Reads one record. False: there is none yet.
    fn step(&mut self) -> Result<bool> {
        let next = self.decoder.next;
        let record = self.store.quiet(|core| {
            self.check(core)?;
            let end = core.durable_end();
            let record = core.log.record(next).filter(|record| record.place <= end).cloned();
            core.log.delivered = core.log.delivered.max(record.as_ref().map_or(0, |record| record.place));
            Ok::<_, Error>(record)
        })?;
        let reached = record.as_ref().map_or(next, |record| record.place).saturating_sub(1);
        let markers = self.awaited.reached(reached);
        if !markers.is_empty() {
            self.decoder.place_markers(markers);
            return Ok(true);
        }
        let found = record.is_some();
        record.into_iter().for_each(|record| self.decoder.take(record));
        Ok(found)
    }

    fn check(&self, core: &Core) -> Result<()> {
        core.alive(self.generation)?;
        match core.log.slots.get(&self.slot) {
            None => Err(Error::new(&codes::POSITION_LOST, format!("replication slot {} is gone", self.slot))),
            Some(slot) if slot.reader == Some(self.reader) => Ok(()),
            Some(_) => Err(Error::new(&codes::CONNECTION_LOST, "another stream took over")),
        }
    }
}

/// From where a stream reads.
pub(super) struct Start {
    pub generation: u64,
    /// Transactions that end at or before it are dropped.
    pub from: Place,
    /// The first record to look at.
    pub restart: Place,
    pub tables: HashSet<TableName>,
}

#[async_trait]
impl ChangeStream for MemoryStream {
    async fn next(&mut self) -> Result<Captured> {
        loop {
            self.store.quiet(|core| self.check(core))?;
            if let Some(item) = self.decoder.ready.pop_front() {
                return Ok(item);
            }
            let mut news = self.store.news();
            if self.step()? {
                continue;
            }
            if let Some(idle) = self.decoder.idle() {
                return Ok(idle);
            }
            news.changed().await.map_err(|_| Error::internal("the store is gone"))?;
        }
    }

    async fn confirm(&mut self, position: &Position) -> Result<()> {
        let confirmed = place(position)?;
        let told = self.decoder.told;
        if confirmed > told {
            return Err(Error::internal("a position was confirmed that the stream never gave"));
        }
        self.store.change(|core| {
            self.check(core)?;
            if let Some(slot) = core.log.slots.get_mut(&self.slot) {
                slot.confirmed = slot.confirmed.max(confirmed);
            }
            core.log.trim();
            Ok(())
        })
    }
}

impl Drop for MemoryStream {
    fn drop(&mut self) {
        self.store.change(|core| {
            let slot = core.log.slots.get_mut(&self.slot);
            if let Some(slot) = slot.filter(|slot| slot.reader == Some(self.reader)) {
                slot.reader = None;
            }
        });
    }
}

/// Puts records together to transactions.
struct Decoder {
    from: Place,
    next: Place,
    /// The last position given out.
    told: Place,
    tables: HashSet<TableName>,
    options: SourceOptions,
    under_way: HashMap<TransactionId, UnderWay>,
    layouts: HashSet<LayoutId>,
    ready: VecDeque<Captured>,
}

/// What was read of a transaction and not given out yet.
#[derive(Default)]
struct UnderWay {
    items: Vec<(TransactionId, Item)>,
    streamed: bool,
}

enum Item {
    Change(RowChange),
    Marker(Marker),
    Schema { table: TableName, what: String },
}

impl Decoder {
    fn new(from: Place, restart: Place, tables: HashSet<TableName>, options: SourceOptions) -> Self {
        let (under_way, layouts, ready) = Default::default();
        Decoder { from, next: restart, told: from, tables, options, under_way, layouts, ready }
    }

    fn take(&mut self, record: Record) {
        self.next = record.place + 1;
        let Record { place, transaction, part, what } = record;
        match what {
            What::Change(change) => {
                if self.tables.contains(&change.layout.table) {
                    self.hold(place, transaction, part, Item::Change(change));
                }
            }
            What::Marker(marker) => self.hold(place, transaction, part, Item::Marker(marker)),
            What::Schema { table, what } => {
                if self.tables.contains(&table) {
                    self.hold(place, transaction, part, Item::Schema { table, what });
                }
            }
            What::Abort => self.abort(transaction, part),
            What::Commit { time, origin } => self.commit(place, transaction, time, origin),
        }
    }

    fn hold(&mut self, place: Place, transaction: TransactionId, part: TransactionId, item: Item) {
        let held = self.under_way.entry(transaction).or_default();
        held.items.push((part, item));
        // Before `from` nothing is streamed: the transaction may have ended there. Schema changes have no streamed form.
        let streamable = place > self.from && !held.items.iter().any(|(_, item)| matches!(item, Item::Schema { .. }));
        if streamable && self.options.stream_after.is_some_and(|limit| held.items.len() > limit) {
            self.stream(transaction);
        }
    }

    fn abort(&mut self, transaction: TransactionId, part: TransactionId) {
        let Some(held) = self.under_way.get_mut(&transaction) else { return };
        held.items.retain(|(of, _)| *of != part);
        if held.streamed {
            self.ready.push_back(Captured::StreamedAbort { transaction, part });
        }
        if part == transaction {
            self.under_way.remove(&transaction);
        }
    }

    fn commit(&mut self, place: Place, transaction: TransactionId, time: Micros, origin: Option<String>) {
        if self.under_way.get(&transaction).is_some_and(|held| held.streamed) {
            self.stream(transaction);
            self.under_way.remove(&transaction);
            self.told = place;
            return self.ready.push_back(Captured::StreamedCommit { transaction, position: position(place), time, origin });
        }
        let Some(held) = self.under_way.remove(&transaction) else { return };
        if place <= self.from || held.items.is_empty() {
            return;
        }
        self.ready.push_back(Captured::Begin);
        for (_, piece) in self.pieces(held.items, |_| ()) {
            self.ready.push_back(match piece {
                Piece::Layout(layout) => Captured::Layout(layout),
                Piece::Changes(changes) => Captured::Changes(changes),
                Piece::Marker(marker) => Captured::Marker(marker),
                Piece::Schema { table, what } => Captured::Schema { table, what },
            });
        }
        self.told = place;
        self.ready.push_back(Captured::Commit { position: position(place), time, origin });
    }

    /// Gives out what is held of a transaction under way.
    fn stream(&mut self, transaction: TransactionId) {
        let Some(held) = self.under_way.get_mut(&transaction) else { return };
        held.streamed = true;
        let items = std::mem::take(&mut held.items);
        for (part, piece) in self.pieces(items, |part| part) {
            match piece {
                Piece::Layout(layout) => self.ready.push_back(Captured::Layout(layout)),
                Piece::Changes(changes) => self.ready.push_back(Captured::StreamedChanges { transaction, part, changes }),
                Piece::Marker(marker) => self.ready.push_back(Captured::StreamedMarker { transaction, part, marker }),
                // A streamed transaction with a schema change cannot be told; the store never makes one.
                Piece::Schema { table, what } => self.ready.push_back(Captured::Schema { table, what }),
            }
        }
    }

    /// Items as they travel: neighbours of one group in one batch, layouts before their first use.
    fn pieces<G: PartialEq + Copy>(&mut self, items: Vec<(TransactionId, Item)>, group: impl Fn(TransactionId) -> G) -> Vec<(G, Piece)> {
        let mut pieces: Vec<(G, Piece)> = Vec::new();
        for (part, item) in items {
            let group = group(part);
            match item {
                Item::Change(change) => {
                    if self.layouts.insert(change.layout.id) {
                        pieces.push((group, Piece::Layout(change.layout.clone())));
                    }
                    let limit = self.options.batch_changes;
                    match pieces.last_mut() {
                        Some((last, Piece::Changes(batch))) if *last == group && batch.len() < limit => push(batch, change),
                        _ => {
                            let mut batch = ChangeBatch::default();
                            push(&mut batch, change);
                            pieces.push((group, Piece::Changes(batch)));
                        }
                    }
                }
                Item::Marker(marker) => pieces.push((group, Piece::Marker(marker))),
                Item::Schema { table, what } => pieces.push((group, Piece::Schema { table, what })),
            }
        }
        pieces
    }

    /// A transaction of their own, behind everything that was told.
    fn place_markers(&mut self, markers: Vec<(Place, Marker)>) {
        self.ready.push_back(Captured::Begin);
        for (place, marker) in markers {
            self.told = self.told.max(place);
            self.ready.push_back(Captured::Marker(marker));
        }
        self.ready.push_back(Captured::Commit { position: position(self.told), time: now(), origin: None });
    }

    /// Told once where nothing of interest lies between the last item and the end.
    fn idle(&mut self) -> Option<Captured> {
        let end = self.next.saturating_sub(1);
        if !self.options.idle || end <= self.told {
            return None;
        }
        self.told = end;
        Some(Captured::Idle { position: position(end) })
    }
}

enum Piece {
    Layout(Arc<Layout>),
    Changes(ChangeBatch),
    Marker(Marker),
    Schema { table: TableName, what: String },
}

fn push(batch: &mut ChangeBatch, change: RowChange) {
    let full = change.layout.full_old_images;
    let id = change.layout.id;
    match change.operation {
        ChangeOperation::Insert => batch.push_insert(id, change.new.unwrap_or_default()),
        ChangeOperation::Update => batch.push_update(id, change.old, full, change.new.unwrap_or_default()),
        ChangeOperation::Delete => batch.push_delete(id, change.old.unwrap_or_default(), full),
        ChangeOperation::Truncate => {
            batch.changes.push(Change { layout: id, operation: ChangeOperation::Truncate, old: OldImage::SameKey, new: 0..0 })
        }
    }
}
