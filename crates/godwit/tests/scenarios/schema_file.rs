//! `schema.create: {file: ...}`: what `plan --sql` wrote and a person edited, a dump, a script of one's own.

use std::process::Command;

use godwit_testkit::servers::tool;

use crate::pair::Pair;

const SHOP: &[&str] = &[
    "CREATE SCHEMA shop",
    "CREATE TYPE shop.state AS ENUM ('open', 'paid')",
    "CREATE TABLE shop.customer (id int PRIMARY KEY, name varchar(20) NOT NULL, note text DEFAULT 'old', born date)",
    "CREATE TABLE shop.invoice (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer int REFERENCES shop.customer, state shop.state, total numeric(8,2))",
    "CREATE INDEX by_born ON shop.customer (born)",
    "CREATE INDEX by_state ON shop.invoice (state)",
    "CREATE UNIQUE INDEX by_name ON shop.customer (lower(name))",
    "CREATE VIEW shop.unpaid AS SELECT * FROM shop.invoice WHERE state = 'open'",
    "CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.note := ''touched; by a trigger''; RETURN NEW; END'",
    "CREATE TRIGGER touch BEFORE UPDATE ON shop.customer FOR EACH ROW EXECUTE FUNCTION shop.touch()",
    "INSERT INTO shop.customer SELECT g, 'name ' || g, 'n' || g, date '2000-01-01' + g FROM generate_series(1, 300) g",
    "INSERT INTO shop.invoice (customer, state, total) SELECT g, 'open', g / 3.0 FROM generate_series(1, 300) g",
];

const CUSTOMERS: &str = "SELECT id, name, note, born FROM shop.customer";
const INVOICES: &str = "SELECT id, customer, state::text, total FROM shop.invoice";

fn plan(pair: &Pair) -> String {
    pair.godwit(&["plan", "--sql", "target.sql"]).with(0);
    std::fs::read_to_string(pair.path().join("target.sql")).unwrap()
}

fn with_file(pair: &Pair, sql: &str) {
    std::fs::write(pair.path().join("target.sql"), sql).unwrap();
    pair.write_task("schema: {create: {file: target.sql}}\n");
}

#[track_caller]
fn edited(sql: &str, from: &str, to: &str) -> String {
    assert!(sql.contains(from), "no `{from}` in:\n{sql}");
    sql.replacen(from, to, 1)
}

/// Rows come and change, the process is killed in between, and everything is as at the source in the end.
#[track_caller]
fn moves(pair: &Pair) {
    pair.godwit(&["check"]).with(0);
    let run = pair.running();
    pair.source.run(&[
        "UPDATE shop.customer SET name = 'other ' || id WHERE id % 7 = 0",
        "DELETE FROM shop.invoice WHERE id % 5 = 0",
        "UPDATE shop.invoice SET total = total + 1, state = 'paid' WHERE id % 3 = 0",
        "UPDATE shop.customer SET id = id + 1000 WHERE id % 5 = 0",
        "INSERT INTO shop.customer VALUES (5000, 'new', NULL, 'infinity')",
        "INSERT INTO shop.invoice (customer, state, total) VALUES (5000, 'paid', 'NaN')",
    ]);
    pair.await_same(CUSTOMERS);
    pair.await_same(INVOICES);
    run.kill();
    pair.source.run(&["INSERT INTO shop.customer VALUES (5001, 'later', 'x', NULL)", "DELETE FROM shop.customer WHERE id = 5001"]);
    pair.godwit(&["run", "--until", "caught-up"]).with(0);
    pair.godwit(&["check"]).with(0);
    pair.godwit(&["verify"]).with(0);
    pair.finish();
    pair.assert_same(CUSTOMERS);
    pair.assert_same(INVOICES);
}

fn given(first: u16) -> Option<Pair> {
    let pair = Pair::postgres_on_shared(first, 18)?;
    pair.source.run(SHOP);
    Some(pair)
}

fn one(pair: &Pair, sql: &str) -> String {
    pair.target.rows(sql)[0][0].clone().unwrap_or_default()
}

fn indexes(pair: &Pair) -> String {
    one(pair, "SELECT string_agg(indexname, ' ' ORDER BY indexname) FROM pg_indexes WHERE schemaname = 'shop'")
}

#[test]
fn a_plan_that_was_edited_is_the_target() {
    for first in [15, 18] {
        let Some(pair) = given(first) else { return };
        let sql = plan(&pair);
        // a key and a column of wider types, a default, a column of one's own, an index less and one more
        let sql = edited(
            &sql,
            "id integer NOT NULL,\n    name character varying(20) NOT NULL,\n    note text DEFAULT 'old'::text",
            "id bigint NOT NULL,\n    name text NOT NULL,\n    note text DEFAULT 'young'::text,\n    extra int DEFAULT 7",
        );
        let sql = edited(&sql, "total numeric(8,2)", "total numeric");
        let sql = edited(
            &sql,
            "CREATE INDEX by_born ON shop.customer USING btree (born)",
            "CREATE INDEX by_note ON shop.customer USING btree (note)",
        );
        let dropped = sql.find("CREATE INDEX by_state").unwrap();
        let end = dropped + sql[dropped..].find(';').unwrap() + 1;
        let sql = format!("{}{}", &sql[..dropped], &sql[end..]);
        with_file(&pair, &sql);
        moves(&pair);
        let types = "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'shop.customer'::regclass AND attnum > 0 AND NOT attisdropped";
        assert_eq!(one(&pair, types), "id bigint, name text, note text, extra integer, born date");
        assert_eq!(one(&pair, "SELECT DISTINCT extra::text FROM shop.customer"), "7");
        assert_eq!(indexes(&pair), "by_name by_note customer_pkey invoice_pkey");
        pair.target.run(&["INSERT INTO shop.customer (id, name) VALUES (6000000000, 'a name of more than twenty letters')"]);
        assert_eq!(one(&pair, "SELECT note FROM shop.customer WHERE id = 6000000000"), "young");
        assert_eq!(one(&pair, "UPDATE shop.customer SET note = 'x' WHERE id = 1 RETURNING note"), "touched; by a trigger");
        assert_eq!(one(&pair, "SELECT count(*)::text FROM pg_constraint WHERE contype = 'f'"), "1");
    }
}

#[test]
fn a_dump_is_a_schema_file() {
    let Some(pair) = given(18) else { return };
    let Some(dump) = tool(18, "pg_dump") else { return };
    let output = Command::new(dump).args(["--schema-only", "--no-owner", "-d", &pair.source.url()]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    with_file(&pair, &String::from_utf8(output.stdout).unwrap());
    moves(&pair);
    assert_eq!(indexes(&pair), "by_born by_name by_state customer_pkey invoice_pkey");
    assert_eq!(one(&pair, "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"), "touch");
}

#[test]
fn a_script_of_ones_own_is_a_schema_file() {
    let Some(pair) = given(18) else { return };
    let script = "
-- by hand; with no marks
BEGIN;
SET search_path TO shop;
CREATE SCHEMA shop;
CREATE TYPE state AS ENUM ('open', 'paid');
CREATE TABLE customer (born date, id bigint PRIMARY KEY, name text NOT NULL CHECK (name <> ''), note text) PARTITION BY HASH (id);
CREATE TABLE customer_0 PARTITION OF customer FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE customer_1 PARTITION OF customer FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE invoice (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, customer bigint, state state, total numeric);
CREATE INDEX by_state ON invoice (state);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $b$ BEGIN NEW.note := 'touched; by hand'; RETURN NEW; END $b$;
CREATE TRIGGER touch BEFORE UPDATE ON customer FOR EACH ROW EXECUTE FUNCTION touch();
ALTER TABLE invoice ADD CONSTRAINT of_customer FOREIGN KEY (customer) REFERENCES customer;
COMMIT;
";
    with_file(&pair, script);
    moves(&pair);
    assert_eq!(one(&pair, "SELECT conname FROM pg_constraint WHERE contype = 'f' AND conparentid = 0"), "of_customer");
    assert_eq!(one(&pair, "UPDATE shop.customer SET name = 'x' WHERE id = 1 RETURNING note"), "touched; by hand");
    assert_eq!(one(&pair, "SELECT nextval('shop.invoice_id_seq')::text"), "302");
}

#[test]
fn a_value_that_an_edited_type_does_not_take_stops_and_is_named() {
    let Some(pair) = given(18) else { return };
    let sql = edited(&plan(&pair), "name character varying(20)", "name character varying(6)");
    with_file(&pair, &sql);
    let stopped = pair.godwit(&["run"]).with(4);
    assert!(stopped.said().contains("shop.customer"), "{}", stopped.said());
    pair.godwit(&["clean", "--yes"]).with(0);
}
