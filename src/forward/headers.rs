//! Headers at a hop: what ends here, what a client may not say, and what backends are told.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::address::{Peer, push_ip};
use crate::admitted::Admitted;
use crate::decision::folds_alike;
use crate::hop::{is_framing, is_hop_by_hop};
use crate::request_id::RequestId;
use crate::trace::{TRACEPARENT, TRACESTATE, TraceParent};

pub use crate::hop::is_reserved;

/// The tenant's id, as backends are told it.
pub const X_TENANT_ID: HeaderName = HeaderName::from_static("x-tenant-id");
/// The tenant's schema, as backends are told it.
pub const X_TENANT_SCHEMA: HeaderName = HeaderName::from_static("x-tenant-schema");
/// What lets a backend run statements as the tenant of the request that it serves.
pub const X_TENANT_TICKET: HeaderName = HeaderName::from_static("x-tenant-ticket");
/// Whose request it is, signed.
pub const X_TENANT_ASSERTION: HeaderName = HeaderName::from_static("x-tenant-assertion");
/// The request's id, which the log and a problem document carry too.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Headers that `Connection` may not nominate away: a client could otherwise make us strip what a
/// backend relies on to tell requests apart.
const NEVER_NOMINATED: [&str; 9] = [
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "authorization",
    "cookie",
    "cache-control",
    "traceparent",
    "tracestate",
];

/// On whose behalf a request is forwarded.
#[derive(Debug, Clone, Copy)]
pub enum Caller<'a> {
    /// On an admitted tenant's.
    Tenant {
        /// The proof of admission.
        admitted: &'a Admitted,
        /// Headers that a plugin adds.
        headers: &'a [(HeaderName, HeaderValue)],
        /// What lets the backend run statements as this tenant.
        ticket: Option<&'a HeaderValue>,
        /// What proves to the backend whose request it is.
        assertion: Option<&'a HeaderValue>,
    },
    /// On nobody's: the route says `tenant: none`.
    NoTenant,
}

/// The hop that the request came over.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// What the client asked for, port included; may be empty under HTTP/1.0.
    pub authority: &'a str,
    /// The client.
    pub peer: Peer,
    /// Trusted hops between it and us, its own side first.
    pub hops: &'a [Peer],
}

/// Turns a client's headers into those that an upstream gets: hop-by-hop headers and everything
/// that only we may say are removed in any spelling, then ours are set.
pub fn prepare(headers: &mut HeaderMap, hop: Hop<'_>, caller: Caller<'_>, request_id: &RequestId) {
    let trailers_welcome = accepts_trailers(headers);
    remove_nominated(headers);
    remove_if(headers, |name| is_hop_by_hop(name) || is_reserved(name));
    if trailers_welcome {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    settle_length(headers);
    let asked = settle_host(headers, hop.authority);
    if TraceParent::of(headers).is_none() {
        headers.remove(TRACESTATE);
        headers.insert(TRACEPARENT, TraceParent::begin().header());
    }
    insert_forwarded(headers, hop, asked);
    headers.insert(X_REQUEST_ID, request_id.header().clone());
    if let Caller::Tenant { admitted, headers: added, ticket, assertion } = caller {
        for (name, value) in added {
            // A plugin adds; it may not speak for us, nor change how the request is framed.
            if is_reserved(name) || is_hop_by_hop(name) || is_framing(name) {
                continue;
            }
            remove_if(headers, |other| folds_alike(other.as_str(), name.as_str()));
            headers.insert(name.clone(), value.clone());
        }
        let tenant = admitted.tenant();
        insert_text(headers, X_TENANT_ID, tenant.id.as_str());
        insert_text(headers, X_TENANT_SCHEMA, tenant.schema.as_str());
        if let Some(ticket) = ticket {
            headers.insert(X_TENANT_TICKET, ticket.clone());
        }
        if let Some(assertion) = assertion {
            headers.insert(X_TENANT_ASSERTION, assertion.clone());
        }
    }
}

/// Removes from an upstream's response what ends at this hop. What a backend says of tenants is
/// left alone: responses carry no authority.
pub(super) fn clean_response(headers: &mut HeaderMap) {
    remove_nominated(headers);
    remove_if(headers, is_hop_by_hop);
}

/// Writes a length without leading zeros, which some take for an octal number.
fn settle_length(headers: &mut HeaderMap) {
    let length = headers.get(header::CONTENT_LENGTH).map(HeaderValue::as_bytes);
    let Some([b'0', rest @ ..]) = length.filter(|length| length.len() > 1) else { return };
    let zeros = rest.iter().take_while(|digit| **digit == b'0').count().min(rest.len() - 1);
    let length = HeaderValue::from_bytes(&rest[zeros..]).expect("part of a value is one");
    headers.insert(header::CONTENT_LENGTH, length);
}

/// Makes `Host` say what the client asked for, and says it; `None` where it named nothing.
fn settle_host(headers: &mut HeaderMap, authority: &str) -> Option<HeaderValue> {
    if let Some(said) = headers.get(header::HOST)
        && said == authority
    {
        return Some(said.clone());
    }
    let host = HeaderValue::from_str(authority).ok().filter(|host| !host.is_empty())?;
    headers.insert(header::HOST, host.clone());
    Some(host)
}

fn accepts_trailers(headers: &HeaderMap) -> bool {
    headers.get_all(header::TE).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|text| text.split(',').any(|part| part.trim().eq_ignore_ascii_case("trailers")))
    })
}

fn remove_nominated(headers: &mut HeaderMap) {
    if !headers.contains_key(header::CONNECTION) {
        return;
    }
    let nominated: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii))
        // What nearly every nomination says names no header, or one that is removed in any case.
        .filter(|name| !name.eq_ignore_ascii_case(b"close") && !name.eq_ignore_ascii_case(b"keep-alive"))
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| !NEVER_NOMINATED.contains(&name.as_str()))
        .collect();
    for name in nominated {
        headers.remove(name);
    }
}

fn remove_if(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    // The map cannot be changed while it is walked; most requests have nothing to remove.
    let names: Vec<HeaderName> = headers.keys().filter(|name| unwanted(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

fn insert_forwarded(headers: &mut HeaderMap, hop: Hop<'_>, asked: Option<HeaderValue>) {
    let mut forwarded = String::with_capacity(96);
    forwarded.push_str("for=");
    push_node(&mut forwarded, hop.peer);
    forwarded.push_str(";proto=");
    forwarded.push_str(hop.scheme);
    if let Some(asked) = asked {
        forwarded.push_str(";host=\"");
        forwarded.push_str(hop.authority);
        forwarded.push('"');
        headers.insert(X_FORWARDED_HOST, asked);
    }
    for hop in hop.hops {
        forwarded.push_str(", for=");
        push_node(&mut forwarded, *hop);
    }
    let mut addresses = String::with_capacity(48);
    // What has no address cannot be named there.
    for ip in std::iter::once(&hop.peer).chain(hop.hops).filter_map(Peer::ip) {
        if !addresses.is_empty() {
            addresses.push_str(", ");
        }
        push_ip(&mut addresses, ip);
    }
    if !addresses.is_empty() {
        insert_text(headers, X_FORWARDED_FOR, &addresses);
    }
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(hop.scheme));
    insert_text(headers, header::FORWARDED, &forwarded);
}

/// Names somebody as a `node` (RFC 7239, section 6): what has no address is "unknown", and an IPv6
/// address needs brackets, which need quotes.
fn push_node(text: &mut String, peer: Peer) {
    match peer.ip() {
        None => text.push_str("unknown"),
        Some(ip @ IpAddr::V4(_)) => push_ip(text, ip),
        Some(ip @ IpAddr::V6(_)) => {
            text.push_str("\"[");
            push_ip(text, ip);
            text.push_str("]\"");
        }
    }
}

/// Sets a header to a text of ours. Text that no header can carry removes it: a backend must not
/// read a client's in its place.
fn insert_text(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    match HeaderValue::from_bytes(text.as_bytes()) {
        Ok(value) => {
            headers.insert(name, value);
        }
        Err(_) => {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(lines: &[(&str, &str)], caller: Caller<'_>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let hop = Hop {
            scheme: "http",
            authority: "app.example:8080",
            peer: "[::1]:5".parse().unwrap(),
            hops: &[],
        };
        prepare(&mut headers, hop, caller, &RequestId::fresh());
        headers
    }

    fn acme() -> Admitted {
        let tenant = crate::tenant::Tenant {
            id: "acme".parse().unwrap(),
            schema: "acme_schema".parse().unwrap(),
            role: None,
            database: None,
            state: crate::tenant::TenantState::Active,
            isolation: None,
            limits: None,
        };
        crate::admitted::admit(std::sync::Arc::new(tenant)).unwrap()
    }

    #[test]
    fn a_tenant_is_named_by_us_alone() {
        let admitted = acme();
        let added = [
            (HeaderName::from_static("x-plan"), HeaderValue::from_static("gold")),
            (HeaderName::from_static("x-tenant-id"), HeaderValue::from_static("evil")),
            (HeaderName::from_static("x_tenant_schema"), HeaderValue::from_static("evil")),
            (HeaderName::from_static("connection"), HeaderValue::from_static("evil")),
            (HeaderName::from_static("content-length"), HeaderValue::from_static("9")),
        ];
        let caller = Caller::Tenant { admitted: &admitted, headers: &added, ticket: None, assertion: None };
        let headers =
            prepared(&[("X_Tenant_ID", "evil"), ("X-Tenant-Id", "evil"), ("X_Plan", "evil")], caller);
        assert_eq!(headers["x-tenant-id"], "acme");
        assert_eq!(headers["x-tenant-schema"], "acme_schema");
        assert_eq!(headers["x-plan"], "gold");
        assert!(!headers.values().any(|value| value == "evil"), "{headers:?}");
        assert!(!headers.contains_key("content-length"));
    }

    #[test]
    fn a_length_is_written_as_every_reader_takes_it() {
        for (said, told) in [("0", "0"), ("00", "0"), ("003", "3"), ("0100", "100"), ("30", "30")] {
            let headers = prepared(&[("Content-Length", said)], Caller::NoTenant);
            assert_eq!(headers["content-length"], told, "{said}");
        }
    }

    #[test]
    fn no_tenant_means_no_tenant_header() {
        let headers = prepared(&[("X-Tenant-ID", "evil"), ("X-Tenant-Schema", "evil")], Caller::NoTenant);
        assert!(!headers.keys().any(|name| name.as_str().contains("tenant")), "{headers:?}");
        assert_eq!(headers["forwarded"], "for=\"[::1]\";proto=http;host=\"app.example:8080\"");
        assert_eq!(headers["host"], "app.example:8080");
    }

    #[test]
    fn a_trace_goes_on_or_begins() {
        let sound = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let headers = prepared(&[("traceparent", sound), ("tracestate", "a=b")], Caller::NoTenant);
        assert_eq!(
            (&headers["traceparent"], &headers["tracestate"]),
            (&sound.parse().unwrap(), &"a=b".parse().unwrap())
        );
        for broken in ["", "00-0-0-0", "00-00000000000000000000000000000000-b7ad6b7169203331-01"] {
            let headers = prepared(&[("traceparent", broken), ("tracestate", "a=b")], Caller::NoTenant);
            assert!(TraceParent::of(&headers).is_some(), "{headers:?}");
            assert!(!headers.contains_key("tracestate"));
        }
    }

    #[test]
    fn what_backends_need_cannot_be_nominated_away() {
        let headers = prepared(
            &[("connection", "close, authorization, X-Mine"), ("authorization", "kept"), ("x-mine", "gone")],
            Caller::NoTenant,
        );
        assert_eq!(headers["authorization"], "kept");
        assert!(!headers.contains_key("x-mine") && !headers.contains_key("connection"));
    }
}
