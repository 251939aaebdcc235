//! The peers of the full load: the server's own dump and restore, pgcopydb, and bare pipes.

use std::fs;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use super::arena::Arena;
use super::programs;
use super::sql::Sql;
use crate::Outcome;

/// Equal to the workers that Godwit is given.
pub const PARALLEL: u32 = 2;

/// `pg_dump -Fd | pg_restore`, uncompressed, which is the fastest on one machine.
pub fn dump_and_restore(arena: &Arena, source: &str, target: &str) -> Outcome<Duration> {
    let folder = arena.folder.path().join("dump");
    let jobs = format!("-j{PARALLEL}");
    let began = Instant::now();
    let dump = |command: &mut Command| programs::run(command.args(["-Fd", "-Z0", &jobs, "-f"]).arg(&folder).arg(arena.source.url(source)));
    dump(&mut arena.tool("pg_dump"))?;
    programs::run(arena.tool("pg_restore").args([&jobs, "-d", &arena.target.url(target)]).arg(&folder))?;
    let took = began.elapsed();
    fs::remove_dir_all(&folder)?;
    Ok(took)
}

/// `pgcopydb clone`; what it does after the indexes (VACUUM ANALYZE) cannot be left out in this version.
pub fn pgcopydb(arena: &Arena, source: &str, target: &str) -> Outcome<Duration> {
    let program = arena.programs.pgcopydb.as_ref().ok_or("no pgcopydb")?;
    let folder = arena.folder.path().join("pgcopydb");
    let jobs = PARALLEL.to_string();
    let path = format!("{}:{}", arena.programs.tools.display(), std::env::var("PATH").unwrap_or_default());
    let began = Instant::now();
    programs::run(
        Command::new(program)
            .args(["clone", "--source", &arena.source.url(source), "--target", &arena.target.url(target)])
            .args(["--table-jobs", &jobs, "--index-jobs", &jobs, "--split-tables-larger-than", "32 MB", "--dir"])
            .arg(&folder)
            .env("PATH", path),
    )?;
    let took = began.elapsed();
    fs::remove_dir_all(&folder)?;
    Ok(took)
}

/// Every table in as many parts as there are pipes, one part of each per pipe. The target's tables are there.
pub fn pipes(arena: &Arena, source: &str, target: &str) -> Outcome<Duration> {
    let sql = Sql::connect(&arena.source.url(source))?;
    let sizes = "SELECT c.relname::text, (pg_relation_size(c.oid) / current_setting('block_size')::bigint)::bigint FROM pg_class c \
         WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace ORDER BY 2 DESC";
    let tables: Vec<(String, i64)> = sql.rows(sizes)?.iter().map(|row| (row.get(0), row.get(1))).collect();
    let psql = arena.programs.tools.join("psql");
    let began = Instant::now();
    let start = |part: i64| -> Outcome<Child> {
        let script: Vec<String> = tables
            .iter()
            .map(|(table, blocks)| {
                let bound = |part: i64| blocks * part / i64::from(PARALLEL) + i64::from(part == i64::from(PARALLEL));
                let rows = format!("SELECT * FROM {table} WHERE ctid >= '({},0)' AND ctid < '({},0)'", bound(part), bound(part + 1));
                let (psql, here, there) = (psql.display(), arena.source.url(source), arena.target.url(target));
                format!(
                    "{psql} -qX -v ON_ERROR_STOP=1 '{here}' -c \"COPY ({rows}) TO STDOUT (FORMAT binary)\" | \
                 {psql} -qX -v ON_ERROR_STOP=1 '{there}' -c 'COPY {table} FROM STDIN (FORMAT binary)'"
                )
            })
            .collect();
        Ok(Command::new("sh").arg("-ec").arg(script.join("\n")).spawn()?)
    };
    let pipes = (0..i64::from(PARALLEL)).map(start).collect::<Outcome<Vec<_>>>()?;
    for mut pipe in pipes {
        if !pipe.wait()?.success() {
            return Err("a COPY pipe failed".into());
        }
    }
    Ok(began.elapsed())
}
