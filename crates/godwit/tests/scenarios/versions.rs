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
