//! What networks do to a task: connections that swallow, that are reset, that are far away; servers that are gone for a
//! while, full, or that end sessions. Whatever it is, the task notices and goes on, and both sides end equal.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use godwit_testkit::bank::Bank;
use godwit_testkit::network::{Direction, Proxy, Which};
use godwit_testkit::servers::PostgresOptions;

use crate::bank::{self, Users, Workload};
use crate::island::Island;
use crate::kill_loop::await_journal;
use crate::pair::{Pair, is_long};
use crate::process::{Circumstances, Godwit};
use crate::store::{Session, Store, Tier};

/// A source and a target, each behind a network of its own.
struct Networks {
    source: Proxy,
    target: Proxy,
}

fn networks(pair: &Pair, more: &str) -> Networks {
    let before = |store: &dyn Store| Proxy::before(store.server().unwrap().port());
    let networks = Networks { source: before(&*pair.source), target: before(&*pair.target) };
    pair.write_task_between(&networks.source.url(&pair.source.url()), &networks.target.url(&pair.target.url()), more);
    networks
}

fn bank() -> Bank {
    Bank { accounts: 60, writers: 2, seed: fastrand::u64(..) }
}

const ITEMS: &str = "SELECT id, name FROM item";

fn items(pair: &Pair, rows: usize) {
    pair.source.run(&[
        "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)",
        &format!("INSERT INTO item SELECT i, md5(i::text) FROM generate_series(1, {rows}) i"),
    ]);
}

/// Everything committed at the source so far arrives.
#[track_caller]
fn assert_follows(pair: &Pair, run: &mut Godwit, number: i64) {
    pair.source.run(&[
        &format!("INSERT INTO item VALUES ({number}, 'after')"),
        &format!("UPDATE item SET name = 'changed {number}' WHERE id = 1"),
    ]);
    pair.await_same(ITEMS);
    assert!(!run.is_over(), "the run has ended");
}

/// Connections that are open and carry nothing any more, as behind a load balancer that forgot them. Both kinds to the
/// source, those to the target; each direction.
fn goes_on_after(which: impl Fn(&Networks) -> (&Proxy, Which), direction: Direction, limit: Duration) {
    let Some(pair) = Pair::postgres() else { return };
    items(&pair, 100);
    let networks = networks(&pair, "");
    let mut run = pair.running();
    assert_follows(&pair, &mut run, 1001);
    let (proxy, which) = which(&networks);
    assert!(proxy.swallow(direction, which) > 0);
    pair.source.run(&["INSERT INTO item VALUES (1002, 'in between')"]);
    let began = Instant::now();
    while pair.target.number("SELECT COUNT(*) FROM item WHERE id = 1002") == 0 {
        assert!(began.elapsed() < limit, "not noticed within {limit:?}");
        assert!(!run.is_over(), "the run has ended");
        run.within(Duration::from_millis(200), |_| false);
    }
    eprintln!("{which:?} {direction:?}: noticed within {:?}", began.elapsed());
    assert_follows(&pair, &mut run, 1003);
    pair.godwit(&["verify"]).with(0);
    run.kill();
    pair.finish();
}

/// The limits are those that the guide to operations names, and what a busy machine may add.
const SLACK: Duration = Duration::from_secs(60);

#[test]
fn half_open_connections_to_the_target_are_noticed() {
    if is_long() {
        for direction in [Direction::ToServer, Direction::ToClient] {
            goes_on_after(|networks| (&networks.target, Which::All), direction, Duration::from_secs(60) + SLACK);
        }
    }
}

/// The lease is renewed on another connection, and says nothing of the one that writes.
#[test]
fn a_half_open_connection_of_the_writer_alone_is_noticed() {
    for direction in [Direction::ToServer, Direction::ToClient] {
        if direction == Direction::ToServer || is_long() {
            goes_on_after(|networks| (&networks.target, Which::Named("godwit apply")), direction, Duration::from_secs(45) + SLACK);
        }
    }
}

/// About 14 MB each, and far less is said before the load.
fn large_tables(pair: &Pair, names: &[&str]) {
    for table in names {
        pair.source.run(&[
            &format!("CREATE TABLE {table} (id INTEGER PRIMARY KEY, name TEXT)"),
            &format!("INSERT INTO {table} SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 40000) i"),
        ]);
    }
}

#[test]
fn a_half_open_connection_in_the_middle_of_a_chunk_is_noticed() {
    let Some(pair) = Pair::postgres() else { return };
    large_tables(&pair, &["item", "other"]);
    let networks = networks(&pair, "");
    networks.source.swallow_after(4 << 20, Direction::ToClient, Which::Queries);
    let mut run = pair.start(&["run"]);
    run.wait_until("a retry after silence", |event| event["event"] == "retrying");
    run.wait_consistent();
    assert_eq!(networks.source.cuts(), 1);
    assert_follows(&pair, &mut run, 100_001);
    pair.assert_same("SELECT id, name FROM other");
    run.kill();
    pair.finish();
}

/// The target's processes are told nothing of it, and would wait for the rest of their COPY for ever: in the way of the
/// primary keys that follow the load. The first connection found lost ends the attempt, and the others are let go with it.
#[test]
fn half_open_connections_in_the_middle_of_a_copy_to_the_target_leave_no_lock() {
    let Some(pair) = Pair::postgres() else { return };
    large_tables(&pair, &["item", "other", "third"]);
    let networks = networks(&pair, "");
    networks.target.swallow_after(4 << 20, Direction::ToServer, Which::Named("godwit target"));
    let mut run = pair.start(&["run"]);
    run.wait_until("a retry after silence", |event| event["event"] == "retrying");
    assert_eq!(networks.target.cuts(), 1);
    run.wait_consistent();
    assert_follows(&pair, &mut run, 100_001);
    pair.assert_same("SELECT id, name FROM other");
    pair.assert_same("SELECT id, name FROM third");
    run.kill();
    pair.finish();
}

/// What the server's process says of itself, and not how long it is silent, tells a lost connection from a long thought:
/// a table without a key, whose copy cannot be continued, would pay for a mistake.
#[test]
fn a_server_that_thinks_for_long_is_not_given_up() {
    if !is_long() {
        return;
    }
    let Some(pair) = Pair::postgres() else { return };
    pair.source.run(&["CREATE TABLE item (id INTEGER, name TEXT)", "INSERT INTO item SELECT i, 'x' FROM generate_series(1, 1000) i"]);
    let networks = networks(&pair, "");
    let mut run = pair.start(&["run"]);
    run.wait_until("the load", |event| event["event"] == "phase" && event["phase"] == "load");
    // from here on a chunk is seconds away
    networks.source.delay(Duration::from_millis(300));
    let lock = locked(&pair.source);
    assert_waits(&mut run);
    assert_eq!(pair.target.number("SELECT COUNT(*) FROM item"), 0);
    drop(lock);
    networks.source.delay(Duration::ZERO);
    run.wait_consistent();
    let lock = locked(&pair.target);
    pair.source.run(&["INSERT INTO item VALUES (1001, 'behind a lock')"]);
    assert_waits(&mut run);
    drop(lock);
    assert_follows(&pair, &mut run, 1002);
    run.kill();
    pair.finish();
}

fn locked(store: &Arc<dyn Store>) -> Box<dyn Session> {
    let mut lock = store.connect().unwrap();
    lock.rows("BEGIN; LOCK TABLE item IN ACCESS EXCLUSIVE MODE").unwrap();
    lock
}

/// Longer than a silent server is left alone, twice.
#[track_caller]
fn assert_waits(run: &mut Godwit) {
    let retried = run.within(Duration::from_secs(80), |event| event["event"] == "retrying");
    assert!(retried.is_none() && !run.is_over(), "{retried:?}");
}

#[test]
fn a_half_open_stream_is_noticed() {
    if !is_long() {
        return;
    }
    // the server gives up whom it does not hear
    goes_on_after(|networks| (&networks.source, Which::Replication), Direction::ToServer, Duration::from_secs(90) + SLACK);
    goes_on_after(|networks| (&networks.source, Which::Replication), Direction::ToClient, Duration::from_secs(630) + SLACK);
}

/// Nobody answers for the other end: TCP itself notices, on every connection.
#[test]
fn a_network_that_loses_every_packet_is_noticed() {
    let Some(pair) = Pair::postgres() else { return };
    let Some(island) = Island::make("a_network_that_loses_every_packet") else { return };
    items(&pair, 100);
    let networks = networks(&pair, "");
    let seen = |url: String| url.replace("127.0.0.1", &island.here());
    pair.write_task_between(&seen(networks.source.url(&pair.source.url())), &seen(networks.target.url(&pair.target.url())), "");
    let inside = Circumstances { network_of: Some(island.process()), ..Circumstances::default() };
    let mut run = pair.start_in(&["run"], inside);
    run.wait_consistent();
    assert_follows(&pair, &mut run, 1001);
    island.lose_packets(true);
    pair.source.run(&["INSERT INTO item VALUES (1002, 'in between')"]);
    let began = Instant::now();
    run.wait_until("a retry", |event| event["event"] == "retrying");
    assert!(began.elapsed() < Duration::from_secs(30) + SLACK, "noticed after {:?}", began.elapsed());
    island.lose_packets(false);
    pair.await_same(ITEMS);
    assert_follows(&pair, &mut run, 1003);
    run.kill();
    let inside = Circumstances { network_of: Some(island.process()), ..Circumstances::default() };
    pair.start_in(&["finish", "--yes"], inside).end().with(0);
    pair.assert_same(ITEMS);
}

#[test]
fn connections_reset_in_the_middle_of_a_copy_lose_and_double_nothing() {
    let Some(pair) = Pair::postgres() else { return };
    large_tables(&pair, &["item", "other"]);
    let networks = networks(&pair, "");
    networks.source.cut_after(4 << 20, Direction::ToClient);
    let mut run = pair.start(&["run"]);
    run.wait_until("a retry after a reset", |event| event["event"] == "retrying");
    networks.source.cut_after(4 << 20, Direction::ToClient);
    run.wait_until("a retry after a reset", |event| event["event"] == "retrying");
    run.wait_consistent();
    assert_eq!(networks.source.cuts(), 2);
    for number in 0..10 {
        if number % 2 == 0 {
            networks.source.cut()
        } else {
            networks.target.cut()
        }
        assert_follows(&pair, &mut run, 100_000 + number);
    }
    pair.assert_same("SELECT id, name FROM other");
    run.kill();
    pair.finish();
}

#[test]
fn a_target_reset_in_the_middle_of_a_copy_goes_on() {
    let Some(pair) = Pair::postgres() else { return };
    items(&pair, 40_000);
    let networks = networks(&pair, "");
    networks.target.cut_after(800_000, Direction::ToServer);
    let mut run = pair.start(&["run"]);
    run.wait_until("a retry after a reset", |event| event["event"] == "retrying");
    run.wait_consistent();
    assert_eq!(networks.target.cuts(), 1);
    assert_follows(&pair, &mut run, 100_000);
    run.kill();
    pair.finish();
}

#[test]
fn hosts_that_are_gone_come_back() {
    let Some(pair) = Pair::postgres() else { return };
    items(&pair, 100);
    let networks = networks(&pair, "");
    let mut run = pair.running();
    for (number, proxy) in [&networks.source, &networks.target].into_iter().enumerate() {
        proxy.gone(true);
        run.wait_until("a retry while the host is gone", |event| event["event"] == "retrying");
        pair.source.run(&[&format!("INSERT INTO item VALUES ({}, 'meanwhile')", 2000 + number)]);
        run.wait_until("another retry", |event| event["event"] == "retrying");
        proxy.gone(false);
        pair.await_same(ITEMS);
        assert!(!run.is_over());
    }
    run.kill();
    pair.finish();
}

const LONG_WAY: Duration = Duration::from_secs(1200);

/// No round trip per row: counted, not timed. A long run also shows what 300 ms each way cost.
#[test]
fn far_away_servers_are_not_asked_for_each_row() {
    const ROWS: usize = 60_000;
    const CHANGES: usize = 4_000;
    let Some(pair) = Pair::postgres() else { return };
    items(&pair, ROWS);
    let networks = networks(&pair, "");
    let delay = Duration::from_millis(if is_long() { 300 } else { 10 });
    networks.source.delay(delay);
    networks.target.delay(delay);
    let turns = || networks.source.turns() + networks.target.turns();
    let began = Instant::now();
    let mut run = pair.start(&["run"]);
    // the catalog's dump alone asks hundreds of questions
    run.within(LONG_WAY, |event| event["event"] == "consistent").expect("it becomes consistent");
    let (loaded, turns_of_load) = (began.elapsed(), turns());
    assert!(turns_of_load < ROWS as u64 / 20, "{turns_of_load} turns for {ROWS} rows");
    let changes: Vec<String> = (0..CHANGES).map(|number| format!("UPDATE item SET name = 'x' WHERE id = {}", 1 + number * 3)).collect();
    let began = Instant::now();
    let mut session = pair.source.connect().unwrap();
    session.execute(&changes).unwrap();
    let written = began.elapsed();
    pair.await_same(ITEMS);
    let (followed, turns_of_changes) = (began.elapsed(), turns() - turns_of_load);
    eprintln!(
        "{delay:?} each way: {ROWS} rows in {loaded:?}, {turns_of_load} turns; {CHANGES} transactions written in {written:?}, there after {followed:?}, {turns_of_changes} turns"
    );
    assert!(!run.is_over());
    run.within(Duration::ZERO, |_| false);
    run.kill();
    pair.start(&["finish", "--yes"]).end_within(LONG_WAY).with(0);
    pair.assert_no_traces();
}

/// Before it had its lease a run says "not now".
fn again_if_over(pair: &Pair, mut run: Godwit) -> Godwit {
    if !run.is_over() {
        return run;
    }
    run.end().with(3);
    pair.start(&["run"])
}

#[test]
fn sessions_that_an_administrator_ends_are_made_anew() {
    let Some(pair) = Pair::postgres_on_own(18, 18, Tier::Full) else { return };
    let bank = bank();
    bank::open(&pair, &bank);
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    let mut workload = Workload::begin(&pair, bank, Users::NeverRefused);
    let mut run = pair.start(&["run"]);
    for _ in 0..if is_long() { 150 } else { 25 } {
        let store = if random.bool() { &pair.source } else { &pair.target };
        // any one of ours, the stream among them
        store
            .rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'godwit%' OR application_name = 'pg_dump' ORDER BY random() LIMIT 1");
        if run.within(Duration::from_millis(random.u64(0..600)), |event| event["event"] == "consistent").is_some() {
            workload.arm();
        }
        run = again_if_over(&pair, run);
    }
    // what was ended last may have been one that was only beginning
    run = again_if_over(&pair, run);
    while run.within(Duration::from_millis(50), |event| event["event"] == "progress" && event["changes"]["consistent"] == true).is_none() {
        run = again_if_over(&pair, run);
    }
    let journal = pair.source.number("SELECT COUNT(*) FROM journal");
    await_journal(&pair, &mut run, journal);
    let writers = workload.stop_writers();
    pair.godwit(&["verify"]).with(0);
    workload.end();
    run.kill();
    pair.finish();
    bank::assert_equal(&pair, &bank, &writers);
}

#[test]
fn a_server_without_a_free_connection_is_asked_again() {
    let few = || PostgresOptions::default().with_setting("max_connections", "12").with_setting("superuser_reserved_connections", "1");
    let Some(pair) = Pair::postgres_with((18, few()), (18, few()), Tier::Full) else { return };
    items(&pair, 100);
    let mut run = pair.running();
    for (number, store) in [&pair.source, &pair.target].into_iter().enumerate() {
        let mut hogs: Vec<_> = std::iter::repeat_with(|| store.connect()).take_while(Result::is_ok).collect();
        let one = hogs[0].as_mut().unwrap();
        one.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'godwit%' AND backend_type = 'client backend'").unwrap();
        // their places are taken as they become free
        hogs.extend(std::iter::repeat_with(|| store.connect()).take_while(Result::is_ok));
        run.within(Duration::from_secs(5), |event| event["event"] == "retrying");
        drop(hogs);
        assert_follows(&pair, &mut run, 3000 + number as i64);
    }
    run.kill();
    pair.finish();
}

#[test]
fn servers_that_restart_and_recover_are_awaited() {
    let Some(pair) = Pair::postgres_on_own(15, 18, Tier::Full) else { return };
    items(&pair, 1000);
    let mut run = pair.running();
    for (number, store) in [&pair.source, &pair.target, &pair.source, &pair.target].into_iter().enumerate() {
        let server = store.server().unwrap();
        if number < 2 {
            server.stop_at_once()
        } else {
            server.stop()
        }
        server.restart();
        assert_follows(&pair, &mut run, 4000 + number as i64);
    }
    run.signal("TERM");
    run.end().with(0);
    pair.finish();
}
