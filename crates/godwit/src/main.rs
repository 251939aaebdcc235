//! The godwit binary: a command line around the pipeline.
//!
//! `cli` says what can be asked, `commands` answers, `wiring` turns a task file into a job of the pipeline, `progress`
//! shows it at work, `control` lets other processes speak to a run, `answer` and `failure` are what a command ends with.

mod cli;

mod answer;
mod failure;
mod values;

mod logging;
mod signal;
mod state;
mod wiring;

mod progress;

mod control;
mod traces;
mod work;

mod commands;
mod demo;

use std::process::ExitCode;

use clap::Parser as _;

/// Every thread that allocates gets a heap of its own from glibc, and what one of them has freed stays with it: a task of
/// thousands of tables took half as much memory again.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
fn share_one_heap() {
    // SAFETY: it is asked for a known parameter, before there is a second thread
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

fn main() -> ExitCode {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    share_one_heap();
    let cli = cli::Cli::parse();
    let output = cli.output;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => {
            let error = godwit_model::Error::internal("the process could not set itself up").caused_by(cause);
            return ExitCode::from(failure::print(&error.into(), output));
        }
    };
    let status = match runtime.block_on(commands::execute(cli)) {
        Ok(answer) => answer.print(output),
        Err(failure) => failure::print(&failure, output),
    };
    // what is left on other threads is worth nothing any more
    runtime.shutdown_background();
    ExitCode::from(status)
}
