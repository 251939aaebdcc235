//! The process that outlives this one just long enough to clean up after it (see `watcher.sh`).

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

#[derive(Debug)]
pub(super) struct Watcher {
    process: Child,
}

impl Watcher {
    /// To be called before the server starts, so that there is no moment without a watch.
    pub(super) fn over(folder: &Path) -> Self {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", include_str!("watcher.sh")]).current_dir("/");
        // In a process group of its own: a Ctrl-C is not for it.
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut process = shell.spawn().expect("/bin/sh starts");
        let pipe = process.stdin.as_mut().expect("the pipe asked for");
        writeln!(pipe, "{}", folder.display()).expect("the watcher listens");
        Self { process }
    }

    /// The server is stopped and its owner removes the folder.
    pub(super) fn dismiss(&mut self) {
        if let Some(mut pipe) = self.process.stdin.take() {
            let _ = writeln!(pipe, "done"); // a watcher that is gone needs no dismissal
        }
        let _ = self.process.wait();
    }
}
