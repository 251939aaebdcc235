//! Property: a value arrives as it was, whichever way it goes: in a chunk, in a change, read again by its key.
//!
//! Prints its seed; `GODWIT_SEED=n` runs the same values again, `GODWIT_ROWS=n` looks longer.

use std::sync::Arc;

use godwit_model::{ChunkMode, Create, DigestPlan, RowBatch, Stage, TableMapping};
use godwit_testkit::contract::Follower;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngSeed, TestRunner};

use super::literals::{Column, TYPES, columns};
use super::pair::{Pair, mappings};

/// For each of the ways.
const ROWS: u64 = 40;

/// Draws values and writes them as users do.
struct Users {
    runner: TestRunner,
    columns: Vec<Column>,
    next: u64,
}

impl Users {
    fn row(&mut self) -> Vec<String> {
        let runner = &mut self.runner;
        self.columns.iter().map(|column| column.values.new_tree(runner).unwrap().current()).collect()
    }

    async fn insert(&mut self, pair: &Pair, rows: u64) {
        let mut sql = String::new();
        for _ in 0..rows {
            self.next += 1;
            let values = self.row().join(", ");
            ["keyed", "keyless"].iter().for_each(|table| sql += &format!("INSERT INTO {table} VALUES ({}, {values}); ", self.next));
        }
        pair.at_source(&sql).await;
    }

    /// Some columns of some rows; a key now and then; a tenth of the rows deleted.
    async fn change(&mut self, pair: &Pair) {
        let mut sql = String::new();
        for id in (1..=self.next).step_by(2) {
            let (values, first) = (self.row(), (id as usize) % 7);
            let set = self.columns.iter().zip(values).skip(first).step_by(3).map(|(column, value)| format!("{} = {value}", column.name));
            let set = set.collect::<Vec<_>>().join(", ");
            let key = if id % 5 == 0 { ", id = -id" } else { "" };
            ["keyed", "keyless"].iter().for_each(|table| sql += &format!("UPDATE {table} SET {set}{key} WHERE id = {id}; "));
        }
        pair.at_source(&sql).await;
        pair.at_source("DELETE FROM keyed WHERE id % 10 = 4; DELETE FROM keyless WHERE id % 10 = 4").await;
    }
}

async fn tables(pair: &Pair, columns: &[Column]) {
    let list = columns.iter().map(|column| format!(", {} {}", column.name, column.type_name)).collect::<String>();
    pair.at_source(TYPES).await;
    pair.at_source(&format!("CREATE TABLE keyed (id int PRIMARY KEY{list}); CREATE TABLE keyless (id int{list})")).await;
    pair.at_source("ALTER TABLE keyless REPLICA IDENTITY FULL").await;
}

/// Types whose binary form holds OIDs of users' types, which differ from database to database.
const BY_TEXT_ALONE: [&str; 9] = ["mood[]", "pair", "pair[]", "outer_pair", "short[]", "shorts", "span[]", "regclass", "regtype"];

/// Users of both databases read and write otherwise than Godwit does.
const ODD: &str = "timezone 'Asia/Kathmandu', datestyle 'German', intervalstyle 'sql_standard', bytea_output 'escape', extra_float_digits '-5', \
     lc_monetary 'C', standard_conforming_strings 'off', statement_timeout '20s', search_path 'public'";
const NEUTRAL: &str =
    "SET timezone = 'UTC'; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET bytea_output = 'hex'; SET extra_float_digits = 3";

/// Every value as the server prints it and as it sends it, a line each.
fn fingerprint(columns: &[Column]) -> String {
    let lines = ["keyed", "keyless"].iter().flat_map(|table| columns.iter().map(|column| lines_of(table, column)));
    let all = lines.collect::<Vec<_>>().join(" UNION ALL ");
    format!("{NEUTRAL}; SELECT string_agg(line, E'\\x01' ORDER BY line COLLATE \"C\") FROM ({all}) AS lines")
}

fn lines_of(table: &str, column: &Column) -> String {
    let name = &column.name;
    let binary = if BY_TEXT_ALONE.contains(&column.type_name) {
        "''".to_owned()
    } else {
        format!("coalesce(encode({}({name}), 'hex'), '-')", send(column))
    };
    let what = format!("{table} {name} {}", column.type_name);
    format!("SELECT '{what} ' || id || ' ' || coalesce({name}::text, '-') || ' ' || {binary} AS line FROM {table}")
}

fn send(column: &Column) -> &'static str {
    let base = column.type_name.split(['(', ' ']).next().unwrap_or_default();
    match (column.type_name, base) {
        (name, _) if name.ends_with("[]") => "array_send",
        ("double precision", _) => "float8send",
        ("\"char\"", _) => "charsend",
        ("char(8)", _) => "bpcharsend",
        ("xid8", _) => "xid8send",
        ("short", _) => "varcharsend",
        ("mood", _) => "enum_send",
        ("citext", _) => "citextsend",
        ("hstore", _) => "hstore_send",
        ("int4multirange", _) => "multirange_send",
        (name, _) if name.ends_with("range") || name == "span" => "range_send",
        (_, "smallint") => "int2send",
        (_, "int") => "int4send",
        (_, "bigint") => "int8send",
        (_, "numeric") => "numeric_send",
        (_, "real") => "float4send",
        (_, "boolean") => "boolsend",
        (_, "money") => "cash_send",
        (_, "oid") => "oidsend",
        (_, "pg_lsn") => "pg_lsn_send",
        (_, "bit") => "bit_send",
        (_, "varbit") => "varbit_send",
        (_, "text") => "textsend",
        (_, "varchar") => "varcharsend",
        (_, "name") => "namesend",
        (_, "bytea") => "byteasend",
        (_, "json") => "json_send",
        (_, "jsonb") => "jsonb_send",
        (_, "jsonpath") => "jsonpath_send",
        (_, "xml") => "xml_send",
        (_, "tsvector") => "tsvectorsend",
        (_, "tsquery") => "tsquerysend",
        (_, "uuid") => "uuid_send",
        (_, "date") => "date_send",
        (_, "timestamp") => "timestamp_send",
        (_, "timestamptz") => "timestamptz_send",
        (_, "time") => "time_send",
        (_, "timetz") => "timetz_send",
        (_, "interval") => "interval_send",
        (_, "inet") => "inet_send",
        (_, "cidr") => "cidr_send",
        (_, "macaddr") => "macaddr_send",
        (_, "macaddr8") => "macaddr8_send",
        (_, "point") => "point_send",
        (_, "box") => "box_send",
        (_, "lseg") => "lseg_send",
        (_, "circle") => "circle_send",
        (_, "path") => "path_send",
        (_, "polygon") => "poly_send",
        (_, "line") => "line_send",
        (other, _) => panic!("how {other} is sent is not known"),
    }
}

async fn assert_same(pair: &Pair, mappings: &[Arc<TableMapping>], columns: &[Column], how: &str) {
    let sql = fingerprint(columns);
    let (first, second) = (pair.ask_source(&sql).await.unwrap(), pair.ask_target(&sql).await.unwrap());
    let other = first.split('\x01').zip(second.split('\x01')).find(|(first, second)| first != second);
    assert!(first == second, "{how}: {other:?}");
    assert!(!first.is_empty());
    pair.assert_equal(mappings).await;
}

/// All rows with a key once more, found by their keys.
async fn read_again(pair: &Pair, mapping: &Arc<TableMapping>, follower: &mut Follower) {
    let plan = DigestPlan::of_source(mapping, 1);
    let hashes = pair.source.examiner().hashes(&plan, &[0]).await.unwrap();
    let mut keys = RowBatch::new(1);
    hashes.iter().for_each(|row| keys.push(row.key.iter().cloned()));
    let found = pair.source.rows(mapping, &keys).await.unwrap();
    assert_eq!(found.len(), keys.len());
    pair.at_target("DELETE FROM keyed WHERE id % 2 = 0").await;
    follower.upsert(mapping, found).await;
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

async fn every_value(major: u16) {
    let Some(pair) = Pair::new(major, |task| {
        task.schema.create = Create::Tables;
        task.name = godwit_testkit::task::name(&format!("values_{major}"));
    }) else {
        return;
    };
    let seed = from_environment("GODWIT_SEED").unwrap_or_else(|| fastrand::u64(..));
    let rows = from_environment("GODWIT_ROWS").unwrap_or(ROWS);
    println!("GODWIT_SEED={seed}");
    pair.at_source("CREATE EXTENSION citext; CREATE EXTENSION hstore").await;
    for setting in ODD.split(", ") {
        let (name, value) = setting.trim().split_once(' ').unwrap();
        pair.at_source(&format!("ALTER DATABASE {} SET {name} = {value}", pair.task.source.database)).await;
        pair.at_target(&format!("ALTER DATABASE {} SET {name} = {value}", pair.task.target.database)).await;
    }
    let runner = TestRunner::new(Config { rng_seed: RngSeed::Fixed(seed), ..Config::default() });
    let mut users = Users { runner, columns: columns(true), next: 0 };
    tables(&pair, &users.columns).await;
    users.insert(&pair, rows).await;
    let description = pair.source.describe(&pair.task).await.unwrap();
    let mappings = mappings(&pair.task, &description);
    let tables: Vec<_> = description.tables.iter().cloned().map(Arc::new).collect();
    let lease = pair.lease().await;
    pair.perform(&lease, &description, Stage::BeforeLoad).await;
    let established = pair.source.establish(&tables, None).await.unwrap();
    pair.load(&lease, &mappings, &description, ChunkMode::Insert).await;
    assert_same(&pair, &mappings, &users.columns, "after the load").await;
    drop(established.snapshot);
    let mut follower = Follower::new(&*pair.target, &lease, &mappings).await;
    users.insert(&pair, rows).await;
    users.change(&pair).await;
    follower.follow(&*pair.source, &tables, &established.position).await;
    assert_same(&pair, &mappings, &users.columns, "after the changes").await;
    let keyed = mappings.iter().find(|mapping| mapping.has_key()).unwrap();
    read_again(&pair, keyed, &mut follower).await;
    assert_same(&pair, &mappings, &users.columns, "after they were read again").await;
    pair.source.remove_traces().await.unwrap();
}

#[tokio::test]
async fn every_value_arrives_as_it_was_on_15() {
    every_value(15).await;
}

#[tokio::test]
async fn every_value_arrives_as_it_was_on_18() {
    every_value(18).await;
}
