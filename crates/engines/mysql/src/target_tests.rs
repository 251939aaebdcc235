//! The target on a real server, seen by a user of its own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use godwit_model::{
    Applied, Applier, Checkpoint, ChunkEnd, ChunkMode, ChunkWrite, ChunkWritten, ColumnMapping, EndpointConfig, Entry, Error, Existing,
    Group, Holder, Lease, LeaseRecord, LoadBlock, LogId, Mismatch, Position, Result, Row, RowBatch, RowReader, SchemaItem, Sequence,
    SequenceValue, Severity, Stage, TableMapping, TableName, TableWrite, Target, TargetNeeds, TaskName, Value, WriteKind, codes,
};
use godwit_testkit::servers::{MySqlOptions, MySqlServer, MySqlVersion};
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use tokio::sync::{RwLock, RwLockReadGuard};

use crate::connect::{Endpoint, Purpose};
use crate::target::MySqlTarget;

fn lab() -> Endpoint {
    crate::lab::lab().expect("a server")
}

/// Who removes Godwit's own tables from the server is alone with it.
static GATE: RwLock<()> = RwLock::const_new(());

struct Lab {
    target: MySqlTarget,
    task: TaskName,
    lease: Lease,
    user: Conn,
    database: String,
    _gate: RwLockReadGuard<'static, ()>,
}

fn holder(pid: u32) -> Holder {
    Holder { host: "here".to_owned(), boot: "b'00t".to_owned(), pid, started: u64::MAX }
}

fn checkpoint(number: u64) -> Checkpoint {
    Checkpoint { position: Position::from(format!("position '{number}\\")), log: LogId(0xfe00 << 112), sequence: Sequence(number) }
}

fn entry(key: &str, value: &'static str) -> Entry {
    Entry { key: key.to_owned(), value: Bytes::from_static(value.as_bytes()) }
}

const ITEMS: &str = "CREATE TABLE items (id int PRIMARY KEY, name varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin, n int)";
const CODES: &str = "CREATE TABLE codes (id int PRIMARY KEY, code varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin UNIQUE)";
const BAG: &str = "CREATE TABLE bag (thing varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci, n int)";
const TEXT: &str = "varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin";

impl Lab {
    /// A fresh database and a lease of this name.
    async fn new(name: &str, tables: &[&str]) -> Self {
        let gate = GATE.read().await;
        let task = TaskName::parse(&format!("t_{name}")).unwrap();
        let target = MySqlTarget::of(lab(), task.clone());
        target.install().await.unwrap();
        let mut user = lab().connect(Purpose::Read).await.unwrap();
        let database = format!("tt_{name}");
        let mut sql = format!(
            "DROP DATABASE IF EXISTS {database}; CREATE DATABASE {database}; USE {database};
             DELETE FROM godwit.lease WHERE task = '{task}'; DELETE FROM godwit.ledger WHERE task = '{task}'"
        );
        tables.iter().for_each(|table| sql.push_str(&format!("; {table}")));
        user.query_drop(sql).await.unwrap();
        let record = target.take_lease(&task, &holder(1), None).await.unwrap().expect("nobody has it");
        let lease = Lease { task: task.clone(), epoch: record.epoch };
        Lab { target, task, lease, user, database, _gate: gate }
    }

    fn mapping(&self, table: &str, columns: &[(&str, &str)], key: &[usize], has_uniques: bool) -> Arc<TableMapping> {
        let name = TableName::new(self.database.clone(), table);
        let column = |(name, type_name): &(&str, &str)| ColumnMapping {
            source: (*name).to_owned(),
            target: (*name).to_owned(),
            type_name: (*type_name).to_owned(),
        };
        Arc::new(TableMapping {
            source: name.clone(),
            target: name,
            columns: columns.iter().map(column).collect(),
            key: key.to_vec(),
            key_is_exact: true,
            has_uniques,
        })
    }

    fn items(&self) -> Arc<TableMapping> {
        self.mapping("items", &[("id", "int(11)"), ("name", TEXT), ("n", "int(11)")], &[0], false)
    }

    fn codes(&self) -> Arc<TableMapping> {
        self.mapping("codes", &[("id", "int(11)"), ("code", TEXT)], &[0], true)
    }

    fn bag(&self) -> Arc<TableMapping> {
        self.mapping("bag", &[("thing", TEXT), ("n", "int(11)")], &[], false)
    }

    /// One text of each row.
    async fn rows(&mut self, sql: &str) -> Vec<String> {
        self.user.query(sql).await.unwrap()
    }

    /// Rows as `a|b|c` in the order of their text.
    async fn all(&mut self, table: &str) -> Vec<String> {
        let columns = match table {
            "items" => "concat_ws('|', id, coalesce(name, 'NULL'), coalesce(n, 'NULL'))",
            "codes" => "concat_ws('|', id, coalesce(code, 'NULL'))",
            _ => "concat_ws('|', coalesce(thing, 'NULL'), coalesce(n, 'NULL'))",
        };
        let mut rows = self.rows(&format!("SELECT {columns} FROM {table}")).await;
        rows.sort();
        rows
    }

    async fn run(&mut self, sql: &str) {
        self.user.query_drop(sql).await.unwrap();
    }

    async fn applier(&self) -> Box<dyn Applier> {
        self.target.applier(&self.lease, &[]).await.unwrap()
    }

    async fn record(&self) -> LeaseRecord {
        self.target.lease(&self.task).await.unwrap().expect("there is a row")
    }

    async fn entries(&self) -> Vec<Entry> {
        self.target.ledger(&self.task).await.unwrap()
    }
}

fn int(number: i64) -> Value {
    Value::Int(number)
}

fn text(text: &str) -> Value {
    Value::text(text)
}

fn item(id: i64, name: &str) -> Row {
    vec![int(id), text(name), int(0)]
}

fn batch(rows: Vec<Row>) -> RowBatch {
    let mut batch = RowBatch::new(rows.first().map_or(1, Vec::len));
    rows.into_iter().for_each(|row| batch.push(row));
    batch
}

fn write(mapping: &Arc<TableMapping>, kind: WriteKind, columns: &[usize], rows: Vec<Row>) -> TableWrite {
    TableWrite { mapping: mapping.clone(), kind, columns: columns.to_vec(), rows: batch(rows), strict: true }
}

fn inserts(mapping: &Arc<TableMapping>, rows: Vec<Row>) -> TableWrite {
    let all: Vec<usize> = (0..mapping.columns.len()).collect();
    write(mapping, WriteKind::Insert, &all, rows)
}

async fn apply(applier: &mut dyn Applier, writes: Vec<TableWrite>) -> Applied {
    applier.apply(&Group { writes, origin: "test".to_owned() }).await.unwrap()
}

async fn applied(applier: &mut dyn Applier, writes: Vec<TableWrite>) {
    let answer = apply(applier, writes).await;
    assert!(matches!(answer, Applied::AsExpected), "{answer:?}");
}

async fn refused(applier: &mut dyn Applier, writes: Vec<TableWrite>) -> Error {
    match apply(applier, writes).await {
        Applied::Refused(error) => error,
        other => panic!("{other:?}"),
    }
}

async fn commit(applier: &mut dyn Applier, from: u64, to: u64) {
    let previous = (from > 0).then(|| checkpoint(from));
    applier.commit(previous.as_ref(), &checkpoint(to), &[]).await.unwrap();
}

/// Yields these batches, then ends as it is told.
struct Given {
    batches: VecDeque<RowBatch>,
    end: Result<ChunkEnd, ()>,
    asked: bool,
}

impl Given {
    fn new(rows: Vec<Row>) -> Self {
        let end = Ok(ChunkEnd::Valid { rows: rows.len() as u64 });
        let batches = rows.chunks(2).map(|rows| batch(rows.to_vec())).collect();
        Given { batches, end, asked: false }
    }
}

#[async_trait]
impl RowReader for Given {
    async fn next(&mut self) -> Result<Option<LoadBlock>> {
        Ok(self.batches.pop_front().map(LoadBlock::Rows))
    }

    async fn finish(&mut self) -> Result<ChunkEnd> {
        self.asked = true;
        self.end.map_err(|()| Error::new(&codes::CONNECTION_LOST, "the source went away"))
    }
}

async fn write_chunk(lab: &Lab, mapping: &TableMapping, mode: ChunkMode, rows: &mut Given) -> Result<ChunkWritten> {
    lab.target.write_chunk(&lab.lease, &ChunkWrite { mapping, mode, done: &entry("chunk/1", "done") }, rows).await
}

#[tokio::test]
async fn installing_side_by_side_and_again_is_fine() {
    let _alone = GATE.write().await;
    let mut user = lab().connect(Purpose::Read).await.unwrap();
    user.query_drop("DROP DATABASE IF EXISTS godwit").await.unwrap();
    let targets: Vec<MySqlTarget> =
        (0..6).map(|number| MySqlTarget::of(lab(), TaskName::parse(&format!("t_install_{number}")).unwrap())).collect();
    let task = TaskName::parse("t_install_0").unwrap();
    assert_eq!(targets[0].lease(&task).await.unwrap(), None);
    assert_eq!(targets[0].ledger(&task).await.unwrap(), []);
    for answer in futures_util::future::join_all(targets.iter().map(|target| target.install())).await {
        answer.unwrap();
    }
    targets[0].install().await.unwrap();
    assert_eq!(targets[0].lease(&task).await.unwrap(), None);
    // the last task takes the tables with it, one before does not
    targets[0].take_lease(&task, &holder(1), None).await.unwrap().unwrap();
    let other = TaskName::parse("t_install_1").unwrap();
    targets[1].take_lease(&other, &holder(1), None).await.unwrap().unwrap();
    targets[1].remove_traces(&other).await.unwrap();
    assert_eq!(targets[1].lease(&other).await.unwrap(), None);
    assert!(!targets[0].traces(&task).await.unwrap().is_empty());
    targets[0].remove_traces(&task).await.unwrap();
    targets[0].remove_traces(&task).await.unwrap();
    assert_eq!(targets[0].traces(&task).await.unwrap(), []);
    let left: u64 =
        user.query_first("SELECT count(*) FROM information_schema.schemata WHERE schema_name = 'godwit'").await.unwrap().unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_lease_is_taken_once_and_taken_over() {
    let lab = Lab::new("lease", &[]).await;
    let first = lab.record().await;
    assert_eq!((first.holder.clone(), first.checkpoint.clone()), (Some(holder(1)), None));
    let take = async |pid, seen: Option<&LeaseRecord>| lab.target.take_lease(&lab.task, &holder(pid), seen).await.unwrap();
    assert!(take(2, None).await.is_none(), "the row is not missing");
    let second = take(2, Some(&first)).await.expect("nobody was faster");
    assert_eq!((second.epoch, second.holder.clone()), (first.epoch + 1, Some(holder(2))));
    assert!(take(3, Some(&first)).await.is_none(), "someone was faster");
    assert_eq!(lab.record().await, second);
    let lease = Lease { task: lab.task.clone(), epoch: second.epoch };
    lab.target.renew(&lease).await.unwrap();
    assert!(take(3, Some(&second)).await.is_none(), "the holder moved meanwhile");
    assert!(lab.target.renew(&lab.lease).await.unwrap_err().is(&codes::LEASE_LOST));
    assert!(lab.target.release(&lab.lease).await.unwrap_err().is(&codes::LEASE_LOST));
    lab.target.release(&lease).await.unwrap();
    let released = lab.record().await;
    assert_eq!((released.holder, released.epoch), (None, second.epoch));
}

#[tokio::test]
async fn an_old_epoch_writes_nothing() {
    let mut lab = Lab::new("epoch", &[ITEMS]).await;
    let items = lab.items();
    lab.run("INSERT INTO items VALUES (9, 'user', 0)").await;
    let mut applier = lab.applier().await;
    let seen = lab.record().await;
    // taking the lease would end this target's sessions: they have to find out by themselves
    lab.run(&format!("UPDATE godwit.lease SET epoch = epoch + 1 WHERE task = '{}'", lab.task)).await;
    let lost = |error: Error| assert!(error.is(&codes::LEASE_LOST), "{error}");
    applied(&mut *applier, vec![inserts(&items, vec![item(1, "old")])]).await;
    lost(applier.commit(None, &checkpoint(1), &[entry("a", "1")]).await.unwrap_err());
    lost(lab.target.record(&lab.lease, &[entry("a", "1")]).await.unwrap_err());
    let names = [items.target.clone()];
    lost(lab.target.empty(&lab.lease, &names, false, &[entry("a", "1")]).await.unwrap_err());
    lost(lab.target.empty(&lab.lease, &names, true, &[entry("a", "1")]).await.unwrap_err());
    lost(write_chunk(&lab, &items, ChunkMode::Insert, &mut Given::new(vec![item(2, "old")])).await.unwrap_err());
    let step =
        SchemaItem { id: "X".into(), stage: Stage::Index, table: None, sql: vec![format!("CREATE TABLE {}.x (a int)", lab.database)] };
    lost(lab.target.perform(&lab.lease, &[&step], &[entry("a", "1")]).await.unwrap_err());
    assert_eq!(lab.all("items").await, ["9|user|0"]);
    assert_eq!(lab.entries().await, []);
    assert!(lab.rows("SHOW TABLES LIKE 'x'").await.is_empty());
    assert_eq!(lab.record().await.counter, seen.counter);
}

/// A process that stands still holds rows; the next holder must not wait for it, and it can commit nothing afterwards.
#[tokio::test]
async fn transactions_of_former_holders_are_ended() {
    let mut lab = Lab::new("former", &[ITEMS]).await;
    let items = lab.items();
    lab.run("INSERT INTO items VALUES (1, 'user', 0)").await;
    let mut old = lab.applier().await;
    applied(&mut *old, vec![write(&items, WriteKind::Update, &[1], vec![vec![int(1), text("old")]])]).await;
    let next = MySqlTarget::of(self::lab(), lab.task.clone());
    let seen = lab.record().await;
    let begun = Instant::now();
    let record = next.take_lease(&lab.task, &holder(2), Some(&seen)).await.unwrap().unwrap();
    let lease = Lease { task: lab.task.clone(), epoch: record.epoch };
    let mut new = next.applier(&lease, &[]).await.unwrap();
    applied(&mut *new, vec![write(&items, WriteKind::Update, &[1], vec![vec![int(1), text("new")]])]).await;
    commit(&mut *new, 0, 1).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let error = old.commit(None, &checkpoint(7), &[]).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(lab.all("items").await, ["1|new|0"]);
    assert_eq!(lab.record().await.checkpoint, Some(checkpoint(1)));
}

#[tokio::test]
async fn the_ledger_reads_back_byte_by_byte() {
    let lab = Lab::new("ledger", &[]).await;
    let binary = Entry { key: "chunk/3/17 'é\\".to_owned(), value: Bytes::from((0..=255).collect::<Vec<u8>>()) };
    let spaced = [entry("k", "1"), entry("k ", "2"), entry("K", "3")];
    lab.target.record(&lab.lease, &[&spaced[..], std::slice::from_ref(&binary)].concat()).await.unwrap();
    assert_eq!(lab.entries().await, [spaced[2].clone(), binary.clone(), spaced[0].clone(), spaced[1].clone()]);
    lab.target.record(&lab.lease, &[entry("k", ""), entry("k ", "4"), entry(&binary.key, ""), entry("k ", "5")]).await.unwrap();
    assert_eq!(lab.entries().await, [spaced[2].clone(), entry("k ", "5")]);
    // more than a message holds: all or nothing
    let many: Vec<Entry> = (0..3000).map(|number| Entry { key: format!("many/{number:05}"), value: Bytes::from(vec![7; 1000]) }).collect();
    lab.target.record(&lab.lease, &many).await.unwrap();
    assert_eq!(lab.entries().await.len(), 3002);
    let gone: Vec<Entry> = many.iter().map(|entry| Entry { key: entry.key.clone(), value: Bytes::new() }).collect();
    let old = Lease { task: lab.task.clone(), epoch: 99 };
    assert!(lab.target.record(&old, &gone).await.unwrap_err().is(&codes::LEASE_LOST));
    assert_eq!(lab.entries().await.len(), 3002);
    lab.target.record(&lab.lease, &gone).await.unwrap();
    assert_eq!(lab.entries().await.len(), 2);
}

#[tokio::test]
async fn a_chunk_and_its_mark_are_one() {
    let mut lab = Lab::new("chunk", &[ITEMS]).await;
    let items = lab.items();
    let before = lab.record().await.counter;
    let rows = vec![item(1, "a"), item(2, ""), vec![int(3), Value::Null, Value::Null]];
    let mut given = Given::new(rows.clone());
    assert_eq!(write_chunk(&lab, &items, ChunkMode::Insert, &mut given).await.unwrap(), ChunkWritten::Written { rows: 3 });
    assert!(given.asked);
    assert_eq!(lab.all("items").await, ["1|a|0", "2||0", "3|NULL|NULL"]);
    assert_eq!(lab.entries().await, [entry("chunk/1", "done")]);
    assert_eq!(lab.record().await.counter, before + 1);
    lab.run("DELETE FROM items; INSERT INTO items VALUES (2, 'user', 5)").await;
    lab.target.record(&lab.lease, &[entry("chunk/1", "")]).await.unwrap();
    let error = write_chunk(&lab, &items, ChunkMode::Insert, &mut Given::new(rows.clone())).await.unwrap_err();
    assert!(error.is(&codes::KEY_EXISTS), "{error}");
    let mut stale = Given::new(rows.clone());
    stale.end = Ok(ChunkEnd::Stale);
    assert_eq!(write_chunk(&lab, &items, ChunkMode::Upsert, &mut stale).await.unwrap(), ChunkWritten::Stale);
    let mut broken = Given::new(rows.clone());
    broken.end = Err(());
    assert!(write_chunk(&lab, &items, ChunkMode::Upsert, &mut broken).await.unwrap_err().is(&codes::CONNECTION_LOST));
    assert_eq!(lab.all("items").await, ["2|user|5"]);
    assert_eq!(lab.entries().await, []);
    let written = write_chunk(&lab, &items, ChunkMode::Upsert, &mut Given::new(rows)).await.unwrap();
    assert_eq!(written, ChunkWritten::Written { rows: 3 });
    assert_eq!(lab.all("items").await, ["1|a|0", "2||0", "3|NULL|NULL"]);
    let written = write_chunk(&lab, &items, ChunkMode::Insert, &mut Given::new(Vec::new())).await.unwrap();
    assert_eq!(written, ChunkWritten::Written { rows: 0 });
}

#[tokio::test]
async fn chunks_are_written_side_by_side() {
    let mut lab = Lab::new("chunks", &[ITEMS]).await;
    let items = lab.items();
    let one = async |from: i64| {
        let mut rows = Given::new((from..from + 40).map(|id| item(id, "n")).collect());
        let done = entry(&format!("chunk/{from}"), "done");
        lab.target.write_chunk(&lab.lease, &ChunkWrite { mapping: &items, mode: ChunkMode::Insert, done: &done }, &mut rows).await
    };
    let answers = tokio::join!(one(0), one(100), one(200), one(300));
    for answer in [answers.0, answers.1, answers.2, answers.3] {
        assert_eq!(answer.unwrap(), ChunkWritten::Written { rows: 40 });
    }
    assert_eq!(lab.all("items").await.len(), 160);
    assert_eq!(lab.entries().await.len(), 4);
}

#[tokio::test]
async fn changes_are_applied_and_counted() {
    let mut lab = Lab::new("apply", &[ITEMS]).await;
    let items = lab.items();
    lab.run("INSERT INTO items VALUES (1, 'user', 0), (2, 'user', 0), (3, 'user', 0)").await;
    let update =
        |names: &[(i64, &str)]| write(&items, WriteKind::Update, &[1], names.iter().map(|(id, name)| vec![int(*id), text(name)]).collect());
    let delete = |ids: &[i64]| write(&items, WriteKind::Delete, &[], ids.iter().map(|id| vec![int(*id)]).collect());
    let mut applier = lab.applier().await;
    applied(&mut *applier, vec![delete(&[1]), update(&[(2, "b"), (3, "user")]), inserts(&items, vec![item(1, "again"), item(4, "d")])])
        .await;
    // found and equal counts as touched
    applied(&mut *applier, vec![update(&[(2, "b"), (3, "c")]), write(&items, WriteKind::Update, &[], vec![vec![int(4)]])]).await;
    assert_eq!(lab.all("items").await, ["1|user|0", "2|user|0", "3|user|0"], "nothing shows before the commit");
    commit(&mut *applier, 0, 1).await;
    assert_eq!(lab.all("items").await, ["1|again|0", "2|b|0", "3|c|0", "4|d|0"]);
    let answer = apply(&mut *applier, vec![inserts(&items, vec![item(6, "gone")]), update(&[(1, "gone"), (9, "gone")])]).await;
    assert!(matches!(&answer, Applied::Unexpected(Mismatch { write: 1, expected: 2, touched: 1 })), "{answer:?}");
    applied(&mut *applier, vec![inserts(&items, vec![item(5, "kept")])]).await;
    let answer = apply(&mut *applier, vec![delete(&[2, 8, 9])]).await;
    assert!(matches!(&answer, Applied::Unexpected(Mismatch { write: 0, expected: 3, touched: 1 })), "{answer:?}");
    let mut lenient = delete(&[3, 7]);
    lenient.strict = false;
    applied(&mut *applier, vec![lenient]).await;
    let error =
        refused(&mut *applier, vec![inserts(&items, vec![item(7, "gone")]), inserts(&items, vec![item(8, "gone"), item(1, "there")])])
            .await;
    assert!(error.is(&codes::CONFLICT), "{error}");
    assert!(error.place().is_some_and(|place| place.contains("items")) && !error.what().contains("'1'"), "{error}");
    let error = refused(&mut *applier, vec![inserts(&items, vec![item(7, "longer than twenty characters")])]).await;
    assert!(error.is(&codes::VALUE_REFUSED), "{error}");
    // what cannot even be said is refused before anything is sent: the group before stays
    let mut unsayable = inserts(&items, vec![vec![Value::Null, text("x"), int(1)]]);
    let error = refused(&mut *applier, vec![unsayable.clone()]).await;
    assert!(error.is(&codes::VALUE_REFUSED), "{error}");
    commit(&mut *applier, 1, 2).await;
    assert_eq!(lab.all("items").await, ["1|again|0", "2|b|0", "4|d|0", "5|kept|0"]);
    unsayable.rows = batch(vec![item(8, "first")]);
    let null = inserts(&items, vec![vec![Value::Null, text("x"), int(1)]]);
    assert!(refused(&mut *applier, vec![unsayable.clone(), null]).await.is(&codes::VALUE_REFUSED));
    applied(&mut *applier, vec![unsayable]).await;
    applier.abandon().await.unwrap();
    applier.abandon().await.unwrap();
    applied(&mut *applier, vec![write(&items, WriteKind::Truncate, &[], vec![]), inserts(&items, vec![item(1, "after")])]).await;
    commit(&mut *applier, 2, 3).await;
    applier.durable().await.unwrap();
    assert_eq!(lab.all("items").await, ["1|after|0"]);
    assert_eq!(lab.record().await.checkpoint, Some(checkpoint(3)));
}

#[tokio::test]
async fn the_checkpoint_moves_only_from_the_one_before() {
    let mut lab = Lab::new("moves", &[ITEMS]).await;
    let items = lab.items();
    let mut applier = lab.applier().await;
    commit(&mut *applier, 0, 1).await;
    commit(&mut *applier, 1, 2).await;
    for (id, wrong) in [(1, None), (2, Some(checkpoint(1))), (3, Some(checkpoint(9)))] {
        applied(&mut *applier, vec![inserts(&items, vec![item(id, "gone")])]).await;
        let error = applier.commit(wrong.as_ref(), &checkpoint(7), &[entry("a", "1")]).await.unwrap_err();
        assert!(error.is(&codes::TARGET_CHANGED), "{error}");
    }
    assert_eq!(lab.record().await.checkpoint, Some(checkpoint(2)));
    assert_eq!(lab.all("items").await, Vec::<String>::new());
    assert_eq!(lab.entries().await, []);
    applied(&mut *applier, vec![inserts(&items, vec![item(4, "kept")])]).await;
    applier.commit(Some(&checkpoint(2)), &checkpoint(3), &[entry("a", "1")]).await.unwrap();
    assert_eq!(lab.all("items").await, ["4|kept|0"]);
    assert_eq!(lab.entries().await, [entry("a", "1")]);
}

#[tokio::test]
async fn rows_without_a_key_are_told_apart_by_their_bytes() {
    let mut lab = Lab::new("bag", &[BAG]).await;
    let bag = lab.bag();
    let thing = |name: &str, n: i64| vec![text(name), int(n)];
    let nothing = || vec![Value::Null, Value::Null];
    let mut applier = lab.applier().await;
    let rows = vec![thing("a", 1), thing("a", 1), thing("A", 1), thing("a ", 1), thing("é", 1), thing("e", 1), nothing(), nothing()];
    applied(&mut *applier, vec![inserts(&bag, rows)]).await;
    let whole = |kind, rows| write(&bag, kind, &[0, 1], rows);
    applied(
        &mut *applier,
        vec![
            whole(WriteKind::DeleteWhole, vec![thing("A", 1), nothing(), thing("e", 1)]),
            whole(WriteKind::UpdateWhole, vec![[thing("a", 1), thing("b", 2)].concat(), [nothing(), thing("was null", 3)].concat()]),
            whole(WriteKind::UpdateWhole, vec![[thing("a ", 1), nothing()].concat()]),
        ],
    )
    .await;
    commit(&mut *applier, 0, 1).await;
    assert_eq!(lab.all("bag").await, ["NULL|NULL", "a|1", "b|2", "was null|3", "é|1"]);
    let answer = apply(&mut *applier, vec![whole(WriteKind::DeleteWhole, vec![thing("a", 1), thing("a", 1)])]).await;
    assert!(matches!(&answer, Applied::Unexpected(Mismatch { write: 0, expected: 2, touched: 1 })), "{answer:?}");
}

#[tokio::test]
async fn keys_and_unique_values_may_move() {
    let mut lab = Lab::new("move", &[CODES]).await;
    let codes_table = lab.codes();
    let row = |id: i64, code: &str| vec![int(id), text(code)];
    lab.run("INSERT INTO codes VALUES (1, 'a'), (2, 'b'), (3, NULL), (4, NULL), (5, 'e')").await;
    let mut applier = lab.applier().await;
    // a key that changes
    let moved = write(&codes_table, WriteKind::Update, &[0, 1], vec![vec![int(5), int(50), text("e")]]);
    applied(&mut *applier, vec![moved]).await;
    // a swap in place is refused, as deletes and inserts (the pipeline's order) it is taken
    let swap = write(&codes_table, WriteKind::Update, &[1], vec![row(1, "b"), row(2, "a")]);
    let error = refused(&mut *applier, vec![swap]).await;
    assert!(error.is(&codes::CONFLICT), "{error}");
    let delete = write(&codes_table, WriteKind::Delete, &[], vec![vec![int(1)], vec![int(2)]]);
    applied(&mut *applier, vec![delete, inserts(&codes_table, vec![row(1, "b"), row(2, "a")])]).await;
    commit(&mut *applier, 0, 1).await;
    assert_eq!(lab.all("codes").await, ["1|b", "2|a", "3|NULL", "4|NULL", "50|e"]);
    // an upsert of whole rows takes a swap too, and never another row for its own
    let upsert = |rows| write(&codes_table, WriteKind::Upsert, &[0, 1], rows);
    applied(&mut *applier, vec![upsert(vec![row(1, "a"), row(2, "b"), row(6, "f")])]).await;
    let error = refused(&mut *applier, vec![upsert(vec![row(7, "a")])]).await;
    assert!(error.is(&codes::CONFLICT), "{error}");
    commit(&mut *applier, 1, 2).await;
    assert_eq!(lab.all("codes").await, ["1|a", "2|b", "3|NULL", "4|NULL", "50|e", "6|f"]);
}

/// An index that a person made at the target counts as well: the mapping does not know it.
#[tokio::test]
async fn an_upsert_never_overwrites_another_row() {
    let mut lab = Lab::new("upsert", &[ITEMS]).await;
    let items = lab.items();
    lab.run("INSERT INTO items VALUES (1, 'a', 7), (2, 'b', 7)").await;
    let mut applier = lab.applier().await;
    let upsert = |rows| write(&items, WriteKind::Upsert, &[0, 1], rows);
    let row = |id: i64, name: &str| vec![int(id), text(name)];
    applied(&mut *applier, vec![upsert(vec![row(1, "over"), row(2, "b"), row(3, "new")])]).await;
    commit(&mut *applier, 0, 1).await;
    assert_eq!(lab.all("items").await, ["1|over|7", "2|b|7", "3|new|NULL"]);
    drop(applier);
    lab.run("CREATE UNIQUE INDEX by_name ON items (name); ALTER TABLE items ADD own int DEFAULT 5").await;
    lab.run("UPDATE items SET own = 6 WHERE id = 1").await;
    let mut applier = lab.applier().await;
    let error = refused(&mut *applier, vec![upsert(vec![row(4, "over")])]).await;
    assert!(error.is(&codes::CONFLICT), "{error}");
    applied(&mut *applier, vec![upsert(vec![row(1, "once more"), row(4, "d"), row(2, "b")])]).await;
    commit(&mut *applier, 1, 2).await;
    assert_eq!(lab.all("items").await, ["1|once more|7", "2|b|7", "3|new|NULL", "4|d|NULL"]);
    assert_eq!(lab.rows("SELECT own FROM items ORDER BY id").await, ["6", "5", "5", "5"], "the target's own column stays");
}

#[tokio::test]
async fn nothing_changes_by_itself() {
    let table = "CREATE TABLE self (id int PRIMARY KEY AUTO_INCREMENT, name varchar(20) CHARACTER SET utf8mb4, at timestamp NOT NULL DEFAULT '2001-01-01' ON UPDATE CURRENT_TIMESTAMP,
        d decimal(10,2), u timestamp(3) NULL ON UPDATE CURRENT_TIMESTAMP(3))";
    let mut lab = Lab::new("still", &[table]).await;
    let mapping = lab.mapping(
        "self",
        &[("id", "int(11)"), ("name", TEXT), ("at", "timestamp"), ("d", "decimal(10,2)"), ("u", "timestamp(3)")],
        &[0],
        false,
    );
    lab.run("INSERT INTO self VALUES (1, 'a', '2002-02-02', 1.5, NULL), (2, 'b', '2002-02-02', 1.5, NULL)").await;
    let mut applier = lab.applier().await;
    applied(
        &mut *applier,
        vec![
            write(&mapping, WriteKind::Update, &[1], vec![vec![int(1), text("c")]]),
            write(&mapping, WriteKind::Upsert, &[0, 1], vec![vec![int(2), text("d")]]),
        ],
    )
    .await;
    for null in [0, 2] {
        let mut row = vec![int(7), text("x"), Value::Native(Bytes::from_static(b"2003-03-03 00:00:00")), Value::Null, Value::Null];
        row[null] = Value::Null;
        let error = refused(&mut *applier, vec![inserts(&mapping, vec![row])]).await;
        assert!(error.is(&codes::VALUE_REFUSED), "{error}");
    }
    let finer = vec![vec![int(1), Value::Native(Bytes::from_static(b"1.239"))], vec![int(2), Value::Native(Bytes::from_static(b"1.50"))]];
    let error = refused(&mut *applier, vec![write(&mapping, WriteKind::Update, &[3], finer)]).await;
    assert!(error.is(&codes::VALUE_REFUSED), "a decimal was rounded: {error}");
    commit(&mut *applier, 0, 1).await;
    let rows = lab.rows("SELECT concat_ws('|', id, name, at, d, coalesce(u, 'NULL')) FROM self ORDER BY id").await;
    assert_eq!(rows, ["1|c|2002-02-02 00:00:00|1.50|NULL", "2|d|2002-02-02 00:00:00|1.50|NULL"]);
}

#[tokio::test]
async fn many_and_large_rows_are_cut_into_messages() {
    let big = "CREATE TABLE big (id int, part int, body longblob, PRIMARY KEY (id, part))";
    let mut lab = Lab::new("big", &[big]).await;
    let mapping = lab.mapping("big", &[("id", "int(11)"), ("part", "int(11)"), ("body", "longblob")], &[0, 1], false);
    let body = |id: i64, size: usize| Value::Bytes(Bytes::from(vec![id as u8; size]));
    let rows: Vec<Row> = (0..1500).map(|id| vec![int(id), int(1), body(id, 1500)]).collect();
    let mut applier = lab.applier().await;
    applied(&mut *applier, vec![inserts(&mapping, rows), inserts(&mapping, vec![vec![int(5000), int(1), body(1, 3 << 20)]])]).await;
    let updates: Vec<Row> = (0..1500).map(|id| vec![int(id), int(1), body(id + 1, 1000)]).collect();
    applied(&mut *applier, vec![write(&mapping, WriteKind::Update, &[2], updates)]).await;
    let error = refused(&mut *applier, vec![inserts(&mapping, vec![vec![int(6000), int(1), body(1, 9 << 20)]])]).await;
    assert!(error.is(&codes::VALUE_TOO_LARGE), "{error}");
    commit(&mut *applier, 0, 1).await;
    let sum = "SELECT concat_ws('|', count(*), sum(length(body)), sum(body = repeat(char((id + 1) % 256), 1000))) FROM big";
    assert_eq!(lab.rows(sum).await, [format!("1501|{}|1500", 1_500_000 + (3 << 20))]);
    let deletes: Vec<Row> = (0..1500).map(|id| vec![int(id), int(1)]).collect();
    applied(&mut *applier, vec![write(&mapping, WriteKind::Delete, &[], deletes)]).await;
    commit(&mut *applier, 1, 2).await;
    assert_eq!(lab.rows("SELECT count(*) FROM big").await, ["1"]);
}

/// A deadlock rolls back all of the transaction, while the session goes on as if nothing were.
#[tokio::test]
async fn nothing_goes_on_after_a_deadlock() {
    let mut lab = Lab::new("deadlock", &[ITEMS]).await;
    let items = lab.items();
    lab.run("INSERT INTO items VALUES (1, 'user', 0), (2, 'user', 0)").await;
    // the server rolls back whoever wrote less
    lab.run("INSERT INTO items SELECT seq, 'user', 0 FROM seq_100_to_1100; START TRANSACTION; UPDATE items SET n = n + 1 WHERE id = 2 OR id >= 100").await;
    let mut applier = lab.applier().await;
    let update = |id: i64| write(&items, WriteKind::Update, &[1], vec![vec![int(id), text("new")]]);
    applied(&mut *applier, vec![update(1)]).await;
    let group = Group { writes: vec![update(2)], origin: String::new() };
    let (answer, crossed) = tokio::join!(applier.apply(&group), lab.user.query_drop("UPDATE items SET n = 1 WHERE id = 1"));
    crossed.unwrap();
    let error = answer.unwrap_err();
    assert!(error.is(&codes::RETRYABLE), "{error}");
    lab.run("COMMIT").await;
    let error = applier.apply(&Group { writes: vec![update(2)], origin: String::new() }).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(applier.commit(None, &checkpoint(1), &[]).await.unwrap_err().is_transient());
    assert_eq!(lab.record().await.checkpoint, None);
    assert_eq!(lab.rows("SELECT count(*) FROM items WHERE name = 'new'").await, ["0"]);
}

/// The transaction is lost and another one is begun unseen: the commit must not store its checkpoint.
#[tokio::test]
async fn a_commit_belongs_to_the_transaction_of_its_rows() {
    let mut lab = Lab::new("belongs", &[ITEMS]).await;
    let items = lab.items();
    let writer = lab.target.writers().take().await.unwrap();
    let mut applier = crate::apply::MySqlApplier::open(writer, &lab.lease).await.unwrap();
    applied(&mut applier, vec![inserts(&items, vec![item(1, "gone")])]).await;
    applier.writer().query_drop("ROLLBACK; START TRANSACTION").await.unwrap();
    let error = applier.commit(None, &checkpoint(1), &[]).await.unwrap_err();
    assert!(error.is(&codes::RETRYABLE), "{error}");
    drop(applier);
    assert_eq!(lab.record().await.checkpoint, None);
    assert_eq!(lab.all("items").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_killed_session_leaves_nothing() {
    let mut lab = Lab::new("killed", &[ITEMS]).await;
    let items = lab.items();
    let kill = "SELECT concat('KILL ', trx_mysql_thread_id) FROM information_schema.innodb_trx t JOIN information_schema.processlist p
                ON p.id = t.trx_mysql_thread_id WHERE trx_rows_modified = 1234";
    let many = || inserts(&items, (0..1234).map(|id| item(id, "gone")).collect());
    let mut applier = lab.applier().await;
    applied(&mut *applier, vec![many()]).await;
    for sql in lab.rows(kill).await {
        lab.run(&sql).await;
    }
    let error = applier.commit(None, &checkpoint(1), &[]).await.unwrap_err();
    assert!(error.is(&codes::CONNECTION_LOST), "{error}");
    drop(applier);
    assert_eq!(lab.record().await.checkpoint, None, "the lease row says that it did not happen");
    assert_eq!(lab.all("items").await, Vec::<String>::new());
    let mut applier = lab.applier().await;
    applied(&mut *applier, vec![many()]).await;
    commit(&mut *applier, 0, 1).await;
    assert_eq!(lab.all("items").await.len(), 1234);
}

/// Polls a future so many times at most, and drops it.
async fn cut<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Pending if left > 0 => Poll::Pending,
            Poll::Pending => Poll::Ready(None),
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
        }
    })
    .await
}

/// A commit that is dropped at any moment: what the lease row says afterwards is true of the rows, and stays so.
#[tokio::test]
async fn a_dropped_commit_is_settled_by_the_lease_row() {
    let mut lab = Lab::new("dropped", &[ITEMS]).await;
    let items = lab.items();
    let (mut at, mut answered, mut dropped) = (0, 0, 0);
    for round in 1..=40_u64 {
        let mut applier = lab.applier().await;
        let id = round as i64;
        applied(&mut *applier, vec![inserts(&items, vec![item(id, "n")])]).await;
        let previous = (at > 0).then(|| checkpoint(at));
        match cut(applier.commit(previous.as_ref(), &checkpoint(round), &[]), round as usize % 5).await {
            Some(answer) => answered += u32::from(answer.is_ok()),
            None => dropped += 1,
        }
        drop(applier);
        let record = lab.record().await;
        let there = !lab.rows(&format!("SELECT id FROM items WHERE id = {id}")).await.is_empty();
        assert_eq!(record.checkpoint == Some(checkpoint(round)), there, "round {round}");
        at = record.checkpoint.map_or(0, |checkpoint| checkpoint.sequence.0);
        assert!(at == round || !there);
    }
    assert!(answered > 0 && dropped > 0, "{answered} {dropped}");
    let numbers: Vec<String> = lab.all("items").await;
    assert!(numbers.len() < 40, "what was never polled was committed");
}

fn step(lab: &Lab, id: &str, sql: &[&str]) -> SchemaItem {
    let sql = sql.iter().map(|sql| sql.replace("DB.", &format!("{}.", lab.database))).collect();
    SchemaItem { id: id.to_owned(), stage: Stage::Index, table: Some(TableName::new(lab.database.clone(), "items")), sql }
}

#[tokio::test]
async fn a_step_that_was_cut_off_is_finished() {
    let mut lab = Lab::new("steps", &[ITEMS]).await;
    let sql = ["CREATE INDEX by_name ON DB.items (name)", "INSERT INTO DB.items VALUES (1, 'step', 0)", "CREATE TABLE DB.second (a int)"];
    let item = step(&lab, "INDEX by_name", &sql);
    let intent =
        |place: usize| Entry { key: "mysql/step/INDEX by_name".to_owned(), value: Bytes::from(crate::performing::intent(&item, place)) };
    let run: Vec<String> = item.sql.clone();
    // how far the attempt before came: the intent it had written, and the statements it had run
    for (noted, ran) in [(None, 0), (Some(0), 0), (Some(0), 1), (Some(1), 1), (Some(2), 2), (Some(2), 3)] {
        lab.run("DROP INDEX IF EXISTS by_name ON items; DELETE FROM items; DROP TABLE IF EXISTS second").await;
        lab.target.record(&lab.lease, &[entry("done", "")]).await.unwrap();
        if let Some(place) = noted {
            lab.target.record(&lab.lease, &[intent(place)]).await.unwrap();
        }
        for sql in &run[..ran] {
            lab.run(sql).await;
        }
        lab.target.perform(&lab.lease, &[&item], &[entry("done", "1")]).await.unwrap_or_else(|error| panic!("{noted:?} {ran}: {error:?}"));
        assert_eq!(lab.entries().await, [entry("done", "1")]);
        assert_eq!(lab.rows("SELECT count(*) FROM godwit.ledger WHERE task = 't_steps'").await, ["1"], "the intent is gone");
        assert_eq!(lab.all("items").await, ["1|step|0"], "{noted:?} {ran}");
        assert_eq!(lab.rows("SHOW TABLES").await, ["items", "second"]);
    }
    let error = lab.target.perform(&lab.lease, &[&item], &[entry("again", "1")]).await.unwrap_err();
    assert!(error.is(&codes::SERVER_REFUSED) && error.place() == Some("INDEX by_name"), "what another made is no own step: {error}");
    let error = lab.target.perform(&lab.lease, &[&item], &[entry("again", "1")]).await.unwrap_err();
    assert!(error.is(&codes::SERVER_REFUSED), "and stays none: {error}");
    assert_eq!(lab.entries().await, [entry("done", "1")]);
}

/// The process goes away at any moment of a step.
#[tokio::test]
async fn a_dropped_step_is_finished_by_the_next_attempt() {
    let mut lab = Lab::new("dropstep", &[ITEMS]).await;
    let item = step(
        &lab,
        "TABLE second",
        &["CREATE TABLE DB.second (a int)", "INSERT INTO DB.items VALUES (1, 'step', 0)", "CREATE INDEX i ON DB.second (a)"],
    );
    let done = [entry("done", "1")];
    for polls in 0.. {
        lab.run("DELETE FROM items; DROP TABLE IF EXISTS second").await;
        lab.target.record(&lab.lease, &[entry("done", "")]).await.unwrap();
        let first = cut(lab.target.perform(&lab.lease, &[&item], &done), polls).await;
        if lab.entries().await.is_empty() {
            lab.target.perform(&lab.lease, &[&item], &done).await.unwrap_or_else(|error| panic!("{polls}: {error:?}"));
        }
        assert_eq!(lab.all("items").await, ["1|step|0"], "{polls}");
        assert_eq!(lab.entries().await, done);
        if first.is_some() {
            assert!(polls > 10, "{polls}");
            break;
        }
    }
}

#[tokio::test]
async fn steps_of_one_table_wait_for_each_other_and_rows_refuse_a_key() {
    let mut lab = Lab::new("keys", &[BAG, ITEMS]).await;
    let unique = step(&lab, "KEY", &["ALTER TABLE DB.bag ADD UNIQUE INDEX k (n)"]);
    lab.run("INSERT INTO bag VALUES ('a', 1), ('b', 1)").await;
    let error = lab.target.perform(&lab.lease, &[&unique], &[entry("k", "1")]).await.unwrap_err();
    assert!(error.is(&codes::KEY_EXISTS), "{error}");
    let indexes: Vec<SchemaItem> =
        (0..4).map(|n| step(&lab, &format!("INDEX i{n}"), &[&format!("CREATE INDEX i{n} ON DB.items (n, name)")])).collect();
    let all = indexes.iter().enumerate().map(|(n, item)| {
        let done = entry(&format!("i{n}"), "1");
        let (target, lease) = (&lab.target, &lab.lease);
        async move { target.perform(lease, &[item], &[done]).await }
    });
    for answer in futures_util::future::join_all(all).await {
        answer.unwrap();
    }
    assert_eq!(lab.entries().await.len(), 4);
}

#[tokio::test]
async fn tables_are_emptied_and_dropped() {
    let mut lab = Lab::new("empty", &[ITEMS, CODES]).await;
    lab.run("INSERT INTO items VALUES (1, 'a', 0); INSERT INTO codes VALUES (1, 'a')").await;
    let names = [lab.items().target.clone(), lab.codes().target.clone()];
    let absent = [names[0].clone(), TableName::new(lab.database.clone(), "absent")];
    let error = lab.target.empty(&lab.lease, &absent, false, &[entry("a", "1")]).await.unwrap_err();
    assert!(error.is(&codes::TABLE_MISSING), "{error}");
    assert_eq!((lab.all("items").await.len(), lab.entries().await), (1, vec![]), "none was emptied");
    lab.target.empty(&lab.lease, &names, false, &[entry("a", "1")]).await.unwrap();
    assert_eq!((lab.all("items").await.len(), lab.all("codes").await.len()), (0, 0));
    lab.target.empty(&lab.lease, &[&names[..], &absent[1..]].concat(), true, &[entry("b", "1")]).await.unwrap();
    lab.target.empty(&lab.lease, &names, true, &[entry("b", "2")]).await.unwrap();
    assert!(lab.rows("SHOW TABLES").await.is_empty());
    assert_eq!(lab.entries().await, [entry("a", "1"), entry("b", "2")]);
}

#[tokio::test]
async fn counters_never_go_back() {
    let tables = ["CREATE TABLE counted (id bigint unsigned PRIMARY KEY AUTO_INCREMENT)", "CREATE SEQUENCE counter", ITEMS];
    let mut lab = Lab::new("counters", &tables).await;
    let value = |name: &str, last: Value| SequenceValue { name: TableName::new(lab.database.clone(), name), last, called: true };
    let next = "SELECT concat(auto_increment) FROM information_schema.tables WHERE table_schema = database() AND table_name = 'counted'";
    for (set, expected) in [(100, "101"), (50, "101"), (101, "102")] {
        lab.target
            .set_sequences(&lab.lease, &[value("counted", int(set)), value("counter", int(set)), value("items", int(1))])
            .await
            .unwrap();
        assert_eq!(lab.user.query::<String, _>(next).await.unwrap(), [expected]);
    }
    assert_eq!(lab.user.query::<String, _>("SELECT concat(NEXTVAL(counter))").await.unwrap(), ["102"]);
    let large = value("counted", Value::Native(Bytes::from_static(b"9223372036854775900")));
    lab.target.set_sequences(&lab.lease, &[large]).await.unwrap();
    assert_eq!(lab.rows(next).await, ["9223372036854775901"]);
    lab.target.analyze(&[lab.items().target.clone()]).await.unwrap();
}

/// The lab keeps a binary log that it does not flush: a commit alone leaves its record in memory.
#[tokio::test]
async fn what_was_committed_becomes_durable() {
    let mut lab = Lab::new("durable", &[ITEMS]).await;
    let items = lab.items();
    let mut applier = lab.applier().await;
    applied(&mut *applier, vec![inserts(&items, vec![item(1, "a")])]).await;
    commit(&mut *applier, 0, 1).await;
    let status = "SELECT variable_value FROM information_schema.global_status WHERE variable_name = ";
    let number = |rows: Vec<String>| rows[0].parse::<u64>().unwrap();
    let written = number(lab.rows(&format!("{status} 'innodb_lsn_current'")).await);
    applier.durable().await.unwrap();
    let flushed = number(lab.rows(&format!("{status} 'innodb_lsn_flushed'")).await);
    assert!(flushed >= written, "{flushed} {written}");
}

#[tokio::test]
async fn dropped_work_leaves_no_transaction() {
    let mut lab = Lab::new("left", &[ITEMS]).await;
    let items = lab.items();
    let mut applier = lab.applier().await;
    applied(&mut *applier, vec![inserts(&items, vec![item(1, "gone")])]).await;
    drop(applier);
    let mut applier = lab.applier().await;
    applied(&mut *applier, vec![inserts(&items, vec![item(1, "kept")])]).await;
    commit(&mut *applier, 0, 1).await;
    assert_eq!(lab.all("items").await, ["1|kept|0"]);
}

/// A person's file: settings, a body, texts that end where the file's own `sql_mode` says.
const FILE: &str = r"
-- made by hand; twice
SET sql_mode = '';
USE DB;
CREATE TABLE second (a int COMMENT 'it\'s; one');
START TRANSACTION;
INSERT INTO items VALUES (1, 'step', 0);
COMMIT;
DELIMITER //
CREATE PROCEDURE p() BEGIN SELECT 1; SELECT 2; END//
DELIMITER ;
ALTER TABLE second ADD b int; CREATE TABLE third (a int);
";

fn file(lab: &Lab) -> SchemaItem {
    lab.target.staged(&FILE.replace("DB", &lab.database)).remove(0)
}

/// The process goes away at any moment of a file: no statement of it is left out, and none runs twice.
#[tokio::test]
async fn a_file_that_was_cut_off_is_finished_statement_by_statement() {
    let mut lab = Lab::new("file", &[ITEMS]).await;
    let item = file(&lab);
    let done = [entry("done", "1")];
    for polls in 0.. {
        lab.run("DELETE FROM items; DROP TABLE IF EXISTS second, third; DROP PROCEDURE IF EXISTS p").await;
        lab.target.record(&lab.lease, &[entry("done", "")]).await.unwrap();
        let first = cut(lab.target.perform(&lab.lease, &[&item], &done), polls).await;
        if lab.entries().await.is_empty() {
            lab.target.perform(&lab.lease, &[&item], &done).await.unwrap_or_else(|error| panic!("{polls}: {error:?}"));
        }
        assert_eq!(lab.all("items").await, ["1|step|0"], "{polls}");
        assert_eq!(lab.rows("SHOW TABLES").await, ["items", "second", "third"], "{polls}");
        assert_eq!(
            lab.rows(
                "SELECT column_name FROM information_schema.columns WHERE table_schema = database() AND table_name = 'second' ORDER BY 1"
            )
            .await,
            ["a", "b"]
        );
        assert_eq!(lab.rows("SELECT routine_name FROM information_schema.routines WHERE routine_schema = database()").await, ["p"]);
        if first.is_some() {
            assert!(polls > 30, "{polls}");
            break;
        }
    }
}

/// What the statement that was waiting would have made is not there because an earlier one's is.
#[tokio::test]
async fn a_file_whose_statement_had_to_wait_is_not_taken_for_done() {
    let mut lab = Lab::new("waits", &[ITEMS]).await;
    let item = step(
        &lab,
        "FILE",
        &["SET lock_wait_timeout = 1; CREATE TABLE DB.second (a int); ALTER TABLE DB.items ADD more int; CREATE TABLE DB.third (a int)"],
    );
    lab.run("START TRANSACTION; SELECT * FROM items").await;
    let error = lab.target.perform(&lab.lease, &[&item], &[entry("done", "1")]).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(lab.entries().await, []);
    lab.run("COMMIT").await;
    lab.target.perform(&lab.lease, &[&item], &[entry("done", "1")]).await.unwrap();
    let more = "SELECT column_name FROM information_schema.columns WHERE table_schema = database() AND column_name = 'more'";
    assert_eq!(lab.rows(more).await, ["more"]);
    assert_eq!(lab.rows("SHOW TABLES").await, ["items", "second", "third"]);
    assert_eq!(lab.entries().await, [entry("done", "1")]);
}

/// A file that was edited meanwhile is another one: what the old one has made is in its way.
#[tokio::test]
async fn a_file_that_changed_is_begun_anew() {
    let mut lab = Lab::new("edited", &[ITEMS]).await;
    let of = |sql: &str| step(&lab, "FILE", &[sql]);
    let old = of("SELECT 1; CREATE TABLE DB.second (a int)");
    let new = of("CREATE TABLE DB.third (a int); CREATE TABLE DB.second (a int)");
    let intent = Entry { key: "mysql/step/FILE".to_owned(), value: Bytes::from(crate::performing::intent(&old, 1)) };
    lab.target.record(&lab.lease, &[intent]).await.unwrap();
    lab.run("CREATE TABLE second (a int)").await;
    let error = lab.target.perform(&lab.lease, &[&new], &[entry("done", "1")]).await.unwrap_err();
    assert!(error.is(&codes::SERVER_REFUSED), "{error}");
    assert_eq!(lab.rows("SHOW TABLES").await, ["items", "second", "third"]);
    assert_eq!(lab.entries().await, []);
}

#[tokio::test]
async fn what_a_file_cannot_do_is_told_before_anything_is_done() {
    let mut lab = Lab::new("judged", &[ITEMS]).await;
    for (sql, code) in [
        (
            "CREATE TABLE DB.second (a int); CREATE TRIGGER DB.t BEFORE INSERT ON DB.items FOR EACH ROW SET NEW.n = 7",
            &codes::TASK_UNSUPPORTED,
        ),
        ("CREATE TABLE DB.second (a int); ROLLBACK", &codes::TASK_UNSUPPORTED),
        ("CREATE TABLE DB.second (a int); CREATE PROCEDURE DB.p() BEGIN SELECT 1;", &codes::TASK_VALUE),
    ] {
        let item = step(&lab, "FILE", &[sql]);
        let error = lab.target.perform(&lab.lease, &[&item], &[entry("done", "1")]).await.unwrap_err();
        assert!(error.is(code) && error.place() == Some("FILE"), "{error}");
        assert_eq!(lab.rows("SHOW TABLES").await, ["items"]);
        assert_eq!(lab.entries().await, []);
    }
    let mut trigger = step(&lab, "TRIGGER", &["CREATE TRIGGER DB.t BEFORE INSERT ON DB.items FOR EACH ROW BEGIN SET NEW.n = 7; END"]);
    trigger.stage = Stage::AtFinish;
    lab.target.perform(&lab.lease, &[&trigger], &[entry("done", "1")]).await.unwrap();
    assert_eq!(lab.rows("SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = database()").await, ["t"]);
}

/// A session that is neither the target's nor the lab's own.
async fn other() -> Conn {
    lab().connect(Purpose::Read).await.unwrap()
}

/// Until some session runs such a statement and waits like this.
async fn until_waiting(conn: &mut Conn, state: &str, statement: &str) {
    let sql = format!("SELECT count(*) FROM information_schema.processlist WHERE state = '{state}' AND info LIKE '{statement}'");
    while conn.query_first::<u64, _>(&sql).await.unwrap() == Some(0) {
        tokio::task::yield_now().await;
    }
}

/// Between the proof of the lease and the step's entry the row of the lease is held: whoever takes it over comes behind both.
#[tokio::test]
async fn nobody_takes_the_lease_between_a_step_and_its_entry() {
    let mut lab = Lab::new("between", &[ITEMS]).await;
    let mut other = other().await;
    let held = "IF NEW.task = 't_between' AND NEW.`key` = 'done' THEN SET @held = GET_LOCK('t_between', 20), @held = RELEASE_LOCK('t_between'); END IF";
    lab.run(&format!("CREATE OR REPLACE TRIGGER godwit.t_between BEFORE INSERT ON godwit.ledger FOR EACH ROW BEGIN {held}; END")).await;
    other.query_drop("DO GET_LOCK('t_between', 0)").await.unwrap();
    let item = step(&lab, "TABLE second", &["SET autocommit = 1; CREATE TABLE DB.second (a int)"]);
    let (target, lease, user) = (&lab.target, &lab.lease, &mut lab.user);
    let taken = async {
        until_waiting(&mut other, "User lock", "%t_between%").await;
        let taken = user.query_drop("SELECT epoch FROM godwit.lease WHERE task = 't_between' FOR UPDATE NOWAIT").await;
        other.query_drop("DO RELEASE_LOCK('t_between')").await.unwrap();
        taken
    };
    let (items, done) = ([&item], [entry("done", "1")]);
    let (performed, taken) = tokio::join!(target.perform(lease, &items, &done), taken);
    lab.run("DROP TRIGGER godwit.t_between").await;
    performed.unwrap();
    assert_eq!(crate::script::number_of(&taken.unwrap_err()), Some(1205), "the row was free");
    assert_eq!(lab.rows("SELECT concat(`key`) FROM godwit.ledger WHERE task = 't_between'").await, ["done"], "the intent went with it");
}

/// The entries are so many that they go ahead of the proof.
#[tokio::test]
async fn an_old_process_whose_drop_had_to_wait_writes_no_entry() {
    let mut lab = Lab::new("slowdrop", &[ITEMS]).await;
    let mut other = other().await;
    let names = [lab.items().target.clone()];
    let many: Vec<Entry> = (0..3000).map(|number| Entry { key: format!("many/{number}"), value: Bytes::from(vec![7; 1000]) }).collect();
    lab.run("START TRANSACTION; SELECT * FROM items").await;
    let (target, lease, user) = (&lab.target, &lab.lease, &mut lab.user);
    let taken = async {
        until_waiting(&mut other, "Waiting for table metadata lock", "DROP TABLE%tt_slowdrop%").await;
        other.query_drop("UPDATE godwit.lease SET epoch = epoch + 1 WHERE task = 't_slowdrop'").await.unwrap();
        user.query_drop("COMMIT").await.unwrap();
    };
    let (emptied, ()) = tokio::join!(target.empty(lease, &names, true, &many), taken);
    assert!(emptied.unwrap_err().is(&codes::LEASE_LOST));
    assert_eq!(lab.entries().await, []);
}

/// The same of a step, which a person's `sql_mode` must not talk the proof out of.
#[tokio::test]
async fn an_old_process_whose_step_took_long_writes_no_entry() {
    let mut lab = Lab::new("slowstep", &[ITEMS]).await;
    lab.run("CREATE PROCEDURE take() BEGIN UPDATE godwit.lease SET epoch = epoch + 1 WHERE task = 't_slowstep'; COMMIT; END").await;
    let item = step(&lab, "TABLE second", &["SET sql_mode = '', autocommit = 1; CREATE TABLE DB.second (a int); CALL DB.take()"]);
    let error = lab.target.perform(&lab.lease, &[&item], &[entry("done", "1")]).await.unwrap_err();
    assert!(error.is(&codes::LEASE_LOST), "{error}");
    assert_eq!(lab.entries().await, []);
}

/// Its transaction is lost and another one is begun unseen.
#[tokio::test]
async fn a_chunks_mark_belongs_to_the_transaction_of_its_rows() {
    let lab = Lab::new("mark", &[ITEMS]).await;
    let many: Vec<Entry> = (0..3000).map(|number| Entry { key: format!("many/{number}"), value: Bytes::from(vec![7; 1000]) }).collect();
    for lost in ["ROLLBACK", "ROLLBACK; START TRANSACTION"] {
        let mut writer = lab.target.writers().take().await.unwrap();
        crate::transaction::open(&mut writer).await.unwrap();
        writer.query_drop(lost).await.unwrap();
        let error = crate::chunk::end(&mut writer, &lab.lease, &entry("chunk/1", "done")).await.unwrap_err();
        assert!(error.is(&codes::RETRYABLE), "{error}");
        let error = crate::lease::commit(&mut writer, &lab.lease, crate::transaction::Begun::Here, &many).await.unwrap_err();
        assert!(error.is(&codes::RETRYABLE), "{error}");
        drop(writer);
        assert_eq!(lab.entries().await, []);
    }
}

/// A plan of ten thousand chunks with long keys is one entry.
#[tokio::test]
async fn an_entry_may_be_longer_than_half_a_message() {
    let lab = Lab::new("plan", &[]).await;
    let plan = |size: usize| Entry { key: "plan/1".to_owned(), value: (0..size).map(|at| (at % 251) as u8).collect() };
    for size in [10 << 20, 3 << 20] {
        lab.target.record(&lab.lease, &[entry("a", "1"), plan(size)]).await.unwrap();
        assert!(lab.entries().await == [entry("a", "1"), plan(size)], "{size}");
    }
    let error = lab.target.record(&lab.lease, &[entry("b", "1"), plan(17 << 20)]).await.unwrap_err();
    assert!(error.is(&codes::VALUE_TOO_LARGE), "{error}");
    assert!(lab.entries().await == [entry("a", "1"), plan(3 << 20)]);
}

/// Tables that a person made: the type at the target, that of the source, whether it holds its values.
const HAND_MADE: [(&str, &str, bool); 13] = [
    ("varchar(30) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci", "varchar(20) CHARACTER SET utf8mb3 COLLATE utf8mb3_general_ci", true),
    ("enum('😀','b','c') CHARACTER SET utf8mb4", "enum('😀','b') CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci", true),
    ("bigint", "int(10) unsigned", true),
    ("enum('b','a') CHARACTER SET utf8mb4", "enum('a','b') CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci", false),
    ("set('a')", "set('a','b') CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci", false),
    ("float", "double", false),
    ("char(20) CHARACTER SET utf8mb4", "varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci", false),
    ("binary(20)", "varbinary(20)", false),
    ("datetime", "timestamp", false),
    ("datetime(0)", "datetime(6)", false),
    ("decimal(10,1)", "decimal(10,2)", false),
    ("varchar(10) CHARACTER SET utf8mb4", "varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci", false),
    ("int unsigned", "int(11)", false),
];

#[tokio::test]
async fn a_table_that_would_change_values_is_refused() {
    let mut lab = Lab::new("fits", &[]).await;
    let mut mappings = Vec::new();
    for (number, (made, wanted, _)) in HAND_MADE.iter().enumerate() {
        lab.run(&format!("CREATE TABLE t{number} (id int PRIMARY KEY, v {made})")).await;
        mappings.push(lab.mapping(&format!("t{number}"), &[("id", "int(11)"), ("v", wanted)], &[0], false));
    }
    let (ci, bin) = ("varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci", TEXT);
    lab.run(&format!("CREATE TABLE coarse (k {ci} PRIMARY KEY, v {ci}); CREATE TABLE aria (k int PRIMARY KEY) ENGINE = Aria; CREATE VIEW seen AS SELECT * FROM aria")).await;
    mappings.push(lab.mapping("coarse", &[("k", bin), ("v", bin)], &[0], false));
    mappings.push(lab.mapping("aria", &[("k", "int(11)")], &[0], false));
    let mut refused = Vec::new();
    for mapping in &mappings {
        let row = vec![Value::Null; mapping.columns.len()];
        let error = write_chunk(&lab, mapping, ChunkMode::Insert, &mut Given::new(vec![row.clone()])).await.unwrap_err();
        let mut applier = lab.applier().await;
        let applied = applier.apply(&Group { writes: vec![inserts(mapping, vec![row])], origin: String::new() }).await;
        let is_refused = error.is(&codes::SCHEMA_MISMATCH);
        assert_eq!(applied.is_err_and(|error| error.is(&codes::SCHEMA_MISMATCH)), is_refused, "{error}");
        if is_refused {
            assert_eq!(error.place(), Some(format!("table {}", mapping.target).as_str()));
            refused.push(mapping.target.name.clone());
        }
    }
    let unfit = HAND_MADE.iter().enumerate().filter(|(_, (_, _, fits))| !fits).map(|(number, _)| format!("t{number}"));
    let expected: Vec<String> = unfit.chain(["coarse".to_owned(), "aria".to_owned()]).collect();
    assert_eq!(refused, expected);
    let seen = lab.mapping("seen", &[("k", "int(11)")], &[0], false);
    let error = write_chunk(&lab, &seen, ChunkMode::Insert, &mut Given::new(vec![vec![int(1)]])).await.unwrap_err();
    assert!(error.is(&codes::SCHEMA_MISMATCH), "{error}");
    // the same before anything runs
    let mut task = godwit_testkit::task::task("fits");
    for (existing, found) in [(Existing::Append, expected), (Existing::Replace, Vec::new())] {
        task.existing = existing;
        let needs = TargetNeeds { task: &task, description: &Default::default(), mappings: &mappings };
        let findings = lab.target.check(&needs).await.unwrap();
        let blockers = findings.iter().filter(|finding| finding.severity == Severity::Blocker);
        let told: Vec<String> = blockers.map(|finding| finding.what.split([' ', '.']).nth(2).unwrap().to_owned()).collect();
        assert_eq!(told, found, "{findings:?}");
    }
}

/// Without a claim, too: a session that waits for a lock is ended before the next one is taken.
#[tokio::test]
async fn a_session_without_a_claim_is_ended_too() {
    let mut lab = Lab::new("noclaim", &[ITEMS]).await;
    let items = lab.items();
    let mut other = other().await;
    let names: Vec<String> =
        (0..crate::writers::CLAIMS).map(|number| format!("GET_LOCK('{}', 0)", crate::writers::name(&lab.task, number))).collect();
    other.query_drop(format!("DO {}", names.join(", "))).await.unwrap();
    lab.run("INSERT INTO items VALUES (1, 'user', 0); START TRANSACTION; UPDATE items SET n = 1").await;
    let mut applier = lab.applier().await;
    let update = Group { writes: vec![write(&items, WriteKind::Update, &[1], vec![vec![int(1), text("old")]])], origin: String::new() };
    tokio::select! {
        answer = applier.apply(&update) => panic!("{answer:?}"),
        () = until_waiting(&mut other, "Updating", "UPDATE%tt_noclaim%") => {}
    }
    drop(applier);
    lab.record().await;
    let left = "SELECT concat(id) FROM information_schema.processlist WHERE info LIKE 'UPDATE%tt_noclaim%'";
    assert_eq!(lab.rows(left).await, Vec::<String>::new());
}

/// Its tables have other names than the task says.
#[tokio::test]
async fn a_server_may_know_small_letters_only() {
    let options = MySqlOptions::default().with_setting("lower-case-table-names", "1");
    let Some(server) = MySqlServer::start(MySqlVersion::MariaDb10_11, &options) else { return };
    let config = EndpointConfig { port: Some(server.port()), ..crate::lab::config("").expect("a server") };
    let endpoint = Endpoint::new(&config).unwrap();
    let mut user = endpoint.connect(Purpose::Read).await.unwrap();
    user.query_drop(
        "CREATE DATABASE Shop; CREATE TABLE Shop.Items (Id int PRIMARY KEY, Name varchar(9) UNIQUE); INSERT INTO Shop.Items VALUES (1, 'a');
         CREATE TABLE Shop.Lines (i int, FOREIGN KEY (i) REFERENCES Items (Id))",
    )
    .await
    .unwrap();
    let target = MySqlTarget::of(endpoint, TaskName::parse("t_small").unwrap());
    let names = [TableName::new("Shop", "Zebras"), TableName::new("Shop", "Items")];
    let present = target.present(&names).await.unwrap();
    let [items] = &present[..] else { panic!("{present:?}") };
    assert_eq!((&items.table.name, items.has_rows, items.table.columns.len()), (&names[1], true, 2));
    assert_eq!(items.referenced_by, [TableName::new("shop", "lines")]);
    assert!(items.table.key.is_some());
}
