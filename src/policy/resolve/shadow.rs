//! Routes that no request can reach, because an earlier one takes everything they would.

use crate::address::ListenAddress;
use crate::policy::diagnostic::Report;
use crate::policy::document;
use crate::policy::{HostMatch, PathMatch, PathSegment, RouteMatch};
use http::Method;

/// Routes that are compared with each other, which takes the square of their number in time.
const MAX_COMPARED: usize = 2_000;

/// Reports every route of which an earlier one takes all requests.
pub(super) fn check(routes: &[(&document::Route, RouteMatch)], report: &mut Report) {
    for (index, (later, pattern)) in routes.iter().enumerate().take(MAX_COMPARED) {
        let earlier = routes[..index].iter().find(|(_, earlier)| covers(earlier, pattern));
        let Some((earlier, _)) = earlier else { continue };
        let name = |route: &document::Route| {
            route.name.get().map_or(("a route".to_owned(), route.place), |name| {
                (format!("`{}`", name.shown()), name.place)
            })
        };
        let ((later, place), (earlier, earlier_place)) = (name(later), name(earlier));
        report
            .error(
                place,
                format!(
                    "the route {later} can never match: {earlier} comes first and takes all its requests"
                ),
            )
            .also(earlier_place, "takes them")
            .help(format!("put {later} before {earlier}"));
    }
}

/// Whether every request that `narrow` takes is taken by `wide`.
fn covers(wide: &RouteMatch, narrow: &RouteMatch) -> bool {
    covers_listeners(&wide.listeners, &narrow.listeners)
        && covers_hosts(&wide.hosts, &narrow.hosts)
        && covers_path(&wide.path, &narrow.path)
        && covers_methods(&wide.methods, &narrow.methods)
        && wide.headers.iter().all(|(name, value)| {
            narrow.headers.iter().any(|(other, given)| other == name && (value.is_none() || value == given))
        })
}

fn covers_listeners(wide: &[ListenAddress], narrow: &[ListenAddress]) -> bool {
    wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(|address| wide.contains(address)))
}

fn covers_hosts(wide: &[HostMatch], narrow: &[HostMatch]) -> bool {
    wide.is_empty()
        || (!narrow.is_empty() && narrow.iter().all(|host| wide.iter().any(|wide| covers_host(wide, host))))
}

fn covers_host(wide: &HostMatch, narrow: &HostMatch) -> bool {
    match (wide, narrow) {
        (HostMatch::Exact(wide), HostMatch::Exact(narrow)) => wide == narrow,
        (HostMatch::Exact(_), HostMatch::Label { .. }) => false,
        (HostMatch::Label { prefix, suffix }, HostMatch::Exact(host)) => host
            .strip_prefix(prefix.as_str())
            .and_then(|rest| rest.strip_suffix(suffix.as_str()))
            .is_some_and(|label| !label.is_empty() && !label.contains('.')),
        (HostMatch::Label { prefix, suffix }, HostMatch::Label { prefix: longer, suffix: other }) => {
            let (more, rest) = (longer.strip_prefix(prefix.as_str()), other.strip_suffix(suffix.as_str()));
            more.is_some_and(|more| !more.contains('.')) && rest.is_some_and(|rest| !rest.contains('.'))
        }
    }
}

fn covers_path(wide: &PathMatch, narrow: &PathMatch) -> bool {
    let reaches = match wide.below {
        true => wide.segments.len() <= narrow.segments.len(),
        false => wide.segments.len() == narrow.segments.len() && !narrow.below,
    };
    reaches
        && wide.segments.iter().zip(&narrow.segments).all(|(wide, narrow)| match (wide, narrow) {
            (PathSegment::Capture(_), _) => true,
            (PathSegment::Literal(wide), PathSegment::Literal(narrow)) => wide == narrow,
            (PathSegment::Literal(_), PathSegment::Capture(_)) => false,
        })
}

fn covers_methods(wide: &[Method], narrow: &[Method]) -> bool {
    let takes =
        |method: &Method| wide.contains(method) || (*method == Method::HEAD && wide.contains(&Method::GET));
    wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(takes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(segments: &[&str], below: bool) -> PathMatch {
        let segment = |text: &&str| match text.strip_prefix(':') {
            Some(name) => PathSegment::Capture(name.into()),
            None => PathSegment::Literal((*text).into()),
        };
        PathMatch { segments: segments.iter().map(segment).collect(), below }
    }

    #[test]
    fn paths_cover_what_is_below_them() {
        assert!(covers_path(&path(&[], true), &path(&["a"], false)));
        assert!(covers_path(&path(&["a"], true), &path(&["a", ":id"], true)));
        assert!(covers_path(&path(&[":x"], false), &path(&["a"], false)));
        assert!(!covers_path(&path(&["a"], false), &path(&["a"], true)));
        assert!(!covers_path(&path(&["a"], true), &path(&["ab"], false)));
        assert!(!covers_path(&path(&["a"], true), &path(&[":x"], false)));
    }

    #[test]
    fn listeners_keep_routes_apart() {
        let at = |port: u16| ListenAddress::Tcp(([127, 0, 0, 1], port).into());
        assert!(covers_listeners(&[], &[at(1)]));
        assert!(covers_listeners(&[at(1), at(2)], &[at(1)]));
        assert!(!covers_listeners(&[at(1)], &[]));
        assert!(!covers_listeners(&[at(1)], &[at(2)]));
    }

    #[test]
    fn hosts_and_methods() {
        let label =
            |prefix: &str, suffix: &str| HostMatch::Label { prefix: prefix.into(), suffix: suffix.into() };
        assert!(covers_host(&label("", ".x.com"), &HostMatch::Exact("a.x.com".into())));
        assert!(!covers_host(&label("", ".x.com"), &HostMatch::Exact("a.b.x.com".into())));
        assert!(covers_host(&label("", ".x.com"), &label("t-", ".x.com")));
        assert!(!covers_host(&label("t-", ".x.com"), &label("", ".x.com")));
        assert!(!covers_hosts(&[label("", ".x.com")], &[]));
        assert!(covers_methods(&[Method::GET], &[Method::HEAD]));
        assert!(!covers_methods(&[Method::GET], &[]));
    }
}
