//! Two processes for one task: one works, the other says who does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::pair::{Pair, on_every_engine};
use crate::process::{Circumstances, Ended};

/// Two seconds on a quiet machine; tests run side by side on slow ones.
const SOON: Duration = Duration::from_secs(6);

on_every_engine!(
    a_second_process_names_the_first,
    a_second_state_folder_names_the_first,
    a_paused_holder_is_replaced_and_cannot_write_any_more,
);

fn given(pair: &Pair) {
    pair.source.run(&["CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)", "INSERT INTO item VALUES (1, 'one')"]);
}

fn assert_names(refused: &Ended, holder: u32) {
    assert_eq!(refused.code().as_deref(), Some("GW6001"));
    assert!(refused.said().contains(&format!("process {holder} ")), "{}", refused.said());
}

fn a_second_process_names_the_first(pair: &Pair) {
    second_is_refused(pair, &["run"]);
}

fn a_second_state_folder_names_the_first(pair: &Pair) {
    second_is_refused(pair, &["run", "--state", "elsewhere"]);
}

fn second_is_refused(pair: &Pair, command: &[&str]) {
    given(pair);
    let first = pair.running();
    let began = Instant::now();
    let refused = pair.godwit(command).with(3);
    assert!(began.elapsed() < SOON, "after {:?}", began.elapsed());
    assert_names(&refused, first.id());
    pair.source.run(&["INSERT INTO item VALUES (2, 'two')"]);
    pair.await_same("SELECT id, name FROM item");
    first.kill();
    pair.finish();
}

/// As on two machines: a paused process there looks like one that lost its network.
fn a_paused_holder_is_replaced_and_cannot_write_any_more(pair: &Pair) {
    if !std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0) {
        eprintln!("SKIPPED: a process space of its own needs root: a_paused_holder_is_replaced");
        return;
    }
    given(pair);
    let mut first = pair.running();
    let elsewhere = Circumstances { elsewhere: true, ..Circumstances::default() };
    let refused = pair.start_in(&["run", "--state", "elsewhere"], elsewhere).end().with(3);
    assert_names(&refused, first.id());
    first.signal("STOP");
    let mut second = pair.start_in(&["run", "--state", "elsewhere"], elsewhere);
    second.wait_consistent();
    pair.source.run(&["INSERT INTO item VALUES (2, 'two')"]);
    pair.await_same("SELECT id, name FROM item");
    assert!(!first.is_over());
    first.signal("CONT");
    let woken = first.end().with(3);
    assert_eq!(woken.code().as_deref(), Some("GW6002"));
    pair.source.run(&["INSERT INTO item VALUES (3, 'three')", "UPDATE item SET name = 'uno' WHERE id = 1"]);
    pair.await_same("SELECT id, name FROM item");
    assert!(!second.is_over());
    second.kill();
    pair.godwit(&["finish", "--yes", "--state", "elsewhere"]).with(0);
    pair.assert_same("SELECT id, name FROM item");
}

/// One that starts `run` again for as long as it is asked to, on a state folder and in a process space of its own, as on
/// another machine. Gives what its runs ended with.
fn supervise(pair: &Pair, state: &str, dismissed: &AtomicBool, consistent: &AtomicBool) -> Vec<Ended> {
    let mut ends = Vec::new();
    while !dismissed.load(Ordering::SeqCst) {
        let elsewhere = Circumstances { elsewhere: true, ..Circumstances::default() };
        let mut run = pair.start_in(&["run", "--state", state], elsewhere);
        while !dismissed.load(Ordering::SeqCst) && !run.is_over() {
            if run.within(LOOK_EVERY, |event| event["event"] == "consistent").is_some() {
                consistent.store(true, Ordering::SeqCst);
            }
        }
        if run.is_over() {
            consistent.store(false, Ordering::SeqCst);
            ends.push(run.end());
        } else {
            run.kill();
        }
    }
    ends
}

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// While both try: several turns of the one that is refused.
const RIVALRY: i64 = 20;

#[test]
fn two_supervisors_do_not_fence_each_other_and_the_one_that_stays_takes_over() {
    if !std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0) {
        eprintln!("SKIPPED: a process space of its own needs root: two_supervisors");
        return;
    }
    let Some(pair) = Pair::postgres() else { return };
    given(&pair);
    let flags: Vec<_> = (0..2).map(|_| (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)))).collect();
    std::thread::scope(|scope| {
        let pair = &pair;
        let supervisors: Vec<_> = flags
            .iter()
            .zip(["here", "there"])
            .map(|((dismissed, consistent), state)| scope.spawn(move || supervise(pair, state, dismissed, consistent)))
            .collect();
        let insert = |id: i64| {
            pair.source.run(&[&format!("INSERT INTO item VALUES ({id}, 'row')")]);
            let deadline = Instant::now() + crate::process::PATIENCE;
            while pair.target.rows("SELECT to_regclass('item')")[0][0].is_none()
                || pair.target.number(&format!("SELECT COUNT(*) FROM item WHERE id = {id}")) == 0
            {
                if Instant::now() > deadline {
                    flags.iter().for_each(|(dismissed, _)| dismissed.store(true, Ordering::SeqCst));
                    panic!("row {id} does not arrive");
                }
                std::thread::sleep(LOOK_EVERY);
            }
        };
        for id in 0..RIVALRY {
            insert(100 + id);
            std::thread::sleep(Duration::from_millis(500));
        }
        let holder = flags.iter().position(|(_, consistent)| consistent.load(Ordering::SeqCst)).expect("one of them works");
        flags[holder].0.store(true, Ordering::SeqCst);
        insert(1000);
        flags[1 - holder].0.store(true, Ordering::SeqCst);
        let ends: Vec<Vec<Ended>> = supervisors.into_iter().map(|supervisor| supervisor.join().unwrap()).collect();
        assert_eq!(ends[holder].iter().filter(|end| end.code().as_deref() != Some("GW6001")).count(), 0, "the holder was fenced");
        assert!(!ends[1 - holder].is_empty(), "the other was never refused");
        for end in ends.into_iter().flatten() {
            let end = end.with(3);
            assert!(end.code().as_deref() == Some("GW6001") && end.said().contains("is run by process"), "{}", end.said());
        }
    });
}
