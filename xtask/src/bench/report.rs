//! What is written to docs/benchmarks.md. Remarks below the line `REMARKS` are a person's and are kept.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::arena::{Arena, SETTINGS};
use super::programs::{self, root};
use super::sizes::Sizes;
use super::{ROUNDS, machine};
use crate::Outcome;

const REMARKS: &str = "## Remarks";
/// Above this share of busy cores before a work its figures are said to be disturbed.
const QUIET: f64 = 0.1;

pub struct Measure {
    work: String,
    peer: String,
    ours: String,
    theirs: String,
    ratio: String,
    reach: String,
    goal: String,
    standing: Standing,
}

#[derive(Clone, Copy)]
enum Standing {
    Goal,
    Reach,
    Behind,
}

impl Measure {
    /// Times that are compared as theirs / ours.
    pub fn faster(work: &str, peer: &str, ours: Duration, theirs: Duration, reach: f64, goal: f64) -> Self {
        let ratio = theirs.as_secs_f64() / ours.as_secs_f64().max(1e-9);
        Measure {
            work: work.to_owned(),
            peer: peer.to_owned(),
            ours: seconds(ours),
            theirs: seconds(theirs),
            ratio: format!("{ratio:.2}x"),
            reach: format!("{reach}x"),
            goal: format!("{goal}x"),
            standing: standing(ratio >= goal, ratio >= reach),
        }
    }

    /// Changes per second, with native replication's beside it for comparison.
    pub fn rate(work: &str, changes: u64, ours: Duration, native: Duration, reach: f64, goal: f64) -> Self {
        let per_second = |time: Duration| changes as f64 / time.as_secs_f64().max(1e-9);
        let rate = per_second(ours);
        Measure {
            work: work.to_owned(),
            peer: "native logical replication, binary (for comparison)".to_owned(),
            ours: format!("{rate:.0} rows/s"),
            theirs: format!("{:.0} rows/s", per_second(native)),
            ratio: format!("{:.2}x", rate / per_second(native).max(1e-9)),
            reach: format!("{reach:.0} rows/s"),
            goal: format!("{goal:.0} rows/s"),
            standing: standing(rate >= goal, rate >= reach),
        }
    }

    pub fn delay(work: &str, ours: Duration, native: Duration, reach: Duration, goal: Duration) -> Self {
        let milliseconds = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
        Measure {
            work: work.to_owned(),
            peer: "native logical replication".to_owned(),
            ours: milliseconds(ours),
            theirs: milliseconds(native),
            ratio: format!("{:+.1} ms", (ours.as_secs_f64() - native.as_secs_f64()) * 1000.0),
            reach: milliseconds(reach),
            goal: milliseconds(goal),
            standing: standing(ours <= goal, ours <= reach),
        }
    }
}

fn standing(goal: bool, reach: bool) -> Standing {
    match (goal, reach) {
        (true, _) => Standing::Goal,
        (false, true) => Standing::Reach,
        (false, false) => Standing::Behind,
    }
}

pub struct Report {
    machine: String,
    versions: String,
    quick: bool,
    began: Instant,
    measures: Vec<Measure>,
    memory: Vec<(String, u64)>,
    notes: Vec<String>,
    /// The busiest that others were before any work.
    busy: f64,
}

impl Report {
    pub fn begin(arena: &Arena, quick: bool, sizes: &Sizes) -> Outcome<Self> {
        let pgcopydb = match &arena.programs.pgcopydb {
            Some(_) => "pgcopydb 0.10 (Debian)",
            None => "no pgcopydb",
        };
        let tools = programs::output(arena.tool("pg_dump").arg("--version"))?;
        let godwit = programs::output(std::process::Command::new(&arena.programs.godwit).arg("--version"))?;
        let versions = format!("{godwit}, PostgreSQL {} on both sides, {tools}, {pgcopydb}", arena.source.major());
        eprintln!("{} documents, pgbench scale {} in the load", sizes.load.documents, sizes.load.scale);
        Ok(Report {
            machine: machine::describe()?,
            versions,
            quick,
            began: Instant::now(),
            measures: Vec::new(),
            memory: Vec::new(),
            notes: Vec::new(),
            busy: 0.0,
        })
    }

    /// Called between works, while nothing of the benchmark runs.
    pub fn rest(&mut self) -> Outcome<()> {
        self.busy = self.busy.max(machine::busy()?);
        Ok(())
    }

    pub fn add(&mut self, measure: Measure) {
        eprintln!("{}: {} against {} ({}), {}", measure.work, measure.ours, measure.theirs, measure.peer, measure.ratio);
        self.measures.push(measure);
    }

    pub fn memory(&mut self, work: &str, bytes: u64) {
        eprintln!("{work}: peak {} MB", bytes / 1_000_000);
        self.memory.push((work.to_owned(), bytes));
    }

    pub fn note(&mut self, text: String) {
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    pub fn text(&self) -> String {
        let mut text = self.head();
        text += "\n| work | peer | Godwit | peer | ratio | reach | goal | |\n|---|---|---|---|---|---|---|---|\n";
        for measure in &self.measures {
            let Measure { work, peer, ours, theirs, ratio, reach, goal, standing } = measure;
            let standing = word(*standing);
            writeln!(text, "| {work} | {peer} | {ours} | {theirs} | {ratio} | {reach} | {goal} | {standing} |")
                .expect("a string takes everything");
        }
        text += "\n| Godwit's peak of resident memory (reach 256 MB, goal 128 MB) | | |\n|---|---|---|\n";
        for (work, bytes) in &self.memory {
            let standing = word(standing(*bytes <= 128 << 20, *bytes <= 256 << 20));
            writeln!(text, "| {work} | {} MB | {standing} |", bytes >> 20).expect("a string takes everything");
        }
        for note in &self.notes {
            writeln!(text, "\n{note}").expect("a string takes everything");
        }
        text
    }

    fn head(&self) -> String {
        let command = if self.quick { "cargo xtask bench --quick" } else { "cargo xtask bench" };
        let settings = SETTINGS.map(|(name, value)| format!("{name}={value}")).join(", ");
        let company = if self.busy > QUIET {
            format!(
                "**Taken beside other load**: up to {:.0} % of the cores were busy with something else before a work began. Read the ratios, not the times.",
                self.busy * 100.0
            )
        } else {
            "The machine did nothing else.".to_owned()
        };
        format!(
            "# Benchmarks\n\n`{command}` wrote this page. Godwit and its peers alternate in one run on the same two private servers \
             (fsync on, {settings}); each figure is the median of {ROUNDS} rounds (delays: the quantile over all of them), and after each work \
             Godwit's target is compared with the source by the count and the hashes of all rows. \
             A ratio above 1 says that Godwit is faster. What is timed, from where to where, is said in `xtask/src/bench`.\n\n\
             - Machine: {}; servers, Godwit and peers share it.\n- Versions: {}.\n- {company}\n- The run took {} minutes.\n",
            self.machine,
            self.versions,
            self.began.elapsed().as_secs().div_ceil(60)
        )
    }

    pub fn write(&self) -> Outcome<()> {
        let path: PathBuf = root().join("docs/benchmarks.md");
        let old = fs::read_to_string(&path).unwrap_or_default();
        let remarks = old.find(REMARKS).map_or(String::new(), |place| format!("\n{}", &old[place..]));
        fs::write(&path, format!("{}{remarks}", self.text()))?;
        eprintln!("written: {}", path.display());
        Ok(())
    }
}

fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Goal => "goal",
        Standing::Reach => "reached",
        Standing::Behind => "behind",
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
