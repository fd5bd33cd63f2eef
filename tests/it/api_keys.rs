//! API keys stand for tenants: by their hash, until they end.

use sha2::{Digest, Sha256};

use crate::support::backend::Backend;
use crate::support::gateway::{Harness, TestGateway};

fn hash(key: &str) -> String {
    Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn policy(backend: &Backend, keys: &str) -> String {
    format!(
        "
version: 1
upstreams: {{ app: {{ endpoints: [ 'http://{}' ] }} }}
tenants: {{ list: [ {{ id: acme, schema: acme }}, {{ id: globex, schema: globex }}, {{ id: gone, schema: gone, state: suspended }} ] }}
keys: {{ partners: {keys} }}
routes:
  - {{ name: bearer, match: {{ path: /bearer }}, tenant: {{ api_key: {{ keys: partners, header: Authorization }} }}, forward: app }}
  - {{ name: app, tenant: {{ first: [ {{ api_key: {{ keys: partners }} }}, {{ header: X-Tenant-ID }} ] }}, forward: app }}
",
        backend.address
    )
}

async fn ask(gateway: &TestGateway, key: &str) -> String {
    let reply = gateway.get("/").header("x-api-key", key).send().await;
    match reply.status() {
        200 => reply.json()["headers"]["x-tenant-id"][0].as_str().unwrap().to_owned(),
        _ => reply.code(),
    }
}

#[tokio::test]
async fn a_key_names_its_tenant() {
    let backend = Backend::start().await;
    let list = format!(
        "[ {{ sha256: {}, tenant: acme }}, {{ sha256: {}, tenant: globex, expires: 2999-01-01T00:00:00Z }}, \
         {{ sha256: {}, tenant: acme, expires: 2020-01-01T00:00:00Z }}, {{ sha256: {}, tenant: gone }} ]",
        hash("a"),
        hash("b"),
        hash("over"),
        hash("c")
    );
    let gateway = Harness::new().policy(&policy(&backend, &list)).start().await;
    for (key, expected) in [
        ("a", "acme"),
        ("b", "globex"),
        ("over", "token-invalid"),
        ("guess", "token-invalid"),
        ("c", "tenant-suspended"),
        ("", "tenant-missing"),
    ] {
        assert_eq!(ask(&gateway, key).await, expected, "{key:?}");
    }
    let reply = gateway.get("/").header("x-api-key", "guess").tenant("acme").send().await;
    assert_eq!((reply.status(), reply.code().as_str()), (401, "token-invalid"));
    let twice = gateway.get("/").header("x-api-key", "a").header("x-api-key", "b").send().await;
    assert_eq!(twice.code(), "tenant-ambiguous");
    let reply = gateway.get("/bearer").header("authorization", "Bearer a").send().await;
    assert_eq!(reply.json()["headers"]["x-tenant-id"][0], "acme");
}

#[tokio::test]
async fn a_file_of_keys_is_read_again() {
    let backend = Backend::start().await;
    let gateway = Harness::new()
        .policy(&policy(&backend, "{ file: api-keys.yaml }"))
        .file("api-keys.yaml", format!("- {{ sha256: {}, tenant: acme }}\n", hash("old")))
        .start()
        .await;
    assert_eq!(ask(&gateway, "old").await, "acme");
    gateway.replace_file("api-keys.yaml", format!("- {{ sha256: {}, tenant: acme }}\n", hash("new")));
    gateway.until_generation(2).await;
    assert_eq!(
        (ask(&gateway, "old").await.as_str(), ask(&gateway, "new").await.as_str()),
        ("token-invalid", "acme")
    );
}
