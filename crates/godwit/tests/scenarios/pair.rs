//! A source, a target and a task between them: what every scenario is played on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use godwit_testkit::servers::{MySqlVersion, Postgres, PostgresOptions};
use tempfile::TempDir;

use crate::mysql::MySqlDatabase;
use crate::postgres::{PostgresDatabase, Server};
use crate::process::{self, Circumstances, Ended, Godwit, PATIENCE, Stories};
use crate::sqlite::SqliteFile;
use crate::store::{Store, Tier};

const TASK_FILE: &str = "task.yaml";

/// Played by the least role in every run.
const ALWAYS: &[&str] = &[
    "unique_values_that_swap_in_one_transaction",
    "keys_that_change",
    "a_new_column_stops_the_task_and_shifts_nothing",
    "planted_differences_are_found_and_mended",
    "a_lost_position_is_mended_in_place",
    "append_keeps_rows",
    "truncate_empties_once",
];
/// Those that have a source of their own, or another privilege to begin with, are left out.
const READ_ONLY: &[&str] = &[
    "unique_values_that_swap_in_one_transaction",
    "keys_that_change",
    "what_a_savepoint_takes_back_stays_away",
    "planted_differences_are_found_and_mended",
    "a_lost_position_is_mended_in_place",
    "append_keeps_rows",
];

fn at_target(tier: Tier) -> Tier {
    if tier == Tier::ReadOnly { Tier::Managed } else { tier }
}

pub struct Pair {
    pub source: Arc<dyn Store>,
    pub target: Arc<dyn Store>,
    pub name: String,
    pub stories: Stories,
    folder: TempDir,
    /// The roles of the task have their rights.
    granted: AtomicBool,
}

impl Pair {
    pub fn sqlite() -> Option<Pair> {
        let folder = tempfile::tempdir().unwrap();
        let source = SqliteFile::create(&folder.path().join("source.db"));
        let target = SqliteFile::absent(&folder.path().join("target.db"));
        Some(Pair::of(name(), folder, Arc::new(source), Arc::new(target)))
    }

    /// From MariaDB 10.11 to 11.8, on servers that others use too.
    pub fn mariadb() -> Option<Pair> {
        Pair::mariadb_of_tier(Tier::Full)
    }

    pub fn mariadb_of_tier(tier: Tier) -> Option<Pair> {
        let name = name();
        let source = MySqlDatabase::on_shared(MySqlVersion::MariaDb10_11, &name, tier)?;
        let target = MySqlDatabase::on_shared(MySqlVersion::MariaDb11_8, &name, tier)?;
        Some(Pair::of(name, tempfile::tempdir().unwrap(), Arc::new(source), Arc::new(target)))
    }

    /// On two servers that may be stopped and killed.
    pub fn mariadb_on_own(tier: Tier) -> Option<Pair> {
        let name = name();
        let source = MySqlDatabase::on_own(MySqlVersion::MariaDb10_11, &name, tier)?;
        let target = MySqlDatabase::on_own(MySqlVersion::MariaDb11_8, &name, tier)?;
        Some(Pair::of(name, tempfile::tempdir().unwrap(), Arc::new(source), Arc::new(target)))
    }

    /// From PostgreSQL 15 to 18, on servers that others use too.
    pub fn postgres() -> Option<Pair> {
        Pair::postgres_on_shared(15, 18)
    }

    pub fn postgres_if_long(first: u16, second: u16) -> Option<Pair> {
        is_long().then(|| Pair::postgres_on_shared(first, second)).flatten()
    }

    pub fn postgres_on_shared(first: u16, second: u16) -> Option<Pair> {
        Pair::postgres_of_tier(first, second, Tier::Full)
    }

    /// Of these rights at the source; the target's role of a read-only source is a managed one.
    pub fn postgres_of_tier(first: u16, second: u16, tier: Tier) -> Option<Pair> {
        let name = name();
        let source = PostgresDatabase::on_shared(first, &format!("{name}_source"), tier)?;
        let target = PostgresDatabase::on_shared(second, &format!("{name}_target"), at_target(tier))?;
        Some(Pair::of(name, tempfile::tempdir().unwrap(), Arc::new(source), Arc::new(target)))
    }

    /// On two servers that may be stopped and killed.
    pub fn postgres_on_own(first: u16, second: u16, tier: Tier) -> Option<Pair> {
        Pair::postgres_with((first, PostgresOptions::default()), (second, PostgresOptions::default()), tier)
    }

    /// The same, on servers with settings of their own.
    pub fn postgres_with(source: (u16, PostgresOptions), target: (u16, PostgresOptions), tier: Tier) -> Option<Pair> {
        let name = name();
        let start = |(major, options): (u16, PostgresOptions)| Postgres::start(major, &options.with_fsync()).map(Arc::new);
        let source = PostgresDatabase::on(Server::Own(start(source)?), "source", tier);
        let target = PostgresDatabase::on(Server::Own(start(target)?), "target", at_target(tier));
        Some(Pair::of(name, tempfile::tempdir().unwrap(), Arc::new(source), Arc::new(target)))
    }

    /// For one of the scenarios that are played on several tiers. The least role plays a few of them always, and all of
    /// them, on two pairs of versions, in a long run.
    pub fn of_scenario(scenario: &str, first: u16, second: u16, tier: Tier) -> Option<Pair> {
        let always = first != second && ALWAYS.contains(&scenario);
        let fits = match tier {
            // its task names the source as its target, which has another role
            Tier::Full | Tier::Managed => scenario != "source_and_target_may_not_be_the_same",
            Tier::ReadOnly => READ_ONLY.contains(&scenario),
        };
        let is_long = std::env::var_os("GODWIT_TEST_LONG").is_some();
        (fits && (is_long || always || tier == Tier::ReadOnly)).then(|| Pair::postgres_of_tier(first, second, tier))?
    }

    fn of(name: String, folder: TempDir, source: Arc<dyn Store>, target: Arc<dyn Store>) -> Pair {
        let granted = AtomicBool::new(!source.must_be_granted() && !target.must_be_granted());
        let pair = Pair { source, target, name, stories: Stories::default(), folder, granted };
        pair.write_task("");
        pair
    }

    /// The test runs the statements itself.
    pub fn that_grants_itself(self) -> Pair {
        self.granted.store(true, Ordering::SeqCst);
        self
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn state(&self) -> PathBuf {
        self.path().join("godwit-state").join(&self.name)
    }

    /// The task, with more keys.
    pub fn write_task(&self, more: &str) {
        self.write_whole_task(&format!("source: {}\ntarget: {}\n{more}", self.source_of_task(), self.target.url()));
    }

    /// The same between these two addresses of its stores.
    pub fn write_task_between(&self, source: &str, target: &str, more: &str) {
        self.write_whole_task(&format!("source: {source}\ntarget: {target}\n{more}"));
    }

    pub fn write_task_existing(&self, existing: &str) {
        let (source, target) = (self.source_of_task(), self.target.url());
        self.write_whole_task(&format!("source: {source}\ntarget: {{url: '{target}', existing: {existing}}}\n"));
    }

    fn source_of_task(&self) -> String {
        format!("{{url: '{}', {}}}", self.source.url(), self.source.source_options())
    }

    /// What `check --grants` prints as required is run by a superuser, word for word; and what it prints then, where a role
    /// saw nothing before.
    fn grant(&self) {
        for _ in 0..2 {
            let printed =
                process::start(self.path(), &["check", TASK_FILE, "--grants"], Circumstances::default(), &self.stories).end().with(0);
            let printed: serde_json::Value = serde_json::from_str(&printed.stdout).unwrap();
            let statements = |side: &str| -> Vec<String> {
                let list = printed[side].as_array().into_iter().flatten();
                list.map(|statement| statement.as_str().unwrap().to_owned()).collect()
            };
            self.source.grant(&statements("source"));
            self.target.grant(&statements("target"));
            if printed["complete"] == true {
                self.granted.store(true, Ordering::SeqCst);
                return;
            }
        }
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
        if !self.granted.load(Ordering::SeqCst) {
            self.grant();
        }
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

/// Whether tests may take hours together.
pub fn is_long() -> bool {
    std::env::var_os("GODWIT_TEST_LONG").is_some()
}

/// Slots and origins belong to a whole server: each task there has a name of its own.
fn name() -> String {
    format!("t{:08x}", fastrand::u32(..))
}

/// Plays it if it belongs to this run.
pub fn play(name: &str, first: u16, second: u16, tier: Tier, scenario: fn(&Pair)) {
    if let Some(pair) = Pair::of_scenario(name, first, second, tier) {
        scenario(&pair);
    }
}

/// The same for MariaDB.
pub fn play_mariadb_managed(name: &str, scenario: fn(&Pair)) {
    if ALWAYS.contains(&name) || is_long() {
        Pair::mariadb_of_tier(Tier::Managed).iter().for_each(scenario);
    }
}

/// One test per engine of each scenario, and one per tier of rights.
macro_rules! on_every_engine {
    ($($scenario:ident),* $(,)?) => {
        mod sqlite {
            $(#[test] fn $scenario() { if let Some(pair) = $crate::pair::Pair::sqlite() { super::$scenario(&pair); } })*
        }
        mod mariadb {
            $(#[test] fn $scenario() { if let Some(pair) = $crate::pair::Pair::mariadb() { super::$scenario(&pair); } })*
        }
        mod mariadb_managed {
            $(#[test] fn $scenario() { $crate::pair::play_mariadb_managed(stringify!($scenario), super::$scenario); })*
        }
        mod postgres {
            $(#[test] fn $scenario() { if let Some(pair) = $crate::pair::Pair::postgres() { super::$scenario(&pair); } })*
        }
        mod postgres_managed {
            $(#[test] fn $scenario() { $crate::pair::play(stringify!($scenario), 15, 18, $crate::store::Tier::Managed, super::$scenario); })*
        }
        mod postgres_18_managed {
            $(#[test] fn $scenario() { $crate::pair::play(stringify!($scenario), 18, 18, $crate::store::Tier::Managed, super::$scenario); })*
        }
        mod postgres_read_only {
            $(#[test] fn $scenario() { $crate::pair::play(stringify!($scenario), 15, 18, $crate::store::Tier::ReadOnly, super::$scenario); })*
        }
        // one version on both sides, the oldest, and the versions between, in a long run
        mod postgres_18 {
            $(#[test] fn $scenario() { if let Some(pair) = $crate::pair::Pair::postgres_if_long(18, 18) { super::$scenario(&pair); } })*
        }
        mod postgres_14_to_18 {
            $(#[test] fn $scenario() { if let Some(pair) = $crate::pair::Pair::postgres_if_long(14, 18) { super::$scenario(&pair); } })*
        }
        mod postgres_14_to_16 {
            $(#[test] fn $scenario() { if let Some(pair) = $crate::pair::Pair::postgres_if_long(14, 16) { super::$scenario(&pair); } })*
        }
        mod postgres_16_to_17 {
            $(#[test] fn $scenario() { if let Some(pair) = $crate::pair::Pair::postgres_if_long(16, 17) { super::$scenario(&pair); } })*
        }
        mod postgres_17_to_18 {
            $(#[test] fn $scenario() { if let Some(pair) = $crate::pair::Pair::postgres_if_long(17, 18) { super::$scenario(&pair); } })*
        }
    };
}
pub(crate) use on_every_engine;
