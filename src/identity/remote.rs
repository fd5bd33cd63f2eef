//! Keys that are fetched, and kept fresh off the request path.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::fetch::{Client, Fetched};
use super::keys::Ring;
use crate::policy::{Issuer, KeySet, RemoteKeys};

/// How long a request waits for keys that are being fetched.
const PATIENCE: Duration = Duration::from_secs(3);

/// Fetches that unknown keys may ask for, at once and each period: anybody can write a `kid`.
const DEMANDS: (NonZeroU32, Duration) = (NonZeroU32::new(3).expect("not zero"), Duration::from_secs(10));

/// The soonest that a server's `Cache-Control` can have us come back.
const SOONEST: Duration = Duration::from_secs(10);

/// Waits after a failed fetch: the first, and the longest that doubling leads to.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// One issuer's fetched keys.
pub(super) struct Remote {
    state: Arc<State>,
    /// Ends with this value, and with it the fetching.
    fetching: OnceLock<AbortOnDropHandle<()>>,
}

struct State {
    issuer: Issuer,
    remote: RemoteKeys,
    /// Changes with the end of each fetch.
    published: watch::Sender<Published>,
    wanted: Notify,
    /// Whether a fetch is wanted and has not ended.
    is_wanted: AtomicBool,
    demands: DefaultDirectRateLimiter,
}

/// What is known after a number of fetches.
#[derive(Default)]
struct Published {
    fetches: u64,
    ring: Option<Arc<Ring>>,
}

impl Remote {
    pub(super) fn new(issuer: Issuer, remote: RemoteKeys) -> Self {
        let (burst, period) = DEMANDS;
        let quota = Quota::with_period(period).expect("a period above zero").allow_burst(burst);
        let state = State {
            issuer,
            remote,
            published: watch::Sender::default(),
            wanted: Notify::new(),
            is_wanted: AtomicBool::new(false),
            demands: RateLimiter::direct(quota),
        };
        Self { state: Arc::new(state), fetching: OnceLock::new() }
    }

    /// Begins to fetch.
    pub(super) fn start(&self) {
        self.fetching.get_or_init(|| {
            let state = Arc::clone(&self.state);
            AbortOnDropHandle::new(tokio::spawn(async move { state.keep_fresh().await }))
        });
    }

    /// The keys, if there are any by now; waits for the first fetch.
    pub(super) async fn ring(&self) -> Option<Arc<Ring>> {
        let is_first = {
            let published = self.state.published.borrow();
            if published.ring.is_some() {
                return published.ring.clone();
            }
            published.fetches == 0
        };
        if is_first && self.fetching.get().is_some() {
            let mut published = self.state.published.subscribe();
            let _ = timeout(PATIENCE, published.wait_for(|published| published.fetches > 0)).await;
        }
        self.state.published.borrow().ring.clone()
    }

    /// The keys after another fetch, for a token whose key is not among them; `None` where too many
    /// have asked for one of late. Who asks while one is wanted waits for that one.
    pub(super) async fn refreshed(&self) -> Option<Arc<Ring>> {
        self.fetching.get()?;
        let state = &self.state;
        let mut published = state.published.subscribe();
        if !state.is_wanted.load(Ordering::Acquire) {
            state.demands.check().ok()?;
            state.is_wanted.store(true, Ordering::Release);
            state.wanted.notify_one();
        }
        timeout(PATIENCE, published.changed()).await.ok()?.ok()?;
        published.borrow().ring.clone()
    }
}

impl State {
    async fn keep_fresh(&self) {
        let client = Client::new(self.remote.ca.as_deref());
        let mut fetched: Option<(Instant, KeySet)> = None;
        let mut ring = None;
        let mut backoff = BACKOFF.0;
        loop {
            let outcome = match &client {
                Ok(client) => client.fetch(&self.remote.url).await,
                Err(error) => Err(error.clone()),
            };
            let wait = match outcome {
                Ok(Fetched { keys, max_age }) => {
                    let same = fetched.as_ref().is_some_and(|(_, before)| *before == keys);
                    // A ring knows tokens, which the same keys need not verify again.
                    if !same || ring.is_none() {
                        ring = Some(Ring::of_set(&keys, &self.issuer));
                    }
                    fetched = Some((Instant::now(), keys));
                    backoff = BACKOFF.0;
                    let refresh = self.remote.refresh;
                    max_age.map_or(refresh, |age| age.max(SOONEST).min(refresh))
                }
                Err(error) => {
                    tracing::warn!(url = %self.remote.url, "keys cannot be fetched: {error}");
                    let wait = backoff;
                    backoff = (backoff * 2).min(BACKOFF.1);
                    let left = fetched.as_ref().map_or(Duration::ZERO, |(at, _)| self.left(*at));
                    if left.is_zero() && ring.take().is_some() {
                        tracing::error!(url = %self.remote.url, "the keys are too old: no token is believed until they can be fetched");
                    }
                    if left.is_zero() { wait } else { wait.min(left) }
                }
            };
            self.is_wanted.store(false, Ordering::Release);
            self.published.send_modify(|published| {
                published.fetches += 1;
                published.ring.clone_from(&ring);
            });
            let _ = timeout(wait, self.wanted.notified()).await;
        }
    }

    /// How long keys that were fetched then may still be used.
    fn left(&self, fetched: Instant) -> Duration {
        let end = fetched + self.remote.refresh + self.remote.stale_if_error;
        end.saturating_duration_since(Instant::now())
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("url", &self.state.remote.url).finish_non_exhaustive()
    }
}
