//! All processes of one server, found by the name that each carries in its command line.
//!
//! The postmaster's command line has the data folder, its children's titles have the cluster name, and both contain
//! the server's name. Parents would not do: children outlive a killed postmaster. Working folders neither: a root
//! without the right to trace may not see them.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
pub(super) enum Signal {
    Stop,
    Continue,
    /// PostgreSQL's fast shutdown.
    Interrupt,
    /// PostgreSQL's immediate shutdown.
    Quit,
    Kill,
}

#[derive(Debug)]
pub(super) struct ServerProcesses {
    name: String,
}

impl ServerProcesses {
    pub(super) fn named(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    /// Zombies have no command line and do not count.
    pub(super) fn list(&self) -> Vec<u32> {
        let entries = fs::read_dir("/proc").expect("/proc is mounted").flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter(|id| self.contains(*id)).collect()
    }

    pub(super) fn signal_all(&self, signal: Signal) {
        self::signal(signal, &self.list());
    }

    /// Kills until none is left.
    pub(super) fn kill(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let left = self.list();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "processes of {} survive SIGKILL: {left:?}", self.name);
            self::signal(Signal::Kill, &left);
            thread::sleep(Duration::from_millis(2)); // the death of another's child gives no notice
        }
    }

    fn contains(&self, id: u32) -> bool {
        let is_server = fs::read(format!("/proc/{id}/comm")).is_ok_and(|name| name == b"postgres\n");
        is_server && fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|line| contains(&line, self.name.as_bytes()))
    }
}

fn contains(line: &[u8], name: &[u8]) -> bool {
    line.windows(name.len()).any(|window| window == name)
}

/// Processes that are gone already are passed over.
pub(super) fn signal(signal: Signal, ids: &[u32]) {
    if ids.is_empty() {
        return;
    }
    let name = match signal {
        Signal::Stop => "STOP",
        Signal::Continue => "CONT",
        Signal::Interrupt => "INT",
        Signal::Quit => "QUIT",
        Signal::Kill => "KILL",
    };
    let mut shell = Command::new("/bin/sh"); // its own `kill`: the program may be missing
    shell.args(["-c", "for id do kill -s \"$0\" \"$id\"; done", name]).args(ids.iter().map(u32::to_string));
    shell.stderr(Stdio::null()).status().expect("/bin/sh starts");
}
