//! Patterns of hosts and paths.

use http::HeaderName;
use percent_encoding::percent_decode_str;

use crate::address::ListenAddress;
use crate::policy::decode::Located;
use crate::policy::diagnostic::Report;
use crate::policy::document::{Match, PathPattern, Presence};
use crate::policy::{HostMatch, Listener, PathMatch, PathSegment, RouteMatch};

/// What stands for the tenant in a pattern.
const TENANT: &str = "{tenant}";

/// A route's match among the listeners at `listen`. Where the path's extent is not written, a query takes the path as a whole and
/// a forward takes what is below as well.
pub(super) fn route_match(
    written: Option<&Match>,
    is_query: bool,
    listen: &[Listener],
    report: &mut Report,
) -> Option<RouteMatch> {
    let Some(written) = written else {
        return Some(RouteMatch {
            listeners: vec![],
            hosts: vec![],
            path: everything(),
            methods: vec![],
            headers: vec![],
        });
    };
    let listeners: Vec<_> = written
        .listener
        .iter()
        .flat_map(|many| &many.0)
        .map(|address| listener(address, listen, report))
        .collect();
    let hosts: Vec<_> =
        written.host.iter().flat_map(|many| &many.0).map(|host| route_host(host, report)).collect();
    let path = match &written.path {
        Some(pattern) => {
            let below = match pattern {
                PathPattern::Usual(_) => !is_query,
                PathPattern::Exact(_) => false,
                PathPattern::Prefix(_) => true,
            };
            path_match(pattern.text(), below, report)
        }
        None => Some(everything()),
    };
    let headers: Vec<_> = written
        .headers
        .iter()
        .flat_map(|named| &named.0)
        .map(|(key, value)| {
            let name = key.text.parse::<HeaderName>();
            if name.is_err() {
                report.error(key.place, format!("`{}` cannot be the name of a header", key.text));
            }
            Some((
                name.ok()?,
                match value.as_ref()? {
                    Presence::Any => None,
                    Presence::Value(value) => Some(value.value.clone()),
                },
            ))
        })
        .collect();
    Some(RouteMatch {
        listeners: listeners.into_iter().collect::<Option<_>>()?,
        hosts: hosts.into_iter().collect::<Option<_>>()?,
        path: path?,
        methods: written.methods.iter().flat_map(|many| &many.0).map(|method| method.value.clone()).collect(),
        headers: headers.into_iter().collect::<Option<_>>()?,
    })
}

/// A listener that the server has. One whose port the system picks has no address to be named by.
fn listener(
    address: &Located<ListenAddress>,
    listen: &[Listener],
    report: &mut Report,
) -> Option<ListenAddress> {
    if address.value.is_picked() {
        report
            .error(address.place, "a listener with port 0 is at another address after every start")
            .help("give the listener a port of its own, in `server.listen` and here");
        return None;
    }
    if !listen.iter().any(|one| one.address == address.value) {
        let known: Vec<_> = listen.iter().map(|one| one.address.to_string()).collect();
        report
            .error(
                address.place,
                format!("no listener is at `{}`: `server.listen` has none", address.shown()),
            )
            .suggest(address.shown(), known.iter().map(String::as_str));
        return None;
    }
    Some(address.value.clone())
}

fn everything() -> PathMatch {
    PathMatch { segments: Vec::new(), below: true }
}

/// A host that a route takes: a name, or a pattern with one free label in front.
fn route_host(host: &Located<String>, report: &mut Report) -> Option<HostMatch> {
    let text = host.value.to_ascii_lowercase();
    if text == "*" {
        report.error(host.place, "`*` takes every host").help("leave `host` out to take every host");
        return None;
    }
    if let Some(suffix) = text.strip_prefix('*') {
        if suffix.starts_with('.') && is_host(&suffix[1..]) {
            return Some(HostMatch::Label { prefix: String::new(), suffix: suffix.to_owned() });
        }
    } else if text.contains('{') {
        return tenant_host(host, report);
    } else if is_host(&text) {
        return Some(HostMatch::Exact(text));
    }
    host_mistake(host, "`app.example.com` or `*.example.com`", report);
    None
}

/// A host pattern with the tenant in one of its labels.
pub(super) fn tenant_host(host: &Located<String>, report: &mut Report) -> Option<HostMatch> {
    let text = host.value.to_ascii_lowercase();
    let example = "`\"{tenant}.example.com\"`";
    let Some((prefix, suffix)) = text.split_once(TENANT) else {
        report
            .error(
                host.place,
                format!("the host pattern `{}` does not say where the tenant stands", host.shown()),
            )
            .help(format!("write `{TENANT}` for it, as in {example}"));
        return None;
    };
    if suffix.contains(TENANT) {
        report.error(host.place, format!("`{TENANT}` may stand only once in a host pattern"));
        return None;
    }
    let filled = format!("{prefix}x{suffix}");
    if !is_host(&filled) || !suffix.contains('.') {
        host_mistake(host, example, report);
        return None;
    }
    Some(HostMatch::Label { prefix: prefix.to_owned(), suffix: suffix.to_owned() })
}

fn host_mistake(host: &Located<String>, example: &str, report: &mut Report) {
    let finding = report.error(host.place, format!("`{}` is not a host: expected {example}", host.shown()));
    if host.value.contains("://") {
        finding.help("leave the scheme out");
    } else if host.value.contains(':') {
        finding.help("leave the port out: a route takes its host on every port");
    } else if host.value.contains('/') {
        finding.help("a path belongs in `path`");
    }
}

fn is_host(text: &str) -> bool {
    let plain = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    let literal = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    text.len() <= 253
        && (text.split('.').all(plain)
            || literal.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()))
}

/// A path pattern in which a segment named `tenant` is captured.
pub(super) fn tenant_path(path: &Located<String>, report: &mut Report) -> Option<PathMatch> {
    let pattern = path_match(path, true, report)?;
    if !pattern.segments.contains(&PathSegment::Capture("tenant".into())) {
        report
            .error(
                path.place,
                format!("the path pattern `{}` does not say where the tenant stands", path.shown()),
            )
            .help(format!("write `{TENANT}` for its segment, as in `\"/t/{TENANT}\"`"));
        return None;
    }
    Some(pattern)
}

/// A path by segments.
pub(super) fn path_match(path: &Located<String>, below: bool, report: &mut Report) -> Option<PathMatch> {
    let mut mistake = |message: String, help: &str| {
        // A message may quote one segment, which is more than may be told of a variable's value.
        let message = match path.is_from_environment() {
            true => format!("what `{}` stands for is not a path pattern", path.shown()),
            false => message,
        };
        report.error(path.place, message).help(help);
        None
    };
    let text = path.value.as_str();
    let Some(rest) = text.strip_prefix('/') else {
        return mistake(format!("a path starts with `/`, got `{}`", path.shown()), "add the `/`");
    };
    if text.contains(['?', '#']) {
        return mistake(
            "a path pattern has no query".into(),
            "match the path only; a query's parameters are read with `params`",
        );
    }
    if rest.is_empty() {
        return Some(PathMatch { segments: Vec::new(), below });
    }
    let mut segments: Vec<PathSegment> = Vec::new();
    for written in rest.split('/') {
        let Ok(segment) = percent_decode_str(written).decode_utf8() else {
            return mistake(format!("`{written}` is not UTF-8 once decoded"), "write the segment plainly");
        };
        if segment.is_empty() {
            return mistake(
                format!("`{}` has an empty segment", path.shown()),
                "remove the extra `/`: with and without one at the end are the same here",
            );
        }
        if matches!(segment.as_ref(), "." | "..") {
            return mistake(
                format!("`{}` has the segment `{segment}`, which no request reaches", path.shown()),
                "write the path without it",
            );
        }
        if matches!(segment.as_ref(), "*" | "**") {
            return mistake(
                format!("`{segment}` is no pattern here"),
                "capture one segment with `{name}`, or match all paths below with `{ prefix: /path }`",
            );
        }
        let capture = written.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let segment = match capture {
            Some(name) if is_identifier(name) => PathSegment::Capture(name.to_owned()),
            _ if written.contains(['{', '}']) => {
                return mistake(
                    format!(
                        "`{written}` is not a capture: one is a whole segment, named with letters, digits and `_`"
                    ),
                    "as in `/buildings/{id}`",
                );
            }
            _ => PathSegment::Literal(segment.into_owned()),
        };
        if matches!(segment, PathSegment::Capture(_)) && segments.contains(&segment) {
            return mistake(format!("`{written}` is captured twice"), "give each capture its own name");
        }
        segments.push(segment);
    }
    Some(PathMatch { segments, below })
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}
