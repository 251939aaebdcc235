//! From the answer to a commit at the source to the row's sight at the target, at a steady rate.

use std::thread;
use std::time::{Duration, Instant};

use super::arena::Arena;
use super::replicas::Replicas;
use super::report::{Measure, Report};
use super::sizes::Sizes;
use super::sql::Sql;
use super::timing::quantile;
use crate::Outcome;

const PER_SECOND: u64 = 500;
/// The first transactions find statements unprepared and caches cold, on both sides.
const WARM_UP: usize = 500;
/// How often the target is looked at: the resolution of the figure, equal for both.
const LOOK_INTERVAL: Duration = Duration::from_micros(300);
const PATIENCE: Duration = Duration::from_secs(60);

const TABLE: &str = "CREATE TABLE ping (id bigint PRIMARY KEY, account integer NOT NULL, note text NOT NULL)";

pub fn measure(arena: &Arena, sizes: &Sizes, report: &mut Report) -> Outcome<()> {
    let replicas = Replicas::begin(arena, "latency", true, |source| source.run(TABLE))?;
    let count = sizes.latency_seconds * PER_SECOND + WARM_UP as u64;
    let native_replica = replicas.native.as_ref().ok_or("no native replica")?;
    let (mut first, mut godwit, mut native, mut peak) = (1, Vec::new(), Vec::new(), 0);
    for _ in 0..super::ROUNDS {
        let mut run = replicas.task.run(None)?;
        run.wait_for("consistent")?;
        godwit.extend(delays(&replicas, &replicas.godwit_target()?, first, count)?);
        peak = peak.max(run.stop()?.peak);
        first += count;

        native_replica.enable()?;
        native.extend(delays(&replicas, &replicas.native_target()?, first, count)?);
        native_replica.disable()?;
        first += count;
    }
    // each was stopped while the other was measured
    replicas.task.run(Some("caught-up"))?.end()?;
    let [p50, p99, native_p50, native_p99] =
        [(&godwit, 0.5), (&godwit, 0.99), (&native, 0.5), (&native, 0.99)].map(|(delays, share)| quantile(delays, share));
    let work = format!("commit to visible, {PER_SECOND} transactions/s");
    report.add(Measure::delay(
        &format!("{work}, p50"),
        p50,
        native_p50,
        native_p50 + Duration::from_millis(5),
        native_p50 + Duration::from_millis(2),
    ));
    report.add(Measure::delay(&format!("{work}, p99"), p99, native_p99, Duration::from_millis(100), Duration::from_millis(30)));
    report.memory("steady stream", peak);
    let native = replicas.native_target()?;
    native_replica.enable()?;
    native.until(&format!("SELECT coalesce(max(id), 0) = {} FROM ping", first - 1))?;
    native_replica.disable()?;
    replicas.end()
}

/// Writes so many rows at the rate and sees each arrive; the warm-up is left out.
fn delays(replicas: &Replicas<'_>, target: &Sql, first: u64, count: u64) -> Outcome<Vec<Duration>> {
    let last = first + count - 1;
    thread::scope(|scope| {
        let watcher = scope.spawn(|| arrivals(target, first, last));
        let committed = write(&replicas.source, first, last)?;
        let seen = watcher.join().map_err(|_| "the watcher died")??;
        // a row may be seen before the answer to its commit has travelled back
        let delay = |(seen, committed): (&Instant, &Instant)| seen.saturating_duration_since(*committed);
        Ok(seen.iter().zip(&committed).skip(WARM_UP).map(delay).collect())
    })
}

fn write(source: &Sql, first: u64, last: u64) -> Outcome<Vec<Instant>> {
    let began = Instant::now();
    let mut committed = Vec::new();
    for id in first..=last {
        let due = began + Duration::from_micros((id - first) * 1_000_000 / PER_SECOND);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        source.run(&format!("INSERT INTO ping VALUES ({id}, {}, 'ping')", id % 1000))?;
        committed.push(Instant::now());
    }
    Ok(committed)
}

/// When each of these was first seen; rows arrive in the order of their commits.
fn arrivals(target: &Sql, first: u64, last: u64) -> Outcome<Vec<Instant>> {
    let deadline = Instant::now() + Duration::from_secs((last - first) / PER_SECOND) + PATIENCE;
    let mut seen = Vec::new();
    while (seen.len() as u64) < last - first + 1 {
        let newest: i64 = target.row("SELECT coalesce(max(id), 0) FROM ping", &[])?.get(0);
        let now = Instant::now();
        let arrived = (newest as u64 + 1).saturating_sub(first) as usize;
        seen.resize(arrived.max(seen.len()), now);
        if now > deadline {
            return Err("rows did not arrive in time".into());
        }
        thread::sleep(LOOK_INTERVAL);
    }
    Ok(seen)
}
