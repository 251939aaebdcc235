//! Stopped on purpose, or by a store that is not there for a while.

use std::time::Duration;

use godwit_testkit::bank::Bank;

use crate::bank::{self, Users, Workload};
use crate::pair::{Pair, on_every_engine};

/// Long enough to be noticed everywhere, short enough for a test.
const OUTAGE: Duration = Duration::from_secs(2);

on_every_engine!(a_stopped_run_goes_on, loading_alone_ends_by_itself);

fn bank() -> Bank {
    Bank { accounts: 60, writers: 2, seed: fastrand::u64(..) }
}

fn a_stopped_run_goes_on(pair: &Pair) {
    let bank = bank();
    bank::open(pair, &bank);
    let mut workload = Workload::begin(pair, bank, Users::NeverRefused);
    for signal in ["TERM", "INT"] {
        let run = pair.running();
        workload.arm();
        run.signal(signal);
        run.end().with(0);
    }
    pair.godwit(&["run", "--until", "caught-up"]).with(0);
    let writers = workload.stop_writers();
    workload.end();
    pair.finish();
    bank::assert_equal(pair, &bank, &writers);
}

fn loading_alone_ends_by_itself(pair: &Pair) {
    let bank = bank();
    bank::open(pair, &bank);
    pair.write_task("phases: [schema, load]\n");
    pair.godwit(&["run"]).with(0);
    bank::assert_equal(pair, &bank, &[]);
    pair.godwit(&["clean", "--yes"]).with(0);
    pair.assert_no_traces();
}

#[test]
fn servers_that_stop_for_a_while_are_awaited() {
    let Some(pair) = Pair::postgres_on_own(15, 18, crate::store::Tier::Full) else { return };
    let bank = bank();
    bank::open(&pair, &bank);
    let mut workload = Workload::begin(&pair, bank, Users::Forgiving);
    let mut run = pair.running();
    workload.arm();
    for store in [&pair.source, &pair.target] {
        let server = store.server().unwrap();
        server.stop();
        std::thread::sleep(OUTAGE);
        server.restart();
        let journal = pair.source.number("SELECT COUNT(*) FROM journal");
        crate::kill_loop::await_journal(&pair, &mut run, journal);
    }
    let writers = workload.stop_writers();
    pair.godwit(&["verify"]).with(0);
    workload.end();
    run.signal("TERM");
    run.end().with(0);
    pair.finish();
    bank::assert_equal(&pair, &bank, &writers);
}
