//! `kill -9` of Godwit, the source and the target at random moments, under the bank workload.

use std::time::{Duration, Instant};

use fastrand::Rng;
use godwit_testkit::bank::Bank;

use crate::bank::{self, Users, Workload};
use crate::pair::{Pair, is_long};
use crate::postgres::Tier;
use crate::process::{Godwit, PATIENCE};
use crate::store::Store;

/// The longest life of a run before something is killed; every second run is let live until it has caught up.
const LONGEST_LIFE: Duration = Duration::from_millis(1200);
const AFTER_CAUGHT_UP: Duration = Duration::from_millis(400);
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn rounds() -> usize {
    if is_long() { 100 } else { 20 }
}

#[test]
fn sqlite_survives_kills() {
    if let Some(pair) = Pair::sqlite() {
        kill_loop(&pair, Users::NeverRefused);
    }
}

#[test]
fn postgres_15_to_18_survives_kills() {
    if let Some(pair) = Pair::postgres_on_own(15, 18, Tier::Full) {
        kill_loop(&pair, Users::Forgiving);
    }
}

#[test]
fn postgres_18_survives_kills() {
    if let Some(pair) = Pair::postgres_on_own(18, 18, Tier::Full) {
        kill_loop(&pair, Users::Forgiving);
    }
}

#[test]
fn a_managed_pair_survives_kills() {
    if let Some(pair) = Pair::postgres_on_own(15, 18, Tier::Managed) {
        kill_loop(&pair, Users::Forgiving);
    }
}

#[test]
fn a_read_only_source_survives_kills() {
    if let Some(pair) = Pair::postgres_on_own(18, 18, Tier::ReadOnly) {
        kill_loop(&pair, Users::Forgiving);
    }
}

fn kill_loop(pair: &Pair, users: Users) {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    let bank = Bank::full(seed);
    bank::open(pair, &bank);
    let mut workload = Workload::begin(pair, bank, users);
    let mut run: Option<Godwit> = None;
    for round in 0..rounds() {
        let mut living = run.take().unwrap_or_else(|| pair.start(&["run"]));
        while !live(pair, &mut living, &workload, &mut random, round % 2 == 1) {
            // a server was killed before this run had taken the task up: then it says "not now"
            assert!(users == Users::Forgiving, "the run ended by itself");
            living.end().with(3);
            living = pair.start(&["run"]);
        }
        workload.assert_never_broken();
        run = strike(pair, living, &mut random);
    }
    drop(run);
    let mut last = pair.start(&["run"]);
    last.wait_consistent();
    workload.arm();
    let writers = workload.stop_writers();
    pair.godwit(&["verify"]).with(0);
    assert!(workload.looks() > 20, "the reader looked {} times", workload.looks());
    workload.end();
    bank::assert_equal(pair, &bank, &writers);
    last.kill();
    pair.finish();
    bank::assert_equal(pair, &bank, &writers);
}

/// Lets the run live for a random while, or until it has caught up and a little longer. False: it ended by itself.
fn live(pair: &Pair, run: &mut Godwit, workload: &Workload, random: &mut Rng, until_caught_up: bool) -> bool {
    let goal = until_caught_up.then(|| journal(&*pair.source).unwrap());
    let life = if until_caught_up { PATIENCE } else { LONGEST_LIFE.mul_f64(random.f64()) };
    let deadline = Instant::now() + life;
    while Instant::now() < deadline {
        if run.within(LOOK_EVERY, |event| event["event"] == "consistent").is_some() {
            workload.arm();
        }
        if run.is_over() {
            return false;
        }
        if goal.is_some() && workload.is_armed() && journal(&*pair.target) >= goal {
            std::thread::sleep(AFTER_CAUGHT_UP.mul_f64(random.f64()));
            return true;
        }
    }
    assert!(!until_caught_up, "not caught up after {life:?}");
    true
}

/// Waits until the target's journal has that many transactions.
pub fn await_journal(pair: &Pair, run: &mut Godwit, transactions: i64) {
    let deadline = Instant::now() + PATIENCE;
    while journal(&*pair.target) < Some(transactions) {
        assert!(Instant::now() < deadline && !run.is_over(), "the target does not follow");
        run.within(LOOK_EVERY, |_| false);
    }
}

/// How many transactions the journal has; None if the store does not answer.
fn journal(store: &dyn Store) -> Option<i64> {
    let rows = store.connect().and_then(|mut session| session.rows("SELECT COUNT(*) FROM journal")).ok()?;
    rows[0][0].as_deref()?.parse().ok()
}

/// Kills one of the three, or both servers at once; a run that was not killed must go on by itself.
fn strike(pair: &Pair, run: Godwit, random: &mut Rng) -> Option<Godwit> {
    let store: &dyn Store = if random.bool() { &*pair.source } else { &*pair.target };
    match store.server() {
        Some(server) if random.bool() => {
            let both = random.u8(0..4) == 0;
            let servers = if both { vec![pair.source.server(), pair.target.server()] } else { vec![Some(server)] };
            let servers: Vec<_> = servers.into_iter().flatten().collect();
            match random.u8(0..4) {
                0 => servers.iter().for_each(|server| server.stop_at_once()),
                _ => servers.iter().for_each(|server| server.kill9()),
            }
            servers.iter().for_each(|server| server.restart());
            Some(run)
        }
        _ => {
            run.kill();
            None
        }
    }
}
