//! The one place where a refusal becomes a response: RFC 9457 problem details.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::body::Body;
use crate::error::{Code, Refusal};

/// The response for a refusal. It holds what helps the client, and nothing of the operator's.
pub(super) fn response(refusal: &Refusal, request_id: &str) -> Response<Body> {
    let status = refusal.status();
    respond(refusal, status, document(refusal, request_id))
}

/// The response with a refusal's `document`.
pub(super) fn respond(refusal: &Refusal, status: StatusCode, document: Map<String, Value>) -> Response<Body> {
    let mut response = Response::new(Body::full(Value::Object(document).to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    // A shared cache must not serve one tenant's refusal to another.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if refusal.code() == Code::TokenInvalid {
        // RFC 6750, section 3.1: a client knows that another token may be let in.
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\""));
    }
    if let Some(wait) = refusal.retry_after_hint() {
        // Rounded up: a client that came back a moment early would be refused again.
        let seconds = wait.as_millis().div_ceil(1000).max(1);
        let value = HeaderValue::from_str(&seconds.to_string()).expect("digits are a header value");
        headers.insert(RETRY_AFTER, value);
    }
    headers.extend(refusal.headers().map(|(name, value)| (name.clone(), value.clone())));
    response
}

/// What a client is told of a refusal, wherever it stands.
pub(super) fn document(refusal: &Refusal, request_id: &str) -> Map<String, Value> {
    let mut document = Map::new();
    document.insert("type".into(), json!(format!("urn:innkeeper:error:{}", refusal.code().as_str())));
    document.insert("title".into(), json!(refusal.code().title()));
    document.insert("status".into(), json!(refusal.status().as_u16()));
    document.insert("detail".into(), json!(refusal.detail()));
    document.insert("request_id".into(), json!(request_id));
    if let Some((name, value)) = refusal.extension() {
        document.insert(name.into(), json!(value));
    }
    for (name, value) in refusal.members() {
        document.insert(name.clone(), value.clone());
    }
    document
}
