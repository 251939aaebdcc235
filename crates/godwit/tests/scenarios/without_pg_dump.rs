//! No `pg_dump`, or one that is older than the source's server: tables are made by our own DDL, and all the rest is
//! listed, with the reason.

use std::path::Path;

use godwit_testkit::servers::tool;
use serde_json::Value as Json;

use crate::pair::Pair;

const RICH: &[&str] = &[
    "CREATE SCHEMA shop",
    "CREATE EXTENSION hstore SCHEMA shop",
    "CREATE TYPE shop.state AS ENUM ('open', 'paid')",
    "CREATE TYPE shop.unused AS (a int)",
    "CREATE FUNCTION shop.double(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT i * 2'",
    "CREATE TABLE shop.item (id serial PRIMARY KEY, n int CHECK (n > 0), state shop.state, UNIQUE (n, state))",
    "CREATE TABLE shop.part (id int PRIMARY KEY, item int REFERENCES shop.item) PARTITION BY RANGE (id)",
    "CREATE TABLE shop.part_all PARTITION OF shop.part DEFAULT",
    "CREATE INDEX item_double ON shop.item (shop.double(n))",
    "CREATE INDEX item_state ON shop.item (state) WHERE n > 2",
    "CREATE VIEW shop.seen AS SELECT id FROM shop.item",
    "CREATE MATERIALIZED VIEW shop.held AS SELECT count(*) FROM shop.item",
    "CREATE PROCEDURE shop.done() LANGUAGE sql AS 'SELECT 1'",
    "CREATE AGGREGATE shop.total(int) (SFUNC = int4pl, STYPE = int)",
    "CREATE FUNCTION shop.fire() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "CREATE TRIGGER fires BEFORE INSERT ON shop.item FOR EACH ROW EXECUTE FUNCTION shop.fire()",
    "CREATE RULE quiet AS ON DELETE TO shop.item WHERE false DO INSTEAD NOTHING",
    "ALTER TABLE shop.item ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY own ON shop.item USING (true)",
    "CREATE STATISTICS shop.both ON n, state FROM shop.item",
    "CREATE SEQUENCE shop.free",
    "CREATE CAST (shop.unused AS int) WITH INOUT",
    "CREATE COLLATION shop.mine FROM \"C\"",
    "CREATE TEXT SEARCH DICTIONARY shop.plain (TEMPLATE = pg_catalog.simple)",
    "COMMENT ON INDEX shop.item_state IS 'why'",
    "INSERT INTO shop.item (n, state) SELECT g, 'open' FROM generate_series(1, 50) g",
    "INSERT INTO shop.part SELECT g, g FROM generate_series(1, 50) g",
];

const LISTED: &[&str] = &[
    "AGGREGATE shop.total(integer)",
    "CAST (shop.unused AS integer)",
    "COLLATION shop.mine",
    "COMMENT of index shop.item_state",
    "EXTENSION hstore",
    "FUNCTION shop.double(i integer)",
    "FUNCTION shop.fire()",
    "INDEX shop.item_double",
    "MATERIALIZED VIEW shop.held",
    "PARTITIONS of shop.part (RANGE (id))",
    "POLICY shop.own of shop.item",
    "PROCEDURE shop.done()",
    "ROW SECURITY of shop.item",
    "RULE shop.quiet of shop.item",
    "SEQUENCE shop.free",
    "STATISTICS shop.both of shop.item",
    "TEXT SEARCH DICTIONARY shop.plain",
    "TRIGGER shop.fires of shop.item",
    "TYPE shop.unused",
    "VIEW shop.seen",
];

/// A folder of programs that holds nothing but what starts the process.
fn bare_path(pair: &Pair) -> String {
    let folder = pair.path().join("bin");
    std::fs::create_dir(&folder).unwrap();
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap()).map(|folder| folder.join("setpriv")).find(|path| path.exists());
    std::os::unix::fs::symlink(found.unwrap(), folder.join("setpriv")).unwrap();
    folder.display().to_string()
}

fn plan(pair: &Pair, variables: &[(&str, &str)]) -> Vec<(String, String)> {
    let ended = pair.start_with(&["plan"], variables).end().with(0);
    let plan: Json = serde_json::from_str(&ended.stdout).unwrap();
    let text = |left: &Json, key: &str| left[key].as_str().unwrap().to_owned();
    let mut left: Vec<_> =
        plan["not_carried"].as_array().unwrap().iter().map(|left| (text(left, "object"), text(left, "reason"))).collect();
    left.sort();
    left
}

fn objects(left: &[(String, String)]) -> Vec<&str> {
    left.iter().map(|(object, _)| object.as_str()).collect()
}

#[test]
fn everything_but_tables_is_listed_and_tables_move() {
    // Debian's folders are looked at whatever the PATH says
    if (18..26).any(|version| Path::new(&format!("/usr/lib/postgresql/{version}/bin/pg_dump")).exists()) {
        eprintln!("SKIPPED: a pg_dump lies in Debian's folder: everything_but_tables_is_listed_and_tables_move");
        return;
    }
    let Some(pair) = Pair::postgres_on_shared(18, 18) else { return };
    let Some(older) = tool(15, "pg_dump") else { return };
    pair.source.run(RICH);
    assert_eq!(objects(&plan(&pair, &[])), Vec::<&str>::new(), "all of it is carried with a pg_dump");
    let (path, older) = (bare_path(&pair), older.display().to_string());
    let with_older = plan(&pair, &[("GODWIT_PG_DUMP", &older), ("PATH", &path)]);
    assert_eq!(objects(&with_older), LISTED);
    let said = format!("no pg_dump 18 or newer was found ({older} is 15), so only tables are made");
    assert!(with_older.iter().any(|(object, reason)| object == "VIEW shop.seen" && *reason == said), "{with_older:#?}");
    let absent = [("GODWIT_PG_DUMP", "/nowhere/pg_dump"), ("PATH", path.as_str())];
    let without = plan(&pair, &absent);
    assert_eq!(objects(&without), LISTED);
    assert!(without.iter().any(|(_, reason)| reason == "no pg_dump 18 or newer was found, so only tables are made"), "{without:#?}");
    let mut run = pair.start_with(&["run"], &absent);
    run.wait_consistent();
    pair.source.run(&["UPDATE shop.item SET state = 'paid' WHERE id % 2 = 0", "DELETE FROM shop.part WHERE id > 40"]);
    pair.await_same("SELECT id, n, state::text FROM shop.item");
    run.kill();
    pair.start_with(&["finish", "--yes"], &absent).end().with(0);
    pair.assert_no_traces();
    pair.assert_same("SELECT id, n, state::text FROM shop.item");
    pair.assert_same("SELECT id, item FROM shop.part");
    assert_eq!(pair.target.number("SELECT count(*) FROM pg_constraint WHERE contype = 'f'"), 1);
}
