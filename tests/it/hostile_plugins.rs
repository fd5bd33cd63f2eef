//! Plugins at their worst behind a whole gateway: their requests get an error in time, or what the
//! next resolver says, and nobody else notices.

use serde_json::json;

use crate::plugins::guest;
use crate::support::backend::Backend;
use crate::support::gateway::{Harness, TestGateway};

const HOSTILE: [&str; 5] = ["loop-in-resolve", "memory-bomb", "trap", "stack-overflow", "bad-tenant"];

async fn start() -> (TestGateway, Backend) {
    let backend = Backend::start().await;
    let mut harness = Harness::new();
    let mut policy = format!(
        "version: 1\nupstreams: {{ app: {{ endpoints: [ 'http://{}' ] }} }}\n\
         tenants: {{ list: [ {{ id: acme, schema: acme }} ] }}\n",
        backend.address
    );
    let (mut plugins, mut routes) = ("plugins:\n".to_owned(), "routes:\n".to_owned());
    for name in HOSTILE {
        harness = harness.file(&format!("{name}.wasm"), guest(name));
        for on_failure in ["deny", "next"] {
            plugins.push_str(&format!(
                "  {name}-{on_failure}: {{ path: {name}.wasm, limits: {{ time: 300ms }}, on_failure: {on_failure} }}\n"
            ));
            routes.push_str(&format!(
                "  - name: {name}-{on_failure}\n    match: {{ path: /{on_failure}/{name} }}\n    \
                 tenant: {{ first: [ {{ plugin: {name}-{on_failure} }}, {{ header: X-Tenant-ID }} ] }}\n    \
                 forward: app\n"
            ));
        }
    }
    routes.push_str("  - { name: good, tenant: { header: X-Tenant-ID }, forward: app }\n");
    policy.push_str(&plugins);
    policy.push_str(&routes);
    (harness.policy(&policy).start().await, backend)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_plugin_costs_its_own_requests_only() {
    let (gateway, _backend) = start().await;
    let hostile = async {
        for name in HOSTILE {
            let denied = gateway.get(&format!("/deny/{name}")).tenant("acme").send().await;
            assert_eq!((denied.status(), denied.code().as_str()), (503, "plugin-failed"), "{name}");
            let next = gateway.get(&format!("/next/{name}")).tenant("acme").send().await;
            assert_eq!(next.status(), 200, "{name}: {}", next.text());
            assert_eq!(next.json()["headers"]["x-tenant-id"], json!(["acme"]));
            // Nobody else named a tenant: that the plugin failed is not the client's fault.
            let nobody = gateway.get(&format!("/next/{name}")).send().await;
            assert_eq!((nobody.status(), nobody.code().as_str()), (503, "plugin-failed"), "{name}");
        }
    };
    let others = async {
        for _ in 0..200 {
            assert_eq!(gateway.get("/").tenant("acme").send().await.status(), 200);
        }
    };
    tokio::join!(hostile, others);
    let records = gateway.records(|record| record["error"] == "plugin-failed").await;
    assert!(records.iter().all(|record| record["blame"] == "plugin"), "{records:?}");
    let metrics = gateway.admin("/metrics").send().await.text();
    for (plugin, class) in
        [("loop-in-resolve-deny", "deadline"), ("memory-bomb-deny", "memory"), ("trap-deny", "trap")]
    {
        let line = format!("innkeeper_plugin_calls_total{{plugin=\"{plugin}\",outcome=\"{class}\"}} 1");
        assert!(metrics.contains(&line), "{line} in\n{metrics}");
    }
}

#[tokio::test]
async fn a_plugin_that_cannot_be_run_is_named_at_its_line() {
    let policy = "version: 1\nupstreams: { app: { endpoints: [ 'http://127.0.0.1:9' ] } }\n\
        tenants: { list: [ { id: acme, schema: acme } ] }\nplugins:\n  one: { path: core.wasm }\n  \
        two: { path: missing.wasm }\nroutes:\n  - { name: all, tenant: { first: [ { plugin: one }, { plugin: two } ] }, forward: app }\n";
    let harness = Harness::new().file("core.wasm", guest("core-module")).policy(policy);
    let Err(error) = harness.try_start().await else { panic!("it started") };
    let error = error.to_string();
    for part in ["policy.yaml:5:16", "`one` cannot be run", "policy.yaml:6:16", "`two` cannot be read"] {
        assert!(error.contains(part), "{part} in\n{error}");
    }
}
