//! `innkeeper plugin`: commands for plugin authors.

pub mod build;
mod contract;
mod language;
pub mod record;
pub mod test;

use std::process::ExitCode;

use super::fail;

/// Build and test plugins.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Build a plugin's project, and write the component and its hash.
    Build(build::BuildArgs),
    /// Record what a plugin decides on live traffic, as cases for `innkeeper plugin test`.
    Record(record::RecordArgs),
    /// Run cases against a plugin, and show what it decides differently.
    Test(test::TestArgs),
}

/// Runs the command.
pub async fn run(args: &Args) -> ExitCode {
    match &args.command {
        Command::Build(args) => match build::run(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(error),
        },
        Command::Record(args) => record::run(args).await,
        Command::Test(args) => test::run(args).await,
    }
}
