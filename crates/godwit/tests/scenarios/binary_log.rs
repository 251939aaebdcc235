//! What a MariaDB source's binary log does not tell is refused by name, before anything is written.

use crate::pair::Pair;

#[test]
fn a_table_that_a_foreign_key_changes_is_refused() {
    let Some(pair) = Pair::mariadb() else { return };
    pair.source.run(&[
        "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
        "CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER, FOREIGN KEY (parent) REFERENCES parent (id) ON DELETE CASCADE)",
        "INSERT INTO parent VALUES (1)",
        "INSERT INTO child VALUES (1, 1)",
    ]);
    for command in ["check", "run"] {
        let refused = pair.godwit(&[command]).with(1).said();
        assert!(refused.contains("does not log it") && refused.contains(".child (ON DELETE CASCADE)"), "{refused}");
    }
    // to copy it once is no trouble
    pair.write_task("phases: [schema, load]\n");
    pair.godwit(&["run"]).with(0);
    pair.assert_same("SELECT id, parent FROM child");
}

#[test]
fn a_table_without_transactions_is_refused() {
    let Some(pair) = Pair::mariadb() else { return };
    pair.source.run(&[
        "CREATE TABLE kept (id INTEGER PRIMARY KEY)",
        "CREATE TABLE loose (id INTEGER PRIMARY KEY) ENGINE = MyISAM",
        "CREATE TABLE looser (id INTEGER PRIMARY KEY) ENGINE = Aria",
    ]);
    for phases in ["", "phases: [schema, load]\n"] {
        pair.write_task(phases);
        let refused = pair.godwit(&["run"]).with(2);
        assert_eq!(refused.code().as_deref(), Some("GW1009"), "{}", refused.said());
        assert!(refused.said().contains(".loose (MyISAM)") && refused.said().contains(".looser (Aria)"), "{}", refused.said());
    }
    pair.assert_no_traces();
}
