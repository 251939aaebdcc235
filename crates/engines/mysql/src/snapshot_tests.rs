//! Chunks, readers and exactness, on a real server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use godwit_model::{Chunk, ChunkEnd, LoadBlock, ReadSpec, Result, Row, Snapshot, Table, Value, codes};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::connect::{Endpoint, Purpose};
use crate::lab::{database, lab, mapping, run, table, texts};
use crate::snapshot::{ConsistentSnapshot, Opened, certain_place, prepared};

async fn open(endpoint: &Endpoint, wanted: usize) -> Opened {
    ConsistentSnapshot::open(endpoint, wanted).await.unwrap()
}

async fn read_chunk(snapshot: &dyn Snapshot, table: &Table, chunk: &Chunk) -> Result<(Vec<Row>, ChunkEnd)> {
    let mapping = mapping(table);
    let mut reader = snapshot.read(&ReadSpec { mapping: &mapping, chunk, native: true, block_bytes: 4096 }).await?;
    let mut rows = Vec::new();
    while let Some(block) = reader.next().await? {
        let LoadBlock::Rows(batch) = block else { panic!("rows were asked for") };
        assert!(batch.weight() <= 4096 || batch.len() == 1, "a block holds what was asked for");
        rows.extend(batch.rows().map(<[Value]>::to_vec));
    }
    let end = reader.finish().await?;
    if let ChunkEnd::Valid { rows: counted } = end {
        assert_eq!(counted, rows.len() as u64);
    }
    Ok((rows, end))
}

/// Every row of all chunks, told apart by its last column (a number), each chunk given back by its text alone.
async fn read_all(snapshot: &dyn Snapshot, table: &Table, chunks: &[Chunk]) -> Vec<i64> {
    let mut found = Vec::new();
    for chunk in chunks {
        let again = Chunk { spec: chunk.spec.clone(), estimated_rows: 0 };
        let (rows, end) = read_chunk(snapshot, table, &again).await.unwrap();
        assert!(matches!(end, ChunkEnd::Valid { .. }), "{chunk:?}");
        found.extend(rows.iter().map(|row| number(row.last().unwrap())));
    }
    found.sort_unstable();
    found
}

fn number(value: &Value) -> i64 {
    let Value::Int(number) = value else { panic!("a number, not {value:?}") };
    *number
}

/// A key's columns, the key, and the values of row number `seq` (1 to 700); then of rows before and behind all others.
const KEYS: &[(&str, &str, &str, &str, &str)] = &[
    ("a int", "a", "seq * 7 - 2000", "-2147483648", "2147483647"),
    ("a bigint unsigned", "a", "18446744073709551615 - seq * 3 * 1000000007", "0", "18446744073709551615"),
    ("a smallint unsigned zerofill", "a", "seq * 5", "0", "65535"),
    ("a decimal(30,4)", "a", "(seq - 350) * 12345678901234.0625", "-99999999999999999999999999", "99999999999999999999999999"),
    ("a double", "a", "(seq - 350) / 3", "-1e300", "1e300"),
    ("a float", "a", "(seq - 350) / 7", "-1e30", "1e30"),
    ("a date", "a", "date_add('0001-01-01', interval seq * 1000 day)", "'0000-00-00'", "'9999-12-31'"),
    (
        "a datetime(6)",
        "a",
        "date_add('1999-12-31 23:59:59.5', interval seq * 1234567 microsecond)",
        "'0000-00-00'",
        "'9999-12-31 23:59:59.999999'",
    ),
    (
        "a timestamp(3) not null default '2000-01-01'",
        "a",
        "from_unixtime(seq * 1000000 + 0.123)",
        "'0000-00-00'",
        "'2038-01-19 03:14:07.999'",
    ),
    ("a time(2)", "a", "sec_to_time((seq - 350) * 5000 + 0.25)", "'-838:59:59'", "'838:59:59'"),
    ("a year, b int", "a, b", "1901 + seq % 200, seq", "0, 0", "2155, 9999"),
    ("a bit(40)", "a", "seq * 1000000000", "0", "1099511627775"),
    (
        "a varchar(60) character set utf8mb4 collate utf8mb4_general_ci",
        "a",
        "concat(char(65 + (seq * 37) % 26), '\u{e9}''\\\\', seq)",
        "''",
        "'\u{1f9a2}\u{1f9a2}'",
    ),
    (
        "a varchar(60) character set utf8mb4 collate utf8mb4_nopad_bin",
        "a",
        "concat(if(seq % 2, 'K', 'k'), repeat(' ', seq % 3), seq)",
        "''",
        "'\u{1f9a2}'",
    ),
    (
        "a varchar(60) character set latin1 collate latin1_german2_ci",
        "a",
        "concat('\u{fc}\u{df}', char(65 + seq % 20), seq)",
        "''",
        "'\u{ff}\u{ff}'",
    ),
    ("a char(20) character set ucs2 collate ucs2_unicode_ci", "a", "concat('\u{416}', seq)", "''", "'\u{2fff}'"),
    ("a binary(16)", "a", "unhex(md5(seq))", "x'00'", "repeat(x'ff', 16)"),
    ("a varbinary(40)", "a", "concat(unhex(sha1(seq)), x'0027')", "''", "repeat(x'ff', 40)"),
    ("a enum('z','m','a'), b set('q','p','r'), c int", "a, b, c", "1 + seq % 3, seq % 8, seq % 90", "1, 0, -1", "3, 7, 999"),
    (
        "a uuid",
        "a",
        "concat(left(md5(seq), 8), '-0000-1000-8000-', right(md5(seq), 12))",
        "'00000000-0000-0000-0000-000000000000'",
        "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
    ),
    ("a inet6", "a", "inet6_ntoa(unhex(md5(seq)))", "'::'", "'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'"),
    (
        "a int, b varchar(9) character set latin1, c date",
        "a, b, c",
        "seq div 200, char(97 + seq % 3), date_add('2020-01-01', interval seq day)",
        "-1, '', '0000-00-00'",
        "99, '', '0000-00-00'",
    ),
    ("a varbinary(3), b tinyint, c decimal(5,2)", "c, a, b", "char(seq % 2), seq % 5 - 2, seq / 7", "'', 0, -999.99", "'', 0, 999.99"),
];

#[tokio::test]
async fn every_row_is_in_one_chunk_for_every_kind_of_key() {
    let Some(endpoint) = lab() else { return };
    let mut conn = database(&endpoint, "lab_keys").await;
    for (index, (columns, key, values, first, last)) in KEYS.iter().enumerate() {
        let name = format!("t{index}");
        run(&mut conn, &format!("CREATE TABLE {name} ({columns}, n bigint NOT NULL, PRIMARY KEY ({key})) ENGINE = InnoDB")).await;
        run(&mut conn, &format!("INSERT IGNORE INTO {name} SELECT {values}, seq FROM (SELECT CAST(seq AS SIGNED) AS seq FROM seq_1_to_700) AS s ORDER BY rand()")).await;
        let shape = table(&mut conn, "lab_keys", &name).await;
        let before = all(&mut conn, &name).await;
        assert!(before.len() >= 300, "{columns}: {} rows", before.len());

        let planner = open(&endpoint, 1).await.snapshot;
        for chunk_bytes in [1, 3_000, 1 << 30] {
            let chunks = planner.plan(&shape, chunk_bytes).await.unwrap_or_else(|error| panic!("{columns}: {error:?}"));
            assert!((chunk_bytes > 3_000) == (chunks.len() == 1), "{columns}: {} chunks", chunks.len());
            assert_eq!(read_all(&planner, &shape, &chunks).await, before, "{columns}");
        }

        // rows come at both ends, and another process reads the plan's chunks
        let chunks = planner.plan(&shape, 1).await.unwrap();
        run(&mut conn, &format!("INSERT INTO {name} VALUES ({first}, 1000001), ({last}, 1000002)")).await;
        let other = open(&endpoint, 2).await.snapshot;
        let after = all(&mut conn, &name).await;
        assert_eq!(after.len(), before.len() + 2);
        assert_eq!(read_all(&other, &shape, &chunks).await, after, "{columns}");
        assert_eq!(read_all(&planner, &shape, &chunks).await, before, "{columns}");
    }
}

async fn all(conn: &mut Conn, name: &str) -> Vec<i64> {
    conn.query(format!("SELECT n FROM {name} ORDER BY n")).await.unwrap()
}

#[tokio::test]
async fn a_chunk_reads_its_own_rows_alone() {
    let Some(endpoint) = lab() else { return };
    let mut conn = database(&endpoint, "lab_range").await;
    run(
        &mut conn,
        "CREATE TABLE t (a int, b varchar(20), c bigint, e enum('x','y','z'), f varbinary(50), n int, PRIMARY KEY (e, a, b, c), KEY (n))",
    )
    .await;
    run(&mut conn, "INSERT INTO t SELECT seq % 7, concat('k', seq % 40), seq, 1 + seq % 3, repeat('f', 50), seq FROM seq_1_to_20000").await;
    run(&mut conn, "ANALYZE TABLE t").await;
    let shape = table(&mut conn, "lab_range", "t").await;
    let snapshot = open(&endpoint, 1).await.snapshot;
    let chunks = snapshot.plan(&shape, 100_000).await.unwrap();
    assert!(chunks.len() > 10);
    let walked = |conn: Conn| async move {
        let mut conn = conn;
        let counted: Vec<(String, u64)> = conn.query("SHOW SESSION STATUS LIKE 'Handler_read%'").await.unwrap();
        (conn, counted.iter().map(|(_, count)| count).sum::<u64>())
    };
    for chunk in &chunks {
        let range = crate::chunks::KeyRange::parse(&chunk.spec).unwrap();
        let key: Vec<_> = shape.key.iter().flat_map(|key| &key.columns).map(|at| &shape.columns[*at]).collect();
        let parts: Vec<_> = key.iter().map(|column| crate::chunks::Part::of(&column.name, &column.type_name).unwrap()).collect();
        let before;
        (conn, before) = walked(conn).await;
        let rows: Vec<u64> = conn.query(format!("SELECT n FROM t{}", range.condition(&parts).unwrap())).await.unwrap();
        let after;
        (conn, after) = walked(conn).await;
        assert!(after - before < rows.len() as u64 + 50, "{} reads for {} rows", after - before, rows.len());
    }
}

#[tokio::test]
async fn a_table_without_a_key_is_one_chunk() {
    let Some(endpoint) = lab() else { return };
    let mut conn = database(&endpoint, "lab_bag").await;
    run(&mut conn, "CREATE TABLE t (v varchar(300), n bigint)").await;
    run(&mut conn, "INSERT INTO t SELECT repeat('x', 300), seq % 100 FROM seq_1_to_5000").await;
    let shape = table(&mut conn, "lab_bag", "t").await;
    let snapshot = open(&endpoint, 1).await.snapshot;
    let chunks = snapshot.plan(&shape, 1).await.unwrap();
    assert_eq!(chunks.len(), 1);
    assert_eq!(read_all(&snapshot, &shape, &chunks).await.len(), 5000);
}

/// What is done to a table between a snapshot and its reading, and whether the snapshot may still be read: an older view
/// shows fewer rows, or others, without a word.
const ALTERED: &[(&str, &str)] = &[
    ("TRUNCATE t", "stale"),
    ("ALTER TABLE t FORCE", "stale"),
    ("ALTER TABLE t DROP PARTITION p0", "stale"),
    ("ALTER TABLE t TRUNCATE PARTITION p0", "stale"),
    ("ALTER TABLE t DROP COLUMN v, ADD COLUMN v varchar(20) DEFAULT 'new'", "stale"),
    ("RENAME TABLE t TO old, other TO t", "stale"),
    ("DROP TABLE t; CREATE TABLE t LIKE other", "stale"),
    ("DROP TABLE t", "missing"),
    ("ALTER TABLE t DROP COLUMN v", "error"),
    ("ALTER TABLE t RENAME COLUMN v TO w", "error"),
];

#[tokio::test]
async fn a_table_that_changed_never_gives_fewer_rows() {
    let Some(endpoint) = lab() else { return };
    for touched in [false, true] {
        for (ddl, expected) in ALTERED {
            let mut conn = database(&endpoint, "lab_altered").await;
            let parts = "PARTITION BY RANGE (n) (PARTITION p0 VALUES LESS THAN (500), PARTITION p1 VALUES LESS THAN MAXVALUE)";
            run(&mut conn, &format!("CREATE TABLE t (v varchar(20), n bigint PRIMARY KEY) {parts}")).await;
            run(&mut conn, "CREATE TABLE other LIKE t; INSERT INTO other VALUES ('o', 1)").await;
            run(&mut conn, "INSERT INTO t SELECT 'old', seq FROM seq_1_to_1000").await;
            let shape = table(&mut conn, "lab_altered", "t").await;
            let snapshot = open(&endpoint, 1).await.snapshot;
            let chunks = snapshot.plan(&shape, 1).await.unwrap();
            let reader = if touched { &snapshot } else { &open(&endpoint, 1).await.snapshot };
            let mut before = Vec::new();
            for chunk in &chunks {
                before.push(read_chunk(reader, &shape, chunk).await.unwrap().0);
            }
            assert_eq!(before.iter().map(Vec::len).sum::<usize>(), 1000);
            // the server's clock of definitions has whole seconds
            run(&mut conn, "DO SLEEP(1.1); SET lock_wait_timeout = 2").await;
            run(&mut conn, ddl).await;
            let mut ends = Vec::new();
            for (chunk, before) in chunks.iter().zip(&before) {
                ends.push(match read_chunk(&snapshot, &shape, chunk).await {
                    // of a partition that nobody touched
                    Ok((rows, ChunkEnd::Valid { .. })) if rows == *before => "valid",
                    Ok((_, ChunkEnd::Valid { .. })) => "wrong",
                    Ok((_, ChunkEnd::Stale)) => "stale",
                    Err(error) if error.is(&codes::TABLE_MISSING) => "missing",
                    Err(_) => "error",
                });
            }
            let others = ends.iter().filter(|end| *end != expected).count();
            let allowed = if ddl.contains("TRUNCATE PARTITION") { "valid" } else { expected };
            assert!(others < ends.len() && ends.iter().all(|end| end == expected || *end == allowed), "{ddl}, {touched}: {ends:?}");
        }
    }
}

#[tokio::test]
async fn a_reader_that_is_dropped_stops_its_statement_and_keeps_the_moment() {
    let Some(endpoint) = lab() else { return };
    let mut conn = database(&endpoint, "lab_dropped").await;
    run(&mut conn, "CREATE TABLE t (n bigint); INSERT INTO t SELECT seq FROM seq_1_to_200").await;
    // its rows take minutes
    run(&mut conn, "CREATE VIEW slow AS SELECT CONCAT(REPEAT('x', 40000), SLEEP(0.05)) AS v, seq AS n FROM seq_1_to_4000").await;
    let (shape, slow) = (table(&mut conn, "lab_dropped", "t").await, mapping(&table(&mut conn, "lab_dropped", "slow").await));
    let snapshot = open(&endpoint, 1).await.snapshot;
    let chunks = snapshot.plan(&shape, 1 << 20).await.unwrap();
    run(&mut conn, "DELETE FROM t WHERE n > 100").await;
    let running = "SELECT 1 FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT `v`%lab_dropped%'";
    for _ in 0..3 {
        let chunk = Chunk { spec: "key1 any - -".into(), estimated_rows: 0 };
        let spec = ReadSpec { mapping: &slow, chunk: &chunk, native: true, block_bytes: 4096 };
        let mut reader = snapshot.read(&spec).await.unwrap();
        reader.next().await.unwrap();
        assert_eq!(texts(&mut conn, running).await.len(), 1, "the statement is under way");
        drop(reader);
    }
    // waits for the one seat, which comes back
    let found = tokio::time::timeout(Duration::from_secs(10), read_all(&snapshot, &shape, &chunks)).await.unwrap();
    assert_eq!(found.len(), 200, "the moment of the snapshot is still there");
    assert!(texts(&mut conn, running).await.is_empty());
}

#[tokio::test]
async fn a_snapshot_that_is_dropped_lets_the_server_go_on() {
    let Some(endpoint) = lab() else { return };
    let mut conn = database(&endpoint, "lab_gone").await;
    run(&mut conn, "CREATE TABLE t (v longblob, n bigint)").await;
    run(&mut conn, "INSERT INTO t SELECT repeat('v', 200000), seq FROM seq_1_to_200").await;
    let shape = table(&mut conn, "lab_gone", "t").await;
    let snapshot = open(&endpoint, 2).await.snapshot;
    let chunks = snapshot.plan(&shape, 1 << 20).await.unwrap();
    let mapping = mapping(&shape);
    let spec = ReadSpec { mapping: &mapping, chunk: &chunks[0], native: true, block_bytes: 4096 };
    let mut reader = snapshot.read(&spec).await.unwrap();
    reader.next().await.unwrap();
    drop((reader, snapshot));
    run(&mut conn, "SET lock_wait_timeout = 5; ALTER TABLE t COMMENT 'altered'").await;
}

#[tokio::test]
async fn rows_of_a_megabyte_pass_in_little_memory() {
    let Some(endpoint) = lab() else { return };
    let mut conn = database(&endpoint, "lab_large").await;
    run(&mut conn, "SET SESSION sql_log_bin = 0; CREATE TABLE t (n bigint PRIMARY KEY, v longblob)").await;
    run(&mut conn, "INSERT INTO t SELECT seq, repeat(char(65 + seq % 26), 1048576) FROM seq_1_to_200").await;
    let shape = table(&mut conn, "lab_large", "t").await;
    let snapshot = open(&endpoint, 1).await.snapshot;
    let chunks = snapshot.plan(&shape, 1 << 30).await.unwrap();
    let (mapping, before) = (mapping(&shape), resident());
    let (mut rows, mut most) = (0, 0);
    for chunk in &chunks {
        let spec = ReadSpec { mapping: &mapping, chunk, native: true, block_bytes: 256 << 10 };
        let mut reader = snapshot.read(&spec).await.unwrap();
        while let Some(LoadBlock::Rows(batch)) = reader.next().await.unwrap() {
            assert_eq!(batch.len(), 1, "such a row is a block by itself");
            rows += 1;
            most = most.max(resident().saturating_sub(before));
        }
        assert!(matches!(reader.finish().await.unwrap(), ChunkEnd::Valid { .. }));
    }
    assert_eq!(rows, 200);
    assert!(most < 40 << 20, "{most} bytes more than before");
    run(&mut conn, "DROP DATABASE lab_large").await;
}

fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse::<usize>().unwrap();
    pages * 4096
}

const WRITERS: i64 = 4;
const ACCOUNTS: i64 = 1000;

/// Moves money between accounts that lie far apart, until it is told to stop.
async fn transfer(endpoint: Endpoint, seed: u64, stop: Arc<AtomicBool>) {
    let mut conn = endpoint.connect(Purpose::Write).await.unwrap();
    let mut random = fastrand::Rng::with_seed(seed);
    while !stop.load(Ordering::Relaxed) {
        let (mut from, mut to, amount) = (random.i64(0..ACCOUNTS), random.i64(0..ACCOUNTS), random.i64(1..100));
        (from, to) = (from.min(to), from.max(to));
        let sql = format!(
            "BEGIN; UPDATE lab_bank.account SET balance = balance - {amount} WHERE id = {from}; \
             UPDATE lab_bank.account SET balance = balance + {amount} WHERE id = {to}; COMMIT"
        );
        if conn.query_drop(sql).await.is_err() {
            run(&mut conn, "ROLLBACK").await;
        }
        tokio::time::sleep(Duration::from_micros(random.u64(0..300))).await;
    }
}

/// What every monitoring does; the server then tells others a wrong place.
async fn monitor(endpoint: Endpoint, stop: Arc<AtomicBool>) {
    let mut conn = endpoint.connect(Purpose::Read).await.unwrap();
    while !stop.load(Ordering::Relaxed) {
        run(&mut conn, "SHOW GLOBAL STATUS LIKE 'binlog%'").await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What a transaction looks at does not move, whatever the server says of it while others ask.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_is_believed_only_if_it_is_the_connections_own() {
    let Some(endpoint) = lab() else { return };
    let mut conn = database(&endpoint, "lab_place").await;
    run(&mut conn, "CREATE TABLE t (n bigint)").await;
    let stop = Arc::new(AtomicBool::new(false));
    let monitors: Vec<_> = (0..2).map(|_| tokio::spawn(monitor(endpoint.clone(), stop.clone()))).collect();
    let mut wrong = 0;
    for _ in 0..20 {
        let mut own = prepared(&endpoint).await.unwrap();
        run(&mut own, "START TRANSACTION WITH CONSISTENT SNAPSHOT").await;
        let first = certain_place(&mut own).await.unwrap();
        assert!(first.is_some());
        for _ in 0..60 {
            // so that another answer than its own differs
            run(&mut conn, "INSERT INTO t VALUES (1)").await;
            wrong += usize::from(certain_place(&mut own).await.unwrap() != first);
        }
    }
    stop.store(true, Ordering::Relaxed);
    for monitor in monitors {
        monitor.await.unwrap();
    }
    assert_eq!(wrong, 0, "of 1200");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_connections_show_one_state_of_the_store() {
    let Some(endpoint) = lab() else { return };
    let mut conn = database(&endpoint, "lab_bank").await;
    run(&mut conn, "CREATE TABLE account (id bigint PRIMARY KEY, balance bigint NOT NULL)").await;
    run(&mut conn, &format!("INSERT INTO account SELECT seq, 1000 FROM seq_0_to_{}", ACCOUNTS - 1)).await;
    let shape = table(&mut conn, "lab_bank", "account").await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS).map(|seed| tokio::spawn(transfer(endpoint.clone(), seed as u64, stop.clone()))).collect();

    let monitor = tokio::spawn(monitor(endpoint.clone(), stop.clone()));
    let mut wrong = 0;
    for _ in 0..25 {
        let opened = open(&endpoint, 4).await;
        let snapshot = opened.snapshot;
        assert!(opened.place.is_some() && snapshot.is_exact());
        let chunks = snapshot.plan(&shape, 1).await.unwrap();
        assert!(chunks.len() > 8);
        let sums = futures_util::future::try_join_all(chunks.iter().map(|chunk| read_chunk(&snapshot, &shape, chunk))).await.unwrap();
        let sum: i64 = sums.iter().flat_map(|(rows, _)| rows).map(|row| number(&row[1])).sum();
        let rows: usize = sums.iter().map(|(rows, _)| rows.len()).sum();
        assert_eq!(rows, ACCOUNTS as usize);
        wrong += usize::from(sum != ACCOUNTS * 1000);
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    monitor.await.unwrap();
    let left: i64 = conn.query_first("SELECT CAST(SUM(balance) AS SIGNED) FROM account").await.unwrap().unwrap();
    assert_eq!(left, ACCOUNTS * 1000, "no transfer was made by half");
    assert_eq!(wrong, 0, "of 25 snapshots");
}
