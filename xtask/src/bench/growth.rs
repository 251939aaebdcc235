//! How the time of a full load grows with the bytes and with the tables. The peer is the straight line through the next
//! smaller amount.

use std::time::Duration;

use super::ROUNDS;
use super::arena::Arena;
use super::copy;
use super::load;
use super::report::{Measure, Report};
use super::sizes::Sizes;
use super::timing::median;
use crate::Outcome;

/// Each in a transaction of its own, so that no server runs out of places for locks.
const TABLES: &str = "
DO $$ BEGIN
  FOR t IN 1..$TABLES LOOP
    EXECUTE format('CREATE TABLE part_%s (id bigint PRIMARY KEY, kind integer NOT NULL, note text NOT NULL)', t);
    EXECUTE format('INSERT INTO part_%s SELECT i, i %% 9, md5(i::text) FROM generate_series(1, 100) i', t);
    EXECUTE format('CREATE INDEX ON part_%s (kind)', t);
    COMMIT;
  END LOOP;
END $$";

/// Beside the straight line stands how the peers' own tools grow: behind some gigabytes a server waits for its disk.
pub fn bytes(arena: &Arena, sizes: &Sizes, report: &mut Report) -> Outcome<()> {
    let mut smaller: Option<(u64, Duration)> = None;
    let mut dumps = Vec::new();
    for amount in &sizes.growing_loads {
        let bytes = load::make_source(arena, amount)?;
        let name = format!("full load, {} MB with indexes", bytes / 1_000_000);
        let mut dumped = Vec::new();
        let took = rounds(arena, report, &name, |arena| {
            drop(Arena::empty_database(&arena.target, load::TARGET)?);
            dumped.push(copy::dump_and_restore(arena, load::SOURCE, load::TARGET)?);
            Ok(())
        })?;
        eprintln!("  the same by pg_dump and pg_restore: {dumped:.2?}");
        dumps.push(format!("{} MB in {:.1} s", bytes / 1_000_000, median(&dumped).as_secs_f64()));
        if let Some((less, time)) = smaller {
            report.add(line(&name, &format!("linear from {} MB", less / 1_000_000), took, time, bytes as f64 / less as f64));
        }
        smaller = Some((bytes, took));
    }
    report.note(format!("The loads of growing size by `pg_dump` and `pg_restore`, in turn with Godwit's: {}.", dumps.join(", ")));
    load::drop_both(arena)
}

pub fn tables(arena: &Arena, sizes: &Sizes, report: &mut Report) -> Outcome<()> {
    let mut smaller: Option<(u64, Duration)> = None;
    for tables in sizes.growing_tables {
        let sql = Arena::empty_database(&arena.source, load::SOURCE)?;
        sql.run(&TABLES.replace("$TABLES", &tables.to_string()))?;
        sql.run("VACUUM ANALYZE")?;
        sql.run("CHECKPOINT")?;
        let name = format!("full load of {tables} tables of 100 rows");
        let took = rounds(arena, report, &name, |_| Ok(()))?;
        if let Some((less, time)) = smaller {
            report.add(line(&name, &format!("linear from {less} tables"), took, time, tables as f64 / less as f64));
        }
        smaller = Some((tables, took));
    }
    load::drop_both(arena)
}

/// The median time of loading what the source holds; `between` follows each.
fn rounds(arena: &Arena, report: &mut Report, what: &str, mut between: impl FnMut(&Arena) -> Outcome<()>) -> Outcome<Duration> {
    let (mut times, mut peak) = (Vec::new(), 0);
    for _ in 0..ROUNDS {
        drop(Arena::empty_database(&arena.target, load::TARGET)?);
        let (took, _, bytes) = load::godwit_load(arena)?;
        times.push(took);
        peak = peak.max(bytes);
        between(arena)?;
    }
    eprintln!("  {what}: {times:.2?}");
    report.memory(what, peak);
    Ok(median(&times))
}

fn line(work: &str, peer: &str, ours: Duration, smaller: Duration, factor: f64) -> Measure {
    Measure::faster(work, peer, ours, smaller.mul_f64(factor), 1.0, 1.0)
}
