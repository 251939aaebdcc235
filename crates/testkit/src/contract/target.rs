//! What every target promises.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use godwit_model::{
    Alteration, Applied, Applier, Bearing, Checkpoint, ChunkMode, ChunkWrite, ChunkWritten, ColumnMapping, DigestPlan, Entry, Group,
    Holder, Lease, LeaseRecord, LogId, Mismatch, Position, Result, RowBatch, SchemaItem, Scope, Sequence, SequenceValue, Stage,
    TableMapping, TableName, TableWrite, Target, TaskName, Value, WriteKind, codes,
};

use super::given::{End, GivenRows};
use super::harness::{Bench, Harness};
use crate::neutral::{Kind, Neutral, NeutralRow, NeutralTable, NeutralTransaction, Operation};

fn items() -> NeutralTable {
    NeutralTable::new("items", &[("id", Kind::Int), ("name", Kind::Text), ("note", Kind::LargeText)], &[0])
}

fn codes_table() -> NeutralTable {
    NeutralTable::new("codes", &[("id", Kind::Int), ("code", Kind::Text)], &[0]).unique(&[1])
}

fn bag() -> NeutralTable {
    NeutralTable::new("bag", &[("thing", Kind::Text), ("weight", Kind::Int)], &[])
}

fn item(id: i64, name: &str) -> NeutralRow {
    vec![Neutral::Int(id), Neutral::text(name), Neutral::text("note")]
}

fn entry(key: &str, value: &'static str) -> Entry {
    Entry { key: key.to_owned(), value: Bytes::from_static(value.as_bytes()) }
}

fn holder(pid: u32) -> Holder {
    Holder { host: "here".to_owned(), boot: "b00t".to_owned(), pid, started: 7 }
}

fn checkpoint(number: u64) -> Checkpoint {
    Checkpoint {
        position: Position::from(format!("position {number}")),
        log: LogId(0xfeed_0000_0000_0000_0000_0000_0000_beef),
        sequence: Sequence(number),
    }
}

/// A target whose lease is taken.
struct Ready {
    bench: Box<dyn Bench>,
    target: Arc<dyn Target>,
    task: TaskName,
    lease: Lease,
    neutral: Vec<NeutralTable>,
    mappings: Vec<Arc<TableMapping>>,
}

impl Ready {
    async fn new(harness: &dyn Harness, neutral: Vec<NeutralTable>) -> Self {
        let bench = harness.fresh(&neutral).await;
        let target = bench.target();
        let task = bench.task().name;
        target.install().await.expect("Godwit's own tables are made");
        target.install().await.expect("making them is idempotent");
        let names: Vec<TableName> = neutral.iter().map(|table| bench.table(&table.name)).collect();
        let present = target.present(&names).await.expect("tables are described");
        let mapping = |name: &TableName| {
            let found = present.iter().find(|present| present.table.name == *name).expect("the table is there");
            assert!(!found.has_rows, "a fresh table is empty");
            Arc::new(TableMapping::resolve(&[], &found.table).expect("nothing is mapped"))
        };
        let mappings = names.iter().map(mapping).collect();
        let record = take(&*target, &task, 1, None).await.expect("nobody holds the lease");
        let lease = Lease { task: task.clone(), epoch: record.epoch };
        Ready { bench, target, task, lease, neutral, mappings }
    }

    async fn users(&self, operations: Vec<Operation>) {
        self.bench.run(&NeutralTransaction::commit(operations)).await;
    }

    async fn user_items(&self, ids: &[i64]) {
        let insert = |id: &i64| Operation::Insert { table: "items".to_owned(), row: item(*id, "user") };
        self.users(ids.iter().map(insert).collect()).await;
    }

    async fn rows(&self, table: usize) -> Vec<NeutralRow> {
        self.bench.rows(&self.neutral[table]).await
    }

    async fn record(&self) -> LeaseRecord {
        self.target.lease(&self.task).await.expect("the lease is read").expect("there is a lease row")
    }

    async fn entries(&self) -> Vec<Entry> {
        let mut entries = self.target.ledger(&self.task).await.expect("the ledger is read");
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        entries
    }

    async fn applier(&self) -> Box<dyn Applier> {
        self.target.applier(&self.lease, &self.mappings).await.expect("the applier opens")
    }

    /// Rows given by columns of the table, as values of this engine.
    fn batch(&self, table: usize, columns: &[usize], rows: &[NeutralRow]) -> RowBatch {
        let mut batch = RowBatch::new(columns.len().max(1));
        for row in rows {
            assert_eq!(row.len(), columns.len(), "a test gives whole rows");
            batch.push(columns.iter().zip(row).map(|(column, value)| self.value(table, *column, value)));
        }
        batch
    }

    fn value(&self, table: usize, column: usize, value: &Neutral) -> Value {
        self.bench.value(self.neutral[table].columns[column].kind, value)
    }

    /// Whole rows, as a chunk has them.
    fn chunk(&self, table: usize, rows: &[NeutralRow], end: End) -> GivenRows {
        let all: Vec<usize> = (0..self.neutral[table].columns.len()).collect();
        GivenRows::new(rows.chunks(2).map(|rows| self.batch(table, &all, rows)).collect(), end)
    }

    async fn write_chunk(&self, lease: &Lease, mode: ChunkMode, done: &Entry, rows: &mut GivenRows) -> Result<ChunkWritten> {
        self.target.write_chunk(lease, &ChunkWrite { mapping: &self.mappings[0], mode, done }, rows).await
    }

    /// `lead` are the columns that find the row, before the values of `columns`.
    fn write(&self, table: usize, kind: WriteKind, lead: &[usize], columns: &[usize], rows: &[NeutralRow]) -> TableWrite {
        let all = [lead, columns].concat();
        let rows = self.batch(table, &all, rows);
        TableWrite { mapping: self.mappings[table].clone(), kind, columns: columns.to_vec(), rows, strict: true }
    }

    fn inserts(&self, rows: &[NeutralRow]) -> TableWrite {
        self.write(0, WriteKind::Insert, &[], &[0, 1, 2], rows)
    }

    fn deletes(&self, ids: &[i64]) -> TableWrite {
        let keys: Vec<NeutralRow> = ids.iter().map(|id| vec![Neutral::Int(*id)]).collect();
        self.write(0, WriteKind::Delete, &[0], &[], &keys)
    }

    fn renames(&self, names: &[(i64, &str)]) -> TableWrite {
        let rows: Vec<NeutralRow> = names.iter().map(|(id, name)| vec![Neutral::Int(*id), Neutral::text(*name)]).collect();
        self.write(0, WriteKind::Update, &[0], &[1], &rows)
    }
}

async fn take(target: &dyn Target, task: &TaskName, pid: u32, seen: Option<&LeaseRecord>) -> Option<LeaseRecord> {
    target.take_lease(task, &holder(pid), seen).await.expect("the lease is asked for")
}

fn group(writes: Vec<TableWrite>) -> Group {
    Group { writes, origin: "godwit_contract".to_owned() }
}

async fn apply(applier: &mut dyn Applier, writes: Vec<TableWrite>) -> Applied {
    applier.apply(&group(writes)).await.expect("the target runs the group")
}

async fn applied(applier: &mut dyn Applier, writes: Vec<TableWrite>) {
    let answer = apply(applier, writes).await;
    assert!(matches!(answer, Applied::AsExpected), "{answer:?}");
}

async fn commit(applier: &mut dyn Applier, from: u64, to: u64) {
    let previous = (from > 0).then(|| checkpoint(from));
    applier.commit(previous.as_ref(), &checkpoint(to), &[]).await.expect("the batch commits");
}

pub async fn a_lease_is_taken_once_and_taken_over(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    let first = ready.record().await;
    assert_eq!(first.holder, Some(holder(1)));
    assert_eq!(first.checkpoint, None);
    assert!(take(&*ready.target, &ready.task, 2, None).await.is_none(), "the row is not missing any more");
    let second = take(&*ready.target, &ready.task, 2, Some(&first)).await.expect("nobody was faster");
    assert!(second.epoch > first.epoch, "a takeover raises the epoch");
    assert_eq!(second.holder, Some(holder(2)));
    assert!(take(&*ready.target, &ready.task, 3, Some(&first)).await.is_none(), "someone was faster");
    let seen = ready.record().await;
    assert_eq!(seen, second, "the record returned is the one stored");
    let lease = Lease { task: ready.task.clone(), epoch: second.epoch };
    ready.target.renew(&lease).await.expect("the holder renews");
    assert!(ready.record().await.counter > seen.counter, "a renewal raises the counter");
    assert!(take(&*ready.target, &ready.task, 3, Some(&seen)).await.is_none(), "the holder moved meanwhile");
}

pub async fn a_released_lease_has_no_holder(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    let mut applier = ready.applier().await;
    commit(&mut *applier, 0, 1).await;
    drop(applier);
    ready.target.release(&ready.lease).await.expect("the lease is given up");
    let record = ready.record().await;
    assert_eq!((record.holder.clone(), record.epoch), (None, ready.lease.epoch));
    assert_eq!(record.checkpoint, Some(checkpoint(1)));
    let next = take(&*ready.target, &ready.task, 2, Some(&record)).await.expect("nobody was faster");
    assert_eq!(next.checkpoint, Some(checkpoint(1)), "the checkpoint outlives its holder");
}

pub async fn an_old_epoch_cannot_write(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    let mut applier = ready.applier().await;
    applied(&mut *applier, vec![ready.inserts(&[item(1, "old")])]).await;
    let seen = ready.record().await;
    drop(applier); // a transaction under way may hold the lease row: the takeover would rightly wait for it
    take(&*ready.target, &ready.task, 2, Some(&seen)).await.expect("nobody was faster");
    let lost = |what: &str, answer: Result<()>| {
        let error = answer.expect_err("an old epoch is refused");
        assert!(error.is(&codes::LEASE_LOST), "{what}: {error}");
    };
    let target = &ready.target;
    lost("renew", target.renew(&ready.lease).await);
    lost("release", target.release(&ready.lease).await);
    lost("record", target.record(&ready.lease, &[entry("a", "1")]).await);
    lost("empty", target.empty(&ready.lease, &[ready.bench.table("items")], false, &[entry("a", "1")]).await);
    let mut rows = ready.chunk(0, &[item(2, "old")], End::Valid);
    lost("chunk", ready.write_chunk(&ready.lease, ChunkMode::Upsert, &entry("a", "1"), &mut rows).await.map(|_| ()));
    lost("batch", apply_and_commit(&ready).await);
    assert_eq!(ready.rows(0).await, Vec::<NeutralRow>::new());
    assert_eq!(ready.entries().await, []);
}

/// The old process's batch; any of its steps may be the one that is refused.
async fn apply_and_commit(ready: &Ready) -> Result<()> {
    let mut applier = ready.target.applier(&ready.lease, &ready.mappings).await?;
    applier.apply(&group(vec![ready.inserts(&[item(3, "old")])])).await?;
    applier.commit(None, &checkpoint(1), &[]).await
}

pub async fn the_ledger_reads_back(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    let binary = Entry { key: "chunk/3/17".to_owned(), value: Bytes::from_static(&[0, 255, 39, 92, 10]) };
    ready.target.record(&ready.lease, &[entry("b", "2"), binary.clone(), entry("a", "1")]).await.expect("entries are written");
    assert_eq!(ready.entries().await, [entry("a", "1"), entry("b", "2"), binary]);
    ready.target.record(&ready.lease, &[entry("a", ""), entry("b", "3"), entry("chunk/3/17", "")]).await.expect("entries are written");
    assert_eq!(ready.entries().await, [entry("b", "3")], "empty removes, the same key replaces");
}

pub async fn a_chunk_and_its_mark_are_one(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    let before = ready.record().await;
    let given =
        [item(1, "a"), vec![Neutral::Int(-2), Neutral::text(""), Neutral::Null], item(i64::MAX, "tab\t\\N \"quote\" 'é' \u{1F426}\n")];
    let mut rows = ready.chunk(0, &given, End::Valid);
    let written = ready.write_chunk(&ready.lease, ChunkMode::Insert, &entry("chunk/1", "done"), &mut rows).await;
    assert_eq!(written.expect("the chunk is written"), ChunkWritten::Written { rows: 3 });
    let mut expected = given.to_vec();
    expected.sort();
    assert_eq!(ready.rows(0).await, expected);
    assert_eq!(ready.entries().await, [entry("chunk/1", "done")]);
    assert!(ready.record().await.counter > before.counter, "a chunk is a sign of life");
}

pub async fn a_chunk_that_fails_leaves_nothing(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    let mut rows = ready.chunk(0, &[item(1, "a"), item(2, "b"), item(3, "c")], End::Broken);
    let error = ready.write_chunk(&ready.lease, ChunkMode::Insert, &entry("chunk/1", "done"), &mut rows).await;
    assert!(error.expect_err("the source broke").is(&codes::CONNECTION_LOST));
    assert_eq!(ready.rows(0).await, Vec::<NeutralRow>::new());
    assert_eq!(ready.entries().await, []);
    let mut rows = ready.chunk(0, &[item(1, "a")], End::Valid);
    ready.write_chunk(&ready.lease, ChunkMode::Insert, &entry("chunk/1", "done"), &mut rows).await.expect("it is written anew");
}

pub async fn a_stale_chunk_leaves_nothing(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    let mut rows = ready.chunk(0, &[item(1, "a"), item(2, "b")], End::Stale);
    let written = ready.write_chunk(&ready.lease, ChunkMode::Insert, &entry("chunk/1", "done"), &mut rows).await;
    assert_eq!(written.expect("a stale chunk is no error"), ChunkWritten::Stale);
    assert_eq!(ready.rows(0).await, Vec::<NeutralRow>::new());
    assert_eq!(ready.entries().await, []);
}

pub async fn an_inserted_chunk_refuses_a_key_that_is_there(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    ready.user_items(&[2]).await;
    let mut rows = ready.chunk(0, &[item(1, "a"), item(2, "b")], End::Valid);
    let error = ready.write_chunk(&ready.lease, ChunkMode::Insert, &entry("chunk/1", "done"), &mut rows).await;
    let error = error.expect_err("the key is there already");
    assert!(error.is(&codes::KEY_EXISTS), "{error}");
    assert_eq!(ready.rows(0).await, [item(2, "user")]);
    assert_eq!(ready.entries().await, []);
}

pub async fn an_upserted_chunk_overwrites(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    ready.user_items(&[2, 3]).await;
    let mut rows = ready.chunk(0, &[item(1, "a"), item(2, "b")], End::Valid);
    let written = ready.write_chunk(&ready.lease, ChunkMode::Upsert, &entry("chunk/1", "done"), &mut rows).await;
    assert_eq!(written.expect("the chunk is written"), ChunkWritten::Written { rows: 2 });
    assert_eq!(ready.rows(0).await, [item(1, "a"), item(2, "b"), item(3, "user")]);
    let mut empty = ready.chunk(0, &[], End::Valid);
    let written = ready.write_chunk(&ready.lease, ChunkMode::Upsert, &entry("chunk/2", "done"), &mut empty).await;
    assert_eq!(written.expect("an empty chunk is one too"), ChunkWritten::Written { rows: 0 });
    assert_eq!(ready.entries().await.len(), 2);
}

pub async fn chunks_are_written_side_by_side(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    let [mut a, mut b] = [0, 100].map(|first| ready.chunk(0, &(first..first + 20).map(|id| item(id, "n")).collect::<Vec<_>>(), End::Valid));
    let (first, second) = (entry("chunk/1", "done"), entry("chunk/2", "done"));
    let (one, two) = tokio::join!(
        ready.write_chunk(&ready.lease, ChunkMode::Insert, &first, &mut a),
        ready.write_chunk(&ready.lease, ChunkMode::Insert, &second, &mut b),
    );
    assert_eq!((one.expect("written"), two.expect("written")), (ChunkWritten::Written { rows: 20 }, ChunkWritten::Written { rows: 20 }));
    assert_eq!(ready.rows(0).await.len(), 40);
    assert_eq!(ready.entries().await, [first, second]);
}

pub async fn inserts_updates_and_deletes_are_applied(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    ready.user_items(&[1, 2, 3]).await;
    let mut applier = ready.applier().await;
    applied(
        &mut *applier,
        vec![ready.deletes(&[1]), ready.renames(&[(2, "b"), (3, "c")]), ready.inserts(&[item(1, "again"), item(4, "d")])],
    )
    .await;
    applied(&mut *applier, vec![ready.renames(&[(4, "dd")])]).await;
    commit(&mut *applier, 0, 1).await;
    assert_eq!(ready.rows(0).await, [item(1, "again"), item(2, "b"), item(3, "c"), item(4, "dd")]);
    applied(&mut *applier, vec![ready.deletes(&[1, 2, 3, 4])]).await;
    commit(&mut *applier, 1, 2).await;
    applier.durable().await.expect("what was committed becomes durable");
    assert_eq!(ready.rows(0).await, Vec::<NeutralRow>::new());
}

pub async fn columns_that_are_not_named_stay(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    ready.user_items(&[1]).await;
    let mut applier = ready.applier().await;
    let nulls = ready.write(0, WriteKind::Update, &[0], &[1], &[vec![Neutral::Int(1), Neutral::Null]]);
    applied(&mut *applier, vec![nulls]).await;
    commit(&mut *applier, 0, 1).await;
    assert_eq!(ready.rows(0).await, [vec![Neutral::Int(1), Neutral::Null, Neutral::text("note")]]);
}

pub async fn a_key_may_change(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    ready.user_items(&[1, 2]).await;
    let mut applier = ready.applier().await;
    let moves = [vec![Neutral::Int(1), Neutral::Int(11), Neutral::text("moved")]];
    applied(&mut *applier, vec![ready.write(0, WriteKind::Update, &[0], &[0, 1], &moves)]).await;
    commit(&mut *applier, 0, 1).await;
    assert_eq!(ready.rows(0).await, [item(2, "user"), item(11, "moved")]);
}

pub async fn upserts_insert_and_overwrite(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    ready.user_items(&[1]).await;
    let mut applier = ready.applier().await;
    let rows = [vec![Neutral::Int(1), Neutral::text("over")], vec![Neutral::Int(2), Neutral::text("new")]];
    applied(&mut *applier, vec![ready.write(0, WriteKind::Upsert, &[], &[0, 1], &rows)]).await;
    commit(&mut *applier, 0, 1).await;
    let new = vec![Neutral::Int(2), Neutral::text("new"), Neutral::Null];
    assert_eq!(ready.rows(0).await, [item(1, "over"), new], "columns that are not named stay");
}

pub async fn rows_without_a_key_are_changed_one_by_one(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![bag()]).await;
    let thing = |name: &str, weight: i64| vec![Neutral::text(name), Neutral::Int(weight)];
    let nothing = vec![Neutral::Null, Neutral::Null];
    let mut applier = ready.applier().await;
    let rows = [thing("a", 1), thing("a", 1), thing("a", 1), nothing.clone(), nothing.clone()];
    applied(&mut *applier, vec![ready.write(0, WriteKind::Insert, &[], &[0, 1], &rows)]).await;
    commit(&mut *applier, 0, 1).await;
    let update = [[thing("a", 1), thing("b", 2)].concat()];
    let writes = vec![
        ready.write(0, WriteKind::DeleteWhole, &[], &[0, 1], &[thing("a", 1), nothing.clone()]),
        ready.write(0, WriteKind::UpdateWhole, &[0, 1], &[0, 1], &update),
    ];
    applied(&mut *applier, writes).await;
    commit(&mut *applier, 1, 2).await;
    let mut expected = vec![thing("a", 1), thing("b", 2), nothing];
    expected.sort();
    assert_eq!(ready.rows(0).await, expected);
    let answer = apply(&mut *applier, vec![ready.write(0, WriteKind::DeleteWhole, &[], &[0, 1], &[thing("a", 1), thing("a", 1)])]).await;
    assert!(matches!(&answer, Applied::Unexpected(Mismatch { write: 0, expected: 2, touched: 1 })), "{answer:?}");
}

pub async fn truncate_empties(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    ready.user_items(&[1, 2, 3]).await;
    let mut applier = ready.applier().await;
    applied(&mut *applier, vec![ready.write(0, WriteKind::Truncate, &[], &[], &[]), ready.inserts(&[item(1, "after")])]).await;
    commit(&mut *applier, 0, 1).await;
    assert_eq!(ready.rows(0).await, [item(1, "after")]);
}

pub async fn a_wrong_count_leaves_no_effect(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    ready.user_items(&[1, 2]).await;
    let mut applier = ready.applier().await;
    applied(&mut *applier, vec![ready.inserts(&[item(5, "kept")])]).await;
    let answer = apply(&mut *applier, vec![ready.inserts(&[item(6, "gone")]), ready.renames(&[(1, "gone"), (9, "gone")])]).await;
    assert!(matches!(&answer, Applied::Unexpected(Mismatch { write: 1, expected: 2, touched: 1 })), "{answer:?}");
    let answer = apply(&mut *applier, vec![ready.deletes(&[2, 8, 9])]).await;
    assert!(matches!(&answer, Applied::Unexpected(Mismatch { write: 0, expected: 3, touched: 1 })), "{answer:?}");
    applied(&mut *applier, vec![ready.renames(&[(2, "usable")])]).await;
    commit(&mut *applier, 0, 1).await;
    assert_eq!(ready.rows(0).await, [item(1, "user"), item(2, "usable"), item(5, "kept")]);
}

pub async fn counts_do_not_matter_where_they_are_not_strict(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    ready.user_items(&[1]).await;
    let mut applier = ready.applier().await;
    let lenient = |mut write: TableWrite| {
        write.strict = false;
        write
    };
    let writes = vec![lenient(ready.renames(&[(1, "b"), (9, "absent")])), lenient(ready.deletes(&[7, 8]))];
    applied(&mut *applier, writes).await;
    commit(&mut *applier, 0, 1).await;
    assert_eq!(ready.rows(0).await, [item(1, "b")]);
}

pub async fn a_refused_write_leaves_no_effect(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    ready.user_items(&[1]).await;
    let mut applier = ready.applier().await;
    applied(&mut *applier, vec![ready.inserts(&[item(5, "kept")])]).await;
    let answer = apply(&mut *applier, vec![ready.inserts(&[item(6, "gone")]), ready.inserts(&[item(7, "gone"), item(1, "there")])]).await;
    assert!(matches!(&answer, Applied::Refused(error) if error.is(&codes::CONFLICT)), "{answer:?}");
    applied(&mut *applier, vec![ready.inserts(&[item(6, "usable")])]).await;
    commit(&mut *applier, 0, 1).await;
    assert_eq!(ready.rows(0).await, [item(1, "user"), item(5, "kept"), item(6, "usable")]);
}

pub async fn unique_constraints_refuse(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![codes_table()]).await;
    let row = |id: i64, code: &str| vec![Neutral::Int(id), Neutral::text(code)];
    let mut applier = ready.applier().await;
    let insert = |rows: &[NeutralRow]| ready.write(0, WriteKind::Insert, &[], &[0, 1], rows);
    applied(
        &mut *applier,
        vec![insert(&[row(1, "a"), row(2, "b"), vec![Neutral::Int(3), Neutral::Null], vec![Neutral::Int(4), Neutral::Null]])],
    )
    .await;
    let answer = apply(&mut *applier, vec![insert(&[row(5, "a")])]).await;
    assert!(matches!(&answer, Applied::Refused(error) if error.is(&codes::CONFLICT)), "{answer:?}");
    let taken = ready.write(0, WriteKind::Update, &[0], &[1], &[row(2, "a")]);
    let answer = apply(&mut *applier, vec![taken]).await;
    assert!(matches!(&answer, Applied::Refused(error) if error.is(&codes::CONFLICT)), "{answer:?}");
    commit(&mut *applier, 0, 1).await;
    assert_eq!(ready.rows(0).await.len(), 4);
}

pub async fn nothing_is_visible_before_the_commit(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    let mut applier = ready.applier().await;
    applied(&mut *applier, vec![ready.inserts(&[item(1, "a")])]).await;
    assert_eq!(ready.rows(0).await, Vec::<NeutralRow>::new());
    assert_eq!(ready.record().await.checkpoint, None);
    commit(&mut *applier, 0, 1).await;
    assert_eq!(ready.rows(0).await, [item(1, "a")]);
    assert_eq!(ready.record().await.checkpoint, Some(checkpoint(1)));
}

pub async fn an_abandoned_transaction_leaves_nothing(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    let mut applier = ready.applier().await;
    applier.abandon().await.expect("there was nothing to abandon");
    applied(&mut *applier, vec![ready.inserts(&[item(1, "gone")])]).await;
    applier.abandon().await.expect("the transaction is rolled back");
    applied(&mut *applier, vec![ready.inserts(&[item(1, "kept")])]).await;
    commit(&mut *applier, 0, 1).await;
    assert_eq!(ready.rows(0).await, [item(1, "kept")]);
}

pub async fn a_dropped_applier_leaves_nothing(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    let mut applier = ready.applier().await;
    applied(&mut *applier, vec![ready.inserts(&[item(1, "gone")])]).await;
    drop(applier);
    let mut applier = ready.applier().await;
    applied(&mut *applier, vec![ready.inserts(&[item(1, "kept")])]).await;
    commit(&mut *applier, 0, 1).await;
    assert_eq!(ready.rows(0).await, [item(1, "kept")]);
}

pub async fn a_commit_moves_the_checkpoint_from_the_one_before(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    let mut applier = ready.applier().await;
    commit(&mut *applier, 0, 1).await;
    commit(&mut *applier, 1, 2).await;
    for (id, wrong) in [(1, None), (2, Some(checkpoint(1))), (3, Some(checkpoint(9)))] {
        let mut applier = ready.applier().await;
        applied(&mut *applier, vec![ready.inserts(&[item(id, "gone")])]).await;
        let answer = applier.commit(wrong.as_ref(), &checkpoint(7), &[entry("a", "1")]).await;
        let error = answer.expect_err("the checkpoint stored is another one");
        assert!(error.is(&codes::TARGET_CHANGED), "{error}");
    }
    let record = ready.record().await;
    assert_eq!(record.checkpoint, Some(checkpoint(2)));
    assert_eq!(ready.rows(0).await, Vec::<NeutralRow>::new());
    assert_eq!(ready.entries().await, []);
    let taken = take(&*ready.target, &ready.task, 2, Some(&record)).await.expect("nobody was faster");
    assert_eq!(taken.checkpoint, Some(checkpoint(2)));
}

pub async fn entries_come_with_the_commit(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    ready.target.record(&ready.lease, &[entry("b", "2")]).await.expect("entries are written");
    let mut applier = ready.applier().await;
    applied(&mut *applier, vec![ready.inserts(&[item(1, "a")])]).await;
    let before = ready.record().await.counter;
    applier.commit(None, &checkpoint(1), &[entry("a", "1"), entry("b", "")]).await.expect("the batch commits");
    assert_eq!(ready.entries().await, [entry("a", "1")]);
    assert!(ready.record().await.counter > before, "a batch is a sign of life");
}

pub async fn tables_are_emptied_and_dropped(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    ready.user_items(&[1, 2]).await;
    let names = [ready.bench.table("items")];
    let present = ready.target.present(&names).await.expect("tables are described");
    assert!(present[0].has_rows);
    ready.target.empty(&ready.lease, &names, false, &[entry("emptied", "1")]).await.expect("the table is emptied");
    assert_eq!(ready.rows(0).await, Vec::<NeutralRow>::new());
    ready.target.empty(&ready.lease, &names, true, &[entry("dropped", "1")]).await.expect("the table is dropped");
    assert!(ready.target.present(&names).await.expect("tables are described").is_empty());
    let error = ready.target.empty(&ready.lease, &names, false, &[entry("absent", "1")]).await.expect_err("there is nothing to empty");
    assert!(error.is(&codes::TABLE_MISSING), "{error}");
    ready.target.empty(&ready.lease, &names, true, &[entry("dropped", "2")]).await.expect("it is gone as asked");
    assert_eq!(ready.entries().await, [entry("dropped", "2"), entry("emptied", "1")]);
}

/// The store's own DDL for its own table, as a source of the same engine gives it, makes the table anew.
pub async fn schema_steps_are_performed_once(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![codes_table()]).await;
    let described = ready.bench.source().describe(&ready.bench.task()).await.expect("the store is described");
    let names = [ready.bench.table("codes")];
    let before = ready.target.present(&names).await.expect("tables are described").remove(0).table;
    ready.target.empty(&ready.lease, &names, true, &[entry("dropped", "1")]).await.expect("the table is dropped");
    let steps = described.items.iter().filter(|item| item.table.as_ref() == Some(&names[0]));
    for (number, item) in steps.enumerate() {
        let done = entry(&format!("step/{number}"), "done");
        ready
            .target
            .perform(&ready.lease, &[item], std::slice::from_ref(&done))
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", item.id));
        assert!(ready.entries().await.contains(&done), "the mark comes with the step");
        let again = ready.target.perform(&ready.lease, &[item], &[entry("again", "1")]).await;
        assert!(again.is_err(), "{} is there already", item.id);
    }
    let after = ready.target.present(&names).await.expect("tables are described").remove(0).table;
    assert_eq!((after.columns, after.key, after.uniques.len()), (before.columns, before.key, before.uniques.len()));
    assert!(!ready.entries().await.contains(&entry("again", "1")), "a step that fails leaves no mark");
}

pub async fn sequences_never_go_back(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    let Some(name) = ready.bench.sequence().await else { return };
    let value = |last: i64| SequenceValue { name: name.clone(), last: Value::Int(last), called: true };
    for (set, expected) in [(100, 100), (50, 100), (101, 101)] {
        ready.target.set_sequences(&ready.lease, &[value(set)]).await.expect("sequences are set");
        assert_eq!(ready.bench.sequence_value(&name).await, expected);
    }
}

pub async fn hashes_follow_the_rows(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    ready.user_items(&[1, 2]).await;
    let plan = DigestPlan::of_target(&ready.mappings[0], 4);
    let keys = ready.batch(0, &[0], &[vec![Neutral::Int(1)], vec![Neutral::Int(2)], vec![Neutral::Int(3)]]);
    let before = ready.target.examiner().hashes_of(&plan, &keys).await.expect("hashes are read");
    assert!(before[0].is_some() && before[1].is_some() && before[2].is_none());
    let mut applier = ready.applier().await;
    applied(&mut *applier, vec![ready.renames(&[(1, "other")])]).await;
    commit(&mut *applier, 0, 1).await;
    let after = ready.target.examiner().hashes_of(&plan, &keys).await.expect("hashes are read");
    assert!(after[0] != before[0] && after[1] == before[1]);
    let digests = ready.target.examiner().digest(&plan).await.expect("a digest is made");
    assert_eq!(digests.iter().map(|block| block.rows).sum::<u64>(), 2);
}

pub async fn the_tasks_traces_are_removed(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    ready.user_items(&[1]).await;
    ready.target.record(&ready.lease, &[entry("a", "1")]).await.expect("entries are written");
    assert!(!ready.target.traces(&ready.task).await.expect("traces are listed").is_empty());
    ready.target.remove_traces(&ready.task).await.expect("traces are removed");
    assert_eq!(ready.target.traces(&ready.task).await.expect("traces are listed"), []);
    assert_eq!(ready.target.lease(&ready.task).await.expect("the lease is read"), None);
    ready.target.remove_traces(&ready.task).await.expect("what is gone already is no error");
    assert_eq!(ready.rows(0).await, [item(1, "user")], "what was copied stays");
}

/// The mapping with other columns, each with the name that it has before.
fn reshaped(mapping: &TableMapping, columns: &[(&str, &str, usize)]) -> TableMapping {
    let column = |(_, name, typed): &(&str, &str, usize)| ColumnMapping {
        source: (*name).to_owned(),
        target: (*name).to_owned(),
        type_name: mapping.columns[*typed].type_name.clone(),
    };
    TableMapping { columns: columns.iter().map(column).collect(), ..mapping.clone() }
}

impl Ready {
    async fn alter(&self, after: &TableMapping, fills: &[(String, Value)], renamed: &[(String, String)]) -> Result<()> {
        let alteration = Alteration { before: &self.mappings[0], after, fills, renamed };
        self.target.alter(&self.lease, &alteration, &[entry("altered", "1")]).await
    }

    /// Rows of these ids in the altered table.
    async fn altered_rows(&self, mapping: &TableMapping, kinds: &[Kind], ids: &[i64]) -> Vec<NeutralRow> {
        let mut keys = RowBatch::new(1);
        ids.iter().for_each(|id| keys.push([self.bench.value(Kind::Int, &Neutral::Int(*id))]));
        let found = self.bench.source().rows(mapping, &keys).await.expect("rows are read");
        let mut rows: Vec<NeutralRow> =
            found.rows().map(|row| row.iter().zip(kinds).map(|(value, kind)| self.bench.read(*kind, value)).collect()).collect();
        rows.sort();
        rows
    }

    /// False: it carries no alteration, and has said so.
    fn carries(&self, answer: &Result<()>) -> bool {
        !answer.as_ref().is_err_and(|error| error.is(&codes::DDL_STOPPED))
    }
}

pub async fn columns_come_and_go_with_their_entries(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    ready.user_items(&[1, 2]).await;
    let after = reshaped(&ready.mappings[0], &[("id", "id", 0), ("", "more", 0), ("", "none", 1)]);
    let fills = [("more".to_owned(), ready.bench.value(Kind::Int, &Neutral::Int(7)))];
    let answer = ready.alter(&after, &fills, &[]).await;
    if !ready.carries(&answer) {
        return assert_eq!(ready.entries().await, []);
    }
    answer.expect("the table is altered");
    assert_eq!(ready.entries().await, [entry("altered", "1")]);
    let row = |id: i64| vec![Neutral::Int(id), Neutral::Int(7), Neutral::Null];
    assert_eq!(ready.altered_rows(&after, &[Kind::Int, Kind::Int, Kind::Text], &[1, 2]).await, [row(1), row(2)]);
    ready.alter(&after, &fills, &[]).await.expect("what is there as asked is left as it is");
    assert_eq!(ready.altered_rows(&after, &[Kind::Int, Kind::Int, Kind::Text], &[1, 2]).await, [row(1), row(2)]);
    let names = [ready.bench.table("items")];
    let there = ready.target.present(&names).await.expect("tables are described").remove(0).table;
    assert_eq!(there.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["id", "more", "none"]);
}

pub async fn a_renamed_column_keeps_its_values(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    ready.user_items(&[1]).await;
    let after = reshaped(&ready.mappings[0], &[("id", "number", 0), ("name", "title", 1), ("note", "note", 2)]);
    let pair = |old: &str, new: &str| (old.to_owned(), new.to_owned());
    let renamed = [pair("id", "number"), pair("name", "title")];
    let answer = ready.alter(&after, &[], &renamed).await;
    if !ready.carries(&answer) {
        return;
    }
    answer.expect("the table is altered");
    ready.alter(&after, &[], &renamed).await.expect("what is there as asked is left as it is");
    assert_eq!(ready.altered_rows(&after, &[Kind::Int, Kind::Text, Kind::LargeText], &[1]).await, [item(1, "user")]);
}

pub async fn an_old_epoch_cannot_alter(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items()]).await;
    let seen = ready.record().await;
    take(&*ready.target, &ready.task, 2, Some(&seen)).await.expect("nobody was faster");
    let after = reshaped(&ready.mappings[0], &[("id", "id", 0)]);
    let answer = ready.alter(&after, &[], &[]).await;
    if ready.carries(&answer) {
        assert!(answer.expect_err("an old epoch is refused").is(&codes::LEASE_LOST));
    }
    assert_eq!(ready.entries().await, []);
    let there = ready.target.present(&[ready.bench.table("items")]).await.expect("tables are described").remove(0).table;
    assert_eq!(there.columns.len(), 3, "nothing was altered");
}

pub async fn both_ends_spell_a_structure_alike(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![items(), codes_table(), bag()]).await;
    let wanted = ready.bench.source().structure(&ready.mappings).await.expect("the source is read");
    let found = ready.target.structure(&ready.mappings, &wanted).await.expect("the target is read");
    assert_eq!(found, wanted);
    let names: HashSet<(&TableName, &str)> = found.iter().map(|feature| (&feature.table, feature.what.as_str())).collect();
    assert_eq!(names.len(), found.len(), "a name says which one");
}

pub async fn a_feature_is_removed_and_made_again(harness: &dyn Harness) {
    let ready = Ready::new(harness, vec![codes_table()]).await;
    let before = ready.target.structure(&ready.mappings, &[]).await.expect("the target is read");
    let Some(unique) = before.iter().find(|feature| feature.bearing == Bearing::Refuses && feature.scope == Scope::Table) else { return };
    let step = |sql: &[String]| SchemaItem {
        id: unique.what.clone(),
        stage: Stage::AtFinish,
        table: Some(unique.table.clone()),
        sql: sql.to_vec(),
    };
    ready.target.perform(&ready.lease, &[&step(&unique.remove)], &[entry("gone", "1")]).await.expect("it is taken away");
    let code = |id: i64| Operation::Insert { table: "codes".to_owned(), row: vec![Neutral::Int(id), Neutral::text("same")] };
    ready.users(vec![code(1), code(2)]).await;
    let without = ready.target.structure(&ready.mappings, &[]).await.expect("the target is read");
    assert!(!without.contains(unique) && without.len() + 1 == before.len());
    ready.users(vec![Operation::Delete { table: "codes".to_owned(), find: vec![Neutral::Int(2)] }]).await;
    ready.target.perform(&ready.lease, &[&step(&unique.make)], &[entry("there", "1")]).await.expect("it is made again");
    assert_eq!(ready.target.structure(&ready.mappings, &[]).await.expect("the target is read"), before);
}
