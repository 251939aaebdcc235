//! A target that stalls: the change log grows to its limit, then the source's log to its budget, and people are told.

use std::time::{Duration, Instant};

use godwit_testkit::servers::PostgresOptions;

use crate::pair::Pair;
use crate::process::{Godwit, PATIENCE};
use crate::store::Session;
use crate::store::Tier;

/// The smallest change log.
const LIMITS: &str = "limits: {memory: 32MiB, change_log: 16MiB}\n";
const CHANGE_LOG: u64 = 16 << 20;
const ROW: usize = 1 << 20;
const SELECT: &str = "SELECT id, md5(content) FROM item";

/// A running task, on servers of its own because others would grow the log too, whose target takes nothing, until the session is dropped.
fn stalled(pair: &Pair, source_options: &str) -> (Godwit, Box<dyn Session>) {
    pair.source.run(&["CREATE TABLE item (id INTEGER PRIMARY KEY, content TEXT)", "ALTER TABLE item ALTER content SET STORAGE EXTERNAL"]);
    pair.write_whole_task(&format!("source: {{url: '{}'{source_options}}}\ntarget: {}\n{LIMITS}", pair.source.url(), pair.target.url()));
    let run = pair.running();
    let mut lock = pair.target.connect().unwrap();
    lock.rows("BEGIN; LOCK TABLE item IN ACCESS EXCLUSIVE MODE").unwrap();
    (run, lock)
}

fn fill(pair: &Pair, ids: std::ops::Range<usize>) {
    let content = "x".repeat(ROW);
    for id in ids {
        pair.source.run(&[&format!("INSERT INTO item VALUES ({id}, '{content}')")]);
    }
}

#[track_caller]
fn await_warning(run: &mut Godwit, part: &str) {
    run.wait_until(part, |event| event["event"] == "warning" && event["text"].as_str().is_some_and(|text| text.contains(part)));
}

fn slots(pair: &Pair) -> i64 {
    pair.source.number("SELECT COUNT(*) FROM pg_replication_slots WHERE database = current_database()")
}

#[test]
fn a_full_change_log_pauses_capture_and_loses_nothing() {
    let Some(pair) = Pair::postgres_on_own(15, 18, Tier::Full) else { return };
    let (mut run, lock) = stalled(&pair, ", log_budget: {size: 16MiB, then: stop}");
    fill(&pair, 0..10);
    await_warning(&mut run, "of its budget (limits.change_log)");
    fill(&pair, 10..14);
    await_warning(&mut run, "of its budget (limits.change_log)");
    fill(&pair, 14..50);
    await_warning(&mut run, "capture pauses");
    await_warning(&mut run, "more than source.log_budget");
    let log: u64 = std::fs::read_dir(pair.state().join("log")).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    // whole transactions enter, and a segment may be prepared beside
    assert!(log < CHANGE_LOG + (8 << 20), "{} MiB of change log", log >> 20);
    assert_eq!(slots(&pair), 1);
    drop(lock);
    pair.await_same(SELECT);
    run.within(Duration::ZERO, |_| false);
    assert!(!run.is_over());
    run.kill();
    pair.finish();
}

#[test]
fn a_budget_that_ends_in_release_frees_the_source_and_a_resync_mends() {
    let Some(pair) = Pair::postgres_on_own(15, 18, Tier::Full) else { return };
    let (mut run, lock) = stalled(&pair, ", log_budget: {size: 32MiB, then: release}");
    fill(&pair, 0..12);
    await_warning(&mut run, "of its budget (limits.change_log)");
    fill(&pair, 12..80);
    let ended = run.end().with(4);
    assert_eq!(ended.code().as_deref(), Some("GW4009"));
    assert!(ended.said().contains("--resync"), "{}", ended.said());
    assert_eq!(slots(&pair), 0);
    drop(lock);
    let lost = pair.godwit(&["run"]).with(4);
    assert_eq!(lost.code().as_deref(), Some("GW4001"));
    pair.source.run(&["DELETE FROM item WHERE id % 2 = 0", "UPDATE item SET content = 'short' WHERE id % 5 = 0"]);
    pair.godwit(&["run", "--resync", "--until", "consistent"]).with(0);
    pair.assert_same(SELECT);
    pair.finish();
}

fn size(pair: &Pair, folder: &str) -> u64 {
    // files come and go meanwhile
    let files = std::fs::read_dir(pair.state().join(folder)).unwrap();
    files.filter_map(|file| file.ok()?.metadata().ok()).map(|file| file.len()).sum()
}

/// A folder gives no notice, so it is looked at.
#[track_caller]
fn await_size(pair: &Pair, folder: &str, fits: impl Fn(u64) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !fits(size(pair, folder)) {
        assert!(Instant::now() < deadline, "{folder} stays at {} KiB", size(pair, folder) >> 10);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// It entered the change log ahead of its commit; what was there of it is void, and lies beside what enters anew.
#[test]
fn a_large_transaction_taken_back_from_the_change_log_gives_its_room_back() {
    const LARGE: &str = "INSERT INTO item SELECT $ + i, repeat(md5(i::text), 32) FROM generate_series(1, 10000) i";
    let streaming = PostgresOptions::default().with_setting("logical_decoding_work_mem", "64kB");
    let Some(pair) = Pair::postgres_with((15, streaming), (18, PostgresOptions::default()), Tier::Full) else { return };
    pair.source.run(&["CREATE TABLE item (id INTEGER PRIMARY KEY, content TEXT)"]);
    pair.write_task(LIMITS);
    let mut run = pair.running();
    // one that brings a layout the log does not know would stay out of it
    pair.source.run(&["INSERT INTO item VALUES (-1, 'first')"]);
    pair.await_same(SELECT);
    for (round, end) in ["COMMIT", "ROLLBACK", "COMMIT"].into_iter().enumerate() {
        let before = size(&pair, "log");
        let mut user = pair.source.connect().unwrap();
        user.rows("BEGIN").unwrap();
        user.rows(&LARGE.replace('$', &(100_000 * (round + 1)).to_string())).unwrap();
        await_size(&pair, "log", |size| size > before + (5 << 20));
        // it comes before the large one, and so do the markers of a comparison
        pair.source.run(&[&format!("INSERT INTO item VALUES ({round}, 'in between')")]);
        pair.godwit(&["verify"]).with(0);
        user.rows(&LARGE.replace('$', &(100_000 * (round + 1) + 50_000).to_string())).unwrap();
        user.rows(end).unwrap();
        pair.await_same(SELECT);
        // what is kept for a target that falls back, and the segment that is written
        await_size(&pair, "log", |size| size < CHANGE_LOG / 2 + (1 << 20));
        await_size(&pair, "spool", |size| size == 0);
    }
    assert!(run.within(Duration::ZERO, |event| event["event"] == "retrying").is_none() && !run.is_over());
    run.kill();
    pair.finish();
}
