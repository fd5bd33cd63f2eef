//! Which requests are traced, and where their traces go.

use http::{HeaderName, Uri};

use super::Secret;

/// Traces of requests, sent to an OpenTelemetry collector.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// Where spans are sent: OTLP over HTTP, its path included.
    pub endpoint: Uri,
    /// The share of traces that begin here and are recorded. A caller's own choice goes before.
    pub share: f64,
    /// What this gateway is called among other services.
    pub service_name: String,
    /// Headers that go with the spans, such as a token.
    pub headers: Vec<(HeaderName, Secret)>,
}

impl Tracing {
    /// The share that is recorded where the policy does not say.
    pub const DEFAULT_SHARE: f64 = 0.1;
    /// The name where the policy gives none.
    pub const DEFAULT_SERVICE_NAME: &str = "innkeeper";
}
