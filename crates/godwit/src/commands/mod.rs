//! One file per command.

mod check;
mod clean;
mod explain;
mod finish;
mod plan;
mod run;
mod verify;

mod alone;
mod question;
mod session;

use crate::answer::Answer;
use crate::cli::{Cli, Command};
use crate::demo;
use crate::failure::Failure;

pub async fn execute(cli: Cli) -> Result<Answer, Failure> {
    let output = cli.output;
    Ok(match cli.command {
        Command::Run(args) => run::run(args, output).await?,
        Command::Check(args) => check::check(args).await?,
        Command::Plan(args) => plan::plan(args).await?,
        Command::Verify(args) => verify::verify(args, output).await?,
        Command::Finish(args) => finish::finish(args, output).await?,
        Command::Clean(args) => clean::clean(args, output).await?,
        Command::Explain(args) => explain::explain(&args)?,
        Command::Demo => demo::demo(output).await?,
    })
}
