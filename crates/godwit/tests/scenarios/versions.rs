//! The versions between the oldest and the newest, end to end: loaded, followed, finished.

use godwit_testkit::bank::Bank;

use crate::bank::{self, Users, Workload};
use crate::kill_loop::await_journal;
use crate::pair::Pair;

#[test]
fn from_14_to_16() {
    end_to_end(14, 16);
}

#[test]
fn from_16_to_17() {
    end_to_end(16, 17);
}

#[test]
fn from_17_to_18() {
    end_to_end(17, 18);
}

/// Such a key excludes and does not make unique: nothing can be written over the row that has it.
#[test]
fn a_key_without_overlaps_is_followed_row_by_row() {
    let Some(pair) = Pair::postgres_on_shared(18, 18) else { return };
    pair.source.run(&[
        "CREATE TABLE stay (room int4range, days daterange, guest text, PRIMARY KEY (room, days WITHOUT OVERLAPS))",
        "INSERT INTO stay SELECT int4range(g, g + 1), '[2024-01-01, 2024-02-01)', 'guest ' || g FROM generate_series(1, 50) g",
    ]);
    let run = pair.running();
    pair.source.run(&[
        "UPDATE stay SET guest = 'another' WHERE room @> 7",
        "UPDATE stay SET days = '[2024-03-01, 2024-04-01)' WHERE room @> 8",
        "DELETE FROM stay WHERE room @> 9",
        "INSERT INTO stay VALUES ('[1, 2)', '[2024-02-01, 2024-03-01)', 'late')",
    ]);
    pair.await_same("SELECT room, days, guest FROM stay");
    run.kill();
    pair.godwit(&["run", "--resync", "--until", "consistent"]).with(0);
    pair.assert_same("SELECT room, days, guest FROM stay");
    pair.finish();
    assert_eq!(pair.target.number("SELECT count(*) FROM pg_constraint WHERE conname = 'stay_pkey'"), 1);
}

fn end_to_end(first: u16, second: u16) {
    let Some(pair) = Pair::postgres_on_shared(first, second) else { return };
    let bank = Bank { accounts: 60, writers: 2, seed: fastrand::u64(..) };
    bank::open(&pair, &bank);
    pair.source.run(&[
        "CREATE TABLE document (id INTEGER PRIMARY KEY, title TEXT, body TEXT, price NUMERIC(12, 3), at TIMESTAMPTZ, tags TEXT[], more JSONB)",
        "INSERT INTO document SELECT i, 'title ' || i, repeat(md5(i::text), 200), i / 7.0, '2024-02-29 12:00:00+00', ARRAY['a', NULL], '{\"a\": 1}'
         FROM generate_series(1, 500) i",
    ]);
    let mut workload = Workload::begin(&pair, bank, Users::NeverRefused);
    let mut run = pair.running();
    workload.arm();
    pair.source.run(&[
        // the large value stays unsent
        "UPDATE document SET title = title || '!' WHERE id % 3 = 0",
        "UPDATE document SET id = id + 1000 WHERE id % 5 = 0",
        "DELETE FROM document WHERE id % 7 = 0",
        "INSERT INTO document VALUES (0, NULL, '', 'NaN', 'infinity', '{}', 'null')",
    ]);
    let journal = pair.source.number("SELECT COUNT(*) FROM journal");
    await_journal(&pair, &mut run, journal);
    let writers = workload.stop_writers();
    pair.godwit(&["verify"]).with(0);
    workload.end();
    run.kill();
    pair.finish();
    bank::assert_equal(&pair, &bank, &writers);
    pair.assert_same("SELECT id, title, body, price, at, tags, more FROM document");
}
