//! Plugins on trial under live traffic: candidates that are compared and promoted, decisions that
//! are recorded and replayed.

use std::future::pending;
use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use ed25519_dalek::{Signer as _, SigningKey};
use http::Method;
use innkeeper::cli::OutputFormat;
use innkeeper::cli::plugin::SettingsArgs;
use innkeeper::cli::plugin::record::{RecordArgs, RecordError, record};
use innkeeper::cli::plugin::test::{TestArgs, Tested, test};
use serde_json::{Value, json};

use crate::plugins::{guest, root};
use crate::support::backend::Backend;
use crate::support::gateway::{Harness, PATIENCE, Reply, TestGateway};

/// A gateway whose plugin is on trial, and the backend behind it.
struct Stage {
    gateway: TestGateway,
    _backend: Backend,
}

impl Stage {
    /// One plugin with this part of the policy, and these files beside it.
    async fn with(plugin: &str, files: &[(&str, Vec<u8>)]) -> Self {
        let backend = Backend::start().await;
        let policy = format!(
            "
version: 1
upstreams: {{ app: {{ endpoints: [ 'http://{}' ] }} }}
tenants: {{ list: [ {{ id: acme, schema: acme }}, {{ id: globex, schema: globex }} ] }}
plugins: {{ p: {plugin} }}
routes:
  - {{ name: all, tenant: {{ first: [ {{ plugin: p }}, {{ header: X-Tenant-ID }} ] }}, forward: app }}
",
            backend.address
        );
        let harness = files.iter().fold(Harness::new(), |harness, (name, bytes)| harness.file(name, bytes));
        Self { gateway: harness.policy(&policy).start().await, _backend: backend }
    }

    /// The guest `good`, which places every request, and a candidate under these rules.
    async fn trial(candidate: Vec<u8>, rules: &str) -> Self {
        let plugin =
            format!("{{ path: active.wasm, limits: {{ time: 5s }}, shadow: {{ path: new.wasm, {rules} }} }}");
        Self::with(&plugin, &[("active.wasm", guest("good")), ("new.wasm", candidate)]).await
    }

    async fn admin(&self, method: Method, path: &str) -> Reply {
        self.gateway.admin(&format!("/plugins/p{path}")).method(method).send().await
    }

    async fn shadow(&self) -> Value {
        self.admin(Method::GET, "/shadow").await.json()
    }

    /// Waits until the trial is so.
    async fn until_shadow(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let waiting = async {
            loop {
                let shadow = self.shadow().await;
                if wanted(&shadow) {
                    return shadow;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the trial gets there")
    }

    async fn until_state(&self, state: &str) -> Value {
        self.until_shadow(|shadow| shadow["state"] == state).await
    }

    /// Sends requests that the active version places.
    async fn send(&self, requests: usize) {
        for _ in 0..requests {
            let reply = self.gateway.get("/orders?token=t-1").header("x-api-key", "k-1").send().await;
            assert_eq!(reply.status(), 200, "{}", reply.text());
        }
    }

    async fn active(&self) -> String {
        self.admin(Method::GET, "").await.json()["active"]["version"].as_str().unwrap().to_owned()
    }

    /// Waits until the recording holds so many cases, and gives its file.
    async fn until_recorded(&self, cases: &str) -> Reply {
        let waiting = async {
            loop {
                let reply = self.admin(Method::GET, "/recording").await;
                if reply.header("x-recording-cases") == Some(cases) {
                    return reply;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the cases are recorded")
    }
}

#[tokio::test]
async fn a_candidate_that_agrees_is_counted_and_promoted_on_request() {
    let stage = Stage::trial(guest("reads-all-headers"), "").await;
    let before = stage.active().await;
    stage.until_state("running").await;
    stage.send(5).await;
    let shadow = stage.until_shadow(|shadow| shadow["agreed"] == 5).await;
    for (key, value) in [("differed", 0), ("failed", 0), ("dropped", 0), ("asked", 5)] {
        assert_eq!(shadow[key], value, "{shadow:#}");
    }
    assert_eq!(shadow["active"], before);
    assert_eq!(shadow["differences"], json!([]));
    let metrics = stage.gateway.admin("/metrics").send().await.text();
    assert!(metrics.contains(r#"plugin_trials_total{plugin="p",outcome="agreed"} 5"#), "{metrics}");
    let calls = stage.admin(Method::GET, "").await.json()["active"]["calls"].clone();
    assert_eq!(calls, json!({ "place": 5 }), "the candidate's calls are not the active version's");

    let candidate = shadow["candidate"].as_str().unwrap().to_owned();
    let promoted = stage.admin(Method::POST, "/promote").await;
    assert_eq!(promoted.status(), 200, "{}", promoted.text());
    assert_eq!(promoted.json()["active"]["version"], candidate);
    assert_eq!(stage.shadow().await["state"], "serves");
    stage.send(2).await;
    let again = stage.admin(Method::POST, "/promote").await;
    assert_eq!(again.status(), 409, "{}", again.text());

    let back = stage.admin(Method::POST, "/rollback").await;
    assert_eq!(back.json()["active"]["version"], before, "{}", back.text());
    stage.until_state("running").await;
}

#[tokio::test]
async fn a_difference_is_shown_without_secrets_and_clients_notice_nothing() {
    let stage = Stage::trial(guest("reads-claims"), "").await;
    stage.until_state("running").await;
    stage.send(25).await;
    let shadow = stage.until_shadow(|shadow| shadow["differed"] == 25).await;
    assert_eq!(shadow["agreed"], 0);
    let samples = shadow["differences"].as_array().unwrap();
    assert_eq!(samples.len(), 20, "only the newest are kept");
    assert_eq!(samples[0]["method"], "GET");
    assert_eq!(samples[0]["path"], "/orders");
    assert_eq!(
        samples[0]["differences"],
        json!([{ "field": "decision", "expected": "tenant acme", "got": "next" }])
    );
    assert!(!shadow.to_string().contains("t-1") && !shadow.to_string().contains("k-1"), "{shadow:#}");
    assert_eq!(stage.until_state("running").await["state"], "running", "a difference alone ends nothing");
}

#[tokio::test]
async fn a_trial_ends_at_its_first_difference_if_so_ordered() {
    let stage = Stage::trial(guest("reads-claims"), "drop_on_difference: true").await;
    stage.until_state("running").await;
    stage.send(1).await;
    let shadow = stage.until_state("failed").await;
    assert_eq!(shadow["differed"], 1);
    stage.send(3).await;
    assert_eq!(stage.shadow().await["asked"], 1, "it is not asked any more");
}

#[tokio::test]
async fn a_candidate_that_agrees_often_enough_serves_by_itself_once() {
    let stage = Stage::trial(guest("reads-all-headers"), "promote_after: 3").await;
    let before = stage.active().await;
    let candidate = stage.until_state("running").await["candidate"].clone();
    stage.send(3).await;
    stage.until_state("serves").await;
    assert_eq!(stage.active().await, candidate.as_str().unwrap());

    // Whoever rolled it back does not want to see it again.
    assert_eq!(stage.admin(Method::POST, "/rollback").await.status(), 200);
    stage.until_state("running").await;
    stage.send(5).await;
    let shadow = stage.until_shadow(|shadow| shadow["agreed"] == 5).await;
    assert_eq!(shadow["state"], "running");
    assert_eq!(stage.active().await, before);
}

#[tokio::test]
async fn a_candidate_that_cannot_run_hurts_nobody_and_a_good_one_begins_at_once() {
    let stage = Stage::trial(b"no wasm".to_vec(), "promote_after: 1000").await;
    let shadow = stage.until_state("unfit").await;
    assert!(shadow["error"].as_str().unwrap().contains("not-a-component"), "{shadow:#}");
    stage.send(2).await;
    let refused = stage.admin(Method::POST, "/promote").await;
    assert_eq!(refused.status(), 409);
    assert!(refused.text().contains("unfit"), "{}", refused.text());

    stage.gateway.replace_file("new.wasm", guest("reads-all-headers"));
    stage.until_state("running").await;
    stage.send(2).await;
    stage.until_shadow(|shadow| shadow["agreed"] == 2).await;
    std::fs::remove_file(stage.gateway.path_of("new.wasm")).unwrap();
    let gone = stage.until_state("unfit").await;
    assert!(gone["error"].as_str().unwrap().contains("cannot be read"), "{gone:#}");
    assert_eq!(gone["agreed"], 0, "another file is another trial");
    stage.send(1).await;
}

#[tokio::test]
async fn a_candidate_is_trusted_as_the_plugin_is() {
    let key = SigningKey::from_bytes(&[7; 32]);
    let (active, candidate) = (guest("good"), guest("reads-all-headers"));
    let signature = |wasm: &[u8]| key.sign(wasm).to_bytes().to_vec();
    let plugin = format!(
        "{{ path: active.wasm, trusted_keys: [ '{}' ], limits: {{ time: 5s }}, shadow: {{ path: new.wasm }} }}",
        BASE64.encode(key.verifying_key())
    );
    let files = [
        ("active.wasm", active.clone()),
        ("active.wasm.sig", signature(&active)),
        ("new.wasm", candidate.clone()),
        ("new.wasm.sig", signature(&active)),
    ];
    let stage = Stage::with(&plugin, &files).await;
    let shadow = stage.until_state("unfit").await;
    assert!(shadow["error"].as_str().unwrap().contains("signature-invalid"), "{shadow:#}");
    stage.gateway.replace_file("new.wasm.sig", signature(&candidate));
    stage.until_state("running").await;
    // The signature beside `path` is of another file; this one was seen beside the candidate.
    let promoted = stage.admin(Method::POST, "/promote").await;
    assert_eq!(promoted.status(), 200, "{}", promoted.text());
    assert_eq!(stage.admin(Method::POST, "/rollback").await.status(), 200);
    stage.send(1).await;
}

#[tokio::test]
async fn a_hostile_candidate_fails_alone() {
    let plugin = "{ path: active.wasm, limits: { time: 200ms }, breaker: { failures: 1 }, on_failure: deny, \
                   shadow: { path: new.wasm } }";
    for (name, class) in [("trap", "trap"), ("loop-in-resolve", "deadline")] {
        let files = [("active.wasm", guest("good")), ("new.wasm", guest(name))];
        let stage = Stage::with(plugin, &files).await;
        stage.until_state("running").await;
        stage.send(1).await;
        let shadow = stage.until_shadow(|shadow| shadow["failed"] == 1).await;
        assert_eq!(shadow["differed"], 1);
        assert_eq!(shadow["differences"][0]["differences"][0]["got"], format!("failure {class}"));
        // The candidate's own breaker is open by now: it is not asked, and that says nothing of it.
        stage.send(1).await;
        stage.until_shadow(|shadow| shadow["dropped"] == 1).await;
        let active = stage.admin(Method::GET, "").await.json()["active"].clone();
        assert_eq!(active["breaker"]["state"], "closed");
        assert_eq!(active["calls"], json!({ "place": 2 }));
    }
}

#[tokio::test]
async fn a_sample_is_the_share_that_was_asked_for() {
    let stage = Stage::trial(guest("reads-all-headers"), "sample: 25%").await;
    stage.until_state("running").await;
    stage.send(12).await;
    stage.until_shadow(|shadow| shadow["asked"] == 3).await;
    assert_eq!(stage.shadow().await["dropped"], 0);
}

#[tokio::test]
async fn a_reload_that_changes_neither_version_goes_on_with_the_trial() {
    let stage = Stage::trial(guest("reads-all-headers"), "").await;
    stage.until_state("running").await;
    stage.send(2).await;
    stage.until_shadow(|shadow| shadow["agreed"] == 2).await;
    let policy = std::fs::read_to_string(stage.gateway.path_of("policy.yaml")).unwrap();
    stage.gateway.write_policy(&format!("{policy}# a comment\n"));
    stage.gateway.until_generation(2).await;
    stage.send(1).await;
    stage.until_shadow(|shadow| shadow["agreed"] == 3).await;
    assert_eq!(
        stage.gateway.admin("/plugins/q/shadow").send().await.status(),
        404,
        "there is one plugin only"
    );
}

/// The policy's part for the committed example.
const KEYS: &str = "{ path: keys.wasm, limits: { time: 5s }, config: { keys: { k-123: acme, k-456: globex }, \
                    hosts: { old.example.com: acme } } }";

async fn keys() -> Stage {
    let wasm = std::fs::read(root().join("plugins/legacy-keys.wasm")).unwrap();
    Stage::with(KEYS, &[("keys.wasm", wasm)]).await
}

/// Runs the recorded cases against a component.
async fn replay(stage: &Stage, cases: &str, component: PathBuf) -> Tested {
    let file = stage.gateway.path_of("recorded.yaml");
    std::fs::write(&file, cases).unwrap();
    let args = TestArgs {
        file: component,
        cases: vec![file],
        settings: SettingsArgs {
            config: None,
            policy: Some(stage.gateway.path_of("policy.yaml")),
            plugin: Some("p".into()),
        },
        bless: false,
        format: OutputFormat::Human,
    };
    test(&args).await.unwrap_or_else(|error| panic!("{error}\n{cases}"))
}

#[tokio::test]
async fn what_was_recorded_decides_the_same_again_and_holds_no_secret() {
    let stage = keys().await;
    assert_eq!(stage.admin(Method::GET, "/recording").await.status(), 404);
    let started = stage.admin(Method::POST, "/recording?count=3").await;
    assert_eq!(started.status(), 202, "{}", started.text());
    assert_eq!(started.header("x-recording-state"), Some("recording"));
    for _ in 0..3 {
        stage
            .gateway
            .get("/orders?q=1")
            .header("x-api-key", "k-123")
            .header("x-other", "private")
            .send()
            .await;
    }
    stage.gateway.get("/").host("old.example.com:80").send().await;
    let two = stage.until_recorded("2/3").await;
    assert_eq!(two.header("x-recording-state"), Some("recording"));
    stage.gateway.get("/").host("new.example.com").tenant("acme").send().await;
    let done = stage.until_recorded("3/3").await;
    assert_eq!(done.header("x-recording-state"), Some("complete"));
    assert_eq!(done.header("content-type"), Some("application/yaml"));
    let text = done.text();
    for secret in ["k-123", "k-456", "private", "orders"] {
        assert!(!text.contains(secret), "{secret} in\n{text}");
    }
    insta::with_settings!({ description => "the version and the address differ from run to run" }, {
        let stable = text.lines().filter(|line| !line.contains("version "));
        let address = stage.gateway.address().to_string();
        insta::assert_snapshot!(stable.collect::<Vec<_>>().join("\n").replace(&address, "…"));
    });

    let again = replay(&stage, &text, root().join("plugins/legacy-keys.wasm")).await;
    assert!(again.is_ok(), "{}\n{text}", again.render(OutputFormat::Human));
    let other = stage.gateway.path_of("other.wasm");
    std::fs::write(&other, guest("good")).unwrap();
    assert!(!replay(&stage, &text, other).await.is_ok(), "another plugin decides otherwise");

    assert_eq!(stage.admin(Method::DELETE, "/recording").await.status(), 200);
    assert_eq!(stage.admin(Method::GET, "/recording").await.status(), 404);
    assert_eq!(stage.admin(Method::DELETE, "/recording").await.status(), 404);
}

#[tokio::test]
async fn a_header_that_is_to_be_kept_is_recorded_as_it_was() {
    let stage = keys().await;
    stage.admin(Method::POST, "/recording?count=2&keep=x-api-key").await;
    stage.gateway.get("/").header("x-api-key", "k-456").send().await;
    stage.gateway.get("/").header("x-api-key", "k-123").send().await;
    let text = stage.until_recorded("2/2").await.text();
    assert!(text.contains("x-api-key: k-456") && text.contains("tenant: globex"), "{text}");
    let again = replay(&stage, &text, root().join("plugins/legacy-keys.wasm")).await;
    assert!(again.is_ok(), "{}", again.render(OutputFormat::Human));
}

#[tokio::test]
async fn look_ups_are_recorded_with_their_answers_and_failures_with_their_class() {
    let slow = "{ path: p.wasm, limits: { time: 5s } }";
    for (name, expected) in [("asks-directory", "acme: { schema: acme }"), ("trap", "failure: trap")] {
        let stage = Stage::with(slow, &[("p.wasm", guest(name))]).await;
        stage.admin(Method::POST, "/recording?count=1").await;
        stage.gateway.get("/").send().await;
        let text = stage.until_recorded("1/1").await.text();
        assert!(text.contains(expected), "{text}");
        let again = replay(&stage, &text, stage.gateway.path_of("p.wasm")).await;
        assert!(again.is_ok(), "{}", again.render(OutputFormat::Human));
    }
}

#[tokio::test]
async fn a_decision_that_comes_out_differently_again_is_no_case() {
    let counting = "{ path: p.wasm, limits: { time: 5s }, instances: reused }";
    let stage = Stage::with(counting, &[("p.wasm", guest("counter"))]).await;
    stage.admin(Method::POST, "/recording?count=5").await;
    stage.gateway.get("/").send().await;
    let waiting = async {
        while !stage.admin(Method::GET, "/recording").await.text().contains("1 that came out differently") {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the case is left out");
    assert!(stage.admin(Method::GET, "/recording").await.text().ends_with("cases: []\n"));
}

#[tokio::test]
async fn a_recording_ends_with_its_version_and_keeps_what_it_has() {
    let stage = keys().await;
    stage.admin(Method::POST, "/recording?count=100").await;
    stage.gateway.get("/").host("old.example.com").send().await;
    stage.until_recorded("1/100").await;
    stage.gateway.replace_file("keys.wasm", guest("good"));
    stage.gateway.until_generation(2).await;
    stage.gateway.get("/").send().await;
    let ended = stage.until_recorded("1/100").await;
    assert_eq!(ended.header("x-recording-state"), Some("the plugin was replaced"));
    for (query, status) in [("?count=0", 400), ("?count=x", 400), ("?cuont=1", 400), ("?count=10", 202)] {
        let reply = stage.admin(Method::POST, &format!("/recording{query}")).await;
        assert_eq!(reply.status(), status, "{query}: {}", reply.text());
    }
}

#[tokio::test]
async fn the_command_records_from_a_running_gateway() {
    let stage = keys().await;
    let args = RecordArgs {
        name: "p".into(),
        admin: stage.gateway.sidecar.admin_address.to_string(),
        count: 2,
        keep: vec!["X-API-Key".into()],
        output: Some(stage.gateway.path_of("cases.yaml")),
    };
    let traffic = async {
        loop {
            stage.gateway.get("/").header("x-api-key", "k-123").send().await;
            stage.gateway.get("/").host("old.example.com").send().await;
        }
    };
    let recorded = tokio::select! {
        recorded = record(&args, pending()) => recorded.unwrap(),
        () = traffic => unreachable!("traffic never ends"),
    };
    assert_eq!((recorded.cases.as_str(), recorded.state.as_str()), ("2/2", "complete"));
    let text = std::fs::read_to_string(&recorded.path).unwrap();
    assert!(replay(&stage, &text, root().join("plugins/legacy-keys.wasm")).await.is_ok(), "{text}");
    assert_eq!(stage.admin(Method::GET, "/recording").await.status(), 404, "it cleans up behind itself");

    let exists = record(&args, pending()).await.unwrap_err();
    assert!(matches!(exists, RecordError::Exists(_)), "{exists}");
    let output = Some(stage.gateway.path_of("others.yaml"));
    let unknown = RecordArgs { name: "q".into(), output: output.clone(), ..args.clone() };
    assert!(record(&unknown, pending()).await.unwrap_err().to_string().contains("the policy has `p`"));
    let quiet = RecordArgs { output: output.clone(), ..args.clone() };
    let nothing = record(&quiet, std::future::ready(())).await.unwrap_err();
    assert!(matches!(nothing, RecordError::Nothing(_)), "{nothing}");
    let nowhere = RecordArgs { admin: "127.0.0.1:1".into(), output, ..args };
    assert!(record(&nowhere, pending()).await.unwrap_err().to_string().contains("--admin"));
}
