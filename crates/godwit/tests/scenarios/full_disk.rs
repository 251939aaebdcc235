//! No space left, under the change log or under the target: the task waits, and goes on when there is space again.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::pair::{Pair, on_every_engine};

on_every_engine!(a_full_disk_under_the_change_log_loses_nothing);

/// A small file system of its own, gone with the value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path) -> Option<SmallDisk> {
        std::fs::create_dir(path).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(path).output();
        mounted.is_ok_and(|mounted| mounted.status.success()).then(|| SmallDisk(path.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn a_full_disk_under_the_change_log_loses_nothing(pair: &Pair) {
    let Some(disk) = SmallDisk::mount(&pair.path().join("small")) else {
        eprintln!("SKIPPED: a file system of its own needs the right to mount: a_full_disk_under_the_change_log");
        return;
    };
    pair.source.run(&["CREATE TABLE item (id INTEGER PRIMARY KEY, content TEXT)"]);
    let state = disk.0.join("state").to_string_lossy().into_owned();
    let mut run = pair.start(&["run", "--state", &state]);
    run.wait_consistent();
    let hog = disk.0.join("hog");
    let _ = std::fs::write(&hog, vec![0; 8 << 20]); // as much as there is room for
    let content = "y".repeat(60_000);
    for id in 0..4 {
        pair.source.run(&[&format!("INSERT INTO item VALUES ({id}, '{content}')")]);
    }
    run.wait_until("a retry for want of space", |event| event["event"] == "retrying");
    std::fs::remove_file(&hog).unwrap();
    pair.await_same("SELECT id, content FROM item");
    assert!(!run.is_over());
    run.kill();
    pair.godwit(&["finish", "--yes", "--state", &state]).with(0);
    pair.assert_same("SELECT id, content FROM item");
}

#[test]
fn a_full_disk_under_the_target_loses_nothing() {
    let Some(pair) = Pair::postgres() else { return };
    let Some(disk) = SmallDisk::mount(&pair.path().join("small")) else {
        eprintln!("SKIPPED: a file system of its own needs the right to mount: a_full_disk_under_the_target");
        return;
    };
    let reach = Command::new("chmod").args(["711"]).arg(pair.path()).status().unwrap();
    assert!(reach.success());
    let room = disk.0.join("room");
    std::fs::create_dir(&room).unwrap();
    // the servers' user, whoever that is
    let data = std::fs::metadata(pair.target.server().unwrap().data_dir()).unwrap();
    std::os::unix::fs::chown(&room, Some(data.uid()), Some(data.gid())).unwrap();
    let space = format!("small_{}", pair.name);
    pair.target.run(&[
        &format!("CREATE TABLESPACE {space} LOCATION '{}'", room.display()),
        &format!("CREATE TABLE item (id INTEGER PRIMARY KEY USING INDEX TABLESPACE {space}, content TEXT) TABLESPACE {space}"),
    ]);
    pair.source.run(&["CREATE TABLE item (id INTEGER PRIMARY KEY, content TEXT)"]);
    let mut run = pair.running();
    let hog = disk.0.join("hog");
    let _ = std::fs::write(&hog, vec![0; 8 << 20]);
    for number in 0..20 {
        pair.source.run(&[&format!(
            "INSERT INTO item SELECT i, repeat(md5(i::text), 20) FROM generate_series({}, {}) i",
            number * 100,
            number * 100 + 99
        )]);
    }
    run.wait_until("a retry for want of space", |event| {
        event["event"] == "retrying" && event["what"].as_str().is_some_and(|what| what.contains("GW2013"))
    });
    std::fs::remove_file(&hog).unwrap();
    pair.await_same("SELECT id, content FROM item");
    assert!(!run.is_over());
    run.kill();
    pair.finish();
    pair.target.run(&["DROP TABLE item", &format!("DROP TABLESPACE {space}")]);
}

#[test]
fn a_state_folder_that_cannot_be_written_is_said_so_and_nothing_is_changed() {
    let Some(pair) = Pair::sqlite() else { return };
    pair.source.run(&["CREATE TABLE item (id INTEGER PRIMARY KEY)"]);
    let Some(disk) = SmallDisk::mount(&pair.path().join("small")) else {
        eprintln!("SKIPPED: a file system of its own needs the right to mount: a_state_folder_that_cannot_be_written");
        return;
    };
    assert!(Command::new("mount").args(["-o", "remount,ro"]).arg(&disk.0).status().unwrap().success());
    let refused = pair.godwit(&["run", "--state", &disk.0.join("state").to_string_lossy()]).with(4);
    assert_eq!(refused.code().as_deref(), Some("GW5005"));
    assert_eq!(pair.source.traces(&pair.name), Vec::<String>::new());
    assert_eq!(pair.target.traces(&pair.name), Vec::<String>::new());
}
