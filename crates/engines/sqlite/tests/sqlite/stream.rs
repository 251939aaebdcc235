//! The change stream: positions, markers, trims, schema changes, concurrent writers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use godwit_model::*;

use crate::world::{Replay, Stream, World};

const ONE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v);";

#[tokio::test]
async fn a_stream_goes_on_behind_its_last_position() {
    let world = World::new(ONE);
    let mut stream = Stream::begin(&world).await;
    let user = world.user();
    user.execute_batch("INSERT INTO t VALUES (1, 'a'), (2, 'b')").unwrap();
    let mut replay = Replay::default();
    replay.take_all(stream.drain().await);
    let at = stream.last.clone();
    drop(stream.changes);
    user.execute_batch("UPDATE t SET v = 'c' WHERE id = 1; DELETE FROM t WHERE id = 2").unwrap();
    let tables = world.tables().await;
    assert!(stream.source.establish(&tables, Some(&at)).await.unwrap().snapshot.is_none());
    stream.changes = stream.source.changes(&at, &tables).await.unwrap();
    replay.take_all(stream.drain().await);
    assert_eq!(replay.operations, ["Insert t", "Insert t", "Update t", "Delete t"]);
    replay.assert_equals(&user, "t", "*");
}

#[tokio::test]
async fn confirmed_changes_are_trimmed_and_positions_never_come_again() {
    let world = World::new(ONE);
    let mut stream = Stream::begin(&world).await;
    let first = stream.last.clone();
    let user = world.user();
    user.execute_batch("WITH RECURSIVE s(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM s WHERE x < 5000) INSERT INTO t SELECT x, 0 FROM s")
        .unwrap();
    stream.drain().await;
    let at = stream.last.clone();
    stream.changes.confirm(&at).await.unwrap();
    let left: i64 = user.query_row("SELECT count(*) FROM godwit_change_shop", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 1);
    let tables = world.tables().await;
    assert!(stream.source.changes(&first, &tables).await.err().unwrap().is(&codes::POSITION_LOST));
    user.execute_batch("DELETE FROM t WHERE id = 7").unwrap();
    let mut again = stream.source.changes(&at, &tables).await.unwrap();
    assert!(matches!(again.next().await.unwrap(), Captured::Begin));
    drop(again);
    stream.drain().await;
    let number = |position: &Position| position.to_string().parse::<i64>().unwrap();
    assert!(number(&stream.last) > number(&at));
}

#[tokio::test]
async fn a_row_over_the_limit_is_refused_with_its_table_and_key() {
    let mut world = World::new(ONE);
    world.task.limits.memory = ByteCount(8 << 20);
    let mut stream = Stream::begin(&world).await;
    let user = world.user();
    user.execute_batch("INSERT INTO t VALUES (1, zeroblob(2000000))").unwrap();
    stream.drain().await;
    user.execute_batch("UPDATE t SET v = 'small'; INSERT INTO t VALUES (4711, zeroblob(3000000))").unwrap();
    let refused = loop {
        if let Err(refused) = stream.changes.next().await {
            break refused;
        }
    };
    assert!(refused.is(&codes::VALUE_TOO_LARGE), "{refused:?}");
    assert_eq!(refused.place(), Some("table main.t"));
    assert!(refused.detail_text().unwrap().contains("4711") && !refused.what().contains("4711"), "{refused:?}");
    world.task.limits.memory = ByteCount(32 << 20);
    stream.source = world.source();
    stream.changes = stream.source.changes(&stream.last, &world.tables().await).await.unwrap();
    let changes: usize = stream.drain().await.iter().map(|item| if let Captured::Changes(batch) = item { batch.len() } else { 0 }).sum();
    assert_eq!(changes, 2);
}

#[tokio::test]
async fn a_position_ahead_of_the_file_is_refused() {
    let world = World::new(ONE);
    let stream = Stream::begin(&world).await;
    let ahead = Position::from((stream.last.to_string().parse::<i64>().unwrap() + 5).to_string());
    let tables = world.tables().await;
    assert!(stream.source.changes(&ahead, &tables).await.err().unwrap().is(&codes::SOURCE_CHANGED));
    let garbage = Position::from("0/16B3748".to_owned());
    assert!(stream.source.changes(&garbage, &tables).await.err().unwrap().is(&codes::POSITION_LOST));
}

#[tokio::test]
async fn establishing_anew_forgets_the_old_log() {
    let world = World::new(ONE);
    let stream = Stream::begin(&world).await;
    let old = stream.last.clone();
    let again = Stream::begin(&world).await;
    let tables = world.tables().await;
    assert!(again.source.establish(&tables, Some(&old)).await.is_err());
}

async fn error_after(ddl: &str) -> Error {
    let world = World::new("CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE TABLE other (a)");
    let mut world_task = world.task.clone();
    world_task.select.except = vec!["main.other".into()];
    let world = World { task: world_task, ..world };
    let mut stream = Stream::begin(&world).await;
    let user = world.user();
    user.execute_batch(ddl).unwrap();
    user.execute_batch("PRAGMA user_version = 5").unwrap();
    loop {
        if let Err(error) = stream.changes.next().await {
            return error;
        }
    }
}

#[tokio::test]
async fn schema_changes_stop_the_stream() {
    for ddl in [
        "ALTER TABLE t ADD COLUMN w",
        "ALTER TABLE t RENAME COLUMN v TO w",
        "ALTER TABLE t RENAME TO t2",
        "CREATE UNIQUE INDEX u ON t (v)",
        "CREATE TRIGGER mine AFTER INSERT ON t BEGIN SELECT 1; END",
        "DROP TABLE t",
    ] {
        let error = error_after(ddl).await;
        assert!(error.is(&codes::DDL_STOPPED), "{ddl}: {error}");
    }
}

#[tokio::test]
async fn a_key_that_came_or_went_before_the_triggers_stops_the_stream() {
    for (made, altered) in [
        ("CREATE TABLE t (id INTEGER NOT NULL, v)", "CREATE UNIQUE INDEX u ON t (id)"),
        ("CREATE TABLE t (id INTEGER NOT NULL, v); CREATE UNIQUE INDEX u ON t (id)", "DROP INDEX u"),
        ("CREATE TABLE t (a TEXT NOT NULL, b TEXT NOT NULL); CREATE UNIQUE INDEX u ON t (a, b)", "CREATE UNIQUE INDEX v ON t (a)"),
    ] {
        let world = World::new(made);
        let (source, described) = (world.source(), world.tables().await);
        world.user().execute_batch(altered).unwrap();
        let established = source.establish(&described, None).await.unwrap();
        let error = source.changes(&established.position, &described).await.err().expect(altered);
        assert!(error.is(&codes::DDL_STOPPED) && error.what().contains("key"), "{altered}: {error}");
        source.changes(&established.position, &world.tables().await).await.expect("as it is now");
    }
}

#[tokio::test]
async fn a_rebuilt_table_is_out_of_sight() {
    let error =
        error_after("CREATE TABLE n (id INTEGER PRIMARY KEY, v); INSERT INTO n SELECT * FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t")
            .await;
    assert!(error.is(&codes::OUT_OF_SIGHT), "{error}");
    let error = error_after("DROP TRIGGER godwit_2_ai_shop").await;
    assert!(error.is(&codes::OUT_OF_SIGHT), "{error}");
}

#[tokio::test]
async fn schema_changes_of_other_tables_and_vacuum_change_nothing() {
    let world = World::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE TABLE other (a); CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END;",
    );
    let mut stream = Stream::begin(&world).await;
    let user = world.user();
    user.execute_batch(
        "INSERT INTO t VALUES (1, 1); CREATE TABLE more (a); CREATE INDEX i ON t (v); VACUUM; ANALYZE; INSERT INTO t VALUES (2, 2);",
    )
    .unwrap();
    let mut replay = Replay::default();
    replay.take_all(stream.drain().await);
    replay.assert_equals(&user, "t", "*");
}

#[tokio::test]
async fn odd_names_and_values_keep_their_storage_class() {
    let schema = "CREATE TABLE \"Order\" (\"select\" TEXT PRIMARY KEY NOT NULL, \"a b\" REAL, c INT, d BLOB);
         CREATE TABLE \"a b\" (id INTEGER PRIMARY KEY, x); CREATE TABLE \"x\"\"y\" (id INTEGER PRIMARY KEY, \"q\"\"r\"); CREATE TABLE ünï (ä INTEGER PRIMARY KEY, ö);
         CREATE TABLE st (a TEXT PRIMARY KEY, b ANY) STRICT;";
    let world = World::new(schema);
    let mut stream = Stream::begin(&world).await;
    let user = world.user();
    user.execute_batch(
        "INSERT INTO \"Order\" VALUES ('', 1, '2', '3'), ('a''b', 1.5, 'x', x'00ff'), (CAST(x'fffe' AS TEXT), NULL, 2.5, 9e999);
         INSERT INTO \"a b\" VALUES (1, 1), (2, 1.0), (3, '1'), (4, x'31'), (5, NULL), (6, ''), (7, 'a' || char(0) || 'b'), (8, -9e999), (9, 9223372036854775807);
         INSERT INTO \"x\"\"y\" VALUES (1, 'q'); UPDATE \"x\"\"y\" SET id = 2; INSERT INTO ünï VALUES (1, '😀'); UPDATE ünï SET ö = 'é';
         INSERT INTO st VALUES ('1', 1), ('2', '1'); UPDATE \"Order\" SET \"select\" = 'z' WHERE c = 'x';",
    )
    .unwrap();
    let mut replay = Replay::default();
    replay.take_all(stream.drain().await);
    for table in ["Order", "a b", "x\"y", "ünï", "st"] {
        replay.assert_equals(&user, table, "*");
    }
}

#[tokio::test]
async fn a_long_transaction_is_one_and_comes_in_bounded_pieces() {
    let world = World::new(ONE);
    let mut stream = Stream::begin(&world).await;
    let user = world.user();
    user.execute_batch(
        "WITH RECURSIVE s(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM s WHERE x < 3000) INSERT INTO t SELECT x, zeroblob(2000) FROM s; UPDATE t SET id = -id;",
    )
    .unwrap();
    let items = stream.drain().await;
    let pieces = items.iter().filter_map(|item| if let Captured::Changes(batch) = item { Some(batch.weight()) } else { None });
    let pieces: Vec<usize> = pieces.collect();
    assert!(pieces.len() > 3 && pieces.iter().all(|weight| *weight < 2 << 20), "{pieces:?}");
    let mut replay = Replay::default();
    replay.take_all(items);
    replay.assert_equals(&user, "t", "*");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_beside_the_stream_are_seen_once_and_in_order() {
    let world = World::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE TABLE journal (n INTEGER PRIMARY KEY, writer INTEGER, step INTEGER);",
    );
    let mut stream = Stream::begin(&world).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3).map(|writer| write_until(world.user(), writer, stop.clone())).collect();
    let mut replay = Replay::default();
    let started = std::time::Instant::now();
    while started.elapsed() < std::time::Duration::from_millis(1500) {
        let item = stream.changes.next().await.unwrap();
        if let Captured::Commit { position, .. } = &item {
            stream.changes.confirm(position).await.unwrap();
        }
        replay.take(item);
    }
    stop.store(true, Ordering::Relaxed);
    let steps: i64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
    replay.take_all(stream.drain().await);
    let user = world.user();
    replay.assert_equals(&user, "t", "*");
    replay.assert_equals(&user, "journal", "*");
    let journal: i64 = user.query_row("SELECT count(*) FROM journal", [], |row| row.get(0)).unwrap();
    assert_eq!(journal, steps);
    assert_eq!(replay.operations.iter().filter(|operation| *operation == "Insert journal").count() as i64, steps);
}

fn write_until(user: rusqlite::Connection, writer: i64, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<i64> {
    std::thread::spawn(move || {
        let mut step = 0;
        while !stop.load(Ordering::Relaxed) {
            step += 1;
            let key = (step * 7 + writer * 3) % 50;
            user.execute_batch(&format!(
                "BEGIN IMMEDIATE; INSERT INTO journal (writer, step) VALUES ({writer}, {step});
                 REPLACE INTO t VALUES ({key}, {step}); UPDATE t SET v = v + 1 WHERE id % 5 = {writer}; DELETE FROM t WHERE id = {}; COMMIT;",
                (key + 11) % 50
            ))
            .unwrap();
        }
        step
    })
}

#[tokio::test]
async fn the_fence_refuses_users_and_lets_markers_pass() {
    let world = World::new(ONE);
    let mut stream = Stream::begin(&world).await;
    let user = world.user();
    user.execute_batch("INSERT INTO t VALUES (1, 1)").unwrap();
    let tables = world.tables().await;
    stream.source.set_read_only(&tables, true).await.unwrap();
    for sql in ["INSERT INTO t VALUES (2, 2)", "UPDATE t SET v = 2", "DELETE FROM t"] {
        assert!(user.execute_batch(sql).is_err());
    }
    let mut replay = Replay::default();
    replay.take_all(stream.drain().await);
    replay.assert_equals(&user, "t", "*");
    stream.source.set_read_only(&tables, false).await.unwrap();
    user.execute_batch("INSERT INTO t VALUES (2, 2)").unwrap();
    stream.source.set_read_only(&tables, true).await.unwrap();
    assert!(!stream.source.traces().await.unwrap().is_empty());
    stream.source.remove_traces().await.unwrap();
    assert!(stream.source.traces().await.unwrap().is_empty());
    let left: i64 = user.query_row("SELECT count(*) FROM sqlite_schema WHERE name LIKE '%godwit%'", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
    user.execute_batch("INSERT INTO t VALUES (3, 2)").unwrap();
}

/// Bulk statements are captured row by row. With `--nocapture` it prints what that costs writers; no time is judged.
#[tokio::test]
async fn cost_of_capture() {
    let schema = "CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT UNIQUE, v); CREATE TABLE w (a TEXT COLLATE NOCASE, b, v, PRIMARY KEY (a, b)) WITHOUT ROWID;";
    let run = |world: &World, name: &str| {
        let user = world.user();
        for sql in [
            "WITH RECURSIVE s(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM s WHERE x < 100000) INSERT INTO t SELECT x, 'u' || x, 0 FROM s",
            "UPDATE t SET v = v + 1",
            "INSERT INTO t SELECT id, u, v FROM t WHERE true ON CONFLICT (id) DO UPDATE SET v = 7",
            "WITH RECURSIVE s(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM s WHERE x < 20000) INSERT INTO w SELECT 'k' || (x % 10), x, 0 FROM s",
            "INSERT OR REPLACE INTO w SELECT upper(a), b, 1 FROM w",
            "INSERT OR IGNORE INTO t SELECT id + 50000, 'z' || id, 0 FROM t",
            "DELETE FROM t",
        ] {
            let start = std::time::Instant::now();
            user.execute_batch(sql).unwrap();
            println!("{name} {:?} {}", start.elapsed(), &sql[..sql.len().min(110)]);
        }
    };
    let world = World::new(schema);
    run(&world, "plain");
    let world = World::new(schema);
    let mut stream = Stream::begin(&world).await;
    run(&world, "captured");
    let start = std::time::Instant::now();
    let changes: usize = stream.drain().await.iter().map(|item| if let Captured::Changes(batch) = item { batch.len() } else { 0 }).sum();
    println!("read {changes} changes in {:?}", start.elapsed());
    assert!(changes > 500_000, "{changes}");
}
