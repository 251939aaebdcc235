//! Processes of the binary under test: their events are read as they come, and none is left behind.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use godwit_testkit::servers;
use serde_json::Value as Json;

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What every process of a test said, for the one who must find out why it failed.
#[derive(Clone, Default)]
pub struct Stories(Arc<Mutex<Vec<String>>>);

impl Stories {
    fn begin(&self, title: String) -> Story {
        let mut stories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stories.push(title);
        Story { stories: self.clone(), index: stories.len() - 1 }
    }

    /// The last few.
    pub fn tell(&self) -> String {
        const TOLD: usize = 4;
        let stories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stories[stories.len().saturating_sub(TOLD)..].join("\n")
    }
}

#[derive(Clone)]
struct Story {
    stories: Stories,
    index: usize,
}

impl Story {
    fn add(&self, line: &str) {
        // progress tells much and explains little
        if line.contains("\"event\":\"progress\"") {
            return;
        }
        let mut stories = self.stories.0.lock().unwrap_or_else(PoisonError::into_inner);
        let story = &mut stories[self.index];
        story.push_str("\n    ");
        story.push_str(line);
    }
}

pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: Vec<String>,
}

impl Ended {
    #[track_caller]
    pub fn with(self, status: i32) -> Self {
        assert_eq!(self.status.code(), Some(status), "{}\n{}", self.stdout, self.stderr.join("\n"));
        self
    }

    /// Whether it ended as at a failpoint.
    pub fn aborted(&self) -> bool {
        const SIGABRT: i32 = 6;
        self.status.signal() == Some(SIGABRT)
    }

    /// The code of the error that ended it.
    pub fn code(&self) -> Option<String> {
        self.events("error").last().and_then(|error| error["code"].as_str().map(str::to_owned))
    }

    pub fn events(&self, name: &str) -> Vec<Json> {
        self.stderr.iter().filter_map(|line| serde_json::from_str(line).ok()).filter(|event: &Json| event["event"] == name).collect()
    }

    pub fn said(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr.join("\n"))
    }
}

pub struct Godwit {
    child: Child,
    lines: Receiver<String>,
    stdout: Option<JoinHandle<String>>,
    seen: Vec<String>,
    story: Story,
    elsewhere: bool,
}

/// How to start the binary, besides what it is asked.
#[derive(Clone, Copy, Default)]
pub struct Circumstances<'a> {
    /// Added to its environment.
    pub variables: &'a [(&'a str, &'a str)],
    /// In a process space of its own, as on another machine; needs root. Takes no signal but the kill.
    pub elsewhere: bool,
    /// In the network space of this process; needs root.
    pub network_of: Option<u32>,
}

pub fn start(folder: &Path, arguments: &[&str], circumstances: Circumstances<'_>, stories: &Stories) -> Godwit {
    let Circumstances { variables, elsewhere, network_of } = circumstances;
    // dies with the thread that started it, even if that is killed
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some(process) = network_of {
        command.args(["nsenter", "--target", &process.to_string(), "--net"]);
    }
    if elsewhere {
        command.args(["unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]);
    }
    command.arg(env!("CARGO_BIN_EXE_godwit")).args(arguments).args(["--output", "json"]);
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(dump) = servers::tool(18, "pg_dump") {
        command.env("GODWIT_PG_DUMP", dump);
    }
    command.envs(variables.iter().copied());
    let mut child = command.spawn().unwrap();
    let story = stories.begin(format!("godwit {} {variables:?} (process {})", arguments.join(" "), child.id()));
    let (sender, lines) = channel();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let listener = story.clone();
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            listener.add(&line);
            let _ = sender.send(line);
        }
    });
    let mut out = child.stdout.take().unwrap();
    let stdout = std::thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).unwrap();
        text
    });
    Godwit { child, lines, stdout: Some(stdout), seen: Vec::new(), story, elsewhere }
}

impl Godwit {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Reads events up to one that fits.
    #[track_caller]
    pub fn wait_until(&mut self, what: &str, fits: impl Fn(&Json) -> bool) -> Json {
        match self.within(PATIENCE, fits) {
            Some(event) => event,
            None => panic!("no {what}"),
        }
    }

    /// Reads events up to one that fits; None if none comes in time, or the process ends before.
    pub fn within(&mut self, limit: Duration, fits: impl Fn(&Json) -> bool) -> Option<Json> {
        let deadline = Instant::now() + limit;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let event: Option<Json> = serde_json::from_str(&line).ok();
                    self.seen.push(line);
                    if let Some(event) = event.filter(&fits) {
                        return Some(event);
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    #[track_caller]
    pub fn wait_consistent(&mut self) {
        self.wait_until("event `consistent`", |event| event["event"] == "consistent");
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// `kill -9`, and the wait for its end.
    pub fn kill(mut self) {
        self.story.add("(killed by the test)");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        if self.elsewhere {
            // the process that waits for it goes first; what it says ends with itself
            self.lines.iter().for_each(drop);
        }
    }

    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// The most memory it ever held, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    #[track_caller]
    pub fn end(self) -> Ended {
        self.end_within(PATIENCE)
    }

    #[track_caller]
    pub fn end_within(mut self, limit: Duration) -> Ended {
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it did not end");
            // the death of a child gives no notice with a time limit
            std::thread::sleep(Duration::from_millis(5));
        };
        self.seen.extend(self.lines.iter());
        let stdout = self.stdout.take().unwrap().join().unwrap();
        self.story.add(&format!("({status})"));
        Ended { status, stdout, stderr: std::mem::take(&mut self.seen) }
    }
}

impl Drop for Godwit {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
