//! Changes what is forwarded as a route's rules say: its path, its host and its headers.

use std::borrow::Cow;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::error::{Code, Refusal};
use crate::policy::{HeaderRules, HostRewrite, PathMatch, PathSegment, Rewrite, Template, TemplatePart};
use crate::tenant::Tenant;

/// What may not stand in a segment of a path as it is (RFC 3986, section 3.3).
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// What a request fills templates with.
#[derive(Clone, Copy)]
pub struct Values<'r> {
    /// Its tenant.
    pub tenant: Option<&'r Tenant>,
    /// Its id.
    pub request_id: &'r str,
    /// What the route's path captured.
    pub capture: &'r dyn Fn(&str) -> Option<&'r str>,
}

/// The target that the upstream is asked for. Its path is still to be inspected: what was put
/// together may read otherwise than its parts did.
///
/// # Errors
/// `request-invalid` where the parts make no path.
pub fn target(rewrite: &Rewrite, uri: &Uri, values: Values<'_>) -> Result<Uri, Refusal> {
    if rewrite.strip_prefix.is_none() && rewrite.path.is_none() {
        return Ok(uri.clone());
    }
    let stripped = rewrite.strip_prefix.as_ref().and_then(|prefix| strip(prefix, uri.path()));
    let mut path = stripped.unwrap_or(uri.path()).to_owned();
    if let Some(template) = &rewrite.path {
        let mut filled = String::new();
        for part in &template.0 {
            match part {
                TemplatePart::Text(text) => filled.push_str(text),
                TemplatePart::Path => filled.push_str(&path),
                other => filled.extend(utf8_percent_encode(value(other, values), SEGMENT)),
            }
        }
        path = filled;
    }
    if let Some(query) = uri.query() {
        path.push('?');
        path.push_str(query);
    }
    let target: PathAndQuery =
        path.parse().map_err(|error| invalid("the request target cannot be forwarded").because(error))?;
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target);
    Uri::from_parts(parts).map_err(|error| invalid("the request target cannot be forwarded").because(error))
}

/// Rules for headers with their values filled in, so that nothing can be wrong with them later.
pub struct Filled<'r> {
    remove: &'r [HeaderName],
    set: Vec<(&'r HeaderName, HeaderValue)>,
    add: Vec<(&'r HeaderName, HeaderValue)>,
}

/// Fills the values of rules in.
///
/// # Errors
/// `request-invalid` where a value cannot stand in a header.
pub fn fill<'r>(rules: &'r HeaderRules, values: Values<'_>) -> Result<Filled<'r>, Refusal> {
    let filled = |rules: &'r [(HeaderName, Template)]| {
        let values = rules.iter().map(|(name, template)| Ok((name, header_value(name, template, values)?)));
        values.collect::<Result<Vec<_>, Refusal>>()
    };
    Ok(Filled { remove: &rules.remove, set: filled(&rules.set)?, add: filled(&rules.add)? })
}

impl Filled<'_> {
    /// Changes the headers.
    pub fn apply(self, headers: &mut HeaderMap) {
        for name in self.remove {
            headers.remove(name);
        }
        for (name, value) in self.set {
            headers.insert(name, value);
        }
        for (name, value) in self.add {
            headers.append(name, value);
        }
    }
}

/// Changes the host that the upstream is asked for.
pub fn host(rewrite: &HostRewrite, headers: &mut HeaderMap) {
    match rewrite {
        HostRewrite::Keep => {}
        // Without one, the upstream is asked for by its own name.
        HostRewrite::Upstream => drop(headers.remove(header::HOST)),
        HostRewrite::Name(name) => drop(headers.insert(header::HOST, name.clone())),
    }
}

/// What is left of a path without the prefix; the path as a whole where it has another one.
fn strip<'p>(prefix: &PathMatch, path: &'p str) -> Option<&'p str> {
    let mut rest = path;
    for expected in &prefix.segments {
        let segment = rest.strip_prefix('/')?;
        let end = segment.find('/').unwrap_or(segment.len());
        let (segment, after) = segment.split_at(end);
        let decoded = percent_encoding::percent_decode_str(segment).decode_utf8().ok()?;
        match expected {
            PathSegment::Literal(literal) if decoded != literal.as_str() => return None,
            PathSegment::Capture(_) if decoded.is_empty() => return None,
            PathSegment::Literal(_) | PathSegment::Capture(_) => rest = after,
        }
    }
    Some(if rest.is_empty() { "/" } else { rest })
}

/// What fills a place; places that a request need not fill are empty.
fn value<'v, 'r: 'v>(part: &'v TemplatePart, values: Values<'r>) -> &'v str {
    match part {
        TemplatePart::Text(text) => text,
        TemplatePart::Tenant => values.tenant.map_or("", |tenant| tenant.id.as_str()),
        TemplatePart::Schema => values.tenant.map_or("", |tenant| tenant.schema.as_str()),
        TemplatePart::RequestId => values.request_id,
        TemplatePart::Capture(name) => (values.capture)(name).unwrap_or_default(),
        TemplatePart::Path => "",
    }
}

fn header_value(name: &HeaderName, template: &Template, values: Values<'_>) -> Result<HeaderValue, Refusal> {
    let text: Cow<'_, str> = match template.0.as_slice() {
        [only] => value(only, values).into(),
        several => several.iter().map(|part| value(part, values)).collect::<String>().into(),
    };
    // A backend may read other characters in another encoding than we.
    if !text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return Err(invalid("the path has characters that cannot be told to the application")
            .because(format_args!("a value of the header `{name}` is not visible ASCII: {text:?}")));
    }
    HeaderValue::from_str(&text).map_err(|error| invalid("the request cannot be forwarded").because(error))
}

fn invalid(detail: &'static str) -> Refusal {
    Refusal::new(Code::RequestInvalid, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(segments: &[PathSegment]) -> PathMatch {
        PathMatch { segments: segments.into(), below: true }
    }

    #[test]
    fn a_prefix_is_taken_off_by_segments() {
        let t = prefix(&[PathSegment::Literal("t".into()), PathSegment::Capture("tenant".into())]);
        for (path, left) in [
            ("/t/acme", Some("/")),
            ("/t/acme/", Some("/")),
            ("/t/acme/a%20b", Some("/a%20b")),
            ("/%74/acme/x/", Some("/x/")),
            ("/t", None),
            ("/t/", None),
            ("/tt/acme/x", None),
        ] {
            assert_eq!(strip(&t, path), left, "{path}");
        }
    }

    #[test]
    fn what_fills_a_path_is_encoded() {
        let rewrite = Rewrite {
            path: Some(Template(vec![
                TemplatePart::Text("/v2/".into()),
                TemplatePart::Capture("name".into()),
                TemplatePart::Path,
            ])),
            ..Rewrite::default()
        };
        let values = Values { tenant: None, request_id: "", capture: &|_| Some("a b/ä?") };
        let target = target(&rewrite, &Uri::from_static("http://h/x?q=1"), values).unwrap();
        assert_eq!(target.to_string(), "http://h/v2/a%20b%2F%C3%A4%3F/x?q=1");
    }
}
