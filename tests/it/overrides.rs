//! Placement overrides through a whole gateway: above every resolver and plugin, and while they fail.

use std::net::SocketAddr;

use futures_util::future::join_all;
use http::Method;
use innkeeper::telemetry::ResultLabel;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::plugins::guest;
use crate::support::gateway::{Harness, Reply, TestGateway, until};
use crate::support::raw_upstream::RawUpstream;

/// Upstreams that answer with their own names.
struct Town {
    houses: Vec<(&'static str, RawUpstream)>,
}

impl Town {
    async fn build(names: &[&'static str]) -> Self {
        let mut houses = Vec::new();
        for name in names {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
            let house = RawUpstream::start(move |mut exchange| {
                let answer = answer.clone();
                async move {
                    while exchange.request().await.is_some() {
                        exchange.send(&answer).await;
                    }
                }
            });
            houses.push((*name, house.await));
        }
        Self { houses }
    }

    fn policy(&self, rest: &str) -> String {
        let upstreams: Vec<_> =
            self.houses.iter().map(|(name, house)| upstream(name, house.address)).collect();
        format!(
            "version: 1\nupstreams: {{ {} }}\ntenants: {{ list: [ {{ id: acme, schema: acme }}, \
             {{ id: globex, schema: globex }} ] }}\n{rest}\n",
            upstreams.join(", ")
        )
    }
}

fn upstream(name: &str, address: SocketAddr) -> String {
    format!("{name}: {{ endpoints: [ 'http://{address}' ] }}")
}

const BY_HEADER: &str = "routes: [ { name: app, tenant: { header: X-Tenant-ID }, forward: app } ]";

async fn start(town: &Town, overrides: &str) -> TestGateway {
    Harness::new().policy(&town.policy(&format!("overrides: {overrides}\n{BY_HEADER}"))).start().await
}

async fn ask(gateway: &TestGateway, tenant: &str) -> Reply {
    gateway.get("/").tenant(tenant).send().await
}

#[tokio::test]
async fn an_override_goes_before_the_route() {
    let town = Town::build(&["app", "canary", "sandbox"]).await;
    let gateway = start(
        &town,
        "{ list: [ { id: incident, tenant: acme, upstream: canary, reason: 'INC-1' },
           { tenant: '*', upstream: sandbox, header: X-Canary },
           { tenant: globex, refuse: true, until: 2001-01-01T00:00:00Z } ] }",
    )
    .await;
    assert_eq!(ask(&gateway, "acme").await.text(), "canary");
    assert_eq!(ask(&gateway, "globex").await.text(), "app");
    let canary = gateway.get("/").tenant("globex").header("x-canary", "1").send().await;
    assert_eq!(canary.text(), "sandbox");
    let records = gateway.records(|record| record["override"] == "incident").await;
    assert_eq!((records.len(), &records[0]["tenant"]), (1, &Value::from("acme")));
    let shown = gateway.admin("/overrides").send().await.json();
    let in_force: Vec<_> =
        shown["overrides"].as_array().unwrap().iter().map(|one| &one["in_force"]).collect();
    assert_eq!(in_force, [true, true, false]);
    assert_eq!(shown["overrides"][0]["reason"], "INC-1");
}

#[tokio::test]
async fn a_tenant_is_refused_or_kept_in_quarantine() {
    let town = Town::build(&["app", "sandbox"]).await;
    let policy = town.policy(
        "overrides: { list: [ { tenant: acme, quarantine: sandbox }, { tenant: globex, refuse: true } ] }\n\
         databases: { main: { url: 'postgres://nobody@127.0.0.1:9/none' } }\n\
         routes:\n  - { name: one, match: { path: /one }, tenant: { header: X-Tenant-ID }, \
         query: { database: main, sql: select 1 } }\n  - { name: app, tenant: { header: X-Tenant-ID }, forward: app }",
    );
    let gateway = Harness::new().policy(&policy).start().await;
    assert_eq!(ask(&gateway, "acme").await.text(), "sandbox");
    let query = gateway.get("/one").tenant("acme").send().await;
    assert_eq!((query.status(), query.code().as_str()), (403, "tenant-suspended"));
    let refused = ask(&gateway, "globex").await;
    assert_eq!((refused.status(), refused.code().as_str()), (403, "tenant-suspended"));
}

#[tokio::test]
async fn a_tenant_has_its_own_few_of_many() {
    let town = Town::build(&["app", "one", "two", "three", "four"]).await;
    let gateway =
        start(&town, "{ list: [ { tenant: '*', upstreams: [ one, two, three, four ], choose: 2 } ] }").await;
    let mut served = Vec::new();
    for _ in 0..8 {
        served.push(ask(&gateway, "acme").await.text());
    }
    let first: Vec<_> = served.iter().filter(|name| **name == served[0]).collect();
    let second: Vec<_> = served.iter().filter(|name| **name == served[1]).collect();
    assert_eq!((first.len(), second.len()), (4, 4), "{served:?}");
}

#[tokio::test]
async fn an_override_serves_while_the_plugin_fails() {
    let town = Town::build(&["app", "spare"]).await;
    let policy = town.policy(
        "plugins: { broken: { path: trap.wasm }, next: { path: trap.wasm, on_failure: next } }\n\
         overrides:\n  list:\n    - { tenant: acme, upstream: spare, if_unresolved: { host: acme.example.com } }\n    \
         - { tenant: nobody, upstream: spare, if_unresolved: { host: nobody.example.com } }\n\
         routes:\n  - { name: header, match: { path: /by-header }, tenant: { header: X-Tenant-ID }, forward: app }\n  \
         - { name: all, match: { path: /all }, tenant: { all: [ { header: X-Tenant-ID }, { plugin: broken } ] }, \
         forward: app }\n  - { name: next, match: { path: /next }, tenant: { first: [ { plugin: next }, \
         { header: X-Tenant-ID } ] }, forward: app }\n  \
         - { name: plugin, tenant: { plugin: broken }, forward: app }",
    );
    let gateway = Harness::new().policy(&policy).file("trap.wasm", guest("trap")).start().await;
    let served = gateway.get("/").host("acme.example.com").send().await;
    assert_eq!((served.status(), served.text().as_str()), (200, "spare"));
    let records = gateway.records(|record| record["resolver"] == "override").await;
    assert_eq!(records[0]["tenant"], "acme");
    let other = gateway.get("/").host("other.example.com").send().await;
    assert_eq!((other.status(), other.code().as_str()), (503, "plugin-failed"));
    // The directory still has to know the tenant.
    let unknown = gateway.get("/").host("nobody.example.com").send().await;
    assert_eq!((unknown.status(), unknown.code().as_str()), (404, "tenant-unknown"));
    // Where a resolver answers, its word counts, and no word is no failure.
    let named = gateway.get("/by-header").host("acme.example.com").tenant("globex").send().await;
    assert_eq!((named.status(), named.text().as_str()), (200, "app"));
    let next = gateway.get("/next").host("acme.example.com").tenant("globex").send().await;
    assert_eq!((next.status(), next.text().as_str()), (200, "app"));
    let last = gateway.get("/next").host("acme.example.com").send().await;
    assert_eq!((last.status(), last.text().as_str()), (200, "spare"));
    let agreed = gateway.get("/all").host("acme.example.com").tenant("acme").send().await;
    assert_eq!((agreed.status(), agreed.text().as_str()), (200, "spare"));
    let contradicted = gateway.get("/all").host("acme.example.com").tenant("globex").send().await;
    assert_eq!((contradicted.status(), contradicted.code().as_str()), (400, "tenant-ambiguous"));
    let missing = gateway.get("/by-header").host("acme.example.com").send().await;
    assert_eq!((missing.status(), missing.code().as_str()), (400, "tenant-missing"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_held_is_served_where_its_tenant_went() {
    let town = Town::build(&["app", "elsewhere"]).await;
    let policy = town.policy(&format!("overrides: {{ file: overrides.yaml }}\n{BY_HEADER}"));
    let gateway = Harness::new()
        .policy(&policy)
        .file("overrides.yaml", "- { id: move, tenant: acme, hold: 2m }\n")
        .start()
        .await;
    let held = join_all((0..30).map(|_| ask(&gateway, "acme")));
    let moved = async {
        let store = gateway.sidecar.reloader.store();
        until(|| store.load().overrides().iter().any(|one| one.holding() == 30)).await;
        assert_eq!(ask(&gateway, "globex").await.text(), "app");
        gateway.replace_file("overrides.yaml", "- { tenant: acme, upstream: elsewhere }\n");
    };
    let (held, ()) = tokio::join!(held, moved);
    assert!(held.iter().all(|reply| (reply.status(), reply.text().as_str()) == (200, "elsewhere")));
    let records = gateway.records(|record| record["tenant"] == "acme").await;
    assert!(records.iter().all(|record| record["generation"] == 2), "{records:?}");
}

#[tokio::test]
async fn what_is_held_in_vain_is_told_to_come_back() {
    let town = Town::build(&["app"]).await;
    let gateway = start(&town, "{ list: [ { tenant: acme, hold: 30ms } ] }").await;
    let held = ask(&gateway, "acme").await;
    assert_eq!((held.status(), held.code().as_str()), (503, "tenant-held"));
    assert_eq!(held.header("retry-after"), Some("5"));
}

#[tokio::test]
async fn an_operator_overrides_for_a_while() {
    let town = Town::build(&["app", "spare"]).await;
    let gateway = start(&town, "{ list: [] }").await;
    let post = |path: &str| gateway.admin(path).method(Method::POST).send();
    for (path, says) in [
        ("/overrides?tenant=acme&upstream=spare", "say for how long"),
        ("/overrides?tenant=acme&upstream=sapre&for=1h", "unknown upstream `sapre`"),
        ("/overrides?tenant=acme&for=1h", "exactly one thing"),
        ("/overrides?tenant=acme&upstream=spare&for=soon", "no time"),
        ("/overrides?upstream=spare&for=1h", "needs the key `tenant`"),
    ] {
        let refused = post(path).await;
        assert_eq!(refused.status(), 400, "{path}");
        assert!(refused.text().contains(says), "{path}: {}", refused.text());
    }
    let given = post("/overrides?tenant=acme&upstream=spare&for=1h&reason=INC-2").await.json();
    assert_eq!((&given["id"], &given["reason"]), (&Value::from("temporary-1"), &Value::from("INC-2")));
    assert_eq!(ask(&gateway, "acme").await.text(), "spare");
    // It outlives the policy that it was given beside.
    gateway.write_policy(&town.policy(&format!("# changed\n{BY_HEADER}")));
    gateway.until_generation(3).await;
    assert_eq!(ask(&gateway, "acme").await.text(), "spare");
    let end = async || gateway.admin("/overrides/temporary-1").method(Method::DELETE).send().await.status();
    assert_eq!((end().await, end().await), (200, 404));
    assert_eq!(ask(&gateway, "acme").await.text(), "app");
    post("/overrides?tenant=acme&refuse=true&for=20ms").await;
    while ask(&gateway, "acme").await.status() == 403 {}
    assert_eq!(ask(&gateway, "acme").await.text(), "app");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_is_never_felt() {
    let town = Town::build(&["app"]).await;
    let (sender, mut copies) = mpsc::unbounded_channel();
    // It takes every request and never answers.
    let shadow = RawUpstream::start(move |mut exchange| {
        let sender = sender.clone();
        async move {
            sender.send(exchange.request().await.unwrap()).unwrap();
            exchange.closed().await;
        }
    })
    .await;
    let policy = town
        .policy(
            "overrides: { list: [ { tenant: acme, mirror: shadow } ] }\nroutes: [ { name: app, \
             tenant: { header: X-Tenant-ID }, forward: { upstream: app, ticket: 10s } } ]",
        )
        .replace(
            "upstreams: {",
            &format!(
                "upstreams: {{ shadow: {{ endpoints: [ 'http://{}' ], response_timeout: 1h }},",
                shadow.address
            ),
        );
    let gateway = Harness::new().policy(&policy).start().await;
    for _ in 0..100 {
        assert_eq!(ask(&gateway, "acme").await.text(), "app");
        let posted = gateway.post("/").tenant("acme").send().await;
        assert_eq!(posted.text(), "app");
    }
    let dropped = gateway.sidecar.metrics.mirrored.get_or_create(&ResultLabel { result: "dropped" }).get();
    assert_eq!(dropped, 100 - 64);
    for _ in 0..64 {
        let head = copies.recv().await.unwrap().to_ascii_lowercase();
        assert!(head.starts_with("get ") && head.contains("\r\nx-tenant-id: acme\r\n"), "{head}");
        assert!(!head.contains("x-tenant-ticket"), "{head}");
    }
    assert_eq!(shadow.connections(), 64);
}

#[tokio::test]
async fn what_an_override_cannot_mean_is_named_at_its_line() {
    for (one, says) in [
        ("{ tenant: acme }", "an override does exactly one thing"),
        ("{ tenant: acme, upstream: app, refuse: true }", "an override does exactly one thing"),
        ("{ upstream: app }", "an override needs the key `tenant`"),
        ("{ tenant: acme, upstream: nowhere }", "unknown upstream `nowhere`"),
        ("{ tenant: acme, refuse: true, percent: 5 }", "`percent` belongs to `upstream` and `mirror`"),
        ("{ tenant: acme, upstreams: [ app ], choose: 2 }", "2 of 1 upstreams cannot be chosen"),
        ("{ tenant: '*', refuse: true, if_unresolved: { host: a.b } }", "this override is for everyone"),
        ("{ tenant: acme, refuse: true, if_unresolved: { methods: GET } }", "would take every request"),
        ("{ tenant: acme, hold: 10m }", "a request is held for at most 300s"),
        ("{ tenant: acme, refuse: true, until: tomorrow }", "expected a time in UTC"),
        ("{ tenant: acme, upstream: app, percent: 0 }", "a percentage is above 0"),
    ] {
        let town = Town { houses: Vec::new() };
        let policy = town
            .policy(&format!("overrides:\n  list:\n    - {one}\n{BY_HEADER}"))
            .replace("upstreams: {", "upstreams: { app: { endpoints: [ 'http://127.0.0.1:9' ] }");
        let Err(error) = Harness::new().policy(&policy).try_start().await else { panic!("{one}") };
        let error = error.to_string();
        assert!(error.contains(says) && error.contains("policy.yaml:6:"), "{one}: {error}");
    }
}
