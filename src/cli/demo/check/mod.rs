//! `innkeeper demo --check`: drives the demo as its clients would, swaps policy and plugin
//! meanwhile, and counts every answer that is not exactly what it must be.

mod cases;
mod client;
mod expected;
mod report;
mod swaps;
mod tally;

use std::io::{self, IsTerminal as _, Write as _};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::DemoError;
use super::seed::{TENANTS, count_floors};
use super::stage::Stage;
use cases::{Case, cases};
use client::Client;
use expected::Verdict;
pub(super) use report::Report;
use tally::{Progress, Tally};

/// Clients that send at the same time, each one request after another.
const CLIENTS: usize = 48;

/// How often the line of progress is written anew.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// How much is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    /// How long requests are sent at most.
    pub(super) duration: Duration,
    /// After how many requests to stop earlier, where every kind of swap has been seen by then.
    pub(super) requests: Option<NonZeroU64>,
}

/// Runs the check against a demo that is up.
pub(super) async fn check(stage: &Stage, extent: Extent) -> Result<Report, DemoError> {
    let before = count_floors(&stage.postgres).await.map_err(DemoError::Database)?;
    let cases: Arc<[Case]> = cases(stage.gateway).into();
    let client = Client::new(CLIENTS);
    let progress = Arc::new(Progress::default());
    let stop = CancellationToken::new();
    let started = Instant::now();

    let mut workers = JoinSet::new();
    for worker in 0..CLIENTS {
        // Neighbours start at different cases, so that all kinds run beside each other at once.
        let first = worker * cases.len() / CLIENTS;
        workers.spawn(work(client.clone(), Arc::clone(&cases), first, Arc::clone(&progress), stop.clone()));
    }
    let swapping = swaps::swap(&stage.files, &client, &stage.admin, &progress, stop.clone());
    let watching = watch(extent, started, &progress, &stop);
    let (swaps, ()) = tokio::join!(swapping, watching);
    let mut tally = Tally::default();
    while let Some(finished) = workers.join_next().await {
        tally.merge(finished.expect("a worker neither panics nor is cancelled"));
    }
    let took = started.elapsed();

    let after = count_floors(&stage.postgres).await.map_err(DemoError::Database)?;
    for ((tenant, before), after) in TENANTS.iter().zip(before).zip(after) {
        let written = tally.written.get(tenant.id).copied().unwrap_or(0);
        if after != before + written {
            tally.fail(format!(
                "{}: {written} rows were acknowledged, and {} are there",
                tenant.id,
                after.saturating_sub(before)
            ));
        }
    }
    for failure in &swaps.failures {
        tally.fail(failure.clone());
    }
    if swaps.failures.is_empty() && !progress.every_swap_was_seen() {
        tally.fail("not every kind of swap took effect in time: give the check a longer --duration".into());
    }
    Ok(Report::new(tally, &swaps, took))
}

async fn work(
    client: Client,
    cases: Arc<[Case]>,
    first: usize,
    progress: Arc<Progress>,
    stop: CancellationToken,
) -> Tally {
    let mut tally = Tally::default();
    for case in cases.iter().cycle().skip(first) {
        if stop.is_cancelled() {
            break;
        }
        let started = Instant::now();
        let verdict = match client.send(case.request.clone()).await {
            Ok((status, body)) => case.expected.judge(status.as_u16(), &body),
            Err(error) => Verdict::Failed(error.to_string()),
        };
        progress.count(&verdict);
        tally.count(case, verdict, started.elapsed());
    }
    tally
}

/// Ends the check when it is long enough, and shows how far it is where someone looks on.
async fn watch(extent: Extent, started: Instant, progress: &Progress, stop: &CancellationToken) {
    let shown = io::stderr().is_terminal();
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    loop {
        ticks.tick().await;
        if shown {
            // Progress is a courtesy: a terminal that went away must not fail the check.
            let _ = write!(io::stderr(), "\r\x1b[K{progress}");
        }
        let enough = extent.requests.is_some_and(|requests| progress.requests() >= requests.get())
            && progress.every_swap_was_seen();
        if enough || started.elapsed() >= extent.duration {
            break;
        }
    }
    if shown {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
    stop.cancel();
}
