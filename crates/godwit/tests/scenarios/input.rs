//! Bad input: each with its own code, and nothing changed.

use godwit_testkit::servers::{Postgres, PostgresOptions};

use crate::pair::{Pair, on_every_engine};

on_every_engine!(a_table_that_is_gone_stops_the_task, source_and_target_may_not_be_the_same);

fn a_table_that_is_gone_stops_the_task(pair: &Pair) {
    pair.source.run(&[
        "CREATE TABLE stays (id INTEGER PRIMARY KEY)",
        "CREATE TABLE goes (id INTEGER PRIMARY KEY)",
        "INSERT INTO goes VALUES (1)",
    ]);
    pair.running().kill();
    pair.source.run(&["DROP TABLE goes"]);
    let stopped = pair.godwit(&["run"]).with(4);
    assert!(stopped.said().contains("goes"), "{}", stopped.said());
    assert_eq!(pair.target.number("SELECT COUNT(*) FROM goes"), 1);
    pair.godwit(&["clean", "--yes"]).with(0);
    pair.assert_no_traces();
}

fn source_and_target_may_not_be_the_same(pair: &Pair) {
    pair.source.run(&["CREATE TABLE item (id INTEGER PRIMARY KEY)"]);
    // another spelling of the same place
    let same = pair.source.url().replace("127.0.0.1", "localhost");
    pair.write_whole_task(&format!("source: {}\ntarget: {same}\n", pair.source.url()));
    let refused = pair.godwit(&["run"]);
    assert!(matches!(refused.status.code(), Some(1 | 2)) && refused.said().contains("GW1011"), "{}", refused.said());
    assert_eq!(pair.source.traces(&pair.name), Vec::<String>::new());
}

#[test]
fn a_server_that_is_not_there_is_said_so() {
    let Some(pair) = Pair::postgres() else { return };
    // port 1 has no listener
    pair.write_whole_task(&format!("source: postgres://postgres@127.0.0.1:1/shop\ntarget: {}\n", pair.target.url()));
    let refused = pair.godwit(&["run"]).with(3);
    assert_eq!(refused.code().as_deref(), Some("GW2001"));
    assert!(refused.said().contains("127.0.0.1"), "{}", refused.said());
}

#[test]
fn a_file_that_is_not_there_is_said_so() {
    let Some(pair) = Pair::sqlite() else { return };
    pair.write_whole_task("source: sqlite:nowhere.db\ntarget: sqlite:target.db\n");
    let refused = pair.godwit(&["run"]);
    assert!(matches!(refused.status.code(), Some(2 | 3)) && refused.said().contains("nowhere.db"), "{}", refused.said());
    assert!(!pair.path().join("nowhere.db").exists() && !pair.path().join("target.db").exists());
}

#[test]
fn a_file_that_keeps_its_text_as_utf_16_is_refused() {
    let Some(pair) = Pair::sqlite() else { return };
    let file = rusqlite::Connection::open(pair.path().join("wide.db")).unwrap();
    file.execute_batch("PRAGMA encoding = 'UTF-16le'; CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)").unwrap();
    let _: String = file.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).unwrap();
    pair.write_task_between(&pair.path().join("wide.db").display().to_string().replacen('/', "sqlite:///", 1), &pair.target.url(), "");
    for command in ["check", "run"] {
        let refused = pair.godwit(&[command]).with(1);
        assert!(refused.said().contains("GW2006") && refused.said().contains("UTF-16le"), "{}", refused.said());
    }
    assert_eq!(file.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    assert!(!pair.path().join("target.db").exists());
}

#[test]
fn a_wrong_password_is_said_so_and_not_shown() {
    let rules = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    let Some(server) = Postgres::start(18, &PostgresOptions::default().with_access_rules(rules)) else { return };
    let Some(pair) = Pair::postgres() else { return };
    let open = |user: &str| format!("postgres://{user}@127.0.0.1:{}/postgres", server.port());
    let admin = crate::postgres::execute(&open("postgres"), "CREATE ROLE mover LOGIN REPLICATION PASSWORD 'sesame'");
    assert_eq!(admin, Ok(()));
    pair.write_whole_task(&format!("source: {}\ntarget: {}\n", open("mover:abracadabra"), pair.target.url()));
    let refused = pair.godwit(&["run"]).with(2);
    assert_eq!(refused.code().as_deref(), Some("GW2002"));
    assert!(!refused.said().contains("abracadabra"), "{}", refused.said());
}

#[test]
fn a_host_without_an_address_is_said_so() {
    let Some(pair) = Pair::postgres() else { return };
    for (source, target) in
        [("postgres://u@nowhere.invalid/d", pair.target.url()), (&*pair.source.url(), "postgres://u@nowhere.invalid/d".to_owned())]
    {
        pair.write_task_between(source, &target, "");
        let refused = pair.godwit(&["run"]).with(3);
        assert_eq!(refused.code().as_deref(), Some("GW2001"));
        assert!(refused.said().contains("nowhere.invalid"), "{}", refused.said());
    }
    assert_eq!(pair.source.traces(&pair.name), Vec::<String>::new());
}

#[test]
fn a_database_that_is_not_there_is_said_so() {
    let Some(pair) = Pair::postgres() else { return };
    pair.write_task_between(&format!("{}x", pair.source.url()), &pair.target.url(), "");
    let refused = pair.godwit(&["run"]).with(2);
    assert_eq!(refused.code().as_deref(), Some("GW2014"));
}

#[test]
fn a_server_that_does_not_log_logically_is_said_so() {
    let options = PostgresOptions::default().with_setting("wal_level", "replica");
    let Some(pair) = Pair::postgres_with((15, options), (18, PostgresOptions::default()), crate::store::Tier::Full) else { return };
    pair.source.run(&["CREATE TABLE item (id INTEGER PRIMARY KEY)"]);
    let refused = pair.godwit(&["run"]).with(1);
    assert!(refused.said().contains("GW2006") && refused.said().contains("wal_level"), "{}", refused.said());
    assert_eq!(pair.target.traces(&pair.name), Vec::<String>::new());
}

#[test]
fn a_role_without_rights_is_told_which() {
    let Some(pair) = Pair::postgres() else { return };
    pair.source.run(&["CREATE TABLE item (id INTEGER PRIMARY KEY)", &format!("CREATE ROLE {}_poor LOGIN", pair.name)]);
    let poor = pair.source.url().replace("postgres@", &format!("{}_poor@", pair.name));
    pair.write_task_between(&poor, &pair.target.url(), "");
    let refused = pair.godwit(&["run"]);
    assert!(matches!(refused.status.code(), Some(1 | 2)) && refused.said().contains("GW2005"), "{}", refused.said());
    assert_eq!(pair.source.traces(&pair.name), Vec::<String>::new());
}

#[test]
fn a_table_that_was_never_there_is_said_so() {
    let Some(pair) = Pair::postgres() else { return };
    pair.source.run(&["CREATE TABLE item (id INTEGER PRIMARY KEY)"]);
    pair.write_task("select: {tables: [public.nothing]}\n");
    let refused = pair.godwit(&["run"]);
    assert!(matches!(refused.status.code(), Some(1 | 2)) && refused.said().contains("GW3009"), "{}", refused.said());
    assert_eq!(pair.source.traces(&pair.name), Vec::<String>::new());
}

/// One connection each: the large table is copied first, and waits for a lock at the target while the other one goes.
#[test]
fn a_table_that_vanishes_during_the_load_stops_the_task() {
    let Some(pair) = Pair::postgres() else { return };
    pair.source.run(&[
        "CREATE TABLE large (id INTEGER PRIMARY KEY, content TEXT)",
        "CREATE TABLE goes (id INTEGER PRIMARY KEY)",
        "INSERT INTO large SELECT i, repeat('x', 200) FROM generate_series(1, 2000) i",
        "INSERT INTO goes VALUES (1)",
        "ANALYZE",
    ]);
    pair.target.run(&["CREATE TABLE large (id INTEGER PRIMARY KEY, content TEXT)"]);
    pair.write_task("limits: {connections: {source: 1, target: 1}}\n");
    let mut lock = pair.target.connect().unwrap();
    // reads are let through: whether the table is empty must be seen
    lock.rows("BEGIN; LOCK TABLE large IN SHARE MODE").unwrap();
    let mut run = pair.start(&["run"]);
    for _ in 0..2 {
        run.wait_until("the plan of both tables", |event| event["event"] == "table_planned");
    }
    pair.source.run(&["DROP TABLE goes"]);
    drop(lock);
    let stopped = run.end().with(4);
    assert!(stopped.said().contains("goes"), "{}", stopped.said());
    assert!(matches!(stopped.code().as_deref(), Some("GW3001" | "GW4007")), "{}", stopped.said());
    pair.godwit(&["clean", "--yes"]).with(0);
    pair.assert_no_traces();
}

/// A publication forgets a table that is dropped, and does not know the one that takes its name.
#[test]
fn a_table_dropped_and_made_anew_while_it_is_followed_stops_the_task() {
    let Some(pair) = Pair::postgres() else { return };
    pair.source.run(&[
        "CREATE TABLE stays (id INTEGER PRIMARY KEY)",
        "CREATE TABLE item (id INTEGER PRIMARY KEY)",
        "INSERT INTO item VALUES (1)",
    ]);
    let run = pair.running();
    pair.source.run(&[
        "DROP TABLE item",
        "CREATE TABLE item (id INTEGER PRIMARY KEY)",
        "INSERT INTO item VALUES (2)",
        "INSERT INTO stays VALUES (1)",
    ]);
    let stopped = run.end().with(4);
    assert!(stopped.said().contains("item"), "{}", stopped.said());
    assert!(matches!(stopped.code().as_deref(), Some("GW3001" | "GW3010" | "GW4007")), "{}", stopped.said());
}
