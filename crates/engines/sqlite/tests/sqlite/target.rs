//! Lease, ledger, apply, schema steps.

use std::sync::Arc;

use bytes::Bytes;
use godwit_model::*;

use crate::world::{World, rows_of};

pub fn holder(pid: u32) -> Holder {
    Holder { host: "h".into(), boot: "b".into(), pid, started: u64::MAX }
}

/// The lease, taken by whoever asks.
pub async fn leased(target: &dyn Target) -> Lease {
    let task = TaskName::parse("shop").unwrap();
    target.install().await.unwrap();
    let seen = target.lease(&task).await.unwrap();
    let record = target.take_lease(&task, &holder(1), seen.as_ref()).await.unwrap().unwrap();
    Lease { task, epoch: record.epoch }
}

const SCHEMA: &str = "
    CREATE TABLE a (id INTEGER PRIMARY KEY, u TEXT UNIQUE, v);
    CREATE TABLE k (v, w);
    CREATE TABLE n (name TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, v INTEGER) STRICT;
";

/// A world whose target has the tables, with a lease.
async fn ready() -> (World, Arc<dyn Target>, Lease, Vec<Arc<TableMapping>>) {
    let mut world = World::new(SCHEMA);
    world.task.schema.create = Create::All;
    let target = world.target();
    let lease = leased(&*target).await;
    world.target_user().execute_batch(SCHEMA).unwrap();
    let mappings = world.mappings().await;
    (world, target, lease, mappings)
}

fn write(mapping: &Arc<TableMapping>, kind: WriteKind, columns: &[usize], rows: &[&[Value]], strict: bool) -> TableWrite {
    let mut batch = RowBatch::new(rows.first().map_or(1, |row| row.len()));
    rows.iter().for_each(|row| batch.push(row.iter().cloned()));
    TableWrite { mapping: mapping.clone(), kind, columns: columns.to_vec(), rows: batch, strict }
}

fn group(writes: Vec<TableWrite>) -> Group {
    Group { writes, origin: "test".into() }
}

fn checkpoint(number: u64) -> Checkpoint {
    Checkpoint { position: Position::from(number.to_string()), log: LogId(u128::MAX - 5), sequence: Sequence(number) }
}

fn int(number: i64) -> Value {
    Value::Int(number)
}

#[tokio::test]
async fn nothing_is_created_before_install() {
    let world = World::new(SCHEMA);
    let target = world.target();
    let name = &world.task.name;
    assert!(target.lease(name).await.unwrap().is_none() && target.ledger(name).await.unwrap().is_empty());
    assert!(target.present(&[TableName::new("main", "a")]).await.unwrap().is_empty());
    assert!(target.traces(name).await.unwrap().is_empty());
    target.remove_traces(name).await.unwrap();
    assert!(!world.path("target.db").exists());
    target.install().await.unwrap();
    target.install().await.unwrap();
    assert!(target.lease(name).await.unwrap().is_none());
    target.remove_traces(name).await.unwrap();
    let left: i64 = world.target_user().query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_lease_goes_to_one_and_fences_the_other() {
    let (_world, target, old, mappings) = ready().await;
    let task = old.task.clone();
    let seen = target.lease(&task).await.unwrap().unwrap();
    assert_eq!(seen.holder, Some(holder(1)));
    assert!(target.take_lease(&task, &holder(2), None).await.unwrap().is_none());
    target.renew(&old).await.unwrap();
    assert!(target.take_lease(&task, &holder(2), Some(&seen)).await.unwrap().is_none(), "the counter moved");
    let mut applier = target.applier(&old, &mappings).await.unwrap();
    let seen = target.lease(&task).await.unwrap().unwrap();
    let new = target.take_lease(&task, &holder(2), Some(&seen)).await.unwrap().unwrap();
    assert_eq!(new.epoch, old.epoch + 1);
    let entry = Entry { key: "e".into(), value: Bytes::from_static(b"v") };
    let item = SchemaItem { id: "T".into(), stage: Stage::BeforeLoad, table: None, sql: vec!["CREATE TABLE z (a)".into()] };
    for lost in [
        target.renew(&old).await.err(),
        target.record(&old, std::slice::from_ref(&entry)).await.err(),
        target.perform(&old, &[&item], std::slice::from_ref(&entry)).await.err(),
        target.empty(&old, &[], true, std::slice::from_ref(&entry)).await.err(),
        target.release(&old).await.err(),
        applier.apply(&group(vec![])).await.err(),
        applier.commit(None, &checkpoint(1), &[]).await.err(),
    ] {
        assert!(lost.unwrap().is(&codes::LEASE_LOST));
    }
    assert!(target.ledger(&task).await.unwrap().is_empty());
    let new = Lease { task: task.clone(), epoch: new.epoch };
    target.release(&new).await.unwrap();
    assert_eq!(target.lease(&task).await.unwrap().unwrap().holder, None);
}

#[tokio::test]
async fn a_commit_moves_the_checkpoint_only_from_where_it_stands() {
    let (world, target, lease, mappings) = ready().await;
    let a = &mappings[0];
    let mut applier = target.applier(&lease, &mappings).await.unwrap();
    let insert = |id| group(vec![write(a, WriteKind::Insert, &[0, 1, 2], &[&[int(id), Value::Null, Value::text("")]], true)]);
    assert!(matches!(applier.apply(&insert(1)).await.unwrap(), Applied::AsExpected));
    let entry = Entry { key: "p1".into(), value: Bytes::from_static(b"x") };
    applier.commit(None, &checkpoint(10), std::slice::from_ref(&entry)).await.unwrap();
    applier.durable().await.unwrap();
    assert_eq!(target.lease(&lease.task).await.unwrap().unwrap().checkpoint, Some(checkpoint(10)));
    assert_eq!(target.ledger(&lease.task).await.unwrap(), std::slice::from_ref(&entry));
    applier.apply(&insert(2)).await.unwrap();
    assert!(applier.commit(None, &checkpoint(11), &[]).await.unwrap_err().is(&codes::TARGET_CHANGED));
    applier.apply(&insert(3)).await.unwrap();
    applier.abandon().await.unwrap();
    applier.apply(&insert(4)).await.unwrap();
    drop(applier);
    let mut applier = target.applier(&lease, &mappings).await.unwrap();
    applier.apply(&insert(5)).await.unwrap();
    let gone = Entry { key: "p1".into(), value: Bytes::new() };
    applier.commit(Some(&checkpoint(10)), &checkpoint(12), &[gone]).await.unwrap();
    assert!(target.ledger(&lease.task).await.unwrap().is_empty());
    assert_eq!(rows_of(&world.target_user(), "a", "id"), ["[Int(1)]", "[Int(5)]"]);
}

#[tokio::test]
async fn counts_are_compared_and_a_group_leaves_nothing() {
    let (world, target, lease, mappings) = ready().await;
    let (a, k) = (&mappings[0], &mappings[1]);
    let mut applier = target.applier(&lease, &mappings).await.unwrap();
    let first = write(a, WriteKind::Insert, &[0, 1, 2], &[&[int(1), Value::text("u"), int(1)], &[int(2), Value::Null, int(1)]], true);
    applier.apply(&group(vec![first.clone()])).await.unwrap();
    let other = write(a, WriteKind::Insert, &[0, 1], &[&[int(3), Value::Null]], true);
    for (bad, touched) in [
        (write(a, WriteKind::Update, &[2], &[&[int(1), int(5)], &[int(9), int(5)]], true), 1),
        (write(a, WriteKind::Delete, &[], &[&[int(8)]], true), 0),
        (write(k, WriteKind::DeleteWhole, &[0, 1], &[&[int(8), Value::Null]], true), 0),
        (write(k, WriteKind::UpdateWhole, &[0, 1], &[&[int(8), Value::Null, int(9), int(9)]], true), 0),
    ] {
        let answer = applier.apply(&group(vec![other.clone(), bad.clone()])).await.unwrap();
        let Applied::Unexpected(mismatch) = answer else { panic!("{answer:?}") };
        assert_eq!(mismatch, Mismatch { write: 1, expected: bad.rows.len() as u64, touched });
        let lenient = TableWrite { strict: false, ..bad };
        assert!(matches!(applier.apply(&group(vec![lenient])).await.unwrap(), Applied::AsExpected));
    }
    for refused in [first, write(a, WriteKind::Insert, &[0, 1], &[&[int(7), Value::text("u")]], false)] {
        let Applied::Refused(error) = applier.apply(&group(vec![other.clone(), refused])).await.unwrap() else { panic!() };
        assert!(error.is(&codes::CONFLICT) && error.detail_text().unwrap().contains("id = Int("));
    }
    let wrong_type = write(&mappings[2], WriteKind::Insert, &[0, 1], &[&[Value::text("x"), Value::text("y")]], true);
    let Applied::Refused(error) = applier.apply(&group(vec![wrong_type])).await.unwrap() else { panic!() };
    assert!(error.is(&codes::VALUE_REFUSED));
    let unsent = write(a, WriteKind::Insert, &[0, 1], &[&[int(77), Value::Unsent]], true);
    assert!(applier.apply(&group(vec![unsent])).await.is_err());
    applier.commit(None, &checkpoint(1), &[]).await.unwrap();
    assert_eq!(rows_of(&world.target_user(), "a", "id, v"), ["[Int(1), Int(5)]", "[Int(2), Int(1)]"]);
}

#[tokio::test]
async fn every_kind_of_write_does_what_it_says() {
    let (world, target, lease, mappings) = ready().await;
    let (a, k, n) = (&mappings[0], &mappings[1], &mappings[2]);
    let mut applier = target.applier(&lease, &mappings).await.unwrap();
    let one = Value::Float(1.0);
    let writes = vec![
        write(a, WriteKind::Upsert, &[0, 1, 2], &[&[int(1), Value::text("x"), int(1)], &[int(2), Value::text("y"), int(2)]], true),
        write(a, WriteKind::Upsert, &[0, 2], &[&[int(1), int(9)]], true),
        write(a, WriteKind::Upsert, &[0], &[&[int(2)], &[int(3)]], true),
        // The key changes.
        write(a, WriteKind::Update, &[0, 2], &[&[int(2), int(20), Value::Null]], true),
        write(n, WriteKind::Upsert, &[0, 1], &[&[Value::text("a"), int(1)]], true),
        write(n, WriteKind::Upsert, &[0, 1], &[&[Value::text("A"), int(2)]], true),
        write(n, WriteKind::Update, &[1], &[&[Value::text("a"), int(3)]], true),
        write(
            k,
            WriteKind::Insert,
            &[0, 1],
            &[&[int(1), Value::Null], &[int(1), Value::Null], &[one.clone(), Value::Null], &[int(4), int(4)]],
            true,
        ),
        // One of the two equal rows, and not the one that only compares as equal.
        write(k, WriteKind::DeleteWhole, &[0, 1], &[&[int(1), Value::Null]], true),
        write(k, WriteKind::UpdateWhole, &[0, 1], &[&[one, Value::Null, Value::text(""), int(5)]], true),
    ];
    let answer = applier.apply(&group(writes)).await.unwrap();
    assert!(matches!(answer, Applied::AsExpected), "{answer:?}");
    applier.commit(None, &checkpoint(1), &[]).await.unwrap();
    let user = world.target_user();
    assert_eq!(rows_of(&user, "a", "id, v"), ["[Int(1), Int(9)]", "[Int(20), Null]", "[Int(3), Null]"]);
    assert_eq!(rows_of(&user, "n", "*"), ["[Text(b\"A\"), Int(3)]"]);
    assert_eq!(rows_of(&user, "k", "*"), ["[Int(1), Null]", "[Int(4), Int(4)]", "[Text(b\"\"), Int(5)]"]);
    applier.apply(&group(vec![write(k, WriteKind::Truncate, &[], &[], true)])).await.unwrap();
    applier.commit(Some(&checkpoint(1)), &checkpoint(2), &[]).await.unwrap();
    assert!(rows_of(&user, "k", "*").is_empty());
}

#[tokio::test]
async fn a_busy_target_is_a_transient_error() {
    let (world, target, lease, mappings) = ready().await;
    let other = world.target_user();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut applier = target.applier(&lease, &mappings).await.unwrap();
    let error = applier.apply(&group(vec![])).await.unwrap_err();
    assert!(error.is(&codes::BUSY) && error.is_transient());
    other.execute_batch("ROLLBACK").unwrap();
}

#[tokio::test]
async fn a_schema_step_and_its_entry_are_one() {
    let (world, target, lease, _) = ready().await;
    let done = Entry { key: "done".into(), value: Bytes::from_static(b"1") };
    let item = |sql: &[&str]| SchemaItem {
        id: "TABLE main.z".into(),
        stage: Stage::BeforeLoad,
        table: None,
        sql: sql.iter().map(|sql| (*sql).to_owned()).collect(),
    };
    let error = target
        .perform(&lease, &[&item(&["CREATE TABLE z (a)", "CREATE INDEX i ON nowhere (a)"])], std::slice::from_ref(&done))
        .await
        .unwrap_err();
    assert!(error.is(&codes::SERVER_REFUSED) && error.place() == Some("TABLE main.z"), "{error}");
    assert!(target.ledger(&lease.task).await.unwrap().is_empty());
    target
        .perform(
            &lease,
            &[&item(&["CREATE TABLE z (a INTEGER PRIMARY KEY AUTOINCREMENT)", "CREATE INDEX i ON z (a)"])],
            std::slice::from_ref(&done),
        )
        .await
        .unwrap();
    assert_eq!(target.ledger(&lease.task).await.unwrap(), std::slice::from_ref(&done));
    let value = |last| SequenceValue { name: TableName::new("main", "z"), last: Value::Int(last), called: true };
    target.set_sequences(&lease, &[value(41)]).await.unwrap();
    target.set_sequences(&lease, &[value(7)]).await.unwrap();
    let user = world.target_user();
    user.execute_batch("INSERT INTO z DEFAULT VALUES").unwrap();
    assert_eq!(rows_of(&user, "z", "a"), ["[Int(42)]"]);
    target.analyze(&[TableName::new("main", "z")]).await.unwrap();
    let present = target.present(&[TableName::new("main", "z"), TableName::new("main", "nope")]).await.unwrap();
    assert!(present.len() == 1 && present[0].has_rows);
    target.empty(&lease, &[TableName::new("main", "z")], false, std::slice::from_ref(&done)).await.unwrap();
    assert!(rows_of(&user, "z", "a").is_empty());
    target.empty(&lease, &[TableName::new("main", "z")], true, std::slice::from_ref(&done)).await.unwrap();
    assert!(target.present(&[TableName::new("main", "z")]).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_a_script_sets_for_its_connection_ends_with_it() {
    let (mut world, _, lease, _) = ready().await;
    world.task.schema.create = Create::File("schema.sql".into());
    let target = world.target();
    let script = target.staged("CREATE TEMP TABLE k (v, w)");
    let step = SchemaItem { id: "T".into(), stage: Stage::AfterLoad, table: None, sql: vec!["INSERT INTO k VALUES (1, 2)".into()] };
    target.perform(&lease, &script.iter().collect::<Vec<_>>(), &[]).await.unwrap();
    target.perform(&lease, &[&step], &[]).await.unwrap();
    let found: i64 = world.target_user().query_row("SELECT count(*) FROM k", [], |row| row.get(0)).unwrap();
    assert_eq!(found, 1, "it went into the script's own table");
}
