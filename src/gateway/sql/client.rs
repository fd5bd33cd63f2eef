//! Who asks an endpoint for statements, and how that wants to be answered: a script of a web page
//! of an allowed origin, a driver that reads errors of one status only.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ALLOW, ORIGIN,
    VARY,
};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use serde_json::json;

use crate::body::Body;
use crate::decision::RequestHead;
use crate::error::{Code, Refusal};
use crate::gateway::problem;
use crate::policy::SqlEndpoint;

/// What the driver always sends, and nobody else would.
const CONNECTION_STRING: HeaderName = HeaderName::from_static("neon-connection-string");

const METHODS: HeaderValue = HeaderValue::from_static("POST, OPTIONS");

/// What a script may send besides what the route's own resolvers ask for.
const HEADERS: &str = "Accept, Authorization, Content-Type, Neon-Array-Mode, Neon-Batch-Deferrable, \
                       Neon-Batch-Isolation-Level, Neon-Batch-Read-Only, Neon-Connection-String, \
                       Neon-Pool-Opt-In, Neon-Raw-Text-Output";

/// A client of an endpoint.
pub(in crate::gateway) struct Client {
    page: Page,
    is_driver: bool,
}

/// Which web page's script the client is.
enum Page {
    /// None, or one that the endpoint's own host served.
    None,
    /// One of an origin on the list.
    Allowed(HeaderValue),
    /// One of any other origin.
    Stranger,
}

impl Client {
    pub(in crate::gateway) fn of(endpoint: &SqlEndpoint, head: &RequestHead) -> Self {
        let page = head.headers.get(ORIGIN).map_or(Page::None, |origin| {
            let text = origin.to_str().unwrap_or_default();
            let is_own = text
                .split_once("://")
                .is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(&head.authority));
            if endpoint.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(text)) {
                Page::Allowed(origin.clone())
            } else if is_own {
                Page::None
            } else {
                Page::Stranger
            }
        });
        Self { page, is_driver: head.headers.contains_key(CONNECTION_STRING) }
    }

    /// The answer to a browser that asks before it sends a script's request. It names no tenant.
    pub(in crate::gateway) fn preflight(&self, head: &RequestHead) -> Option<Response<Body>> {
        if head.method != Method::OPTIONS {
            return None;
        }
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(ALLOW, METHODS);
        if let Page::Allowed(_) = self.page {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
            let asked =
                head.headers.get(ACCESS_CONTROL_REQUEST_HEADERS).and_then(|names| names.to_str().ok());
            // Which header names the tenant is the route's affair; the origin is one to trust.
            let allowed = asked.map_or_else(|| HEADERS.to_owned(), |asked| format!("{HEADERS}, {asked}"));
            let allowed = HeaderValue::try_from(allowed).expect("visible text is a header value");
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        }
        Some(response)
    }

    /// Refuses a script of a stranger's page. The browser would keep the answer from it, but the
    /// statement would have run: with a tenant that the host names, such a request needs no more
    /// than a visitor.
    pub(in crate::gateway) fn admit(&self) -> Result<(), Refusal> {
        match self.page {
            Page::None | Page::Allowed(_) => Ok(()),
            Page::Stranger => Err(Refusal::new(
                Code::Denied,
                "scripts of this web origin may not use the endpoint: list it in the route's `origins`",
            )),
        }
    }

    /// The response for a refusal: the problem document, and in it what the driver reads.
    pub(in crate::gateway) fn refuse(&self, refusal: &Refusal, request_id: &str) -> Response<Body> {
        let status = if self.is_driver && is_for_the_author(refusal) {
            StatusCode::BAD_REQUEST
        } else {
            refusal.status()
        };
        let mut document = problem::document(refusal, request_id);
        document.insert("status".into(), json!(status.as_u16()));
        document.entry("message").or_insert_with(|| json!(refusal.detail()));
        document.entry("code").or_insert_with(|| json!(refusal.code().as_str()));
        document.entry("severity").or_insert_with(|| json!("ERROR"));
        let mut response = problem::respond(refusal, status, document);
        if status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(ALLOW, METHODS);
        }
        response
    }

    /// Lets the script read the response, whatever became of its request.
    pub(in crate::gateway) fn allow(&self, response: &mut Response<Body>) {
        let headers = response.headers_mut();
        headers.append(VARY, HeaderValue::from_static("Origin"));
        if let Page::Allowed(origin) = &self.page {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers
                .insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("X-Request-ID, Retry-After"));
        }
    }
}

/// Whether the request itself is what must change. The driver reads the body of a 400 and of
/// nothing else; a status that says when to come back, or that we are at fault, stays what it is.
fn is_for_the_author(refusal: &Refusal) -> bool {
    matches!(
        refusal.code(),
        Code::TenantMissing
            | Code::TenantAmbiguous
            | Code::TenantUnknown
            | Code::TenantSuspended
            | Code::QueryRefused
            | Code::QueryParameter
    )
}
