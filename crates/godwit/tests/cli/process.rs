//! Processes of the binary under test, never left behind.

use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

pub struct Ended {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    #[track_caller]
    pub fn with(self, status: i32) -> Self {
        assert_eq!(self.status, status, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// A process whose stderr is read line by line.
pub struct Godwit {
    child: Child,
    lines: Receiver<String>,
    stdout: Option<JoinHandle<String>>,
    seen: Vec<String>,
}

pub fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_godwit"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end.
pub fn godwit(folder: &Path, arguments: &[&str]) -> Ended {
    start(folder, arguments).end()
}

pub fn start(folder: &Path, arguments: &[&str]) -> Godwit {
    Godwit::of(command(folder, arguments))
}

impl Godwit {
    pub fn of(mut command: Command) -> Godwit {
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let mut stdout = child.stdout.take().unwrap();
        let stdout = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).unwrap();
            text
        });
        Godwit { child, lines, stdout: Some(stdout), seen: Vec::new() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Reads stderr up to a line that holds these words.
    #[track_caller]
    pub fn wait_for(&mut self, words: &str) {
        assert!(self.says(words), "{}", self.ended_early(&format!("before it said {words:?}")));
    }

    /// False if it ends before.
    #[track_caller]
    fn says(&mut self, words: &str) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => panic!("no {words:?} within {PATIENCE:?}: {:#?}", self.seen),
            }
            if self.seen.last().is_some_and(|line| line.contains(words)) {
                return true;
            }
        }
    }

    /// Everything that a process has said that should be alive.
    #[track_caller]
    fn ended_early(&mut self, when: &str) -> String {
        let status = self.wait();
        self.seen.extend(self.lines.iter());
        let stdout = self.stdout.take().map(|reader| reader.join().unwrap()).unwrap_or_default();
        format!("it ended {when}, with {status}; stderr:\n{}\nstdout:\n{stdout}", self.seen.join("\n"))
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// In the middle of its work.
    #[track_caller]
    pub fn kill(mut self) {
        let alive = self.child.try_wait().unwrap().is_none();
        assert!(alive, "{}", self.ended_early("before it was killed"));
        drop(self);
    }

    #[track_caller]
    pub fn end(mut self) -> Ended {
        let status = self.wait();
        self.seen.extend(self.lines.iter());
        let stdout = self.stdout.take().unwrap().join().unwrap();
        Ended { status: status.code().unwrap_or(-1), stdout, stderr: self.seen.join("\n") }
    }

    #[track_caller]
    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > deadline {
                self.seen.extend(self.lines.try_iter());
                panic!("it did not end: {:#?}", self.seen);
            }
            // the death of a child gives no notice with a time limit
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Godwit {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
