//! Path, host and headers of what is forwarded: templates are read, and what must not be said is refused.

use http::header::HOST;
use http::{HeaderName, HeaderValue, uri};

use super::matching;
use crate::hop;
use crate::policy::decode::{Located, Named};
use crate::policy::diagnostic::Report;
use crate::policy::document;
use crate::policy::source::Place;
use crate::policy::{HeaderRules, HostRewrite, PathMatch, PathSegment, Rewrite, Template, TemplatePart};

/// What templates of one route may name.
pub(super) struct Names<'p> {
    /// Whether there is a tenant.
    pub(super) tenant: bool,
    /// What the route's path captures.
    pub(super) path: Option<&'p PathMatch>,
}

/// The changes of a route; `None` where it makes none.
pub(super) fn resolve(
    written: &document::ForwardSettings,
    names: &Names<'_>,
    report: &mut Report,
) -> Option<Rewrite> {
    let rewrite = Rewrite {
        strip_prefix: written.strip_prefix.as_ref().and_then(|prefix| strip_prefix(prefix, report)),
        path: written.path.as_ref().and_then(|path| self::path(path, names, report)),
        host: written.host.as_ref().map_or(HostRewrite::Keep, |host| self::host(host, report)),
        request_headers: rules(written.request_headers.as_ref(), fixed_in_requests, names, report),
        response_headers: rules(written.response_headers.as_ref(), fixed_in_responses, names, report),
    };
    (rewrite != Rewrite::default()).then_some(rewrite)
}

fn strip_prefix(prefix: &Located<String>, report: &mut Report) -> Option<PathMatch> {
    let pattern = matching::path_match(prefix, true, report)?;
    if pattern.segments.is_empty() {
        report.error(prefix.place, "`/` takes nothing off").help("remove `strip_prefix`");
    }
    Some(pattern)
}

fn path(path: &Located<String>, names: &Names<'_>, report: &mut Report) -> Option<Template> {
    let template = template(path, names, true, report)?;
    let starts_well = match template.0.first() {
        Some(TemplatePart::Text(text)) => text.starts_with('/'),
        Some(TemplatePart::Path) => true,
        _ => false,
    };
    if !starts_well {
        report
            .error(path.place, format!("a path starts with `/`, got `{}`", path.shown()))
            .help("add the `/`");
    }
    let ends_in_slash = |part: &TemplatePart| matches!(part, TemplatePart::Text(text) if text.ends_with('/'));
    let doubled = template.0.windows(2).any(|two| ends_in_slash(&two[0]) && two[1] == TemplatePart::Path);
    if doubled {
        report
            .error(path.place, "`{path}` starts with a `/` of its own: this makes it `//`")
            .help("remove the `/` before it");
    }
    for part in &template.0 {
        if let TemplatePart::Text(text) = part
            && (text.contains(['?', '#', '\\', '%']) || !text.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            report
                .error(path.place, "a path is visible ASCII without `?`, `#`, `%` and backslashes")
                .help("the query goes along as it is");
        }
    }
    Some(template)
}

fn host(host: &Located<String>, report: &mut Report) -> HostRewrite {
    match host.value.as_str() {
        "keep" => HostRewrite::Keep,
        "upstream" => HostRewrite::Upstream,
        name => {
            let authority = name.parse::<uri::Authority>().ok().filter(|name| !name.as_str().contains('@'));
            match authority.and_then(|name| HeaderValue::from_str(name.as_str()).ok()) {
                Some(name) => HostRewrite::Name(name),
                None => {
                    report
                        .error(host.place, format!("`{}` is not a host", host.shown()))
                        .help("write `keep`, `upstream`, or a name such as `app.internal:8080`");
                    HostRewrite::Keep
                }
            }
        }
    }
}

fn rules(
    written: Option<&document::HeaderRules>,
    fixed: fn(&HeaderName) -> Option<&'static str>,
    names: &Names<'_>,
    report: &mut Report,
) -> HeaderRules {
    let Some(written) = written else { return HeaderRules::default() };
    let mut valued = |given: Option<&Named<Located<String>>>| {
        let entries = given.into_iter().flat_map(|named| &named.0);
        let rules = entries.filter_map(|(key, value)| {
            let Ok(name) = key.text.parse::<HeaderName>() else {
                report.error(key.place, format!("`{}` cannot be the name of a header", key.text));
                return None;
            };
            check_free(&name, fixed, key.place, report);
            Some((name, value_template(value.as_ref()?, names, report)?))
        });
        rules.collect::<Vec<_>>()
    };
    let (set, add) = (valued(written.set.as_ref()), valued(written.add.as_ref()));
    let remove = written.remove.iter().flatten().map(|name| {
        check_free(&name.value, fixed, name.place, report);
        name.value.clone()
    });
    HeaderRules { remove: remove.collect(), set, add }
}

fn check_free(
    name: &HeaderName,
    fixed: fn(&HeaderName) -> Option<&'static str>,
    place: Place,
    report: &mut Report,
) {
    if let Some(why) = fixed(name) {
        let fix = if name == HOST { "`host` changes it" } else { "remove the rule" };
        report.error(place, format!("the header `{name}` {why}: no rule may change it")).help(fix);
    }
}

/// A rule may neither speak for us nor change how messages are framed.
fn fixed_in_requests(name: &HeaderName) -> Option<&'static str> {
    let ours = hop::is_reserved(name).then_some("is said by Innkeeper alone");
    ours.or_else(|| framing(name))
}

/// What backends say of tenants carries no authority, and may be kept from clients.
fn fixed_in_responses(name: &HeaderName) -> Option<&'static str> {
    let ours = (name == "x-request-id").then_some("is said by Innkeeper alone");
    ours.or_else(|| framing(name))
}

fn framing(name: &HeaderName) -> Option<&'static str> {
    let between = hop::is_hop_by_hop(name).then_some("is between two hops");
    between.or_else(|| hop::is_framing(name).then_some("says where a message goes or ends"))
}

fn value_template(value: &Located<String>, names: &Names<'_>, report: &mut Report) -> Option<Template> {
    if HeaderValue::from_str(&value.value).is_err() {
        report.error(value.place, format!("`{}` cannot be the value of a header", value.shown()));
        return None;
    }
    template(value, names, false, report)
}

fn template(
    written: &Located<String>,
    names: &Names<'_>,
    is_path: bool,
    report: &mut Report,
) -> Option<Template> {
    let mut parts = Vec::new();
    let mut rest = written.value.as_str();
    while let Some((text, after)) = rest.split_once('{') {
        if !text.is_empty() {
            parts.push(TemplatePart::Text(text.to_owned()));
        }
        let Some((name, after)) = after.split_once('}') else {
            report.error(written.place, "a `{` is not closed").help("write `{tenant}`, for one");
            return None;
        };
        parts.push(place_named(name, names, is_path, written, report)?);
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(TemplatePart::Text(rest.to_owned()));
    }
    Some(Template(parts))
}

fn place_named(
    name: &str,
    names: &Names<'_>,
    is_path: bool,
    written: &Located<String>,
    report: &mut Report,
) -> Option<TemplatePart> {
    let segments = names.path.into_iter().flat_map(|path| &path.segments);
    let captures: Vec<&str> = segments
        .filter_map(|segment| match segment {
            PathSegment::Capture(capture) => Some(capture.as_str()),
            PathSegment::Literal(_) => None,
        })
        .collect();
    let part = match name {
        "tenant" if names.tenant => TemplatePart::Tenant,
        "schema" if names.tenant => TemplatePart::Schema,
        "request_id" => TemplatePart::RequestId,
        "path" if is_path => TemplatePart::Path,
        _ if captures.contains(&name) => TemplatePart::Capture(name.to_owned()),
        "tenant" | "schema" => {
            report
                .error(written.place, format!("a route with `tenant: none` has no `{{{name}}}`"))
                .help("remove it");
            return None;
        }
        _ => {
            let usual =
                [Some("request_id"), names.tenant.then_some("tenant"), names.tenant.then_some("schema")];
            let known = usual.into_iter().flatten().chain(is_path.then_some("path")).chain(captures);
            report.error(written.place, format!("nothing here is called `{{{name}}}`")).suggest(name, known);
            return None;
        }
    };
    Some(part)
}
