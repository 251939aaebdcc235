//! What `check --grants` prints is all that a fresh role needs, word for word, in every tier of rights.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::pair::Pair;
use crate::store::Tier;

/// A little of everything that rights are about.
const SHOP: &[&str] = &[
    "CREATE SCHEMA billing",
    "CREATE TYPE billing.state AS ENUM ('open', 'paid')",
    "CREATE TABLE customer (id serial PRIMARY KEY, name text NOT NULL, region text DEFAULT 'eu')",
    "CREATE TABLE billing.invoice (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer int REFERENCES customer, state billing.state)",
    "CREATE TABLE billing.event (what text, happened timestamptz DEFAULT now())",
    "CREATE TABLE \"Odd Name\" (\"Key\" uuid PRIMARY KEY DEFAULT gen_random_uuid(), v text)",
    "CREATE TABLE parted (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)",
    "CREATE TABLE parted_old PARTITION OF parted FOR VALUES FROM (MINVALUE) TO ('2024-01-01')",
    "CREATE TABLE parted_new PARTITION OF parted FOR VALUES FROM ('2024-01-01') TO (MAXVALUE)",
    "CREATE SEQUENCE billing.free_numbers",
    "CREATE TABLE private (id int PRIMARY KEY, owner text)",
    "ALTER TABLE private ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY own ON private USING (owner = current_user)",
    "CREATE VIEW billing.open_invoices AS SELECT * FROM billing.invoice WHERE state = 'open'",
    "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.region := coalesce(NEW.region, ''eu''); RETURN NEW; END'",
    "CREATE TRIGGER touch BEFORE INSERT ON customer FOR EACH ROW EXECUTE FUNCTION touch()",
    "INSERT INTO customer (name) SELECT 'customer ' || g FROM generate_series(1, 50) g",
    "INSERT INTO billing.invoice (customer, state) SELECT g, 'open' FROM generate_series(1, 50) g",
    "INSERT INTO billing.event SELECT 'opened' FROM generate_series(1, 20)",
    "INSERT INTO \"Odd Name\" (v) VALUES ('a'), ('b')",
    "INSERT INTO parted SELECT g, date '2023-12-20' + g FROM generate_series(1, 30) g",
    "INSERT INTO private SELECT g, 'someone' FROM generate_series(1, 10) g",
];

const TABLES: &[&str] = &["customer", "billing.invoice", "billing.event", "\"Odd Name\"", "parted", "private"];

/// Which of what is printed is run.
#[derive(Clone, Copy, PartialEq)]
enum Run {
    Required,
    Everything,
}

#[test]
fn the_printed_statements_suffice_for_a_managed_service() {
    suffices(15, 18, Tier::Managed, Run::Required);
    suffices(18, 18, Tier::Managed, Run::Required);
}

#[test]
fn the_printed_statements_suffice_with_what_is_optional() {
    suffices(15, 18, Tier::Managed, Run::Everything);
}

#[test]
fn the_printed_statements_suffice_for_a_read_only_source() {
    suffices(15, 18, Tier::ReadOnly, Run::Required);
    suffices(18, 18, Tier::ReadOnly, Run::Required);
}

#[test]
fn the_printed_statements_suffice_on_the_oldest_version() {
    suffices(14, 15, Tier::Managed, Run::Everything);
    suffices(14, 15, Tier::ReadOnly, Run::Required);
}

/// A role that cannot keep the target's triggers still makes them when nobody writes any more, and not before.
#[test]
fn a_finish_that_meets_writers_leaves_triggers_unmade() {
    let Some(pair) = Pair::postgres_of_tier(15, 18, Tier::Managed) else { return };
    pair.source.run(&[
        "CREATE TABLE item (id serial PRIMARY KEY, v text)",
        "CREATE TABLE audit (id serial PRIMARY KEY, item int)",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.audit (item) VALUES (NEW.id); RETURN NEW; END'",
        "CREATE TRIGGER note AFTER INSERT ON item FOR EACH ROW EXECUTE FUNCTION note()",
    ]);
    let run = pair.running();
    let (source, stop) = (pair.source.clone(), Arc::new(AtomicBool::new(false)));
    let stopped = stop.clone();
    let writer = std::thread::spawn(move || {
        while !stopped.load(Ordering::SeqCst) {
            source.run(&["INSERT INTO item (v) VALUES ('more')"]);
        }
    });
    let met = pair.godwit(&["finish", "--yes"]);
    assert_eq!(met.code().as_deref(), Some("GW6010"), "{}", met.said());
    stop.store(true, Ordering::SeqCst);
    writer.join().unwrap();
    pair.await_same("SELECT count(*) FROM audit");
    assert_eq!(pair.target.number("SELECT count(*) FROM pg_trigger WHERE tgname = 'note'"), 0);
    run.kill();
    pair.finish();
    pair.assert_same("SELECT id, item FROM audit");
    assert_eq!(pair.target.number("SELECT count(*) FROM pg_trigger WHERE tgname = 'note'"), 1);
}

/// Policies that hold for a table's owner too come behind the last look at its rows.
#[test]
fn policies_that_hold_for_the_owner_hide_nothing_from_the_finish() {
    let Some(pair) = Pair::postgres_of_tier(18, 18, Tier::Managed) else { return };
    pair.source.run(&[
        "CREATE TABLE secret (id int PRIMARY KEY, whose text)",
        "INSERT INTO secret VALUES (1, 'mine'), (2, 'yours')",
        "CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM secret",
        "ALTER TABLE secret ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE secret FORCE ROW LEVEL SECURITY",
        "CREATE POLICY own ON secret USING (whose = current_user)",
    ]);
    pair.running().kill();
    pair.finish();
    let forced = "SELECT relforcerowsecurity::int + relrowsecurity::int FROM pg_class WHERE relname = 'secret'";
    assert_eq!((pair.target.number(forced), pair.target.number("SELECT count FROM counted")), (2, 2));
}

/// What belongs to the database's owner by its office, not by its name.
#[test]
fn tables_of_the_office_of_the_databases_owner_are_moved() {
    let Some(pair) = Pair::postgres_of_tier(18, 18, Tier::Managed) else { return };
    pair.source.run(&[
        "CREATE TABLE held (id int PRIMARY KEY)",
        "INSERT INTO held VALUES (1)",
        "ALTER TABLE held OWNER TO pg_database_owner",
    ]);
    pair.running().kill();
    pair.finish();
    pair.assert_same("SELECT id FROM held");
}

/// The sections of what is printed, for the source and the target.
fn printed(pair: &Pair) -> [String; 2] {
    let output = Command::new(env!("CARGO_BIN_EXE_godwit")).args(["check", "task.yaml", "--grants"]).current_dir(pair.path()).output();
    let output = output.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let (source, target) = text.split_once("-- at the target").unwrap();
    [source.to_owned(), format!("-- at the target{target}")]
}

fn suffices(first: u16, second: u16, tier: Tier, run: Run) {
    let Some(pair) = Pair::postgres_of_tier(first, second, tier) else { return };
    let pair = pair.that_grants_itself();
    pair.source.run(SHOP);
    let refused = pair.godwit(&["check"]).with(1);
    let refused: serde_json::Value = serde_json::from_str(&refused.stdout).unwrap();
    let findings = refused["findings"].as_array().unwrap();
    let unread = findings.iter().find(|finding| finding["check"] == "read_right").unwrap_or_else(|| panic!("{refused}"));
    for table in [
        "billing.event",
        "billing.invoice",
        "public.Odd Name",
        "public.customer",
        "public.parted_new",
        "public.parted_old",
        "public.private",
    ] {
        assert!(unread["what"].as_str().unwrap().contains(table), "all at once: {table} in {unread}");
    }
    assert!(findings.iter().any(|finding| finding["check"] == "create_right"), "the target is looked at all the same: {refused}");
    let [source, mut target] = printed(&pair);
    assert!(![&source, &target].iter().any(|text| text.contains("not all")), "{source}{target}");
    if run == Run::Required {
        target.truncate(target.find("-- where the service allows it").unwrap_or(target.len()));
    }
    pair.source.grant(&[source]);
    pair.target.grant(&[target]);
    let checked = pair.godwit(&["check"]).with(0);
    assert_eq!(checked.said().contains("replica_role"), run == Run::Required && second >= 15, "{}", checked.said());
    let run = pair.running();
    pair.source.run(&[
        "UPDATE customer SET name = name || '!' WHERE id < 10",
        "DELETE FROM billing.event WHERE ctid = (SELECT min(ctid) FROM billing.event)",
        "INSERT INTO parted VALUES (99, '2024-06-01')",
        "UPDATE private SET owner = 'another'",
        "INSERT INTO customer (name) VALUES ('last')",
    ]);
    for table in TABLES {
        pair.await_same(&format!("SELECT t::text FROM {table} t"));
    }
    run.kill();
    pair.finish();
    for table in TABLES {
        pair.assert_same(&format!("SELECT t::text FROM {table} t"));
    }
    assert_eq!(pair.target.number("SELECT count(*) FROM billing.open_invoices"), 50);
}

/// A MariaDB server shows an account only what it has rights on: what is printed first opens its eyes, the rest comes then.
#[test]
fn the_printed_statements_suffice_for_mariadb() {
    let Some(pair) = Pair::mariadb_of_tier(Tier::Managed) else { return };
    let pair = pair.that_grants_itself();
    pair.source.run(&[
        "CREATE TABLE customer (id INTEGER AUTO_INCREMENT PRIMARY KEY, name VARCHAR(40) NOT NULL, INDEX (name))",
        "CREATE TABLE invoice (id BIGINT PRIMARY KEY, customer INTEGER REFERENCES customer (id), paid DECIMAL(10,2) CHECK (paid >= 0))",
        "CREATE TABLE event (what TEXT)",
        "CREATE TABLE \"Odd Name\" (\"Key\" CHAR(4) PRIMARY KEY, v ENUM('a', 'b'))",
        "INSERT INTO customer (name) VALUES ('one'), ('two')",
        "INSERT INTO invoice VALUES (1, 1, 5), (2, 2, 7.25)",
        "INSERT INTO event VALUES ('opened'), ('opened')",
        "INSERT INTO \"Odd Name\" VALUES ('x', 'a')",
    ]);
    let blind = pair.godwit(&["check"]);
    assert_eq!(blind.code().as_deref(), Some("GW2005"), "{}", blind.said());
    assert!(blind.said().contains("GRANT SELECT ON"), "{}", blind.said());

    let printed = statements(&pair);
    assert!(printed.contains("no table that is selected was seen"), "{printed}");
    grant(&pair, &printed);
    let seen = pair.godwit(&["check"]).with(1);
    assert!(seen.said().contains("make and fill tables in database"), "{}", seen.said());
    let printed = statements(&pair);
    assert!(!printed.contains("-- not all"), "{printed}");
    grant(&pair, &printed);
    pair.godwit(&["check"]).with(0);

    let run = pair.running();
    pair.source.run(&[
        "UPDATE customer SET name = 'three' WHERE id = 2",
        "DELETE FROM invoice WHERE id = 1",
        "INSERT INTO event VALUES ('closed')",
        "INSERT INTO \"Odd Name\" VALUES ('y', 'b')",
    ]);
    let tables =
        ["SELECT id, name FROM customer", "SELECT id, customer, paid FROM invoice", "SELECT what FROM event", "SELECT * FROM \"Odd Name\""];
    tables.iter().for_each(|select| pair.await_same(select));
    run.kill();
    pair.godwit(&["verify"]).with(0);
    pair.finish();
    tables.iter().for_each(|select| pair.assert_same(select));
    pair.assert_no_traces();
}

/// A table on which the account has no right is not seen, and so would not be moved: that is said.
#[test]
fn a_table_that_a_mariadb_account_does_not_see_is_warned_of() {
    let Some(pair) = Pair::mariadb_of_tier(Tier::Managed) else { return };
    let pair = pair.that_grants_itself();
    pair.source.run(&["CREATE TABLE shown (id INTEGER PRIMARY KEY)", "CREATE TABLE hidden (id INTEGER PRIMARY KEY, secret TEXT)"]);
    grant(&pair, &statements(&pair));
    grant(&pair, &statements(&pair));
    let database = pair.source.schema();
    let account = format!("`{database}_mover`@`127.0.0.1`");
    pair.source
        .grant(&[format!("REVOKE SELECT ON `{database}`.* FROM {account}"), format!("GRANT SELECT ON `{database}`.shown TO {account}")]);
    let warned = pair.godwit(&["check"]).with(0);
    assert!(warned.said().contains("are not seen, and not moved"), "{}", warned.said());
    pair.source.grant(&[format!("GRANT INSERT, SELECT (id) ON `{database}`.hidden TO {account}")]);
    let refused = pair.godwit(&["check"]).with(1);
    assert!(refused.said().contains(&format!("may not read table {database}.hidden")), "{}", refused.said());
}

/// Everything that `check --grants` prints.
fn statements(pair: &Pair) -> String {
    printed(pair).concat()
}

/// Runs at each side what is printed for it.
fn grant(pair: &Pair, printed: &str) {
    let (source, target) = printed.split_once("-- at the target").unwrap();
    for (store, text) in [(&pair.source, source), (&pair.target, target)] {
        let statements = text.lines().filter(|line| line.starts_with("GRANT")).map(str::to_owned).collect::<Vec<_>>();
        store.grant(&statements);
    }
}
