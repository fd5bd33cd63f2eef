//! Inline tests as written.

use http::{Method, StatusCode};

use crate::address::ListenAddress;
use crate::policy::decode::{Located, Named, Required, record};

record! {
    /// A request, and what must become of it.
    Test is "a test";
    /// What it shows.
    name: Required<Located<String>>,
    /// The request.
    request: Required<Request>,
    /// What must become of it: at least one of its keys.
    expect: Required<Expect>,
}

record! {
    /// A request that is never sent.
    Request is "`request`";
    /// Default `GET`.
    method: Option<Located<Method>>,
    /// Path and query.
    path: Required<Located<String>>,
    /// Default `localhost`.
    host: Option<Located<String>>,
    /// Headers.
    headers: Option<Named<Located<String>>>,
    /// The listener that it comes in at. Default: one that no route names.
    listener: Option<Located<ListenAddress>>,
}

record! {
    /// What must become of a request; what is not named may be anything.
    Expect is "`expect`";
    /// The route that takes it.
    route: Option<Located<String>>,
    /// The tenant that it resolves to, or `none`.
    tenant: Option<Located<String>>,
    /// The tenant's schema.
    schema: Option<Located<String>>,
    /// The code that it is refused with.
    error: Option<Located<String>>,
    /// The status that it is refused with.
    status: Option<Located<StatusCode>>,
}
