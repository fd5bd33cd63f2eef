//! Cases as written: their maps and keys.

use http::{Method, StatusCode};

use crate::address::Peer;
use crate::policy::decode::{Located, Named, NonEmpty, OneOrMany, Required, record};
use crate::policy::json::Json;
use crate::policy::word::Scheme;
use crate::tenant::{TenantId, TenantSchema};

record! {
    /// Requests and what a plugin must make of them.
    Cases is "a file of cases";
    /// The plugin's name, for people.
    plugin: Option<Located<String>>,
    /// What the plugin is configured with: anything; it gets it as JSON.
    config: Option<Json>,
    /// A table of texts that the plugin may look up.
    kv: Option<Named<Located<String>>>,
    /// The cases.
    cases: Required<NonEmpty<Case>>,
}

record! {
    /// A request, the world around it, and what must become of it.
    Case is "a case";
    /// What it shows.
    name: Required<Located<String>>,
    /// The request.
    request: Option<Request>,
    /// What the directory answers, by tenant; `null` where there is no such tenant.
    directory: Option<Named<Option<Known>>>,
    /// What the plugin must answer.
    expect: Required<Expect>,
}

record! {
    /// A request that is never sent.
    Request is "a case's `request`";
    /// Default `GET`.
    method: Option<Located<Method>>,
    /// `http` (default) or `https`.
    scheme: Option<Located<Scheme>>,
    /// Host and port that the client asked for. Default `localhost`.
    authority: Option<Located<String>>,
    /// Default `/`.
    path: Option<Located<String>>,
    /// What follows the `?`.
    query: Option<Located<String>>,
    /// Headers; one that is sent several times has a list.
    headers: Option<Named<OneOrMany<Located<String>>>>,
    /// The other end of the connection, `unix` for a Unix socket's. Default `192.0.2.1:0`.
    peer: Option<Located<Peer>>,
    /// The verified claims of its token.
    claims: Option<Json>,
}

record! {
    /// A tenant that the directory knows.
    Known is "a tenant of `directory`";
    /// Its schema.
    schema: Required<Located<TenantSchema>>,
}

record! {
    /// What the plugin must answer: exactly one of `tenant`, `next`, `deny` and `failure`.
    Expect is "`expect`";
    /// The tenant that the request belongs to.
    tenant: Option<Located<TenantId>>,
    /// Headers that the plugin adds. Default: none.
    headers: Option<Named<OneOrMany<Located<String>>>>,
    /// The upstream that the plugin chooses. Default: none.
    upstream: Option<Located<String>>,
    /// Why the plugin placed it so. Default: anything.
    reason: Option<Located<String>>,
    /// Whether the next resolver is asked.
    next: Option<Located<bool>>,
    /// How the request is refused.
    deny: Option<Denial>,
    /// The class of failure that the call ends in, such as `trap`.
    failure: Option<Located<String>>,
}

record! {
    /// How the request is refused.
    Denial is "`deny`";
    /// The status.
    status: Required<Located<StatusCode>>,
    /// The plugin's code. Default: any.
    code: Option<Located<String>>,
    /// What the client is told. Default: anything.
    message: Option<Located<String>>,
}
