//! What an operator sees: metrics, held in one registry that is passed in, never global.

mod plugins;
mod routes;
mod tenants;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

pub use plugins::PluginMetrics;
pub use routes::RouteMetrics;
pub use tenants::{Finished, TenantMetrics};

/// Upper bounds of the duration buckets, in seconds: from a plugin call to a slow report.
const SECONDS: [f64; 14] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0];

fn duration_histogram() -> Histogram {
    Histogram::new(SECONDS)
}

/// Labels of a finished request. No tenant: labels are bounded by the policy, not by customers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The route, or empty where none matched.
    pub route: Arc<str>,
    /// `forward`, `query` or empty.
    pub target: &'static str,
    /// `ok`, the code of the refusal, or `cancelled`.
    pub outcome: &'static str,
    /// The status sent.
    pub status: u16,
}

/// One label: a route's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabel {
    /// The route.
    pub route: Arc<str>,
}

/// One label: why.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// The reason.
    pub reason: &'static str,
}

/// Labels of a plugin call, or of a load.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PluginLabels {
    /// The plugin's name in the policy.
    pub plugin: Arc<str>,
    /// `place`, `next`, `deny`, `loaded`, or the class of the failure.
    pub outcome: &'static str,
}

/// One label: a plugin's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PluginLabel {
    /// The plugin's name in the policy.
    pub plugin: Arc<str>,
}

/// Labels of what an upstream counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct UpstreamLabels {
    /// The upstream's name in the policy.
    pub upstream: Arc<str>,
    /// What came of it.
    pub outcome: &'static str,
}

/// Labels of an upstream's endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EndpointLabels {
    /// The upstream's name in the policy.
    pub upstream: Arc<str>,
    /// `healthy`, `unhealthy` or `ejected`.
    pub state: &'static str,
}

/// One label: an upstream's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct UpstreamLabel {
    /// The upstream's name in the policy.
    pub upstream: Arc<str>,
}

/// One label: a database's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DatabaseLabel {
    /// The database's name in the policy.
    pub database: Arc<str>,
}

/// Labels of a database's connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ConnectionLabels {
    /// The database's name in the policy.
    pub database: Arc<str>,
    /// `in-use` or `idle`.
    pub state: &'static str,
}

/// One label: a certificate's file, as the policy writes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CertificateLabel {
    /// The file.
    pub certificate: Arc<str>,
}

/// One label: what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    /// The result.
    pub result: &'static str,
}

type Durations<L> = Family<L, Histogram, fn() -> Histogram>;

/// Every metric of one process.
pub struct Metrics {
    registry: Registry,
    /// Finished requests.
    pub requests: Family<RequestLabels, Counter>,
    /// From a request's head to its response's head.
    pub request_duration: Durations<RouteLabel>,
    /// From a matched route to a tenant.
    pub resolution_duration: Durations<RouteLabel>,
    /// Plugin calls.
    pub plugin_calls: Family<PluginLabels, Counter>,
    /// Time in a plugin's `resolve`, host calls included.
    pub plugin_duration: Durations<PluginLabels>,
    /// Plugin files that were loaded, or not.
    pub plugin_loads: Family<PluginLabels, Counter>,
    /// The breaker of each plugin's active version: 0 closed, 1 open, 2 half-open.
    pub plugin_breaker: Family<PluginLabel, Gauge>,
    /// Refusals on account of a plugin that failed which came later, because there were so many.
    pub plugin_refused_late: Family<PluginLabel, Counter>,
    /// 1 for each plugin whose file is held back.
    pub plugin_held_back: Family<PluginLabel, Gauge>,
    /// Versions of plugins that something still holds.
    pub live_plugin_versions: Gauge,
    /// Age of the oldest of them.
    pub oldest_plugin_version_age: Gauge<f64, AtomicU64>,
    /// Answers of candidates: `agreed`, `differed`, `failed` or `dropped`.
    pub plugin_trials: Family<PluginLabels, Counter>,
    /// Requests to upstreams: `ok`, `error` (a status of 5xx), `unreachable`, `timeout`,
    /// `overloaded` or `client` (its body broke off).
    pub upstream_requests: Family<UpstreamLabels, Counter>,
    /// Repetitions of them: `retried`, `hedged`, or `no-budget` where there was none.
    pub upstream_retries: Family<UpstreamLabels, Counter>,
    /// Endpoints by state.
    pub upstream_endpoints: Family<EndpointLabels, Gauge>,
    /// Requests under way.
    pub upstream_in_flight: Family<UpstreamLabel, Gauge>,
    /// Requests that wait for a connection.
    pub upstream_pending: Family<UpstreamLabel, Gauge>,
    /// Open connections.
    pub upstream_connections: Family<UpstreamLabel, Gauge>,
    /// Directory look-ups: `fresh`, `read`, `unknown`, `stale`, `unavailable`.
    pub directory_lookups: Family<ResultLabel, Counter>,
    /// Requests over their tenant's limits: `requests`, `bytes`, `queue-full` or `queue-wait`.
    pub tenant_limited: Family<ReasonLabel, Counter>,
    /// Refusals for a limit that came later, because the tenant had so many.
    pub tenant_held_back: Counter,
    /// Requests that wait for one of their tenant's places.
    pub tenant_queue: Gauge,
    /// Time waited for one.
    pub tenant_wait: Histogram,
    /// Copies of requests: `sent`, `failed` or `dropped`.
    pub mirrored: Family<ResultLabel, Counter>,
    /// Time waited for a database connection.
    pub pool_wait: Durations<DatabaseLabel>,
    /// Database connections by state.
    pub pool_connections: Family<ConnectionLabels, Gauge>,
    /// Requests that wait for one.
    pub pool_waiting: Family<DatabaseLabel, Gauge>,
    /// Connections closed because their state was in doubt.
    pub connections_discarded: Family<DatabaseLabel, Counter>,
    /// Statements that left their tenant's scope. Any value but 0 is an alarm.
    pub isolation_breaches: Family<DatabaseLabel, Counter>,
    /// Reloads: `applied`, `unchanged`, `rejected`.
    pub reloads: Family<ResultLabel, Counter>,
    /// Generation of the policy in force.
    pub generation: Gauge,
    /// Generations that some request still uses, the one in force included.
    pub live_generations: Gauge,
    /// Age of the oldest of them.
    pub oldest_generation_age: Gauge<f64, AtomicU64>,
    /// Open client connections.
    pub connections: Gauge,
    /// Connections that ended before their first request: `gone`, `late`, `not-announced`,
    /// `not-tls`, `failed`.
    pub connections_turned_away: Family<ResultLabel, Counter>,
    /// When each certificate of the policy in force expires, seconds since 1970.
    pub certificate_expiry: Family<CertificateLabel, Gauge>,
    /// 1 for each certificate whose files are held back.
    pub certificate_held_back: Family<CertificateLabel, Gauge>,
    /// Requests under way.
    pub requests_in_flight: Gauge,
    /// Requests of the busiest tenants, where the policy wants them.
    pub tenants: Arc<TenantMetrics>,
    /// Access records that came faster than they could be written.
    pub access_records_dropped: Counter,
    /// Spans: `exported`, `failed` or `dropped`.
    pub spans: Family<ResultLabel, Counter>,
    /// Connections and streams that have left HTTP.
    pub tunnels: Gauge,
}

impl Metrics {
    /// A registry of its own, with every metric registered.
    pub fn new() -> Arc<Self> {
        let mut metrics = Self {
            registry: Registry::with_prefix("innkeeper"),
            requests: Family::default(),
            request_duration: Family::new_with_constructor(duration_histogram),
            resolution_duration: Family::new_with_constructor(duration_histogram),
            plugin_calls: Family::default(),
            plugin_duration: Family::new_with_constructor(duration_histogram),
            plugin_loads: Family::default(),
            plugin_breaker: Family::default(),
            plugin_refused_late: Family::default(),
            plugin_held_back: Family::default(),
            live_plugin_versions: Gauge::default(),
            oldest_plugin_version_age: Gauge::default(),
            plugin_trials: Family::default(),
            upstream_requests: Family::default(),
            upstream_retries: Family::default(),
            upstream_endpoints: Family::default(),
            upstream_in_flight: Family::default(),
            upstream_pending: Family::default(),
            upstream_connections: Family::default(),
            directory_lookups: Family::default(),
            tenant_limited: Family::default(),
            tenant_held_back: Counter::default(),
            tenant_queue: Gauge::default(),
            tenant_wait: duration_histogram(),
            mirrored: Family::default(),
            pool_wait: Family::new_with_constructor(duration_histogram),
            pool_connections: Family::default(),
            pool_waiting: Family::default(),
            connections_discarded: Family::default(),
            isolation_breaches: Family::default(),
            reloads: Family::default(),
            generation: Gauge::default(),
            live_generations: Gauge::default(),
            oldest_generation_age: Gauge::default(),
            connections: Gauge::default(),
            connections_turned_away: Family::default(),
            certificate_expiry: Family::default(),
            certificate_held_back: Family::default(),
            requests_in_flight: Gauge::default(),
            tenants: Arc::new(TenantMetrics::new()),
            access_records_dropped: Counter::default(),
            spans: Family::default(),
            tunnels: Gauge::default(),
        };
        metrics.register();
        Arc::new(metrics)
    }

    /// The exposition in OpenMetrics text, as Prometheus reads it.
    pub fn expose(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a String cannot fail");
        text
    }

    /// Counts an attempt to load a plugin's file.
    pub fn plugin_loaded(&self, plugin: &Arc<str>, outcome: &'static str) {
        self.plugin_loads.get_or_create(&PluginLabels { plugin: Arc::clone(plugin), outcome }).inc();
    }

    /// Counts a candidate's answer.
    pub fn plugin_tried(&self, plugin: &Arc<str>, outcome: &'static str) {
        self.plugin_trials.get_or_create(&PluginLabels { plugin: Arc::clone(plugin), outcome }).inc();
    }

    /// Counts a directory look-up.
    pub fn directory_looked_up(&self, result: &'static str) {
        self.directory_lookups.get_or_create(&ResultLabel { result }).inc();
    }

    /// Counts a request over its tenant's limits.
    pub fn tenant_limited(&self, reason: &'static str) {
        self.tenant_limited.get_or_create(&ReasonLabel { reason }).inc();
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("requests", "Finished requests", self.requests.clone());
        registry.register_with_unit(
            "request_duration",
            "From a request's head to its response's head",
            Unit::Seconds,
            self.request_duration.clone(),
        );
        registry.register_with_unit(
            "resolution_duration",
            "From a matched route to a tenant",
            Unit::Seconds,
            self.resolution_duration.clone(),
        );
        registry.register("plugin_calls", "Plugin calls", self.plugin_calls.clone());
        registry.register_with_unit(
            "plugin_duration",
            "Time in a plugin's resolve",
            Unit::Seconds,
            self.plugin_duration.clone(),
        );
        registry.register("plugin_loads", "Plugin files loaded, or not", self.plugin_loads.clone());
        registry.register(
            "plugin_breaker",
            "Breaker of a plugin's active version: 0 closed, 1 open, 2 half-open",
            self.plugin_breaker.clone(),
        );
        registry.register(
            "plugin_refused_late",
            "Refusals on account of a plugin that failed which came later, because there were so many",
            self.plugin_refused_late.clone(),
        );
        registry.register(
            "plugin_held_back",
            "1 where a plugin's file is held back and another version serves",
            self.plugin_held_back.clone(),
        );
        registry.register(
            "live_plugin_versions",
            "Plugin versions in use",
            self.live_plugin_versions.clone(),
        );
        registry.register_with_unit(
            "oldest_plugin_version_age",
            "Age of the oldest plugin version in use",
            Unit::Seconds,
            self.oldest_plugin_version_age.clone(),
        );
        registry.register(
            "plugin_trials",
            "Answers of candidate versions, compared with the active version's",
            self.plugin_trials.clone(),
        );
        registry.register("upstream_requests", "Requests to upstreams", self.upstream_requests.clone());
        registry.register(
            "upstream_retries",
            "Requests to upstreams that were sent again, or were not for want of a budget",
            self.upstream_retries.clone(),
        );
        registry.register("upstream_endpoints", "Endpoints by state", self.upstream_endpoints.clone());
        registry.register(
            "upstream_requests_in_flight",
            "Requests to upstreams under way",
            self.upstream_in_flight.clone(),
        );
        registry.register(
            "upstream_requests_pending",
            "Requests to upstreams that wait for a connection",
            self.upstream_pending.clone(),
        );
        registry.register(
            "upstream_connections",
            "Open connections to upstreams",
            self.upstream_connections.clone(),
        );
        registry.register("directory_lookups", "Directory look-ups", self.directory_lookups.clone());
        registry.register(
            "tenant_limited",
            "Requests over their tenant's limits",
            self.tenant_limited.clone(),
        );
        registry.register(
            "tenant_held_back",
            "Refusals for a limit that came later, because the tenant had so many",
            self.tenant_held_back.clone(),
        );
        registry.register(
            "tenant_queue",
            "Requests that wait for one of their tenant's places",
            self.tenant_queue.clone(),
        );
        registry.register_with_unit(
            "tenant_wait",
            "Time waited for one of a tenant's places",
            Unit::Seconds,
            self.tenant_wait.clone(),
        );
        registry.register("mirrored", "Copies of requests", self.mirrored.clone());
        registry.register_with_unit(
            "pool_wait",
            "Time waited for a database connection",
            Unit::Seconds,
            self.pool_wait.clone(),
        );
        registry.register("pool_connections", "Database connections by state", self.pool_connections.clone());
        registry.register(
            "pool_waiting",
            "Requests that wait for a database connection",
            self.pool_waiting.clone(),
        );
        registry.register(
            "connections_discarded",
            "Database connections closed because their state was in doubt",
            self.connections_discarded.clone(),
        );
        registry.register(
            "isolation_breaches",
            "Statements that left their tenant's scope: any value but 0 is an alarm",
            self.isolation_breaches.clone(),
        );
        registry.register("reloads", "Policy reloads", self.reloads.clone());
        registry.register("policy_generation", "Generation of the policy in force", self.generation.clone());
        registry.register("live_generations", "Generations in use", self.live_generations.clone());
        registry.register_with_unit(
            "oldest_generation_age",
            "Age of the oldest generation in use",
            Unit::Seconds,
            self.oldest_generation_age.clone(),
        );
        registry.register("connections", "Open client connections", self.connections.clone());
        registry.register(
            "connections_turned_away",
            "Client connections that ended before their first request",
            self.connections_turned_away.clone(),
        );
        registry.register_with_unit(
            "certificate_expiry_timestamp",
            "When a certificate of the policy expires, seconds since 1970",
            Unit::Seconds,
            self.certificate_expiry.clone(),
        );
        registry.register(
            "certificate_held_back",
            "1 where a certificate's files are held back and the one before them serves",
            self.certificate_held_back.clone(),
        );
        registry.register("requests_in_flight", "Requests under way", self.requests_in_flight.clone());
        registry.register_collector(Box::new(Arc::clone(&self.tenants)));
        registry.register(
            "access_records_dropped",
            "Access records that came faster than they could be written",
            self.access_records_dropped.clone(),
        );
        registry.register("spans", "Spans for the collector, and what became of them", self.spans.clone());
        registry.register("tunnels", "Open tunnels: WebSockets and other upgrades", self.tunnels.clone());
    }
}
