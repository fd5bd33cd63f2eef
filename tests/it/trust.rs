//! What a plugin is trusted with: imports that are granted, a table, a few look-ups, and a file that
//! the right key has signed.

mod cache;
mod corpus;
mod mutations;

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use ed25519_dalek::{Signer as _, SigningKey};
use innkeeper::plugin::{FailureClass, LoadErrorClass};
use innkeeper::policy::{Capabilities, Capability, Plugin, Signature};

use crate::plugins::{Directory, ask, guest, host, load, plugin, request, reused, tenant};
use crate::policy::Desk;
use crate::support::backend::Backend;
use crate::support::gateway::{Harness, until};

fn granted(capabilities: &[Capability]) -> Capabilities {
    Capabilities(capabilities.to_vec())
}

#[tokio::test]
async fn an_import_that_is_not_granted_is_named_with_its_word() {
    use Capability as C;
    let host = host();
    let cases: [(&str, &[C], &str); 5] = [
        (
            "asks-directory",
            &[C::Log, C::Kv],
            "`innkeeper:policy/directory@0.1.0`, which the policy does not grant it: add `directory`",
        ),
        ("log-flood", &[], "add `log` to its `capabilities`, if it may (granted: none)"),
        ("looks-up-in-table", &[C::Log], "add `kv` to its `capabilities`, if it may (granted: `log`)"),
        ("prints", &[C::Log, C::Claims], "add `wasi` to its `capabilities`"),
        ("wants-sockets", &C::ALL, "but no files, network or processes"),
    ];
    for (name, capabilities, words) in cases {
        let settings = Plugin { capabilities: granted(capabilities), ..plugin(name) };
        let error = load(&host, settings).await.expect_err(name);
        assert_eq!(error.class, LoadErrorClass::ImportNotGranted, "{name}: {error}");
        assert!(error.message.contains(words), "{name}: {error}");
    }
    let settings = Plugin { capabilities: granted(&[]), ..plugin("reads-all-headers") };
    assert!(load(&host, settings).await.is_ok(), "reading the request takes no capability");
}

#[tokio::test]
async fn a_version_that_was_loaded_with_more_is_refused_with_less() {
    let host = host();
    assert!(load(&host, plugin("log-flood")).await.is_ok());
    let settings = Plugin { capabilities: granted(&[]), ..plugin("log-flood") };
    let error = load(&host, settings).await.unwrap_err();
    assert_eq!(error.class, LoadErrorClass::ImportNotGranted);
}

#[tokio::test]
async fn a_table_is_read_when_configured_and_for_each_request() {
    let host = host();
    let with = |entries: &[(&str, &str)], kind: fn(&str) -> Plugin| {
        let kv = entries.iter().map(|(key, text)| ((*key).into(), (*text).into())).collect();
        Plugin { kv, ..kind("looks-up-in-table") }
    };
    for kind in [plugin, reused] {
        // The same file and configuration throughout: only the table tells these apart.
        for (entries, wanted) in [
            (&[("default", "acme")][..], "acme"),
            (&[("default", "globex")], "globex"),
            (&[("default", "acme"), ("tenant", "initech")], "initech"),
        ] {
            let loaded = load(&host, with(entries, kind)).await.unwrap();
            assert_eq!(tenant(ask(&loaded).await), wanted);
            assert_eq!(tenant(ask(&loaded).await), wanted);
        }
        let empty = load(&host, with(&[], kind)).await.unwrap();
        assert_eq!(ask(&empty).await.unwrap_err().class, FailureClass::BadResult);
    }
}

#[tokio::test]
async fn a_request_is_worth_sixteen_look_ups() {
    let host = host();
    let asks = load(&host, plugin("asks-directory-for-ever")).await.unwrap();
    let failure = asks.resolve(&request("localhost", &[]), Arc::new(Directory::Known)).await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Trap);
    assert_eq!(failure.message, "it called directory.find more than 16 times for one request");
    // The count starts anew with each request, also in an instance that is used again.
    let one = load(&host, reused("asks-directory")).await.unwrap();
    for _ in 0..40 {
        assert_eq!(tenant(ask(&one).await), "acme");
    }
}

#[tokio::test]
async fn a_reused_instance_is_replaced_after_a_failure() {
    let host = host();
    let once = load(&host, reused("only-once")).await.unwrap();
    for _ in 0..3 {
        assert_eq!(tenant(ask(&once).await), "acme");
        assert_eq!(ask(&once).await.unwrap_err().class, FailureClass::Trap);
    }
}

/// A plugin whose signature, by the first of `keys`, is written as `write` says.
fn signed(directory: &Path, keys: &[SigningKey], write: impl Fn([u8; 64]) -> Option<Vec<u8>>) -> Plugin {
    let path = directory.join("plugin.wasm.sig");
    let _ = std::fs::remove_file(&path);
    if let Some(bytes) = write(keys[0].sign(&guest("good")).to_bytes()) {
        std::fs::write(&path, bytes).unwrap();
    }
    let keys = keys.iter().map(SigningKey::verifying_key).collect();
    Plugin { signature: Some(Signature { keys, path }), ..plugin("good") }
}

#[tokio::test]
async fn a_file_is_loaded_only_with_a_signature_by_a_trusted_key() {
    let host = host();
    let directory = tempfile::tempdir().unwrap();
    let [ours, theirs] = [SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32])];
    let both = [ours.clone(), theirs.clone()];

    for settings in [
        signed(directory.path(), &both, |bytes| Some(bytes.to_vec())),
        signed(directory.path(), &both, |bytes| Some(format!("{}\n", BASE64.encode(bytes)).into())),
    ] {
        assert!(load(&host, settings.clone()).await.is_ok());
        let error = host.load(Arc::new(settings), &guest("counter")).await.unwrap_err();
        assert_eq!(error.class, LoadErrorClass::SignatureInvalid, "another file under the same signature");
    }

    let one = std::slice::from_ref(&ours);
    let by_them = theirs.sign(&guest("good")).to_bytes().to_vec();
    let mut flipped = ours.sign(&guest("good")).to_bytes().to_vec();
    flipped[10] ^= 1;
    for (bytes, words) in [
        (None, "cannot be read from"),
        (Some(vec![0; 63]), "it has 63 bytes, neither 64 raw ones nor base64"),
        (Some(BASE64.encode([0; 32]).into_bytes()), "a signature has 64 bytes, this one has 32"),
        (Some(vec![b'A'; 1 << 20]), "more than 1024 bytes"),
        (Some(by_them), "none of the 1 trusted keys"),
        (Some(flipped), "none of the 1 trusted keys"),
    ] {
        let settings = signed(directory.path(), one, |_| bytes.clone());
        // A host remembers which keys have signed a file, and this file was signed above.
        let error = load(&self::host(), settings).await.unwrap_err();
        assert_eq!(error.class, LoadErrorClass::SignatureInvalid, "{error}");
        assert!(error.message.contains(words), "{words}: {error}");
    }
}

#[tokio::test]
async fn an_unsigned_file_never_reaches_the_compiler() {
    let directory = tempfile::tempdir().unwrap();
    let key = SigningKey::from_bytes(&[1; 32]);
    let settings = signed(directory.path(), &[key], |_| None);
    // It would be `compile-failed`.
    let error = host().load(Arc::new(settings), b"\0asm\x0d\0\x01\0\xff\xff\xff").await.unwrap_err();
    assert_eq!(error.class, LoadErrorClass::SignatureInvalid);
}

#[tokio::test]
async fn a_signature_that_arrives_later_brings_its_plugin_into_force() {
    let backend = Backend::start().await;
    let key = SigningKey::from_bytes(&[3; 32]);
    let policy = format!(
        "
version: 1
upstreams: {{ app: {{ endpoints: [ 'http://{}' ] }} }}
tenants: {{ list: [ {{ id: acme, schema: acme }}, {{ id: t1, schema: t1 }} ] }}
plugins:
  rule: {{ path: rule.wasm, trusted_keys: [ {} ], limits: {{ time: 10s }} }}
routes: [ {{ name: all, tenant: {{ plugin: rule }}, forward: app }} ]
",
        backend.address,
        BASE64.encode(key.verifying_key().to_bytes()),
    );
    let sign = |name: &str| key.sign(&guest(name)).to_bytes();
    let gateway = Harness::new()
        .file("rule.wasm", guest("good"))
        .file("rule.wasm.sig", sign("good"))
        .policy(&policy)
        .start()
        .await;
    let placed = || async { gateway.get("/").send().await.json()["headers"]["x-tenant-id"][0].clone() };
    assert_eq!(placed().await, "acme");
    gateway.replace_file("rule.wasm", guest("counter"));
    until(|| gateway.sidecar.reloader.last_attempt().error.is_some()).await;
    let error = gateway.sidecar.reloader.last_attempt().error.unwrap();
    assert!(error.contains("signature-invalid"), "{error}");
    assert_eq!(placed().await, "acme", "what nobody vouches for does not serve");
    gateway.replace_file("rule.wasm.sig", sign("counter"));
    gateway.until_generation(2).await;
    assert_eq!(placed().await, "t1");
}

/// What is said of a policy whose only plugin has these keys.
fn said_of(keys: &str) -> String {
    let text = format!(
        "version: 1\nupstreams: {{ app: {{ endpoints: [ http://127.0.0.1:9 ] }} }}\n\
         tenants: {{ list: [ {{ id: acme, schema: acme }} ] }}\nplugins:\n  rule:\n    path: rule.wasm\n{keys}\
         routes: [ {{ name: all, tenant: {{ plugin: rule }}, forward: app }} ]\n"
    );
    Desk::with(&text).diagnostics()
}

#[test]
fn a_key_that_cannot_be_one_is_refused_where_it_is_written() {
    let keys = |bytes: [u8; 32]| said_of(&format!("    trusted_keys: [ {} ]\n", BASE64.encode(bytes)));
    assert_eq!(keys(SigningKey::from_bytes(&[1; 32]).verifying_key().to_bytes()), "");
    let mut identity = [0; 32];
    identity[0] = 1;
    let mut no_point = [0; 32];
    no_point[0] = 2;
    for (bytes, words) in [
        (identity, "this key is worthless: anybody can sign for it"),
        (no_point, "these 32 bytes are not an Ed25519 public key"),
    ] {
        let said = keys(bytes);
        assert!(said.contains(words) && said.contains("policy.yaml:7:"), "{said}");
    }
}

#[test]
fn a_table_has_its_limits() {
    let table = |entries: usize, text: &str| {
        let entries: String = (0..entries).map(|key| format!("      k{key}: \"{text}\"\n")).collect();
        said_of(&format!("    kv:\n{entries}"))
    };
    assert_eq!(table(10_000, "v"), "");
    let said = table(10_001, "v");
    assert!(said.contains("a plugin's table has at most 10000 entries"), "{said}");
    assert!(said.contains("policy.yaml:10008:"), "{said}");
    let said = table(17, &"v".repeat(1 << 16));
    assert!(said.contains("a plugin's table has at most 1048576 bytes, keys included"), "{said}");
    assert!(said.contains("policy.yaml:23:"), "{said}");
}
