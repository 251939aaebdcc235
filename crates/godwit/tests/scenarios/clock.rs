//! A clock on the wall that jumps under a running task, as it does when somebody sets it or a machine wakes up.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::pair::{Pair, on_every_engine};
use crate::process::{Circumstances, Godwit};

on_every_engine!(a_clock_that_jumps_changes_nothing);

const DAY: i64 = 24 * 3600;

/// The clock of the processes that are started with it.
struct Clock {
    library: PathBuf,
    setting: PathBuf,
}

impl Clock {
    fn build(folder: &Path) -> Clock {
        let (library, setting) = (folder.join("clock.so"), folder.join("clock"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios/clock.c");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).args([source, "-ldl"]).status().unwrap();
        assert!(built.success());
        Clock { library, setting }
    }

    fn start(&self, pair: &Pair, command: &[&str]) -> Godwit {
        let variables = [("LD_PRELOAD", self.library.to_str().unwrap()), ("GODWIT_TEST_CLOCK", self.setting.to_str().unwrap())];
        pair.start_in(command, Circumstances { variables: &variables, ..Circumstances::default() })
    }

    fn jump_to(&self, seconds: i64) {
        // never half a number
        let next = self.setting.with_extension("next");
        std::fs::write(&next, seconds.to_string()).unwrap();
        std::fs::rename(next, &self.setting).unwrap();
    }

    #[track_caller]
    fn assert_asked(&self, seconds: i64) {
        assert!(self.setting.with_extension(seconds.to_string()).exists(), "nobody asked for the time");
    }
}

fn a_clock_that_jumps_changes_nothing(pair: &Pair) {
    const ITEMS: &str = "SELECT id, name FROM item";
    pair.source.run(&["CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)", "INSERT INTO item VALUES (0, 'zero')"]);
    let clock = Clock::build(pair.path());
    let mut run = clock.start(pair, &["run"]);
    run.wait_consistent();
    for (number, ahead) in [DAY, -DAY, 400 * DAY, 1].into_iter().enumerate() {
        clock.jump_to(ahead);
        for id in 0..20 {
            pair.source.run(&[&format!("INSERT INTO item VALUES ({}, 'row')", 100 * (number + 1) + id)]);
        }
        pair.await_same(ITEMS);
        clock.assert_asked(ahead);
        // whoever looks at the lease by the right time leaves it alone
        let refused = pair.godwit(&["run", "--state", "elsewhere"]).with(3);
        assert_eq!(refused.code().as_deref(), Some("GW6001"));
        assert!(run.within(std::time::Duration::ZERO, |event| event["event"] == "retrying").is_none() && !run.is_over());
    }
    run.kill();
    clock.jump_to(-2 * DAY);
    let mut run = clock.start(pair, &["run"]);
    run.wait_consistent();
    pair.source.run(&["UPDATE item SET name = 'last'"]);
    pair.await_same(ITEMS);
    clock.start(pair, &["finish", "--yes"]).end().with(0);
    run.end().with(0);
    clock.assert_asked(-2 * DAY);
    pair.assert_same(ITEMS);
    pair.assert_no_traces();
}
