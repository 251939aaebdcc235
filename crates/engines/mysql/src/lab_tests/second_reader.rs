//! A second reader of the log, the server's own `mariadb-binlog`, lists the same changes in the same order.

use std::collections::BTreeMap;
use std::sync::Arc;

use godwit_model::{ChangeOperation, Table, Value};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::model::{Reader, Told, Transaction};
use super::{Lab, SERVER};
use crate::types::Kind;

/// A change as that program writes it: values by their place in the table, from 1 on.
#[derive(Debug)]
struct Listed {
    table: String,
    operation: ChangeOperation,
    before: BTreeMap<usize, String>,
    after: BTreeMap<usize, String>,
}

pub(super) async fn newest_file(lab: &Lab) -> String {
    let row: mysql_async::Row = lab.conn().await.query_first("SHOW MASTER STATUS").await.unwrap().unwrap();
    row.get(0).unwrap()
}

/// The changes of the lab's tables, from the beginning of this file on.
async fn listed(lab: &Lab, first_file: &str) -> Vec<Listed> {
    let server = SERVER.as_ref().unwrap();
    let output = tokio::process::Command::new(server.program("mariadb-binlog"))
        .args(["--no-defaults", "-v", "--base64-output=decode-rows", "-R", "--to-last-log", "-uroot", "-h127.0.0.1"])
        .args([format!("-P{}", server.port()), first_file.to_owned()])
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut all: Vec<Listed> = Vec::new();
    let mut is_after = false;
    for line in output.stdout.split(|byte| *byte == b'\n') {
        // values are in the character sets of their columns
        let line = String::from_utf8_lossy(line);
        let Some(line) = line.strip_prefix("### ") else { continue };
        let verbs =
            [("INSERT INTO ", ChangeOperation::Insert), ("UPDATE ", ChangeOperation::Update), ("DELETE FROM ", ChangeOperation::Delete)];
        if let Some((place, operation)) = verbs.into_iter().find_map(|(verb, operation)| Some((line.strip_prefix(verb)?, operation))) {
            all.push(Listed { table: place.to_owned(), operation, before: BTreeMap::new(), after: BTreeMap::new() });
        } else if let Some((column, value)) = line.strip_prefix("  @").and_then(|rest| rest.split_once('=')) {
            let change = all.last_mut().unwrap();
            let image = if is_after { &mut change.after } else { &mut change.before };
            image.insert(column.parse().unwrap(), value.to_owned());
        } else {
            assert!(["SET", "WHERE"].contains(&line), "{line}");
            is_after = line == "SET";
        }
    }
    let own = format!("`{}`.`", lab.database);
    all.retain_mut(|listed| match listed.table.strip_prefix(&own) {
        Some(name) => {
            listed.table = name.trim_end_matches('`').to_owned();
            true
        }
        None => false,
    });
    all
}

/// The same tables, operations and order, and the same values as far as the program writes them exactly. Gives how many changes
/// and values were compared.
pub(super) async fn agrees(lab: &Lab, first_file: &str, tables: &[Arc<Table>], told: &[Transaction]) -> (usize, usize) {
    let mut listed = listed(lab, first_file).await;
    listed.retain(|listed| tables.iter().any(|table| table.name.name == listed.table));
    let told: Vec<&Told> =
        told.iter().flat_map(|transaction| &transaction.changes).filter(|told| told.operation != ChangeOperation::Truncate).collect();
    let mut values = 0;
    for (told, listed) in told.iter().zip(&listed) {
        assert_eq!((&told.table.name, &told.operation), (&listed.table, &listed.operation), "{told:?} {listed:?}");
        let table = tables.iter().find(|table| table.name == told.table).unwrap();
        let old = told.old.as_deref().unwrap_or_default();
        // what an image after an update leaves out is as it was
        let after = listed.before.iter().chain(&listed.after).map(|(place, value)| (*place, value.clone())).collect();
        values += same_image(table, old, &listed.before) + same_image(table, &told.new, &after);
    }
    assert_eq!(told.len(), listed.len());
    (told.len(), values)
}

fn same_image(table: &Table, image: &[Value], listed: &BTreeMap<usize, String>) -> usize {
    let known = image.iter().enumerate().filter(|(_, value)| value.is_known());
    let mut compared = 0;
    for (index, value) in known {
        let column = &table.columns[index];
        let shown = listed.get(&(index + 1)).unwrap_or_else(|| panic!("{}.{} is not listed", table.name, column.name));
        assert_eq!(*value == Value::Null, shown == "NULL", "{}.{}: {value:?} {shown}", table.name, column.name);
        if let Some(expected) = as_listed(&Kind::parse(&column.type_name).unwrap(), value) {
            assert_eq!(expected, *shown, "{}.{} {}", table.name, column.name, column.type_name);
            compared += 1;
        }
    }
    compared
}

/// How the program writes a value; None where it rounds, or shows what only the value's bytes are.
fn as_listed(kind: &Kind, value: &Value) -> Option<String> {
    match (kind, value) {
        (_, Value::Null) => Some("NULL".to_owned()),
        (Kind::Int { bytes, .. }, value) => Some(integer(*bytes, value)),
        (Kind::Year, Value::Int(year)) => Some(year.to_string()),
        (Kind::Text { charset, .. }, Value::Text(text)) if charset == "utf8mb4" => Some(quoted(text)),
        // the zeros at the end of a fixed length are not logged
        (Kind::Bytes { fixed: 1.. }, Value::Bytes(bytes)) => {
            Some(quoted(&bytes[..bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)]))
        }
        (Kind::Bytes { .. }, Value::Bytes(bytes)) => Some(quoted(bytes)),
        (Kind::Enum { members, .. }, Value::Text(name)) => {
            let place = members.iter().position(|member| member.as_bytes() == &name[..]).unwrap();
            Some((place + 1).to_string())
        }
        _ => None,
    }
}

/// The log does not say whether it is unsigned: what may be negative is written both ways.
fn integer(bytes: u8, value: &Value) -> String {
    let number = match value {
        Value::Int(number) => i128::from(*number),
        Value::Native(digits) => std::str::from_utf8(digits).unwrap().parse().unwrap(),
        other => panic!("{other:?}"),
    };
    let range = 1_i128 << (8 * bytes);
    let unsigned = number.rem_euclid(range);
    if unsigned >= range / 2 { format!("{} ({unsigned})", unsigned - range) } else { unsigned.to_string() }
}

fn quoted(bytes: &[u8]) -> String {
    let mut text = vec![b'\''];
    for byte in bytes {
        match byte {
            0..=0x1F => text.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
            _ => text.push(*byte),
        }
    }
    text.push(b'\'');
    String::from_utf8_lossy(&text).into_owned()
}

/// SQL for a value.
type Draw = fn(&mut fastrand::Rng) -> String;

/// A column of each type.
const COLUMNS: &[(&str, Draw)] = &[
    ("tinyint", |random| random.i8(..).to_string()),
    ("tinyint unsigned", |random| random.u8(..).to_string()),
    ("smallint", |random| random.i16(..).to_string()),
    ("smallint unsigned zerofill", |random| random.u16(..).to_string()),
    ("mediumint", |random| random.i32(-8_388_608..8_388_608).to_string()),
    ("mediumint unsigned", |random| random.u32(..1 << 24).to_string()),
    ("int", |random| random.i32(..).to_string()),
    ("int unsigned", |random| random.u32(..).to_string()),
    ("bigint", |random| random.i64(..).to_string()),
    ("bigint unsigned", |random| random.u64(..).to_string()),
    ("float", |random| random.f32().to_string()),
    ("double", |random| random.f64().to_string()),
    ("decimal(12,3)", |random| format!("{}.125", random.i32(-900_000..900_000))),
    ("decimal(65,30)", |random| format!("{}.{}", random.i64(..), random.u64(..))),
    ("bit(1)", |random| random.u8(..2).to_string()),
    ("bit(33)", |random| random.u64(..1 << 33).to_string()),
    ("year", |random| random.u16(1901..=2155).to_string()),
    ("date", |random| format!("'{:04}-{:02}-{:02}'", random.u16(..=9999), random.u8(..=12), random.u8(..=28))),
    ("time", |random| format!("'{}:{:02}:{:02}'", random.i16(-838..838), random.u8(..60), random.u8(..60))),
    ("time(3)", |random| format!("'{:02}:00:01.{:03}'", random.u8(..24), random.u16(..1000))),
    ("datetime", |random| format!("'2024-02-29 {:02}:59:59'", random.u8(..24))),
    ("datetime(6)", |random| format!("'1999-12-31 23:59:59.{:06}'", random.u32(..1_000_000))),
    ("timestamp NULL", |random| format!("FROM_UNIXTIME({})", random.u32(1..i32::MAX as u32))),
    ("timestamp(2) NULL", |random| format!("FROM_UNIXTIME({}.25)", random.u32(1..i32::MAX as u32))),
    ("char(20)", |random| text(random, 20)),
    ("char(255)", |random| text(random, 255)),
    ("varchar(60)", |random| text(random, 60)),
    ("varchar(700)", |random| text(random, 700)),
    ("varchar(300) CHARACTER SET latin1", |random| text(random, 0).replace("''", "'ä'")),
    ("text", |random| text(random, 300)),
    ("longtext", |random| format!("REPEAT({}, {})", text(random, 20), random.u16(..2000))),
    ("binary(5)", |random| bytes(random, 5)),
    ("varbinary(300)", |random| bytes(random, 300)),
    ("blob", |random| bytes(random, 300)),
    ("enum('x','y','z')", |random| random.u8(1..=3).to_string()),
    ("set('a','b','c','d','e','f','g','h','i')", |random| random.u16(..512).to_string()),
    ("uuid", |_| "UUID()".to_owned()),
    ("inet4", |random| format!("'{}'", std::net::Ipv4Addr::from_bits(random.u32(..)))),
    ("inet6", |random| format!("'{}'", std::net::Ipv6Addr::from_bits(random.u128(..)))),
    ("geometry", |random| format!("ST_GeomFromText('POINT({} {})')", random.i16(..), random.i16(..))),
    ("json", |random| format!("'{{\"a\": {}}}'", random.u32(..))),
];

fn text(random: &mut fastrand::Rng, longest: usize) -> String {
    let pool = ['a', 'Z', '0', ' ', '\'', '\\', '\n', '\0', '\x7f', 'ä', '日', '😀'];
    let text: String = (0..random.usize(..=longest)).map(|_| *random.choice(&pool).unwrap()).collect();
    // what ends in spaces would lose them in a char
    let text = text.trim_end();
    if text.is_empty() { "''".to_owned() } else { format!("_utf8mb4 x'{}'", hex(text.as_bytes())) }
}

fn bytes(random: &mut fastrand::Rng, longest: usize) -> String {
    let bytes: Vec<u8> = (0..random.usize(..=longest)).map(|_| random.u8(..)).collect();
    format!("x'{}'", hex(&bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn value(random: &mut fastrand::Rng, column: usize) -> String {
    if random.u8(..6) == 0 { "NULL".to_owned() } else { COLUMNS[column].1(random) }
}

fn statement(random: &mut fastrand::Rng) -> String {
    let (id, other, column) = (random.u8(..40), random.u8(..40), random.usize(..COLUMNS.len()));
    let row = |random: &mut fastrand::Rng, id: u8| -> String {
        let values: Vec<String> = (0..COLUMNS.len()).map(|column| value(random, column)).collect();
        format!("({id}, {})", values.join(", "))
    };
    match random.u8(..18) {
        0..=2 => format!("INSERT IGNORE INTO every VALUES {}, {}", row(random, id), row(random, other)),
        3 => format!("REPLACE INTO every VALUES {}", row(random, id)),
        4 | 5 => format!("UPDATE every SET c{column} = {} WHERE k BETWEEN {id} AND {id} + 5", value(random, column)),
        6 => format!("UPDATE IGNORE every SET k = {other}, c{column} = NULL WHERE k = {id}"),
        7 => format!("DELETE FROM every WHERE k = {id}"),
        8 => format!("INSERT INTO pair VALUES ({id}, 'K{other}', {other}) ON DUPLICATE KEY UPDATE n = NULL"),
        9 => format!("INSERT IGNORE INTO pair SELECT k, CONCAT('k', {other}), c0 FROM every WHERE k < {id}"),
        10 => format!("UPDATE IGNORE pair SET b = UPPER(b), a = a + 1 WHERE a = {id}"),
        11 => format!("UPDATE every JOIN pair ON k = a SET c6 = {other}, n = n + 1 WHERE k < {id}"),
        12 => format!("DELETE every, pair FROM every JOIN pair ON k = a WHERE k = {id}"),
        13 => format!("UPDATE pair SET n = {other} WHERE a < {id} ORDER BY a LIMIT 3"),
        14 => format!("INSERT INTO bag VALUES ({id}, {0}), ({id}, {0}), (NULL, NULL)", text(random, 30)),
        15 => format!("UPDATE bag SET n = {other}, t = NULL WHERE n = {id}"),
        16 => format!("DELETE FROM bag WHERE n < {id} LIMIT 2"),
        _ => format!("SELECT * FROM bag WHERE n = {id}"),
    }
}

/// One session's work; that a key is there and a deadlock are a part of it.
async fn work(mut conn: Conn, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..150 {
        conn.query_drop("BEGIN").await.unwrap();
        for step in 0..random.usize(1..8) {
            let sql = match random.u8(..10) {
                0 => format!("SAVEPOINT s{}", step % 3),
                1 => format!("ROLLBACK TO s{}", random.u8(..3)),
                _ => statement(&mut random),
            };
            let _ = conn.query_drop(sql).await;
        }
        conn.query_drop(if random.u8(..6) == 0 { "ROLLBACK" } else { "COMMIT" }).await.unwrap();
    }
}

#[tokio::test]
async fn a_second_reader_of_the_log_lists_the_same_changes() {
    let Some(lab) = Lab::open("second").await else { return };
    let columns: Vec<String> = COLUMNS.iter().enumerate().map(|(number, (definition, _))| format!("c{number} {definition}")).collect();
    lab.run(&[
        &format!("CREATE TABLE every (k INT PRIMARY KEY, {})", columns.join(", ")),
        "CREATE TABLE pair (a SMALLINT UNSIGNED, b VARCHAR(40) COLLATE utf8mb4_bin, n BIGINT, PRIMARY KEY (b, a))",
        "CREATE TABLE bag (n INT, t TEXT)",
    ])
    .await;
    let tables = [lab.table("every").await, lab.table("pair").await, lab.table("bag").await];
    lab.run(&["FLUSH BINARY LOGS"]).await;
    let (first_file, from) = (newest_file(&lab).await, lab.here().await);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut working = tokio::task::JoinSet::new();
    for session in 0..3 {
        working.spawn(work(lab.conn().await, seed ^ session));
    }
    while let Some(done) = working.join_next().await {
        done.unwrap();
    }
    let marker = lab.mark("end").await;
    let told = Reader::new(lab.stream(&from, &tables).await).until(&marker).await.unwrap();
    let (changes, values) = agrees(&lab, &first_file, &tables, &told).await;
    assert!(changes > 500 && values > 5000, "{changes} changes, {values} values");
    lab.close().await;
}
