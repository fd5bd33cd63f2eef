//! Signed assertions: what a backend can verify, and what it cannot be made to believe.

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{EncodePrivateKey as _, KeypairBytes};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::Value;

use crate::policy::Desk;
use crate::support::backend::Backend;
use crate::support::gateway::{Harness, TestGateway};

fn pem(seed: u8) -> String {
    let key = KeypairBytes { secret_key: [seed; 32], public_key: None };
    key.to_pkcs8_pem(LineEnding::LF).unwrap().to_string()
}

fn policy(endpoint: &str, server: &str) -> String {
    format!(
        "
version: 1
server: {{ {server} }}
upstreams: {{ app: {{ endpoints: [ 'http://{endpoint}' ] }} }}
tenants: {{ list: [ {{ id: acme, schema: acme_schema }}, {{ id: globex, schema: globex }} ] }}
routes:
  - {{ name: any, match: {{ path: /any }}, tenant: {{ header: X-Tenant-ID }}, forward: {{ upstream: app, assertion: {{ audience: app, bind: tenant, issuer: edge }} }} }}
  - {{ name: plain, match: {{ path: /plain }}, tenant: {{ header: X-Tenant-ID }}, forward: app }}
  - {{ name: app, tenant: {{ header: X-Tenant-ID }}, forward: {{ upstream: app, strip_prefix: /api, assertion: {{ audience: app, lifetime: 90s }} }} }}
"
    )
}

async fn start(server: &str) -> (TestGateway, Backend) {
    let backend = Backend::start().await;
    let policy = policy(&backend.address.to_string(), server);
    (Harness::new().policy(&policy).file("new.pem", pem(1)).file("old.pem", pem(2)).start().await, backend)
}

/// The assertion that the backend got, and nothing in another spelling of its name.
fn assertion(seen: &Value) -> String {
    let headers = seen["headers"].as_object().unwrap();
    let found: Vec<&Value> = headers
        .iter()
        .filter(|(name, _)| name.replace('_', "-") == "x-tenant-assertion")
        .flat_map(|(_, values)| values.as_array().unwrap())
        .collect();
    assert_eq!(found.len(), 1, "{seen}");
    found[0].as_str().unwrap().to_owned()
}

/// What a backend does: the key by its name from the published set, then the claims.
async fn verify(gateway: &TestGateway, token: &str) -> Value {
    let set: JwkSet =
        serde_json::from_value(gateway.admin("/.well-known/jwks.json").send().await.json()).unwrap();
    let header = decode_header(token).unwrap();
    assert_eq!(header.typ.as_deref(), Some("innkeeper-assertion+jwt"));
    let key = set.find(header.kid.as_deref().unwrap()).expect("the key is published");
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&["app"]);
    decode::<Value>(token, &DecodingKey::from_jwk(key).unwrap(), &validation).unwrap().claims
}

#[tokio::test]
async fn a_backend_can_verify_whose_request_it_is() {
    let (gateway, _backend) = start("assertion_key: [ { file: new.pem }, { file: old.pem } ]").await;
    let call = gateway.get("/api/orders?q=1").tenant("acme").host("app.example:8080");
    let reply =
        call.header("x-tenant-assertion", "forged").header("x_tenant_assertion", "forged").send().await;
    let seen = reply.json();
    let claims = verify(&gateway, &assertion(&seen)).await;
    assert_eq!(claims["iss"], "innkeeper");
    assert_eq!(claims["sub"], "acme");
    assert_eq!(claims["schema"], "acme_schema");
    assert_eq!(claims["jti"].as_str(), reply.header("x-request-id"));
    assert_eq!((claims["htm"].as_str(), seen["path"].as_str()), (Some("GET"), Some("/orders")));
    assert_eq!(claims["htu"], "http://app.example:8080/orders");
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 90);
    // The first key signs, both are published: backends know the next one before it is used.
    let set = gateway.admin("/.well-known/jwks.json").send().await.json();
    assert_eq!(set["keys"].as_array().unwrap().len(), 2);
    assert!(!set.to_string().contains("\"d\""), "{set}");
    let plain =
        gateway.get("/plain").tenant("acme").header("x-tenant-assertion", "forged").send().await.json();
    assert!(plain["headers"]["x-tenant-assertion"].is_null());
}

#[tokio::test]
async fn one_for_any_request_of_its_tenant_is_signed_once() {
    let (gateway, _backend) = start("").await;
    let ask = async |tenant: &str| assertion(&gateway.get("/any").tenant(tenant).send().await.json());
    let (first, second, other) = (ask("acme").await, ask("acme").await, ask("globex").await);
    assert_eq!(first, second);
    let claims = verify(&gateway, &first).await;
    assert_eq!((claims["iss"].as_str(), claims["sub"].as_str()), (Some("edge"), Some("acme")));
    assert!(claims["htm"].is_null() && claims["htu"].is_null());
    assert_eq!(verify(&gateway, &other).await["sub"], "globex");
}

#[tokio::test]
async fn a_reload_keeps_the_process_s_own_key() {
    let (gateway, _backend) = start("").await;
    let keys = async || gateway.admin("/.well-known/jwks.json").send().await.json();
    let before = keys().await;
    let text = std::fs::read_to_string(gateway.path_of("policy.yaml")).unwrap();
    gateway.write_policy(&format!("{text}# another edit\n"));
    gateway.until_generation(2).await;
    assert_eq!(keys().await, before);
}

#[test]
fn keys_of_another_kind_are_found_in_the_policy() {
    let key = SigningKey::from_bytes(&[3; 32]).to_pkcs8_pem(LineEnding::LF).unwrap();
    let with = |server: &str| {
        Desk::with(&policy("127.0.0.1:1", server))
            .file("key.pem", &key)
            .file("no.pem", "-----BEGIN RSA PRIVATE KEY-----")
    };
    assert_eq!(with("assertion_key: { file: key.pem }").policy().server.assertion_keys.len(), 1);
    let of_the_environment = with("assertion_key: '${KEY}'").variable("KEY", &key);
    assert_eq!(of_the_environment.policy().server.assertion_keys.len(), 1);
    let found = with("assertion_key: secret-text").diagnostics();
    assert!(found.contains("no private Ed25519 key") && !found.contains("secret-text"), "{found}");
    assert!(with("assertion_key: { file: no.pem }").diagnostics().contains("no private Ed25519 key"));
    assert!(with("assertion_key: { file: none.pem }").diagnostics().contains("there is no such file"));
}
