//! What stands at the target already: triggers, cascades, constraints that are checked late.

use crate::pair::Pair;

/// A foreign key that cascades, and a trigger that notes what happens.
const TABLES: &[&str] = &[
    "CREATE TABLE parent (id integer PRIMARY KEY, name text)",
    "CREATE TABLE child (id integer PRIMARY KEY, parent integer REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE)",
    "CREATE TABLE note (id serial PRIMARY KEY, what text)",
    "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.note (what) VALUES (TG_OP || OLD); RETURN NULL; END $$",
    "CREATE TRIGGER note AFTER UPDATE OR DELETE ON parent FOR EACH ROW EXECUTE FUNCTION note()",
];

/// The log holds what they did at the source: at the target they would do it again.
#[test]
fn triggers_and_cascades_of_the_target_do_not_fire() {
    let Some(pair) = Pair::postgres() else { return };
    pair.source.run(TABLES);
    pair.target.run(TABLES);
    pair.source.run(&[
        "INSERT INTO parent SELECT i, 'p' || i FROM generate_series(1, 50) i",
        "INSERT INTO child SELECT i, i % 50 + 1 FROM generate_series(1, 500) i",
    ]);
    let (source, target) = (pair.source.url(), pair.target.url());
    pair.write_whole_task(&format!("source: {source}\ntarget: {{url: '{target}', existing: append}}\nschema: {{create: none}}\n"));
    let run = pair.running();
    pair.source.run(&["UPDATE parent SET id = id + 100 WHERE id < 20", "DELETE FROM parent WHERE id % 3 = 0"]);
    pair.source.run(&["BEGIN", "DELETE FROM parent WHERE id = 101", "INSERT INTO parent VALUES (101, 'again')", "COMMIT"]);
    // the parent comes behind its child in the log of an update of both
    pair.source.run(&["INSERT INTO parent VALUES (999, 'last')", "INSERT INTO child VALUES (999, 999)"]);
    for table in ["parent", "child", "note"] {
        pair.await_same(&format!("SELECT * FROM {table}"));
    }
    assert!(pair.target.number("SELECT COUNT(*) FROM note") > 20);
    run.kill();
    pair.finish();
}

/// A session that keeps triggers still would not check it either: the server checks it by triggers of its own.
#[test]
fn a_value_taken_under_a_deferrable_constraint_stops_the_task() {
    let Some(pair) = Pair::postgres() else { return };
    pair.source.run(&[
        "CREATE TABLE seat (id integer PRIMARY KEY, place text NOT NULL UNIQUE DEFERRABLE)",
        "INSERT INTO seat VALUES (1, 'window'), (2, 'aisle')",
    ]);
    let run = pair.running();
    pair.source.run(&["UPDATE seat SET place = CASE place WHEN 'window' THEN 'aisle' ELSE 'window' END"]);
    pair.await_same("SELECT id, place FROM seat");
    pair.target.run(&["INSERT INTO seat VALUES (7, 'middle')"]);
    pair.source.run(&["INSERT INTO seat VALUES (3, 'middle')"]);
    let stopped = run.end().with(4);
    assert_eq!(stopped.code().as_deref(), Some("GW4002"), "{}", stopped.said());
    assert_eq!(pair.target.number("SELECT COUNT(*) FROM seat"), 3);
    // what is not the source's is somebody's
    pair.target.run(&["DELETE FROM seat WHERE id = 7"]);
    pair.godwit(&["run", "--until", "caught-up"]).with(0);
    pair.assert_same("SELECT id, place FROM seat");
    pair.finish();
}
