//! Versions of plugins: a broken one never replaces a working one nor blocks a good one, an operator
//! can go back, and a plugin that keeps failing is left alone for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use http::Method;
use innkeeper::plugin::version_of;
use innkeeper::snapshot::ActivePlugin;
use serde_json::{Value, json};

use crate::plugins::guest;
use crate::support::backend::Backend;
use crate::support::gateway::{Harness, PATIENCE, Reply, TestGateway, until};

/// Tenants of four letters: what a guest answers can be changed in its bytes.
const TENANTS: [&str; 4] = ["acme", "bolt", "corp", "dune"];

/// A plugin that traps on a request with a query, and places any other one with this tenant.
fn version(tenant: &str) -> Vec<u8> {
    let mut bytes = guest("trap-on-query");
    let at = bytes.windows(4).rposition(|window| window == b"acme").unwrap();
    bytes[at..at + 4].copy_from_slice(tenant.as_bytes());
    bytes
}

/// Two plugins, each behind its path, and a header behind either.
struct Scene {
    gateway: TestGateway,
    backend: Backend,
}

impl Scene {
    async fn start(settings: &str) -> Self {
        let backend = Backend::start().await;
        let policy = policy(&backend, settings, "");
        let harness = Harness::new().file("one.wasm", version("acme")).file("two.wasm", version("acme"));
        Self { gateway: harness.policy(&policy).start().await, backend }
    }

    fn write_policy(&self, settings: &str, tests: &str) {
        self.gateway.write_policy(&policy(&self.backend, settings, tests));
    }

    fn replace(&self, plugin: &str, bytes: impl AsRef<[u8]>) {
        self.gateway.replace_file(&format!("{plugin}.wasm"), bytes);
    }

    /// Replaces a plugin's file and waits until the version serves.
    async fn serve(&self, plugin: &str, bytes: &[u8]) {
        self.replace(plugin, bytes);
        let version = version_of(bytes);
        until(|| **self.active(plugin).version() == *version).await;
    }

    fn active(&self, plugin: &str) -> Arc<ActivePlugin> {
        Arc::clone(self.gateway.sidecar.reloader.store().load().plugin(plugin).unwrap())
    }

    async fn tenant(&self, path: &str) -> String {
        let reply = self.gateway.get(path).send().await;
        assert_eq!(reply.status(), 200, "{}", reply.text());
        reply.json()["headers"]["x-tenant-id"][0].as_str().unwrap().to_owned()
    }

    async fn shown(&self, plugin: &str) -> Value {
        self.gateway.admin(&format!("/plugins/{plugin}")).send().await.json()
    }

    async fn ask_admin(&self, method: Method, path: &str) -> Reply {
        self.gateway.admin(path).method(method).send().await
    }

    /// The number behind a metric's name and labels; nothing where there is none.
    async fn metric(&self, name: &str) -> Option<f64> {
        let metrics = self.gateway.admin("/metrics").send().await.text();
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        Some(value.parse().unwrap())
    }

    /// The record of an answered request.
    async fn record(&self, reply: &Reply) -> Value {
        let id = reply.header("x-request-id").unwrap().to_owned();
        self.gateway.records(|record| record["request_id"] == id.as_str()).await.remove(0)
    }

    /// What is wrong since the last good reload.
    async fn until_complaint(&self, words: &str) {
        until(|| self.gateway.sidecar.reloader.last_attempt().error.is_some_and(|e| e.contains(words))).await;
    }
}

fn policy(backend: &Backend, settings: &str, tests: &str) -> String {
    let tenants = TENANTS.map(|id| format!("{{ id: {id}, schema: s_{id} }}")).join(", ");
    format!(
        "
version: 1
upstreams: {{ app: {{ endpoints: [ 'http://{}' ] }} }}
tenants: {{ list: [ {tenants} ] }}
plugins:
  one: {{ path: one.wasm, limits: {{ time: 10s }}{settings} }}
  two: {{ path: two.wasm, limits: {{ time: 10s }} }}
routes:
  - {{ name: one, match: {{ path: /one }}, tenant: {{ first: [ {{ plugin: one }}, {{ header: X-Tenant-ID }} ] }}, forward: app }}
  - {{ name: two, match: {{ path: /two }}, tenant: {{ plugin: two }}, forward: app }}
{tests}",
        backend.address
    )
}

fn expect(plugin: &str, tenant: &str) -> String {
    format!(
        "  - {{ name: {plugin} names {tenant}, request: {{ path: /{plugin} }}, expect: {{ tenant: {tenant} }} }}\n"
    )
}

#[tokio::test]
async fn a_plugin_that_keeps_failing_is_not_asked_and_then_tried_again() {
    let scene = Scene::start(", breaker: { failures: 3, backoff: 1h, max_backoff: 1h }").await;
    for _ in 0..3 {
        let reply = scene.gateway.get("/one?fail").send().await;
        assert_eq!((reply.status(), reply.code().as_str()), (503, "plugin-failed"));
        let calls = &scene.record(&reply).await["plugin_calls"];
        assert_eq!(calls[0]["outcome"], "trap", "{calls}");
        assert_eq!(calls[0]["version"], version_of(&version("acme")));
    }
    // This one it would answer, if it were asked.
    let reply = scene.gateway.get("/one").send().await;
    assert_eq!((reply.status(), reply.code().as_str()), (503, "plugin-failed"));
    let record = scene.record(&reply).await;
    assert_eq!(record["plugin_calls"][0]["outcome"], "breaker-open");
    assert_eq!(record["plugin_calls"][0]["us"], 0);
    assert_eq!(record["blame"], "plugin");
    assert_eq!(scene.tenant("/two").await, "acme", "others do not notice");

    let shown = scene.shown("one").await;
    let active = &shown["active"];
    assert_eq!(active["calls"], json!({ "trap": 3, "breaker-open": 1 }));
    assert_eq!(active["breaker"]["state"], "open");
    assert!(active["breaker"]["tried_again_at"].is_string());
    assert_eq!(shown["last_failure"]["class"], "trap", "the cause, not its consequence");
    assert_eq!(scene.metric("innkeeper_plugin_breaker{plugin=\"one\"}").await, Some(1.0));
    assert_eq!(scene.metric("innkeeper_plugin_breaker{plugin=\"two\"}").await, Some(0.0));

    // A reload that keeps the version keeps its breaker, which does not stop the policy's tests.
    let settings = ", breaker: { failures: 3, backoff: 1h, max_backoff: 1h }";
    scene.write_policy(settings, &format!("tests:\n{}", expect("one", "acme")));
    scene.gateway.until_generation(2).await;
    assert_eq!(scene.gateway.get("/one").send().await.status(), 503);
    // Another version has a breaker of its own.
    scene.serve("one", &guest("good")).await;
    assert_eq!(scene.tenant("/one").await, "acme");
}

#[tokio::test]
async fn whoever_asks_a_failing_plugin_on_and_on_waits_for_its_refusal() {
    let scene = Scene::start(", breaker: { failures: 1, backoff: 1h, max_backoff: 1h }").await;
    let late = "innkeeper_plugin_refused_late_total{plugin=\"one\"}";
    let flood = async {
        while scene.metric(late).await.is_none() {
            let crowd = join_all((0..60).map(|_| scene.gateway.get("/one?fail").send())).await;
            assert!(crowd.iter().all(|reply| reply.status() == 503 && reply.code() == "plugin-failed"));
        }
    };
    tokio::time::timeout(PATIENCE, flood).await.expect("refusals without number come later");
    assert_eq!(scene.tenant("/two").await, "acme");
    assert_eq!(scene.metric("innkeeper_plugin_refused_late_total{plugin=\"two\"}").await, None);
}

#[tokio::test]
async fn a_plugin_that_recovers_is_asked_again() {
    let scene = Scene::start(", breaker: { failures: 2, backoff: 1ms, max_backoff: 2ms }").await;
    for _ in 0..20 {
        assert_eq!(scene.gateway.get("/one?fail").send().await.status(), 503);
    }
    let shown = scene.shown("one").await;
    assert!(shown["active"]["calls"]["trap"].as_u64() >= Some(2), "{shown}");
    loop {
        let reply = scene.gateway.get("/one").send().await;
        if reply.status() == 200 {
            break;
        }
        assert_eq!(reply.code(), "plugin-failed");
    }
    assert_eq!(scene.tenant("/one").await, "acme");
    assert_eq!(
        scene.shown("one").await["active"]["breaker"],
        json!({ "state": "closed", "failures_in_a_row": 0 })
    );
}

#[tokio::test]
async fn the_version_before_answers_where_the_active_one_fails() {
    let settings = ", on_failure: previous, breaker: { failures: 2, backoff: 1h, max_backoff: 1h }";
    let scene = Scene::start(settings).await;
    assert_eq!(scene.gateway.get("/one?fail").send().await.status(), 503, "there is no version before");
    let [first, second] = [guest("good"), version("bolt")];
    scene.serve("one", &first).await;
    scene.serve("one", &second).await;
    assert_eq!(scene.tenant("/one").await, "bolt");
    for outcome in ["trap", "trap", "breaker-open"] {
        let reply = scene.gateway.get("/one?fail").send().await;
        assert_eq!(reply.json()["headers"]["x-tenant-id"], json!(["acme"]));
        let record = scene.record(&reply).await;
        assert_eq!(record["plugin_version"], version_of(&first), "the version that really answered");
        let calls = &record["plugin_calls"];
        assert_eq!((&calls[0]["outcome"], &calls[1]["outcome"]), (&json!(outcome), &json!("place")));
        assert_eq!(calls[0]["version"], version_of(&second));
    }
    assert_eq!(scene.shown("one").await["previous"]["version"], version_of(&first));
    // One version before, never a chain.
    scene.serve("one", &version("corp")).await;
    let reply = scene.gateway.get("/one?fail").send().await;
    assert_eq!((reply.status(), reply.code().as_str()), (503, "plugin-failed"), "the one before fails too");
    let record = scene.record(&reply).await;
    assert_eq!(record["plugin_calls"].as_array().unwrap().len(), 2);
    let cause = record["cause"].as_str().unwrap();
    assert!(cause.contains(&version_of(&second)) && cause.contains("; then plugin"), "{cause}");
}

#[tokio::test]
async fn the_version_before_runs_under_the_present_settings() {
    let scene = Scene::start(", on_failure: previous").await;
    scene.serve("one", &version("bolt")).await;
    scene.write_policy(", on_failure: previous, config: { keys: {} }", "");
    scene.gateway.until_generation(3).await;
    let active = scene.active("one");
    let previous = active.previous().expect("it is kept");
    assert_eq!(**previous.version(), *version_of(&version("acme")));
    assert_eq!(previous.settings().config, r#"{"keys":{}}"#);
    // A pin says which file may run; no other does.
    let pin = version_of(&version("bolt"));
    scene.write_policy(&format!(", on_failure: previous, sha256: {pin}"), "");
    scene.gateway.until_generation(4).await;
    assert!(scene.active("one").previous().is_none());
    let refused = scene.ask_admin(Method::POST, "/plugins/one/rollback").await;
    assert_eq!(refused.status(), 409);
    assert!(refused.text().contains("pin-mismatch"), "{}", refused.text());
}

#[tokio::test]
async fn a_failure_is_in_the_record_of_a_request_that_another_resolver_placed() {
    let scene = Scene::start(", on_failure: next").await;
    let reply = scene.gateway.get("/one?fail").tenant("dune").send().await;
    assert_eq!(reply.status(), 200);
    let record = scene.record(&reply).await;
    assert_eq!((&record["resolver"], &record["tenant"]), (&json!("header"), &json!("dune")));
    assert_eq!(record["plugin"], Value::Null);
    let call = &record["plugin_calls"][0];
    assert_eq!((&call["plugin"], &call["outcome"]), (&json!("one"), &json!("trap")));
    assert!(call["us"].is_u64());
}

#[tokio::test]
async fn a_file_that_does_not_load_holds_back_its_plugin_only() {
    let scene = Scene::start("").await;
    let mut broken = version("bolt");
    broken.truncate(broken.len() / 2);
    for (bad, class) in [
        (&b"not a component"[..], "not-a-component"),
        (&broken, "compile-failed"),
        (&guest("missing-export"), "wrong-world"),
        (&guest("configure-error"), "configure-failed"),
    ] {
        scene.replace("one", bad);
        scene.until_complaint(class).await;
        assert_eq!(scene.tenant("/one").await, "acme");
        let held_back = &scene.shown("one").await["held_back"];
        assert_eq!((&held_back["class"], &held_back["version"]), (&json!(class), &json!(version_of(bad))));
        // Meanwhile the other one changes.
        let next = if scene.tenant("/two").await == "acme" { "bolt" } else { "acme" };
        scene.serve("two", &version(next)).await;
        assert_eq!((scene.tenant("/one").await, scene.tenant("/two").await), ("acme".into(), next.into()));
        assert_eq!(scene.metric("innkeeper_plugin_held_back{plugin=\"one\"}").await, Some(1.0));
        let shown = scene.gateway.admin("/policy").send().await.json();
        let error = shown["last_attempt"]["error"].as_str().unwrap();
        for part in ["policy.yaml:6:16", class, "goes on serving"] {
            assert!(error.contains(part), "{part} in\n{error}");
        }
        if class == "configure-failed" {
            // It may have been short of time, and is tried again some time.
            continue;
        }
        // It is known to be bad: looking at it again does not load it again.
        let loads = format!("innkeeper_plugin_loads_total{{plugin=\"one\",outcome=\"{class}\"}}");
        for _ in 0..3 {
            assert!(scene.gateway.sidecar.reloader.reload().await.is_err(), "nothing else has changed");
        }
        assert_eq!(scene.metric(&loads).await, Some(1.0));
    }
    std::fs::remove_file(scene.gateway.path_of("one.wasm")).unwrap();
    scene.until_complaint("cannot be read").await;
    assert_eq!(scene.shown("one").await["held_back"]["class"], "unreadable");
    assert_eq!(scene.tenant("/one").await, "acme");
    // What is repaired serves at once.
    scene.serve("one", &version("corp")).await;
    assert_eq!(scene.tenant("/one").await, "corp");
    assert_eq!(scene.shown("one").await["held_back"], Value::Null);
    assert_eq!(scene.metric("innkeeper_plugin_held_back{plugin=\"one\"}").await, Some(0.0));
    assert_eq!(scene.gateway.sidecar.reloader.last_attempt().error, None);
}

#[tokio::test]
async fn a_bad_file_under_changed_settings_is_no_stand_in_for_them() {
    let scene = Scene::start("").await;
    scene.replace("one", b"not a component");
    scene.write_policy(", config: { keys: {} }", "");
    scene.until_complaint("not-a-component").await;
    assert_eq!(scene.gateway.sidecar.reloader.store().load().generation(), 1, "the policy is rejected");
    scene.replace("one", version("bolt"));
    scene.gateway.until_generation(2).await;
    assert_eq!(scene.tenant("/one").await, "bolt");
}

#[tokio::test]
async fn of_several_new_files_those_that_fail_the_tests_are_held_back() {
    let scene = Scene::start("").await;
    let tests = format!("tests:\n{}", expect("one", "acme"));
    scene.write_policy("", &tests);
    scene.gateway.until_generation(2).await;
    // Alone, it leaves nothing to put in force.
    scene.replace("one", version("bolt"));
    scene.until_complaint("one names acme").await;
    assert_eq!(scene.gateway.sidecar.reloader.store().load().generation(), 2);
    assert_eq!(scene.shown("one").await["held_back"]["class"], "tests-failed");
    scene.serve("two", &version("corp")).await;
    assert_eq!((scene.tenant("/one").await, scene.tenant("/two").await), ("acme".into(), "corp".into()));
    let error = scene.gateway.sidecar.reloader.last_attempt().error.unwrap();
    assert!(error.contains("of the plugin `one` the policy's tests fail"), "{error}");
    assert!(error.contains("the test `one names acme` failed"), "{error}");
    // A test that fails without the new files too is the policy's own mistake.
    scene.replace("two", version("dune"));
    scene.write_policy("", &format!("{tests}{}", expect("two", "bolt")));
    scene.until_complaint("two names bolt").await;
    assert_eq!(scene.tenant("/two").await, "corp");
    // Tests that change with the file pass together.
    scene.write_policy("", &format!("tests:\n{}{}", expect("one", "bolt"), expect("two", "dune")));
    until(|| **scene.active("two").version() == *version_of(&version("dune"))).await;
    assert_eq!((scene.tenant("/one").await, scene.tenant("/two").await), ("bolt".into(), "dune".into()));
    assert_eq!(scene.shown("one").await["held_back"], Value::Null);
}

#[tokio::test]
async fn a_rehearsal_asks_the_new_version_only() {
    let scene = Scene::start(", on_failure: previous").await;
    let tests =
        "tests:\n  - { name: a query, request: { path: '/one?q=1' }, expect: { error: plugin-failed } }\n";
    scene.serve("one", &guest("good")).await;
    scene.serve("one", &version("bolt")).await;
    scene.write_policy(", on_failure: previous", tests);
    scene.gateway.until_generation(4).await;
    assert_eq!(scene.gateway.get("/one?q=1").send().await.status(), 200, "a live request is answered");
    assert_eq!(
        scene.shown("one").await["active"]["calls"],
        json!({ "trap": 1 }),
        "a rehearsal is not counted"
    );
}

#[tokio::test]
async fn an_operator_goes_back_and_forth() {
    let scene = Scene::start("").await;
    let [first, second, third] = ["acme", "bolt", "corp"].map(version);
    let nothing = scene.ask_admin(Method::POST, "/plugins/one/rollback").await;
    assert_eq!((nothing.status(), nothing.header("content-type")), (409, Some("application/problem+json")));
    assert!(nothing.text().contains("no other version"), "{}", nothing.text());
    scene.serve("one", &second).await;

    let reply = scene.ask_admin(Method::POST, "/plugins/one/rollback").await;
    assert_eq!(reply.status(), 200, "{}", reply.text());
    let shown = reply.json();
    assert_eq!(shown["active"]["version"], version_of(&first));
    assert_eq!(shown["file_version"], version_of(&second));
    assert!(shown["overrides_file"].as_str().unwrap().contains("until the plugin's file"), "{shown}");
    assert_eq!(scene.tenant("/one").await, "acme", "the answer waited for it");
    // Looking at the files again does not undo it; another change of the policy neither.
    scene.gateway.sidecar.reloader.reload().await.unwrap();
    scene.serve("two", &third).await;
    assert_eq!(scene.tenant("/one").await, "acme");

    let reply = scene.ask_admin(Method::DELETE, "/plugins/one/rollback").await;
    assert_eq!((reply.status(), scene.tenant("/one").await.as_str()), (200, "bolt"), "{}", reply.text());
    assert_eq!(reply.json()["overrides_file"], Value::Null);
    let again = scene.ask_admin(Method::DELETE, "/plugins/one/rollback").await;
    assert_eq!(again.status(), 409);

    // By the beginning of a hash.
    let prefix = &version_of(&first)[..10];
    let reply = scene.ask_admin(Method::POST, &format!("/plugins/one/rollback?version={prefix}")).await;
    assert_eq!((reply.status(), scene.tenant("/one").await.as_str()), (200, "acme"), "{}", reply.text());
    for (path, status, words) in [
        ("/plugins/one/rollback?version=zz", 409, version_of(&second)),
        ("/plugins/three/rollback", 404, "`one`, `two`".to_owned()),
        ("/plugins/one/rollback?verison=zz", 400, "version".to_owned()),
    ] {
        let reply = scene.ask_admin(Method::POST, path).await;
        assert_eq!(reply.status(), status, "{path}");
        assert!(reply.text().contains(&words), "{words} in {}", reply.text());
    }
    let page = scene.gateway.admin("/plugins/one/rollback").method(Method::POST).header("origin", "http://x");
    assert_eq!(page.send().await.status(), 403, "a web page is no operator");
    assert_eq!(
        scene.ask_admin(Method::PUT, "/plugins/one/rollback").await.header("allow"),
        Some("POST, DELETE")
    );

    // The file wins when it changes.
    scene.serve("one", &third).await;
    assert_eq!(scene.tenant("/one").await, "corp");
    assert_eq!(scene.shown("one").await["overrides_file"], Value::Null);
    let history: Vec<Value> = scene.shown("one").await["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|served| served["version"].clone())
        .collect();
    assert_eq!(history, [&third, &first, &second].map(|bytes| json!(version_of(bytes))));
}

#[tokio::test]
async fn a_rollback_ends_with_the_policy_entry_and_works_while_the_policy_is_broken() {
    let scene = Scene::start("").await;
    scene.serve("one", &version("bolt")).await;
    scene.gateway.write_policy("routes: [");
    scene.until_complaint("policy.yaml").await;
    assert_eq!(scene.ask_admin(Method::POST, "/plugins/one/rollback").await.status(), 200);
    assert_eq!(scene.tenant("/one").await, "acme");
    scene.write_policy("", "");
    until(|| scene.gateway.sidecar.reloader.last_attempt().error.is_none()).await;
    assert_eq!(scene.tenant("/one").await, "acme", "the same entry as before");
    scene.write_policy(", config: { keys: {} }", "");
    until(|| !scene.active("one").overrides_file()).await;
    assert_eq!(scene.tenant("/one").await, "bolt");
}

#[tokio::test]
async fn a_version_that_fails_the_tests_does_not_come_back() {
    let scene = Scene::start("").await;
    scene.serve("one", &version("bolt")).await;
    scene.write_policy("", &format!("tests:\n{}", expect("one", "bolt")));
    scene.gateway.until_generation(3).await;
    let refused = scene.ask_admin(Method::POST, "/plugins/one/rollback").await;
    assert_eq!(refused.status(), 409);
    assert!(refused.text().contains("the test `one names bolt` failed"), "{}", refused.text());
    assert_eq!(scene.tenant("/one").await, "bolt");
    assert_eq!(scene.gateway.sidecar.reloader.store().load().generation(), 3);
    assert_eq!(scene.shown("one").await["held_back"], Value::Null, "its file serves");
}

#[tokio::test]
async fn the_admin_listener_shows_plugins_without_their_secrets() {
    let scene = Scene::start(", config: { keys: { k-secret: acme } }").await;
    scene.tenant("/one").await;
    let all = scene.gateway.admin("/plugins").send().await;
    assert!(!all.text().contains("k-secret"), "{}", all.text());
    let shown = &all.json()["plugins"][0];
    assert_eq!((&shown["name"], &shown["active"]["calls"]), (&json!("one"), &json!({ "place": 1 })));
    assert_eq!(shown["active"]["breaker"], json!({ "state": "closed", "failures_in_a_row": 0 }));
    assert_eq!((&shown["last_failure"], &shown["bytes"]), (&Value::Null, &json!(version("acme").len())));
    assert_eq!(all.json()["live_versions"]["count"], 2);
    let index = scene.gateway.admin("/").send().await.text();
    assert!(index.contains("POST   /plugins/{name}/rollback?version=HASH"), "{index}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_swaps_under_load_fail_no_request_and_mix_no_answer() {
    const SWAPS: usize = 100;
    const CLIENTS: usize = 8;
    let scene = Arc::new(Scene::start("").await);
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (scene, over) = (Arc::clone(&scene), Arc::clone(&over));
            tokio::spawn(async move {
                let mut answers = Vec::new();
                while answers.is_empty() || !over.load(Ordering::Relaxed) {
                    let reply = scene.gateway.get("/one").send().await;
                    assert_eq!(reply.status(), 200, "{}", reply.text());
                    let told = reply.json()["headers"].clone();
                    let id = reply.header("x-request-id").unwrap().to_owned();
                    answers.push((id, told["x-tenant-id"][0].clone(), told["x-tenant-schema"][0].clone()));
                }
                answers
            })
        })
        .collect();
    for swap in 1..=SWAPS {
        scene.serve("one", &version(TENANTS[swap % 2])).await;
    }
    over.store(true, Ordering::Relaxed);
    let mut answers = Vec::new();
    for client in clients {
        answers.extend(client.await.unwrap());
    }
    // Each answer is of one version: what the backend was told, and what the record says.
    let mut records = HashMap::new();
    until(|| {
        let lines = scene.gateway.lines_so_far().into_iter();
        records = lines.map(|record| (record["request_id"].as_str().unwrap().to_owned(), record)).collect();
        records.len() >= answers.len()
    })
    .await;
    let hashes = TENANTS.map(|tenant| version_of(&version(tenant)));
    for (id, tenant, schema) in &answers {
        let place = TENANTS.iter().position(|known| tenant == known).expect("a tenant of ours");
        assert_eq!(*schema, format!("s_{}", TENANTS[place]));
        let record = &records[id];
        assert_eq!((&record["tenant"], &record["plugin_version"]), (tenant, &json!(hashes[place])));
    }
    assert!(answers.len() > CLIENTS, "{}", answers.len());
    // Two plugins, one version of each; nothing else holds a version any more.
    let reloader = &scene.gateway.sidecar.reloader;
    until(|| reloader.builder().live_versions().count == 2 && reloader.store().live().count == 1).await;
    assert_eq!(scene.metric("innkeeper_live_plugin_versions").await, Some(2.0));
    assert!(scene.metric("innkeeper_oldest_plugin_version_age_seconds").await.is_some());
}
