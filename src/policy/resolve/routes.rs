//! Routes: what they match, how they find the tenant, and what they do.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Scope, matching, queries, settings, shadow};
use crate::policy::diagnostic::Report;
use crate::policy::document;
use crate::policy::{Resolver, Route, Target, TenantRule};

pub(super) fn resolve(written: &[document::Route], scope: &Scope, report: &mut Report) -> Vec<Arc<Route>> {
    let mut names = HashMap::new();
    let mut routes = Vec::new();
    let mut matches = Vec::new();
    for route in written {
        if let Some(name) = route.name.get() {
            settings::check_text("route", &name.value, name.shown(), name.place, report);
            if let Some(first) = names.insert(name.value.clone(), name.place) {
                report
                    .error(name.place, format!("two routes have the name `{}`", name.shown()))
                    .also(first, "the first one")
                    .help("give each route its own name");
            }
        }
        let is_query = route.query.is_some() && route.forward.is_none();
        let pattern = matching::route_match(route.r#match.as_ref(), is_query, report);
        let tenant = route.tenant.get().and_then(|rule| tenant_rule(rule, scope, report));
        check_tenants_exist(route, scope, report);
        let target = target(route, pattern.as_ref(), scope, report);
        if let Some(pattern) = &pattern {
            matches.push((route, pattern.clone()));
        }
        let resolved = || {
            Some(Route {
                name: route.name.get()?.value.as_str().into(),
                matches: pattern?,
                tenant: tenant?,
                target: target?,
            })
        };
        routes.extend(resolved().map(Arc::new));
    }
    shadow::check(&matches, report);
    routes
}

fn check_tenants_exist(route: &document::Route, scope: &Scope, report: &mut Report) {
    let serves_tenants = !matches!(route.tenant.get(), None | Some(document::TenantRule::None));
    if serves_tenants && !scope.has_tenants {
        let place = route.name.get().map_or(route.place, |name| name.place);
        let name = route.name.get().map_or("", |name| name.shown());
        report
            .error(place, format!("the route `{name}` serves tenants, but the policy has no `tenants`"))
            .help("say where tenants are looked up: `tenants: { list: [ { id: acme, schema: acme } ] }`");
    }
}

fn target(
    route: &document::Route,
    pattern: Option<&crate::policy::RouteMatch>,
    scope: &Scope,
    report: &mut Report,
) -> Option<Target> {
    match (&route.forward, &route.query) {
        (Some(upstream), None) => {
            if let Some(schema) = &route.schema {
                report
                    .error(schema.place, "`schema` belongs to a query: a forwarded request has none")
                    .help("remove it");
            }
            scope.upstreams.find(upstream, report).map(Target::Forward)
        }
        (None, Some(query)) => {
            queries::resolve(route, query, pattern, scope, report).map(|query| Target::Query(Arc::new(query)))
        }
        (Some(_), Some(query)) => {
            report
                .error(query.place, "a route has one target: either `forward` or `query`, not both")
                .help("make two routes of it");
            None
        }
        (None, None) => {
            report
                .error(route.place, "the route has no target")
                .help("add `forward: UPSTREAM` or `query: { … }`");
            None
        }
    }
}

fn tenant_rule(rule: &document::TenantRule, scope: &Scope, report: &mut Report) -> Option<TenantRule> {
    let mut all = |resolvers: &[document::Resolver]| {
        let resolved: Vec<_> = resolvers.iter().map(|one| resolver(one, scope, report)).collect();
        resolved.into_iter().collect::<Option<Vec<_>>>()
    };
    match rule {
        document::TenantRule::None => Some(TenantRule::None),
        document::TenantRule::One(one) => all(std::slice::from_ref(one.as_ref())).map(TenantRule::First),
        document::TenantRule::First(resolvers) => all(resolvers).map(TenantRule::First),
        document::TenantRule::All(resolvers) => all(resolvers).map(TenantRule::All),
    }
}

fn resolver(written: &document::Resolver, scope: &Scope, report: &mut Report) -> Option<Resolver> {
    let document::Resolver { header, host, path, query, cookie, plugin, place, sound } = written;
    let given = [
        header.is_some(),
        host.is_some(),
        path.is_some(),
        query.is_some(),
        cookie.is_some(),
        plugin.is_some(),
    ];
    match given.into_iter().filter(|given| *given).count() {
        1 => {}
        // Its key is unknown or its value is broken: reported where it was read.
        0 => {
            if *sound {
                report
                    .error(*place, "this resolver is empty")
                    .help("name one of `header`, `host`, `path`, `query`, `cookie` and `plugin`");
            }
            return None;
        }
        _ => {
            report
                .error(*place, "a resolver reads the tenant from one place, but this one names several")
                .help("say how they go together: `first: [ … ]` or `all: [ … ]`");
            return None;
        }
    }
    if let Some(header) = header {
        return Some(Resolver::Header(header.value.clone()));
    }
    if let Some(host) = host {
        return matching::tenant_host(host, report).map(Resolver::Host);
    }
    if let Some(path) = path {
        return matching::tenant_path(path, report).map(Resolver::Path);
    }
    if let Some(plugin) = plugin {
        return scope.plugins.find(plugin, report).map(Resolver::Plugin);
    }
    let (what, name) = match (query, cookie) {
        (Some(name), _) => ("a field of the query string", name),
        (None, Some(name)) => ("a cookie", name),
        (None, None) => return None,
    };
    if name.value.is_empty() {
        report.error(name.place, format!("the name of {what} must not be empty"));
        return None;
    }
    Some(match query {
        Some(_) => Resolver::Query(name.value.clone()),
        None => Resolver::Cookie(name.value.clone()),
    })
}
