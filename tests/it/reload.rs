//! Reloading: what changes comes into force by itself, what is wrong changes nothing, and nobody
//! notices the moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::backend::Backend;
use crate::support::gateway::{Harness, TestGateway, until};

/// A policy whose generations can be told apart from outside: in number `n` the key `k` belongs, by
/// plugin, to `t0` or `t1` as `n` is even or odd, and that tenant's schema is `s{n}`.
fn numbered(backend: &Backend, n: u64) -> String {
    let t = n % 2;
    format!(
        "
version: 1
upstreams: {{ app: {{ endpoints: [ 'http://{}' ] }} }}
tenants: {{ list: [ {{ id: t{t}, schema: s{n} }}, {{ id: always, schema: always }} ] }}
plugins: {{ keys: {{ path: keys.wasm, config: {{ keys: {{ k: t{t} }} }}, limits: {{ time: 10s }} }} }}
routes:
  - {{ name: r{n}, tenant: {{ first: [ {{ plugin: keys }}, {{ header: X-Tenant-ID }} ] }}, forward: app }}
tests:
  - {{ name: the key, request: {{ path: /, headers: {{ X-Api-Key: k }} }}, expect: {{ tenant: t{t}, schema: s{n} }} }}
",
        backend.address
    )
}

fn legacy_keys() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/legacy-keys.wasm")).unwrap()
}

async fn start() -> (TestGateway, Backend) {
    let backend = Backend::start().await;
    let harness = Harness::new().file("keys.wasm", legacy_keys()).policy(&numbered(&backend, 1));
    (harness.start().await, backend)
}

/// The number of the policy that answers.
async fn number(gateway: &TestGateway) -> u64 {
    let reply = gateway.get("/").header("x-api-key", "k").send().await;
    assert_eq!(reply.status(), 200, "{}", reply.text());
    let seen = reply.json();
    let number_in = |name: &str| -> u64 { seen["headers"][name][0].as_str().unwrap()[1..].parse().unwrap() };
    let n = number_in("x-tenant-schema");
    // Plugin and directory of one generation, never of two.
    assert_eq!(number_in("x-tenant-id"), n % 2);
    n
}

#[tokio::test]
async fn a_changed_policy_comes_into_force_by_itself() {
    let (gateway, backend) = start().await;
    assert_eq!(number(&gateway).await, 1);
    gateway.write_policy(&numbered(&backend, 2));
    gateway.until_generation(2).await;
    assert_eq!(number(&gateway).await, 2);
    // Written in place this time, as a careless tool does.
    std::fs::write(gateway.path_of("policy.yaml"), numbered(&backend, 3)).unwrap();
    gateway.until_generation(3).await;
    assert_eq!(number(&gateway).await, 3);
}

#[tokio::test]
async fn a_broken_policy_changes_nothing_and_does_not_block_the_next() {
    let (gateway, backend) = start().await;
    let good = numbered(&backend, 1);
    let mut attempt = gateway.sidecar.reloader.last_attempt().at;
    for (broken, complaint) in [
        (good.replace("forward: app", "forward: ap"), "did you mean `app`"),
        (good.replace("expect: { tenant: t1", "expect: { tenant: always"), "the key"),
        (good.replace("path: keys.wasm", "path: missing.wasm"), "missing.wasm"),
        (good.replace("keys: { k: t1 }", "keys: 7"), "keys"),
        ("routes: [".to_owned(), "policy.yaml"),
        ("version: 1\n".to_owned(), "the policy has no routes"),
    ] {
        gateway.write_policy(&broken);
        let before = attempt;
        until(|| gateway.sidecar.reloader.last_attempt().at > before).await;
        let last = gateway.sidecar.reloader.last_attempt();
        attempt = last.at;
        let error = last.error.unwrap_or_default();
        assert!(error.contains(complaint), "{complaint:?} in\n{error}");
        assert_eq!(number(&gateway).await, 1);
        assert_eq!(gateway.admin("/readyz").send().await.status(), 200);
        let shown = gateway.admin("/policy").send().await.json();
        assert_eq!(shown["generation"], 1);
        assert!(shown["last_attempt"]["error"].as_str().unwrap().contains(complaint));
    }
    gateway.write_policy(&numbered(&backend, 2));
    gateway.until_generation(2).await;
    assert_eq!(number(&gateway).await, 2);
    assert_eq!(gateway.sidecar.reloader.last_attempt().error, None);
}

#[tokio::test]
async fn the_same_content_again_is_no_new_generation() {
    let (gateway, backend) = start().await;
    gateway.write_policy(&numbered(&backend, 1));
    gateway.sidecar.reloader.reload().await.unwrap();
    assert_eq!(gateway.sidecar.reloader.store().load().generation(), 1);
}

#[tokio::test]
async fn what_did_not_change_is_carried_over() {
    let (gateway, backend) = start().await;
    let before = gateway.sidecar.reloader.store().load();
    let renamed = numbered(&backend, 1).replace("name: r1", "name: renamed");
    gateway.write_policy(&renamed);
    gateway.until_generation(2).await;
    let after = gateway.sidecar.reloader.store().load();
    assert!(Arc::ptr_eq(&before.plugins()[0], &after.plugins()[0]));
    assert!(Arc::ptr_eq(before.upstream("app").unwrap(), after.upstream("app").unwrap()));
    // Another configuration is another plugin.
    gateway.write_policy(&numbered(&backend, 2));
    gateway.until_generation(3).await;
    let last = gateway.sidecar.reloader.store().load();
    assert!(!Arc::ptr_eq(&after.plugins()[0], &last.plugins()[0]));
}

#[tokio::test]
async fn a_replaced_plugin_file_comes_into_force_and_a_broken_one_does_not() {
    let (gateway, _backend) = start().await;
    let version = || gateway.sidecar.reloader.store().load().plugins()[0].version().to_string();
    let first = version();
    gateway.replace_file("keys.wasm", b"not a component");
    until(|| gateway.sidecar.reloader.last_attempt().error.is_some()).await;
    assert_eq!(number(&gateway).await, 1);
    // The same component with another custom section: another file, another version.
    gateway.replace_file("keys.wasm", with_custom_section(&legacy_keys(), 1));
    gateway.until_generation(2).await;
    assert_ne!(version(), first);
    assert_eq!(number(&gateway).await, 1);
}

/// Appends a custom section, which changes a component's hash and nothing else (WebAssembly
/// specification, binary format, custom section: id 0, size, name, contents).
fn with_custom_section(component: &[u8], number: u8) -> Vec<u8> {
    let mut changed = component.to_vec();
    changed.extend([0, 3, 1, b'n', number]);
    changed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hundreds_of_swaps_under_load_fail_no_request_and_free_what_they_replace() {
    const SWAPS: u64 = 200;
    const CLIENTS: usize = 16;
    let (gateway, backend) = start().await;
    let gateway = Arc::new(gateway);
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (gateway, over) = (Arc::clone(&gateway), Arc::clone(&over));
            tokio::spawn(async move {
                let (mut requests, mut newest) = (0_u64, 0_u64);
                while !over.load(Ordering::Relaxed) || requests == 0 {
                    let n = number(&gateway).await;
                    assert!(n >= newest, "an older generation came back");
                    newest = n;
                    requests += 1;
                }
                requests
            })
        })
        .collect();
    for n in 2..=SWAPS {
        std::fs::write(gateway.path_of("policy.yaml"), numbered(&backend, n)).unwrap();
        if n % 10 == 0 {
            let turn = u8::try_from(n / 10 % 2).unwrap();
            gateway.replace_file("keys.wasm", with_custom_section(&legacy_keys(), turn));
        }
        // The watcher races with this call for the turn; either brings the change into force.
        gateway.sidecar.reloader.reload().await.unwrap();
    }
    over.store(true, Ordering::Relaxed);
    let mut requests = 0;
    for client in clients {
        requests += client.await.unwrap();
    }
    assert!(requests > CLIENTS as u64, "{requests}");
    assert_eq!(number(&gateway).await, SWAPS);
    let store = gateway.sidecar.reloader.store();
    until(|| store.live().count == 1).await;
    let metrics = gateway.admin("/metrics").send().await.text();
    assert!(metrics.contains("innkeeper_live_generations 1\n"), "{metrics}");
}
