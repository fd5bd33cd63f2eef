//! Which route takes a request: listener, host, path, method and headers, in the policy's order.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

use crate::decision::RequestHead;
use crate::policy::{HostMatch, PathMatch, PathSegment, RouteMatch};

/// The captures of a matched path, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captures(Vec<(String, String)>);

impl Captures {
    /// The text captured under `name`, percent-decoded.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, text)| text.as_str())
    }
}

/// The captures if `rule` takes the request.
pub(super) fn matches(rule: &RouteMatch, head: &RequestHead) -> Option<Captures> {
    let captures = reaches(rule, head)?;
    let method_fits = rule.methods.is_empty()
        || rule.methods.contains(&head.method)
        // HEAD is GET without the body (RFC 9110, section 9.3.2).
        || (head.method == Method::HEAD && rule.methods.contains(&Method::GET));
    let headers_fit = rule.headers.iter().all(|(name, wanted)| {
        let mut given = head.headers.get_all(name).iter();
        match wanted {
            Some(wanted) => given.any(|value| value.as_bytes() == wanted.as_bytes()),
            None => given.next().is_some(),
        }
    });
    (method_fits && headers_fit).then_some(captures)
}

/// The captures if `rule` takes some request of this listener, host and path.
pub(super) fn reaches(rule: &RouteMatch, head: &RequestHead) -> Option<Captures> {
    let captures = match_path(&rule.path, head.uri.path())?;
    let listener_fits = rule.listeners.is_empty() || rule.listeners.iter().any(|one| one.takes(&head.local));
    let host_fits =
        rule.hosts.is_empty() || rule.hosts.iter().any(|host| match_host(host, &head.host).is_some());
    (listener_fits && host_fits).then_some(captures)
}

/// The captured label (empty for an exact host) if `host` fits; `host` is in lower case.
pub(super) fn match_host<'h>(pattern: &HostMatch, host: &'h str) -> Option<&'h str> {
    match pattern {
        HostMatch::Exact(exact) => (exact == host).then_some(""),
        HostMatch::Label { prefix, suffix } => {
            let label = host.strip_prefix(prefix.as_str())?.strip_suffix(suffix.as_str())?;
            (!label.is_empty() && !label.contains('.')).then_some(label)
        }
    }
}

/// The captures if `path` fits. Segments are compared percent-decoded, as a backend would read
/// them: `/%61dmin` must not slip past a rule for `/admin`.
pub(super) fn match_path(pattern: &PathMatch, path: &str) -> Option<Captures> {
    let mut captures = Vec::new();
    let mut segments = path.split('/').skip(1);
    for expected in &pattern.segments {
        let segment = decode(segments.next()?)?;
        match expected {
            PathSegment::Literal(literal) => {
                if segment != literal.as_str() {
                    return None;
                }
            }
            PathSegment::Capture(name) => {
                if segment.is_empty() {
                    return None;
                }
                captures.push((name.clone(), segment.into_owned()));
            }
        }
    }
    let rest = segments.next();
    let ends_here = rest.is_none() || (pattern.segments.is_empty() && rest == Some(""));
    (pattern.below || ends_here).then_some(Captures(captures))
}

fn decode(segment: &str) -> Option<Cow<'_, str>> {
    if segment.contains('%') { percent_decode_str(segment).decode_utf8().ok() } else { Some(segment.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str, below: bool) -> PathMatch {
        let segments = text
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(|segment| match segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                Some(name) => PathSegment::Capture(name.into()),
                None => PathSegment::Literal(segment.into()),
            })
            .collect();
        PathMatch { segments, below }
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        let api = pattern("/api", true);
        assert!(match_path(&api, "/api").is_some());
        assert!(match_path(&api, "/api/x").is_some());
        assert!(match_path(&api, "/apix").is_none());
    }

    #[test]
    fn an_exact_path_takes_nothing_below() {
        let exact = pattern("/api/{id}", false);
        assert_eq!(match_path(&exact, "/api/7").unwrap().get("id"), Some("7"));
        assert!(match_path(&exact, "/api/7/x").is_none());
        assert!(match_path(&exact, "/api/").is_none());
        assert!(match_path(&exact, "/api").is_none());
    }

    #[test]
    fn encoded_letters_do_not_slip_past() {
        assert!(match_path(&pattern("/admin", true), "/%61dmin/x").is_some());
    }

    #[test]
    fn the_root_is_a_path_too() {
        assert!(match_path(&pattern("/", false), "/").is_some());
        assert!(match_path(&pattern("/", false), "/x").is_none());
        assert!(match_path(&pattern("/", true), "/x").is_some());
    }

    #[test]
    fn a_label_is_one_label() {
        let host = HostMatch::Label { prefix: "t-".into(), suffix: ".example.com".into() };
        assert_eq!(match_host(&host, "t-acme.example.com"), Some("acme"));
        assert_eq!(match_host(&host, "t-a.b.example.com"), None);
        assert_eq!(match_host(&host, "t-.example.com"), None);
        assert_eq!(match_host(&host, "example.com"), None);
    }
}
