//! What can be asked on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Moves live databases without stopping the people who use them.
#[derive(Debug, Parser)]
#[command(name = "godwit", version, max_term_width = 110, arg_required_else_help = true)]
pub struct Cli {
    /// How results (stdout) and progress (stderr) are written
    #[arg(long, value_enum, default_value_t, global = true)]
    pub output: Output,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Text,
    /// One JSON object per line, with a version
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a task in the foreground; the same command goes on after a stop or a crash
    Run(Run),
    /// Look for what stands in the task's way; changes nothing
    Check(Check),
    /// Show what a task would do; changes nothing
    Plan(Plan),
    /// Compare source and target while both are in use
    Verify(Verify),
    /// End a migration: drain, make what waited, verify, remove what Godwit left
    Finish(Finish),
    /// Give a task up: remove everything Godwit made on both sides
    Clean(Clean),
    /// Explain a field of the task file (target.existing) or an error code (GW2001)
    Explain(Explain),
    /// Move a small shop between two SQLite files, live, and prove it; files in ./godwit-demo
    Demo,
}

/// Which task, and where its state lies.
#[derive(Args, Clone, Debug)]
pub struct Place {
    /// The task file
    pub task: PathBuf,
    /// Where the change log lies [default: ./godwit-state/NAME]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct Run {
    #[command(flatten)]
    pub place: Place,
    /// End with status 0 as soon as this holds
    #[arg(long, value_enum, value_name = "GOAL")]
    pub until: Option<Goal>,
    /// Make the target equal again in place, after a position was lost
    #[arg(long)]
    pub resync: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Goal {
    /// Every table loaded, indexed, and a true past state of the source
    Consistent,
    /// Consistent, and less than a second behind
    CaughtUp,
}

#[derive(Args, Debug)]
pub struct Check {
    #[command(flatten)]
    pub place: Place,
    /// Print the statements that give the roles what the task needs: SQL for an administrator, both sides
    #[arg(long)]
    pub grants: bool,
}

#[derive(Args, Debug)]
pub struct Plan {
    #[command(flatten)]
    pub place: Place,
    /// Write the target's DDL to this file
    #[arg(long, value_name = "FILE")]
    pub sql: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct Verify {
    #[command(flatten)]
    pub place: Place,
    /// Copy the rows that differ anew to the target
    #[arg(long)]
    pub repair: bool,
}

#[derive(Args, Debug)]
pub struct Finish {
    #[command(flatten)]
    pub place: Place,
    /// Writers have stopped: do not ask
    #[arg(long)]
    pub yes: bool,
    /// Shut users out of writing to the source's tables first
    #[arg(long)]
    pub read_only_source: bool,
}

#[derive(Args, Debug)]
pub struct Clean {
    #[command(flatten)]
    pub place: Place,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

#[derive(Args, Debug)]
pub struct Explain {
    /// A field of the task file or an error code; without it, all fields are listed
    pub topic: Option<String>,
    /// Print the task file's JSON Schema, for editors and other programs
    #[arg(long, conflicts_with = "topic")]
    pub json_schema: bool,
}
