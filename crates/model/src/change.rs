//! Changes of rows, as a source's log tells them.

use std::ops::Range;
use std::sync::Arc;

use crate::name::TableName;
use crate::position::{Marker, Micros, Position};
use crate::value::Value;

/// The number under which a stream speaks of a layout; valid within one change log, never given to another layout. The
/// numbers need not ascend or be dense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayoutId(pub u32);

/// The columns a change is decoded with: those that the stream itself states at that position, never today's catalog.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    pub id: LayoutId,
    pub table: TableName,
    pub columns: Vec<LayoutColumn>,
    /// Whether old images hold the full row (else only the columns marked `key`).
    pub full_old_images: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LayoutColumn {
    pub name: String,
    /// As the engine's stream states it; compared with the stored layout, never interpreted outside the engine.
    pub type_name: String,
    /// Part of what old images identify a row by.
    pub key: bool,
}

/// A source's own name for a transaction (PostgreSQL's xid); unique among those under way at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransactionId(pub u64);

/// What an update or delete says of the row as it was.
#[derive(Clone, Debug, PartialEq)]
pub enum OldImage {
    /// The key did not change and was not sent: it stands in the new image.
    SameKey,
    /// Full width, only key columns known, the others `Absent`.
    Key(Range<usize>),
    /// Full width, all known (large values that did not change may be `Unsent`).
    Full(Range<usize>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum ChangeOperation {
    Insert,
    Update,
    Delete,
    /// All rows of the table went, without a change for each.
    Truncate,
}

/// One row's change; its images are ranges into the batch's values, each as wide as the layout.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub layout: LayoutId,
    pub operation: ChangeOperation,
    pub old: OldImage,
    /// Empty for delete and truncate.
    pub new: Range<usize>,
}

/// Changes of one transaction, in its order, over one flat vector of values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChangeBatch {
    pub values: Vec<Value>,
    pub changes: Vec<Change>,
}

/// The images of one change, for those who read.
#[derive(Clone, Copy, Debug)]
pub struct RowImages<'a> {
    pub old: Option<&'a [Value]>,
    pub new: &'a [Value],
}

impl ChangeBatch {
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub fn weight(&self) -> usize {
        self.values.iter().map(Value::weight).sum::<usize>() + self.changes.len() * std::mem::size_of::<Change>()
    }

    pub fn images(&self, change: &Change) -> RowImages<'_> {
        let old = match &change.old {
            OldImage::SameKey => None,
            OldImage::Key(range) | OldImage::Full(range) => Some(&self.values[range.clone()]),
        };
        RowImages { old, new: &self.values[change.new.clone()] }
    }

    pub fn push_insert(&mut self, layout: LayoutId, new: impl IntoIterator<Item = Value>) {
        let new = self.extend(new);
        self.changes.push(Change { layout, operation: ChangeOperation::Insert, old: OldImage::SameKey, new });
    }

    /// `old` None: the key stayed as it is in `new`. `full` says which kind of image `old` is.
    pub fn push_update(&mut self, layout: LayoutId, old: Option<Vec<Value>>, full: bool, new: impl IntoIterator<Item = Value>) {
        let old = match old {
            None => OldImage::SameKey,
            Some(values) if full => OldImage::Full(self.extend(values)),
            Some(values) => OldImage::Key(self.extend(values)),
        };
        let new = self.extend(new);
        self.changes.push(Change { layout, operation: ChangeOperation::Update, old, new });
    }

    pub fn push_delete(&mut self, layout: LayoutId, old: impl IntoIterator<Item = Value>, full: bool) {
        let range = self.extend(old);
        let old = if full { OldImage::Full(range) } else { OldImage::Key(range) };
        self.changes.push(Change { layout, operation: ChangeOperation::Delete, old, new: 0..0 });
    }

    pub fn push_truncate(&mut self, layout: LayoutId) {
        self.changes.push(Change { layout, operation: ChangeOperation::Truncate, old: OldImage::SameKey, new: 0..0 });
    }

    fn extend(&mut self, values: impl IntoIterator<Item = Value>) -> Range<usize> {
        let start = self.values.len();
        self.values.extend(values);
        start..self.values.len()
    }
}

/// What a change stream yields, in the order of the source's log.
///
/// A whole transaction is `Begin`, any number of `Changes`, `Marker` and `Schema`, then `Commit`; nothing else comes
/// between. Parts of transactions still under way (`Streamed*`) may come between whole ones and never inside one.
#[derive(Clone, Debug)]
pub enum Captured {
    /// From here on `id` means this layout. Comes before the first change that uses it, in or between transactions.
    Layout(Arc<Layout>),
    Begin,
    Changes(ChangeBatch),
    Marker(Marker),
    /// A schema change of a selected table that the stream itself announces, in words for a person.
    Schema {
        table: TableName,
        what: String,
    },
    /// The transaction is complete; everything up to and including it lies at or before `position`.
    /// `origin` names who wrote it, where it was a Godwit or another replicator.
    Commit {
        position: Position,
        time: Micros,
        origin: Option<String>,
    },

    /// A part of a transaction under way; `part` is the sub-transaction (or the transaction itself).
    StreamedChanges {
        transaction: TransactionId,
        part: TransactionId,
        changes: ChangeBatch,
    },
    StreamedMarker {
        transaction: TransactionId,
        part: TransactionId,
        marker: Marker,
    },
    /// The sub-transaction (with those below it, each announced on its own), or the whole transaction if
    /// `part == transaction`, was rolled back.
    StreamedAbort {
        transaction: TransactionId,
        part: TransactionId,
    },
    /// The streamed transaction enters the order here.
    StreamedCommit {
        transaction: TransactionId,
        position: Position,
        time: Micros,
        origin: Option<String>,
    },

    /// Nothing of interest lies between the last item and `position`. Lets an idle source free its log.
    Idle {
        position: Position,
    },
}
