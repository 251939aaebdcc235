//! The benchmark: Godwit and its peers, alternating, on the same two private servers, medians of three rounds.
//!
//! `arena` holds the servers, `godwit` and `native` and `copy` are the contestants, `load`, `backlog`, `latency`,
//! `memory` and `growth` the works, `report` what is written down. Every work ends with a comparison of what arrived: a fast copy that
//! is not equal counts as a failure.

mod arena;
mod backlog;
mod copy;
mod godwit;
mod growth;
mod latency;
mod load;
mod machine;
mod memory;
mod native;
mod programs;
mod replicas;
mod report;
mod sizes;
mod sql;
mod timing;

use arena::Arena;
use report::Report;
use sizes::Sizes;

use crate::Outcome;

const WORKS: [&str; 9] = ["load", "data", "backlog", "bulk", "service", "latency", "memory", "bytes", "tables"];
/// The median of three shrugs off one disturbed round.
const ROUNDS: usize = 3;

pub struct Options {
    quick: bool,
    only: Vec<String>,
}

impl Options {
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Options { quick: false, only: Vec::new() };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--only" => options.only.push(work(rest.next())?),
                _ => return Err(crate::USAGE.to_owned()),
            }
        }
        Ok(options)
    }

    fn wants(&self, work: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|there| there == work)
    }
}

fn work(name: Option<&String>) -> Result<String, String> {
    let known = name.filter(|name| WORKS.contains(&name.as_str()));
    known.cloned().ok_or_else(|| format!("--only takes one of {}", WORKS.join(", ")))
}

pub fn run(options: Options) -> Outcome<()> {
    let sizes = if options.quick { Sizes::quick() } else { Sizes::full() };
    let programs = programs::gather()?;
    let arena = Arena::start(programs)?;
    let mut report = Report::begin(&arena, options.quick, &sizes)?;
    for work in WORKS.into_iter().filter(|work| options.wants(work)) {
        report.rest()?;
        match work {
            "load" => load::whole(&arena, &sizes, &mut report)?,
            "data" => load::data(&arena, &sizes, &mut report)?,
            "backlog" => backlog::pgbench(&arena, &sizes, &mut report)?,
            "bulk" => backlog::bulk(&arena, &sizes, &mut report)?,
            "service" => backlog::service(&arena, &sizes, &mut report)?,
            "latency" => latency::measure(&arena, &sizes, &mut report)?,
            "bytes" => growth::bytes(&arena, &sizes, &mut report)?,
            "tables" => growth::tables(&arena, &sizes, &mut report)?,
            _ => memory::one_large_transaction(&arena, &sizes, &mut report)?,
        }
    }
    print!("{}", report.text());
    if options.only.is_empty() {
        report.write()?;
    }
    Ok(())
}
