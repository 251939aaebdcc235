//! Verify, repair and re-synchronization.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::pair::{Pair, on_every_engine};

const TABLES: [&str; 2] = ["SELECT id, name FROM item", "SELECT code, amount FROM bill"];

on_every_engine!(
    planted_differences_are_found_and_mended,
    a_lost_position_is_mended_in_place,
    a_table_without_a_key_is_compared_while_it_is_written_to,
    a_generated_column_that_comes_out_otherwise_is_found,
);

fn given(pair: &Pair) {
    pair.source.run(&[
        "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)",
        "CREATE TABLE bill (code VARCHAR(50) NOT NULL PRIMARY KEY, amount INTEGER)",
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

fn a_table_without_a_key_is_compared_while_it_is_written_to(pair: &Pair) {
    pair.source.run(&["CREATE TABLE journal (what TEXT, number INTEGER)", "INSERT INTO journal VALUES ('same', 1), ('same', 1)"]);
    let run = pair.running();
    let busy = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut session = pair.source.connect().unwrap();
            for number in 0.. {
                if !busy.load(Ordering::Relaxed) {
                    break;
                }
                session.execute(&[format!("INSERT INTO journal VALUES ('written', {number})")]).unwrap();
            }
        });
        let equal = pair.godwit(&["verify"]);
        pair.target.run(&["INSERT INTO journal VALUES ('planted', 0)"]);
        let surplus = pair.godwit(&["verify"]);
        busy.store(false, Ordering::Relaxed);
        let (equal, surplus) = (equal.with(0), surplus.with(1));
        let table = |stdout: &str| serde_json::from_str::<serde_json::Value>(stdout).unwrap()["tables"][0].clone();
        assert!(table(&equal.stdout)["rows"].as_u64().unwrap() > 0);
        let found = table(&surplus.stdout);
        assert_eq!((&found["surplus"], &found["missing"], &found["unsettled"]), (&1.into(), &0.into(), &0.into()), "{found}");
    });
    pair.target.run(&["DELETE FROM journal WHERE what = 'planted'"]);
    pair.await_same("SELECT what, number FROM journal");
    run.kill();
    pair.finish();
}

fn a_generated_column_that_comes_out_otherwise_is_found(pair: &Pair) {
    let table = |factor: u8| {
        format!("CREATE TABLE item (id INTEGER PRIMARY KEY, a INTEGER, more INTEGER GENERATED ALWAYS AS (a * {factor}) STORED)")
    };
    pair.source.run(&[&table(2), "INSERT INTO item (id, a) VALUES (1, 0), (2, 5)"]);
    pair.target.run(&[&table(3)]);
    let run = pair.running();
    pair.assert_same("SELECT id, a FROM item");
    let found = pair.godwit(&["verify"]).with(1);
    let report: serde_json::Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!(report["tables"][0]["different"], 1, "{report}");
    run.kill();
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
