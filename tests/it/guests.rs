//! The example plugin: the committed component, its hash, and its source tell one story.

use std::fmt::Write as _;
use std::sync::Arc;

use innkeeper::cli::plugin::build::{BuildArgs, build};
use innkeeper::decision::Decision;
use innkeeper::plugin::{LoadErrorClass, LoadedPlugin};
use innkeeper::policy::{Instances, Plugin};
use sha2::{Digest as _, Sha256};

use crate::plugins::{Directory, host, plugin, request, root};

const CONFIG: &str = r#"{
    "keys": { "k-123": "acme", "k-456": "globex" },
    "hosts": { "old.example.com": "acme", "Shop.Globex.example": "globex" },
    "retired": { "acme-old": "acme" }
}"#;

/// Requests as host and headers, with the tenant that they must lead to.
type Case = (&'static str, &'static [(&'static str, &'static str)], Option<&'static str>);

const CASES: &[Case] = &[
    ("localhost", &[], None),
    ("localhost", &[("x-api-key", "k-123")], Some("acme")),
    ("localhost", &[("x-api-key", "k-456")], Some("globex")),
    ("localhost", &[("x-api-key", "k-999")], None),
    ("localhost", &[("x-api-key", "")], None),
    ("localhost", &[("x-api-key", "k-123"), ("x-api-key", "k-456")], None),
    ("old.example.com", &[], Some("acme")),
    ("OLD.example.com:8080", &[], Some("acme")),
    ("old.example.com.", &[], Some("acme")),
    ("shop.globex.example", &[], Some("globex")),
    ("old.example.com", &[("x-api-key", "k-456")], Some("globex")),
    ("new.example.com", &[], None),
    ("acme-old.example.com", &[], Some("acme")),
    ("acme-old.example.com", &[("x-tenant-id", "globex")], None),
    ("acme-old", &[], None),
    ("localhost", &[("x-tenant-id", "acme-old")], Some("acme")),
    ("localhost", &[("X-Tenant-ID", "acme")], None),
    ("[::1]:8080", &[], None),
    ("", &[], None),
];

fn committed() -> Vec<u8> {
    std::fs::read(root().join("plugins/legacy-keys.wasm")).unwrap()
}

async fn load(wasm: &[u8], config: &str) -> LoadedPlugin {
    let settings = Plugin { config: config.into(), ..plugin("legacy-keys") };
    host().load(Arc::new(settings), wasm).await.unwrap()
}

async fn decide(plugin: &LoadedPlugin, (host, headers, _): &Case) -> Decision {
    plugin.resolve(&request(host, headers), Arc::new(Directory::Empty)).await.unwrap()
}

#[test]
fn committed_components_have_their_committed_hashes() {
    for name in ["customer-number.wasm", "legacy-keys.wasm"] {
        let path = root().join("plugins").join(name);
        let mut sum = String::new();
        for byte in Sha256::digest(std::fs::read(&path).unwrap()) {
            write!(sum, "{byte:02x}").unwrap();
        }
        let written = std::fs::read_to_string(path.with_extension("wasm.sha256")).unwrap();
        assert_eq!(written, format!("{sum}  {name}\n"));
    }
}

#[tokio::test]
async fn legacy_names_lead_to_tenants() {
    let plugin = load(&committed(), CONFIG).await;
    assert!(plugin.starts_configured(), "a plugin made with the SDK is configured once");
    for case in CASES {
        let wanted = case.2;
        match decide(&plugin, case).await {
            Decision::Place(placement) => assert_eq!(Some(placement.tenant.as_str()), wanted, "{case:?}"),
            Decision::Next => assert_eq!(None, wanted, "{case:?}"),
            Decision::Deny(denial) => panic!("{case:?}: {denial:?}"),
        }
    }
}

#[tokio::test]
async fn a_wrong_configuration_names_the_field() {
    let host = host();
    for (config, words) in [
        (r#"{"keyz":{}}"#, "keyz"),
        (r#"{"keys":{"k-1":5}}"#, "keys.k-1"),
        (r#"{"hosts":{"a.example":"b c"}}"#, "hosts.a.example"),
        (r#"{"retired":[]}"#, "retired"),
        ("{", "config"),
    ] {
        let settings = Plugin { config: config.into(), ..plugin("legacy-keys") };
        let error = host.load(Arc::new(settings), &committed()).await.unwrap_err();
        assert_eq!(error.class, LoadErrorClass::ConfigureFailed, "{config}: {error}");
        assert!(error.message.contains(words), "{config}: {error}");
    }
    for empty in ["", "null", "{}"] {
        let plugin = load(&committed(), empty).await;
        assert_eq!(decide(&plugin, &CASES[1]).await, Decision::Next);
    }
}

/// Runs where `INNKEEPER_BUILD_GUESTS` is set; there, a missing toolchain is a failure.
#[tokio::test]
async fn source_and_committed_component_decide_alike() {
    if std::env::var_os("INNKEEPER_BUILD_GUESTS").is_none() {
        eprintln!("skipped: set INNKEEPER_BUILD_GUESTS=1 to build the example plugin from source");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let args = BuildArgs {
        output: Some(directory.path().join("legacy-keys.wasm")),
        ..BuildArgs::new(root().join("plugins/legacy-keys"))
    };
    let built = build(&args).unwrap();
    let source = std::fs::read(&built.path).unwrap();
    let (source, committed) = (load(&source, CONFIG).await, load(&committed(), CONFIG).await);
    for case in CASES {
        assert_eq!(decide(&source, case).await, decide(&committed, case).await, "{case:?}");
    }
    assert_eq!(source.settings().instances, Instances::PerRequest);
}
