//! No space left under the change log: the task waits, and goes on when there is space again.

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
    let content = "y".repeat(100_000);
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
