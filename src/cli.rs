//! The command line: one module a command, all of the same shape.

pub mod check;
pub mod completions;
pub mod demo;
pub mod doctor;
pub mod explain;
pub mod key;
pub mod log;
pub mod plugin;
pub mod schema;
pub mod serve;
mod systemd;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A tenant-routing sidecar: resolves every request to its tenant, then forwards it or runs it as
/// a query in that tenant's PostgreSQL schema.
#[derive(Debug, Parser)]
#[command(name = "innkeeper", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What is logged, as in RUST_LOG: `info`, `debug`, `innkeeper::plugin=trace`, …
    #[arg(
        long,
        global = true,
        env = "INNKEEPER_LOG",
        default_value = "info",
        value_name = "FILTER",
        value_parser = log::filter
    )]
    log: String,
    /// How logs and access records are written.
    #[arg(long, global = true, env = "INNKEEPER_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    log_format: crate::gateway::LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a policy, and reload it whenever its files change.
    Serve(serve::Args),
    /// Check policies and run their tests; exit 1 on any error.
    Check(check::Args),
    /// Tell what would become of a request, and why, without sending it.
    Explain(explain::Args),
    /// Attack a policy's databases as their own tenants would, and tell what leaks and what mends it.
    Doctor(doctor::Args),
    /// Start a private PostgreSQL, some tenants, a legacy application and a gateway before them.
    Demo(demo::Args),
    /// Begin, build, check, test and sign plugins.
    Plugin(plugin::Args),
    /// Make API keys, and show the public keys of assertions.
    Key(key::Args),
    /// Print the JSON Schema of the policy, for editors.
    Schema,
    /// Print completions for a shell.
    Completions(completions::Args),
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("the system gives a process its threads");
    let log = log::Log { filter: cli.log, format: cli.log_format };
    let status = runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => serve::run(args, &log).await,
            Command::Check(args) => check::run(&args).await,
            Command::Explain(args) => explain::run(args).await,
            Command::Doctor(args) => doctor::run(args).await,
            Command::Demo(args) => demo::run(args, &log).await,
            Command::Plugin(args) => plugin::run(&args).await,
            Command::Key(args) => key::run(args),
            Command::Schema => schema::run(),
            Command::Completions(args) => completions::run(&args),
        }
    });
    // What is under way aside, such as a plugin that is being compiled, is nobody's any more.
    runtime.shutdown_background();
    status
}

/// How a command prints its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    #[value(alias = "text")]
    Human,
    /// One JSON document, for scripts.
    Json,
}

/// Prints a command's result, which is what standard output is for.
#[expect(clippy::print_stdout, reason = "the result of a command")]
pub(crate) fn print(text: &str) {
    println!("{}", text.trim_end());
}

/// Tells what takes so long.
#[expect(clippy::print_stderr, reason = "the progress of a command")]
pub(crate) fn progress(what: impl std::fmt::Display) {
    eprintln!("{what}");
}

/// Tells why a command failed, and its exit status.
#[expect(clippy::print_stderr, reason = "the error of a command")]
pub(crate) fn fail(error: impl std::fmt::Display) -> ExitCode {
    eprintln!("innkeeper: {error}");
    ExitCode::FAILURE
}
