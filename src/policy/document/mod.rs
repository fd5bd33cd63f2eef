//! The policy document as written: its maps and keys, before any name in it is looked up. The doc
//! comments here are the descriptions in the JSON Schema.

mod access_log;
mod assertion;
mod certificate;
mod expectation;
mod keys;
mod limits;
mod listener;
mod overrides;
mod query;
mod rewrite;
mod route;
mod sources;
mod sql;
mod token;
mod tracing;
mod upgrade;
mod upstream;

use std::time::Duration;

use super::decode::{Located, Named, OneOrMany, record};
use super::leaf::{DurationOrZero, SharedKey, Size, Version};
use crate::address::{ListenAddress, PeerRange};

pub(crate) use access_log::{LogRule, LogSample};
pub(crate) use assertion::{Assertion, AssertionKey};
pub(crate) use certificate::ClientCertificate;
pub(crate) use expectation::{Expect, Request, Test};
pub(crate) use keys::{Issuer, KeyTable, Keys};
pub(crate) use limits::TenantLimits;
pub(crate) use listener::{Certificate, ClientAuthority, Listener, ProxyProtocol, Tls};
pub(crate) use overrides::{Override, OverrideFile, Overrides};
pub(crate) use query::{Param, Query};
pub(crate) use rewrite::HeaderRules;
pub(crate) use route::{Forward, ForwardSettings, Match, PathPattern, Presence, Resolver, Route, TenantRule};
pub(crate) use sources::{
    Breaker, Database, Login, Plugin, PluginLimits, Reuse, Shadow, Table, TenantEntry, TenantFile,
    TenantShare, Tenants,
};
pub(crate) use sql::Sql;
pub(crate) use token::{ApiKey, JwtClaim, TokenSource, Verify};
pub(crate) use tracing::Tracing;
pub(crate) use upgrade::Upgrades;
pub(crate) use upstream::{ClientIdentity, Ejection, Health, Retries, Upstream};

record! {
    /// An Innkeeper policy.
    Policy is "the policy";
    /// The version of this grammar: 1. An included file may leave it out.
    #[schemars(required)]
    #[expect(dead_code, reason = "there is one version: reading it is all that it takes")]
    version: Option<Located<Version>>,
    /// Further files of the same shape: their maps are merged, their lists appended.
    include: Option<Vec<Located<String>>>,
    /// Listeners, limits and timeouts.
    server: Option<Server>,
    /// PostgreSQL databases by name.
    databases: Option<Named<Database>>,
    /// Where tenants are looked up.
    tenants: Option<Tenants>,
    /// What tokens and keys of clients are checked against, by name.
    keys: Option<Named<Keys>>,
    /// Placements that go before those of resolvers and plugins.
    overrides: Option<Overrides>,
    /// WASM plugins by name.
    plugins: Option<Named<Plugin>>,
    /// Backends by name.
    upstreams: Option<Named<Upstream>>,
    /// Routes in the order in which they are tried.
    routes: Option<Vec<Route>>,
    /// Requests and what must become of them; one that fails refuses the policy.
    tests: Option<Vec<Test>>,
}

record! {
    /// How the process faces its clients and its operator.
    Server is "`server`";
    /// Where the gateway listens: an address, or one with its settings, or a list of them. Default
    /// `127.0.0.1:8080`.
    listen: Option<OneOrMany<Listener>>,
    /// Where the admin listener is: an address, or `unix:/run/innkeeper/admin.sock`, which only the
    /// process's own user may open. Default `127.0.0.1:9901`.
    admin: Option<Located<ListenAddress>>,
    /// Names that the admin listener answers to, such as a service's in a cluster, beside addresses
    /// and `localhost`.
    admin_hosts: Option<OneOrMany<Located<String>>>,
    /// Whether a successor may bind the same addresses while this process still has them, for a
    /// restart without a gap. Default false.
    reuse_port: Option<Located<bool>>,
    /// Size limits.
    limits: Option<Limits>,
    /// Timeouts.
    timeouts: Option<Timeouts>,
    /// What tickets are signed with, at least 32 bytes: the same for all processes that honour each
    /// other's. Default: a key of this process's own, which ends with it.
    ticket_key: Option<Located<SharedKey>>,
    /// What assertions are signed with, a private Ed25519 key (PKCS#8 PEM): `${ASSERTION_KEY}`, or
    /// `{ file: assertion.pem }`. Of several the first one signs, and all are published. Default: a
    /// key of this process's own, which ends with it.
    assertion_key: Option<OneOrMany<AssertionKey>>,
    /// Networks whose `Forwarded` and `X-Forwarded-*` are believed, and `unix` for whoever comes over
    /// a Unix socket. Default: none.
    trusted_proxies: Option<Vec<Located<PeerRange>>>,
    /// Whether they may also say for which host a request is. Default false: only `Host` does.
    forwarded_host: Option<Located<bool>>,
    /// Which requests are recorded in the log: `on` (all, the default), `off`, or a sample.
    access_log: Option<LogRule>,
    /// Traces of requests, sent to an OpenTelemetry collector. Default: none.
    tracing: Option<Tracing>,
    /// How many tenants, the busiest, have metrics of their own; the rest are one, `other`.
    /// Default 0: no metric names a tenant.
    tenant_metrics: Option<Located<u32>>,
}

record! {
    /// Size limits.
    Limits is "`limits`";
    /// Header section of a request. Default 64KiB.
    header_bytes: Option<Located<Size>>,
    /// Header fields of a request. Default 100.
    header_count: Option<Located<u32>>,
    /// Body of a request. Default 100MiB.
    body_bytes: Option<Located<Size>>,
    /// Body that a query route reads. Default 1MiB.
    query_body_bytes: Option<Located<Size>>,
    /// What a client must move each second on average, once it has kept us waiting for `body_idle`
    /// in all: of its request's body, and of what it takes of its responses; 0 for no such limit.
    /// Default 128B.
    min_body_rate: Option<Located<Size>>,
    /// Open client connections. Default 10000.
    connections: Option<Located<u32>>,
    /// TLS handshakes under way at a time. Default 1000.
    handshakes: Option<Located<u32>>,
}

record! {
    /// Timeouts towards clients.
    Timeouts is "`timeouts`";
    /// Until a PROXY header and a TLS handshake are complete. Default 10s.
    handshake: Option<Located<Duration>>,
    /// Until a request's header section is complete. Default 10s.
    header_read: Option<Located<Duration>>,
    /// Between two pieces of a request's body that a client sends, or of a response that it takes.
    /// Default 30s.
    body_idle: Option<Located<Duration>>,
    /// A connection without a request. Default 75s.
    keep_alive: Option<Located<Duration>>,
    /// A tunnel, such as a WebSocket, through which nothing passes. Default 1h.
    tunnel_idle: Option<Located<Duration>>,
    /// What requests in flight are given after SIGTERM. Default 30s.
    drain: Option<Located<DurationOrZero>>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::assertion::{Assertion, AssertionKeyFile};
    use super::certificate::CertificateSettings;
    use super::keys::{Issuer, Issuers, KeyEntry, KeyTable};
    use super::listener::{Certificate, ClientAuthority, ListenerSettings, ProxyProtocol, Tls};
    use super::query::Param;
    use super::rewrite::HeaderRules;
    use super::route::{Extent, ForwardSettings, Resolver, Several};
    use super::sources::{Plugin, PluginLimits, Pool, Table, TenantEntry, TenantFile};
    use super::token::{ApiKey, JwtClaim, TokenSource};
    use super::upstream::{Hedge, UpstreamTls};
    use super::{
        ClientIdentity, Database, Ejection, Expect, Health, Limits, LogSample, Match, Override, OverrideFile,
        Overrides, Policy, Query, Request, Retries, Route, Server, TenantLimits, Tenants, Test, Timeouts,
        Tracing, Upstream,
    };

    macro_rules! keys_agree {
        ($($record:ident),*) => {$(
            let schema = schemars::schema_for!($record).to_value();
            let published: BTreeSet<&str> =
                schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
            let read: BTreeSet<&str> = $record::KNOWN.iter().copied().collect();
            assert_eq!(published, read, stringify!($record));
            assert_eq!(schema["additionalProperties"], false, stringify!($record));
        )*};
    }

    #[test]
    fn the_schema_publishes_exactly_the_keys_that_are_read() {
        keys_agree!(
            Policy,
            Server,
            ListenerSettings,
            Tls,
            Certificate,
            ClientAuthority,
            ProxyProtocol,
            Limits,
            Timeouts,
            Tracing,
            LogSample,
            Database,
            Pool,
            Tenants,
            TenantFile,
            TenantEntry,
            TenantLimits,
            Table,
            Overrides,
            OverrideFile,
            Override,
            Plugin,
            PluginLimits,
            Upstream,
            UpstreamTls,
            ClientIdentity,
            Health,
            Ejection,
            Retries,
            Hedge,
            Route,
            Match,
            Extent,
            Several,
            Resolver,
            ForwardSettings,
            HeaderRules,
            Assertion,
            AssertionKeyFile,
            JwtClaim,
            ApiKey,
            CertificateSettings,
            TokenSource,
            Issuer,
            Issuers,
            KeyTable,
            KeyEntry,
            Query,
            Param,
            Test,
            Request,
            Expect
        );
    }
}
