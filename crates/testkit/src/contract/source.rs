//! What every source promises.

use std::sync::Arc;

use godwit_model::{
    Altered, ChangeOperation, DigestPlan, Established, LoadBlock, Marker, Position, ReadSpec, RowBatch, Snapshot, Source, Table,
    TableMapping, TableName, codes,
};

use super::collect::{Collector, Seen, SeenChange, SeenItem};
use super::harness::{Bench, Harness, Reshape};
use super::replay::{Copy, pick};
use crate::neutral::{Expected, Kind, Neutral, NeutralRow, NeutralTable, NeutralTransaction, Operation};

fn items() -> NeutralTable {
    NeutralTable::new("items", &[("id", Kind::Int), ("name", Kind::Text), ("note", Kind::LargeText)], &[0])
}

fn words() -> NeutralTable {
    NeutralTable::new("words", &[("word", Kind::Text), ("count", Kind::Int)], &[0])
}

fn bag() -> NeutralTable {
    NeutralTable::new("bag", &[("thing", Kind::Text), ("weight", Kind::Int)], &[])
}

/// Long enough that engines with unsent values leave it unsent, and hard to compress.
fn large(seed: u64) -> Neutral {
    let mut random = fastrand::Rng::with_seed(seed);
    Neutral::Text((0..10_000).map(|_| random.alphanumeric()).collect())
}

fn item(id: i64, name: &str) -> NeutralRow {
    vec![Neutral::Int(id), Neutral::text(name), large(id.unsigned_abs())]
}

fn insert(table: &str, row: NeutralRow) -> Operation {
    Operation::Insert { table: table.to_owned(), row }
}

fn update(table: &str, find: NeutralRow, set: Vec<(usize, Neutral)>) -> Operation {
    Operation::Update { table: table.to_owned(), find, set }
}

fn delete(table: &str, find: NeutralRow) -> Operation {
    Operation::Delete { table: table.to_owned(), find }
}

fn id(id: i64) -> NeutralRow {
    vec![Neutral::Int(id)]
}

/// A source ready to be followed.
struct Ready {
    bench: Box<dyn Bench>,
    source: Arc<dyn Source>,
    tables: Vec<Arc<Table>>,
    neutral: Vec<NeutralTable>,
    expected: Expected,
}

impl Ready {
    async fn new(harness: &dyn Harness, neutral: Vec<NeutralTable>) -> Self {
        let bench = harness.fresh(&neutral).await;
        let source = bench.source();
        let described = source.describe(&bench.task()).await.expect("the store is described");
        let names: Vec<&str> = neutral.iter().map(|table| table.name.as_str()).collect();
        let tables = pick(&described.tables, &*bench, &names);
        let expected = Expected::new(&neutral);
        Ready { bench, source, tables, neutral, expected }
    }

    async fn run(&mut self, transaction: NeutralTransaction) {
        self.expected.run(&transaction);
        self.bench.run(&transaction).await;
    }

    async fn commit(&mut self, operations: Vec<Operation>) {
        self.run(NeutralTransaction::commit(operations)).await;
    }

    async fn establish(&self) -> Established {
        self.source.establish(&self.tables, None).await.expect("capture is established")
    }

    async fn mark(&self, name: &str) {
        self.source.mark(&Marker(name.to_owned())).await.expect("a marker is written");
    }

    /// Everything from the position on, up to a marker written now.
    async fn changes_from(&self, from: &Position, marker: &str) -> Vec<Seen> {
        let mut stream = self.source.changes(from, &self.tables).await.expect("the stream opens");
        self.mark(marker).await;
        Collector::default().until_marker(&mut *stream, marker).await
    }

    /// All rows of a table, chunk by chunk; each chunk on its own.
    async fn chunks(&self, snapshot: &dyn Snapshot, table: usize, chunk_bytes: u64) -> Vec<Vec<NeutralRow>> {
        let mapping = self.mapping(table);
        let planned = snapshot.plan(&self.tables[table], chunk_bytes).await.expect("a plan is made");
        let mut chunks = Vec::new();
        for chunk in &planned {
            let spec = ReadSpec { mapping: &mapping, chunk, native: false, block_bytes: 4096 };
            let mut reader = snapshot.read(&spec).await.expect("a chunk opens");
            let mut rows = Vec::new();
            while let Some(block) = reader.next().await.expect("a chunk is read") {
                let LoadBlock::Rows(batch) = block else { panic!("native blocks come only where they are asked for") };
                rows.extend(batch.rows().map(|row| self.read(table, row)));
            }
            let end = reader.finish().await.expect("a chunk ends");
            assert_eq!(end, godwit_model::ChunkEnd::Valid { rows: rows.len() as u64 });
            chunks.push(rows);
        }
        chunks
    }

    async fn loaded(&self, snapshot: &dyn Snapshot) -> Copy<'_> {
        let mut copy = Copy::new(&*self.bench, &self.neutral);
        for index in 0..self.tables.len() {
            for row in self.chunks(snapshot, index, 20_000).await.into_iter().flatten() {
                copy.load(&self.neutral[index].name, row);
            }
        }
        copy
    }

    fn mapping(&self, table: usize) -> TableMapping {
        TableMapping::resolve(&[], &self.tables[table]).expect("nothing is mapped")
    }

    fn read(&self, table: usize, row: &[godwit_model::Value]) -> NeutralRow {
        row.iter().zip(&self.neutral[table].columns).map(|(value, column)| self.bench.read(column.kind, value)).collect()
    }

    fn keys(&self, table: usize, keys: &[NeutralRow]) -> RowBatch {
        let neutral = &self.neutral[table];
        let mut batch = RowBatch::new(neutral.key.len());
        for key in keys {
            let kinds = neutral.key.iter().map(|index| neutral.columns[*index].kind);
            batch.push(kinds.zip(key).map(|(kind, value)| self.bench.value(kind, value)));
        }
        batch
    }

    /// The copy, the generator and the store agree.
    async fn assert_equal(&self, copy: &Copy<'_>) {
        for table in &self.neutral {
            let stored = self.bench.rows(table).await;
            assert_eq!(stored, self.expected.rows(&table.name), "the store holds what its users wrote in {}", table.name);
            assert_eq!(copy.rows(&table.name), stored, "snapshot and changes give the rows of {}", table.name);
        }
    }

    /// A snapshot that shows the store now: the exact one where there is one. Nothing may have changed in between.
    async fn snapshot_of(&self, established: Established) -> (Position, Box<dyn Snapshot>) {
        let snapshot = match established.snapshot {
            Some(snapshot) => snapshot,
            None => self.source.snapshot().await.expect("a snapshot opens"),
        };
        (established.position, snapshot)
    }

    /// One insert into `items` each.
    async fn insert_items(&mut self, ids: std::ops::Range<i64>) {
        for id in ids {
            self.commit(vec![insert("items", item(id, "n"))]).await;
        }
    }
}

/// The ids that each transaction inserted into its first column, transactions without a change left out.
fn inserted(bench: &dyn Bench, seen: &[Seen]) -> Vec<Vec<i64>> {
    let ids = |seen: &Seen| -> Vec<i64> {
        let inserts = seen.changes().filter(|change| change.operation == ChangeOperation::Insert);
        inserts.map(|change| number(&bench.read(Kind::Int, &change.new[0]))).collect()
    };
    seen.iter().map(ids).filter(|ids| !ids.is_empty()).collect()
}

/// These transactions were told, whole and in order; neighbours may be one where the store cannot tell them apart.
fn assert_told(bench: &dyn Bench, seen: &[Seen], expected: &[Vec<i64>]) {
    let told = inserted(bench, seen);
    if bench.tells_transactions_apart() {
        assert_eq!(told, expected);
        return;
    }
    assert_eq!(told.concat(), expected.concat());
    let ends = |transactions: &[Vec<i64>]| -> Vec<usize> {
        let sizes = transactions.iter().map(Vec::len);
        sizes.scan(0, |end, size| Some(std::mem::replace(end, *end + size) + size)).collect()
    };
    let whole = ends(expected);
    assert!(ends(&told).iter().all(|end| whole.contains(end)), "no transaction is split: {told:?}");
}

fn each_alone(ids: std::ops::Range<i64>) -> Vec<Vec<i64>> {
    ids.map(|id| vec![id]).collect()
}

fn number(value: &Neutral) -> i64 {
    match value {
        Neutral::Int(number) => *number,
        other => panic!("{other:?} is no number"),
    }
}

pub async fn snapshot_and_changes_give_the_final_state(harness: &dyn Harness) {
    let mut ready = Ready::new(harness, vec![items(), words()]).await;
    ready.commit((0..20).map(|id| insert("items", item(id, "first"))).collect()).await;
    ready
        .commit(vec![insert("words", vec![Neutral::text("a"), Neutral::Int(1)]), insert("words", vec![Neutral::text(""), Neutral::Null])])
        .await;
    let (p0, snapshot) = ready.snapshot_of(ready.establish().await).await;
    mixed_changes(&mut ready).await;
    let mut copy = ready.loaded(&*snapshot).await;
    drop(snapshot);
    copy.replay(&ready.changes_from(&p0, "end").await);
    ready.assert_equal(&copy).await;
}

/// Updates, key changes, delete and insert again, swapped keys, savepoints.
async fn mixed_changes(ready: &mut Ready) {
    ready
        .commit(vec![update("items", id(1), vec![(1, Neutral::text("second"))]), delete("items", id(2)), insert("items", item(100, "new"))])
        .await;
    ready.commit(vec![update("items", id(3), vec![(0, Neutral::Int(103))]), update("items", id(4), vec![(0, Neutral::Int(3))])]).await;
    ready.commit(vec![delete("items", id(5)), insert("items", item(5, "again")), update("items", id(5), vec![(2, Neutral::Null)])]).await;
    ready
        .commit(vec![
            insert("items", item(200, "kept")),
            Operation::Savepoint,
            insert("items", item(201, "gone")),
            update("items", id(6), vec![(1, Neutral::text("gone"))]),
            Operation::RollBackToSavepoint,
            Operation::Savepoint,
            update("items", id(7), vec![(1, Neutral::text("kept"))]),
            Operation::ReleaseSavepoint,
        ])
        .await;
    ready.commit(vec![update("words", vec![Neutral::text("")], vec![(0, Neutral::text("b")), (1, Neutral::Int(2))])]).await;
    ready.commit(vec![update("items", id(8), vec![(1, Neutral::Null)]), update("items", id(8), vec![(1, Neutral::text(""))])]).await;
}

pub async fn a_table_without_a_key_is_followed_row_by_row(harness: &dyn Harness) {
    let mut ready = Ready::new(harness, vec![bag()]).await;
    let thing = |name: &str, weight: i64| vec![Neutral::text(name), Neutral::Int(weight)];
    ready.commit(vec![insert("bag", thing("a", 1)), insert("bag", thing("a", 1)), insert("bag", vec![Neutral::Null, Neutral::Null])]).await;
    let (p0, snapshot) = ready.snapshot_of(ready.establish().await).await;
    ready.commit(vec![insert("bag", thing("c", 3)), delete("bag", thing("a", 1))]).await;
    ready.commit(vec![update("bag", thing("c", 3), vec![(1, Neutral::Int(4))])]).await;
    ready.commit(vec![delete("bag", thing("c", 4)), delete("bag", vec![Neutral::Null, Neutral::Null])]).await;
    let mut copy = ready.loaded(&*snapshot).await;
    copy.replay(&ready.changes_from(&p0, "end").await);
    ready.assert_equal(&copy).await;
}

pub async fn every_transaction_comes_once_and_in_order(harness: &dyn Harness) {
    let mut ready = Ready::new(harness, vec![items()]).await;
    let p0 = ready.establish().await.position;
    for first in (0..30).step_by(3) {
        ready.commit((first..first + 3).map(|id| insert("items", item(id, "n"))).collect()).await;
    }
    let seen = ready.changes_from(&p0, "end").await;
    let expected: Vec<Vec<i64>> = (0..30).step_by(3).map(|first| (first..first + 3).collect()).collect();
    assert_told(&*ready.bench, &seen, &expected);
}

pub async fn what_was_rolled_back_is_never_seen(harness: &dyn Harness) {
    let mut ready = Ready::new(harness, vec![items()]).await;
    let p0 = ready.establish().await.position;
    ready.commit(vec![insert("items", item(1, "n"))]).await;
    ready.run(NeutralTransaction::roll_back(vec![insert("items", item(2, "n"))])).await;
    let savepoints = vec![
        Operation::Savepoint,
        insert("items", item(3, "n")),
        Operation::Savepoint,
        insert("items", item(4, "n")),
        Operation::ReleaseSavepoint,
        Operation::RollBackToSavepoint,
        insert("items", item(5, "n")),
    ];
    ready.commit(savepoints).await;
    let seen = ready.changes_from(&p0, "end").await;
    assert_told(&*ready.bench, &seen, &[vec![1], vec![5]]);
}

pub async fn markers_lie_where_they_were_written(harness: &dyn Harness) {
    let mut ready = Ready::new(harness, vec![items()]).await;
    let p0 = ready.establish().await.position;
    ready.insert_items(1..2).await;
    ready.mark("one").await;
    ready.insert_items(2..3).await;
    ready.mark("two").await;
    ready.insert_items(3..4).await;
    let seen = ready.changes_from(&p0, "end").await;
    let items: Vec<_> = seen.iter().flat_map(|seen| &seen.items).collect();
    let place = |wanted: &dyn Fn(&SeenItem) -> bool| items.iter().position(|item| wanted(item)).expect("it was told");
    let is_of = |change: &SeenChange, id: i64| number(&ready.bench.read(Kind::Int, &change.new[0])) == id;
    let insert_of = |id: i64| place(&|item| matches!(item, SeenItem::Change(change) if is_of(change, id)));
    let marker = |name: &str| place(&|item| matches!(item, SeenItem::Marker(marker) if marker.0 == name));
    let order = [insert_of(1), marker("one"), insert_of(2), marker("two"), insert_of(3), marker("end")];
    assert!(order.is_sorted(), "markers and transactions keep their order: {order:?}");
}

pub async fn a_stream_goes_on_from_any_confirmed_position(harness: &dyn Harness) {
    let mut ready = Ready::new(harness, vec![items()]).await;
    let mut from = ready.establish().await.position;
    ready.insert_items(0..3).await;
    let mut told = Vec::new();
    for id in 3..7 {
        let mut stream = ready.source.changes(&from, &ready.tables).await.expect("the stream opens");
        let seen = Collector::default().next(&mut *stream).await;
        stream.confirm(&seen.position).await.expect("a position is confirmed");
        from = seen.position.clone();
        told.push(seen);
        drop(stream);
        ready.insert_items(id..id + 1).await;
    }
    told.extend(ready.changes_from(&from, "end").await);
    assert_told(&*ready.bench, &told, &each_alone(0..7));
}

pub async fn what_was_not_confirmed_comes_again(harness: &dyn Harness) {
    let mut ready = Ready::new(harness, vec![items()]).await;
    let p0 = ready.establish().await.position;
    ready.insert_items(0..5).await;
    let first = ready.changes_from(&p0, "once").await;
    let again = ready.changes_from(&p0, "twice").await;
    assert_told(&*ready.bench, &first, &each_alone(0..5));
    assert_told(&*ready.bench, &again, &each_alone(0..5));
}

pub async fn a_new_stream_takes_over_from_a_dropped_one(harness: &dyn Harness) {
    let mut ready = Ready::new(harness, vec![items()]).await;
    let p0 = ready.establish().await.position;
    ready.insert_items(0..3).await;
    let mut stream = ready.source.changes(&p0, &ready.tables).await.expect("the stream opens");
    let mut told = vec![Collector::default().next(&mut *stream).await];
    drop(stream);
    ready.insert_items(3..5).await;
    told.extend(ready.changes_from(&told[0].position, "end").await);
    assert_told(&*ready.bench, &told, &each_alone(0..5));
}

pub async fn next_may_be_dropped_while_pending(harness: &dyn Harness) {
    let mut ready = Ready::new(harness, vec![items()]).await;
    let p0 = ready.establish().await.position;
    let mut stream = ready.source.changes(&p0, &ready.tables).await.expect("the stream opens");
    let mut collector = Collector::default();
    let mut told = Vec::new();
    for id in 0..5 {
        let pending = collector.next(&mut *stream);
        tokio::select! {
            biased;
            seen = pending => told.push(seen),
            () = tokio::task::yield_now() => {}
        }
        ready.insert_items(id..id + 1).await;
    }
    ready.mark("end").await;
    told.extend(collector.until_marker(&mut *stream, "end").await);
    assert_told(&*ready.bench, &told, &each_alone(0..5));
}

pub async fn establish_may_be_repeated(harness: &dyn Harness) {
    let mut ready = Ready::new(harness, vec![items()]).await;
    drop(ready.establish().await);
    ready.insert_items(0..1).await;
    let (p0, snapshot) = ready.snapshot_of(ready.establish().await).await;
    assert_eq!(ready.chunks(&*snapshot, 0, 1 << 20).await.concat().len(), 1, "what lies before P0 is visible");
    drop(snapshot);
    let known = ready.source.establish(&ready.tables, Some(&p0)).await.expect("what is there is kept");
    assert_eq!(known.position, p0);
    assert!(known.snapshot.is_none(), "an exact snapshot exists once");
    ready.insert_items(1..2).await;
    assert_eq!(inserted(&*ready.bench, &ready.changes_from(&p0, "end").await), [vec![1]]);
}

pub async fn a_lost_position_is_named(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    let p0 = ready.establish().await.position;
    ready.source.remove_traces().await.expect("traces are removed");
    let error = ready.source.establish(&ready.tables, Some(&p0)).await.err().expect("the position is gone");
    assert!(error.is(&codes::POSITION_LOST), "{error}");
    let error = ready.source.changes(&p0, &ready.tables).await.err().expect("the position is gone");
    assert!(error.is(&codes::POSITION_LOST), "{error}");
}

pub async fn rows_are_found_by_key(harness: &dyn Harness) {
    let mut ready = Ready::new(harness, vec![items(), words()]).await;
    ready.insert_items(1..4).await;
    ready
        .commit(vec![
            insert("words", vec![Neutral::text("a"), Neutral::Int(1)]),
            insert("words", vec![Neutral::text("A"), Neutral::Int(2)]),
        ])
        .await;
    let found = ready.source.rows(&ready.mapping(0), &ready.keys(0, &[id(1), id(9), id(3)])).await.expect("rows are read");
    let mut rows: Vec<NeutralRow> = found.rows().map(|row| ready.read(0, row)).collect();
    rows.sort();
    assert_eq!(rows, [item(1, "n"), item(3, "n")]);
    let found = ready.source.rows(&ready.mapping(1), &ready.keys(1, &[vec![Neutral::text("A")]])).await.expect("rows are read");
    let rows: Vec<NeutralRow> = found.rows().map(|row| ready.read(1, row)).collect();
    assert_eq!(rows, [vec![Neutral::text("A"), Neutral::Int(2)]]);
}

pub async fn chunks_cover_every_row_once(harness: &dyn Harness) {
    let mut ready = Ready::new(harness, vec![words()]).await;
    for first in (0..1_000).step_by(100) {
        let word = |id: i64| insert("words", vec![Neutral::Text(format!("word {id}")), Neutral::Int(id)]);
        ready.commit((first..first + 100).map(word).collect()).await;
    }
    for id in (0..1_000).step_by(7) {
        ready.commit(vec![delete("words", vec![Neutral::Text(format!("word {id}"))])]).await;
    }
    let (_, snapshot) = ready.snapshot_of(ready.establish().await).await;
    for chunk_bytes in [1, 10_000, 1 << 30] {
        let mut rows = ready.chunks(&*snapshot, 0, chunk_bytes).await.concat();
        rows.sort();
        assert_eq!(rows, ready.expected.rows("words"), "with chunks of {chunk_bytes} bytes");
    }
}

pub async fn a_snapshot_does_not_see_later_changes(harness: &dyn Harness) {
    let mut ready = Ready::new(harness, vec![items()]).await;
    ready.insert_items(0..10).await;
    let before = ready.expected.rows("items");
    let (_, snapshot) = ready.snapshot_of(ready.establish().await).await;
    let planned = snapshot.plan(&ready.tables[0], 1).await.expect("a plan is made");
    assert!(!planned.is_empty(), "a table has at least one chunk");
    ready.insert_items(10..20).await;
    ready.commit((0..10).map(|n| update("items", id(n), vec![(1, Neutral::text("later"))])).collect()).await;
    let mut rows = ready.chunks(&*snapshot, 0, 20_000).await.concat();
    rows.sort();
    assert_eq!(rows, before);
}

pub async fn unchanged_large_values_are_never_null(harness: &dyn Harness) {
    let mut ready = Ready::new(harness, vec![items()]).await;
    ready.insert_items(1..2).await;
    let p0 = ready.establish().await.position;
    ready.commit(vec![update("items", id(1), vec![(1, Neutral::text("other"))])]).await;
    ready.commit(vec![update("items", id(1), vec![(2, Neutral::Null)])]).await;
    let seen = ready.changes_from(&p0, "end").await;
    let notes: Vec<_> = seen.iter().flat_map(Seen::changes).map(|change| change.new[2].clone()).collect();
    let [unchanged, nulled] = notes.as_slice() else { panic!("two updates were told") };
    let kept = !unchanged.is_known() || ready.bench.read(Kind::LargeText, unchanged) == large(1);
    assert!(kept, "an unchanged value is itself or unsent");
    assert_eq!(*nulled, godwit_model::Value::Null);
}

pub async fn a_changed_key_names_the_old_one(harness: &dyn Harness) {
    let mut ready = Ready::new(harness, vec![items()]).await;
    ready.insert_items(1..2).await;
    let p0 = ready.establish().await.position;
    ready.commit(vec![update("items", id(1), vec![(0, Neutral::Int(2))])]).await;
    let seen = ready.changes_from(&p0, "end").await;
    let keys: Vec<(i64, Option<i64>)> = seen
        .iter()
        .flat_map(Seen::changes)
        .map(|change| {
            let id = |row: &godwit_model::Row| number(&ready.bench.read(Kind::Int, &row[0]));
            let new = if change.operation == ChangeOperation::Delete { -1 } else { id(&change.new) };
            (new, change.old.as_ref().map(id))
        })
        .collect();
    // An engine may tell a key change as what it does inside: the old row goes, a new one comes.
    let told_apart = keys == [(-1, Some(1)), (2, None)];
    assert!(keys == [(2, Some(1))] || told_apart, "{keys:?}");
}

pub async fn only_selected_tables_are_told(harness: &dyn Harness) {
    let mut ready = Ready::new(harness, vec![items(), words()]).await;
    ready.tables.truncate(1);
    ready.bench.select(&[ready.bench.table("items")]).await;
    let p0 = ready.establish().await.position;
    ready.commit(vec![insert("words", vec![Neutral::text("a"), Neutral::Int(1)])]).await;
    ready.commit(vec![insert("items", item(1, "n")), insert("words", vec![Neutral::text("b"), Neutral::Int(1)])]).await;
    let seen = ready.changes_from(&p0, "end").await;
    let told: Vec<_> = seen.iter().flat_map(Seen::changes).map(|change| change.layout.table.clone()).collect();
    assert_eq!(told, [ready.bench.table("items")]);
}

pub async fn digests_count_every_row(harness: &dyn Harness) {
    let mut ready = Ready::new(harness, vec![items()]).await;
    ready.insert_items(0..30).await;
    let plan = DigestPlan::of_source(&ready.mapping(0), 8);
    let examiner = ready.source.examiner();
    let digests = examiner.digest(&plan).await.expect("a digest is made");
    assert_eq!(digests.iter().map(|block| block.rows).sum::<u64>(), 30);
    for block in &digests {
        let hashes = examiner.hashes(&plan, &[block.block]).await.expect("hashes are read");
        assert_eq!(hashes.len() as u64, block.rows);
        let sum = hashes.iter().fold(0_u128, |sum, row| sum.wrapping_add(u128::from(row.hash)));
        assert_eq!(sum, block.sum, "a block's sum is that of its rows");
    }
    let before = examiner.hashes_of(&plan, &ready.keys(0, &[id(1), id(99), id(2)])).await.expect("hashes are read");
    assert!(before[0].is_some() && before[1].is_none() && before[2].is_some());
    ready.commit(vec![update("items", id(1), vec![(1, Neutral::Null)])]).await;
    let after = ready.source.examiner().hashes_of(&plan, &ready.keys(0, &[id(1), id(99), id(2)])).await.expect("hashes are read");
    assert!(after[0] != before[0] && after[2] == before[2], "a hash follows its row");
}

pub async fn a_look_is_the_store_at_one_place_of_its_log(harness: &dyn Harness) {
    let mut ready = Ready::new(harness, vec![items()]).await;
    let p0 = ready.establish().await.position;
    let mut looks = Vec::new();
    for round in 0..3 {
        ready.insert_items(round * 10..round * 10 + 4).await;
        if let Some(look) = ready.source.look().await.expect("a look is opened or not") {
            looks.push(look);
        }
        ready.insert_items(round * 10 + 4..round * 10 + 7).await;
    }
    let seen = ready.changes_from(&p0, "end").await;
    let plan = DigestPlan::of_source(&ready.mapping(0), 4);
    for look in looks {
        let digests = look.examiner.digest(&plan).await.expect("a digest is made");
        let shown = digests.iter().map(|block| block.rows).sum::<u64>();
        let shows = |seen: &&Seen| ready.source.shows(&look.position, &seen.position).expect("positions of this store");
        let told = seen.iter().take_while(shows).flat_map(Seen::changes).count() as u64;
        assert_eq!(shown, told, "what the stream tells up to the place of a look is what it shows");
        assert!(shown % 7 == 4, "a look shows what was committed before it: {shown}");
    }
}

pub async fn traces_are_removed(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    drop(ready.establish().await);
    assert!(!ready.source.traces().await.expect("traces are listed").is_empty());
    ready.source.remove_traces().await.expect("traces are removed");
    assert_eq!(ready.source.traces().await.expect("traces are listed"), []);
    ready.source.remove_traces().await.expect("what is gone already is no error");
}

pub async fn tables_that_come_are_selected(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items(), words()]).await;
    let mut names = ready.source.selected(&ready.bench.task()).await.expect("names are listed");
    names.sort();
    let mut expected = [ready.bench.table("items"), ready.bench.table("words")];
    expected.sort();
    assert_eq!(names, expected);
    let mut task = ready.bench.task();
    task.select.except = vec![expected[0].pattern()];
    assert_eq!(ready.source.selected(&task).await.expect("names are listed"), expected[1..]);
}

impl Ready {
    async fn look(&self) -> godwit_model::Appearance {
        let names = [self.bench.table("items"), TableName::new("nowhere", "nothing")];
        let mut looks = self.source.appearances(&names).await.expect("the store is looked at");
        assert_eq!(looks.iter().map(|found| &found.table).collect::<Vec<_>>(), [&names[0]], "what is not there is missing");
        looks.remove(0).look
    }

    /// None: the engine follows no alteration, and has said so.
    async fn altered(&self, change: &Reshape) -> Option<(godwit_model::Appearance, Altered)> {
        let before = self.look().await;
        let follows = self.bench.reshape("items", change).await;
        let after = self.look().await;
        let altered = self.source.altered(&self.tables[0], &before, &after.columns).await;
        if !follows {
            assert!(altered.expect_err("no alteration is followed").is(&codes::DDL_STOPPED));
            return None;
        }
        let altered = altered.expect("the alteration is told");
        assert_eq!(altered.look, after);
        assert!(altered.look.fits(&after.columns));
        let stated: Vec<&str> = altered.table.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(stated, after.columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>());
        assert_eq!(altered.table.key_names().len(), 1, "the key stays");
        Some((before, altered))
    }
}

pub async fn a_table_that_is_left_alone_looks_the_same(harness: &dyn Harness) {
    let mut ready = Ready::new(harness, vec![items()]).await;
    let before = ready.look().await;
    ready.insert_items(0..3).await;
    ready.commit(vec![update("items", id(1), vec![(1, Neutral::Null)]), delete("items", id(2))]).await;
    assert_eq!(ready.look().await, before, "changes of rows are in the log, not in the look");
    let described = ready.source.describe(&ready.bench.task()).await.expect("the store is described");
    assert_eq!(described.looks, [before]);
}

pub async fn an_added_column_is_told_with_what_rows_hold_in_it(harness: &dyn Harness) {
    let mut ready = Ready::new(harness, vec![items()]).await;
    ready.insert_items(0..3).await;
    let Some((_, altered)) = ready.altered(&Reshape::Add("more", Kind::Int, Neutral::Int(7))).await else { return };
    assert!(altered.proved && altered.distinct && altered.renamed.is_empty());
    assert_eq!(altered.fills, [("more".to_owned(), ready.bench.value(Kind::Int, &Neutral::Int(7)))]);
}

pub async fn a_dropped_column_is_told(harness: &dyn Harness) {
    let mut ready = Ready::new(harness, vec![items()]).await;
    ready.insert_items(0..3).await;
    let Some((_, altered)) = ready.altered(&Reshape::Drop("name")).await else { return };
    assert!(altered.proved && altered.distinct && altered.fills.is_empty() && altered.renamed.is_empty());
}

pub async fn a_renamed_column_is_told_as_one(harness: &dyn Harness) {
    let mut ready = Ready::new(harness, vec![items()]).await;
    ready.insert_items(0..3).await;
    let Some((_, altered)) = ready.altered(&Reshape::Rename("name", "title")).await else { return };
    assert_eq!(altered.renamed, [("name".to_owned(), "title".to_owned())]);
    assert!(altered.distinct && altered.proved && altered.fills.is_empty());
}

pub async fn another_type_is_never_taken_for_proved(harness: &dyn Harness) {
    let mut ready = Ready::new(harness, vec![items()]).await;
    ready.insert_items(0..3).await;
    // rows are written anew, and the log says nothing of it
    let Some((before, altered)) = ready.altered(&Reshape::Retype("name", Kind::Int)).await else { return };
    assert!(!altered.proved && altered.fills.is_empty());
    assert_ne!(altered.look.stamp, before.stamp);
}

pub async fn the_stream_states_the_columns_of_a_look(harness: &dyn Harness) {
    let mut ready = Ready::new(harness, vec![items()]).await;
    ready.bench.select(&[ready.bench.table("items")]).await;
    let p0 = ready.establish().await.position;
    ready.insert_items(0..1).await;
    let before = ready.look().await;
    if !ready.bench.reshape("items", &Reshape::Add("more", Kind::Int, Neutral::Null)).await {
        return;
    }
    ready.bench.run(&NeutralTransaction::commit(vec![update("items", id(0), vec![(1, Neutral::text("m"))])])).await;
    let after = ready.look().await;
    let seen = ready.changes_from(&p0, "end").await;
    let stated: Vec<Vec<(String, String)>> = seen
        .iter()
        .flat_map(Seen::changes)
        .map(|change| change.layout.columns.iter().map(|column| (column.name.clone(), column.type_name.clone())).collect())
        .collect();
    assert_eq!(stated, [before.columns, after.columns]);
}
