//! `innkeeper completions`: what a shell completes.

use std::io;
use std::process::ExitCode;

use clap::CommandFactory;

use super::Cli;

/// Print completions for a shell.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell.
    shell: clap_complete::Shell,
}

/// Prints them to standard output.
pub fn run(args: &Args) -> ExitCode {
    clap_complete::generate(args.shell, &mut Cli::command(), "innkeeper", &mut io::stdout());
    ExitCode::SUCCESS
}
