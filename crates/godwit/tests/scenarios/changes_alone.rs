//! Tasks that do not load: the rows came another way, and changes follow from now or from a named position.

use crate::pair::{Pair, on_every_engine};

const TABLE: &str = "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)";
const ROWS: &str = "SELECT id, name FROM item";
const TWO: &str = "INSERT INTO item VALUES (1, 'one'), (2, 'two')";

on_every_engine!(changes_follow_from_now, a_row_that_is_not_there_stops_and_is_repaired);

fn given(pair: &Pair, from: &str, at_target: &str) {
    pair.source.run(&[TABLE, TWO]);
    pair.target.run(&[TABLE, at_target]);
    pair.write_task(&format!("phases: [changes]\nfrom: {from}\n"));
}

fn changes_follow_from_now(pair: &Pair) {
    given(pair, "now", TWO);
    pair.godwit(&["check"]).with(0);
    let run = pair.running();
    pair.source.run(&["UPDATE item SET name = 'zwei' WHERE id = 2", "INSERT INTO item VALUES (3, 'three')"]);
    pair.await_same(ROWS);
    run.kill();
    pair.source.run(&["DELETE FROM item WHERE id = 1"]);
    pair.godwit(&["run", "--until", "caught-up"]).with(0);
    pair.assert_same(ROWS);
    pair.finish();
    pair.assert_same(ROWS);
}

fn a_row_that_is_not_there_stops_and_is_repaired(pair: &Pair) {
    given(pair, "now", "INSERT INTO item VALUES (1, 'one')");
    let run = pair.running();
    pair.source.run(&["UPDATE item SET name = 'zwei' WHERE id = 2"]);
    assert_eq!(run.end().with(4).code().as_deref(), Some("GW4002"));
    pair.godwit(&["verify", "--repair"]).with(0);
    pair.assert_same(ROWS);
    pair.godwit(&["run", "--until", "caught-up"]).with(0);
    pair.finish();
}

#[test]
fn changes_follow_from_a_position_that_was_prepared() {
    let Some(pair) = Pair::postgres() else { return };
    let name = &pair.name;
    pair.source.run(&[TABLE, TWO, &format!("CREATE PUBLICATION godwit_{name} FOR TABLE item")]);
    let slot = format!("SELECT lsn::text FROM pg_create_logical_replication_slot('godwit_{name}', 'pgoutput')");
    let position = pair.source.rows(&slot)[0][0].clone().unwrap();
    // the copy is as of the slot; what is written behind it comes by the stream
    pair.target.run(&[TABLE, TWO]);
    pair.source.run(&["UPDATE item SET name = 'eins' WHERE id = 1", "INSERT INTO item VALUES (3, 'three')"]);
    pair.write_task(&format!("phases: [changes]\nfrom: {position}\n"));
    let run = pair.running();
    pair.await_same(ROWS);
    run.kill();
    pair.running().kill();
    // the slot goes; the publication is its maker's, and is named
    let finished = pair.godwit(&["finish", "--yes"]).with(0);
    assert!(finished.stdout.contains(&format!("publication godwit_{name}, which an administrator made")), "{}", finished.said());
    assert_eq!(pair.source.traces(name), [format!("publication godwit_{name}")]);
    pair.source.run(&[&format!("DROP PUBLICATION godwit_{name}")]);
    pair.assert_no_traces();
    pair.assert_same(ROWS);
}

#[test]
fn a_position_that_nobody_kept_is_refused() {
    let Some(pair) = Pair::postgres() else { return };
    given(&pair, "0/16B3748", TWO);
    let refused = pair.godwit(&["run"]).with(4);
    assert_eq!(refused.code().as_deref(), Some("GW4001"));
    given_anew(&pair, "soon");
    let refused = pair.godwit(&["run"]).with(4);
    assert!(refused.said().contains("`soon` is no position"), "{}", refused.said());
}

fn given_anew(pair: &Pair, from: &str) {
    pair.godwit(&["clean", "--yes"]).with(0);
    pair.write_task(&format!("phases: [changes]\nfrom: {from}\n"));
}
