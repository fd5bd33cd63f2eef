//! The tools of plugin authors: what `check` says of good and bad files, and signatures that a gateway
//! believes.

use std::path::PathBuf;

use innkeeper::cli::plugin::SettingsArgs;
use innkeeper::cli::plugin::check::{CheckArgs, Report, check};
use innkeeper::cli::plugin::sign::{KeygenArgs, SignArgs, keygen, sign};
use innkeeper::cli::{self, OutputFormat};
use innkeeper::snapshot::Builder;
use innkeeper::surroundings::ProcessSurroundings;
use innkeeper::telemetry::Metrics;
use serde_json::json;

use crate::plugins::{guest, host_with, root};
use crate::support::gateway::Harness;

fn legacy_keys() -> PathBuf {
    root().join("plugins/legacy-keys.wasm")
}

async fn checked(file: PathBuf, settings: SettingsArgs) -> Report {
    check(&CheckArgs { file, settings, format: OutputFormat::Human }).await.unwrap()
}

async fn checked_guest(name: &str) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("plugin.wasm");
    std::fs::write(&file, guest(name)).unwrap();
    checked(file, SettingsArgs::default()).await
}

#[tokio::test]
async fn a_good_plugin_is_shown_with_what_it_asks_for_and_costs() {
    let config = json!({ "keys": { "k-123": "acme" } });
    let report = checked(legacy_keys(), SettingsArgs { config: Some(config), ..Default::default() }).await;
    assert!(report.ok, "{report:?}");
    let surface = report.surface.as_ref().unwrap();
    assert_eq!(surface.built_for.as_deref(), Some("innkeeper:policy@0.1.0"));
    assert!(surface.imports.iter().all(|import| !import.refused), "{surface:?}");
    assert_eq!(surface.exports.len(), 2);
    assert!(surface.differences.is_empty(), "{surface:?}");

    let shown = report.render(OutputFormat::Human);
    for words in [
        "legacy-keys.wasm",
        "sha256",
        "start from its configured memory",
        "as one core module",
        "a call (median",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert!(shown.ends_with("verdict   it can serve\n"), "{shown}");

    let read: serde_json::Value = serde_json::from_str(&report.render(OutputFormat::Json)).unwrap();
    assert_eq!(read["ok"], true);
    assert!(read["measured"]["memory_configured"].as_u64().unwrap() >= 65_536);
    assert!(read["measured"]["fresh"]["calls"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn what_is_missing_is_named_in_words() {
    for (name, difference, problem) in [
        (
            "missing-export",
            "it lacks the function `resolve: func(request: borrow<request>)",
            "does not export",
        ),
        ("wrong-types", "the contract has `resolve", ""),
    ] {
        let report = checked_guest(name).await;
        assert!(!report.ok, "{name}");
        let surface = report.surface.as_ref().unwrap();
        assert!(surface.differences.iter().any(|found| found.contains(difference)), "{name}: {surface:?}");
        assert!(report.problems.iter().any(|found| found.contains(problem)), "{name}: {report:?}");
        assert!(report.render(OutputFormat::Human).ends_with("verdict   it cannot serve\n"));
    }
}

#[tokio::test]
async fn an_import_that_no_plugin_gets_is_shown() {
    let report = checked_guest("wants-sockets").await;
    assert!(!report.ok);
    let surface = report.surface.as_ref().unwrap();
    assert!(
        surface.imports.iter().any(|import| import.refused && import.name.contains("sockets")),
        "{surface:?}"
    );
    assert!(report.problems[0].starts_with("import-not-granted"), "{report:?}");
}

#[tokio::test]
async fn what_is_no_component_is_refused_with_the_fix() {
    let report = checked_guest("core-module").await;
    assert!(!report.ok);
    assert!(report.problems[0].contains("innkeeper plugin build"), "{report:?}");
}

#[tokio::test]
async fn a_configuration_that_nobody_gave_is_no_fault_of_the_plugin() {
    let refused = checked_guest("configure-error").await;
    assert!(refused.ok, "{refused:?}");
    assert!(refused.warnings[0].contains("--config"), "{refused:?}");

    let config = Some(json!({ "keyz": {} }));
    let refused = checked(legacy_keys(), SettingsArgs { config, ..Default::default() }).await;
    assert!(!refused.ok);
    assert!(refused.problems[0].contains("keyz"), "{refused:?}");
}

#[tokio::test]
async fn a_plugin_is_checked_as_a_policy_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.yaml");
    std::fs::write(
        &policy,
        "version: 1\nupstreams: { app: { endpoints: [ 'http://127.0.0.1:9000' ] } }\n\
         tenants: { list: [ { id: acme, schema: s1 } ] }\n\
         plugins: { keys: { path: keys.wasm, config: { keyz: {} } } }\n\
         routes: [ { name: all, tenant: { plugin: keys }, forward: app } ]\n",
    )
    .unwrap();
    let settings = |plugin: &str| SettingsArgs {
        policy: Some(policy.clone()),
        plugin: Some(plugin.into()),
        ..Default::default()
    };
    let report = checked(legacy_keys(), settings("keys")).await;
    assert!(report.problems[0].contains("keyz"), "{report:?}");
    let endless =
        CheckArgs { file: "/dev/zero".into(), settings: settings("keys"), format: OutputFormat::Human };
    assert_eq!(check(&endless).await.unwrap_err(), "/dev/zero: it is no regular file");
    let args = CheckArgs { file: legacy_keys(), settings: settings("kees"), format: OutputFormat::Human };
    let error = check(&args).await.unwrap_err();
    assert!(error.contains("`kees`") && error.contains("`keys`"), "{error}");
}

#[tokio::test]
async fn a_gateway_believes_the_signature_of_a_trusted_key_only() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key.pem");
    let trusted = keygen(&KeygenArgs { output: key.clone() }).unwrap();
    let other = dir.path().join("other.pem");
    keygen(&KeygenArgs { output: other.clone() }).unwrap();
    let policy = format!(
        "version: 1\nupstreams: {{ app: {{ endpoints: [ 'http://127.0.0.1:9000' ] }} }}\n\
         tenants: {{ list: [ {{ id: acme, schema: s1 }} ] }}\n\
         plugins: {{ keys: {{ path: keys.wasm, trusted_keys: [ \"{trusted}\" ] }} }}\n\
         routes: [ {{ name: all, tenant: {{ plugin: keys }}, forward: app }} ]\n"
    );
    for (key, believed) in [(key, true), (other, false)] {
        let signature = dir.path().join("keys.wasm.sig");
        sign(&SignArgs { file: legacy_keys(), key, output: Some(signature.clone()) }).unwrap();
        let started = Harness::new()
            .policy(&policy)
            .file("keys.wasm", std::fs::read(legacy_keys()).unwrap())
            .file("keys.wasm.sig", std::fs::read(signature).unwrap())
            .try_start()
            .await;
        match started {
            Ok(_) => assert!(believed, "a foreign signature was believed"),
            Err(error) => {
                let error = error.to_string();
                assert!(!believed && error.contains("signature"), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn a_policys_check_tries_candidates_too() {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.yaml");
    std::fs::copy(legacy_keys(), dir.path().join("keys.wasm")).unwrap();
    std::fs::write(dir.path().join("new.wasm"), guest("missing-export")).unwrap();
    std::fs::write(
        &policy,
        "version: 1\nupstreams: { app: { endpoints: [ 'http://127.0.0.1:9000' ] } }\n\
         tenants: { list: [ { id: acme, schema: s1 } ] }\n\
         plugins: { keys: { path: keys.wasm, shadow: { path: new.wasm } } }\n\
         routes: [ { name: all, tenant: { plugin: keys }, forward: app } ]\n",
    )
    .unwrap();
    let builder = Builder::new(host_with(|_| {}), Metrics::new());
    let checked = cli::check::check(&policy, &ProcessSurroundings, Some(&builder)).await;
    let shown = cli::check::render(&[checked], OutputFormat::Human, false);
    assert!(
        shown.contains("warning: the candidate in `shadow` of the plugin `keys` cannot be run"),
        "{shown}"
    );
    assert!(shown.contains("resolve"), "{shown}");
}
