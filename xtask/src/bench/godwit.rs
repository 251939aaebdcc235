//! Godwit as a contestant: a task file, a process, what it says and how much memory it takes.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::arena::Arena;
use super::programs;
use crate::Outcome;

/// The kernel keeps the peak, but only while the process lives.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(1800);

pub struct Task {
    program: PathBuf,
    file: PathBuf,
    state: PathBuf,
    pg_dump: PathBuf,
}

impl Task {
    /// A migration of `database` at the source to `target` at the target.
    pub fn new(arena: &Arena, name: &str, database: &str, target: &str, connections: u32) -> Outcome<Self> {
        let file = arena.folder.path().join(format!("{name}.yaml"));
        let state = arena.folder.path().join(format!("state-{name}"));
        let text = format!(
            "name: {name}\nmode: migrate\nsource: {}\ntarget: {}\nlimits: {{connections: {{source: {connections}, target: {connections}}}}}\n",
            arena.source.url(database),
            arena.target.url(target)
        );
        fs::write(&file, text)?;
        Ok(Task { program: arena.programs.godwit.clone(), file, state, pg_dump: arena.programs.tools.join("pg_dump") })
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--output", "json", verb]).arg(&self.file).arg("--state").arg(&self.state).env("GODWIT_PG_DUMP", &self.pg_dump);
        command
    }

    pub fn run(&self, until: Option<&str>) -> Outcome<Run> {
        let mut command = self.command("run");
        if let Some(goal) = until {
            command.args(["--until", goal]);
        }
        Run::start(command)
    }

    /// Removes what Godwit left on both sides.
    pub fn clean(&self) -> Outcome<()> {
        programs::run(self.command("clean").arg("--yes"))
    }
}

/// A process under way.
pub struct Run {
    child: Child,
    pub began: Instant,
    said: Arc<Mutex<Vec<(Instant, String)>>>,
    peak: Arc<AtomicU64>,
    watchers: Vec<JoinHandle<()>>,
}

pub struct Finished {
    pub began: Instant,
    said: Vec<(Instant, String)>,
    /// Of the resident memory, in bytes.
    pub peak: u64,
}

impl Run {
    fn start(mut command: Command) -> Outcome<Self> {
        let began = Instant::now();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take().ok_or("no stderr")?;
        let said = Arc::new(Mutex::new(Vec::new()));
        let peak = Arc::new(AtomicU64::new(0));
        let (heard, highest, id) = (said.clone(), peak.clone(), child.id());
        let listen = move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lock(&heard).push((Instant::now(), line));
            }
        };
        let measure = move || {
            while let Some(bytes) = resident_peak(id) {
                highest.store(bytes, Ordering::Relaxed);
                thread::sleep(LOOK_INTERVAL);
            }
        };
        Ok(Run { child, began, said, peak, watchers: vec![thread::spawn(listen), thread::spawn(measure)] })
    }

    /// Waits until it says this event.
    pub fn wait_for(&mut self, event: &str) -> Outcome<Instant> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(moment) = moment_of(&lock(&self.said), |line| line["event"] == event) {
                return Ok(moment);
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("godwit ended with {status} before `{event}`:\n{}", self.last_words()).into());
            }
            thread::sleep(LOOK_INTERVAL);
        }
        Err(format!("godwit did not say `{event}` within {PATIENCE:?}").into())
    }

    /// Waits for its end by itself.
    pub fn end(mut self) -> Outcome<Finished> {
        let status = self.child.wait()?;
        for watcher in self.watchers.drain(..) {
            watcher.join().map_err(|_| "a watcher died")?;
        }
        if !status.success() {
            return Err(format!("godwit ended with {status}:\n{}", self.last_words()).into());
        }
        let said = std::mem::take(&mut *lock(&self.said));
        Ok(Finished { began: self.began, said, peak: self.peak.load(Ordering::Relaxed) })
    }

    /// A clean stop.
    pub fn stop(self) -> Outcome<Finished> {
        programs::run(Command::new("kill").args(["-TERM", &self.child.id().to_string()]))?;
        self.end()
    }

    fn last_words(&self) -> String {
        let said = lock(&self.said);
        said[said.len().saturating_sub(8)..].iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // on a failure of the benchmark only: else it has ended
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Finished {
    /// From the start to the first time it said so.
    pub fn until(&self, event: &str) -> Outcome<Duration> {
        Ok(self.moment(event, |line| line["event"] == event)? - self.began)
    }

    /// The data phase alone: from the word that the load begins to the word that the next phase does.
    pub fn load_phase(&self) -> Outcome<Duration> {
        let phase = |name: &'static str| move |line: &Value| line["event"] == "phase" && line["phase"] == name;
        Ok(self.moment("catch-up", phase("catch-up"))? - self.moment("load", phase("load"))?)
    }

    fn moment(&self, name: &str, is_it: impl Fn(&Value) -> bool) -> Outcome<Instant> {
        moment_of(&self.said, is_it).ok_or_else(|| format!("godwit never said `{name}`").into())
    }
}

fn moment_of(said: &[(Instant, String)], is_it: impl Fn(&Value) -> bool) -> Option<Instant> {
    let parsed = said.iter().filter_map(|(moment, line)| Some((*moment, serde_json::from_str(line).ok()?)));
    parsed.into_iter().find(|(_, line)| is_it(line)).map(|(moment, _)| moment)
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn resident_peak(id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}
