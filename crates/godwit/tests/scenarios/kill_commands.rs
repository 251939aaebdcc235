//! Kills in every command, not only in a run that follows: each goes on from where it stood, or is simply given again.

use std::time::Duration;

use fastrand::Rng;
use godwit_testkit::bank::Bank;

use crate::bank::{self, Users, Workload};
use crate::pair::{Pair, is_long, on_every_engine};
use crate::process::{Ended, Godwit};
use crate::store::{Store, Tier};

on_every_engine!(commands_that_are_killed_are_given_again, a_copy_of_tables_without_a_key_begins_again);

const FILLER: &str = "SELECT id, content FROM filler";
/// The longest a command lives before it is killed.
const LONGEST_LIFE: Duration = Duration::from_millis(700);

fn rounds() -> usize {
    if is_long() { 8 } else { 2 }
}

fn given(pair: &Pair) -> (Bank, Rng) {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let bank = Bank { accounts: 60, writers: 2, seed };
    bank::open(pair, &bank);
    let numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT i FROM n";
    pair.source.run(&[
        "CREATE TABLE filler (id INTEGER PRIMARY KEY, content TEXT)",
        &format!("INSERT INTO filler SELECT i, 'content of row ' || i FROM ({numbers}) AS numbers"),
    ]);
    (bank, Rng::with_seed(seed))
}

/// Starts the command and kills it after a random moment, so many times; then lets it end.
fn killed_again_and_again(pair: &Pair, command: &[&str], random: &mut Rng) {
    for _ in 0..rounds() {
        let mut dying = pair.start(command);
        dying.within(LONGEST_LIFE.mul_f64(random.f64()), |_| false);
        dying.kill();
    }
}

fn commands_that_are_killed_are_given_again(pair: &Pair) {
    let (bank, mut random) = given(pair);
    let mut workload = Workload::begin(pair, bank, Users::NeverRefused);
    killed_again_and_again(pair, &["run"], &mut random);
    pair.running().kill();
    let writers = workload.stop_writers();
    pair.godwit(&["run", "--until", "caught-up"]).with(0);

    pair.target.run(&["DELETE FROM filler WHERE id % 3 = 0", "UPDATE filler SET content = 'wrong' WHERE id % 7 = 0"]);
    killed_again_and_again(pair, &["verify", "--repair"], &mut random);
    pair.godwit(&["verify", "--repair"]).with(0);
    pair.assert_same(FILLER);

    pair.source.forget_changes();
    pair.source.run(&["DELETE FROM filler WHERE id % 5 = 0", "UPDATE filler SET id = id + 100000 WHERE id % 11 = 0"]);
    killed_again_and_again(pair, &["run", "--resync"], &mut random);
    pair.godwit(&["run", "--resync", "--until", "consistent"]).with(0);
    pair.assert_same(FILLER);

    killed_again_and_again(pair, &["clean", "--yes"], &mut random);
    pair.godwit(&["clean", "--yes"]).with(0);
    pair.assert_no_traces();
    workload.end();
    pair.assert_same(FILLER);
    bank::assert_equal(pair, &bank, &writers);
}

#[test]
fn a_source_killed_during_the_load_and_a_target_killed_during_the_finish() {
    if let Some(pair) = Pair::postgres_on_own(18, 18, Tier::Full) {
        servers_killed(&pair);
    }
}

#[test]
fn a_mariadb_source_killed_during_the_load_and_a_target_killed_during_the_finish() {
    if let Some(pair) = Pair::mariadb_on_own(Tier::Full) {
        servers_killed(&pair);
    }
}

fn servers_killed(pair: &Pair) {
    let (bank, mut random) = given(pair);
    let mut workload = Workload::begin(pair, bank, Users::Forgiving);
    let mut run = pair.start(&["run"]);
    for _ in 0..rounds() {
        strike_in(&mut run, "load", &*pair.source, &mut random);
        if run.is_over() {
            // before it had its lease it says "not now"
            run.end().with(3);
            run = pair.start(&["run"]);
        }
    }
    // whether it was consistent between two strikes is chance
    run.kill();
    let run = pair.running();
    workload.arm();
    let writers = workload.stop_writers();
    run.kill();
    let mut finished = false;
    for _ in 0..rounds() {
        let finish = pair.start(&["finish", "--yes"]);
        finished = ended_in_strike(finish, "finish", &*pair.target, &mut random).status.success();
        if finished {
            break;
        }
    }
    if !finished {
        pair.godwit(&["finish", "--yes"]).with(0);
    }
    pair.assert_no_traces();
    workload.end();
    pair.assert_same(FILLER);
    bank::assert_equal(pair, &bank, &writers);
}

/// Kills the server a moment after the phase began, and starts it again.
fn strike_in(command: &mut Godwit, phase: &str, store: &dyn Store, random: &mut Rng) {
    command.within(Duration::from_secs(20), |event| event["event"] == "phase" && event["phase"] == phase);
    std::thread::sleep(Duration::from_millis(random.u64(0..150)));
    let server = store.killable().unwrap();
    server.kill9();
    server.start_again();
}

/// The same for a command that ends: with "not now", or in time.
fn ended_in_strike(mut command: Godwit, phase: &str, store: &dyn Store, random: &mut Rng) -> Ended {
    strike_in(&mut command, phase, store, random);
    let ended = command.end();
    assert!(matches!(ended.status.code(), Some(0 | 3)), "{}", ended.said());
    ended
}

fn a_copy_of_tables_without_a_key_begins_again(pair: &Pair) {
    const TABLES: [&str; 2] = ["SELECT what, number FROM journal", "SELECT what, number FROM diary"];
    for table in ["journal", "diary"] {
        pair.source.run(&[
            &format!("CREATE TABLE {table} (what TEXT, number INTEGER)"),
            &format!("INSERT INTO {table} VALUES ('same', 1), ('same', 1), ('gone', 2), ('other', 3)"),
        ]);
    }
    // the rows of at least one of them are there
    let died = pair.start_with(&["run"], &[("GODWIT_FAILPOINT", "load.chunk.committed")]).end();
    assert!(died.aborted(), "{}", died.said());
    let copied = |table: &str| pair.target.number(&format!("SELECT COUNT(*) FROM {table}"));
    assert!(copied("journal") + copied("diary") >= 4);
    for table in ["journal", "diary"] {
        pair.source.run(&[
            &format!("DELETE FROM {table} WHERE what = 'gone'"),
            &format!("UPDATE {table} SET number = 4 WHERE what = 'other'"),
            &format!("INSERT INTO {table} VALUES ('same', 1), ('new', 5)"),
        ]);
    }
    let mut run = pair.start(&["run"]);
    run.wait_until("a warning of what begins again", |event| {
        event["event"] == "warning"
            && event["text"].as_str().is_some_and(|text| text.contains("without a key is copied from its beginning"))
    });
    run.wait_consistent();
    TABLES.iter().for_each(|select| pair.await_same(select));
    for table in ["journal", "diary"] {
        pair.source.run(&[&format!("DELETE FROM {table} WHERE number = 5"), &format!("INSERT INTO {table} VALUES ('same', 1)")]);
    }
    TABLES.iter().for_each(|select| pair.await_same(select));
    run.kill();
    pair.finish();
    TABLES.iter().for_each(|select| pair.assert_same(select));
}
