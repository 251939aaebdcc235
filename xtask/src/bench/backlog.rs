//! Backlogs of many small transactions and of few large ones, against native logical replication.

use std::process::Command;

use super::arena::Arena;
use super::programs;
use super::replicas::Replicas;
use super::report::{Measure, Report};
use super::sizes::Sizes;
use crate::Outcome;

const PEER: &str = "native logical replication, binary";
/// pgbench's clients; the backlog is the same however it was made.
const CLIENTS: u32 = 8;

pub fn pgbench(arena: &Arena, sizes: &Sizes, report: &mut Report) -> Outcome<()> {
    let name = "backlog";
    let mut replicas = Replicas::begin(arena, name, true, |_| arena.pgbench_tables(name, sizes.backlog_scale))?;
    let each = (sizes.backlog_transactions / CLIENTS).to_string();
    let race = replicas.three_rounds(|_, round| {
        let mut pgbench = Command::new(&arena.programs.pgbench);
        pgbench.args(["-n", "-c", &CLIENTS.to_string(), "-j", "2", "-t", &each, "--random-seed", &(round + 1).to_string()]);
        programs::run(pgbench.arg(arena.source.url(name)).env("PGOPTIONS", "-c synchronous_commit=off"))
    })?;
    let work = format!("backlog of {} pgbench transactions, scale {}", sizes.backlog_transactions, sizes.backlog_scale);
    report.add(Measure::faster(&work, PEER, race.godwit, race.native, 2.0, 4.0));
    report.memory("pgbench backlog", race.peak);
    replicas.end()
}

pub fn bulk(arena: &Arena, sizes: &Sizes, report: &mut Report) -> Outcome<()> {
    let rows = sizes.bulk_rows;
    let mut replicas = Replicas::begin(arena, "bulk", true, |source| {
        source.run("CREATE TABLE item (id bigint PRIMARY KEY, amount bigint NOT NULL, note text NOT NULL)")?;
        source.run(&format!("INSERT INTO item SELECT i, 0, md5(i::text) FROM generate_series(1, {rows}) i"))
    })?;
    let race = replicas.three_rounds(|source, _| source.run(&format!("UPDATE item SET amount = amount + 1 WHERE id <= {rows}")))?;
    report.add(Measure::faster(&format!("one UPDATE of {rows} rows"), PEER, race.godwit, race.native, 1.3, 1.5));
    report.memory("one UPDATE", race.peak);
    let race = replicas.three_rounds(|source, round| {
        let first = rows * (round as u64 + 1);
        source.run(&format!("INSERT INTO item SELECT i, 0, md5(i::text) FROM generate_series({} , {}) i", first + 1, first + rows))
    })?;
    report.add(Measure::faster(&format!("one INSERT of {rows} rows"), PEER, race.godwit, race.native, 1.3, 1.5));
    report.memory("one INSERT", race.peak);
    replicas.end()
}

const SERVICE_TABLES: &str = "
DO $$ BEGIN
  FOR t IN 0..19 LOOP
    EXECUTE format('CREATE TABLE event_%s (id bigint PRIMARY KEY, kind integer NOT NULL, payload text NOT NULL)', t);
    EXECUTE format('INSERT INTO event_%s SELECT i, i %% 9, repeat(md5(i::text), 31) FROM generate_series(1, 2000) i', t);
  END LOOP;
END $$";

/// Six changes in three transactions of two: insert, insert · insert, update · delete, delete.
const SERVICE_TRAFFIC: &str = "
CREATE OR REPLACE PROCEDURE traffic(transactions bigint) LANGUAGE plpgsql AS $$
DECLARE
  t integer; o integer; newest bigint[]; oldest bigint[]; a bigint;
BEGIN
  FOR t IN 0..19 LOOP
    EXECUTE format('SELECT max(id) FROM event_%s', t) INTO a; newest[t] := a;
    EXECUTE format('SELECT min(id) FROM event_%s', t) INTO a; oldest[t] := a;
  END LOOP;
  FOR n IN 0..transactions - 1 LOOP
    t := (n / 3 + n) % 20; o := (t + 7) % 20;
    IF n % 3 < 2 THEN
      newest[t] := newest[t] + 1;
      EXECUTE format('INSERT INTO event_%s VALUES ($1, $2, repeat(md5($1::text), 31))', t) USING newest[t], n % 9;
    END IF;
    IF n % 3 = 0 THEN
      newest[o] := newest[o] + 1;
      EXECUTE format('INSERT INTO event_%s VALUES ($1, $2, repeat(md5($1::text), 31))', o) USING newest[o], n % 9;
    ELSIF n % 3 = 1 THEN
      a := oldest[o] + n % greatest(newest[o] - oldest[o], 1);
      EXECUTE format('UPDATE event_%s SET kind = $2, payload = repeat(md5($2::text), 31) WHERE id = $1', o) USING a, n;
    ELSE
      EXECUTE format('DELETE FROM event_%s WHERE id = $1', t) USING oldest[t];
      EXECUTE format('DELETE FROM event_%s WHERE id = $1', o) USING oldest[o];
      oldest[t] := oldest[t] + 1; oldest[o] := oldest[o] + 1;
    END IF;
    COMMIT;
  END LOOP;
END $$";

pub fn service(arena: &Arena, sizes: &Sizes, report: &mut Report) -> Outcome<()> {
    let transactions = sizes.service_transactions;
    let mut replicas = Replicas::begin(arena, "service", true, |source| {
        source.run(SERVICE_TABLES)?;
        source.run(SERVICE_TRAFFIC)
    })?;
    let race = replicas.three_rounds(|source, _| {
        source.run("SET synchronous_commit = off")?;
        source.run(&format!("CALL traffic({transactions})"))?;
        source.run("RESET synchronous_commit")
    })?;
    let changes = transactions * 2;
    let work = format!("service model: {changes} changes of 1 KB rows, 20 tables, transactions of 2");
    report.add(Measure::rate(&work, changes, race.godwit, race.native, 20_000.0, 40_000.0));
    report.memory("service model", race.peak);
    replicas.end()
}
