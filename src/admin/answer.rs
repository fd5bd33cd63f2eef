//! What the admin listener answers with: text, JSON, and problems that say what to do.

use std::time::SystemTime;

use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use crate::body::Body;

/// Why there is no ordinary answer (RFC 9457).
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    allow: Option<HeaderValue>,
}

impl Problem {
    /// A problem, with words for whoever asked.
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), allow: None }
    }

    /// The path takes other methods only.
    pub(super) fn method_not_allowed(path: &str, methods: impl Iterator<Item = &'static str>) -> Self {
        let methods = methods.collect::<Vec<_>>().join(", ");
        let allow = HeaderValue::from_str(&methods).expect("methods are header values");
        let detail = format!("{path} takes {methods}");
        Self { status: StatusCode::METHOD_NOT_ALLOWED, detail, allow: Some(allow) }
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let problem = json!({
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let mut response = with_type("application/problem+json", format!("{problem:#}\n"));
        *response.status_mut() = self.status;
        if let Some(allow) = self.allow {
            response.headers_mut().insert(ALLOW, allow);
        }
        response
    }
}

/// Plain text.
pub(super) fn text(status: StatusCode, text: String) -> Response<Body> {
    let mut response = with_type("text/plain; charset=utf-8", text);
    *response.status_mut() = status;
    response
}

/// A JSON document, laid out for people.
pub(super) fn document(value: &Value) -> Response<Body> {
    with_type("application/json", format!("{value:#}\n"))
}

/// A YAML document.
pub(super) fn yaml(text: String) -> Response<Body> {
    with_type("application/yaml", text)
}

/// Metrics as Prometheus reads them.
pub(super) fn open_metrics(text: String) -> Response<Body> {
    with_type("application/openmetrics-text; version=1.0.0; charset=utf-8", text)
}

/// A time as people and programs read it (RFC 3339).
pub(super) fn timestamp(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

fn with_type(kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
