//! Tracing as written.

use http::Uri;
use http::uri::Parts;
use schemars::{Schema, json_schema};

use crate::policy::decode::{Leaf, Located, Named, Required, Unreadable, record};
use crate::policy::leaf::{Share, SharedKey};
use crate::policy::yaml::Scalar;

record! {
    /// Traces of requests, sent to an OpenTelemetry collector.
    Tracing is "`tracing`";
    /// The collector, by OTLP over HTTP: `http://127.0.0.1:4318`. Where the URL does not end in
    /// `/v1/traces`, that is added.
    otlp: Required<Located<Collector>>,
    /// The share of traces that begin here and are recorded; a caller's own choice goes before.
    /// Default 10%.
    sample: Option<Located<Share>>,
    /// What this gateway is called among other services. Default `innkeeper`.
    service_name: Option<Located<String>>,
    /// Headers that go with the spans, such as a token from the environment.
    headers: Option<Named<Located<SharedKey>>>,
}

/// The path that OTLP gives to traces.
const TRACES: &str = "/v1/traces";

/// Where a collector takes spans.
#[derive(Debug, Clone)]
pub(crate) struct Collector(pub Uri);

impl Leaf for Collector {
    const EXPECTED: &'static str = "a collector such as `http://127.0.0.1:4318`";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        let uri: Uri = scalar.text.trim().parse().map_err(|_| Unreadable::Kind)?;
        let (Some("http" | "https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(Unreadable::Kind);
        };
        if authority.as_str().contains('@') {
            return Err(Unreadable::Rule("a collector's URL holds no password: use `headers`".into()));
        }
        let base = uri.path().trim_end_matches('/');
        let path = if base.ends_with(TRACES) { base.to_owned() } else { format!("{base}{TRACES}") };
        let mut parts = Parts::default();
        (parts.scheme, parts.authority) = (uri.scheme().cloned(), uri.authority().cloned());
        parts.path_and_query = Some(path.parse().map_err(|_| Unreadable::Kind)?);
        Uri::from_parts(parts).map(Self).map_err(|_| Unreadable::Kind)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "examples": ["http://127.0.0.1:4318"] })
    }
}
