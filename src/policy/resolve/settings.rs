//! Server and databases: values with their defaults, and their own rules.

use std::net::SocketAddr;
use std::sync::Arc;

use http::uri::Authority;

use super::access_log::access_log;
use super::listeners::listeners;
use super::tracing::tracing;
use super::{Names, assertion, or};
use crate::address::{ListenAddress, PeerRange};
use crate::policy::attached::Attached;
use crate::policy::decode::{Located, Named, OneOrMany, shorten};
use crate::policy::diagnostic::Report;
use crate::policy::document;
use crate::policy::leaf::{DurationOrZero, SharedKey, Size};
use crate::policy::source::Place;
use crate::policy::yaml::Key;
use crate::policy::{Database, Limits, Login, Name, PoolSettings, Secret, Server, Timeouts};

/// The gateway's address where none is given.
pub(super) const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
/// The admin listener's address where none is given.
const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9901);

/// Tenants with metrics of their own: past that, a metrics store suffers more than it tells.
const MAX_TENANT_METRICS: u32 = 1000;

/// As long as what the key's hash makes of it (RFC 7518, section 3.2).
const MIN_TICKET_KEY_BYTES: usize = 32;

pub(super) fn server(written: Option<&document::Server>, attached: &Attached, report: &mut Report) -> Server {
    let listen = written.and_then(|server| server.listen.as_ref());
    let admin = written.and_then(|server| server.admin.as_ref());
    if let Some(admin) = admin
        && let ListenAddress::Tcp(address) = admin.value
        && !address.ip().is_loopback()
    {
        report
            .warning(
                admin.place,
                format!("the admin listener at `{}` can be reached from other machines", admin.shown()),
            )
            .help("it shows routes, tenants and metrics to everyone who reaches it: `127.0.0.1` is safer");
    }
    Server {
        listen: listeners(listen, admin, attached, report),
        admin: admin.map_or_else(|| DEFAULT_ADMIN.into(), |admin| admin.value.clone()),
        admin_hosts: admin_hosts(written.and_then(|server| server.admin_hosts.as_ref()), report),
        reuse_port: or(written.and_then(|server| server.reuse_port.as_ref()), false),
        limits: limits(written.and_then(|server| server.limits.as_ref())),
        timeouts: timeouts(written.and_then(|server| server.timeouts.as_ref())),
        ticket_key: ticket_key(written.and_then(|server| server.ticket_key.as_ref()), report),
        assertion_keys: assertion::keys(written, attached, report),
        trusted_proxies: trusted_proxies(written, report),
        forwarded_host: or(written.and_then(|server| server.forwarded_host.as_ref()), false),
        access_log: access_log(written.and_then(|server| server.access_log.as_ref())),
        tracing: tracing(written.and_then(|server| server.tracing.as_ref()), report),
        tenant_metrics: tenant_metrics(written.and_then(|server| server.tenant_metrics.as_ref()), report),
    }
}

fn trusted_proxies(written: Option<&document::Server>, report: &mut Report) -> Vec<PeerRange> {
    let ranges = written.and_then(|server| server.trusted_proxies.as_ref()).into_iter().flatten();
    let trusted = ranges.map(|range| {
        if range.value.is_everyone() {
            let message =
                format!("`{}` trusts everybody: any client could choose its address", range.shown());
            report.error(range.place, message).help("name the networks that your load balancers are in");
        }
        range.value.clone()
    });
    trusted.collect()
}

fn ticket_key(written: Option<&Located<SharedKey>>, report: &mut Report) -> Option<Secret> {
    let SharedKey(key) = &written?.value;
    if key.reveal().len() < MIN_TICKET_KEY_BYTES {
        report
            .error(written?.place, format!("`ticket_key` must be at least {MIN_TICKET_KEY_BYTES} bytes"))
            .help("make one: `openssl rand -base64 32`");
    }
    Some(key.clone())
}

fn admin_hosts(written: Option<&OneOrMany<Located<String>>>, report: &mut Report) -> Vec<String> {
    let mut hosts = Vec::new();
    for host in written.iter().flat_map(|many| &many.0) {
        if host.value.parse::<Authority>().is_ok_and(|authority| authority.host() == host.value) {
            hosts.push(host.value.to_ascii_lowercase());
        } else {
            report.error(host.place, format!("a host is a name without a port, got `{}`", host.shown()));
        }
    }
    hosts
}

fn tenant_metrics(written: Option<&Located<u32>>, report: &mut Report) -> usize {
    let Some(written) = written else { return 0 };
    if written.value > MAX_TENANT_METRICS {
        report
            .error(
                written.place,
                format!("`tenant_metrics` is at most {MAX_TENANT_METRICS}, got {}", written.shown()),
            )
            .help("each tenant costs six series; the access log has every one of them");
    }
    written.value as usize
}

fn limits(written: Option<&document::Limits>) -> Limits {
    let default = Limits::default();
    let Some(written) = written else { return default };
    Limits {
        header_bytes: size(written.header_bytes.as_ref(), default.header_bytes),
        header_count: count(written.header_count.as_ref(), default.header_count),
        body_bytes: written.body_bytes.as_ref().map_or(default.body_bytes, |size| size.value.0),
        query_body_bytes: size(written.query_body_bytes.as_ref(), default.query_body_bytes),
        min_body_rate: written.min_body_rate.as_ref().map_or(default.min_body_rate, |size| size.value.0),
        connections: count(written.connections.as_ref(), default.connections),
        handshakes: count(written.handshakes.as_ref(), default.handshakes),
    }
}

fn timeouts(written: Option<&document::Timeouts>) -> Timeouts {
    let default = Timeouts::default();
    let Some(written) = written else { return default };
    Timeouts {
        handshake: or(written.handshake.as_ref(), default.handshake),
        header_read: or(written.header_read.as_ref(), default.header_read),
        body_idle: or(written.body_idle.as_ref(), default.body_idle),
        keep_alive: or(written.keep_alive.as_ref(), default.keep_alive),
        tunnel_idle: or(written.tunnel_idle.as_ref(), default.tunnel_idle),
        drain: or(written.drain.as_ref(), DurationOrZero(default.drain)).0,
    }
}

pub(super) fn size(given: Option<&Located<Size>>, default: usize) -> usize {
    given.map_or(default, |size| usize::try_from(size.value.0).unwrap_or(usize::MAX))
}

fn count(given: Option<&Located<u32>>, default: usize) -> usize {
    given.map_or(default, |count| count.value as usize)
}

pub(super) fn databases(written: &Named<document::Database>, report: &mut Report) -> Names<Database> {
    names("database", "databases", written, report, |name, database, report| {
        let pool = database.pool.as_ref();
        let defaults = Database::new(name, database.url.get()?.value.0.clone());
        let default = &defaults.pool;
        let mut shared_schemas = Vec::new();
        for schema in database.shared_schemas.iter().flatten() {
            if shared_schemas.contains(&schema.value) {
                report.error(schema.place, format!("`{}` is listed twice", schema.shown()));
            }
            shared_schemas.push(schema.value.clone());
        }
        let max_connections =
            or(pool.and_then(|pool| pool.max_connections.as_ref()), default.max_connections);
        let share = pool.and_then(|pool| pool.per_tenant.as_ref());
        Some(Database {
            isolation: or(database.isolation.as_ref(), defaults.isolation),
            login: login(database.login.as_ref(), report)?,
            pool: PoolSettings {
                max_connections,
                tenant_connections: tenant_connections(share, max_connections, report),
                tenant_queue: or(share.and_then(|share| share.queue.as_ref()), default.tenant_queue),
                acquire_timeout: or(
                    pool.and_then(|pool| pool.acquire_timeout.as_ref()),
                    default.acquire_timeout,
                ),
                idle_timeout: or(pool.and_then(|pool| pool.idle_timeout.as_ref()), default.idle_timeout),
                max_lifetime: or(pool.and_then(|pool| pool.max_lifetime.as_ref()), default.max_lifetime),
            },
            statement_timeout: or(database.statement_timeout.as_ref(), defaults.statement_timeout),
            idle_in_transaction_timeout: or(
                database.idle_in_transaction_timeout.as_ref(),
                defaults.idle_in_transaction_timeout,
            ),
            shared_schemas,
            ..defaults
        })
    })
}

fn login(written: Option<&document::Login>, report: &mut Report) -> Option<Login> {
    let Some(written) = written else { return Some(Login::default()) };
    match (&written.password, &written.derive_from) {
        (Some(password), None) => Some(Login::Password(password.value.0.clone())),
        (None, Some(secret)) => Some(Login::Derived(secret.value.0.clone())),
        (None, None) if written.sound => Some(Login::default()),
        (None, None) => None,
        (Some(_), Some(second)) => {
            report
                .error(
                    second.place,
                    "`login` has either one `password` or a secret to `derive_from`, not both",
                )
                .help("remove one of them");
            None
        }
    }
}

fn tenant_connections(share: Option<&document::TenantShare>, all: u32, report: &mut Report) -> u32 {
    let Some(written) = share.and_then(|share| share.connections.as_ref()) else { return (all / 2).max(1) };
    if written.value > all {
        report
            .error(written.place, format!("one tenant cannot use {} of {all} connections", written.shown()))
            .help(format!("write at most {all}, or raise `max_connections`"));
    }
    written.value
}

pub(super) fn names<D, T>(
    kind: &'static str,
    section: &'static str,
    written: &Named<D>,
    report: &mut Report,
    mut resolve: impl FnMut(Name, &D, &mut Report) -> Option<T>,
) -> Names<T> {
    let known = written.0.iter().map(|(key, definition)| {
        let name: Name = key.text.as_str().into();
        check_name(kind, key, report);
        let resolved = definition.as_ref().and_then(|one| resolve(Arc::clone(&name), one, report));
        (name, resolved.map(Arc::new))
    });
    Names { kind, section, known: known.collect() }
}

fn check_name(kind: &str, key: &Key, report: &mut Report) {
    check_text(kind, &key.text, &key.text, key.place, report);
}

/// Names become metric labels and log fields.
pub(super) fn check_text(kind: &str, text: &str, shown: &str, place: Place, report: &mut Report) {
    if text.trim().is_empty() || text.chars().any(char::is_control) || text.len() > 128 {
        report.error(
            place,
            format!(
                "a {kind}'s name must be 1 to 128 bytes without control characters, got `{}`",
                shorten(shown)
            ),
        );
    }
}
