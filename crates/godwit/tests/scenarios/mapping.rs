//! What a task makes of names, columns and values.

use crate::pair::{Pair, on_every_engine};

on_every_engine!(renamed_and_left_out_columns, names_that_need_quotes, an_empty_string_is_not_null, tables_that_are_not_selected_stay_away,);

fn renamed_and_left_out_columns(pair: &Pair) {
    pair.source.run(&[
        "CREATE TABLE customer (id INTEGER PRIMARY KEY, full_name TEXT, ssn TEXT, city TEXT)",
        "INSERT INTO customer VALUES (1, 'Ada', 'secret', 'London'), (2, 'Grace', 'secret', NULL)",
    ]);
    let schema = pair.source.schema();
    pair.write_task(&format!("map:\n  - {{from: {schema}.customer, to: {schema}.client, columns: {{full_name: name, ssn: leave_out}}}}\n"));
    let run = pair.running();
    pair.source.run(&[
        "INSERT INTO customer VALUES (3, 'Edsger', 'secret', 'Rotterdam')",
        "UPDATE customer SET full_name = 'Ada L.', ssn = 'more' WHERE id = 1",
        "UPDATE customer SET ssn = 'only this' WHERE id = 2",
        "UPDATE customer SET id = 4 WHERE id = 2",
    ]);
    let (before, after) = ("SELECT id, full_name, city FROM customer", "SELECT id, name, city FROM client");
    pair.await_rows(before, after);
    run.kill();
    pair.finish();
    pair.assert_rows(before, after);
    assert!(pair.target.connect().unwrap().rows("SELECT ssn FROM client").is_err(), "a left-out column is there");
}

fn names_that_need_quotes(pair: &Pair) {
    let names = ["Order", "a b", "\"x\"\"y\"", "ünï", "select"];
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    for name in names {
        let (table, column) = (quoted(name), quoted(&format!("{name} column")));
        pair.source.run(&[
            &format!("CREATE TABLE {table} (id INTEGER PRIMARY KEY, {column} TEXT)"),
            &format!("INSERT INTO {table} VALUES (1, 'one'), (2, 'two')"),
        ]);
    }
    let run = pair.running();
    for name in names {
        let (table, column) = (quoted(name), quoted(&format!("{name} column")));
        pair.source.run(&[
            &format!("INSERT INTO {table} VALUES (3, 'three')"),
            &format!("UPDATE {table} SET {column} = 'uno' WHERE id = 1"),
            &format!("DELETE FROM {table} WHERE id = 2"),
        ]);
        pair.await_same(&format!("SELECT id, {column} FROM {table}"));
    }
    run.kill();
    pair.finish();
}

fn an_empty_string_is_not_null(pair: &Pair) {
    pair.source.run(&["CREATE TABLE word (id INTEGER PRIMARY KEY, text TEXT)", "INSERT INTO word VALUES (1, ''), (2, NULL), (3, ' ')"]);
    let run = pair.running();
    pair.source.run(&[
        "INSERT INTO word VALUES (4, ''), (5, NULL), (6, '''')",
        "UPDATE word SET text = NULL WHERE id = 1",
        "UPDATE word SET text = '' WHERE id = 2",
    ]);
    pair.await_same("SELECT id, text FROM word");
    run.kill();
    pair.finish();
    assert_eq!(pair.target.number("SELECT COUNT(*) FROM word WHERE text IS NULL"), 2);
}

fn tables_that_are_not_selected_stay_away(pair: &Pair) {
    pair.source.run(&[
        "CREATE TABLE wanted (id INTEGER PRIMARY KEY)",
        "CREATE TABLE wanted_tmp (id INTEGER PRIMARY KEY)",
        "CREATE TABLE other (id INTEGER PRIMARY KEY)",
    ]);
    let schema = pair.source.schema();
    pair.write_task(&format!("select: {{tables: [\"{schema}.wanted*\"], except: [\"{schema}.*_tmp\"]}}\n"));
    let run = pair.running();
    pair.source.run(&[
        "INSERT INTO other VALUES (1)",
        "ALTER TABLE other ADD COLUMN more TEXT",
        "INSERT INTO wanted_tmp VALUES (1)",
        "INSERT INTO wanted VALUES (1)",
    ]);
    pair.await_same("SELECT id FROM wanted");
    run.kill();
    pair.finish();
    for table in ["wanted_tmp", "other"] {
        assert!(pair.target.connect().unwrap().rows(&format!("SELECT * FROM {table}")).is_err(), "{table} is there");
    }
}
