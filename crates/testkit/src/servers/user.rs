//! Who runs the servers: oneself, or as root the unprivileged `nobody`.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) id: u32,
    group: u32,
}

impl User {
    pub(super) fn current() -> Self {
        let process = fs::metadata("/proc/self").expect("/proc is mounted");
        Self { id: process.uid(), group: process.gid() }
    }

    /// The one that servers run as.
    pub(super) fn for_servers() -> Self {
        let current = Self::current();
        if current.is_root() { Self::nobody() } else { current }
    }

    pub(super) fn is_root(self) -> bool {
        self.id == 0
    }

    /// Hands a file or folder (not what is in it) to this user.
    pub(super) fn own(self, path: &Path) -> io::Result<()> {
        if self == Self::current() {
            return Ok(());
        }
        std::os::unix::fs::chown(path, Some(self.id), Some(self.group))
    }

    /// Makes a command run as this user, without supplementary groups.
    pub(super) fn run(self, command: &mut Command) -> &mut Command {
        if self == Self::current() {
            return command;
        }
        command.uid(self.id).gid(self.group)
    }

    fn nobody() -> Self {
        let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
        let line = users.lines().find_map(|line| line.strip_prefix("nobody:")).expect("a user `nobody`");
        let mut fields = line.split(':').skip(1);
        let mut number = || fields.next().and_then(|field| field.parse().ok()).expect("a number in /etc/passwd");
        Self { id: number(), group: number() }
    }
}

/// As `chown` takes it.
impl fmt::Display for User {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.id, self.group)
    }
}
