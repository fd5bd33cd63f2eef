//! The policy: the YAML document as written, and the policy as resolved. No I/O happens here.

mod access_log;
mod assertion;
mod attached;
mod cases;
mod certificate;
mod database;
mod decode;
mod diagnostic;
mod directory;
mod document;
mod expectation;
mod forbidden;
mod interpolate;
mod json;
mod keys;
mod leaf;
mod limits;
mod listener;
mod load;
mod mask;
mod overrides;
mod plugin;
mod query;
mod rate;
mod resolve;
mod rewrite;
mod route;
mod secret;
mod server;
mod source;
mod sql;
mod tls;
mod tracing;
mod upstream;
mod upstream_leaf;
mod word;
mod yaml;

use std::path::PathBuf;
use std::sync::Arc;

use indexmap::IndexMap;

pub use access_log::{AccessLog, LogSampling};
pub use assertion::{Assertion, AssertionBinding};
pub use cases::{Case, CaseAnswer, Cases, Difference, NotRewritten, REDACTED};
pub use certificate::{CertificateName, CertificateRule, NamePattern};
pub use database::{Database, Login, PoolSettings};
pub use diagnostic::{Diagnostic, Diagnostics, Excerpt, Related, Severity};
pub use directory::{DirectorySource, QualifiedName, TableDirectory};
pub use expectation::{Expectation, Expected, SampleRequest};
pub use forbidden::is_forbidden_function;
pub(crate) use keys::algorithms_of;
pub use keys::{
    Issuer, KeyOwner, KeySet, KeySetError, KeySource, KeyTable, Keys, RemoteKeys, TokenKeys, TokenPlace,
    TokenSource,
};
pub use limits::{DefaultLimits, IdleKey, WrittenLimits};
pub use listener::Listener;
pub use load::Surroundings;
pub use overrides::{Action, Override, Part, Sample};
pub use plugin::{
    Breaker, Capabilities, Capability, Instances, OnFailure, Plugin, PluginLimits, Reuse, Shadow, Signature,
};
pub use query::{DeclaredSchema, Param, ParamSource, ParamType, Query, ResultShape, Statement};
pub use rewrite::{HeaderRules, HostRewrite, Rewrite, Template, TemplatePart};
pub use route::{
    Forward, HostMatch, PathMatch, PathSegment, Resolver, Route, RouteMatch, Target, TenantRule,
};
pub use secret::Secret;
pub use server::{Limits, Server, Timeouts};
pub use sql::{SqlEndpoint, StatementKind};
pub use tls::{
    AuthorityError, Certificate, CertificateError, CertificateFiles, ClientAuthority, Tls, TlsVersion,
};
pub use tracing::Tracing;
pub use upstream::{Balance, Ejection, Endpoint, Health, Identity, Retries, RetryOn, Upstream, UpstreamTls};

/// A name that the policy's author gave: of a database, plugin, upstream or route.
pub type Name = Arc<str>;

/// Where parts of a policy are written that only their use can prove wrong.
#[derive(Debug, Default)]
pub struct Places {
    /// The path of each plugin's file.
    pub plugins: IndexMap<Name, Excerpt>,
    /// The URL of each database, masked.
    pub databases: IndexMap<Name, Excerpt>,
}

/// A policy in which every name is resolved: nothing is left to validate.
#[derive(Debug)]
pub struct Policy {
    /// Listeners, limits and timeouts.
    pub server: Server,
    /// Databases by name.
    pub databases: IndexMap<Name, Arc<Database>>,
    /// Where tenants are looked up; `None` only where every route says `tenant: none`.
    pub directory: Option<DirectorySource>,
    /// Placements that go before those of resolvers and plugins.
    pub overrides: Vec<Override>,
    /// What tokens and keys of clients are checked against, by name.
    pub keys: IndexMap<Name, Arc<Keys>>,
    /// Plugins by name.
    pub plugins: IndexMap<Name, Arc<Plugin>>,
    /// Where plugins' files and databases' URLs are written, for what turns out to be wrong later.
    pub places: Places,
    /// Upstreams by name.
    pub upstreams: IndexMap<Name, Arc<Upstream>>,
    /// Routes in the order in which they are tried.
    pub routes: Vec<Arc<Route>>,
    /// Inline tests, run before the policy may serve.
    pub tests: Vec<Expectation>,
    /// SHA-256 over all files of the policy, in lower-case hex.
    pub hash: String,
    /// Every file that was read for it, the main one first: what a watcher watches.
    pub files: Vec<PathBuf>,
}

impl Policy {
    /// The JSON Schema of the document, for editors.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(document::Policy).to_value()
    }
}
