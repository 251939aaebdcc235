//! What the triggers log, statement by statement.

use crate::world::{Replay, Stream, World};

const SHOP: &str = "
    CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT UNIQUE, v);
    CREATE TABLE w (a TEXT, b INTEGER, u TEXT UNIQUE, v, PRIMARY KEY (a, b)) WITHOUT ROWID;
    CREATE TABLE n (name TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, v) ;
    CREATE TABLE k (v, x);
    CREATE TABLE p (id INTEGER PRIMARY KEY, g TEXT, live INTEGER);
    CREATE UNIQUE INDEX p_live ON p (g) WHERE live = 1;
    CREATE UNIQUE INDEX p_lower ON p (lower(g) || 'x', live) WHERE live > 5;
    CREATE TABLE d (id INTEGER PRIMARY KEY, u TEXT NOT NULL DEFAULT 'def' UNIQUE, g TEXT AS (upper(u)) STORED UNIQUE);
";

/// Runs the statements and replays what was captured; the tables must be equal.
async fn captures(schema: &str, setting: &str, statements: &str) -> Replay {
    let world = World::new(schema);
    let mut stream = Stream::begin(&world).await;
    let user = world.user();
    user.execute_batch(setting).unwrap();
    user.execute_batch(statements).unwrap();
    let mut replay = Replay::default();
    replay.nocase.push("n");
    replay.take_all(stream.drain().await);
    for (table, columns) in [("t", "*"), ("w", "*"), ("n", "*"), ("k", "*"), ("p", "*"), ("d", "id, u")] {
        replay.assert_equals(&user, table, columns);
    }
    replay
}

/// With and without recursive triggers.
async fn both(statements: &str) {
    captures(SHOP, "PRAGMA recursive_triggers = OFF", statements).await;
    captures(SHOP, "PRAGMA recursive_triggers = ON", statements).await;
}

#[tokio::test]
async fn replace_displaces_by_the_primary_key() {
    both("INSERT INTO t VALUES (1, 'a', 1); INSERT OR REPLACE INTO t VALUES (1, 'b', 2); REPLACE INTO t VALUES (1, 'b', 3);").await;
    both("INSERT INTO w VALUES ('a', 1, 'x', 1); REPLACE INTO w VALUES ('a', 1, 'y', 2);").await;
    both("INSERT INTO n VALUES ('a', 1); REPLACE INTO n VALUES ('A', 2);").await;
}

#[tokio::test]
async fn replace_displaces_by_a_second_unique_and_several_rows_at_once() {
    both("INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3); REPLACE INTO t VALUES (1, 'b', 9); REPLACE INTO t (u) VALUES ('c');")
        .await;
    both("INSERT INTO w VALUES ('a', 1, 'x', 1), ('a', 2, 'y', 2), ('b', 1, 'z', 3); REPLACE INTO w VALUES ('a', 1, 'z', 4);").await;
    both("INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2); REPLACE INTO t SELECT id + 1, u, v FROM t;").await;
}

#[tokio::test]
async fn update_or_replace_displaces() {
    both("INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3); UPDATE OR REPLACE t SET id = 2 WHERE id = 1; UPDATE OR REPLACE t SET u = 'c' WHERE id = 2;").await;
    both("INSERT INTO w VALUES ('a', 1, 'x', 1), ('a', 2, 'y', 2), ('b', 1, 'z', 3); UPDATE OR REPLACE w SET b = 2, u = 'z' WHERE a = 'a' AND b = 1;").await;
    both("INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2); UPDATE OR REPLACE t SET rowid = 2 WHERE id = 1;").await;
    both("INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3); UPDATE OR REPLACE t SET u = 'z';").await;
}

#[tokio::test]
async fn rows_that_an_ignored_insert_met_stay() {
    both("INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2); INSERT OR IGNORE INTO t VALUES (1, 'b', 3); DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (5, 'e', 5);").await;
    both("INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2); UPDATE OR IGNORE t SET u = 'b' WHERE id = 1; UPDATE t SET u = 'q' WHERE id = 2; REPLACE INTO t VALUES (7, 'q', 1);").await;
    both("INSERT INTO w VALUES ('a', 1, 'x', 1); INSERT OR IGNORE INTO w VALUES ('a', 1, 'z', 1); UPDATE w SET b = 4; REPLACE INTO w VALUES ('a', 1, 'x', 1);").await;
}

#[tokio::test]
async fn upserts_are_updates() {
    both("INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2); INSERT INTO t VALUES (1, 'z', 9) ON CONFLICT (id) DO UPDATE SET v = excluded.v; INSERT INTO t VALUES (8, 'b', 9) ON CONFLICT (u) DO UPDATE SET id = 8; INSERT INTO t VALUES (8, 'b', 9) ON CONFLICT DO NOTHING;").await;
    both("INSERT INTO w VALUES ('a', 1, 'x', 1); INSERT INTO w VALUES ('a', 1, 'q', 2) ON CONFLICT DO UPDATE SET v = 7, u = excluded.u;")
        .await;
}

#[tokio::test]
async fn keys_change_by_case_and_by_storage_class() {
    both("INSERT INTO n VALUES ('a', 1); UPDATE n SET name = 'A'; UPDATE n SET name = 'b'; UPDATE n SET v = 3;").await;
    both("INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 1); UPDATE t SET id = id + 10; UPDATE t SET id = -id;").await;
    both("INSERT INTO w VALUES ('a', 1, 'x', 1), ('a', 2, 'y', 1); UPDATE w SET a = a || 'b', b = b + 5;").await;
}

#[tokio::test]
async fn tables_without_a_key_are_logged_by_whole_rows() {
    both("INSERT INTO k VALUES (1, 'a'), (1, 'a'), (1.0, 'a'), (NULL, ''), ('', NULL), (x'', x'00'); UPDATE k SET v = 5 WHERE rowid = 2; DELETE FROM k WHERE rowid = 1; REPLACE INTO k (rowid, v) VALUES (3, 'r'); UPDATE k SET rowid = 77 WHERE rowid = 4;").await;
}

#[tokio::test]
async fn partial_and_expression_indexes_displace() {
    both("INSERT INTO p VALUES (1, 'a', 1), (2, 'a', 0), (3, 'a', 2); REPLACE INTO p VALUES (4, 'a', 1); REPLACE INTO p VALUES (5, 'a', 0); UPDATE OR REPLACE p SET live = 1 WHERE id = 5;").await;
    both("INSERT INTO p VALUES (1, 'a', 7), (2, 'b', 7), (3, 'A', 6); REPLACE INTO p VALUES (4, 'A', 7); UPDATE OR REPLACE p SET live = 7 WHERE id = 3; UPDATE OR REPLACE p SET g = 'B' WHERE live = 7;").await;
}

#[tokio::test]
async fn defaults_that_replace_fills_in_and_generated_columns_displace() {
    both("INSERT INTO d (id, u) VALUES (1, 'def'), (2, 'x'); REPLACE INTO d (id, u) VALUES (3, NULL); REPLACE INTO d (id, u) VALUES (4, 'X');").await;
    both("INSERT INTO d (id, u) VALUES (1, 'def'), (2, 'x'); UPDATE OR REPLACE d SET u = NULL WHERE id = 2;").await;
}

#[tokio::test]
async fn rolled_back_work_leaves_nothing() {
    let replay = captures(
        SHOP,
        "",
        "BEGIN; INSERT INTO t VALUES (1, 'a', 1); SAVEPOINT s; INSERT INTO t VALUES (2, 'b', 1); REPLACE INTO t VALUES (1, 'c', 1); ROLLBACK TO s; COMMIT;
         BEGIN; DELETE FROM t; ROLLBACK;",
    )
    .await;
    assert_eq!(replay.operations, ["Insert t"]);
}

#[tokio::test]
async fn a_delete_of_all_rows_is_logged_row_by_row() {
    both("INSERT INTO t SELECT value, value, 0 FROM json_each('[1,2,3,4]'); DELETE FROM t;").await;
}

#[tokio::test]
async fn cascades_are_logged() {
    let schema = format!(
        "{SHOP} CREATE TABLE c (id INTEGER PRIMARY KEY, parent REFERENCES t (id) ON DELETE CASCADE ON UPDATE CASCADE,
             self INTEGER REFERENCES c (id) ON DELETE SET NULL);"
    );
    for setting in ["PRAGMA foreign_keys = ON", "PRAGMA foreign_keys = ON; PRAGMA recursive_triggers = ON"] {
        let world = World::new(&schema);
        let mut stream = Stream::begin(&world).await;
        let user = world.user();
        user.execute_batch(setting).unwrap();
        user.execute_batch(
            "INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 1), (3, 'c', 1);
             INSERT INTO c VALUES (1, 1, NULL), (2, 1, 1), (3, 2, 2), (4, 3, 3);
             UPDATE t SET id = 9 WHERE id = 3;
             REPLACE INTO t VALUES (5, 'a', 2);
             REPLACE INTO c VALUES (3, 2, NULL);",
        )
        .unwrap();
        let mut replay = Replay::default();
        replay.take_all(stream.drain().await);
        replay.assert_equals(&user, "t", "*");
        replay.assert_equals(&user, "c", "*");
    }
}

#[tokio::test]
async fn a_row_that_a_foreign_key_changes_while_it_is_being_displaced_is_not_lost() {
    let schema =
        "CREATE TABLE c (id INTEGER PRIMARY KEY, u TEXT UNIQUE, self INTEGER REFERENCES c (id) ON DELETE SET NULL ON UPDATE CASCADE);";
    for setting in ["", "PRAGMA recursive_triggers = ON"] {
        for order in [
            "INSERT INTO c VALUES (3, 'c', NULL), (4, 'x', 3)",
            "INSERT INTO c VALUES (4, 'x', NULL), (3, 'c', 4); UPDATE c SET self = 3 WHERE id = 4;",
        ] {
            let world = World::new(schema);
            let mut stream = Stream::begin(&world).await;
            let user = world.user();
            user.execute_batch("PRAGMA foreign_keys = ON").unwrap();
            user.execute_batch(setting).unwrap();
            user.execute_batch(order).unwrap();
            user.execute_batch(
                "INSERT OR IGNORE INTO c VALUES (9, 'c', NULL); REPLACE INTO c VALUES (3, 'x', NULL);
                 INSERT OR IGNORE INTO c VALUES (3, 'q', NULL); INSERT INTO c VALUES (5, 'q', 3); DELETE FROM c WHERE id = 3;",
            )
            .unwrap();
            let mut replay = Replay::default();
            replay.take_all(stream.drain().await);
            replay.assert_equals(&user, "c", "*");
        }
    }
}

#[tokio::test]
async fn a_row_that_refers_to_itself_and_changes_its_key_stops_loudly() {
    let world = World::new("CREATE TABLE r (id INTEGER PRIMARY KEY, parent REFERENCES r (id) ON UPDATE CASCADE);");
    let mut stream = Stream::begin(&world).await;
    let user = world.user();
    user.execute_batch("PRAGMA foreign_keys = ON; INSERT INTO r VALUES (1, 1), (2, 1); UPDATE r SET id = 3 WHERE id = 2").unwrap();
    let mut replay = Replay::default();
    replay.take_all(stream.drain().await);
    replay.assert_equals(&user, "r", "*");
    user.execute_batch("UPDATE r SET id = 7 WHERE id = 1").unwrap();
    let error = loop {
        match stream.changes.next().await {
            Ok(item) => assert!(!matches!(item, godwit_model::Captured::Commit { .. })),
            Err(error) => break error,
        }
    };
    assert!(error.is(&godwit_model::codes::OUT_OF_SIGHT));
}

#[tokio::test]
async fn collations_of_keys_rule_what_is_displaced() {
    let schema = "CREATE TABLE n (name TEXT COLLATE NOCASE PRIMARY KEY, u TEXT COLLATE RTRIM UNIQUE) WITHOUT ROWID;
         CREATE TABLE t (a TEXT NOT NULL, v); CREATE UNIQUE INDEX ta ON t (a COLLATE NOCASE);
         CREATE TABLE p (a TEXT COLLATE NOCASE, v, PRIMARY KEY (a COLLATE BINARY)) WITHOUT ROWID;";
    for setting in ["", "PRAGMA recursive_triggers = ON"] {
        let world = World::new(schema);
        let mut stream = Stream::begin(&world).await;
        let user = world.user();
        user.execute_batch(setting).unwrap();
        user.execute_batch(
            "INSERT INTO n VALUES ('a', 'x'), ('b', 'y'), ('c', 'z'); REPLACE INTO n VALUES ('A', 'y '); UPDATE OR REPLACE n SET name = 'C' WHERE name = 'a';
             UPDATE n SET name = 'c'; INSERT OR IGNORE INTO n VALUES ('C', 'k'); REPLACE INTO n VALUES ('d', 'Y  '), ('E', 'y');
             INSERT INTO t VALUES ('a', 1), ('b', 2); REPLACE INTO t VALUES ('B', 3); UPDATE OR REPLACE t SET a = 'A' WHERE a = 'B';
             INSERT INTO p VALUES ('a', 1), ('A', 2); REPLACE INTO p VALUES ('a', 3); UPDATE p SET v = 4 WHERE a COLLATE BINARY = 'A'; DELETE FROM p WHERE v = 3;",
        )
        .unwrap();
        let mut replay = Replay::default();
        replay.nocase.extend(["n", "t"]);
        replay.take_all(stream.drain().await);
        for table in ["n", "t", "p"] {
            replay.assert_equals(&user, table, "*");
        }
    }
}

#[tokio::test]
async fn triggers_of_users_are_logged_in_the_order_of_their_effects() {
    let schema = format!(
        "{SHOP} CREATE TRIGGER touch AFTER INSERT ON t BEGIN UPDATE t SET v = 'touched' WHERE id = NEW.id; INSERT INTO k VALUES (NEW.id, 'audit'); END;
         CREATE TRIGGER make_room BEFORE INSERT ON p WHEN EXISTS (SELECT 1 FROM p WHERE id = NEW.id + 100)
             BEGIN INSERT OR IGNORE INTO p VALUES (NEW.id + 200, 'zz', 0); DELETE FROM p WHERE id = NEW.id + 100; END;
         CREATE TRIGGER gone AFTER DELETE ON t BEGIN INSERT INTO k VALUES (OLD.id, 'gone'); END;"
    );
    for setting in ["", "PRAGMA recursive_triggers = ON"] {
        let statements = "INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 1); REPLACE INTO t VALUES (1, 'b', 3);
             INSERT INTO p VALUES (1, 'a', 1), (102, 'b', 1), (2, 'c', 1); REPLACE INTO p VALUES (2, 'a', 1);
             INSERT INTO p VALUES (103, 'q', 1); REPLACE INTO p VALUES (3, 'a', 1);";
        captures(&schema, setting, statements).await;
    }
}

#[tokio::test]
async fn explicit_conflict_clauses_of_the_statement_do_not_reach_the_log() {
    for clause in ["ABORT", "FAIL", "ROLLBACK", "IGNORE", "REPLACE"] {
        let statements = format!(
            "INSERT INTO t VALUES (1, 'a', 1); INSERT OR {clause} INTO t VALUES (3, 'c', 1); UPDATE OR {clause} t SET u = u || 'x';"
        );
        both(&statements).await;
    }
}

/// Users' own SQLite libraries fire the triggers: they must understand them.
#[tokio::test]
async fn another_library_of_users_fires_the_triggers() {
    if std::process::Command::new("sqlite3").arg("-version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "the command sqlite3 is missing; ./test brings it");
        eprintln!("SKIPPED: the command sqlite3 is not there: another_library_of_users_fires_the_triggers");
        return;
    }
    let world = World::new(SHOP);
    let mut stream = Stream::begin(&world).await;
    let sql = "PRAGMA busy_timeout = 5000; PRAGMA trusted_schema = OFF; PRAGMA foreign_keys = ON;
        INSERT INTO t VALUES (1, 'a', 1), (2, 'b', x'00'); REPLACE INTO t VALUES (3, 'a', 1.5); UPDATE OR REPLACE t SET id = 2 WHERE id = 3;
        INSERT INTO w VALUES ('a', 1, 'x', 1); REPLACE INTO w VALUES ('b', 1, 'x', 1); INSERT INTO k VALUES (1, 2); UPDATE k SET v = 3; DELETE FROM k;
        INSERT INTO p VALUES (1, 'a', 1); REPLACE INTO p VALUES (2, 'a', 1); INSERT INTO p VALUES (4, 'q', 7); REPLACE INTO p VALUES (5, 'Q', 7);
        INSERT INTO t VALUES (2, 'z', 0) ON CONFLICT (id) DO UPDATE SET v = 'up';";
    let done = std::process::Command::new("sqlite3").arg(world.path("source.db")).arg(sql).output().unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
    let mut replay = Replay::default();
    replay.take_all(stream.drain().await);
    for table in ["t", "w", "k", "p"] {
        replay.assert_equals(&world.user(), table, "*");
    }
    assert!(replay.operations.len() > 12, "{:?}", replay.operations);
}
