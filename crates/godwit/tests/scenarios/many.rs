//! Many tables: what is asked grows with their number and not faster, and memory stays what it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use godwit_model::Event;
use godwit_pipeline::{Described, FolderStorage, Job, Life, Until, this_process};
use godwit_store::{Fingerprint, LogOptions, StateFolder};
use godwit_testkit::network::Proxy;
use godwit_testkit::recorder::Recorder;
use godwit_testkit::servers::PostgresOptions;

use crate::pair::{Pair, is_long};
use crate::process::Godwit;
use crate::store::{Store, Tier};

/// Longer than ten thousand tables take on a busy machine, in a build for tests.
const LONG: Duration = Duration::from_secs(3600);
const MOST_MEMORY: u64 = 256 << 20;

/// What one whole task took.
#[derive(Debug)]
struct Figures {
    /// Half round trips of both sides.
    turns: u64,
    memory: u64,
}

/// A number by a sequence, a name with an index, a reference to the table before; every tenth has no key.
fn create(pair: &Pair, tables: usize) {
    const AT_ONCE: usize = 50;
    pair.source.run(&["CREATE TABLE t0 (id SERIAL PRIMARY KEY, name TEXT)", "INSERT INTO t0 (name) VALUES ('a')"]);
    for first in (1..tables).step_by(AT_ONCE) {
        let last = (first + AT_ONCE).min(tables) - 1;
        pair.source.run(&[&format!(
            "DO $$ BEGIN FOR i IN {first}..{last} LOOP
                IF i % 10 = 0 THEN EXECUTE format('CREATE TABLE t%s (id integer, name text)', i);
                ELSE EXECUTE format('CREATE TABLE t%s (id serial PRIMARY KEY, name text); CREATE INDEX ON t%s (name)', i, i);
                END IF;
                IF i % 10 > 1 THEN EXECUTE format('ALTER TABLE t%s ADD FOREIGN KEY (id) REFERENCES t%s', i, i - 1); END IF;
                EXECUTE format('INSERT INTO t%s (id, name) VALUES (1, ''a'')', i);
            END LOOP; END $$"
        )]);
    }
}

fn change(pair: &Pair, tables: usize) {
    let mut session = pair.source.connect().unwrap();
    for number in 0..tables {
        session.rows(&format!("UPDATE t{number} SET name = 'b'")).unwrap();
    }
}

fn changed(store: &dyn Store, tables: usize) -> bool {
    let mut session = store.connect().unwrap();
    let last = session.rows(&format!("SELECT COUNT(*) FROM t{} WHERE name = 'b'", tables - 1)).unwrap();
    last[0][0].as_deref() == Some("1")
}

/// For a person who looks where it goes; nothing is judged by it.
fn processor(run: &Godwit) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", run.id())).unwrap();
    // behind the name, which may hold anything; a tick is a hundredth of a second
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    Duration::from_millis((fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10)
}

/// Loads, follows a change of every table, compares.
fn moved(tables: usize) -> Option<Figures> {
    // pg_dump locks every table there is
    let options = || PostgresOptions::default().with_setting("max_locks_per_transaction", "256");
    let pair = Pair::postgres_with((15, options()), (18, PostgresOptions::default()), Tier::Full)?;
    create(&pair, tables);
    let proxies = [Proxy::before(pair.source.server().unwrap().port()), Proxy::before(pair.target.server().unwrap().port())];
    pair.write_task_between(&proxies[0].url(&pair.source.url()), &proxies[1].url(&pair.target.url()), "");
    let began = Instant::now();
    let mut run = pair.start(&["run"]);
    let reached = |what: &str, run: &Godwit| {
        eprintln!(
            "{tables} tables: {what} after {:?}, {:?} of processor, {} MiB",
            began.elapsed(),
            processor(run),
            run.peak_memory() >> 20
        );
    };
    loop {
        let event = run.within(LONG, |event| event["event"] == "phase" || event["event"] == "consistent").expect("it becomes consistent");
        reached(event["phase"].as_str().unwrap_or("consistent"), &run);
        if event["event"] == "consistent" {
            break;
        }
    }
    change(&pair, tables);
    reached("changed", &run);
    while !changed(&*pair.target, tables) {
        assert!(began.elapsed() < LONG && !run.is_over(), "the target does not follow");
        run.within(Duration::from_millis(50), |_| false);
    }
    reached("followed", &run);
    let verified = pair.start(&["verify"]).end_within(LONG).with(0);
    reached("verified", &run);
    assert!(!run.is_over(), "{}", verified.said());
    let figures = Figures { turns: proxies.iter().map(Proxy::turns).sum(), memory: run.peak_memory() };
    run.kill();
    pair.start(&["finish", "--yes"]).end_within(LONG).with(0);
    eprintln!("{tables} tables: {figures:?}, finished after {:?}", began.elapsed());
    pair.assert_no_traces();
    Some(figures)
}

#[test]
fn what_is_asked_grows_with_the_tables_and_not_faster() {
    let (few, many) = if is_long() { (1000, 4000) } else { (40, 160) };
    let Some(first) = moved(few) else { return };
    let Some(second) = moved(many) else { return };
    assert!(second.turns < first.turns * 4, "{} and {} turns", first.turns, second.turns);
    assert!(second.memory < MOST_MEMORY, "{} MiB", second.memory >> 20);
}

#[test]
fn ten_thousand_tables_are_moved_with_little_memory() {
    if !is_long() {
        return;
    }
    let Some(figures) = moved(10_000) else { return };
    assert!(figures.memory < MOST_MEMORY, "{} MiB", figures.memory >> 20);
}

/// As above in a file, where each capture is six triggers; no time is judged.
#[test]
fn two_thousand_tables_of_a_file_are_moved() {
    let tables = if is_long() { 2000 } else { 60 };
    let Some(pair) = Pair::sqlite() else { return };
    let create = |number: usize| match number % 10 {
        0 => format!("CREATE TABLE t{number} (id INTEGER, name TEXT)"),
        _ => format!("CREATE TABLE t{number} (id INTEGER PRIMARY KEY, name TEXT)"),
    };
    let begin = || vec!["BEGIN".to_owned()];
    let mut sql = begin();
    for number in 0..tables {
        sql.extend([
            create(number),
            format!("CREATE INDEX i{number} ON t{number} (name)"),
            format!("INSERT INTO t{number} VALUES (1, 'a')"),
        ]);
    }
    sql.push("COMMIT".to_owned());
    pair.source.connect().unwrap().execute(&sql).unwrap();
    let began = Instant::now();
    let mut run = pair.start(&["run"]);
    assert!(run.within(LONG, |event| event["event"] == "consistent").is_some(), "it becomes consistent");
    eprintln!("{tables} tables of a file: consistent after {:?}, {:?} of processor", began.elapsed(), processor(&run));
    let mut changes = begin();
    changes.extend((0..tables).map(|number| format!("UPDATE t{number} SET name = 'b'")));
    changes.push("COMMIT".to_owned());
    pair.source.connect().unwrap().execute(&changes).unwrap();
    while !changed(&*pair.target, tables) {
        assert!(began.elapsed() < LONG && !run.is_over(), "the target does not follow");
        run.within(Duration::from_millis(50), |_| false);
    }
    pair.start(&["verify"]).end_within(LONG).with(0);
    run.kill();
    pair.start(&["finish", "--yes"]).end_within(LONG).with(0);
    eprintln!("{tables} tables of a file: finished after {:?}", began.elapsed());
    pair.assert_no_traces();
}

/// A job of this process, whose chunks are blocks: no task file asks for that.
async fn job_of_small_chunks(pair: &Pair, loaded: Arc<AtomicU64>) -> Job {
    let task = Arc::new(godwit_task::load(&pair.path().join("task.yaml")).unwrap().task);
    let fingerprint = Fingerprint { task: task.name.clone(), facts: godwit_task::fingerprint(&task) };
    let folder = Arc::new(StateFolder::open(pair.path().join("chunks"), &fingerprint).unwrap());
    let recorder = Recorder::default();
    recorder.on_event(move |event| {
        loaded.fetch_add(u64::from(matches!(event, Event::ChunkLoaded { .. })), Ordering::SeqCst);
    });
    Job {
        source: godwit_engines::source(&task).unwrap(),
        target: godwit_engines::target(&task).unwrap(),
        task,
        storage: Arc::new(FolderStorage { folder, options: LogOptions::default() }),
        observer: Arc::new(recorder),
        holder: this_process(),
        described: Described::default(),
        // an earlier job of this process was dropped
        life: |_| Life::Gone,
        chunk_bytes: 8192,
    }
}

/// As many as a table can have. The copy ends in the middle, and what is copied is not copied again.
#[test]
fn a_hundred_thousand_chunks_are_copied_once_each() {
    let chunks: u64 = if is_long() { 100_000 } else { 1_000 };
    let Some(pair) = Pair::postgres() else { return };
    pair.source.run(&[
        "CREATE TABLE item (id integer PRIMARY KEY, name text) WITH (fillfactor = 10)",
        // one row fills a block
        &format!("INSERT INTO item SELECT i, repeat('x', 1000) FROM generate_series(1, {chunks}) i"),
        "VACUUM ANALYZE item",
    ]);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let loaded = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    runtime.block_on(async {
        let job = job_of_small_chunks(&pair, loaded.clone()).await;
        let running = job.start();
        while loaded.load(Ordering::SeqCst) < chunks / 2 {
            assert!(!running.is_over(), "{:?}", running.stop().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        drop(running);
    });
    // what was under way is gone with its runtime
    runtime.shutdown_timeout(Duration::from_secs(10));
    let first = loaded.load(Ordering::SeqCst);
    eprintln!("{first} chunks after {:?}", began.elapsed());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut running = job_of_small_chunks(&pair, loaded.clone()).await.start();
        running.reach(Until::Consistent).await.unwrap();
        running.stop().await.unwrap();
    });
    eprintln!("{chunks} chunks after {:?}", began.elapsed());
    let copied = loaded.load(Ordering::SeqCst);
    // of the few under way when it ended, some were there unheard, and some were copied again
    assert!((chunks - 10..chunks + 10).contains(&copied), "{copied} chunks were copied, {chunks} there are");
    pair.assert_same("SELECT COUNT(*), SUM(id), SUM(length(name)) FROM item");
    drop(runtime);
    pair.godwit(&["clean", "--yes", "--state", "chunks"]).with(0);
}
