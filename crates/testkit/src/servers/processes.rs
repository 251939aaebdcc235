//! All processes of one server, found by the name that each carries in its command line.
//!
//! The postmaster's command line has the data folder, its children's titles have the cluster name, and both contain
//! the server's name. Parents would not do: children outlive a killed postmaster. Working folders neither: a root
//! without the right to trace may not see them.
//!
//! MariaDB and MySQL are one process each, a script that becomes the loader of their own C library, whose name the process
//! keeps; the command line has the program and the data folder.

use std::fs;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The end of a process is looked for, not awaited.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug)]
pub(super) enum Signal {
    Stop,
    Continue,
    /// PostgreSQL's fast shutdown.
    Interrupt,
    /// PostgreSQL's immediate shutdown.
    Quit,
    /// The orderly end of MariaDB and MySQL.
    Terminate,
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
        // Of one program only, where programs are many: someone's client may have the server's folder in its line too.
        let Ok(comm) = fs::read(format!("/proc/{id}/comm")) else { return false };
        let programs: &[&str] = match comm.as_slice() {
            b"postgres\n" | b"mariadbd\n" | b"mysqld\n" => &[""],
            b"ld-linux-x86-64\n" => &["/sbin/mariadbd\0", "/sbin/mysqld\0"],
            _ => return false,
        };
        let Ok(line) = fs::read(format!("/proc/{id}/cmdline")) else { return false };
        contains(&line, &self.name) && programs.iter().any(|program| contains(&line, program))
    }
}

fn contains(line: &[u8], part: &str) -> bool {
    part.is_empty() || line.windows(part.len()).any(|window| window == part.as_bytes())
}

/// `None` if it has not ended by then.
pub(super) fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        thread::sleep(LOOK_INTERVAL);
    }
    None
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
        Signal::Terminate => "TERM",
        Signal::Kill => "KILL",
    };
    let mut shell = Command::new("/bin/sh"); // its own `kill`: the program may be missing
    shell.args(["-c", "for id do kill -s \"$0\" \"$id\"; done", name]).args(ids.iter().map(u32::to_string));
    shell.stderr(Stdio::null()).status().expect("/bin/sh starts");
}
