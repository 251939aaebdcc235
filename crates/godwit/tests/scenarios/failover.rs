//! Another server in the place of the one that was there: a promoted standby, a target out of a backup.

use std::path::Path;
use std::process::Command;

use godwit_testkit::network::Proxy;
use godwit_testkit::servers::{Postgres, PostgresOptions, tool};

use crate::pair::Pair;
use crate::postgres::execute;

const ITEMS: &str = "SELECT id, name FROM item";
const LIMITS: &str = "limits: {memory: 32MiB, change_log: 16MiB}\n";

fn given(pair: &Pair) {
    pair.source
        .run(&["CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)", "INSERT INTO item SELECT i, 'old' FROM generate_series(1, 500) i"]);
}

/// A standby that keeps failover slots in step.
pub fn standby(primary: &Postgres, folder: &Path) -> Option<Postgres> {
    let backup = folder.join("backup");
    let mut command = Command::new(tool(18, "pg_basebackup")?);
    command.args(["-R", "-c", "fast", "-C", "-S", "standby", "-d", &primary.url("source"), "-D"]).arg(&backup);
    assert!(command.status().unwrap().success());
    let options = PostgresOptions::default().with_fsync().with_data_of(&backup);
    let options = options.with_setting("hot_standby_feedback", "on").with_setting("sync_replication_slots", "on");
    Postgres::start(primary.major(), &options)
}

/// Until a query gives true. A server offers nothing to wait on.
#[track_caller]
pub fn await_true(url: &str, what: &str) {
    let check = format!("DO $$ BEGIN ASSERT ({what}); END $$");
    let deadline = std::time::Instant::now() + crate::process::PATIENCE;
    while let Err(problem) = execute(url, &check) {
        assert!(std::time::Instant::now() < deadline, "{what}: {problem}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn a_promoted_standby_with_the_slot_is_followed() {
    let Some(pair) = Pair::postgres_on_own(18, 18, crate::store::Tier::Full) else { return };
    given(&pair);
    let primary = pair.source.server().unwrap();
    let network = Proxy::before(primary.port());
    pair.write_task_between(&network.url(&pair.source.url()), &pair.target.url(), "");
    let Some(standby) = standby(primary, pair.path()) else { return };
    primary.set("synchronized_standby_slots", "standby");
    primary.reload();
    let mut run = pair.running();
    pair.source.run(&["INSERT INTO item VALUES (1001, 'before')"]);
    pair.await_same(ITEMS);
    await_true(&standby.url("source"), "SELECT count(*) = 1 FROM pg_replication_slots WHERE synced AND NOT temporary AND failover");
    primary.stop();
    network.lead_to(standby.port());
    assert_eq!(execute(&standby.url("source"), "SELECT pg_promote()"), Ok(()));
    await_true(&standby.url("source"), "SELECT NOT pg_is_in_recovery()");
    assert_eq!(execute(&standby.url("source"), "INSERT INTO item VALUES (1002, 'after')"), Ok(()));
    let deadline = std::time::Instant::now() + crate::process::PATIENCE;
    while pair.target.number("SELECT COUNT(*) FROM item WHERE id = 1002") == 0 {
        assert!(std::time::Instant::now() < deadline && !run.is_over(), "the new primary is not followed");
        run.within(std::time::Duration::from_millis(50), |_| false);
    }
    pair.godwit(&["verify"]).with(0);
    run.kill();
    pair.godwit(&["finish", "--yes"]).with(0);
    assert_eq!(pair.target.number("SELECT COUNT(*) FROM item"), 502);
}

#[test]
fn a_promoted_standby_without_the_slot_stops_the_task() {
    let Some(pair) = Pair::postgres_on_own(15, 18, crate::store::Tier::Full) else { return };
    given(&pair);
    let primary = pair.source.server().unwrap();
    let network = Proxy::before(primary.port());
    pair.write_task_between(&network.url(&pair.source.url()), &pair.target.url(), "");
    let run = pair.running();
    // versions before 17 leave slots behind
    let backup = pair.path().join("backup");
    let Some(pg_basebackup) = tool(18, "pg_basebackup") else { return };
    let made = Command::new(pg_basebackup).args(["-R", "-c", "fast", "-d", &primary.url("source"), "-D"]).arg(&backup).status().unwrap();
    assert!(made.success());
    let Some(standby) = Postgres::start(15, &PostgresOptions::default().with_data_of(&backup)) else { return };
    network.lead_to(standby.port());
    primary.stop();
    assert_eq!(execute(&standby.url("source"), "SELECT pg_promote()"), Ok(()));
    let stopped = run.end().with(4);
    assert_eq!(stopped.code().as_deref(), Some("GW4001"));
    assert_eq!(execute(&standby.url("source"), "DELETE FROM item WHERE id = 1; INSERT INTO item VALUES (1002, 'after')"), Ok(()));
    pair.godwit(&["run", "--resync", "--until", "consistent"]).with(0);
    pair.godwit(&["verify"]).with(0);
    assert_eq!(pair.target.number("SELECT COUNT(*) FROM item WHERE id IN (1, 1002)"), 1);
    pair.godwit(&["finish", "--yes"]).with(0);
}

/// The target's data as they were; whoever it belongs to stays the owner.
fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

fn set_back(target: &Postgres, backup: &Path) {
    target.stop();
    std::fs::remove_dir_all(target.data_dir()).unwrap();
    copy(backup, &target.data_dir());
    target.restart();
}

#[test]
fn a_target_out_of_a_backup_goes_on_or_stops_and_a_resync_mends() {
    let Some(pair) = Pair::postgres_on_own(15, 18, crate::store::Tier::Full) else { return };
    given(&pair);
    pair.write_task(LIMITS);
    let target = pair.target.server().unwrap();
    pair.running().kill();
    target.stop();
    let backup = pair.path().join("backup");
    copy(&target.data_dir(), &backup);
    target.restart();

    // the change log still holds what the backup lacks
    let run = pair.running();
    pair.source.run(&[
        "INSERT INTO item VALUES (1001, 'later')",
        "UPDATE item SET name = 'new' WHERE id < 10",
        "DELETE FROM item WHERE id = 100",
    ]);
    pair.await_same(ITEMS);
    run.kill();
    set_back(target, &backup);
    let run = pair.running();
    pair.await_same(ITEMS);

    // more than it keeps
    let content = "y".repeat(1 << 20);
    for number in 0..40 {
        pair.source.run(&[&format!("UPDATE item SET name = '{content}{number}' WHERE id = {}", 200 + number)]);
    }
    pair.await_same("SELECT id, md5(name) FROM item");
    run.signal("TERM");
    run.end().with(0);
    set_back(target, &backup);
    let stopped = pair.godwit(&["run"]).with(4);
    assert!(matches!(stopped.code().as_deref(), Some("GW4005" | "GW5001")), "{}", stopped.said());
    assert!(stopped.said().contains("--resync"), "{}", stopped.said());
    pair.godwit(&["run", "--resync", "--until", "consistent"]).with(0);
    pair.assert_same("SELECT id, md5(name) FROM item");
    pair.finish();
}
