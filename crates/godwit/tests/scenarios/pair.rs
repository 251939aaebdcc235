//! A source, a target and a task between them: what every scenario is played on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use godwit_testkit::servers::{Postgres, PostgresOptions};
use tempfile::TempDir;

use crate::postgres::{PostgresDatabase, Server};
use crate::process::{self, Circumstances, Ended, Godwit, PATIENCE, Stories};
use crate::sqlite::SqliteFile;
use crate::store::Store;

const TASK_FILE: &str = "task.yaml";

pub struct Pair {
    pub source: Arc<dyn Store>,
    pub target: Arc<dyn Store>,
    pub name: String,
    pub stories: Stories,
    folder: TempDir,
}

impl Pair {
    pub fn sqlite() -> Option<Pair> {
        let folder = tempfile::tempdir().unwrap();
        let source = SqliteFile::create(&folder.path().join("source.db"));
        let target = SqliteFile::absent(&folder.path().join("target.db"));
        Some(Pair::of(name(), folder, Arc::new(source), Arc::new(target)))
    }

    /// From PostgreSQL 15 to 18, on servers that others use too.
    pub fn postgres() -> Option<Pair> {
        Pair::postgres_on_shared(15, 18)
    }

    pub fn postgres_on_shared(first: u16, second: u16) -> Option<Pair> {
        let name = name();
        let source = PostgresDatabase::on_shared(first, &format!("{name}_source"))?;
        let target = PostgresDatabase::on_shared(second, &format!("{name}_target"))?;
        Some(Pair::of(name, tempfile::tempdir().unwrap(), Arc::new(source), Arc::new(target)))
    }

    /// On two servers that may be stopped and killed.
    pub fn postgres_on_own(first: u16, second: u16) -> Option<Pair> {
        let name = name();
        let start = |major| Postgres::start(major, &PostgresOptions::default().with_fsync()).map(Arc::new);
        let source = PostgresDatabase::on(Server::Own(start(first)?), "source");
        let target = PostgresDatabase::on(Server::Own(start(second)?), "target");
        Some(Pair::of(name, tempfile::tempdir().unwrap(), Arc::new(source), Arc::new(target)))
    }

    fn of(name: String, folder: TempDir, source: Arc<dyn Store>, target: Arc<dyn Store>) -> Pair {
        let pair = Pair { source, target, name, stories: Stories::default(), folder };
        pair.write_task("");
        pair
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn state(&self) -> PathBuf {
        self.path().join("godwit-state").join(&self.name)
    }

    /// The task, with more keys.
    pub fn write_task(&self, more: &str) {
        self.write_whole_task(&format!("source: {}\ntarget: {}\n{more}", self.source.url(), self.target.url()));
    }

    pub fn write_task_existing(&self, existing: &str) {
        self.write_whole_task(&format!("source: {}\ntarget: {{url: '{}', existing: {existing}}}\n", self.source.url(), self.target.url()));
    }

    pub fn write_whole_task(&self, rest: &str) {
        std::fs::write(self.path().join(TASK_FILE), format!("name: {}\nmode: migrate\n{rest}", self.name)).unwrap();
    }

    /// Runs a command on the task to its end.
    pub fn godwit(&self, command: &[&str]) -> Ended {
        self.start(command).end()
    }

    pub fn start(&self, command: &[&str]) -> Godwit {
        self.start_in(command, Circumstances::default())
    }

    pub fn start_with(&self, command: &[&str], variables: &[(&str, &str)]) -> Godwit {
        self.start_in(command, Circumstances { variables, ..Circumstances::default() })
    }

    /// The first word is the command; the task file follows it.
    pub fn start_in(&self, command: &[&str], circumstances: Circumstances<'_>) -> Godwit {
        let mut arguments = vec![command[0], TASK_FILE];
        arguments.extend(&command[1..]);
        process::start(self.path(), &arguments, circumstances, &self.stories)
    }

    /// A run that has said that it is consistent.
    #[track_caller]
    pub fn running(&self) -> Godwit {
        let mut run = self.start(&["run"]);
        run.wait_consistent();
        run
    }

    /// The same text gives the same rows on both sides.
    #[track_caller]
    pub fn assert_same(&self, select: &str) {
        self.assert_rows(select, select);
    }

    #[track_caller]
    pub fn assert_rows(&self, at_source: &str, at_target: &str) {
        let (source, target) = (self.source.sorted(at_source), self.target.sorted(at_target));
        let missing: Vec<_> = source.iter().filter(|row| target.binary_search(row).is_err()).take(5).collect();
        let surplus: Vec<_> = target.iter().filter(|row| source.binary_search(row).is_err()).take(5).collect();
        assert_eq!((source.len(), &missing, &surplus), (target.len(), &Vec::new(), &Vec::new()), "{at_source} | {at_target}");
    }

    /// Waits until the run has brought the target to where the source is. A store gives no notice, so it is looked at.
    #[track_caller]
    pub fn await_rows(&self, at_source: &str, at_target: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.source.sorted(at_source) != self.target.sorted(at_target) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.assert_rows(at_source, at_target);
    }

    #[track_caller]
    pub fn await_same(&self, select: &str) {
        self.await_rows(select, select);
    }

    /// Finishes; then nothing of Godwit's is left anywhere.
    #[track_caller]
    pub fn finish(&self) {
        self.godwit(&["finish", "--yes"]).with(0);
        self.assert_no_traces();
    }

    #[track_caller]
    pub fn assert_no_traces(&self) {
        assert_eq!(self.source.traces(&self.name), Vec::<String>::new());
        assert_eq!(self.target.traces(&self.name), Vec::<String>::new());
        assert!(!self.state().exists(), "the state folder is left");
    }

    fn log_tail(&self) -> String {
        const LINES: usize = 40;
        let log = std::fs::read_to_string(self.state().join("godwit.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}\n-- the log file ends with:\n{}", self.stories.tell(), self.log_tail());
        }
    }
}

/// Slots and origins belong to a whole server: each task there has a name of its own.
fn name() -> String {
    format!("t{:08x}", fastrand::u32(..))
}

/// One test per engine of each scenario.
macro_rules! on_every_engine {
    ($($scenario:ident),* $(,)?) => {
        mod sqlite {
            $(#[test] fn $scenario() { if let Some(pair) = $crate::pair::Pair::sqlite() { super::$scenario(&pair); } })*
        }
        mod postgres {
            $(#[test] fn $scenario() { if let Some(pair) = $crate::pair::Pair::postgres() { super::$scenario(&pair); } })*
        }
    };
}
pub(crate) use on_every_engine;
