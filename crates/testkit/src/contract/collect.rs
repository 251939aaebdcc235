//! Puts what a stream yields together to whole transactions, and checks its grammar on the way.

use std::collections::HashMap;
use std::sync::Arc;

use godwit_model::{
    Captured, Change, ChangeBatch, ChangeOperation, ChangeStream, Layout, LayoutId, Marker, OldImage, Position, Row, TransactionId,
};

/// One transaction as the stream told it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub position: Position,
    pub items: Vec<SeenItem>,
}

#[derive(Clone, Debug)]
pub(super) enum SeenItem {
    Change(SeenChange),
    Marker(Marker),
}

#[derive(Clone, Debug)]
pub(super) struct SeenChange {
    pub layout: Arc<Layout>,
    pub operation: ChangeOperation,
    pub old: Option<Row>,
    /// Whether `old` says more than the key.
    pub full: bool,
    pub new: Row,
}

impl Seen {
    pub fn changes(&self) -> impl Iterator<Item = &SeenChange> {
        self.items.iter().filter_map(|item| match item {
            SeenItem::Change(change) => Some(change),
            SeenItem::Marker(_) => None,
        })
    }

    pub fn has_marker(&self, name: &str) -> bool {
        self.items.iter().any(|item| matches!(item, SeenItem::Marker(marker) if marker.0 == name))
    }
}

/// One stream's state; layouts are stated anew by every stream.
#[derive(Default)]
pub(super) struct Collector {
    layouts: HashMap<LayoutId, Arc<Layout>>,
    whole: Option<Vec<SeenItem>>,
    streamed: HashMap<TransactionId, Vec<(TransactionId, SeenItem)>>,
}

impl Collector {
    /// The next whole transaction.
    pub async fn next(&mut self, stream: &mut dyn ChangeStream) -> Seen {
        loop {
            let item = stream.next().await.expect("the stream goes on");
            if let Some(seen) = self.take(item) {
                return seen;
            }
        }
    }

    /// Transactions up to and including the one that holds the marker.
    pub async fn until_marker(&mut self, stream: &mut dyn ChangeStream, name: &str) -> Vec<Seen> {
        let mut all = Vec::new();
        loop {
            let seen = self.next(stream).await;
            let last = seen.has_marker(name);
            all.push(seen);
            if last {
                return all;
            }
        }
    }

    fn take(&mut self, item: Captured) -> Option<Seen> {
        if !matches!(
            item,
            Captured::Layout(_) | Captured::Changes(_) | Captured::Marker(_) | Captured::Schema { .. } | Captured::Commit { .. }
        ) {
            assert!(self.whole.is_none(), "nothing else comes inside a whole transaction");
        }
        match item {
            Captured::Layout(layout) => {
                self.layouts.insert(layout.id, layout);
            }
            Captured::Begin => self.whole = Some(Vec::new()),
            Captured::Changes(batch) => {
                let changes = self.changes(&batch);
                self.inside().extend(changes);
            }
            Captured::Marker(marker) => self.inside().push(SeenItem::Marker(marker)),
            Captured::Schema { .. } => {
                self.inside();
            }
            Captured::Commit { position, .. } => {
                let items = self.whole.take().expect("a commit ends a transaction that began");
                return Some(Seen { position, items });
            }
            Captured::StreamedChanges { transaction, part, changes } => {
                let changes = self.changes(&changes).into_iter().map(|change| (part, change)).collect::<Vec<_>>();
                self.streamed.entry(transaction).or_default().extend(changes);
            }
            Captured::StreamedMarker { transaction, part, marker } => {
                self.streamed.entry(transaction).or_default().push((part, SeenItem::Marker(marker)));
            }
            Captured::StreamedAbort { transaction, part } if transaction == part => {
                self.streamed.remove(&transaction);
            }
            Captured::StreamedAbort { transaction, part } => {
                self.streamed.entry(transaction).or_default().retain(|(of, _)| *of != part);
            }
            Captured::StreamedCommit { transaction, position, .. } => {
                let items = self.streamed.remove(&transaction).expect("a streamed commit ends a streamed transaction");
                return Some(Seen { position, items: items.into_iter().map(|(_, item)| item).collect() });
            }
            Captured::Idle { .. } => {}
        }
        None
    }

    fn inside(&mut self) -> &mut Vec<SeenItem> {
        self.whole.as_mut().expect("this comes between begin and commit")
    }

    fn changes(&self, batch: &ChangeBatch) -> Vec<SeenItem> {
        batch.changes.iter().map(|change| SeenItem::Change(self.change(batch, change))).collect()
    }

    fn change(&self, batch: &ChangeBatch, change: &Change) -> SeenChange {
        let layout = self.layouts.get(&change.layout).expect("a layout comes before its first use").clone();
        let images = batch.images(change);
        let width = layout.columns.len();
        assert!(images.old.is_none_or(|old| old.len() == width), "old images are as wide as the layout");
        assert!(images.new.is_empty() || images.new.len() == width, "new images are as wide as the layout");
        let full = matches!(change.old, OldImage::Full(_));
        assert!(!full || layout.full_old_images, "the layout says whether old images are full");
        SeenChange { layout, operation: change.operation.clone(), old: images.old.map(<[_]>::to_vec), full, new: images.new.to_vec() }
    }
}
