//! `cargo xtask bench`: how fast Godwit is beside its peers, on this machine.

mod bench;

use std::error::Error;
use std::process::ExitCode;

/// Whatever goes wrong ends the run with one sentence; nothing here is worth handling.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const USAGE: &str = "\
cargo xtask bench [--quick] [--only WORK]...

  --quick       small sizes, under 15 minutes instead of hours
  --only WORK   only this work (repeatable); prints, and leaves docs/benchmarks.md alone
                load, data, backlog, bulk, service, latency, memory";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((command, rest)) if command == "bench" => bench::Options::parse(rest).map_or_else(|problem| Err(problem.into()), bench::run),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}
