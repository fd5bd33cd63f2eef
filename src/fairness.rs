//! Holds each tenant to its limits: how often it asks, how much it moves, how many of its requests
//! are under way. Tenants without limits are not even looked up. Whoever is refused all the time, for a
//! limit or by a plugin that fails, is answered later.

mod account;
mod brake;
mod bucket;
mod pace;

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Response, StatusCode};
use tokio::time::Instant;

use crate::body::Body;
use crate::error::{Code, Refusal};
use crate::telemetry::{Metrics, PluginLabel};
use crate::tenant::{Limits, Quota, Tenant, TenantId};

use account::{Account, Over, Place};
use brake::Brake;
use bucket::Level;
use pace::Paced;

/// Parts that accounts are spread over, so that tenants seldom wait for each other's look-up.
const SHARDS: usize = 32;

/// Accounts in a shard before idle ones are first looked for.
const FIRST_SWEEP: usize = 64;

/// What a client of a full tenant is told to wait: a place is free as soon as any request ends.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The quota policies of a server (draft-ietf-httpapi-ratelimit-headers-10, section 3).
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// What is left of them (the same, section 4).
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The accounts of all tenants that have limits. There is one in a process: it outlives policies,
/// so that a reload forgives no debt.
pub struct Fairness {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    /// Refusals for limits that tenants met, and those that come of plugins which fail.
    limited: Brake<TenantId>,
    failed: Brake<Arc<str>>,
    /// What accounts count time from.
    started: Instant,
    metrics: Arc<Metrics>,
}

struct Shard {
    accounts: HashMap<TenantId, Arc<Account>>,
    sweep_at: usize,
}

/// The proof that a request was within its tenant's limits. It occupies one of the tenant's places
/// until its last clone is dropped.
#[derive(Clone, Default)]
pub struct Pass(Option<Arc<Inside>>);

/// A request of a tenant with limits.
struct Inside {
    account: Arc<Account>,
    limits: Arc<Limits>,
    /// What the request left of the tenant's requests, where they are counted.
    level: Option<Level>,
    waited: Duration,
    started: Instant,
    _place: Place,
}

impl Fairness {
    /// Accounts, all of them empty.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let shard = || Mutex::new(Shard { accounts: HashMap::new(), sweep_at: FIRST_SWEEP });
        Self {
            shards: std::array::from_fn(|_| shard()),
            hasher: RandomState::new(),
            limited: Brake::new(),
            failed: Brake::new(),
            started: Instant::now(),
            metrics,
        }
    }

    /// Lets a request of `tenant` in, at once or after its turn in the tenant's queue. Dropping the
    /// future leaves the queue.
    ///
    /// # Errors
    /// `tenant-limited`: 429 where the tenant asks too often or moved too much, 503 where too many
    /// of its requests are under way.
    pub async fn enter(&self, tenant: &Tenant) -> Result<Pass, Refusal> {
        let Some(limits) = counted(tenant) else { return Ok(Pass(None)) };
        let account = self.account(&tenant.id, limits);
        match self.enter_account(account, limits).await {
            Ok(pass) => Ok(pass),
            Err(over) => {
                // On the heap, or every request would have room for it.
                Box::pin(self.hold_back(&tenant.id)).await;
                Err(self.refuse(over, limits))
            }
        }
    }

    /// Waits with a refusal for a limit that the tenant met: for nothing where there are few, and the
    /// longer the more there are, up to five seconds.
    pub async fn hold_back(&self, tenant: &TenantId) {
        let wait = self.limited.count(tenant, self.started.elapsed());
        if !wait.is_zero() {
            self.metrics.tenant_held_back.inc();
            tokio::time::sleep(wait).await;
        }
    }

    /// The same with a refusal that comes of a plugin which failed, and until `deadline` at the latest:
    /// when the plugin itself would have had to answer.
    pub async fn hold_back_failed(&self, plugin: &Arc<str>, deadline: Instant) {
        let time = deadline.saturating_duration_since(Instant::now());
        let wait = self.failed.count(plugin, self.started.elapsed()).min(time);
        if !wait.is_zero() {
            let label = PluginLabel { plugin: Arc::clone(plugin) };
            self.metrics.plugin_refused_late.get_or_create(&label).inc();
            tokio::time::sleep(wait).await;
        }
    }

    /// How many tenants have an account now.
    pub fn accounts(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).accounts.len()).sum()
    }

    async fn enter_account(&self, account: Arc<Account>, limits: &Arc<Limits>) -> Result<Pass, Over> {
        let level = account.count(limits, self.started.elapsed())?;
        let (place, waited) = match account.take_place() {
            Some(place) => (place, Duration::ZERO),
            None => {
                let begun = Instant::now();
                let place = account.wait_for_place(limits, &self.metrics.tenant_queue).await;
                self.metrics.tenant_wait.observe(begun.elapsed().as_secs_f64());
                (place?, begun.elapsed())
            }
        };
        let limits = Arc::clone(limits);
        let inside = Inside { account, limits, level, waited, started: self.started, _place: place };
        Ok(Pass(Some(Arc::new(inside))))
    }

    fn account(&self, tenant: &TenantId, limits: &Arc<Limits>) -> Arc<Account> {
        let which = self.hasher.hash_one(tenant) % SHARDS as u64;
        let which = usize::try_from(which).expect("there are few shards");
        let mut shard = lock(&self.shards[which]);
        if let Some(account) = shard.accounts.get(tenant) {
            return Arc::clone(account);
        }
        if shard.accounts.len() >= shard.sweep_at {
            let now = self.started.elapsed();
            shard.accounts.retain(|_, account| !account.is_idle(now));
            shard.sweep_at = FIRST_SWEEP.max(shard.accounts.len() * 2);
        }
        let account = Account::open(limits);
        shard.accounts.insert(tenant.clone(), Arc::clone(&account));
        account
    }

    fn refuse(&self, over: Over, limits: &Limits) -> Refusal {
        let (reason, refusal) = match over {
            Over::Requests(wait) => {
                let refusal =
                    Refusal::new(Code::TenantLimited, "this tenant sends too many requests; slow down")
                        .retry_after(wait);
                ("requests", told(refusal, "tenant", limits.requests.as_ref(), wait))
            }
            Over::Bytes(wait) => {
                let refusal = Refusal::new(Code::TenantLimited, "this tenant moves too much data; slow down")
                    .retry_after(wait);
                ("bytes", told(refusal, "tenant-bytes", limits.bytes.as_ref(), wait))
            }
            Over::QueueFull | Over::WaitedTooLong => {
                let reason = if over == Over::QueueFull { "queue-full" } else { "queue-wait" };
                let refusal = Refusal::new(
                    Code::TenantLimited,
                    "too many requests of this tenant are under way; try again in a moment",
                );
                (reason, refusal.with_status(StatusCode::SERVICE_UNAVAILABLE).retry_after(FULL_RETRY_AFTER))
            }
        };
        self.metrics.tenant_limited(reason);
        refusal.because(format_args!("limit met: {reason}"))
    }
}

impl Pass {
    /// The pass of a tenant without limits; `None` where the tenant has some.
    pub fn unlimited(tenant: &Tenant) -> Option<Self> {
        counted(tenant).is_none().then_some(Self(None))
    }

    /// How long the request waited for its turn.
    pub fn waited(&self) -> Duration {
        self.0.as_ref().map_or(Duration::ZERO, |inside| inside.waited)
    }

    /// A body that moves no faster than the tenant may.
    pub fn pace(&self, body: Body) -> Body {
        match &self.0 {
            Some(inside) if inside.limits.bytes.is_some() && !http_body::Body::is_end_stream(&body) => {
                Body::stream(Paced::new(body, self.clone()))
            }
            _ => body,
        }
    }

    /// Tells the client how much is left to the tenant, where its requests are counted. What a
    /// backend says of limits of its own stays beside it: the fields are lists.
    pub fn tell(&self, response: &mut Response<Body>) {
        let Some(inside) = &self.0 else { return };
        let (Some(quota), Some(level)) = (&inside.limits.requests, inside.level) else { return };
        let headers = response.headers_mut();
        headers.append(RATE_LIMIT_POLICY, policy_of("tenant", quota));
        headers.append(RATE_LIMIT, left_of("tenant", level.left, level.full_in));
    }

    /// Counts bytes that moved, and says how long to wait before they move on.
    fn owe(&self, bytes: u64) -> Duration {
        self.0.as_ref().map_or(Duration::ZERO, |inside| {
            inside.account.owe(&inside.limits, bytes, inside.started.elapsed())
        })
    }
}

/// The tenant's limits, if its requests have to be counted for them.
fn counted(tenant: &Tenant) -> Option<&Arc<Limits>> {
    tenant.limits.as_ref().filter(|limits| limits.count_requests())
}

/// A refusal that tells which quota was met.
fn told(refusal: Refusal, name: &str, quota: Option<&Quota>, wait: Duration) -> Refusal {
    let Some(quota) = quota else { return refusal };
    refusal
        .with_header(RATE_LIMIT_POLICY, policy_of(name, quota))
        .with_header(RATE_LIMIT, left_of(name, 0, wait))
}

fn policy_of(name: &str, quota: &Quota) -> HeaderValue {
    let unit = if name == "tenant-bytes" { ";qu=\"content-bytes\"" } else { "" };
    field(format!("\"{name}\";q={};w={}{unit}", quota.burst(), whole_seconds(quota.window())))
}

fn left_of(name: &str, left: u64, reset: Duration) -> HeaderValue {
    field(format!("\"{name}\";r={left};t={}", whole_seconds(reset)))
}

fn field(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("names of ours, digits and signs are a header value")
}

/// Rounded up: a client that came back a moment early would be refused again.
fn whole_seconds(time: Duration) -> u128 {
    time.as_millis().div_ceil(1000).max(1)
}

fn lock(shard: &Mutex<Shard>) -> std::sync::MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass").field("limited", &self.0.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    fn tenant(id: &str, limits: Limits) -> Tenant {
        Tenant {
            id: id.parse().unwrap(),
            schema: "acme".parse().unwrap(),
            role: None,
            database: None,
            state: crate::tenant::TenantState::Active,
            isolation: None,
            limits: Some(Arc::new(limits)),
        }
    }

    fn hourly(burst: u64) -> Quota {
        Quota::new(NonZeroU64::MIN, Duration::from_secs(3600), NonZeroU64::new(burst).unwrap())
    }

    fn limits(requests: Option<Quota>, concurrency: Option<u32>) -> Limits {
        Limits {
            requests,
            bytes: None,
            concurrency,
            queue: 0,
            wait: Duration::from_secs(1),
            connections: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_tenants_flood_is_not_anothers() {
        let fairness = Fairness::new(Metrics::new());
        let flooding = tenant("flooding", limits(Some(hourly(5)), None));
        let quiet = tenant("quiet", limits(Some(hourly(5)), None));
        let mut passed = 0;
        for _ in 0..100 {
            passed += usize::from(fairness.enter(&flooding).await.is_ok());
        }
        assert_eq!(passed, 5);
        // Twenty refusals come at once, and what follows at two hundred a second.
        assert_eq!(fairness.started.elapsed().as_millis() / 100, 3);
        for _ in 0..5 {
            assert!(fairness.enter(&quiet).await.is_ok());
        }
        let refusal = fairness.enter(&quiet).await.unwrap_err();
        assert_eq!(refusal.code(), Code::TenantLimited);
        assert_eq!(refusal.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(refusal.retry_after_hint() > Some(Duration::from_secs(3590)));
    }

    #[tokio::test]
    async fn a_place_is_free_when_the_last_clone_of_its_pass_is_gone() {
        let fairness = Fairness::new(Metrics::new());
        let one = tenant("one", limits(None, Some(1)));
        let pass = fairness.enter(&one).await.unwrap();
        let clone = pass.clone();
        drop(pass);
        let refusal = fairness.enter(&one).await.unwrap_err();
        assert_eq!(refusal.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(clone);
        assert!(fairness.enter(&one).await.is_ok());
    }

    #[tokio::test]
    async fn accounts_that_owe_nothing_are_forgotten_and_others_are_not() {
        let fairness = Fairness::new(Metrics::new());
        let indebted = tenant("indebted", limits(Some(hourly(1)), None));
        drop(fairness.enter(&indebted).await.unwrap());
        for number in 0..SHARDS * FIRST_SWEEP * 4 {
            let passing = tenant(&format!("passing-{number}"), limits(None, Some(1)));
            drop(fairness.enter(&passing).await.unwrap());
        }
        assert!(fairness.accounts() <= SHARDS * FIRST_SWEEP + 1, "{}", fairness.accounts());
        assert!(fairness.enter(&indebted).await.is_err());
    }

    #[tokio::test]
    async fn a_client_is_told_what_is_left() {
        let fairness = Fairness::new(Metrics::new());
        let tenant = tenant("acme", limits(Some(hourly(2)), None));
        let mut response = Response::new(Body::empty());
        fairness.enter(&tenant).await.unwrap().tell(&mut response);
        assert_eq!(response.headers()[RATE_LIMIT_POLICY], "\"tenant\";q=2;w=7200");
        assert_eq!(response.headers()[RATE_LIMIT], "\"tenant\";r=1;t=3600");
    }
}
