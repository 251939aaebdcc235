//! A crash at every named point, under the bank workload: each point fires, and the next process goes on to the same end.

use godwit_model::Failpoints;
use godwit_testkit::bank::Bank;

use crate::bank::{self, Users, Workload};
use crate::pair::{Pair, is_long};
use crate::process::{Godwit, PATIENCE};

/// The smallest change log: it rolls behind 4 MiB, and is trimmed behind 8.
const LIMITS: &str = "limits: {memory: 32MiB, change_log: 16MiB}\n";
const FILLING: u64 = 14 << 20;
const FILLER_ROW: usize = 1 << 20;

/// The command that passes a point.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passes {
    Run,
    Repair,
    Finish,
    Clean,
    /// A run that carries a schema change.
    Alter,
}

fn passes(point: &str) -> Passes {
    match point.split('.').next() {
        Some("finish") => Passes::Finish,
        Some("clean") => Passes::Clean,
        Some("ddl") => Passes::Alter,
        _ if point == "apply.reread" => Passes::Repair,
        _ => Passes::Run,
    }
}

fn points(command: Passes) -> impl Iterator<Item = &'static str> {
    Failpoints::ALL.iter().copied().filter(move |point| passes(point) == command)
}

const ALTERATIONS: [&str; 4] = [
    "ALTER TABLE accounts_a ADD COLUMN extra INTEGER DEFAULT 5",
    "ALTER TABLE accounts_a ADD COLUMN chance DOUBLE PRECISION DEFAULT random()",
    "ALTER TABLE accounts_a ALTER COLUMN extra TYPE TEXT USING 'n' || extra",
    "ALTER TABLE accounts_a DROP COLUMN chance, DROP COLUMN extra",
];

#[test]
fn sqlite_first_half_of_a_run() {
    walk(Pair::sqlite, points(Passes::Run).step_by(2));
}

#[test]
fn sqlite_second_half_of_a_run() {
    walk(Pair::sqlite, points(Passes::Run).skip(1).step_by(2));
}

#[test]
fn sqlite_repair_finish_and_clean() {
    walk(Pair::sqlite, points(Passes::Repair).chain(points(Passes::Finish)).chain(points(Passes::Clean)));
}

#[test]
fn postgres_first_half_of_a_run() {
    walk(|| Pair::postgres_on_shared(18, 18), points(Passes::Run).step_by(2));
}

#[test]
fn postgres_second_half_of_a_run() {
    walk(|| Pair::postgres_on_shared(18, 18), points(Passes::Run).skip(1).step_by(2));
}

#[test]
fn postgres_repair_finish_and_clean() {
    let points = points(Passes::Repair).chain(points(Passes::Finish)).chain(points(Passes::Clean));
    walk(|| Pair::postgres_on_shared(18, 18), points);
}

#[test]
fn postgres_schema_changes() {
    walk(|| Pair::postgres_on_shared(18, 18), points(Passes::Alter));
}

#[test]
fn mariadb_first_half_of_a_run() {
    walk(Pair::mariadb, points(Passes::Run).step_by(2));
}

#[test]
fn mariadb_second_half_of_a_run() {
    walk(Pair::mariadb, points(Passes::Run).skip(1).step_by(2));
}

#[test]
fn mariadb_repair_finish_and_clean() {
    walk(Pair::mariadb, points(Passes::Repair).chain(points(Passes::Finish)).chain(points(Passes::Clean)));
}

#[test]
fn mariadb_later_passes() {
    if is_long() {
        walk_at(Pair::mariadb, passed_often(), later);
    }
}

/// Passed once in the life of a process, by their nature or because so few tables go in one bundle; all others are passed
/// again and again.
fn is_passed_once(point: &str) -> bool {
    let bundled = point.starts_with("schema.") || ["load.plan.recorded", "load.table.whole", "load.indexed"].contains(&point);
    bundled
        || point.starts_with("establish.")
        || point.starts_with("finish.")
        || point.starts_with("clean.")
        || ["load.snapshot.opened", "load.done.recorded", "p1.marked", "p1.reached", "apply.reread"].contains(&point)
}

fn passed_often() -> impl Iterator<Item = &'static str> {
    points(Passes::Run).filter(|point| !is_passed_once(point))
}

#[test]
fn sqlite_second_passes() {
    walk_at(Pair::sqlite, passed_often(), |_| 2);
}

/// A part of them in a short run; which one is chance.
#[test]
fn postgres_second_passes() {
    let few = fastrand::usize(0..4);
    let points = passed_often().enumerate().filter(|(index, _)| is_long() || index % 4 == few).map(|(_, point)| point);
    walk_at(|| Pair::postgres_on_shared(18, 18), points, |_| 2);
}

#[test]
fn sqlite_later_passes() {
    if is_long() {
        walk_at(Pair::sqlite, passed_often(), later);
    }
}

#[test]
fn postgres_later_passes() {
    if is_long() {
        walk_at(|| Pair::postgres_on_shared(18, 18), passed_often(), later);
    }
}

/// Which passes come for certain: the load has few chunks.
fn later(point: &str) -> u32 {
    match point.split('.').next() {
        Some("load" | "log") => 3,
        _ => fastrand::u32(3..40),
    }
}

fn walk(pair: impl Fn() -> Option<Pair>, points: impl Iterator<Item = &'static str>) {
    walk_at(pair, points, |_| 1);
}

fn walk_at(pair: impl Fn() -> Option<Pair>, points: impl Iterator<Item = &'static str>, pass: impl Fn(&str) -> u32) {
    for point in points {
        let Some(pair) = pair() else { return };
        let pass = pass(point);
        eprintln!("{point}@{pass}");
        pair.write_task(LIMITS);
        crash_at(&pair, point, pass);
    }
}

fn crash_at(pair: &Pair, point: &str, pass: u32) {
    let bank = Bank { accounts: 60, writers: 2, seed: 7 };
    bank::open(pair, &bank);
    pair.source.run(&[&format!("CREATE TABLE filler (id INTEGER PRIMARY KEY, content {})", pair.source.dialect().long_text())]);
    let mut workload = Workload::begin(pair, bank, Users::NeverRefused);
    if passes(point) == Passes::Run {
        assert_fires(pair, &["run"], point, pass);
    }
    if passes(point) == Passes::Alter {
        // each in another way: with rows that are filled, with rows that are read again, away again
        for statement in ALTERATIONS {
            let mut dying = pair.start_with(&["run"], &[("GODWIT_FAILPOINT", point)]);
            dying.wait_consistent();
            pair.source.run(&[statement]);
            let died = dying.end();
            assert!(died.aborted() && died.said().contains(&format!("failpoint {point} fired")), "{point}: {statement}: {}", died.said());
            pair.running().kill();
        }
    }
    let run = pair.running();
    if passes(point) != Passes::Repair {
        workload.arm();
    }
    let writers = workload.stop_writers();
    settle(pair);
    workload.end();
    run.kill();
    match passes(point) {
        Passes::Run | Passes::Alter => {}
        Passes::Repair => {
            pair.target.run(&["DELETE FROM journal WHERE id IN (SELECT MIN(id) FROM journal)"]);
            assert_fires(pair, &["verify", "--repair"], point, pass);
            // another process finds the re-read list where it was recorded
            pair.running().kill();
        }
        Passes::Finish => assert_fires(pair, &["finish", "--yes"], point, pass),
        Passes::Clean => {
            assert_fires(pair, &["clean", "--yes"], point, pass);
            pair.godwit(&["clean", "--yes"]).with(0);
            pair.assert_no_traces();
        }
    }
    if passes(point) != Passes::Clean {
        pair.finish();
    }
    bank::assert_equal(pair, &bank, &writers);
}

/// Everything that was written at the source is in the target, and both are equal.
fn settle(pair: &Pair) {
    pair.godwit(&["verify"]).with(0);
}

/// Gives the change log enough to roll over and to trim.
fn fill(pair: &Pair, turn: u32) {
    for number in 0..FILLING / FILLER_ROW as u64 {
        let number = u64::from(turn) * 1000 + number;
        // random, so that no store makes it small
        let content: String = std::iter::repeat_with(fastrand::alphanumeric).take(FILLER_ROW).collect();
        pair.source.run(&[&format!("INSERT INTO filler VALUES ({number}, '{content}')")]);
    }
}

#[track_caller]
fn assert_fires(pair: &Pair, command: &[&str], point: &str, pass: u32) {
    let mut dying: Godwit = pair.start_with(command, &[("GODWIT_FAILPOINT", &format!("{point}@{pass}"))]);
    if point.starts_with("log.") {
        dying.wait_consistent();
        (0..pass).for_each(|turn| fill(pair, turn));
    }
    let died = dying.end();
    assert!(died.aborted(), "{point} did not fire within {PATIENCE:?}: {}", died.said());
    assert!(died.said().contains(&format!("failpoint {point} fired")), "{}", died.said());
}
