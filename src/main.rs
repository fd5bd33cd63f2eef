//! The `innkeeper` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    innkeeper::cli::run()
}
