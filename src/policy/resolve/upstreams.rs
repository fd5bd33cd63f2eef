//! Upstreams: values with their defaults, and certificates read from their files.

use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;

use super::pem;
use super::settings::names;
use super::{Names, or};
use crate::policy::attached::Attached;
use crate::policy::decode::{Located, Named};
use crate::policy::diagnostic::Report;
use crate::policy::document;
use crate::policy::leaf::Share;
use crate::policy::upstream_leaf::CheckPath;
use crate::policy::word::Protocol;
use crate::policy::{Ejection, Endpoint, Health, Identity, Retries, Upstream, UpstreamTls};

pub(super) fn upstreams(
    written: &Named<document::Upstream>,
    attached: &Attached,
    report: &mut Report,
) -> Names<Upstream> {
    names("upstream", "upstreams", written, report, |name, upstream, report| {
        let defaults = Upstream::new(name, endpoints(upstream, report)?);
        let http2 = or(upstream.protocol.as_ref(), Protocol::Http1) == Protocol::Http2;
        let retries = retries(upstream.retries.as_ref());
        Some(Upstream {
            http2,
            tls: tls(upstream, &defaults.endpoints, attached, report)?,
            dns_refresh: or(upstream.dns_refresh.as_ref(), defaults.dns_refresh),
            balance: or(upstream.balance.as_ref(), defaults.balance),
            connect_timeout: or(upstream.connect_timeout.as_ref(), defaults.connect_timeout),
            response_timeout: or(upstream.response_timeout.as_ref(), defaults.response_timeout),
            total_timeout: upstream.total_timeout.as_ref().map(|limit| limit.value),
            body_idle_timeout: or(upstream.body_idle_timeout.as_ref(), defaults.body_idle_timeout),
            pool_idle_timeout: or(upstream.pool_idle_timeout.as_ref(), defaults.pool_idle_timeout),
            pool_max_idle: or(upstream.pool_max_idle.as_ref(), defaults.pool_max_idle),
            max_connections: many(upstream.max_connections.as_ref(), defaults.max_connections),
            max_pending: or(upstream.max_pending.as_ref(), defaults.max_pending),
            max_requests: many(upstream.max_requests.as_ref(), defaults.max_requests),
            health: match &upstream.health {
                Some(health) => Some(checks(health)?),
                None => None,
            },
            ejection: ejection(upstream.ejection.as_ref()),
            retries,
            hedge: match &upstream.hedge {
                Some(hedge) => Some(hedge.after.get()?.value),
                None => None,
            },
            ..defaults
        })
    })
}

fn endpoints(upstream: &document::Upstream, report: &mut Report) -> Option<Vec<Endpoint>> {
    let mut endpoints = Vec::new();
    for endpoint in &upstream.endpoints.get()?.0 {
        if endpoints.contains(&endpoint.value) {
            report.error(endpoint.place, format!("the endpoint `{}` is listed twice", endpoint.shown()));
        }
        endpoints.push(endpoint.value.clone());
    }
    // None is left where all of them were broken, and reported.
    (!endpoints.is_empty()).then_some(endpoints)
}

fn tls(
    upstream: &document::Upstream,
    endpoints: &[Endpoint],
    attached: &Attached,
    report: &mut Report,
) -> Option<UpstreamTls> {
    let negotiates = upstream.protocol.is_none();
    let Some(written) = &upstream.tls else {
        return Some(UpstreamTls { negotiates, ..UpstreamTls::default() });
    };
    if !endpoints.iter().any(Endpoint::is_encrypted) {
        report
            .error(written.place, "`tls` has no effect: none of the endpoints is `https`")
            .help("write `https://` before the endpoints that speak TLS");
    }
    if let Some(name) = &written.server_name
        && ServerName::try_from(name.value.as_str()).is_err()
    {
        report.error(name.place, format!("`{}` is no name that a certificate could have", name.shown()));
    }
    Some(UpstreamTls {
        issuers: match &written.ca {
            Some(file) => Some(pem::issuers(file, attached, report)?),
            None => None,
        },
        server_name: written.server_name.as_ref().map(|name| name.value.clone()),
        identity: match &written.client {
            Some(client) => Some(identity(client, attached, report)?),
            None => None,
        },
        negotiates,
    })
}

fn identity(client: &document::ClientIdentity, attached: &Attached, report: &mut Report) -> Option<Identity> {
    let (certificate, key_file) = (client.certificate.get(), client.key.get());
    let chain = certificate.and_then(|file| pem::certificates(file, attached, report));
    let key = key_file.and_then(|file| pem::key(file, attached, report));
    let identity = Identity { chain: chain?, key: key? };
    let provider = ring::default_provider();
    let certified = CertifiedKey::from_der(identity.chain.clone(), identity.key.clone_key(), &provider);
    if let Err(error) = certified {
        let file = key_file?;
        report
            .error(file.place, format!("`{}` is not this certificate's key: {error}", file.shown()))
            .also(certificate?.place, "the certificate");
        return None;
    }
    Some(identity)
}

fn checks(written: &document::Health) -> Option<Health> {
    let CheckPath(path) = written.path.get()?.value.clone();
    let default = Health::new(path);
    Some(Health {
        interval: or(written.interval.as_ref(), default.interval),
        timeout: or(written.timeout.as_ref(), default.timeout),
        healthy: or(written.healthy.as_ref(), default.healthy),
        unhealthy: or(written.unhealthy.as_ref(), default.unhealthy),
        status: match &written.status {
            Some(ranges) => ranges.0.iter().map(|range| range.value.0.clone()).collect(),
            None => default.status,
        },
        ..default
    })
}

fn ejection(written: Option<&document::Ejection>) -> Ejection {
    let default = Ejection::default();
    let Some(written) = written else { return default };
    Ejection {
        failures: few(written.failures.as_ref(), default.failures),
        time: or(written.time.as_ref(), default.time),
        max_share: or(written.max_percent.as_ref(), Share(default.max_share)).0,
    }
}

fn retries(written: Option<&document::Retries>) -> Retries {
    let default = Retries::default();
    let Some(written) = written else { return default };
    Retries {
        attempts: few(written.attempts.as_ref(), default.attempts),
        budget: or(written.budget.as_ref(), Share(default.budget)).0,
        floor: few(written.floor.as_ref(), default.floor),
        on: match &written.on {
            Some(on) => on.iter().map(|one| one.value).collect(),
            None => default.on,
        },
    }
}

fn few(given: Option<&Located<usize>>, default: u32) -> u32 {
    given.map_or(default, |given| u32::try_from(given.value).unwrap_or(u32::MAX))
}

fn many(given: Option<&Located<u32>>, default: usize) -> usize {
    given.map_or(default, |given| given.value as usize)
}
