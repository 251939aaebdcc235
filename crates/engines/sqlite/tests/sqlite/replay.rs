//! Property: whatever users do through SQL, what the stream tells makes the same tables.

use proptest::prelude::*;

use crate::world::{Replay, Stream, World};

const SCHEMA: &str = "
    CREATE TABLE a (id INTEGER PRIMARY KEY, u INTEGER UNIQUE, v);
    CREATE TABLE b (x TEXT, y INTEGER, u UNIQUE, PRIMARY KEY (x, y)) WITHOUT ROWID;
    CREATE TABLE c (u INTEGER, v);
    CREATE UNIQUE INDEX c_u ON c (u) WHERE v > 2;
    CREATE TABLE n (k TEXT COLLATE NOCASE NOT NULL UNIQUE, v UNIQUE);
    CREATE TABLE r (id INTEGER PRIMARY KEY, u INTEGER UNIQUE, parent INTEGER REFERENCES r (id) ON DELETE SET NULL ON UPDATE CASCADE, CHECK (parent <> id));
    CREATE TRIGGER copy AFTER UPDATE ON a BEGIN INSERT OR REPLACE INTO c VALUES (NEW.u, 3); END;
    CREATE TRIGGER back AFTER DELETE ON c WHEN OLD.v > 4 BEGIN INSERT OR REPLACE INTO a (u, v) VALUES (OLD.u, 'back'); END;
";

fn operation() -> impl Strategy<Value = String> {
    let number = || 0..6i32;
    let conflict = prop_oneof![Just(""), Just("OR REPLACE"), Just("OR IGNORE"), Just("OR FAIL")];
    let text = prop_oneof![Just("'p'"), Just("'P'"), Just("'q'"), Just("'Q'"), Just("''")];
    let value = prop_oneof![Just("1"), Just("1.0"), Just("'1'"), Just("x'31'"), Just("NULL"), Just("2"), Just("5")];
    (0..17usize, conflict, text, value, number(), number(), number()).prop_map(|(kind, conflict, text, value, i, j, k)| match kind {
        0 => format!("INSERT {conflict} INTO a VALUES ({i}, {j}, {value})"),
        1 => format!("INSERT INTO a VALUES ({i}, {j}, {value}) ON CONFLICT (id) DO UPDATE SET u = {k}"),
        2 => format!("INSERT INTO a VALUES ({i}, {j}, {value}) ON CONFLICT DO NOTHING"),
        3 => format!("UPDATE {conflict} a SET id = {i}, u = {j} WHERE id = {k}"),
        4 => format!("UPDATE {conflict} a SET u = u + {i}, v = {value}"),
        5 => format!("DELETE FROM a WHERE id = {i}"),
        6 => format!("INSERT {conflict} INTO b VALUES ({text}, {i}, {value})"),
        7 => format!("UPDATE {conflict} b SET x = {text}, u = {value} WHERE y = {i}"),
        8 => format!("DELETE FROM b WHERE y > {i}"),
        9 => format!("INSERT {conflict} INTO c (rowid, u, v) VALUES ({i}, {j}, {k})"),
        10 => format!("UPDATE {conflict} c SET u = {i}, v = {value} WHERE rowid % 3 = {j} % 3"),
        11 => format!("DELETE FROM c WHERE v > {i}"),
        12 => format!("INSERT {conflict} INTO n VALUES ({text}, {value})"),
        13 => format!("UPDATE {conflict} n SET k = {text} WHERE v = {value}"),
        14 => format!("INSERT {conflict} INTO r VALUES ({i}, {j}, {k})"),
        15 => format!("UPDATE {conflict} r SET id = {i}, u = {j}"),
        _ => format!("DELETE FROM r WHERE id = {i}"),
    })
}

/// Statements of one transaction, and whether it commits.
fn transaction() -> impl Strategy<Value = (Vec<String>, bool)> {
    (proptest::collection::vec(operation(), 1..8), proptest::bool::weighted(0.85))
}

fn run(world: &World, settings: &str, transactions: &[(Vec<String>, bool)], runtime: &tokio::runtime::Runtime) {
    let mut stream = runtime.block_on(Stream::begin(world));
    let user = world.user();
    user.execute_batch(settings).unwrap();
    let mut replay = Replay::default();
    replay.nocase.push("n");
    for (statements, commits) in transactions {
        user.execute_batch("BEGIN").unwrap();
        for statement in statements {
            // Refused ones leave nothing (or, with OR FAIL, what came before the refused row).
            let _ = user.execute_batch(statement);
        }
        user.execute_batch(if *commits { "COMMIT" } else { "ROLLBACK" }).unwrap();
    }
    replay.take_all(runtime.block_on(stream.drain()));
    for table in ["a", "b", "c", "n", "r"] {
        replay.assert_equals(&user, table, "*");
    }
}

/// A few seconds' worth, unless asked for more.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_statements_are_replayed_exactly(
        transactions in proptest::collection::vec(transaction(), 1..12),
        recursive in any::<bool>(),
        foreign in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let world = World::new(SCHEMA);
        let settings = format!("PRAGMA synchronous = OFF; PRAGMA recursive_triggers = {recursive}; PRAGMA foreign_keys = {foreign};");
        run(&world, &settings, &transactions, &runtime);
    }
}
