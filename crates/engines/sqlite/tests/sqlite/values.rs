//! Property: a value arrives as it was, whichever way it goes: in a chunk, in a change, read again by its key.
//!
//! Prints its seed; `GODWIT_SEED=n` runs the same values again, `GODWIT_SECONDS=n` looks longer.

use std::time::{Duration, Instant};

use bytes::Bytes;
use godwit_model::*;
use godwit_testkit::contract::Follower;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql};

use crate::target::leased;
use crate::world::{World, rows_of};

/// Affinities, STRICT and ANY; keys that compare otherwise than their bytes; rows without a key.
const SCHEMA: &str = "
    CREATE TABLE affine (k INTEGER PRIMARY KEY, i INT, t TEXT, r REAL, n NUMERIC, d DECIMAL(10,2), b BLOB, v);
    CREATE TABLE strict (k INTEGER PRIMARY KEY, i INTEGER, t TEXT, r REAL, b BLOB, v ANY) STRICT;
    CREATE TABLE anykey (k PRIMARY KEY NOT NULL, v) WITHOUT ROWID;
    CREATE TABLE realkey (k REAL PRIMARY KEY NOT NULL, v);
    CREATE TABLE textkey (k TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, v) WITHOUT ROWID;
    CREATE TABLE blobkey (k BLOB NOT NULL UNIQUE, v);
    CREATE TABLE keyless (v, w);
";

/// A table, and what each of its columns may be given.
struct Filled {
    name: &'static str,
    columns: Vec<(&'static str, BoxedStrategy<Cell>)>,
}

#[derive(Clone, Debug)]
struct Cell(Value);

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match &self.0 {
            Value::Int(number) => ValueRef::Integer(*number),
            Value::Float(number) => ValueRef::Real(*number),
            Value::Text(text) | Value::Native(text) => ValueRef::Text(text),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
            _ => ValueRef::Null,
        }))
    }
}

fn integers() -> BoxedStrategy<Cell> {
    let edges = prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(0), Just(-1), Just(1 << 53), Just((1 << 53) + 1), Just(1 << 47)];
    prop_oneof![any::<i64>(), edges, -3..4_i64].prop_map(|number| Cell(Value::Int(number))).boxed()
}

fn reals() -> BoxedStrategy<Cell> {
    let edges = prop_oneof![
        Just(0.0),
        Just(-0.0),
        Just(1.0),
        Just(1e308),
        Just(f64::MAX),
        Just(f64::MIN_POSITIVE),
        Just(5e-324),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(9_007_199_254_740_993.0),
        Just(0.1),
    ];
    prop_oneof![any::<f64>(), edges].prop_map(|number| Cell(Value::Float(number))).boxed()
}

fn texts() -> BoxedStrategy<Cell> {
    let odd = prop_oneof![
        Just(""),
        Just("NULL"),
        Just("a\0b"),
        Just("1"),
        Just("1.0"),
        Just("0x10"),
        Just("1e3"),
        Just(" 7 "),
        Just("ä"),
        Just("Ä")
    ];
    let text = prop_oneof![any::<String>(), odd.prop_map(str::to_owned), "[aAbB😀'\"\\\\\t\n]{0,12}"];
    let invalid = proptest::collection::vec(any::<u8>(), 0..12).prop_map(|bytes| Cell(Value::Native(bytes.into())));
    prop_oneof![4 => text.prop_map(|text| Cell(Value::text(text))), 1 => invalid].boxed()
}

fn blobs() -> BoxedStrategy<Cell> {
    let large = any::<u8>().prop_map(|byte| vec![byte; 5_000]);
    let small = proptest::collection::vec(any::<u8>(), 0..20);
    prop_oneof![9 => small, 1 => large].prop_map(|bytes| Cell(Value::Bytes(bytes.into()))).boxed()
}

fn known() -> BoxedStrategy<Cell> {
    prop_oneof![integers(), reals(), texts(), blobs()].boxed()
}

fn or_null(values: BoxedStrategy<Cell>) -> BoxedStrategy<Cell> {
    prop_oneof![9 => values, 1 => Just(Cell(Value::Null))].boxed()
}

fn tables() -> Vec<Filled> {
    let any = || or_null(known());
    let affine = vec![("k", integers()), ("i", any()), ("t", any()), ("r", any()), ("n", any()), ("d", any()), ("b", any()), ("v", any())];
    let strict = vec![
        ("k", integers()),
        ("i", or_null(integers())),
        ("t", or_null(texts())),
        ("r", or_null(reals())),
        ("b", or_null(blobs())),
        ("v", any()),
    ];
    vec![
        Filled { name: "affine", columns: affine },
        Filled { name: "strict", columns: strict },
        Filled { name: "anykey", columns: vec![("k", known()), ("v", any())] },
        Filled { name: "realkey", columns: vec![("k", reals()), ("v", any())] },
        Filled { name: "textkey", columns: vec![("k", texts()), ("v", any())] },
        Filled { name: "blobkey", columns: vec![("k", blobs()), ("v", any())] },
        Filled { name: "keyless", columns: vec![("v", any()), ("w", any())] },
    ]
}

/// Draws values and writes them as users do.
struct Users {
    runner: TestRunner,
    tables: Vec<Filled>,
}

impl Users {
    fn row(&mut self, table: usize) -> Vec<Cell> {
        let runner = &mut self.runner;
        let draw = |values: &BoxedStrategy<Cell>| values.new_tree(runner).unwrap().current();
        self.tables[table].columns.iter().map(|(_, values)| values).map(draw).collect()
    }

    fn insert(&mut self, user: &Connection, rows: usize) {
        for table in 0..self.tables.len() {
            for _ in 0..rows {
                let row = self.row(table);
                let places = (1..=row.len()).map(|place| format!("?{place}")).collect::<Vec<_>>().join(", ");
                let sql = format!("INSERT OR IGNORE INTO {} VALUES ({places})", self.tables[table].name);
                user.execute(&sql, rusqlite::params_from_iter(&row)).unwrap();
            }
        }
    }

    /// Other values in a third of the rows, keys among them; a tenth of the rows deleted.
    fn change(&mut self, user: &Connection) {
        for table in 0..self.tables.len() {
            let name = self.tables[table].name;
            let names: Vec<&str> = self.tables[table].columns.iter().map(|(name, _)| *name).collect();
            let rows: i64 = user.query_row(&format!("SELECT count(*) FROM {name}"), [], |row| row.get(0)).unwrap();
            let set = names.iter().enumerate().map(|(place, name)| format!("{name} = ?{}", place + 1)).collect::<Vec<_>>().join(", ");
            for offset in 0..rows / 3 {
                let row = self.row(table);
                let found = names.join(", ");
                let one = format!("({found}) IS (SELECT {found} FROM {name} LIMIT 1 OFFSET {offset})");
                user.execute(&format!("UPDATE OR IGNORE {name} SET {set} WHERE {one}"), rusqlite::params_from_iter(&row)).unwrap();
            }
            let some = format!("{0} IN (SELECT {0} FROM {name} LIMIT {1})", names[0], rows / 10);
            user.execute(&format!("DELETE FROM {name} WHERE {some}"), []).unwrap();
        }
    }
}

async fn load(world: &World, snapshot: &dyn Snapshot, lease: &Lease, description: &Description) {
    let target = world.target();
    for item in description.items.iter().filter(|item| item.stage == Stage::BeforeLoad) {
        target.perform(lease, &[item], &[Entry { key: item.id.clone(), value: Bytes::from_static(b"1") }]).await.unwrap();
    }
    for (table, mapping) in description.tables.iter().zip(world.mappings().await) {
        for (at, chunk) in snapshot.plan(table, 1).await.unwrap().iter().enumerate() {
            let spec = ReadSpec { mapping: &mapping, chunk, native: true, block_bytes: 400 };
            let mut reader = snapshot.read(&spec).await.unwrap();
            let done = Entry { key: format!("chunk/{}/{at}", mapping.target), value: Bytes::from_static(b"done") };
            let write = ChunkWrite { mapping: &mapping, mode: ChunkMode::Insert, done: &done };
            target.write_chunk(lease, &write, &mut *reader).await.unwrap();
        }
    }
}

async fn assert_same(world: &World, how: &str) {
    for mapping in world.mappings().await {
        let table = &mapping.source.name;
        assert_eq!(rows_of(&world.target_user(), table, "*"), rows_of(&world.user(), table, "*"), "{table} {how}");
        let first = world.source().examiner().digest(&DigestPlan::of_source(&mapping, 7)).await.unwrap();
        let second = world.target().examiner().digest(&DigestPlan::of_target(&mapping, 7)).await.unwrap();
        assert_eq!(first, second, "digest of {table} {how}");
    }
}

/// All rows once more, found by their keys.
async fn read_again(world: &World, follower: &mut Follower) {
    for mapping in world.mappings().await.iter().filter(|mapping| mapping.has_key()) {
        let plan = DigestPlan::of_source(mapping, 1);
        let hashes = world.source().examiner().hashes(&plan, &[0]).await.unwrap();
        let mut keys = RowBatch::new(mapping.key.len());
        hashes.iter().for_each(|row| keys.push(row.key.iter().cloned()));
        let found = world.source().rows(mapping, &keys).await.unwrap();
        assert_eq!(found.len(), keys.len(), "every key of {} is found", mapping.source);
        let again = world.source().examiner().hashes_of(&plan, &keys).await.unwrap();
        assert!(again.iter().zip(&hashes).all(|(again, first)| *again == Some(first.hash)), "hashes of {}", mapping.source);
        world.target_user().execute(&format!("DELETE FROM {}", mapping.target.name), []).unwrap();
        follower.upsert(mapping, found.clone()).await;
        follower.upsert(mapping, found).await;
    }
}

async fn round(users: &mut Users) {
    let world = World::new(SCHEMA);
    let user = world.user();
    user.execute_batch("PRAGMA synchronous = OFF").unwrap();
    users.insert(&user, 20);
    let source = world.source();
    let description = source.describe(&world.task).await.unwrap();
    let established = source.establish(&world.tables().await, None).await.unwrap();
    let lease = leased(&*world.target()).await;
    let snapshot = established.snapshot.unwrap();
    load(&world, &*snapshot, &lease, &description).await;
    drop(snapshot);
    assert_same(&world, "after the load").await;
    let mut follower = Follower::new(&*world.target(), &lease, &world.mappings().await).await;
    users.insert(&user, 20);
    users.change(&user);
    follower.follow(&*source, &world.tables().await, &established.position).await;
    assert_same(&world, "after the changes").await;
    read_again(&world, &mut follower).await;
    assert_same(&world, "after they were read again").await;
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test]
async fn every_value_arrives_as_it_was() {
    let seed = from_environment("GODWIT_SEED").unwrap_or_else(rand_seed);
    println!("GODWIT_SEED={seed}");
    let runner = TestRunner::new(Config { rng_seed: RngSeed::Fixed(seed), ..Config::default() });
    let mut users = Users { runner, tables: tables() };
    let until = Instant::now() + Duration::from_secs(from_environment("GODWIT_SECONDS").unwrap_or(6));
    while Instant::now() < until {
        round(&mut users).await;
    }
}

fn rand_seed() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
}
