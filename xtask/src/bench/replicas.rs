//! One source database with two replicas, Godwit's and the native one, that are fed the same backlogs.
//!
//! A backlog is made while both are stopped. Then each is started in turn and timed until the row that was committed last
//! is seen in its target; Godwit from the start of its process, native replication from `ENABLE`.

use std::time::Duration;

use super::ROUNDS;
use super::arena::{Arena, assert_equal};
use super::godwit::Task;
use super::native::Native;
use super::sql::Sql;
use super::timing::{alternate, median};
use crate::Outcome;

const FINISH_LINE: &str = "CREATE TABLE finish_line (id bigint PRIMARY KEY, note text NOT NULL)";

pub struct Replicas<'a> {
    arena: &'a Arena,
    name: String,
    pub source: Sql,
    pub task: Task,
    pub native: Option<Native>,
    crossed: i64,
}

/// Medians of the rounds.
pub struct Race {
    pub godwit: Duration,
    /// Zero without a native replica.
    pub native: Duration,
    /// Of all rounds.
    pub peak: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Runner {
    Godwit,
    Native,
}

impl<'a> Replicas<'a> {
    /// `make` fills the source before either replica begins.
    pub fn begin(arena: &'a Arena, name: &str, with_native: bool, make: impl FnOnce(&Sql) -> Outcome<()>) -> Outcome<Self> {
        let source = Arena::empty_database(&arena.source, name)?;
        make(&source)?;
        source.run(FINISH_LINE)?;
        source.run("VACUUM ANALYZE")?;
        Arena::empty_database(&arena.target, &godwit_database(name))?;
        let task = Task::new(arena, &format!("bench_{name}"), name, &godwit_database(name), 4)?;
        task.run(Some("consistent"))?.end()?;
        let native = with_native.then(|| Native::subscribe(arena, name, &native_database(name))).transpose()?;
        Ok(Replicas { arena, name: name.to_owned(), source, task, native, crossed: 0 })
    }

    /// Makes the backlog of each round and lets the replicas catch up with it one after the other.
    pub fn race(&mut self, rounds: usize, mut backlog: impl FnMut(&Sql, usize) -> Outcome<()>) -> Outcome<Race> {
        let (mut godwit, mut native, mut peak) = (Vec::new(), Vec::new(), 0);
        for round in 0..rounds {
            backlog(&self.source, round)?;
            self.cross()?;
            for runner in alternate([Runner::Godwit, Runner::Native], round) {
                match runner {
                    Runner::Godwit => {
                        let (took, bytes) = self.run_godwit()?;
                        godwit.push(took);
                        peak = peak.max(bytes);
                    }
                    Runner::Native if self.native.is_some() => native.push(self.run_native()?),
                    Runner::Native => {}
                }
            }
            eprintln!("  {} round {}: godwit {:.2?}, native {:.2?}", self.name, round + 1, godwit.last(), native.last());
        }
        Ok(Race { godwit: median(&godwit), native: median(&native), peak })
    }

    pub fn three_rounds(&mut self, backlog: impl FnMut(&Sql, usize) -> Outcome<()>) -> Outcome<Race> {
        self.race(ROUNDS, backlog)
    }

    /// The last commit of a backlog.
    fn cross(&mut self) -> Outcome<()> {
        self.crossed += 1;
        self.source.run(&format!("CHECKPOINT; INSERT INTO finish_line VALUES ({}, 'end of a backlog')", self.crossed))
    }

    fn crossed(&self) -> String {
        format!("SELECT EXISTS (SELECT FROM finish_line WHERE id = {})", self.crossed)
    }

    fn run_godwit(&self) -> Outcome<(Duration, u64)> {
        let target = Sql::connect(&self.arena.target.url(&godwit_database(&self.name)))?;
        let run = self.task.run(Some("caught-up"))?;
        let began = run.began;
        let seen = target.until(&self.crossed())?;
        Ok((seen - began, run.end()?.peak))
    }

    fn run_native(&self) -> Outcome<Duration> {
        let native = self.native.as_ref().ok_or("no native replica")?;
        let target = Sql::connect(&self.arena.target.url(&native_database(&self.name)))?;
        let began = native.enable()?;
        let seen = target.until(&self.crossed())?;
        native.disable()?;
        Ok(seen - began)
    }

    pub fn godwit_target(&self) -> Outcome<Sql> {
        Sql::connect(&self.arena.target.url(&godwit_database(&self.name)))
    }

    pub fn native_target(&self) -> Outcome<Sql> {
        Sql::connect(&self.arena.target.url(&native_database(&self.name)))
    }

    /// Compares, then removes everything. Both replicas are stopped.
    pub fn end(self) -> Outcome<()> {
        assert_equal(&self.source, &self.godwit_target()?).map_err(|problem| format!("godwit: {problem}"))?;
        if self.native.is_some() {
            assert_equal(&self.source, &self.native_target()?).map_err(|problem| format!("native: {problem}"))?;
        }
        self.task.clean()?;
        if let Some(native) = self.native {
            native.remove()?;
            Arena::drop_database(&self.arena.target, &native_database(&self.name))?;
        }
        Arena::drop_database(&self.arena.target, &godwit_database(&self.name))?;
        drop(self.source);
        Arena::drop_database(&self.arena.source, &self.name)
    }
}

fn godwit_database(name: &str) -> String {
    format!("{name}_godwit")
}

fn native_database(name: &str) -> String {
    format!("{name}_native")
}
