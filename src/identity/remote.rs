//! Keys that are fetched, and kept fresh off the request path.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::fetch::{Client, Fetched};
use super::keys::Ring;
use crate::policy::{Issuer, RemoteKeys};

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
    ring: ArcSwapOption<Ring>,
    /// How many fetches have ended.
    ended: watch::Sender<u64>,
    wanted: Notify,
    /// Whether a fetch is wanted and has not ended.
    is_wanted: AtomicBool,
    demands: DefaultDirectRateLimiter,
}

impl Remote {
    pub(super) fn new(issuer: Issuer, remote: RemoteKeys) -> Self {
        let (burst, period) = DEMANDS;
        let quota = Quota::with_period(period).expect("a period above zero").allow_burst(burst);
        let state = State {
            issuer,
            remote,
            ring: ArcSwapOption::empty(),
            ended: watch::Sender::new(0),
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
        if let Some(ring) = self.state.ring.load_full() {
            return Some(ring);
        }
        let mut ended = self.state.ended.subscribe();
        if self.fetching.get().is_some() && *ended.borrow_and_update() == 0 {
            let _ = timeout(PATIENCE, ended.changed()).await;
        }
        self.state.ring.load_full()
    }

    /// The keys after another fetch, for a token whose key is not among them; `None` where too many
    /// have asked for one of late. Who asks while one is wanted waits for that one.
    pub(super) async fn refreshed(&self) -> Option<Arc<Ring>> {
        self.fetching.get()?;
        let state = &self.state;
        let mut ended = state.ended.subscribe();
        if !state.is_wanted.load(Ordering::Acquire) {
            state.demands.check().ok()?;
            state.is_wanted.store(true, Ordering::Release);
            state.wanted.notify_one();
        }
        timeout(PATIENCE, ended.changed()).await.ok()?.ok()?;
        state.ring.load_full()
    }
}

impl State {
    async fn keep_fresh(&self) {
        let client = Client::new(self.remote.ca.as_deref());
        let mut fetched: Option<Instant> = None;
        let mut backoff = BACKOFF.0;
        loop {
            let outcome = match &client {
                Ok(client) => client.fetch(&self.remote.url).await,
                Err(error) => Err(error.clone()),
            };
            let wait = match outcome {
                Ok(Fetched { keys, max_age }) => {
                    self.ring.store(Some(Ring::of_set(&keys, &self.issuer)));
                    fetched = Some(Instant::now());
                    backoff = BACKOFF.0;
                    let refresh = self.remote.refresh;
                    max_age.map_or(refresh, |age| age.max(SOONEST).min(refresh))
                }
                Err(error) => {
                    tracing::warn!(url = %self.remote.url, "keys cannot be fetched: {error}");
                    let wait = backoff;
                    backoff = (backoff * 2).min(BACKOFF.1);
                    wait.min(self.forget_if_stale(fetched))
                }
            };
            self.is_wanted.store(false, Ordering::Release);
            self.ended.send_modify(|ended| *ended += 1);
            let _ = timeout(wait, self.wanted.notified()).await;
        }
    }

    /// Drops keys that are too old to go on with, and says how long the others may.
    fn forget_if_stale(&self, fetched: Option<Instant>) -> Duration {
        let Some(fetched) = fetched else { return Duration::MAX };
        let end = fetched + self.remote.refresh + self.remote.stale_if_error;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() && self.ring.swap(None).is_some() {
            tracing::error!(url = %self.remote.url, "the keys are too old: no token is believed until they can be fetched");
        }
        if left.is_zero() { Duration::MAX } else { left }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("url", &self.state.remote.url).finish_non_exhaustive()
    }
}
