//! `innkeeper demo`: real parts on one machine, and a way to see them work.

pub mod cluster;

mod banner;
mod check;
mod files;
mod legacy;
mod seed;
mod stage;

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::log::Log;
use super::serve::stop_signal;
use super::{OutputFormat, fail, print};
use crate::sidecar::StartError;
use check::{Extent, Report, check};
use cluster::ClusterError;
use stage::{Choices, Stage};

/// The gateway's port, where it is free and no other is asked for.
const USUAL_PORT: u16 = 8080;

/// The admin listener's port, where it is free and no other is asked for.
const USUAL_ADMIN_PORT: u16 = 9901;

/// Start a private PostgreSQL, some tenants, a legacy application and a gateway before them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Drive the demo, swap its policy and plugin meanwhile, and exit: 0 if every answer was right.
    #[arg(long)]
    check: bool,
    /// The gateway's port; 0 picks a free one [default: 8080 if it is free].
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// The admin listener's port; 0 picks a free one [default: 9901 if it is free].
    #[arg(long, value_name = "PORT")]
    admin_port: Option<u16>,
    /// Put policy and plugin into this directory, and leave them there.
    #[arg(long, value_name = "DIRECTORY")]
    keep: Option<PathBuf>,
    /// With --check: how long requests are sent.
    #[arg(long, requires = "check", default_value = "12s", value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// With --check: stop after so many requests, once every kind of swap was seen.
    #[arg(long, requires = "check", value_name = "NUMBER")]
    requests: Option<NonZeroU64>,
    /// With --check: how the result is printed.
    #[arg(long, requires = "check", value_enum, default_value_t, value_name = "FORMAT")]
    format: OutputFormat,
}

/// Why the demo did not run.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error(transparent)]
    Postgres(#[from] ClusterError),
    #[error("the demo's rows: {0}")]
    Database(sqlx::Error),
    #[error("the demo's old application: {0}")]
    Legacy(io::Error),
    #[error("the demo's files: {0}")]
    Files(io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Runs the demo until it is told to stop, or the check until it is done.
pub async fn run(args: Args, log: &Log) -> ExitCode {
    let log = if args.check { quiet(log) } else { log.clone() };
    let access_log = match log.start() {
        Ok(started) => started,
        Err(error) => return fail(error),
    };
    let format = args.format;
    let outcome = async {
        let choices = Choices {
            port: args.port.unwrap_or_else(|| if args.check { 0 } else { usual(USUAL_PORT) }),
            admin_port: args
                .admin_port
                .unwrap_or_else(|| if args.check { 0 } else { usual(USUAL_ADMIN_PORT) }),
            keep: args.keep,
            access_log: !args.check,
        };
        let stage = Stage::start(choices, access_log).await?;
        if args.check {
            let report = check(&stage, Extent { duration: args.duration, requests: args.requests }).await?;
            stage.stop().await?;
            return Ok(Some(report));
        }
        print(&banner::banner(&stage));
        stop_signal().await;
        stage.stop().await?;
        Ok::<Option<Report>, DemoError>(None)
    };
    // What was started ends when the future that started it is dropped.
    let stopped = async {
        stop_signal().await;
        // The demo itself waits for the same signal, and stops in good order.
        if !args.check {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        outcome = outcome => match outcome {
            Ok(Some(report)) => conclude(&report, format),
            Ok(None) => ExitCode::SUCCESS,
            Err(error) => fail(error),
        },
        () = stopped => fail("the check was interrupted"),
    }
}

fn conclude(report: &Report, format: OutputFormat) -> ExitCode {
    match format {
        OutputFormat::Human => print(report.to_string().trim_end()),
        OutputFormat::Json => {
            print(&serde_json::to_string_pretty(report).expect("a report is made of texts and numbers"));
        }
    }
    if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The check publishes broken policies on purpose: unless more is asked for, what the reloader says
/// of them would only bury the result.
fn quiet(log: &Log) -> Log {
    let asked_for = log.filter != "info";
    Log { filter: if asked_for { log.filter.clone() } else { "off".into() }, format: log.format }
}

/// `port` where it is free, or 0.
fn usual(port: u16) -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_or(0, |_| port)
}
