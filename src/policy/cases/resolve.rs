//! From cases as written to requests and answers.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::document::{self, Expect, Known, Request};
use super::{Case, CaseAnswer, Cases};
use crate::decision::{Placement, RequestHead, host_of};
use crate::policy::Excerpt;
use crate::policy::decode::{Located, Named, OneOrMany};
use crate::policy::diagnostic::Report;
use crate::policy::source::{Place, Sources};
use crate::tenant::{TenantId, TenantSchema};

pub(super) fn resolve(written: document::Cases, sources: &Sources, report: &mut Report) -> Option<Cases> {
    let mut names = HashSet::new();
    let mut cases = Vec::new();
    for case in &written.cases.get()?.0 {
        if let Some(name) = case.name.get()
            && !names.insert(name.value.as_str())
        {
            report
                .error(name.place, format!("two cases have the name `{}`", name.value))
                .help("give each case its own name");
        }
        cases.extend(self::case(case, sources, report));
    }
    let kv = written.kv.unwrap_or_default().0.into_iter();
    Some(Cases {
        plugin: written.plugin.map(|plugin| plugin.value),
        config: written.config.map(|config| config.value),
        kv: kv.filter_map(|(key, value)| Some((key.text, value?.value))).collect(),
        cases,
    })
}

fn case(written: &document::Case, sources: &Sources, report: &mut Report) -> Option<Case> {
    let request = match &written.request {
        Some(request) => self::request(request, report),
        None => Some(RequestHead::default()),
    };
    let directory = directory(written.directory.as_ref(), report);
    let expected = written.expect.get().and_then(|expect| answer(expect, report));
    let name = written.name.get()?;
    Some(Case {
        name: name.value.clone(),
        at: Some(Excerpt::of(name.place, sources, &[])),
        note: None,
        request: Arc::new(request?),
        directory,
        expected: expected?,
    })
}

fn request(written: &Request, report: &mut Report) -> Option<RequestHead> {
    let default = RequestHead::default();
    let authority = written.authority.as_ref().map_or(default.authority, |given| given.value.clone());
    let headers: HeaderMap = headers(written.headers.as_ref(), report).into_iter().collect();
    Some(RequestHead {
        method: written.method.as_ref().map_or(Method::GET, |method| method.value.clone()),
        scheme: written.scheme.as_ref().map_or(default.scheme, |scheme| scheme.value.as_str()),
        host: host_of(&authority),
        authority,
        uri: target(written, report)?,
        headers,
        peer: written.peer.as_ref().map_or(default.peer, |peer| peer.value),
        claims: written.claims.as_ref().map(|claims| claims.value.to_string().into()),
        client_certificate: None,
        local: default.local,
        hops: default.hops,
    })
}

fn target(written: &Request, report: &mut Report) -> Option<Uri> {
    let path = written.path.as_ref().map_or("/", |path| path.value.as_str());
    if let Some(path) = &written.path
        && (!path.value.starts_with('/') || path.value.contains(['?', '#']))
    {
        report
            .error(path.place, format!("`{}` is not a path", path.shown()))
            .help("it starts with `/`; what follows a `?` goes to `query`");
        return None;
    }
    let query = written.query.as_ref().map(|query| format!("?{}", query.value)).unwrap_or_default();
    match format!("{path}{query}").parse::<PathAndQuery>() {
        Ok(target) if !query.contains('#') => Some(Uri::from(target)),
        _ => {
            let at = written.query.as_ref().or(written.path.as_ref()).map_or(written.place, |at| at.place);
            report
                .error(at, "no request can have this path and query")
                .help("write them percent-encoded, as they are sent: `a%20b` for `a b`");
            None
        }
    }
}

fn headers(
    written: Option<&Named<OneOrMany<Located<String>>>>,
    report: &mut Report,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    for (key, values) in written.iter().flat_map(|named| &named.0) {
        let Ok(name) = key.text.parse::<HeaderName>() else {
            report.error(key.place, format!("`{}` cannot be the name of a header", key.text));
            continue;
        };
        for value in values.iter().flat_map(|values| &values.0) {
            // What arrived in UTF-8 is written as the text that it was.
            match HeaderValue::from_bytes(value.value.as_bytes()) {
                Ok(value) => headers.push((name.clone(), value)),
                Err(_) => {
                    report.error(value.place, format!("{:?} cannot be the value of a header", value.shown()));
                }
            }
        }
    }
    headers
}

fn directory(
    written: Option<&Named<Option<Known>>>,
    report: &mut Report,
) -> BTreeMap<TenantId, Option<TenantSchema>> {
    let mut directory = BTreeMap::new();
    for (key, known) in written.iter().flat_map(|named| &named.0) {
        let id = match key.text.parse::<TenantId>() {
            Ok(id) => id,
            Err(error) => {
                report.error(key.place, error.to_string());
                continue;
            }
        };
        match known {
            Some(Some(known)) => {
                directory.extend(known.schema.get().map(|schema| (id, Some(schema.value.clone()))));
            }
            Some(None) => drop(directory.insert(id, None)),
            None => {}
        }
    }
    directory
}

fn answer(written: &Expect, report: &mut Report) -> Option<CaseAnswer> {
    let Expect { tenant, headers, upstream, reason, next, deny, failure, place, sound } = written;
    let answers = [tenant.is_some(), next.is_some(), deny.is_some(), failure.is_some()];
    if answers.into_iter().filter(|given| *given).count() != 1 {
        if *sound {
            report.error(*place, "a case expects exactly one of `tenant`, `next`, `deny` and `failure`");
        }
        return None;
    }
    if let Some(tenant) = tenant {
        return Some(CaseAnswer::Place(Placement {
            tenant: tenant.value.clone(),
            headers: self::headers(headers.as_ref(), report),
            upstream: upstream.as_ref().map(|upstream| upstream.value.clone()),
            reason: reason.as_ref().map(|reason| reason.value.clone()),
        }));
    }
    let of_placement: [(&str, Option<Place>); 3] = [
        ("headers", headers.as_ref().map(|_| *place)),
        ("upstream", upstream.as_ref().map(|upstream| upstream.place)),
        ("reason", reason.as_ref().map(|reason| reason.place)),
    ];
    for (key, at) in of_placement {
        if let Some(at) = at {
            report.error(at, format!("`{key}` is part of a placement: it needs `tenant`"));
        }
    }
    if let Some(next) = next {
        if !next.value {
            report.error(next.place, "`next: false` says nothing: expect a `tenant`, `deny` or `failure`");
        }
        return Some(CaseAnswer::Next);
    }
    if let Some(deny) = deny {
        let text = |given: &Option<Located<String>>| given.as_ref().map(|text| text.value.clone());
        return Some(CaseAnswer::Deny {
            status: deny.status.get()?.value,
            code: text(&deny.code),
            message: text(&deny.message),
        });
    }
    failure.as_ref().map(|class| CaseAnswer::Failure(class.value.clone()))
}
