//! Upstreams as written.

use std::time::Duration;

use crate::policy::Endpoint;
use crate::policy::attached::FileName;
use crate::policy::decode::{Located, NonEmpty, OneOrMany, Required, record};
use crate::policy::leaf::Share;
use crate::policy::upstream::{Balance, RetryOn};
use crate::policy::upstream_leaf::{CheckPath, StatusRange};
use crate::policy::word::Protocol;

record! {
    /// A backend.
    Upstream is "an upstream";
    /// Where it listens: `http://host:port`, `https://host:port` or `unix:/path`.
    endpoints: Required<NonEmpty<Located<Endpoint>>>,
    /// `http1` or `http2`. Default: what an `https` endpoint chooses of the two, else `http1`.
    protocol: Option<Located<Protocol>>,
    /// Whom `https` endpoints must prove to be, and who we say that we are.
    tls: Option<UpstreamTls>,
    /// How often host names are looked up again. Default 30s.
    dns_refresh: Option<Located<Duration>>,
    /// Which endpoint a request goes to: `least-latency` (default) or `round-robin`.
    balance: Option<Located<Balance>>,
    /// Time to connect, or to wait for a free connection. Default 2s.
    connect_timeout: Option<Located<Duration>>,
    /// Until the response's head, of each try. Default 30s.
    response_timeout: Option<Located<Duration>>,
    /// Until the response's head, all tries together. Default: only each try's own.
    total_timeout: Option<Located<Duration>>,
    /// Between two pieces of a response body. Default 60s.
    body_idle_timeout: Option<Located<Duration>>,
    /// How long an unused connection is kept. Default 60s.
    pool_idle_timeout: Option<Located<Duration>>,
    /// Unused connections kept per endpoint. Default 256.
    pool_max_idle: Option<Located<usize>>,
    /// HTTP/1.1 connections in use per endpoint. Default 1024.
    max_connections: Option<Located<u32>>,
    /// Requests per endpoint that wait for one of them. Default 1024.
    max_pending: Option<Located<usize>>,
    /// Requests under way, over all endpoints; more are refused. Default 1024.
    max_requests: Option<Located<u32>>,
    /// How endpoints are asked whether they are well. Default: they are not.
    health: Option<Health>,
    /// When an endpoint that fails requests is passed over.
    ejection: Option<Ejection>,
    /// What is sent again.
    retries: Option<Retries>,
    /// When another endpoint is asked besides one that is slow. Default: never.
    hedge: Option<Hedge>,
}

record! {
    /// Whom `https` endpoints must prove to be, and who we say that we are.
    UpstreamTls is "an upstream's `tls`";
    /// A PEM file with the only issuers that are trusted, relative to this one. Default: the
    /// machine's own list.
    ca: Option<Located<String>>,
    /// The name that certificates must have. Default: the endpoint's host.
    server_name: Option<Located<String>>,
    /// Our own certificate.
    client: Option<ClientIdentity>,
}

record! {
    /// A certificate and its key.
    ClientIdentity is "`client`";
    /// A PEM file with the certificate and those that lead to its issuer, relative to this one.
    certificate: Required<Located<String>>,
    /// A PEM file with its private key, relative to this one.
    key: Required<Located<String>>,
}

record! {
    /// How endpoints are asked whether they are well.
    Health is "`health`";
    /// What is asked for with GET.
    path: Required<Located<CheckPath>>,
    /// How often. Default 10s.
    interval: Option<Located<Duration>>,
    /// How long the answer may take. Default 2s.
    timeout: Option<Located<Duration>>,
    /// Good answers in a row after which an endpoint is well. Default 2.
    healthy: Option<Located<u32>>,
    /// Bad ones in a row after which it is not. Default 3.
    unhealthy: Option<Located<u32>>,
    /// Statuses of a good answer. Default 200..299.
    status: Option<OneOrMany<Located<StatusRange>>>,
}

record! {
    /// When an endpoint that fails requests is passed over.
    Ejection is "`ejection`";
    /// Failures in a row; 0 for never. Default 5.
    failures: Option<Located<usize>>,
    /// For how long at first; twice as long when it fails again at once. Default 30s.
    time: Option<Located<Duration>>,
    /// The part of the endpoints that may be out at a time, though always one and never all.
    /// Default 50%.
    max_percent: Option<Located<Share>>,
}

record! {
    /// What is sent again, of the requests that are safe to repeat.
    Retries is "`retries`";
    /// Further tries of one request; 0 for none. Default 1.
    attempts: Option<Located<usize>>,
    /// Retries as a part of all requests. Default 20%.
    budget: Option<Located<Share>>,
    /// Retries a second that are allowed whatever the part. Default 3.
    floor: Option<Located<usize>>,
    /// After what: `reset`, `timeout`, or a status. Default: `[reset, 502, 503, 504]`.
    on: Option<Vec<Located<RetryOn>>>,
}

record! {
    /// When another endpoint is asked besides one that is slow.
    Hedge is "`hedge`";
    /// How long the first one is waited for.
    after: Required<Located<Duration>>,
}

impl Upstream {
    /// The files that it names.
    pub(crate) fn files(&self) -> impl Iterator<Item = FileName<'_>> {
        self.tls.iter().flat_map(|tls| {
            let identity = tls.client.iter().flat_map(|client| [client.certificate.get(), client.key.get()]);
            tls.ca.iter().chain(identity.flatten()).map(FileName::from)
        })
    }
}
