//! Ways to a server: passwords as SCRAM over TCP, TLS with as much proof as `sslmode` asks for.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use innkeeper::cli::demo::cluster::{PrivatePostgres, SUPERUSER};
use serde_json::json;
use sha2::Sha256;

use crate::support::gateway::Harness;
use crate::support::postgres::{alone, eventually};

const SECRET: &str = "only for this test";

/// A server's certificate for 127.0.0.1 and its key, who issued it, and who did not. They are of
/// use to nobody: each test that has a server of its own may have them.
fn fixture(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/tls").join(file);
    path.to_str().unwrap().to_owned()
}

fn derived(role: &str) -> String {
    let mut code = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    code.update(role.as_bytes());
    URL_SAFE_NO_PAD.encode(code.finalize().into_bytes())
}

#[tokio::test]
async fn a_role_logs_in_with_its_password_over_tls_that_proves_what_it_must() {
    let server = PrivatePostgres::start().await.unwrap();
    let postgres = alone(&server).await;
    let read = |file: &str| std::fs::read_to_string(fixture(file)).unwrap();
    postgres
        .admin(&format!(
            "CREATE ROLE acme LOGIN PASSWORD '{password}'; CREATE SCHEMA acme AUTHORIZATION acme;
             CREATE ROLE locked LOGIN PASSWORD 'another'; CREATE SCHEMA locked AUTHORIZATION locked;
             COPY (SELECT unnest(string_to_array('{key}', E'\\n'))) TO PROGRAM 'umask 077; cat > server.key';
             COPY (SELECT unnest(string_to_array('{certificate}', E'\\n'))) TO PROGRAM 'cat > server.crt';",
            password = derived("acme"),
            key = read("server.key"),
            certificate = read("server.crt"),
        ))
        .await;
    postgres.admin("ALTER SYSTEM SET ssl TO on").await;
    postgres.admin("SELECT pg_reload_conf()").await;
    eventually("the server offers TLS", || async { postgres.read::<String>("SHOW ssl").await == "on" }).await;

    // The URL's own user is never asked for: every statement is a tenant's.
    let tcp = server.tcp_url("postgres");
    let by_name = tcp.replace("127.0.0.1", "localhost");
    let (root, stranger) = (fixture("root.crt"), fixture("stranger.crt"));
    let ways = [
        ("plain", format!("{tcp}?sslmode=disable"), Some(false)),
        ("offered", format!("{tcp}?sslmode=prefer"), Some(true)),
        ("required", format!("{tcp}?sslmode=require"), Some(true)),
        ("issuer", format!("{by_name}?sslmode=verify-ca&sslrootcert={root}"), Some(true)),
        ("host", format!("{tcp}?sslmode=verify-full&sslrootcert={root}"), Some(true)),
        ("other-host", format!("{by_name}?sslmode=verify-full&sslrootcert={root}"), None),
        ("other-issuer", format!("{tcp}?sslmode=verify-ca&sslrootcert={stranger}"), None),
        ("other-root", format!("{tcp}?sslmode=require&sslrootcert={stranger}"), None),
    ];
    let (mut databases, mut routes) = (String::new(), String::new());
    for (name, url, _) in &ways {
        databases.push_str(&format!(
            "  {name}: {{ url: '{url}', isolation: login, login: {{ derive_from: '{SECRET}' }} }}\n"
        ));
        routes.push_str(&format!(
            "  - name: {name}\n    match: {{ path: /{name} }}\n    tenant: {{ header: X-Tenant-ID }}\n    \
             sql: {{ database: {name} }}\n"
        ));
    }
    let policy = format!(
        "version: 1\ndatabases:\n{databases}\
         tenants: {{ list: [ {{ id: acme, schema: acme, role: acme }}, {{ id: locked, schema: locked, role: locked }} ] }}\n\
         routes:\n{routes}"
    );
    let gateway = Harness::new().policy(&policy).start().await;
    let ask = |path: &str, tenant: &str| {
        let body = json!({ "query": "select 1 as one" }).to_string();
        gateway.post(&format!("/{path}")).tenant(tenant).body(body).send()
    };
    for (name, _, encrypted) in &ways {
        let reply = ask(name, "acme").await;
        let Some(encrypted) = encrypted else {
            assert_eq!((reply.status(), reply.code().as_str()), (503, "database-unavailable"), "{name}");
            continue;
        };
        if reply.status() != 200 {
            panic!("{name}: {:?}", gateway.records(|line| line["route"] == *name).await);
        }
        assert_eq!(reply.json()["rows"], json!([["1"]]), "{name}");
        let how =
            "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'acme'";
        // Null where nobody is logged in as the tenant, which fails too.
        assert_eq!(postgres.read::<bool>(how).await, *encrypted, "{name}");
        let close = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'acme'";
        postgres.admin(close).await;
    }
    // A role with another password is a mistake of the set-up, and nobody else's trouble.
    let locked = ask("plain", "locked").await;
    assert_eq!((locked.status(), locked.code().as_str()), (503, "database-unavailable"));
    assert_eq!(ask("plain", "acme").await.status(), 200);
    let lines = gateway.records(|line| line["tenant"] == "locked").await;
    assert_eq!(lines[0]["error"], "database-unavailable");
    assert!(!lines[0].to_string().contains(SUPERUSER), "{}", lines[0]);
}
