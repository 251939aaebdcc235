//! Verify, repair and re-synchronization.

use crate::pair::{Pair, on_every_engine};

const TABLES: [&str; 2] = ["SELECT id, name FROM item", "SELECT code, amount FROM bill"];

on_every_engine!(planted_differences_are_found_and_mended, a_lost_position_is_mended_in_place);

fn given(pair: &Pair) {
    pair.source.run(&[
        "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)",
        "CREATE TABLE bill (code TEXT NOT NULL PRIMARY KEY, amount INTEGER)",
    ]);
    let items: Vec<String> = (1..=500).map(|id| format!("({id}, 'item {id}')")).collect();
    let bills: Vec<String> = (1..=500).map(|id| format!("('bill {id}', {id})")).collect();
    pair.source.run(&[&format!("INSERT INTO item VALUES {}", items.join(", ")), &format!("INSERT INTO bill VALUES {}", bills.join(", "))]);
}

fn planted_differences_are_found_and_mended(pair: &Pair) {
    given(pair);
    let run = pair.running();
    pair.godwit(&["verify"]).with(0);
    pair.target.run(&[
        "DELETE FROM item WHERE id IN (7, 8)",
        "INSERT INTO item VALUES (9001, 'nobody wrote this')",
        "UPDATE bill SET amount = amount + 1 WHERE code IN ('bill 5', 'bill 6', 'bill 77')",
    ]);
    let found = pair.godwit(&["verify"]).with(1);
    let report: serde_json::Value = serde_json::from_str(&found.stdout).unwrap();
    let of = |table: &str, kind: &str| {
        let tables = report["tables"].as_array().unwrap();
        tables.iter().find(|row| row["source"].as_str().unwrap().ends_with(table)).unwrap()[kind].as_u64().unwrap()
    };
    assert_eq!((of("item", "missing"), of("item", "surplus"), of("item", "different")), (2, 1, 0), "{report}");
    assert_eq!((of("bill", "missing"), of("bill", "surplus"), of("bill", "different")), (0, 0, 3), "{report}");
    pair.godwit(&["verify", "--repair"]).with(0);
    TABLES.iter().for_each(|select| pair.assert_same(select));
    run.kill();
    pair.finish();
}

fn a_lost_position_is_mended_in_place(pair: &Pair) {
    given(pair);
    pair.running().kill();
    pair.source.forget_changes();
    // nobody sees these
    pair.source.run(&[
        "UPDATE item SET name = 'unseen' WHERE id = 3",
        "DELETE FROM item WHERE id = 4",
        "INSERT INTO bill VALUES ('unseen', 1)",
        "UPDATE bill SET code = 'moved' WHERE code = 'bill 9'",
    ]);
    let lost = pair.godwit(&["run"]).with(4);
    assert!(lost.said().contains("--resync"), "{}", lost.said());
    let mut run = pair.start(&["run", "--resync"]);
    run.wait_consistent();
    TABLES.iter().for_each(|select| pair.assert_same(select));
    pair.source.run(&["INSERT INTO item VALUES (501, 'seen')", "DELETE FROM bill WHERE code = 'moved'"]);
    TABLES.iter().for_each(|select| pair.await_same(select));
    pair.godwit(&["verify"]).with(0);
    run.kill();
    pair.finish();
}
