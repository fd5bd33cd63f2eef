//! Inline policy tests: a request, and what must become of it.

use http::{HeaderMap, Method, Uri};

use super::Excerpt;
use crate::address::ListenAddress;

/// One inline test.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    /// Its name.
    pub name: String,
    /// Where it is written, for [`Diagnostic::failed_test`](super::Diagnostic::failed_test).
    pub at: Excerpt,
    /// The request.
    pub request: SampleRequest,
    /// What must become of it.
    pub expected: Expected,
}

/// A request that is never sent.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleRequest {
    /// Default GET.
    pub method: Method,
    /// Path and query.
    pub uri: Uri,
    /// Default `localhost`.
    pub host: String,
    /// Headers.
    pub headers: HeaderMap,
    /// The listener that it comes in at; `None` for one that no route names.
    pub listener: Option<ListenAddress>,
}

/// What must become of a request; what is not named may be anything.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Expected {
    /// The route that takes it.
    pub route: Option<String>,
    /// The tenant that it resolves to; `Some(None)` is `tenant: none`.
    pub tenant: Option<Option<String>>,
    /// The tenant's schema, where the directory is a list.
    pub schema: Option<String>,
    /// The code that it is refused with; for a plugin's denial also the plugin's own code.
    pub error: Option<String>,
    /// The status that it is refused with.
    pub status: Option<u16>,
}
