//! What the memory engine does beside the contracts: crashes, lost answers, moving rows, the bank.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use godwit_model::{
    Captured, Checkpoint, ChunkEnd, ChunkMode, ChunkWrite, ChunkWritten, Entry, Group, Holder, Lease, LoadBlock, LogId, Marker, Position,
    ReadSpec, Row, RowBatch, Sequence, Snapshot, Source, Table, TableMapping, TableName, TableWrite, Target, Value, WriteKind, codes,
};
use godwit_testkit::bank::{self, Bank};
use godwit_testkit::faults::{self, Fault, FaultPlan};
use godwit_testkit::memory::{self, LostCommit, MemoryStore, NeutralTables, SourceOptions, TableSpec};
use godwit_testkit::task;

fn items() -> TableName {
    TableName::new("main", "items")
}

fn store() -> MemoryStore {
    let store = MemoryStore::new("store", 1);
    store.create_table(TableSpec::new("main", "items").column("id", "int").large("note", "text").key(&["id"]));
    store
}

fn row(id: i64) -> Row {
    vec![Value::Int(id), Value::text(format!("note {id}"))]
}

fn insert(store: &MemoryStore, ids: std::ops::Range<i64>) {
    store.transaction(|tx| ids.clone().try_for_each(|id| tx.insert(&items(), row(id)))).unwrap();
}

async fn followed(store: &MemoryStore) -> (Arc<dyn Source>, Vec<Arc<Table>>, TableMapping) {
    let source = memory::source(store, &task::name("t"));
    let tables = source.describe(&task::task("t")).await.unwrap().tables;
    let mapping = TableMapping::resolve(&[], &tables[0]).unwrap();
    (source, tables.into_iter().map(Arc::new).collect(), mapping)
}

async fn read(snapshot: &dyn Snapshot, mapping: &TableMapping, chunk: &godwit_model::Chunk) -> (Vec<i64>, ChunkEnd) {
    let spec = ReadSpec { mapping, chunk, native: false, block_bytes: 100 };
    let mut reader = snapshot.read(&spec).await.unwrap();
    let mut ids = Vec::new();
    while let Some(LoadBlock::Rows(batch)) = reader.next().await.unwrap() {
        ids.extend(batch.rows().map(|row| if let Value::Int(id) = row[0] { id } else { panic!("an id") }));
    }
    (ids, reader.finish().await.unwrap())
}

#[tokio::test]
async fn renewed_snapshots_miss_and_double_rows_that_moved() {
    let (mut missed, mut doubled) = (0, 0);
    for seed in 0..20 {
        let store = MemoryStore::new("store", seed);
        store.create_table(TableSpec::new("main", "items").column("id", "int").column("note", "text").key(&["id"]));
        insert(&store, 0..40);
        let (source, tables, mapping) = followed(&store).await;
        let chunks = source.snapshot().await.unwrap().plan(&tables[0], 500).await.unwrap();
        assert!(chunks.len() > 2);
        let mut ids = Vec::new();
        for chunk in &chunks {
            ids.extend(read(&*source.snapshot().await.unwrap(), &mapping, chunk).await.0);
            store
                .transaction(|tx| (0..40).try_for_each(|id| tx.update(&items(), &[Value::Int(id)], &[("note", Value::text("n"))])))
                .unwrap();
        }
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        missed += usize::from(ids.len() < 40);
        doubled += usize::from(all > ids.len());
    }
    assert!(missed > 0 && doubled > 0, "missed in {missed}, doubled in {doubled} of 20 runs");
}

#[tokio::test]
async fn chunks_planned_before_a_rewrite_are_stale() {
    let store = store();
    insert(&store, 0..50);
    let (source, tables, mapping) = followed(&store).await;
    let snapshot = source.snapshot().await.unwrap();
    let chunks = snapshot.plan(&tables[0], 500).await.unwrap();
    assert!(matches!(read(&*snapshot, &mapping, &chunks[0]).await.1, ChunkEnd::Valid { .. }));
    store.rewrite(&items()).unwrap();
    assert_eq!(read(&*snapshot, &mapping, &chunks[1]).await.1, ChunkEnd::Stale);
    let renewed = source.snapshot().await.unwrap();
    assert_eq!(read(&*renewed, &mapping, &chunks[1]).await.1, ChunkEnd::Stale);
    let chunk = &renewed.plan(&tables[0], 1 << 20).await.unwrap()[0];
    assert_eq!(read(&*renewed, &mapping, chunk).await.0.len(), 50);
}

#[tokio::test]
async fn a_cut_breaks_streams_and_snapshots_with_a_transient_error() {
    let store = store();
    insert(&store, 0..5);
    let (source, tables, mapping) = followed(&store).await;
    let established = source.establish(&tables, None).await.unwrap();
    let snapshot = established.snapshot.unwrap();
    let mut stream = source.changes(&established.position, &tables).await.unwrap();
    let chunk = snapshot.plan(&tables[0], 1).await.unwrap().remove(0);
    store.cut();
    assert!(stream.next().await.unwrap_err().is_transient());
    let spec = ReadSpec { mapping: &mapping, chunk: &chunk, native: false, block_bytes: 100 };
    assert!(snapshot.read(&spec).await.err().unwrap().is_transient());
    store.stop();
    assert!(source.mark(&Marker("m".into())).await.unwrap_err().is(&codes::UNREACHABLE));
    store.start();
    source.changes(&established.position, &tables).await.unwrap();
}

#[tokio::test]
async fn a_pending_stream_wakes_for_news_and_for_a_cut() {
    let store = store();
    let (source, tables, _) = followed(&store).await;
    let p0 = source.establish(&tables, None).await.unwrap().position;
    let mut stream = source.changes(&p0, &tables).await.unwrap();
    let (item, ()) = tokio::join!(stream.next(), async { insert(&store, 0..1) });
    assert!(matches!(item.unwrap(), Captured::Begin));
    while !matches!(stream.next().await.unwrap(), Captured::Commit { .. }) {}
    let (item, ()) = tokio::join!(stream.next(), async { store.cut() });
    assert!(item.unwrap_err().is(&codes::CONNECTION_LOST));
}

#[tokio::test]
async fn the_log_is_forgotten_once_confirmed_but_not_what_is_under_way() {
    let store = store();
    let (source, tables, _) = followed(&store).await;
    let p0 = source.establish(&tables, None).await.unwrap().position;
    let mut open = store.begin().unwrap();
    open.insert(&items(), row(1000)).unwrap();
    insert(&store, 0..10);
    let mut stream = source.changes(&p0, &tables).await.unwrap();
    let position = loop {
        if let Captured::Commit { position, .. } = stream.next().await.unwrap() {
            break position;
        }
    };
    let before = store.log_records();
    stream.confirm(&position).await.unwrap();
    assert_eq!(store.log_records(), before, "the older transaction is still under way");
    open.commit().unwrap();
    let last = loop {
        if let Captured::Commit { position, .. } = stream.next().await.unwrap() {
            break position;
        }
    };
    stream.confirm(&last).await.unwrap();
    assert_eq!(store.log_records(), 0);
    drop(stream);
    let error = source.changes(&p0, &tables).await.err().unwrap();
    assert!(error.is(&codes::POSITION_LOST), "what was confirmed is gone: {error}");
}

#[tokio::test]
async fn a_marker_that_no_stream_read_may_be_lost_in_a_crash() {
    let store = store();
    let (source, tables, _) = followed(&store).await;
    let p0 = source.establish(&tables, None).await.unwrap().position;
    insert(&store, 0..1);
    source.mark(&Marker("lost".into())).await.unwrap();
    store.crash();
    source.mark(&Marker("kept".into())).await.unwrap();
    let mut stream = source.changes(&p0, &tables).await.unwrap();
    let mut markers = Vec::new();
    while markers.last() != Some(&Marker("kept".into())) {
        if let Captured::Marker(marker) = stream.next().await.unwrap() {
            markers.push(marker);
        }
    }
    assert_eq!(markers, [Marker("kept".into())]);
    assert_eq!(store.view().count(&items()), 1, "users' commits survive");
}

#[tokio::test]
async fn a_transaction_under_way_is_streamed_and_its_aborts_are_told() {
    let store = store();
    let options = SourceOptions { stream_after: Some(1), batch_changes: 2, ..Default::default() };
    let source = memory::source_with(&store, &task::name("t"), options);
    let tables: Vec<_> = source.describe(&task::task("t")).await.unwrap().tables.into_iter().map(Arc::new).collect();
    let p0 = source.establish(&tables, None).await.unwrap().position;
    let mut stream = source.changes(&p0, &tables).await.unwrap();
    let mut open = store.begin().unwrap();
    (0..2).try_for_each(|id| open.insert(&items(), row(id))).unwrap();
    open.savepoint().unwrap();
    (2..4).try_for_each(|id| open.insert(&items(), row(id))).unwrap();
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(stream.next().await.unwrap());
    }
    assert!(matches!(told[1..], [Captured::StreamedChanges { .. }, Captured::StreamedChanges { .. }]), "{told:?}");
    open.roll_back_to_savepoint().unwrap();
    assert!(matches!(stream.next().await.unwrap(), Captured::StreamedAbort { transaction, part } if transaction != part));
    insert(&store, 10..11);
    assert!(matches!(stream.next().await.unwrap(), Captured::Begin), "whole transactions come between parts");
    while !matches!(stream.next().await.unwrap(), Captured::Commit { .. }) {}
    open.roll_back();
    loop {
        match stream.next().await.unwrap() {
            Captured::Idle { .. } => {}
            Captured::StreamedAbort { transaction, part } => break assert_eq!(transaction, part),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_lost_slot_is_said_by_an_open_stream() {
    let store = store();
    let (source, tables, _) = followed(&store).await;
    let p0 = source.establish(&tables, None).await.unwrap().position;
    let mut stream = source.changes(&p0, &tables).await.unwrap();
    store.lose_position("godwit_t");
    assert!(stream.next().await.unwrap_err().is(&codes::POSITION_LOST));
}

struct AtTarget {
    store: MemoryStore,
    target: Arc<dyn Target>,
    mapping: Arc<TableMapping>,
    lease: Lease,
}

async fn at_target(store: MemoryStore) -> AtTarget {
    let target = memory::target(&store);
    target.install().await.unwrap();
    let holder = Holder { host: "h".into(), boot: "b".into(), pid: 1, started: 1 };
    let task = task::name("t");
    let epoch = target.take_lease(&task, &holder, None).await.unwrap().unwrap().epoch;
    let table = target.present(&[items()]).await.unwrap().remove(0).table;
    let mapping = Arc::new(TableMapping::resolve(&[], &table).unwrap());
    AtTarget { store, target, mapping, lease: Lease { task, epoch } }
}

impl AtTarget {
    fn inserts(&self, ids: std::ops::Range<i64>) -> Group {
        let mut rows = RowBatch::new(2);
        ids.for_each(|id| rows.push(row(id)));
        let write = TableWrite { mapping: self.mapping.clone(), kind: WriteKind::Insert, columns: vec![0, 1], rows, strict: true };
        Group { writes: vec![write], origin: "o".into() }
    }

    async fn checkpoint(&self) -> Option<Checkpoint> {
        self.target.lease(&self.lease.task).await.unwrap().unwrap().checkpoint
    }
}

fn checkpoint(number: u64) -> Checkpoint {
    Checkpoint { position: Position::from(number.to_string()), log: LogId(1), sequence: Sequence(number) }
}

#[tokio::test]
async fn a_crash_of_the_target_loses_whole_commits_that_are_not_durable() {
    let at = at_target(store()).await;
    let mut applier = at.target.applier(&at.lease, &[]).await.unwrap();
    applier.apply(&at.inserts(0..2)).await.unwrap();
    applier.commit(None, &checkpoint(1), &[]).await.unwrap();
    applier.durable().await.unwrap();
    applier.apply(&at.inserts(2..4)).await.unwrap();
    applier.commit(Some(&checkpoint(1)), &checkpoint(2), &[]).await.unwrap();
    assert_eq!(at.store.view().count(&items()), 4);
    at.store.crash();
    assert_eq!(at.store.view().count(&items()), 2);
    assert_eq!(at.checkpoint().await, Some(checkpoint(1)));
    assert!(applier.apply(&at.inserts(5..6)).await.unwrap_err().is_transient());
}

#[tokio::test]
async fn a_lost_commit_took_effect_or_did_not() {
    for (how, rows) in [(LostCommit::Before, 0), (LostCommit::After, 2)] {
        let at = at_target(store()).await;
        let mut applier = at.target.applier(&at.lease, &[]).await.unwrap();
        applier.apply(&at.inserts(0..2)).await.unwrap();
        at.store.lose_next_commit(how);
        let error = applier.commit(None, &checkpoint(1), &[]).await.unwrap_err();
        assert!(error.is(&codes::CONNECTION_LOST));
        assert_eq!(at.store.view().count(&items()), rows);
        assert_eq!(at.checkpoint().await.is_some(), rows > 0, "rows and checkpoint share one fate");
    }
}

#[tokio::test]
async fn users_and_the_applier_never_overwrite_each_other_unseen() {
    let at = at_target(store()).await;
    insert(&at.store, 0..1);
    let mut open = at.store.begin().unwrap();
    open.update(&items(), &[Value::Int(0)], &[("note", Value::text("user"))]).unwrap();
    insert(&at.store, 1..3);
    assert!(open.insert(&items(), row(1)).unwrap_err().is(&codes::KEY_EXISTS), "a transaction sees what others committed");
    let mut applier = at.target.applier(&at.lease, &[]).await.unwrap();
    assert!(applier.apply(&at.inserts(0..1)).await.is_ok_and(|applied| matches!(applied, godwit_model::Applied::Refused(_))));
    open.commit().unwrap();
    applier.apply(&at.inserts(9..10)).await.unwrap();
    applier.commit(None, &checkpoint(1), &[]).await.unwrap();
    assert_eq!(at.store.view().get(&items(), &[Value::Int(0)]).unwrap()[1], Value::text("user"));
    assert_eq!(at.store.view().count(&items()), 4);
}

#[tokio::test]
async fn a_chunk_waits_for_a_row_that_a_user_holds() {
    let at = at_target(store()).await;
    insert(&at.store, 0..1);
    let mut open = at.store.begin().unwrap();
    open.update(&items(), &[Value::Int(0)], &[("note", Value::text("user"))]).unwrap();
    let (source, tables, mapping) = followed(&at.store).await;
    let snapshot = source.snapshot().await.unwrap();
    let chunk = snapshot.plan(&tables[0], 1 << 20).await.unwrap().remove(0);
    let mut reader = snapshot.read(&ReadSpec { mapping: &mapping, chunk: &chunk, native: false, block_bytes: 10 }).await.unwrap();
    let done = Entry { key: "chunk".into(), value: Bytes::from_static(b"1") };
    let write = ChunkWrite { mapping: &at.mapping, mode: ChunkMode::Upsert, done: &done };
    let (written, ()) = tokio::join!(at.target.write_chunk(&at.lease, &write, &mut *reader), async { open.commit().unwrap() });
    assert_eq!(written.unwrap(), ChunkWritten::Written { rows: 1 });
}

#[tokio::test]
async fn the_bank_keeps_its_invariant_at_every_commit() {
    let store = MemoryStore::new("bank", 3);
    let bank = Bank { accounts: 60, writers: 3, seed: 11 };
    let tables = NeutralTables::create(&store, "main", &bank::tables());
    bank.fill().iter().for_each(|transaction| tables.run(transaction).unwrap());
    let watched = tables.clone();
    store.on_commit(move |view| watched.holdings(view).totals().check(&bank));
    let mut writers: Vec<_> = (0..bank.writers).map(|number| bank.writer(number)).collect();
    for _ in 0..150 {
        for writer in &mut writers {
            let next = writer.next_transaction();
            tables.run(&next.transaction).unwrap();
            writer.settle(next.transaction.commit);
        }
    }
    assert_eq!(store.violation(), None);
    let holdings = tables.holdings(&store.view());
    holdings.check_journal(&writers).unwrap();
    assert!(holdings.totals().transactions > 300);
    assert!(holdings.accounts[2].iter().any(|row| matches!(&row[0], godwit_testkit::neutral::Neutral::Text(key) if key.starts_with('A'))));
    store.transaction(|tx| tx.update(&TableName::new("main", "journal"), &[Value::Int(1)], &[("touched", Value::Int(99))])).ok();
    store.transaction(|tx| tx.insert(&TableName::new("main", "journal"), vec![Value::Int(-1), Value::Int(0), Value::Int(99)])).unwrap();
    assert!(store.violation().is_some(), "the hook sees a broken state");
}

#[tokio::test]
async fn faults_are_ordered_counted_and_held() {
    let store = store();
    let plan = Arc::new(FaultPlan::new(1));
    let source = faults::source(memory::source(&store, &task::name("t")), &plan);
    plan.order("source.mark", Fault::Reject);
    plan.order("source.mark", Fault::LostAnswer);
    plan.order("source.mark", Fault::Slow(Duration::from_millis(1)));
    let marker = Marker("m".into());
    let before = store.log_records();
    assert!(source.mark(&marker).await.unwrap_err().is_transient());
    assert_eq!(store.log_records(), before);
    source.establish(&[], None).await.unwrap();
    assert!(source.mark(&marker).await.unwrap_err().is_transient());
    assert_eq!(store.log_records(), 2, "done, though the answer was lost");
    source.mark(&marker).await.unwrap();
    assert_eq!((plan.calls("source.mark"), plan.faults()), (3, 3));
    let mut hold = plan.hold("source.mark");
    let (answer, ()) = tokio::join!(source.mark(&marker), async {
        hold.reached().await;
        assert_eq!(store.log_records(), 4, "it has not happened yet");
        hold.release();
    });
    answer.unwrap();
    assert_eq!(store.log_records(), 6);
}

#[tokio::test]
async fn chance_comes_from_the_seed() {
    let faults_of = |seed: u64| async move {
        let plan = Arc::new(FaultPlan::new(seed).reject(0.2).lose_answers(0.2).only("target.lease"));
        let target = faults::target(memory::target(&store()), &plan);
        let mut failed = Vec::new();
        for _ in 0..50 {
            failed.push(target.lease(&task::name("t")).await.is_err());
            target.traces(&task::name("t")).await.unwrap();
        }
        failed
    };
    let first = faults_of(1).await;
    assert_eq!(first, faults_of(1).await);
    assert_ne!(first, faults_of(2).await);
    assert!((5..40).contains(&first.iter().filter(|failed| **failed).count()));
}
