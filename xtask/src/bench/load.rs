//! The full load, whole and its data phase alone.

use std::time::Duration;

use super::ROUNDS;
use super::arena::{Arena, assert_equal};
use super::copy;
use super::godwit::Task;
use super::programs;
use super::report::{Measure, Report};
use super::sizes::{Amount, Sizes};
use super::sql::Sql;
use super::timing::{alternate, median};
use crate::Outcome;

pub const SOURCE: &str = "load";
pub const TARGET: &str = "load_target";

const DOCUMENTS: &str = "
CREATE TABLE document (id bigint PRIMARY KEY, title text NOT NULL, body jsonb NOT NULL, price numeric(12, 2), created timestamptz NOT NULL);
INSERT INTO document
SELECT i, 'document ' || i || ' ' || md5(i::text),
       jsonb_build_object('author', md5((i % 1000)::text), 'tags', jsonb_build_array(i % 7, i % 11, md5((i * 3)::text)), 'pages', i % 500),
       (i % 100000) / 7.0, timestamptz '2024-01-01' + i * interval '17 seconds'
FROM generate_series(1, $ROWS) i;
CREATE INDEX document_created ON document (created);
CREATE INDEX document_title ON document (title);
VACUUM ANALYZE;
CHECKPOINT";

#[derive(Clone, Copy)]
enum Way {
    Godwit,
    Dump,
    Pgcopydb,
}

#[derive(Clone, Copy)]
enum DataWay {
    Godwit,
    Pipes,
}

/// Gives its bytes.
pub fn make_source(arena: &Arena, amount: &Amount) -> Outcome<u64> {
    let sql = Arena::empty_database(&arena.source, SOURCE)?;
    arena.pgbench_tables(SOURCE, amount.scale)?;
    for statement in DOCUMENTS.replace("$ROWS", &amount.documents.to_string()).split(';') {
        sql.run(statement)?;
    }
    let bytes: i64 = sql
        .row(
            "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
            &[],
        )?
        .get(0);
    Ok(bytes as u64)
}

pub fn whole(arena: &Arena, sizes: &Sizes, report: &mut Report) -> Outcome<()> {
    let bytes = make_source(arena, &sizes.load)?;
    let (mut godwit, mut dump, mut pgcopydb, mut peak) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for round in 0..ROUNDS {
        for way in alternate([Way::Godwit, Way::Dump, Way::Pgcopydb], round) {
            drop(Arena::empty_database(&arena.target, TARGET)?);
            match way {
                Way::Godwit => {
                    let (took, _, bytes) = godwit_load(arena)?;
                    godwit.push(took);
                    peak = peak.max(bytes);
                }
                Way::Dump => dump.push(copy::dump_and_restore(arena, SOURCE, TARGET)?),
                Way::Pgcopydb if arena.programs.pgcopydb.is_some() => match copy::pgcopydb(arena, SOURCE, TARGET) {
                    Ok(took) => pgcopydb.push(took),
                    Err(problem) => {
                        report.note(format!("pgcopydb failed here: {}", problem.to_string().lines().last().unwrap_or_default()))
                    }
                },
                Way::Pgcopydb => {}
            }
        }
        eprintln!(
            "  load round {}: godwit {:.2?}, pg_dump {:.2?}, pgcopydb {:.2?}",
            round + 1,
            godwit.last(),
            dump.last(),
            pgcopydb.last()
        );
    }
    let work = format!("full load, {} MB with indexes", bytes / 1_000_000);
    let ours = median(&godwit);
    report.add(Measure::faster(&work, "pg_dump -j2, pg_restore -j2", ours, median(&dump), 1.2, 1.3));
    if !pgcopydb.is_empty() {
        report.add(Measure::faster(&work, "pgcopydb clone", ours, median(&pgcopydb), 1.2, 1.3));
    }
    report.memory("full load", peak);
    drop_both(arena)
}

pub fn data(arena: &Arena, sizes: &Sizes, report: &mut Report) -> Outcome<()> {
    let bytes = make_source(arena, &sizes.load)?;
    let (mut godwit, mut pipes) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for way in alternate([DataWay::Godwit, DataWay::Pipes], round) {
            let sql = Arena::empty_database(&arena.target, TARGET)?;
            match way {
                DataWay::Godwit => godwit.push(godwit_load(arena)?.1),
                DataWay::Pipes => {
                    tables_with_their_keys(arena, &sql)?;
                    pipes.push(copy::pipes(arena, SOURCE, TARGET)?);
                    assert_equal(&Sql::connect(&arena.source.url(SOURCE))?, &sql)?;
                }
            }
        }
        eprintln!("  data round {}: godwit {:.2?}, pipes {:.2?}", round + 1, godwit.last(), pipes.last());
    }
    let work = format!("its data phase alone, {} MB with indexes", bytes / 1_000_000);
    report.add(Measure::faster(&work, "COPY BINARY pipes, two, into tables with keys", median(&godwit), median(&pipes), 0.9, 0.95));
    drop_both(arena)
}

/// The whole time, the data phase's, and the peak of memory.
pub fn godwit_load(arena: &Arena) -> Outcome<(Duration, Duration, u64)> {
    let task = Task::new(arena, "bench_load", SOURCE, TARGET, copy::PARALLEL)?;
    let done = task.run(Some("consistent"))?.end()?;
    assert_equal(&Sql::connect(&arena.source.url(SOURCE))?, &Sql::connect(&arena.target.url(TARGET))?)?;
    task.clean()?;
    Ok((done.until("consistent")?, done.load_phase()?, done.peak))
}

/// What Godwit loads into: tables with their keys and no other index.
fn tables_with_their_keys(arena: &Arena, target: &Sql) -> Outcome<()> {
    let url = arena.source.url(SOURCE);
    let schema = programs::output(arena.tool("pg_dump").args(["-s", "-n", "public", &url]))?;
    let kept = |line: &&str| !line.starts_with('\\') && !line.starts_with("CREATE INDEX") && !line.contains("SCHEMA public");
    target.run(&schema.lines().filter(kept).collect::<Vec<_>>().join("\n"))?;
    target.run("RESET ALL")
}

pub fn drop_both(arena: &Arena) -> Outcome<()> {
    Arena::drop_database(&arena.target, TARGET)?;
    Arena::drop_database(&arena.source, SOURCE)
}
