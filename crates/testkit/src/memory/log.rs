//! The store's own log: every change as it happens, every commit when it comes, and who still needs it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use godwit_model::{ChangeOperation, Error, Layout, LayoutId, Marker, Micros, Position, Result, Row, TableName, TransactionId, codes};

use super::heap::row_weight;
use super::spec::TableSpec;

/// A place in the log; each record takes one.
pub(super) type Place = u64;

#[derive(Clone, Debug)]
pub(super) struct Record {
    pub place: Place,
    pub transaction: TransactionId,
    /// The sub-transaction, or the transaction itself.
    pub part: TransactionId,
    pub what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Change(RowChange),
    Marker(Marker),
    Schema {
        table: TableName,
        what: String,
    },
    /// `part` was rolled back.
    Abort,
    Commit {
        time: Micros,
        origin: Option<String>,
    },
}

#[derive(Clone, Debug)]
pub(super) struct RowChange {
    pub layout: Arc<Layout>,
    pub operation: ChangeOperation,
    /// Full width; None where the key stayed and old images hold only keys.
    pub old: Option<Row>,
    pub new: Option<Row>,
}

/// What one reader has confirmed; holds the log.
#[derive(Clone, Debug)]
pub(super) struct ReplicationSlot {
    pub created: Place,
    pub confirmed: Place,
    /// The one stream that reads it now.
    pub reader: Option<u64>,
}

/// Where a transaction's records lie.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: Place,
    /// Place of its commit or abort.
    end: Option<Place>,
}

#[derive(Default, Debug)]
pub(super) struct Log {
    records: VecDeque<Record>,
    spans: BTreeMap<u64, Span>,
    pub end: Place,
    pub slots: BTreeMap<String, ReplicationSlot>,
    layouts: Vec<Arc<Layout>>,
    /// The furthest place any stream has read.
    pub delivered: Place,
}

impl Log {
    pub fn append(&mut self, transaction: TransactionId, part: TransactionId, what: What) -> Place {
        self.end += 1;
        let place = self.end;
        let ends = matches!(what, What::Commit { .. }) || (matches!(what, What::Abort) && transaction == part);
        let span = self.spans.entry(transaction.0).or_insert(Span { first: place, end: None });
        if ends {
            span.end = Some(place);
        }
        self.records.push_back(Record { place, transaction, part, what });
        place
    }

    /// The record at `place`, or the first one behind it that is still kept.
    pub fn record(&self, place: Place) -> Option<&Record> {
        let index = self.records.partition_point(|record| record.place < place);
        self.records.get(index)
    }

    /// The layout of this definition; the same definition always has the same number.
    pub fn layout(&mut self, spec: &TableSpec) -> Arc<Layout> {
        let wanted = spec.layout(LayoutId(0));
        let same = |known: &&Arc<Layout>| {
            known.table == wanted.table && known.columns == wanted.columns && known.full_old_images == wanted.full_old_images
        };
        if let Some(known) = self.layouts.iter().find(same) {
            return known.clone();
        }
        let number = u32::try_from(self.layouts.len() + 1).expect("a test makes few layouts");
        let layout = Arc::new(spec.layout(LayoutId(number)));
        self.layouts.push(layout.clone());
        layout
    }

    /// From where a reader that has confirmed `place` must read: the first record of a transaction that ends behind it.
    pub fn restart(&self, confirmed: Place) -> Place {
        let needed = self.spans.values().filter(|span| span.end.is_none_or(|end| end > confirmed));
        needed.map(|span| span.first).min().unwrap_or(confirmed + 1)
    }

    /// Forgets what no slot and no transaction under way needs.
    pub fn trim(&mut self) {
        let confirmed = self.slots.values().map(|slot| slot.confirmed).min().unwrap_or(self.end);
        self.spans.retain(|_, span| span.end.is_none_or(|end| end > confirmed));
        let restart = self.restart(confirmed);
        while self.records.front().is_some_and(|record| record.place < restart) {
            self.records.pop_front();
        }
    }

    /// A crash: transactions under way end, the tail behind `keep` and markers nobody read are gone. Places are never
    /// given twice.
    pub fn crash(&mut self, keep: Place) {
        while self.records.back().is_some_and(|record| record.place > keep) {
            self.records.pop_back();
        }
        while let Some(place) = self.unread_marker() {
            self.records.retain(|record| record.place < place);
        }
        self.respan();
        let open: Vec<u64> = self.spans.iter().filter(|(_, span)| span.end.is_none()).map(|(id, _)| *id).collect();
        for id in open {
            self.append(TransactionId(id), TransactionId(id), What::Abort);
        }
        for slot in self.slots.values_mut() {
            slot.reader = None;
        }
    }

    /// Where the last transaction begins, if it is a marker that no stream has read.
    fn unread_marker(&self) -> Option<Place> {
        let [marker, commit] = [self.records.len().checked_sub(2)?, self.records.len() - 1].map(|index| &self.records[index]);
        let is_marker = matches!(marker.what, What::Marker(_)) && marker.transaction == commit.transaction;
        (is_marker && commit.place > self.delivered).then_some(marker.place)
    }

    fn respan(&mut self) {
        self.spans.clear();
        for record in &self.records {
            let ends =
                matches!(record.what, What::Commit { .. }) || (matches!(record.what, What::Abort) && record.transaction == record.part);
            let span = self.spans.entry(record.transaction.0).or_insert(Span { first: record.place, end: None });
            if ends {
                span.end = Some(record.place);
            }
        }
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn bytes(&self) -> u64 {
        let weight = |record: &Record| match &record.what {
            What::Change(change) => [&change.old, &change.new].into_iter().flatten().map(row_weight).sum(),
            _ => 0,
        };
        self.records.iter().map(|record| std::mem::size_of::<Record>() as u64 + weight(record)).sum()
    }
}

pub(super) fn position(place: Place) -> Position {
    Position::from(place.to_string())
}

pub(super) fn place(position: &Position) -> Result<Place> {
    let text = std::str::from_utf8(&position.0).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| Error::new(&codes::POSITION_LOST, "the position is not one of this engine's"))
}
