//! A transaction far larger than the memory Godwit may take.

use super::arena::Arena;
use super::replicas::Replicas;
use super::report::Report;
use super::sizes::Sizes;
use crate::Outcome;

pub fn one_large_transaction(arena: &Arena, sizes: &Sizes, report: &mut Report) -> Outcome<()> {
    let rows = sizes.large_rows;
    let table = "CREATE TABLE item (id bigint PRIMARY KEY, amount bigint NOT NULL, note text NOT NULL)";
    let mut replicas = Replicas::begin(arena, "large", false, |source| source.run(table))?;
    let race = replicas
        .race(1, |source, _| source.run(&format!("INSERT INTO item SELECT i, 0, md5(i::text) FROM generate_series(1, {rows}) i")))?;
    report.memory(&format!("one transaction of {rows} rows ({:.1} s)", race.godwit.as_secs_f64()), race.peak);
    replicas.end()
}
