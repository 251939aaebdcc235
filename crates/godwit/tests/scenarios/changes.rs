//! Transactions that others have lost, split, doubled or shifted.

use std::time::{Duration, Instant};

use crate::pair::{Pair, is_long, on_every_engine};
use crate::process::PATIENCE;
use crate::store::Tier;

const STOP: &str = "schema: {changes: stop}\n";
const MOST_MEMORY: u64 = 256 << 20;
const ROWS: i64 = 100_000;
/// With `GODWIT_TEST_LONG`.
const MANY_ROWS: i64 = 500_000;

on_every_engine!(
    unique_values_that_swap_in_one_transaction,
    keys_that_change,
    what_a_savepoint_takes_back_stays_away,
    a_new_column_stops_the_task_and_shifts_nothing,
    names_that_swap_stop_the_task_and_shift_nothing,
    a_large_transaction_takes_little_memory,
);

fn unique_values_that_swap_in_one_transaction(pair: &Pair) {
    pair.source.run(&[
        "CREATE TABLE seat (id INTEGER PRIMARY KEY, place TEXT NOT NULL UNIQUE)",
        "INSERT INTO seat VALUES (1, 'window'), (2, 'aisle'), (3, 'middle')",
    ]);
    let run = pair.running();
    for _ in 0..5 {
        pair.source.run(&[
            "BEGIN",
            "UPDATE seat SET place = 'nowhere' WHERE id = 1",
            "UPDATE seat SET place = 'window' WHERE id = 2",
            "UPDATE seat SET place = 'aisle' WHERE id = 1",
            "COMMIT",
        ]);
        pair.source.run(&[
            "BEGIN",
            "DELETE FROM seat WHERE id = 1",
            "UPDATE seat SET place = 'aisle' WHERE id = 2",
            "INSERT INTO seat VALUES (1, 'window')",
            "COMMIT",
        ]);
    }
    // what came before comes again and again
    pair.source.run(&["INSERT INTO seat VALUES (4, 'last')"]);
    pair.await_same("SELECT id, place FROM seat");
    run.kill();
    pair.finish();
}

fn keys_that_change(pair: &Pair) {
    pair.source.run(&[
        "CREATE TABLE item (id INTEGER NOT NULL, part VARCHAR(50) NOT NULL, name TEXT, PRIMARY KEY (id, part))",
        "INSERT INTO item VALUES (1, 'a', 'one'), (2, 'b', 'two'), (3, 'c', 'three')",
    ]);
    let run = pair.running();
    pair.source.run(&[
        "BEGIN",
        "UPDATE item SET id = 100 WHERE id = 1",
        "UPDATE item SET id = 1 WHERE id = 2",
        "UPDATE item SET id = 2 WHERE id = 100",
        "COMMIT",
    ]);
    pair.source.run(&["UPDATE item SET id = id + 10"]);
    pair.source.run(&["UPDATE item SET part = 'z', name = NULL WHERE id = 13", "DELETE FROM item WHERE id = 12"]);
    pair.source.run(&["INSERT INTO item VALUES (12, 'a', 'again')"]);
    pair.await_same("SELECT id, part, name FROM item");
    run.kill();
    pair.finish();
}

fn what_a_savepoint_takes_back_stays_away(pair: &Pair) {
    pair.source.run(&["CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)", "INSERT INTO item VALUES (1, 'one'), (2, 'two')"]);
    let run = pair.running();
    pair.source.run(&[
        "BEGIN",
        "INSERT INTO item VALUES (3, 'kept')",
        "SAVEPOINT outer_one",
        "UPDATE item SET name = 'gone' WHERE id = 1",
        "SAVEPOINT inner_one",
        "DELETE FROM item WHERE id = 2",
        "RELEASE SAVEPOINT inner_one",
        "ROLLBACK TO SAVEPOINT outer_one",
        "UPDATE item SET name = 'after' WHERE id = 2",
        "COMMIT",
    ]);
    pair.source.run(&["BEGIN", "DELETE FROM item", "ROLLBACK"]);
    pair.source.run(&["INSERT INTO item VALUES (4, 'last')"]);
    pair.await_same("SELECT id, name FROM item");
    assert_eq!(pair.target.number("SELECT COUNT(*) FROM item"), 4);
    run.kill();
    pair.finish();
}

fn a_new_column_stops_the_task_and_shifts_nothing(pair: &Pair) {
    pair.write_task(STOP);
    stops_and_shifts_nothing(pair, &["ALTER TABLE item ADD COLUMN c TEXT", "INSERT INTO item VALUES (3, 'a3', 'b3', 'c3')"]);
}

fn names_that_swap_stop_the_task_and_shift_nothing(pair: &Pair) {
    stops_and_shifts_nothing(
        pair,
        &[
            "ALTER TABLE item RENAME COLUMN a TO c",
            "ALTER TABLE item RENAME COLUMN b TO a",
            "ALTER TABLE item RENAME COLUMN c TO b",
            "INSERT INTO item (id, a, b) VALUES (3, 'a3', 'b3')",
        ],
    );
}

#[test]
fn a_dropped_column_stops_the_task_and_shifts_nothing() {
    // a SQLite file refuses to drop a column that capture triggers name
    let Some(pair) = Pair::postgres() else { return };
    pair.write_task(STOP);
    let schema_change =
        ["ALTER TABLE item DROP COLUMN a", "ALTER TABLE item ADD COLUMN c TEXT", "INSERT INTO item (id, b, c) VALUES (3, 'b3', 'c3')"];
    stops_and_shifts_nothing(&pair, &schema_change);
}

#[test]
fn what_precedes_a_schema_change_is_applied() {
    let Some(pair) = Pair::postgres() else { return };
    pair.write_task(STOP);
    pair.source.run(&["CREATE TABLE item (id INTEGER PRIMARY KEY)"]);
    let run = pair.running();
    let rows: Vec<String> = (1..=200).map(|id| format!("INSERT INTO item VALUES ({id})")).collect();
    let mut session = pair.source.connect().unwrap();
    session.execute(&rows).unwrap();
    pair.source.run(&["ALTER TABLE item ADD COLUMN more TEXT", "INSERT INTO item VALUES (201, 'more')"]);
    assert_eq!(run.end().with(4).code().as_deref(), Some("GW3010"));
    assert_eq!(pair.target.number("SELECT COUNT(*) FROM item"), 200);
}

fn stops_and_shifts_nothing(pair: &Pair, schema_change: &[&str]) {
    pair.source.run(&["CREATE TABLE item (id INTEGER PRIMARY KEY, a TEXT, b TEXT)", "INSERT INTO item VALUES (1, 'a1', 'b1')"]);
    let run = pair.running();
    pair.source.run(&["INSERT INTO item VALUES (2, 'a2', 'b2')"]);
    // an engine without a log that has layouts may stop a little earlier
    pair.await_same("SELECT id, a, b FROM item");
    pair.source.run(schema_change);
    pair.source.run(&["UPDATE item SET b = 'changed' WHERE id = 1"]);
    let stopped = run.end().with(4);
    assert!(matches!(stopped.code().as_deref(), Some("GW3010" | "GW4007")), "{}", stopped.said());
    let rows = pair.target.sorted("SELECT id, a, b FROM item");
    let row = |id: &str, a: &str, b: &str| vec![Some(id.to_owned()), Some(a.to_owned()), Some(b.to_owned())];
    assert_eq!(rows, [row("1", "a1", "b1"), row("2", "a2", "b2")]);
    // it stays stopped
    assert_eq!(pair.godwit(&["run"]).with(4).code(), stopped.code());
    pair.godwit(&["clean", "--yes"]).with(0);
    pair.assert_no_traces();
}

fn a_large_transaction_takes_little_memory(pair: &Pair) {
    let rows = if std::env::var_os("GODWIT_TEST_LONG").is_some() { MANY_ROWS } else { ROWS };
    pair.source.run(&["CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)"]);
    pair.write_task("limits: {memory: 32MiB}\n");
    let mut run = pair.running();
    let numbers = format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) SELECT i FROM n");
    let filling = "x".repeat(200);
    pair.source.run(&[&format!("INSERT INTO item SELECT i, 'row ' || i || '{filling}' FROM ({numbers}) AS numbers")]);
    pair.source.run(&["UPDATE item SET name = name || '!'"]);
    pair.source.run(&["DELETE FROM item WHERE id % 3 = 0"]);
    let goal = pair.source.number("SELECT COUNT(*) FROM item");
    let deadline = Instant::now() + PATIENCE;
    while pair.target.number("SELECT COUNT(*) FROM item") != goal && Instant::now() < deadline {
        run.within(Duration::from_millis(100), |_| false);
    }
    let peak = run.peak_memory();
    assert!(peak < MOST_MEMORY, "{} MiB at the most", peak >> 20);
    pair.assert_same("SELECT id, name FROM item");
    run.kill();
    pair.finish();
}

/// On its way it lies in the server's stream, the spool, the change log and groups: in each a piece of it.
#[test]
fn ten_million_rows_in_one_transaction_take_little_memory() {
    const STATEMENTS: i64 = 100;
    const ROWS: i64 = 100_000;
    const LIMIT: u64 = 64 << 20;
    /// The program, its threads and what a process holds without any row.
    const BESIDE: u64 = 64 << 20;
    if !is_long() {
        return;
    }
    // where a transaction stays open for minutes, nobody else can make a slot
    let Some(pair) = Pair::postgres_on_own(15, 18, Tier::Full) else { return };
    pair.source.run(&["CREATE TABLE item (id integer PRIMARY KEY, name text)"]);
    pair.write_task("limits: {memory: 64MiB}\n");
    let mut run = pair.running();
    let began = Instant::now();
    let mut user = pair.source.connect().unwrap();
    user.rows("BEGIN").unwrap();
    for first in (0..STATEMENTS).map(|number| number * ROWS) {
        user.rows(&format!("INSERT INTO item SELECT i, 'row ' || i FROM generate_series({first}, {}) i", first + ROWS - 1)).unwrap();
    }
    user.rows("COMMIT").unwrap();
    eprintln!("committed after {:?}", began.elapsed());
    while pair.target.number("SELECT COUNT(*) FROM (SELECT FROM item LIMIT 1) AS one") == 0 {
        assert!(!run.is_over() && began.elapsed() < Duration::from_secs(7200));
        run.within(Duration::from_millis(200), |_| false);
    }
    let peak = run.peak_memory();
    eprintln!("there after {:?}, {} MiB at the most", began.elapsed(), peak >> 20);
    assert!(peak < LIMIT + BESIDE, "{} MiB at the most", peak >> 20);
    pair.assert_same("SELECT COUNT(*), SUM(id), MD5(STRING_AGG(name, ',' ORDER BY id)) FROM item WHERE id % 10 = 7");
    assert_eq!(pair.target.number("SELECT COUNT(*) FROM item"), STATEMENTS * ROWS);
    run.kill();
    pair.godwit(&["clean", "--yes"]).with(0);
}

/// What does not compress and is not sent unless it changes.
fn large_text() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(20_000).collect()
}

#[test]
fn a_key_that_changes_keeps_a_large_value_that_is_not_sent() {
    let Some(pair) = Pair::postgres() else { return };
    let body = large_text();
    pair.source.run(&[
        "CREATE TABLE document (id integer PRIMARY KEY, title text, body text)",
        &format!("INSERT INTO document VALUES (1, 'one', '{body}'), (2, 'two', '{body}2')"),
    ]);
    let run = pair.running();
    pair.source.run(&[
        "BEGIN",
        "UPDATE document SET id = 3 WHERE id = 1",
        "UPDATE document SET id = 1, title = 'was two' WHERE id = 2",
        "COMMIT",
    ]);
    pair.source.run(&["UPDATE document SET id = id + 10"]);
    pair.await_same("SELECT id, title, body FROM document");
    run.kill();
    pair.finish();
}

#[test]
fn a_table_dropped_and_made_anew_stops_the_task() {
    let Some(pair) = Pair::postgres() else { return };
    pair.source.run(&["CREATE TABLE item (id integer PRIMARY KEY, name text)", "INSERT INTO item VALUES (1, 'old')"]);
    let run = pair.running();
    pair.source.run(&["INSERT INTO item VALUES (2, 'old')"]);
    pair.await_same("SELECT id, name FROM item");
    pair.source.run(&["DROP TABLE item", "CREATE TABLE item (id integer PRIMARY KEY, name text)", "INSERT INTO item VALUES (1, 'new')"]);
    // the new table is not published: nothing of it comes, and whoever looks says so
    run.kill();
    let stopped = pair.godwit(&["run", "--until", "caught-up"]).with(4);
    assert!(matches!(stopped.code().as_deref(), Some("GW4007" | "GW3010")), "{}", stopped.said());
    assert_eq!(pair.target.number("SELECT COUNT(*) FROM item"), 2);
    pair.godwit(&["clean", "--yes"]).with(0);
    pair.assert_no_traces();
}

#[test]
fn a_row_over_the_limit_stops_the_task_and_is_named() {
    let Some(pair) = Pair::postgres() else { return };
    pair.source.run(&["CREATE TABLE document (id integer PRIMARY KEY, body text)"]);
    pair.write_task("limits: {memory: 16MiB}\n");
    let run = pair.running();
    pair.source.run(&["INSERT INTO document VALUES (1, 'small')"]);
    pair.await_same("SELECT id, body FROM document");
    pair.source.run(&["INSERT INTO document VALUES (4711, repeat('x', 5000000))"]);
    let stopped = run.end().with(4);
    assert_eq!(stopped.code().as_deref(), Some("GW4008"), "{}", stopped.said());
    assert!(stopped.said().contains("table public.document"), "{}", stopped.said());
    assert_eq!(pair.target.number("SELECT COUNT(*) FROM document"), 1);
    // with room for it the same task goes on
    pair.write_task("limits: {memory: 64MiB}\n");
    pair.godwit(&["run", "--until", "caught-up"]).with(0);
    pair.assert_same("SELECT id, body FROM document");
    pair.finish();
}

#[test]
fn a_truncate_is_followed() {
    let Some(pair) = Pair::postgres() else { return };
    pair.source.run(&[
        "CREATE TABLE parent (id integer PRIMARY KEY)",
        "CREATE TABLE child (id integer PRIMARY KEY, parent integer REFERENCES parent)",
        "INSERT INTO parent VALUES (1), (2)",
        "INSERT INTO child VALUES (1, 1), (2, 2)",
    ]);
    let run = pair.running();
    pair.source.run(&["BEGIN", "INSERT INTO parent VALUES (3)", "TRUNCATE parent CASCADE", "INSERT INTO parent VALUES (4)", "COMMIT"]);
    pair.source.run(&["INSERT INTO child VALUES (9, 4)"]);
    pair.await_same("SELECT id FROM parent");
    pair.await_same("SELECT id, parent FROM child");
    run.kill();
    pair.finish();
}
