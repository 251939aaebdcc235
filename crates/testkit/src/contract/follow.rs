//! Brings what a source's stream tells into a target, the plainest way: every change a strict write of its own, every
//! transaction a commit. For tests of values; the pipeline's way is faster and is tested there.

use std::collections::HashMap;
use std::sync::Arc;

use godwit_model::{
    Applied, Applier, Captured, Change, ChangeBatch, ChangeOperation, Checkpoint, Group, Layout, LayoutId, Lease, LogId, Marker, Position,
    Row, RowBatch, Sequence, Source, Table, TableMapping, TableWrite, Target, Value, WriteKind,
};

pub struct Follower {
    applier: Box<dyn Applier>,
    mappings: Vec<Arc<TableMapping>>,
    layouts: HashMap<LayoutId, Arc<Layout>>,
    checkpoint: Option<Checkpoint>,
    markers: u32,
}

impl Follower {
    pub async fn new(target: &dyn Target, lease: &Lease, mappings: &[Arc<TableMapping>]) -> Self {
        let applier = target.applier(lease, mappings).await.expect("the applier opens");
        Follower { applier, mappings: mappings.to_vec(), layouts: HashMap::new(), checkpoint: None, markers: 0 }
    }

    /// Applies everything behind `from` that was committed by now; where to go on.
    ///
    /// # Panics
    /// If the target does not take a change as expected.
    pub async fn follow(&mut self, source: &dyn Source, tables: &[Arc<Table>], from: &Position) -> Position {
        self.markers += 1;
        let marker = Marker(format!("follow {}", self.markers));
        source.mark(&marker).await.expect("a marker is written");
        let mut stream = source.changes(from, tables).await.expect("the stream opens");
        let mut passed = false;
        loop {
            match stream.next().await.expect("the stream goes on") {
                Captured::Layout(layout) => drop(self.layouts.insert(layout.id, layout)),
                Captured::Changes(batch) => self.apply(&batch).await,
                Captured::Marker(seen) => passed |= seen == marker,
                Captured::Commit { position, .. } => {
                    self.commit(&position).await;
                    if passed {
                        return position;
                    }
                }
                Captured::Begin | Captured::Idle { .. } => {}
                other => panic!("{other:?} is more than a follower knows"),
            }
        }
    }

    /// Puts whole rows, in the mapping's order, as `Source::rows` gives them.
    pub async fn upsert(&mut self, mapping: &Arc<TableMapping>, rows: RowBatch) {
        let columns = (0..mapping.columns.len()).collect();
        self.write(TableWrite { mapping: mapping.clone(), kind: WriteKind::Upsert, columns, rows, strict: true }).await;
        let position = self.checkpoint.as_ref().map(|checkpoint| checkpoint.position.clone()).unwrap_or_default();
        self.commit(&position).await;
    }

    async fn apply(&mut self, batch: &ChangeBatch) {
        for change in &batch.changes {
            let layout = self.layouts.get(&change.layout).expect("a layout comes before its first use").clone();
            let mapping = self.mappings.iter().find(|mapping| mapping.source == layout.table).expect("a selected table").clone();
            let write = as_write(&layout, &mapping, batch, change);
            self.write(write).await;
        }
    }

    async fn write(&mut self, write: TableWrite) {
        let what = format!("{:?} of {}", write.kind, write.mapping.target);
        let rows = write.rows.clone();
        let group = Group { writes: vec![write], origin: "godwit follower".to_owned() };
        match self.applier.apply(&group).await.expect("the target runs the group") {
            Applied::AsExpected => {}
            Applied::Refused(error) => panic!("{what}: {error} {:?} {rows:?}", error.detail_text()),
            Applied::Unexpected(mismatch) => panic!("{what}: {mismatch:?} {rows:?}"),
        }
    }

    async fn commit(&mut self, position: &Position) {
        let number = self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.sequence.0) + 1;
        let next = Checkpoint { position: position.clone(), log: LogId(7), sequence: Sequence(number) };
        self.applier.commit(self.checkpoint.as_ref(), &next, &[]).await.expect("the transaction commits");
        self.checkpoint = Some(next);
    }
}

fn as_write(layout: &Layout, mapping: &Arc<TableMapping>, batch: &ChangeBatch, change: &Change) -> TableWrite {
    let images = batch.images(change);
    let project = |row: &[Value]| -> Row {
        let place = |name: &str| layout.columns.iter().position(|column| column.name == name).expect("a mapped column is told");
        mapping.columns.iter().map(|column| row[place(&column.source)].clone()).collect()
    };
    let key = |row: &[Value]| -> Row { mapping.key.iter().map(|index| row[*index].clone()).collect() };
    let all: Vec<usize> = (0..mapping.columns.len()).collect();
    let old = images.old.map(project);
    let new = if images.new.is_empty() { Row::new() } else { project(images.new) };
    let (kind, columns, row) = match (&change.operation, mapping.has_key()) {
        (ChangeOperation::Insert, _) => (WriteKind::Insert, all, new),
        (ChangeOperation::Update, true) => {
            let set: Vec<usize> = all.into_iter().filter(|index| new[*index].is_known()).collect();
            let found = key(old.as_ref().unwrap_or(&new));
            let values = set.iter().map(|index| new[*index].clone());
            (WriteKind::Update, set.clone(), found.into_iter().chain(values).collect())
        }
        (ChangeOperation::Update, false) => {
            let old = old.expect("without a key old images are full");
            let merged = old.clone().into_iter().zip(new).map(|(old, new)| if new.is_known() { new } else { old });
            (WriteKind::UpdateWhole, all, old.clone().into_iter().chain(merged).collect())
        }
        (ChangeOperation::Delete, true) => (WriteKind::Delete, Vec::new(), key(&old.expect("a delete names its row"))),
        (ChangeOperation::Delete, false) => (WriteKind::DeleteWhole, all, old.expect("without a key old images are full")),
        (ChangeOperation::Truncate, _) => (WriteKind::Truncate, Vec::new(), Row::new()),
    };
    let mut rows = RowBatch::new(row.len().max(1));
    if !row.is_empty() {
        rows.push(row);
    }
    TableWrite { mapping: mapping.clone(), kind, columns, rows, strict: true }
}
