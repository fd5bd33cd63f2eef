//! What a plugin costs here and now: loaded and asked as a gateway would.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde::Serialize;

use crate::decision::{FindTenant, Lookup, RequestHead};
use crate::plugin::{LoadError, LoadedPlugin, PluginHost};
use crate::policy::{Instances, Plugin};
use crate::tenant::TenantId;

/// Calls that a median is taken of, where they are cheap.
const CALLS: usize = 1000;

/// Time after which fewer must do.
const TIME: Duration = Duration::from_secs(1);

/// What a call may take at least, so that its cost is known where its limit is too low for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Calls before those that count: the first ones meet cold caches.
const WARM_UP: usize = 5;

/// Headers that a browser sends, so that the request is of a usual size.
const HEADERS: [(&str, &str); 11] = [
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-encoding", "gzip, deflate, br"),
    ("accept-language", "en-GB,en;q=0.9"),
    ("cache-control", "no-cache"),
    ("cookie", "session=0123456789abcdef"),
    ("host", "acme.example.com"),
    ("referer", "https://acme.example.com/"),
    ("sec-fetch-mode", "navigate"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"),
    ("x-api-key", "k-123"),
    ("x-tenant-id", "acme"),
];

/// What was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Measured {
    /// Microseconds to compile it, configure it and copy what it configured.
    pub load_us: u128,
    /// Memory that an instance starts with, bytes.
    pub memory_at_start: usize,
    /// Memory that it has once it is configured, bytes.
    pub memory_configured: usize,
    /// Why its configured memory cannot be copied into fresh instances; none where it can.
    pub not_copied: Option<String>,
    /// Whether it runs as one core module, which is how calls cost least.
    pub one_module: bool,
    /// Whether an instance is made as new for each request, in place of another one.
    pub renewed: bool,
    /// A call in an instance of its own.
    pub fresh: Cost,
    /// A call in an instance that has served before.
    pub reused: Cost,
}

/// What one call costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Cost {
    /// In the middle.
    Median {
        /// Microseconds.
        median_us: u128,
        /// Of so many calls.
        calls: usize,
    },
    /// It cannot be said, because a call failed.
    Failed {
        /// How.
        failure: String,
    },
}

/// Loads a plugin and asks it.
///
/// # Errors
/// What keeps it from being loaded.
pub(super) async fn measure(
    host: &Arc<PluginHost>,
    settings: &Plugin,
    wasm: &[u8],
) -> Result<Measured, LoadError> {
    let mut settings = settings.clone();
    settings.instances = Instances::PerRequest;
    settings.limits.time = settings.limits.time.max(PATIENCE);
    let started = Instant::now();
    let plugin = host.load(Arc::new(settings), wasm).await?;
    let load_us = started.elapsed().as_micros();
    let memory = plugin.memory();
    Ok(Measured {
        load_us,
        memory_at_start: memory.at_start,
        memory_configured: memory.configured,
        not_copied: plugin.not_copied().map(Into::into),
        one_module: plugin.is_flat(),
        renewed: plugin.is_renewed(),
        fresh: cost(&plugin).await,
        reused: cost(&plugin.kept(Instances::Reused)).await,
    })
}

async fn cost(plugin: &LoadedPlugin) -> Cost {
    let head = Arc::new(sample());
    let directory: Arc<dyn FindTenant> = Arc::new(NoTenants);
    let mut times = Vec::with_capacity(CALLS);
    let started = Instant::now();
    while times.len() < WARM_UP + CALLS && (times.len() <= WARM_UP || started.elapsed() < TIME) {
        let asked = Instant::now();
        if let Err(failure) = plugin.resolve(&head, Arc::clone(&directory)).await {
            return Cost::Failed { failure: failure.to_string() };
        }
        times.push(asked.elapsed());
    }
    let times = &mut times[WARM_UP..];
    times.sort_unstable();
    Cost::Median { median_us: times[times.len() / 2].as_micros(), calls: times.len() }
}

fn sample() -> RequestHead {
    let headers: HeaderMap = HEADERS
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect();
    RequestHead {
        method: Method::GET,
        scheme: "http",
        authority: "acme.example.com".into(),
        host: "acme.example.com".into(),
        uri: Uri::from_static("/orders?page=2"),
        headers,
        peer: crate::address::Peer::Ip(([192, 0, 2, 1], 40_000).into()),
        ..RequestHead::default()
    }
}

/// A directory that is read at once and knows nobody.
struct NoTenants;

impl FindTenant for NoTenants {
    fn find<'a>(&'a self, _: &'a TenantId) -> Lookup<'a> {
        Box::pin(async { Ok(None) })
    }
}
