//! Swapping the policy and the plugin on disk while requests run, and seeing that each took effect.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::tally::Progress;
use crate::address::ListenAddress;
use crate::cli::demo::files::{Edition, Files};

/// How long a swap may take until it is in force. Milliseconds are usual; a plugin has to be
/// compiled on a machine that is kept busy by the check itself.
const SWAP_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the admin listener is asked whether a swap is in force.
const STATUS_INTERVAL: Duration = Duration::from_millis(10);

/// How long each edition is left in force, for requests to meet it.
const PAUSE: Duration = Duration::from_millis(50);

/// What the swaps came to.
#[derive(Debug, Default)]
pub(super) struct Swaps {
    /// Policies that took effect.
    pub(super) policies: u64,
    /// Plugins that took effect.
    pub(super) plugins: u64,
    /// Broken policies that were refused.
    pub(super) refused: u64,
    /// From a write to its effect: the longest, for a policy whose plugin was not changed.
    pub(super) slowest_policy: Duration,
    /// The same for a plugin, which has to be compiled.
    pub(super) slowest_plugin: Duration,
    /// What did not happen.
    pub(super) failures: Vec<String>,
}

/// What the admin listener says of the policy in force.
#[derive(Debug, Deserialize)]
struct Status {
    generation: u64,
    last_attempt: Attempt,
}

#[derive(Debug, Deserialize)]
struct Attempt {
    error: Option<String>,
}

/// Swaps in turn until `stop`, or until a swap fails to take effect.
pub(super) async fn swap(
    files: &Files,
    client: &Client,
    admin: &ListenAddress,
    progress: &Progress,
    stop: CancellationToken,
) -> Swaps {
    let mut swaps = Swaps::default();
    let admin = Admin { client, address: admin };
    let mut edition = Edition::Blue;
    let mut build = 0;
    while !stop.is_cancelled() && swaps.failures.is_empty() {
        let outcome = async {
            edition = edition.next();
            let took = admin.replaced(|| files.write_policy(edition)).await?;
            swaps.slowest_policy = swaps.slowest_policy.max(took);
            swaps.policies += 1;
            progress.policies.fetch_add(1, Ordering::Relaxed);

            tokio::time::sleep(PAUSE).await;
            build += 1;
            let took = admin.replaced(|| files.write_plugin(build)).await?;
            swaps.slowest_plugin = swaps.slowest_plugin.max(took);
            swaps.plugins += 1;
            progress.plugins.fetch_add(1, Ordering::Relaxed);

            tokio::time::sleep(PAUSE).await;
            admin.refused(|| files.write_broken_policy()).await?;
            swaps.refused += 1;
            progress.refused.fetch_add(1, Ordering::Relaxed);
            Ok::<(), String>(())
        };
        if let Err(failure) = outcome.await {
            swaps.failures.push(failure);
        }
    }
    swaps
}

struct Admin<'a> {
    client: &'a Client,
    address: &'a ListenAddress,
}

impl Admin<'_> {
    /// Writes, and waits until a new generation is in force.
    async fn replaced(&self, write: impl FnOnce() -> io::Result<()>) -> Result<Duration, String> {
        let before = self.status().await?.generation;
        let started = Instant::now();
        write().map_err(|error| format!("writing a swap: {error}"))?;
        self.wait("a swap did not take effect", |status| {
            status.generation > before && status.last_attempt.error.is_none()
        })
        .await?;
        Ok(started.elapsed())
    }

    /// Writes, and waits until the mistake is reported and the generation is still the same.
    async fn refused(&self, write: impl FnOnce() -> io::Result<()>) -> Result<(), String> {
        let before = self.status().await?.generation;
        write().map_err(|error| format!("writing a broken policy: {error}"))?;
        self.wait("a broken policy was not reported", |status| status.last_attempt.error.is_some()).await?;
        let after = self.status().await?.generation;
        if after == before {
            return Ok(());
        }
        Err(format!("a broken policy took effect: generation {after} after {before}"))
    }

    async fn wait(&self, complaint: &str, arrived: impl Fn(&Status) -> bool) -> Result<(), String> {
        let deadline = Instant::now() + SWAP_TIMEOUT;
        loop {
            let status = self.status().await?;
            if arrived(&status) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("{complaint} within {} seconds: {status:?}", SWAP_TIMEOUT.as_secs()));
            }
            tokio::time::sleep(STATUS_INTERVAL).await;
        }
    }

    async fn status(&self) -> Result<Status, String> {
        let request = Request::get(format!("http://{}/policy", self.address))
            .body(Full::<Bytes>::default())
            .expect("the admin listener's address makes a URL");
        let (status, body) =
            self.client.send(request).await.map_err(|error| format!("the admin listener: {error}"))?;
        serde_json::from_slice(&body)
            .map_err(|error| format!("the admin listener answered {status} and no policy status: {error}"))
    }
}
