//! What happens to target tables that are there already.

use crate::pair::{Pair, on_every_engine};

const TABLE: &str = "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)";
const ROWS: &str = "SELECT id, name FROM item";

on_every_engine!(
    rows_in_the_target_are_refused,
    append_keeps_rows,
    append_stops_at_a_key_that_is_there,
    truncate_empties_once,
    replace_drops_and_creates,
);

fn given(pair: &Pair, existing: &str, target: &[&str]) {
    pair.source.run(&[TABLE, "INSERT INTO item VALUES (1, 'one'), (2, 'two')"]);
    pair.target.run(target);
    pair.write_task_existing(existing);
}

fn rows_in_the_target_are_refused(pair: &Pair) {
    given(pair, "refuse", &[TABLE, "INSERT INTO item VALUES (7, 'mine')"]);
    let refused = pair.godwit(&["run"]).with(1);
    assert!(refused.said().contains("GW3002"), "{}", refused.said());
    assert_eq!(pair.target.number("SELECT COUNT(*) FROM item"), 1);
    assert_eq!(pair.source.traces(&pair.name), Vec::<String>::new());
}

fn append_keeps_rows(pair: &Pair) {
    given(pair, "append", &[TABLE, "INSERT INTO item VALUES (7, 'mine')"]);
    let run = pair.running();
    pair.source.run(&["INSERT INTO item VALUES (3, 'three')"]);
    pair.await_rows(ROWS, "SELECT id, name FROM item WHERE id <> 7");
    run.kill();
    // a second run does not begin the append again
    pair.running().kill();
    assert_eq!(pair.target.number("SELECT COUNT(*) FROM item WHERE id = 7 AND name = 'mine'"), 1);
    pair.godwit(&["clean", "--yes"]).with(0);
    pair.assert_no_traces();
}

fn append_stops_at_a_key_that_is_there(pair: &Pair) {
    given(pair, "append", &[TABLE, "INSERT INTO item VALUES (2, 'mine')"]);
    let stopped = pair.godwit(&["run"]).with(4);
    assert_eq!(stopped.code().as_deref(), Some("GW4010"));
    assert_eq!(pair.target.number("SELECT COUNT(*) FROM item WHERE id = 2 AND name = 'mine'"), 1);
}

fn truncate_empties_once(pair: &Pair) {
    given(pair, "truncate", &[TABLE, "CREATE INDEX by_name ON item (name)", "INSERT INTO item VALUES (2, 'mine'), (7, 'mine')"]);
    pair.running().kill();
    pair.assert_same(ROWS);
    // what came after the load stays through the next run
    let run = pair.running();
    pair.source.run(&["INSERT INTO item VALUES (3, 'three')"]);
    pair.await_same(ROWS);
    run.kill();
    pair.finish();
    pair.assert_same(ROWS);
}

fn replace_drops_and_creates(pair: &Pair) {
    given(pair, "replace", &["CREATE TABLE item (other TEXT)", "INSERT INTO item VALUES ('mine')"]);
    let run = pair.running();
    pair.source.run(&["INSERT INTO item VALUES (3, 'three')"]);
    pair.await_same(ROWS);
    run.kill();
    pair.finish();
    pair.assert_same(ROWS);
}
