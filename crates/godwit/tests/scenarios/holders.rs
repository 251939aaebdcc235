//! Two processes for one task: one works, the other says who does.

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
