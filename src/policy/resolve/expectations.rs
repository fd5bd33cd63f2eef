//! Inline tests: sample requests as HTTP types, and what is expected of them.

use std::collections::HashSet;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use crate::policy::decode::Located;
use crate::policy::diagnostic::Report;
use crate::policy::document::{Expect, Request, Route, Test};
use crate::policy::source::Sources;
use crate::policy::{Excerpt, Expectation, Expected, SampleRequest};

pub(super) fn resolve(
    tests: &[Test],
    routes: &[Route],
    sources: &Sources,
    report: &mut Report,
) -> Vec<Expectation> {
    let mut names = HashSet::new();
    let mut resolved = Vec::new();
    for test in tests {
        if let Some(name) = test.name.get()
            && !names.insert(&name.value)
        {
            report
                .error(name.place, format!("two tests have the name `{}`", name.shown()))
                .help("give each test its own name");
        }
        let request = test.request.get().and_then(|request| sample(request, report));
        let expected = test.expect.get().and_then(|expect| expected(expect, routes, report));
        if let (Some(name), Some(request), Some(expected)) = (test.name.get(), request, expected) {
            let at = Excerpt::of(name.place, sources, &[]);
            resolved.push(Expectation { name: name.value.clone(), at, request, expected });
        }
    }
    resolved
}

fn sample(request: &Request, report: &mut Report) -> Option<SampleRequest> {
    let mut headers = HeaderMap::new();
    for (key, value) in request.headers.iter().flat_map(|named| &named.0) {
        let Ok(name) = key.text.parse::<HeaderName>() else {
            report.error(key.place, format!("`{}` cannot be the name of a header", key.text));
            continue;
        };
        let Some(value) = value else { continue };
        match HeaderValue::from_str(&value.value) {
            Ok(value) => drop(headers.append(name, value)),
            Err(_) => {
                report.error(value.place, format!("`{}` cannot be the value of a header", value.shown()));
            }
        }
    }
    let path = request.path.get()?;
    let Some(uri) = target(path) else {
        report
            .error(path.place, format!("`{}` is not a path", path.shown()))
            .help("it starts with `/`, and may have a query: `/api/buildings?q=a`");
        return None;
    };
    Some(SampleRequest {
        method: request.method.as_ref().map_or(Method::GET, |method| method.value.clone()),
        uri,
        host: request.host.as_ref().map_or_else(|| "localhost".to_owned(), |host| host.value.clone()),
        headers,
        listener: request.listener.as_ref().map(|listener| listener.value.clone()),
    })
}

fn target(path: &Located<String>) -> Option<Uri> {
    if !path.value.starts_with('/') || path.value.contains('#') {
        return None;
    }
    path.value.parse::<http::uri::PathAndQuery>().ok().map(Uri::from)
}

fn expected(expect: &Expect, routes: &[Route], report: &mut Report) -> Option<Expected> {
    let Expect { route, tenant, schema, error, status, place, sound } = expect;
    let nothing =
        route.is_none() && tenant.is_none() && schema.is_none() && error.is_none() && status.is_none();
    if nothing {
        if *sound {
            report
                .error(*place, "this test expects nothing, so it cannot fail")
                .help("expect a `route`, `tenant`, `schema`, `error` or `status`");
        }
        return None;
    }
    if let Some(route) = route
        && !routes.iter().filter_map(|known| known.name.get()).any(|name| name.value == route.value)
    {
        report
            .error(route.place, format!("unknown route `{}`", route.shown()))
            .suggest(route.shown(), routes.iter().filter_map(|route| Some(route.name.get()?.shown())));
    }
    let text = |given: &Option<Located<String>>| given.as_ref().map(|text| text.value.clone());
    Some(Expected {
        route: text(route),
        tenant: text(tenant).map(|tenant| (tenant != "none").then_some(tenant)),
        schema: text(schema),
        error: text(error),
        status: status.as_ref().map(|status| status.value.as_u16()),
    })
}
