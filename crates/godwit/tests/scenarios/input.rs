//! Bad input: each with its own code, and nothing changed.

use godwit_testkit::servers::{Postgres, PostgresOptions};

use crate::pair::{Pair, on_every_engine};

on_every_engine!(a_table_that_is_gone_stops_the_task, source_and_target_may_not_be_the_same);

fn a_table_that_is_gone_stops_the_task(pair: &Pair) {
    pair.source.run(&[
        "CREATE TABLE stays (id INTEGER PRIMARY KEY)",
        "CREATE TABLE goes (id INTEGER PRIMARY KEY)",
        "INSERT INTO goes VALUES (1)",
    ]);
    pair.running().kill();
    pair.source.run(&["DROP TABLE goes"]);
    let stopped = pair.godwit(&["run"]).with(4);
    assert!(stopped.said().contains("goes"), "{}", stopped.said());
    assert_eq!(pair.target.number("SELECT COUNT(*) FROM goes"), 1);
    pair.godwit(&["clean", "--yes"]).with(0);
    pair.assert_no_traces();
}

fn source_and_target_may_not_be_the_same(pair: &Pair) {
    pair.source.run(&["CREATE TABLE item (id INTEGER PRIMARY KEY)"]);
    // another spelling of the same place
    let same = pair.source.url().replace("127.0.0.1", "localhost");
    pair.write_whole_task(&format!("source: {}\ntarget: {same}\n", pair.source.url()));
    let refused = pair.godwit(&["run"]);
    assert!(matches!(refused.status.code(), Some(1 | 2)) && refused.said().contains("GW1011"), "{}", refused.said());
    assert_eq!(pair.source.traces(&pair.name), Vec::<String>::new());
}

#[test]
fn a_server_that_is_not_there_is_said_so() {
    let Some(pair) = Pair::postgres() else { return };
    // port 1 has no listener
    pair.write_whole_task(&format!("source: postgres://postgres@127.0.0.1:1/shop\ntarget: {}\n", pair.target.url()));
    let refused = pair.godwit(&["run"]).with(3);
    assert_eq!(refused.code().as_deref(), Some("GW2001"));
    assert!(refused.said().contains("127.0.0.1"), "{}", refused.said());
}

#[test]
fn a_file_that_is_not_there_is_said_so() {
    let Some(pair) = Pair::sqlite() else { return };
    pair.write_whole_task("source: sqlite:nowhere.db\ntarget: sqlite:target.db\n");
    let refused = pair.godwit(&["run"]);
    assert!(matches!(refused.status.code(), Some(2 | 3)) && refused.said().contains("nowhere.db"), "{}", refused.said());
    assert!(!pair.path().join("nowhere.db").exists() && !pair.path().join("target.db").exists());
}

#[test]
fn a_wrong_password_is_said_so_and_not_shown() {
    let rules = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    let Some(server) = Postgres::start(18, &PostgresOptions::default().with_access_rules(rules)) else { return };
    let Some(pair) = Pair::postgres() else { return };
    let open = |user: &str| format!("postgres://{user}@127.0.0.1:{}/postgres", server.port());
    let admin = crate::postgres::execute(&open("postgres"), "CREATE ROLE mover LOGIN REPLICATION PASSWORD 'sesame'");
    assert_eq!(admin, Ok(()));
    pair.write_whole_task(&format!("source: {}\ntarget: {}\n", open("mover:abracadabra"), pair.target.url()));
    let refused = pair.godwit(&["run"]).with(2);
    assert_eq!(refused.code().as_deref(), Some("GW2002"));
    assert!(!refused.said().contains("abracadabra"), "{}", refused.said());
}
