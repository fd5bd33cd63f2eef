//! Routes: what they match, how they find the tenant, and what they do.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Scope, assertion, certificate, keys, matching, queries, rewrite, settings, shadow, sql};
use crate::policy::diagnostic::Report;
use crate::policy::document;
use crate::policy::source::Place;
use crate::policy::word::ConnectionStringPart;
use crate::policy::{Forward, Resolver, Route, Target, TenantRule};
use crate::upgrade;

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
        let is_endpoint = (route.query.is_some() || route.sql.is_some()) && route.forward.is_none();
        let pattern = matching::route_match(route.r#match.as_ref(), is_endpoint, &scope.listen, report);
        let tenant =
            route.tenant.get().and_then(|rule| tenant_rule(rule, route.sql.is_some(), scope, report));
        check_tenants_exist(route, scope, report);
        let verify = route.verify.as_ref().map(|verify| keys::token(&verify.0, &scope.keys, report));
        let target = target(route, pattern.as_ref(), scope, report);
        if let Some(pattern) = &pattern {
            matches.push((route, pattern.clone()));
        }
        let resolved = || {
            Some(Route {
                name: route.name.get()?.value.as_str().into(),
                matches: pattern?,
                tenant: tenant?,
                verify: verify.map_or(Some(None), |verify| verify.map(Some))?,
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
    if let (Some(schema), None) = (&route.schema, &route.query) {
        report
            .error(schema.place, "`schema` belongs to a query: no other target has one of its own")
            .help("remove it");
    }
    match (&route.forward, &route.query, &route.sql) {
        (Some(written), None, None) => forward(route, written, pattern, scope, report).map(Target::Forward),
        (None, Some(query), None) => {
            queries::resolve(route, query, pattern, scope, report).map(|query| Target::Query(Arc::new(query)))
        }
        (None, None, Some(endpoint)) => {
            sql::resolve(route, endpoint, scope, report).map(|endpoint| Target::Sql(Arc::new(endpoint)))
        }
        (None, None, None) => {
            report
                .error(route.place, "the route has no target")
                .help("add `forward: UPSTREAM`, `query: { … }` or `sql: { … }`");
            None
        }
        (_, Some(query), _) => several_targets(query.place, report),
        (_, None, Some(endpoint)) => several_targets(endpoint.place, report),
    }
}

fn several_targets(place: Place, report: &mut Report) -> Option<Target> {
    report
        .error(place, "a route has one target: one of `forward`, `query` and `sql`")
        .help("make a route of each");
    None
}

fn forward(
    route: &document::Route,
    written: &document::Forward,
    pattern: Option<&crate::policy::RouteMatch>,
    scope: &Scope,
    report: &mut Report,
) -> Option<Forward> {
    let upstream = scope.upstreams.find(&written.upstream, report);
    let Some(settings) = &written.settings else {
        let (upstream, upgrade) = (upstream?, vec![upgrade::Protocol::websocket()]);
        return Some(Forward { upstream, ticket: None, upgrade, assertion: None, rewrite: None });
    };
    let has_tenant = !matches!(route.tenant.get(), Some(document::TenantRule::None));
    let only_with_tenant = [
        settings.ticket.as_ref().map(|ticket| ("ticket", ticket.place)),
        settings.assertion.as_ref().map(|assertion| ("assertion", assertion.place)),
    ];
    for (key, place) in only_with_tenant.into_iter().flatten().filter(|_| !has_tenant) {
        report
            .error(place, format!("a route with `tenant: none` has no tenant to give a {key} for"))
            .help(format!("remove `{key}`"));
    }
    let upstream = upstream?;
    let names = rewrite::Names { tenant: has_tenant, path: pattern.map(|pattern| &pattern.path) };
    Some(Forward {
        upgrade: upgrades(settings.upgrade.as_ref()),
        upstream,
        ticket: settings.ticket.as_ref().map(|ticket| ticket.value),
        assertion: settings.assertion.as_ref().and_then(assertion::resolve),
        rewrite: rewrite::resolve(settings, &names, report).map(Arc::new),
    })
}

fn upgrades(written: Option<&document::Upgrades>) -> Vec<upgrade::Protocol> {
    match written {
        None => vec![upgrade::Protocol::websocket()],
        Some(document::Upgrades(written)) => written.iter().map(|protocol| protocol.value.clone()).collect(),
    }
}

fn tenant_rule(
    rule: &document::TenantRule,
    is_sql: bool,
    scope: &Scope,
    report: &mut Report,
) -> Option<TenantRule> {
    let mut all = |resolvers: &[document::Resolver]| {
        let resolved: Vec<_> = resolvers.iter().map(|one| resolver(one, is_sql, scope, report)).collect();
        resolved.into_iter().collect::<Option<Vec<_>>>()
    };
    match rule {
        document::TenantRule::None => Some(TenantRule::None),
        document::TenantRule::One(one) => all(std::slice::from_ref(one.as_ref())).map(TenantRule::First),
        document::TenantRule::First(resolvers) => all(resolvers).map(TenantRule::First),
        document::TenantRule::All(resolvers) => all(resolvers).map(TenantRule::All),
    }
}

fn resolver(
    written: &document::Resolver,
    is_sql: bool,
    scope: &Scope,
    report: &mut Report,
) -> Option<Resolver> {
    let document::Resolver {
        header,
        host,
        path,
        query,
        cookie,
        plugin,
        connection_string,
        ticket,
        jwt,
        api_key,
        client_certificate,
        place,
        sound,
    } = written;
    let given = [
        header.is_some(),
        host.is_some(),
        path.is_some(),
        query.is_some(),
        cookie.is_some(),
        plugin.is_some(),
        connection_string.is_some(),
        ticket.is_some(),
        jwt.is_some(),
        api_key.is_some(),
        client_certificate.is_some(),
    ];
    match given.into_iter().filter(|given| *given).count() {
        1 => {}
        // Its key is unknown or its value is broken: reported where it was read.
        0 => {
            if *sound {
                report.error(*place, "this resolver is empty").help(
                    "name one of `header`, `host`, `path`, `query`, `cookie`, `jwt`, `api_key`, \
                         `client_certificate`, `plugin`, `ticket` and `connection_string`",
                );
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
    if let Some(header) = ticket {
        return Some(Resolver::Ticket(header.value.clone()));
    }
    if let Some(claim) = jwt {
        return keys::jwt(claim, &scope.keys, report);
    }
    if let Some(key) = api_key {
        return keys::api_key(key, &scope.keys, report);
    }
    if let Some(certificate) = client_certificate {
        return certificate::resolve(certificate, &scope.keys, report);
    }
    if let Some(part) = connection_string {
        if !is_sql {
            report
                .error(part.place, "only a route with `sql` is sent a connection string")
                .help("find the tenant in another way: `header: X-Tenant-ID`");
        }
        let ConnectionStringPart::User = part.value;
        return Some(Resolver::ConnectionStringUser);
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
