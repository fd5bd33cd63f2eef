//! Plugins on trial: cases that are run, recorded and run again.

use std::path::PathBuf;

use innkeeper::cli::OutputFormat;
use innkeeper::cli::plugin::SettingsArgs;
use innkeeper::cli::plugin::test::{TestArgs, test};

use crate::plugins::{guest, root};

/// A directory with files of cases.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn args(&self, plugin: PathBuf, cases: &[&str]) -> TestArgs {
        let cases = cases.iter().enumerate();
        TestArgs {
            file: plugin,
            cases: cases.map(|(index, text)| self.file(&format!("cases-{index}.yaml"), text)).collect(),
            settings: SettingsArgs::default(),
            bless: false,
            format: OutputFormat::Human,
        }
    }

    /// The text without the path of this directory, which differs from run to run.
    fn portable(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn legacy_keys() -> PathBuf {
    root().join("plugins/legacy-keys.wasm")
}

const GOOD: &str = "
config: { keys: { k-123: acme }, hosts: { old.example.com: acme }, retired: { acme-old: acme } }
cases:
  - name: a known key
    request: { headers: { X-Api-Key: k-123 } }
    expect: { tenant: acme, reason: api key }
  - name: two keys are one that nobody knows
    request: { headers: { X-Api-Key: [ k-123, k-123 ] } }
    expect: { next: true }
  - name: a host with a port
    request: { authority: 'Old.Example.com:8080' }
    expect: { tenant: acme }
  - name: nothing at all
    expect: { next: true }
";

#[tokio::test]
async fn cases_that_are_decided_as_expected_pass() {
    let desk = Desk::new();
    let other = GOOD.replace("k-123", "k-9");
    let tested = test(&desk.args(legacy_keys(), &[GOOD, &other])).await.unwrap();
    assert!(tested.is_ok(), "{}", tested.render(OutputFormat::Human));
    assert!(tested.render(OutputFormat::Human).ends_with("8 cases, all as expected\n"));
    let json: serde_json::Value = serde_json::from_str(&tested.render(OutputFormat::Json)).unwrap();
    assert_eq!(json["ok"], true);
    assert_eq!(json["cases"][0]["got"]["tenant"], "acme");
    assert_eq!(json["cases"][0]["read"], serde_json::json!(["header x-api-key"]));
    assert_eq!(json["cases"][3]["line"], 13);
}

#[tokio::test]
async fn what_is_decided_differently_is_shown_with_what_was_read() {
    let desk = Desk::new();
    let tested = test(&desk.args(
        legacy_keys(),
        &["
config: { keys: { k-123: acme, k-456: globex }, retired: { acme-old: acme } }
cases:
  - { name: another tenant, request: { headers: { x-api-key: k-123 } }, expect: { tenant: globex } }
  - { name: no tenant, request: { headers: { x-api-key: k-456 } }, expect: { next: true } }
  - { name: a denial, expect: { deny: { status: 403, code: unknown-key } } }
  - { name: a failure, expect: { failure: trap } }
  - { name: another reason, request: { headers: { x-api-key: k-123 } }, expect: { tenant: acme, reason: x } }
  - name: a header and an upstream
    request: { headers: { x-api-key: k-123 } }
    expect: { tenant: acme, headers: { x-plan: gold }, upstream: big }
  - { name: as expected, expect: { next: true } }
"],
    ))
    .await
    .unwrap();
    assert!(!tested.is_ok());
    let text = desk.portable(&tested.render(OutputFormat::Human));
    let (failed, summary) = text.trim_end().rsplit_once("\n\n").unwrap();
    insta::assert_snapshot!(failed);
    assert!(summary.ends_with(": 7 cases, 6 not as expected"), "{summary}");
    let json: serde_json::Value = serde_json::from_str(&tested.render(OutputFormat::Json)).unwrap();
    assert_eq!(json["ok"], false);
    assert_eq!(
        json["cases"][0]["differences"],
        serde_json::json!([{ "field": "tenant", "expected": "globex", "got": "acme" }])
    );
}

#[tokio::test]
async fn a_look_up_that_the_case_does_not_answer_names_the_key_to_add() {
    let desk = Desk::new();
    let plugin = desk.file("asks.wasm", guest("asks-directory"));
    let tested = test(&desk.args(
        plugin,
        &["
cases:
  - { name: known, directory: { acme: { schema: tenant_acme } }, expect: { tenant: acme } }
  - { name: unknown, directory: { acme: null }, expect: { next: true } }
  - { name: not said, directory: { globex: null }, expect: { failure: directory-unavailable } }
"],
    ))
    .await
    .unwrap();
    let text = desk.portable(&tested.render(OutputFormat::Human));
    assert!(text.contains("FAILED not said (cases-0.yaml:5)"), "{text}");
    assert!(text.contains("`acme: { schema: … }`") && text.contains("`acme: null`"), "{text}");
    assert!(text.ends_with("3 cases, 1 not as expected\n"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&tested.render(OutputFormat::Json)).unwrap();
    assert_eq!(json["cases"][2]["unanswered"], "acme");
    assert_eq!(json["cases"][0]["read"], serde_json::json!(["directory acme"]));
}

#[tokio::test]
async fn hostile_plugins_fail_as_their_cases_say() {
    let desk = Desk::new();
    for (name, class) in [
        ("trap", "trap"),
        ("memory-bomb", "memory"),
        ("stack-overflow", "stack-overflow"),
        ("bad-tenant", "bad-result"),
        ("error-text", "guest"),
    ] {
        let plugin = desk.file("hostile.wasm", guest(name));
        let expects = format!("cases: [ {{ name: it fails, expect: {{ failure: {class} }} }} ]");
        let tested = test(&desk.args(plugin, &[&expects])).await.unwrap();
        assert!(tested.is_ok(), "{name}: {}", tested.render(OutputFormat::Human));
    }
}

#[tokio::test]
async fn claims_reach_the_plugin_as_json() {
    let desk = Desk::new();
    let plugin = desk.file("claims.wasm", guest("reads-claims"));
    let tested = test(&desk.args(
        plugin,
        &["
cases:
  - { name: the claims are the tenant, request: { claims: 42 }, expect: { tenant: '42' } }
  - { name: no claims, expect: { next: true } }
"],
    ))
    .await
    .unwrap();
    assert!(tested.is_ok(), "{}", tested.render(OutputFormat::Human));
}

#[tokio::test]
async fn a_policy_lends_its_configuration() {
    let desk = Desk::new();
    let policy = desk.file(
        "policy.yaml",
        "
version: 1
upstreams: { app: { endpoints: [ http://127.0.0.1:9 ] } }
tenants: { list: [ { id: acme, schema: acme } ] }
plugins:
  keys: { path: gone.wasm, sha256: '0000000000000000000000000000000000000000000000000000000000000000', config: { keys: { k: acme } } }
routes: [ { name: all, tenant: { first: [ { plugin: keys } ] }, forward: app } ]
",
    );
    let cases =
        "cases: [ { name: the key, request: { headers: { x-api-key: k } }, expect: { tenant: acme } } ]";
    let args = desk.args(legacy_keys(), &[cases]);
    let lent = |plugin: &str| {
        let settings =
            SettingsArgs { config: None, policy: Some(policy.clone()), plugin: Some(plugin.into()) };
        TestArgs { settings, ..args.clone() }
    };
    assert!(test(&lent("keys")).await.unwrap().is_ok());
    let unknown = lent("kays");
    assert!(test(&unknown).await.unwrap_err().contains("it has `keys`"));
    // Without a policy nobody knows the key; with an argument it is known again.
    assert!(!test(&args).await.unwrap().is_ok());
    let config = Some(serde_json::json!({ "keys": { "k": "acme" } }));
    let settings = SettingsArgs { config, ..SettingsArgs::default() };
    assert!(test(&TestArgs { settings, ..args }).await.unwrap().is_ok());
}

#[tokio::test]
async fn mistakes_in_cases_are_all_shown_with_their_places() {
    let desk = Desk::new();
    let args = desk.args(
        legacy_keys(),
        &[
            "
plugn: legacy-keys
cases:
  - name: first
    request: { method: get, path: orders?q=1, headers: { 'a b': 1, x-a: \"a\\nb\" }, peer: nowhere, scheme: ftp }
    directory: { 'a b': null, acme: { schema: public }, globex: { scheme: s } }
    expect: { tenant: acme, next: true }
  - { name: first, expect: { next: false } }
  - { name: third, expect: { next: true, upstream: big } }
  - { name: fourth, expect: { deny: { code: x } } }
  - { name: fifth, request: { query: 'a#b' }, expect: {} }
  - { expect: { tennant: acme } }
",
            "# nothing\n",
            "cases: []\n",
        ],
    );
    let error = test(&args).await.unwrap_err();
    insta::assert_snapshot!(desk.portable(&error));
    let missing = TestArgs { cases: vec![desk.0.path().join("gone.yaml")], ..args };
    assert!(test(&missing).await.unwrap_err().contains("there is no such file"));
}

#[tokio::test]
async fn blessed_expectations_are_what_the_plugin_decides_and_nothing_else_changes() {
    use std::os::unix::fs::PermissionsExt as _;

    let desk = Desk::new();
    let before = "\
# Which key is whose.
config: { keys: { k-1: acme, k-2: globex } }   # not the real ones
cases:
  - name: moved away
    request: { headers: { x-api-key: k-1 } }
    expect: { tenant: initech }   # since spring
  - name: with a reason
    request: { headers: { x-api-key: k-2 } }
    expect:
      tenant: acme
      reason: habit
  - { name: gone, request: { headers: { x-api-key: k-3 } }, expect: { deny: { status: 403 } } }
  - name: as it is
    request: { headers: { x-api-key: k-1 } }
    expect: { tenant: 'acme' }
";
    let wanted = before
        .replace("{ tenant: initech }", "{ tenant: acme }")
        .replace("      tenant: acme\n      reason: habit", "      tenant: globex\n      reason: \"api key\"")
        .replace("{ deny: { status: 403 } }", "{ next: true }");
    let args = TestArgs { bless: true, ..desk.args(legacy_keys(), &[before]) };
    let link = desk.0.path().join("link.yaml");
    std::os::unix::fs::symlink(&args.cases[0], &link).unwrap();
    std::fs::set_permissions(&link, std::fs::Permissions::from_mode(0o640)).unwrap();
    let tested = test(&TestArgs { cases: vec![link], ..args.clone() }).await.unwrap();
    assert_eq!(std::fs::read_to_string(&args.cases[0]).unwrap(), wanted);
    assert_eq!(std::fs::metadata(&args.cases[0]).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(tested.is_ok());
    let text = tested.render(OutputFormat::Human);
    assert!(
        text.starts_with("BLESSED moved away (") && text.contains("expected `initech`, got `acme`"),
        "{text}"
    );
    assert!(text.ends_with("4 cases, 3 expectations rewritten\n"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&tested.render(OutputFormat::Json)).unwrap();
    assert_eq!((&json["cases"][0]["blessed"], &json["cases"][3]["blessed"]), (&true.into(), &false.into()));
    // What holds is not touched.
    let tested = test(&args).await.unwrap();
    assert!(tested.render(OutputFormat::Human).ends_with("4 cases, all as expected\n"));
    assert_eq!(std::fs::read_to_string(&args.cases[0]).unwrap(), wanted);
}

#[tokio::test]
async fn where_one_file_cannot_be_blessed_none_is() {
    let desk = Desk::new();
    let good = "cases: [ { name: a, expect: { tenant: acme } } ]";
    let shared = "cases: [ { name: a, expect: &x { tenant: acme } }, { name: b, expect: *x } ]";
    for (bad, why) in [("cases: [ { name: a, expect: {} } ]", "cannot be used"), (shared, "an anchor")] {
        let args = TestArgs { bless: true, ..desk.args(legacy_keys(), &[good, bad]) };
        let error = test(&args).await.unwrap_err();
        assert!(error.contains(why), "{error}");
        for (path, before) in args.cases.iter().zip([good, bad]) {
            assert_eq!(std::fs::read_to_string(path).unwrap(), before);
        }
    }
}

#[tokio::test]
async fn a_look_up_without_an_answer_is_not_blessed() {
    let desk = Desk::new();
    let asks = desk.file("asks.wasm", guest("asks-directory"));
    let unanswered = "cases: [ { name: not said, expect: { next: true } } ]";
    let args = TestArgs { bless: true, ..desk.args(asks, &[unanswered]) };
    let tested = test(&args).await.unwrap();
    assert!(!tested.is_ok());
    assert!(tested.render(OutputFormat::Human).contains("FAILED not said"), "nobody knows what it decides");
    assert_eq!(std::fs::read_to_string(&args.cases[0]).unwrap(), unanswered);
}
