//! Schema changes that users make while they write: carried at their place, or stopped before anything is wrong.

use crate::pair::Pair;

const ITEMS: [&str; 2] = [
    "CREATE TABLE item (id INTEGER PRIMARY KEY, a TEXT, b TEXT)",
    "INSERT INTO item SELECT n, 'a' || n, 'b' || n FROM generate_series(1, 50) n",
];

fn items() -> Option<Pair> {
    let pair = Pair::postgres()?;
    pair.source.run(&ITEMS);
    Some(pair)
}

/// Users' statements, then equal columns and rows on both sides, and a finish that finds nothing.
#[track_caller]
fn carries(statements: &[&str], select: &str) {
    let Some(pair) = items() else { return };
    let run = pair.running();
    pair.source.run(statements);
    pair.godwit(&["verify"]).with(0);
    pair.assert_same(select);
    assert_same_structure(&pair, "item");
    run.kill();
    pair.finish();
}

#[track_caller]
fn assert_same_structure(pair: &Pair, table: &str) {
    pair.assert_same(&format!(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped"
    ));
}

#[test]
fn a_column_that_is_added_is_carried() {
    carries(
        &["ALTER TABLE item ADD COLUMN c TEXT", "INSERT INTO item VALUES (100, 'a', 'b', 'c')", "UPDATE item SET c = 'x' WHERE id < 4"],
        "SELECT id, a, b, c FROM item",
    );
}

#[test]
fn a_constant_default_fills_the_rows_that_were_there() {
    carries(
        &[
            "ALTER TABLE item ADD COLUMN c INTEGER NOT NULL DEFAULT 5, ADD COLUMN d TEXT[] DEFAULT '{\"it''s, so\",NULL}'",
            "INSERT INTO item VALUES (100, 'a', 'b', 6)",
        ],
        "SELECT id, a, b, c, d FROM item",
    );
}

#[test]
fn a_volatile_default_is_read_again() {
    carries(
        &["ALTER TABLE item ADD COLUMN c DOUBLE PRECISION DEFAULT random()", "INSERT INTO item VALUES (100, 'a', 'b')"],
        "SELECT id, a, b, c FROM item",
    );
}

#[test]
fn a_column_that_is_dropped_goes() {
    carries(&["ALTER TABLE item DROP COLUMN a", "INSERT INTO item VALUES (100, 'b')"], "SELECT id, b FROM item");
}

#[test]
fn a_column_that_makes_room_for_another_shifts_nothing() {
    carries(
        &["ALTER TABLE item DROP COLUMN a", "ALTER TABLE item ADD COLUMN c TEXT", "INSERT INTO item (id, b, c) VALUES (100, 'b', 'c')"],
        "SELECT id, b, c FROM item",
    );
}

#[test]
fn another_type_is_carried_with_its_rows() {
    carries(
        &[
            "UPDATE item SET a = id::text",
            "ALTER TABLE item ALTER COLUMN a TYPE NUMERIC(8, 2) USING a::numeric * 3",
            "INSERT INTO item VALUES (100, 1.25, 'b')",
        ],
        "SELECT id, a, b FROM item",
    );
}

#[test]
fn changes_of_rows_and_tables_in_one_transaction_are_carried() {
    carries(
        &[
            "BEGIN",
            "INSERT INTO item VALUES (100, 'before', 'b')",
            "ALTER TABLE item ADD COLUMN c INTEGER DEFAULT 7",
            "UPDATE item SET a = 'between' WHERE id = 1",
            "ALTER TABLE item DROP COLUMN b, ADD COLUMN d TEXT",
            "INSERT INTO item (id, a, d) VALUES (101, 'after', 'd')",
            "COMMIT",
        ],
        "SELECT id, a, c, d FROM item",
    );
}

#[test]
fn what_is_rolled_back_alters_nothing() {
    carries(
        &[
            "BEGIN",
            "ALTER TABLE item ADD COLUMN c TEXT",
            "INSERT INTO item SELECT n, 'x', 'y', 'z' FROM generate_series(1000, 9000) n",
            "ROLLBACK",
            "BEGIN",
            "SAVEPOINT one",
            "ALTER TABLE item DROP COLUMN b",
            "UPDATE item SET a = 'gone'",
            "ROLLBACK TO one",
            "UPDATE item SET b = 'kept' WHERE id = 2",
            "COMMIT",
            "INSERT INTO item VALUES (100, 'a', 'b')",
        ],
        "SELECT id, a, b FROM item",
    );
}

#[test]
fn a_large_transaction_that_alters_is_carried() {
    carries(
        &[
            "BEGIN",
            "INSERT INTO item SELECT n, repeat('x', 300), repeat('y', 300) FROM generate_series(1000, 30000) n",
            "ALTER TABLE item ADD COLUMN c TEXT DEFAULT 'd'",
            "UPDATE item SET c = 'e' WHERE id % 7 = 0",
            "INSERT INTO item SELECT n, 'x', 'y', 'z' FROM generate_series(40000, 60000) n",
            "COMMIT",
        ],
        "SELECT id, md5(a || b), c FROM item",
    );
}

#[test]
fn a_change_that_no_row_follows_is_carried_at_the_latest_by_finish() {
    let Some(pair) = items() else { return };
    let run = pair.running();
    pair.source.run(&["ALTER TABLE item DROP COLUMN a", "ALTER TABLE item ADD COLUMN c INTEGER DEFAULT 3"]);
    pair.godwit(&["verify"]).with(0);
    pair.assert_same("SELECT id, b, c FROM item");
    pair.source.run(&["ALTER TABLE item ADD COLUMN d TEXT"]);
    run.kill();
    pair.finish();
    assert_same_structure(&pair, "item");
}

#[test]
fn a_rename_stops_the_task_and_names_both() {
    let Some(pair) = items() else { return };
    let run = pair.running();
    pair.source.run(&["ALTER TABLE item RENAME COLUMN a TO z", "INSERT INTO item VALUES (100, 'z', 'b')"]);
    let said = run.end().with(4).said();
    assert!(said.contains("GW3010") && said.contains("a went and z came"), "{said}");
    assert_eq!(pair.target.number("SELECT COUNT(*) FROM item"), 50);
}

#[test]
fn a_key_that_changes_stops_the_task() {
    let Some(pair) = items() else { return };
    let run = pair.running();
    pair.source.run(&["ALTER TABLE item ALTER COLUMN id TYPE BIGINT", "INSERT INTO item VALUES (100, 'a', 'b')"]);
    let said = run.end().with(4).said();
    assert!(said.contains("GW3010") && said.contains("belongs to the key"), "{said}");
}

#[test]
fn a_table_without_a_key_takes_what_is_sure() {
    let Some(pair) = Pair::postgres() else { return };
    pair.source.run(&[
        "CREATE TABLE event (what TEXT)",
        "ALTER TABLE event REPLICA IDENTITY FULL",
        "INSERT INTO event VALUES ('a'), ('a'), ('b')",
    ]);
    let run = pair.running();
    pair.source.run(&[
        "ALTER TABLE event ADD COLUMN number INTEGER DEFAULT 1",
        "INSERT INTO event VALUES ('c', 2)",
        "DELETE FROM event WHERE what = 'b'",
    ]);
    pair.godwit(&["verify"]).with(0);
    pair.assert_same("SELECT what, number FROM event");
    pair.source.run(&["ALTER TABLE event ADD COLUMN chance DOUBLE PRECISION DEFAULT random()", "INSERT INTO event VALUES ('d', 3, 4)"]);
    let said = run.end().with(4).said();
    assert!(said.contains("GW3010") && said.contains("without a key"), "{said}");
}

#[test]
fn a_mapped_table_keeps_its_names() {
    let Some(pair) = items() else { return };
    pair.write_task("map:\n  - {from: public.item, to: public.thing, columns: {a: first}}\n");
    let run = pair.running();
    pair.source.run(&["ALTER TABLE item ADD COLUMN c TEXT DEFAULT 'c', DROP COLUMN b", "INSERT INTO item VALUES (100, 'a', 'more')"]);
    pair.godwit(&["verify"]).with(0);
    pair.assert_rows("SELECT id, a, c FROM item", "SELECT id, first, c FROM thing");
    pair.source.run(&["ALTER TABLE item DROP COLUMN a", "INSERT INTO item VALUES (101, 'more')"]);
    let said = run.end().with(4).said();
    assert!(said.contains("GW3010") && said.contains("which the task maps"), "{said}");
}

#[test]
fn partitions_that_come_and_go_with_their_rows_are_noticed() {
    let Some(pair) = Pair::postgres() else { return };
    pair.source.run(&[
        "CREATE TABLE part (id INTEGER PRIMARY KEY, v TEXT) PARTITION BY RANGE (id)",
        "CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (100)",
        "CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (100) TO (200)",
        "INSERT INTO part SELECT n, 'v' FROM generate_series(1, 150) n",
    ]);
    let run = pair.running();
    pair.source.run(&[
        "ALTER TABLE part DETACH PARTITION part_2",
        "CREATE TABLE part_3 (v TEXT, id INTEGER NOT NULL, PRIMARY KEY (id))",
        "INSERT INTO part_3 SELECT 'w', n FROM generate_series(140, 160) n",
        "ALTER TABLE part ATTACH PARTITION part_3 FOR VALUES FROM (100) TO (200)",
    ]);
    pair.godwit(&["verify"]).with(0);
    pair.assert_same("SELECT id, v FROM part");
    pair.source.run(&["INSERT INTO part VALUES (190, 'x'), (51, 'y') ON CONFLICT (id) DO UPDATE SET v = 'y'"]);
    pair.source.run(&["ALTER TABLE part ADD COLUMN w INTEGER DEFAULT 4", "UPDATE part SET w = 5 WHERE id IN (7, 150)"]);
    pair.godwit(&["verify"]).with(0);
    pair.assert_same("SELECT id, v, w FROM part");
    run.kill();
    pair.finish();
}

#[test]
fn what_was_altered_while_nobody_ran_is_carried() {
    let Some(pair) = items() else { return };
    pair.running().kill();
    pair.source.run(&[
        "INSERT INTO item VALUES (100, 'a', 'b')",
        "ALTER TABLE item ADD COLUMN c TEXT DEFAULT 'one'",
        "INSERT INTO item VALUES (101, 'a', 'b')",
        "ALTER TABLE item DROP COLUMN c",
        "INSERT INTO item VALUES (102, 'a', 'b')",
        "ALTER TABLE item ADD COLUMN c INTEGER DEFAULT 2",
        "ALTER TABLE item ADD COLUMN d INTEGER",
        "INSERT INTO item VALUES (103, 'a', 'b', 3, 4)",
        "ALTER TABLE item DROP COLUMN a",
        "ALTER TABLE item ALTER COLUMN d TYPE TEXT USING 'n' || coalesce(d, 0)",
        "UPDATE item SET b = 'last' WHERE id = 101",
    ]);
    let run = pair.running();
    pair.godwit(&["verify"]).with(0);
    pair.assert_same("SELECT id, b, c, d FROM item");
    run.kill();
    pair.finish();
}
