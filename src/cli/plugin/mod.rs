//! `innkeeper plugin`: commands for plugin authors.

pub mod build;
mod contract;
mod language;

use std::process::ExitCode;

use super::fail;

/// Build plugins.
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
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    match &args.command {
        Command::Build(args) => match build::run(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(error),
        },
    }
}
