//! `kill -9` of Godwit, the source and the target at random moments, under the bank workload.

use std::time::{Duration, Instant};

use fastrand::Rng;
use godwit_testkit::bank::Bank;
use serde_json::Value as Json;

use crate::alterations::{self, Alterations};
use crate::bank::{self, Users, Workload};
use crate::pair::{Pair, is_long};
use crate::process::{Godwit, PATIENCE};
use crate::store::{Store, Tier};

/// The longest life of a run before something is killed; every second run is let live until it has caught up.
const LONGEST_LIFE: Duration = Duration::from_millis(1200);
const AFTER_CAUGHT_UP: Duration = Duration::from_millis(400);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const FEWEST_LOOKS: u64 = 20;

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
fn mariadb_survives_kills() {
    if let Some(pair) = Pair::mariadb_on_own(Tier::Full) {
        kill_loop(&pair, Users::Forgiving);
    }
}

#[test]
fn a_managed_mariadb_survives_kills() {
    if is_long()
        && let Some(pair) = Pair::mariadb_on_own(Tier::Managed)
    {
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

/// The bank's tables and two others are altered all the time, and every second process ends at a failpoint.
#[test]
fn postgres_18_survives_kills_while_tables_are_altered() {
    if let Some(pair) = Pair::postgres_on_own(18, 18, Tier::Full) {
        altered_kill_loop(&pair);
    }
}

#[test]
fn postgres_15_to_18_survives_kills_while_tables_are_altered() {
    if is_long()
        && let Some(pair) = Pair::postgres_on_own(15, 18, Tier::Full)
    {
        altered_kill_loop(&pair);
    }
}

fn altered_kill_loop(pair: &Pair) {
    let rounds = if is_long() { 40 } else { 6 };
    let mut lives = Lives::begin(pair, Users::Forgiving, Bank { accounts: 200, writers: 2, seed: seed() }, rounds);
    lives.alterations = Some(Alterations::begin(pair, lives.random.u64(..)));
    lives.play();
    alterations::assert_equal(pair);
}

fn kill_loop(pair: &Pair, users: Users) {
    Lives::begin(pair, users, Bank::full(seed()), rounds()).play();
}

fn seed() -> u64 {
    let seed = std::env::var("GODWIT_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("seed {seed}");
    seed
}

/// Runs of one task, each killed after a while.
struct Lives<'a> {
    pair: &'a Pair,
    users: Users,
    bank: Bank,
    rounds: usize,
    random: Rng,
    workload: Workload,
    alterations: Option<Alterations>,
}

impl Lives<'_> {
    fn begin(pair: &Pair, users: Users, bank: Bank, rounds: usize) -> Lives<'_> {
        bank::open(pair, &bank);
        let workload = Workload::begin(pair, bank, users);
        Lives { pair, users, bank, rounds, random: Rng::with_seed(bank.seed), workload, alterations: None }
    }

    fn play(mut self) {
        let pair = self.pair;
        let mut run: Option<Godwit> = None;
        for round in 0..self.rounds {
            let mut living = run.take().unwrap_or_else(|| self.start());
            while !self.live(&mut living, round % 2 == 1) {
                // a server was killed before this run had taken the task up: then it says "not now"
                assert!(self.users == Users::Forgiving, "the run ended by itself");
                let ended = living.end();
                if !(self.alterations.is_some() && ended.aborted()) {
                    ended.with(3);
                }
                self.is_gone();
                living = pair.start(&["run"]);
            }
            self.workload.assert_never_broken();
            run = strike(pair, living, &mut self.random);
            if run.is_none() {
                self.is_gone();
            }
        }
        drop(run);
        self.is_gone();
        if let Some(alterations) = &mut self.alterations {
            alterations.end();
            eprintln!("{} alterations, {} looks", alterations.made(), self.workload.looks());
        }
        let mut last = pair.start(&["run"]);
        last.wait_consistent();
        self.workload.arm();
        let deadline = Instant::now() + PATIENCE;
        while self.workload.looks() <= FEWEST_LOOKS && Instant::now() < deadline {
            self.hear(&mut last, LOOK_EVERY);
        }
        let writers = self.workload.stop_writers();
        pair.godwit(&["verify"]).with(0);
        assert!(self.workload.looks() > FEWEST_LOOKS, "the reader looked {} times", self.workload.looks());
        self.workload.end();
        bank::assert_equal(pair, &self.bank, &writers);
        last.kill();
        pair.finish();
        bank::assert_equal(pair, &self.bank, &writers);
    }

    /// Where tables are altered, every second process ends at a failpoint, if it comes there.
    fn start(&mut self) -> Godwit {
        let point = self.random.choice(POINTS).filter(|_| self.alterations.is_some() && self.random.bool());
        let Some(point) = point else { return self.pair.start(&["run"]) };
        let passes = self.random.u32(1..4);
        self.pair.start_with(&["run"], &[("GODWIT_FAILPOINT", &format!("{point}@{passes}"))])
    }

    /// What it would have said of rows that are read again is not heard any more.
    fn is_gone(&self) {
        if self.alterations.is_some() {
            self.workload.disarm();
        }
    }

    /// Lets the run live for a random while, or until it has caught up and a little longer. False: it ended by itself.
    fn live(&mut self, run: &mut Godwit, until_caught_up: bool) -> bool {
        self.calm(until_caught_up);
        let goal = until_caught_up.then(|| journal(&*self.pair.source).unwrap());
        // dozens of alterations may wait, each with a table to compare
        let patience = if self.alterations.is_some() { PATIENCE * 4 } else { PATIENCE };
        let life = if until_caught_up { patience } else { LONGEST_LIFE.mul_f64(self.random.f64()) };
        let deadline = Instant::now() + life;
        while Instant::now() < deadline {
            self.hear(run, LOOK_EVERY);
            if run.is_over() {
                return false;
            }
            if goal.is_some() && self.workload.is_armed() && journal(&*self.pair.target) >= goal {
                self.calm(false);
                let most = if self.alterations.is_some() { LONGEST_LIFE } else { AFTER_CAUGHT_UP };
                let until = Instant::now() + most.mul_f64(self.random.f64());
                while Instant::now() < until {
                    self.hear(run, LOOK_EVERY);
                }
                return true;
            }
        }
        assert!(!until_caught_up, "not caught up after {life:?}");
        true
    }

    fn hear(&self, run: &mut Godwit, within: Duration) {
        let reopened = |event: &Json| event["text"].as_str().is_some_and(|text| text.contains("compared and read again"));
        match run.within(within, |event| event["event"] == "consistent" || reopened(event)) {
            Some(event) if reopened(&event) => self.workload.disarm(),
            Some(_) => {
                self.workload.arm();
                self.alterations.iter().for_each(Alterations::may_rename);
            }
            None if self.alterations.is_some() => self.workload.heard(),
            None => {}
        }
    }

    fn calm(&self, calm: bool) {
        self.alterations.iter().for_each(|alterations| alterations.calm(calm));
    }
}

/// Those that a run passes again and again.
const POINTS: [&str; 12] = [
    "capture.log.write",
    "capture.log.sync.after",
    "capture.confirm.after",
    "apply.group.written",
    "apply.commit.before",
    "apply.commit.sent",
    "apply.commit.after",
    "apply.reread",
    "p1.marked",
    "p1.reached",
    "ddl.intent",
    "ddl.done",
];

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
    match store.killable() {
        Some(server) if random.bool() => {
            let both = random.u8(0..4) == 0;
            let servers = if both { vec![pair.source.killable(), pair.target.killable()] } else { vec![Some(server)] };
            let servers: Vec<_> = servers.into_iter().flatten().collect();
            match random.u8(0..4) {
                0 => servers.iter().for_each(|server| server.shut_down()),
                _ => servers.iter().for_each(|server| server.kill9()),
            }
            servers.iter().for_each(|server| server.start_again());
            Some(run)
        }
        _ => {
            run.kill();
            None
        }
    }
}
