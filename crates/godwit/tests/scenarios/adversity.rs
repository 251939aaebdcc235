//! What administrators, machines and other users do to a task in the middle of it.

use std::time::{Duration, Instant};

use fastrand::Rng;
use godwit_testkit::bank::Bank;
use godwit_testkit::network::Proxy;

use crate::bank::{self, Users, Workload};
use crate::failover::{await_true, standby};
use crate::kill_loop::await_journal;
use crate::pair::{Pair, is_long, on_every_engine};
use crate::postgres::execute;
use crate::process::PATIENCE;
use crate::store::Tier;

on_every_engine!(a_process_that_is_paused_again_and_again_goes_on);

const ITEMS: &str = "SELECT id, name FROM item";

fn items(pair: &Pair, rows: usize) {
    let numbers = format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) SELECT i FROM n");
    pair.source.run(&[
        "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)",
        &format!("INSERT INTO item SELECT i, 'row ' || i FROM ({numbers}) AS numbers"),
    ]);
}

/// At any moment, for a moment and now and then for longer than a lease stands still; nobody else wants the task.
fn a_process_that_is_paused_again_and_again_goes_on(pair: &Pair) {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    items(pair, 20_000);
    let bank = Bank { accounts: 60, writers: 2, seed };
    bank::open(pair, &bank);
    let mut workload = Workload::begin(pair, bank, Users::NeverRefused);
    let mut run = pair.start(&["run"]);
    for round in 0..if is_long() { 60 } else { 12 } {
        if run.within(Duration::from_millis(random.u64(0..300)), |event| event["event"] == "consistent").is_some() {
            workload.arm();
        }
        run.signal("STOP");
        let longer = is_long() && round % 20 == 0;
        std::thread::sleep(if longer { Duration::from_secs(40) } else { Duration::from_millis(random.u64(0..200)) });
        run.signal("CONT");
        assert!(!run.is_over(), "the run has ended");
    }
    let journal = pair.source.number("SELECT COUNT(*) FROM journal");
    let writers = {
        let deadline = Instant::now() + PATIENCE;
        while !workload.is_armed() && Instant::now() < deadline {
            if run
                .within(Duration::from_secs(1), |event| event["event"] == "consistent" || event["changes"]["consistent"] == true)
                .is_some()
            {
                workload.arm();
            }
        }
        await_journal(pair, &mut run, journal);
        workload.stop_writers()
    };
    let mut finish = pair.start(&["finish", "--yes"]);
    for _ in 0..3 {
        finish.within(Duration::from_millis(random.u64(0..100)), |_| false);
        if !finish.is_over() {
            finish.signal("STOP");
            std::thread::sleep(Duration::from_millis(random.u64(0..200)));
            finish.signal("CONT");
        }
    }
    finish.end().with(0);
    workload.end();
    run.end().with(0);
    pair.assert_no_traces();
    pair.assert_same(ITEMS);
    bank::assert_equal(pair, &bank, &writers);
}

/// Its size is asked for, and `pg_dump` locks every table: both wait behind whoever alters one.
#[test]
fn a_table_that_is_locked_before_the_start_is_waited_for() {
    let Some(pair) = Pair::postgres() else { return };
    items(&pair, 10);
    let mut lock = pair.source.connect().unwrap();
    lock.rows("BEGIN; LOCK TABLE item IN ACCESS EXCLUSIVE MODE").unwrap();
    let mut run = pair.start(&["run"]);
    assert!(run.within(Duration::from_secs(2), |event| event["event"] == "error").is_none() && !run.is_over());
    drop(lock);
    run.wait_consistent();
    run.kill();
    pair.finish();
}

/// Timeouts and rules that administrators give to roles are made for people's sessions.
#[test]
fn what_a_role_is_set_to_ends_no_session_of_a_whole_task() {
    let Some(pair) = Pair::postgres_on_own(18, 18, Tier::Managed) else { return };
    items(&pair, 20_000);
    for (store, side) in [(&pair.source, "source"), (&pair.target, "target")] {
        let settings = [
            "statement_timeout = '1s'",
            "lock_timeout = '1s'",
            "idle_in_transaction_session_timeout = '1s'",
            "idle_session_timeout = '1s'",
            "transaction_timeout = '1s'",
            "default_transaction_read_only = on",
            "search_path = nowhere",
            "synchronous_commit = off",
            "default_transaction_isolation = 'serializable'",
        ];
        let server = store.server().unwrap().url(side);
        for setting in settings {
            assert_eq!(execute(&server, &format!("ALTER ROLE {side}_mover SET {setting}")), Ok(()));
        }
    }
    let network = Proxy::before(pair.source.server().unwrap().port());
    // a dump asks for longer than a transaction may last
    network.delay(Duration::from_millis(40));
    pair.write_task_between(&network.url(&pair.source.url()), &pair.target.url(), "");
    let mut run = pair.running();
    let mut lock = pair.target.connect().unwrap();
    lock.rows("BEGIN; LOCK TABLE item IN ACCESS EXCLUSIVE MODE").unwrap();
    pair.source.run(&["INSERT INTO item VALUES (100000, 'more')", "UPDATE item SET name = 'x' WHERE id = 7"]);
    // longer than a statement may last, and than a session may rest
    assert!(run.within(Duration::from_secs(3), |event| event["event"] == "retrying").is_none());
    drop(lock);
    pair.source.run(&["DELETE FROM item WHERE id < 5000"]);
    pair.await_same(ITEMS);
    pair.godwit(&["verify"]).with(0);
    assert!(run.within(Duration::ZERO, |event| event["event"] == "retrying").is_none() && !run.is_over());
    run.kill();
    pair.finish();
}

/// The copy goes on from the new primary: its blocks are where they were.
#[test]
fn a_standby_promoted_in_the_middle_of_the_load_is_followed() {
    let Some(pair) = Pair::postgres_on_own(18, 18, Tier::Full) else { return };
    items(&pair, 2000);
    pair.source.run(&["CREATE TABLE small (id INTEGER PRIMARY KEY)", "INSERT INTO small VALUES (1)", "ANALYZE"]);
    let primary = pair.source.server().unwrap();
    let network = Proxy::before(primary.port());
    pair.write_task_between(&network.url(&pair.source.url()), &pair.target.url(), "limits: {connections: {source: 1, target: 1}}\n");
    let Some(standby) = standby(primary, pair.path()) else { return };
    primary.set("synchronized_standby_slots", "standby");
    primary.reload();
    pair.target.run(&["CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)"]);
    let mut lock = pair.target.connect().unwrap();
    // whether it is empty must be seen
    lock.rows("BEGIN; LOCK TABLE item IN SHARE MODE").unwrap();
    let mut run = pair.start(&["run"]);
    run.wait_until("the plan", |event| event["event"] == "table_planned");
    pair.source.run(&["UPDATE item SET name = 'changed' WHERE id % 7 = 0", "INSERT INTO item VALUES (5001, 'before')"]);
    await_true(&standby.url("source"), "SELECT count(*) = 1 FROM pg_replication_slots WHERE synced AND NOT temporary AND failover");
    primary.stop();
    network.lead_to(standby.port());
    assert_eq!(execute(&standby.url("source"), "SELECT pg_promote()"), Ok(()));
    await_true(&standby.url("source"), "SELECT NOT pg_is_in_recovery()");
    let after = "DELETE FROM item WHERE id < 100; INSERT INTO item VALUES (5002, 'after'); INSERT INTO small VALUES (2)";
    assert_eq!(execute(&standby.url("source"), after), Ok(()));
    drop(lock);
    run.wait_consistent();
    pair.godwit(&["verify"]).with(0);
    assert_eq!(pair.target.number("SELECT COUNT(*) FROM item WHERE id > 5000"), 2);
    assert_eq!(pair.target.number("SELECT COUNT(*) FROM item"), 2000 - 99 + 2);
    run.kill();
    pair.godwit(&["finish", "--yes"]).with(0);
}
