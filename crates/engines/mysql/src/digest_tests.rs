//! Digests, hashes and rows by key, on a real server.

use std::sync::Arc;

use godwit_model::{DigestPlan, Examiner, RowBatch, Table, Value};

use crate::connect::{Endpoint, Purpose, Sessions};
use crate::digest::ServerExaminer;
use crate::lab::{database, lab, mapping, run, table};
use crate::rows;

fn examiner(endpoint: &Endpoint) -> ServerExaminer {
    ServerExaminer::new(Arc::new(Sessions::new(endpoint.clone(), Purpose::Read)))
}

fn plan(table: &Table) -> DigestPlan {
    DigestPlan::of_source(&mapping(table), 16)
}

const COLUMNS: &str = "id int PRIMARY KEY, i bigint unsigned zerofill, f float, g double, m decimal(20,5), d date, t time(3), dt datetime(6), \
    ts timestamp NULL, y year, c char(10) character set utf8mb4, l varchar(20) character set latin1, x text character set utf8mb4, \
    e enum('a','b',''), s set('p','q'), b varbinary(20), lb longblob, fb binary(4), bits bit(12), geo point, u uuid";

/// Values that are not easily told apart.
fn row(random: &mut fastrand::Rng, id: i64) -> String {
    let pick = |random: &mut fastrand::Rng, values: &[&str]| values[random.usize(0..values.len())].to_owned();
    let values = [
        id.to_string(),
        pick(random, &["NULL", "0", "18446744073709551615", "7"]),
        pick(random, &["NULL", "0", "-0e0", "0.1", "1e30", "-1.5"]),
        pick(random, &["NULL", "0", "1e-300", "0.1", "0.30000000000000004", "0.3"]),
        pick(random, &["NULL", "0", "-0.00001", "123456789012345.00001"]),
        pick(random, &["NULL", "'0000-00-00'", "'2024-02-29'"]),
        pick(random, &["NULL", "'-838:59:59'", "'00:00:00.001'"]),
        pick(random, &["NULL", "'2024-02-29 00:00:00.000001'", "'0000-00-00 00:00:00'"]),
        pick(random, &["NULL", "'2024-03-31 01:30:00'"]),
        pick(random, &["NULL", "0", "1999"]),
        pick(random, &["NULL", "''", "'a'", "'A'", "'N'", "' a'"]),
        pick(random, &["NULL", "''", "'\u{e9}'", "'e'", "'a '", "'a'", "'\u{20ac}'"]),
        pick(random, &["NULL", "''", "'N'", "'1:N'", "repeat('\u{1f9a2}', 5000)", "'a '", "'a'"]),
        pick(random, &["NULL", "'a'", "'b'", "''"]),
        pick(random, &["NULL", "''", "'p,q'", "'q'"]),
        pick(random, &["NULL", "''", "x'00'", "x'0000'", "'N'"]),
        pick(random, &["NULL", "''", "repeat(x'ff00', 3000)", "x'00'"]),
        pick(random, &["NULL", "''", "x'00ff'"]),
        pick(random, &["NULL", "0", "4095"]),
        pick(random, &["NULL", "point(1, 2)", "point(2, 1)"]),
        pick(random, &["NULL", "'00000000-0000-0000-0000-000000000001'"]),
    ];
    format!("({})", values.join(", "))
}

#[tokio::test]
async fn equal_tables_agree_and_any_change_is_found() {
    let Some(endpoint) = lab() else { return };
    let mut conn = database(&endpoint, "lab_digest").await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    run(&mut conn, &format!("CREATE TABLE a ({COLUMNS}) ENGINE = InnoDB")).await;
    // another engine, other character sets and collations, no key
    let other = COLUMNS.replace(" PRIMARY KEY", "").replace("character set latin1", "character set utf8mb4 collate utf8mb4_bin");
    let other = other.replace("c char(10) character set utf8mb4", "c char(10) character set utf8mb3 collate utf8mb3_bin");
    run(&mut conn, &format!("CREATE TABLE b ({other}) ENGINE = Aria")).await;
    let mut rows: Vec<String> = (0..300).map(|id| row(&mut random, id)).collect();
    run(&mut conn, &format!("INSERT INTO a VALUES {}", rows.join(", "))).await;
    random.shuffle(&mut rows);
    run(&mut conn, &format!("INSERT INTO b VALUES {}", rows.join(", "))).await;

    let examiner = examiner(&endpoint);
    let plan_a = plan(&table(&mut conn, "lab_digest", "a").await);
    let plan_b = DigestPlan { table: godwit_model::TableName::new("lab_digest", "b"), ..plan_a.clone() };
    let sorted = |plan: DigestPlan| async {
        let plan = plan;
        let mut digest = examiner.digest(&plan).await.unwrap();
        digest.sort_by_key(|block| block.block);
        digest
    };
    let before = sorted(plan_a.clone()).await;
    assert_eq!(before.iter().map(|block| block.rows).sum::<u64>(), 300);
    assert_eq!(before, sorted(plan_b.clone()).await);

    // a session's own settings play no part
    let mut odd = endpoint.connect(Purpose::Read).await.unwrap();
    run(&mut odd, "SET NAMES latin1 COLLATE latin1_bin; SET SESSION sql_mode = '', max_sort_length = 64, div_precision_increment = 1")
        .await;
    let of_odd = ServerExaminer::of(odd);
    let mut seen = of_odd.digest(&plan_a).await.unwrap();
    seen.sort_by_key(|block| block.block);
    assert_eq!(seen, before);

    let columns: Vec<String> = plan_a.columns.iter().skip(1).map(|(name, _)| name.clone()).collect();
    let mut missed = Vec::new();
    for turn in 0..200 {
        let id = random.i64(0..300);
        let column = &columns[turn % columns.len()];
        let new = row(&mut random, id);
        run(&mut conn, &format!("REPLACE INTO a VALUES {new}")).await;
        // one column of it alone in the other table
        run(&mut conn, &format!("DELETE FROM b WHERE id = {id}; INSERT INTO b SELECT * FROM a WHERE id = {id}")).await;
        let same = sorted(plan_a.clone()).await;
        let changed = change(&mut conn, &mut random, column, id).await;
        let after = sorted(plan_b.clone()).await;
        if changed != (same != after) {
            missed.push(format!("{column} of {id}: {changed}"));
        }
        run(&mut conn, &format!("DELETE FROM b WHERE id = {id}; INSERT INTO b SELECT * FROM a WHERE id = {id}")).await;
        assert_eq!(sorted(plan_b.clone()).await, same, "put back");
    }
    assert!(missed.is_empty(), "{missed:?}");
}

/// Gives one column another value; whether the bytes now differ.
async fn change(conn: &mut mysql_async::Conn, random: &mut fastrand::Rng, column: &str, id: i64) -> bool {
    use mysql_async::prelude::Queryable;
    let value = {
        let new = format!("(SELECT {column} FROM a WHERE id = {})", random.i64(0..300));
        let one_byte = format!("IF({column} IS NULL OR {column} = '', 'Q', INSERT({column}, LENGTH({column}), 1, 'Q'))");
        if ["x", "lb", "b", "l"].contains(&column) && random.bool() { one_byte } else { new }
    };
    run(conn, &format!("UPDATE b SET {column} = {value} WHERE id = {id}")).await;
    let bytes = match column {
        "f" | "g" => format!("CAST(CAST({column} AS DOUBLE) AS CHAR)"),
        "geo" => "HEX(geo)".to_owned(),
        "bits" => "bits + 0".to_owned(),
        _ => format!("HEX(CONVERT(CAST({column} AS CHAR) USING utf8mb4))"),
    };
    let bytes = if ["b", "lb", "fb"].contains(&column) { format!("HEX({column})") } else { bytes };
    let sql = format!("SELECT NOT ((SELECT {bytes} FROM a WHERE id = {id}) <=> CAST((SELECT {bytes} FROM b WHERE id = {id}) AS BINARY))");
    conn.query_first::<bool, _>(sql).await.unwrap().unwrap()
}

#[tokio::test]
async fn duplicates_and_large_sums_are_counted() {
    let Some(endpoint) = lab() else { return };
    let mut conn = database(&endpoint, "lab_sums").await;
    run(&mut conn, "CREATE TABLE t (v varchar(9)); INSERT INTO t SELECT 'same' FROM seq_1_to_5000").await;
    let shape = table(&mut conn, "lab_sums", "t").await;
    let examiner = examiner(&endpoint);
    let digest = examiner.digest(&plan(&shape)).await.unwrap();
    assert_eq!(digest.len(), 1);
    let hashes = examiner.hashes(&plan(&shape), &[digest[0].block]).await.unwrap();
    assert_eq!(hashes.len(), 5000);
    assert!(hashes.iter().all(|row| row.key.is_empty()));
    assert_eq!(digest[0].sum, hashes.iter().map(|row| u128::from(row.hash)).sum::<u128>());
    assert!(digest[0].sum > u128::from(u64::MAX), "more than 64 bits are kept");
}

#[tokio::test]
async fn hashes_follow_their_keys() {
    let Some(endpoint) = lab() else { return };
    let mut conn = database(&endpoint, "lab_hashes").await;
    run(&mut conn, "CREATE TABLE t (a varchar(20) character set latin1, v int, b int, PRIMARY KEY (b, a))").await;
    run(&mut conn, "INSERT INTO t SELECT concat('\u{e9}''', seq), seq, seq % 3 FROM seq_1_to_900").await;
    let shape = table(&mut conn, "lab_hashes", "t").await;
    let (plan, examiner) = (plan(&shape), examiner(&endpoint));
    let all: Vec<u32> = (0..16).collect();
    let hashes = examiner.hashes(&plan, &all).await.unwrap();
    assert_eq!(hashes.len(), 900);
    for block in examiner.digest(&plan).await.unwrap() {
        let inside = examiner.hashes(&plan, &[block.block]).await.unwrap();
        assert_eq!((inside.len() as u64, inside.iter().map(|row| u128::from(row.hash)).sum()), (block.rows, block.sum));
    }
    let mut keys = RowBatch::new(2);
    let mut expected = Vec::new();
    for (at, row) in hashes.iter().enumerate() {
        keys.push(row.key.clone());
        expected.push(Some(row.hash));
        if at % 100 == 0 {
            keys.push([Value::Int(77), Value::text("gone")]);
            expected.push(None);
        }
    }
    assert_eq!(examiner.hashes_of(&plan, &keys).await.unwrap(), expected);
    assert!(examiner.hashes_of(&plan, &RowBatch::new(2)).await.unwrap().is_empty());

    let found = rows::by_key(&mut conn, &mapping(&shape), &keys).await.unwrap();
    assert_eq!(found.len(), 900);
    let mut numbers: Vec<Value> = found.rows().map(|row| row[1].clone()).collect();
    numbers.sort_by_key(|value| if let Value::Int(number) = value { *number } else { -1 });
    assert_eq!(numbers, (1..=900).map(Value::Int).collect::<Vec<_>>());
    assert!(found.rows().all(|row| row[0] == Value::text(format!("\u{e9}'{}", if let Value::Int(n) = row[1] { n } else { 0 }))));
}
