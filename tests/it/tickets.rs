//! Tickets from end to end: a backend gets one, runs a statement with it as its request's tenant,
//! and nobody else gets anywhere with a ticket of their own making.

use std::net::{SocketAddr, TcpListener};
use std::time::{SystemTime, UNIX_EPOCH};

use innkeeper::sidecar::StartError;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::policy::Desk;
use crate::support::backend::Backend;
use crate::support::gateway::{Harness, TestGateway};
use crate::support::postgres::{TestDatabase, database};

/// The key that the processes of one test share.
const KEY: &str = "thirty-two bytes that two processes share";

/// The address that a policy's second listener is put in the place of.
const SECOND: &str = "SECOND";

struct Stage {
    database: TestDatabase,
    backend: Backend,
}

impl Stage {
    async fn set() -> Self {
        let (database, backend) = (database().await, Backend::start().await);
        let login = database.login();
        for tenant in ["acme", "globex", "gone"] {
            database
                .admin(&format!(
                    "CREATE SCHEMA {tenant}; CREATE TABLE {tenant}.me (name text); \
                     INSERT INTO {tenant}.me VALUES ('{tenant} itself'); \
                     GRANT USAGE ON SCHEMA {tenant} TO {login}; GRANT SELECT ON {tenant}.me TO {login}"
                ))
                .await;
        }
        Self { database, backend }
    }

    fn policy(&self, server: &str, ticket_match: &str) -> String {
        format!(
            "
version: 1
server: {{ {server} }}
databases: {{ main: {{ url: '{}' }} }}
upstreams: {{ app: {{ endpoints: [ 'http://{}' ] }} }}
tenants:
  list:
    - {{ id: acme, schema: acme }}
    - {{ id: globex, schema: globex }}
    - {{ id: gone, schema: gone, state: suspended }}
routes:
  - name: me
    match: {{ path: /me{ticket_match} }}
    tenant: {{ ticket: X-Tenant-Ticket }}
    query: {{ database: main, sql: select name from me, result: value }}
  - {{ name: public, match: {{ path: /public }}, tenant: none, forward: app }}
  - {{ name: plain, match: {{ path: /plain }}, tenant: {{ header: X-Tenant-ID }}, forward: app }}
  - {{ name: app, tenant: {{ header: X-Tenant-ID }}, forward: {{ upstream: app, ticket: 60s }} }}
",
            self.database.url(&self.database.login()),
            self.backend.address
        )
    }

    async fn start(&self, server: &str) -> TestGateway {
        Harness::new().policy(&self.policy(server, "")).start().await
    }
}

fn shared_key() -> String {
    format!("ticket_key: '{KEY}'")
}

/// Every value of the ticket header, in any spelling, that reached the backend.
fn tickets_seen(echo: &Value) -> Vec<String> {
    let headers = echo["headers"].as_object().unwrap();
    let tickets = headers.iter().filter(|(name, _)| name.replace('_', "-") == "x-tenant-ticket");
    tickets
        .flat_map(|(_, values)| values.as_array().unwrap())
        .map(|one| one.as_str().unwrap().into())
        .collect()
}

/// The ticket that the backend gets with a request of `tenant`.
async fn ticket_of(gateway: &TestGateway, tenant: &str) -> String {
    let reply = gateway.get("/orders").tenant(tenant).send().await;
    assert_eq!(reply.status(), 200, "{}", reply.text());
    let tickets = tickets_seen(&reply.json());
    assert_eq!(tickets.len(), 1, "{}", reply.text());
    tickets[0].clone()
}

fn signed(kind: Option<&str>, algorithm: Algorithm, key: &str, claims: &Value) -> String {
    let header = Header { typ: kind.map(str::to_owned), ..Header::new(algorithm) };
    encode(&header, claims, &EncodingKey::from_secret(key.as_bytes())).unwrap()
}

fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(now).unwrap() + seconds
}

#[tokio::test]
async fn a_backend_runs_statements_as_the_tenant_of_the_request_that_it_serves() {
    let stage = Stage::set().await;
    let gateway = stage.start("").await;
    for tenant in ["acme", "globex"] {
        let ticket = ticket_of(&gateway, tenant).await;
        let reply = gateway.get("/me").header("x-tenant-ticket", &ticket).send().await;
        assert_eq!(reply.json(), json!(format!("{tenant} itself")));
        // Nothing else that a request says changes whose ticket it is.
        let other = if tenant == "acme" { "globex" } else { "acme" };
        let reply = gateway.get("/me").header("x-tenant-ticket", &ticket).tenant(other).send().await;
        assert_eq!(reply.json(), json!(format!("{tenant} itself")));
    }
    let without = gateway.get("/me").tenant("acme").send().await;
    assert_eq!((without.status(), without.code().as_str()), (400, "tenant-missing"));
    let (one, other) = (ticket_of(&gateway, "acme").await, ticket_of(&gateway, "globex").await);
    let both =
        gateway.get("/me").header("x-tenant-ticket", &one).header("X_Tenant_Ticket", &other).send().await;
    assert_eq!((both.status(), both.code().as_str()), (400, "tenant-ambiguous"));
}

#[tokio::test]
async fn with_its_ticket_a_backend_writes_its_own_statements() {
    let stage = Stage::set().await;
    let (login, name) = (stage.database.login(), &stage.database.name);
    for tenant in ["acme", "globex"] {
        stage
            .database
            .admin(&format!(
                "CREATE ROLE {name}_{tenant}; GRANT {name}_{tenant} TO {login}; \
                 GRANT USAGE ON SCHEMA {tenant} TO {name}_{tenant}; \
                 GRANT ALL ON {tenant}.me TO {name}_{tenant}"
            ))
            .await;
    }
    let policy = format!(
        "
version: 1
databases: {{ main: {{ url: '{}', isolation: role }} }}
upstreams: {{ app: {{ endpoints: [ 'http://{}' ] }} }}
tenants:
  list:
    - {{ id: acme, schema: acme, role: {name}_acme }}
    - {{ id: globex, schema: globex, role: {name}_globex }}
routes:
  - {{ name: statements, match: {{ path: /sql }}, tenant: {{ ticket: X-Tenant-Ticket }}, sql: {{ database: main }} }}
  - {{ name: app, tenant: {{ header: X-Tenant-ID }}, forward: {{ upstream: app, ticket: 60s }} }}
",
        stage.database.url(&login),
        stage.backend.address
    );
    let gateway = Harness::new().policy(&policy).start().await;
    for (tenant, other) in [("acme", "globex"), ("globex", "acme")] {
        let ticket = ticket_of(&gateway, tenant).await;
        let run = |sql: String| {
            let body = json!({ "query": sql, "params": [] });
            gateway.post("/sql").header("x-tenant-ticket", &ticket).json(&body).send()
        };
        let changed = run(format!("insert into me values ('{tenant} again')")).await;
        assert_eq!(changed.status(), 200, "{}", changed.text());
        let rows = run("select name from me order by name".into()).await.json()["rows"].clone();
        assert_eq!(rows, json!([[format!("{tenant} again")], [format!("{tenant} itself")]]));
        let stolen = run(format!("select name from {other}.me")).await;
        assert_ne!(stolen.status(), 200, "{}", stolen.text());
        assert!(!stolen.text().contains("itself"), "{}", stolen.text());
    }
}

#[tokio::test]
async fn what_a_client_calls_its_ticket_never_reaches_a_backend() {
    let stage = Stage::set().await;
    let gateway = stage.start(&shared_key()).await;
    let genuine = ticket_of(&gateway, "globex").await;
    for claimed in [genuine.as_str(), "made.up.ticket"] {
        let sent = |path: &'static str| {
            gateway
                .get(path)
                .tenant("acme")
                .header("x-tenant-ticket", claimed)
                .header("X_Tenant_Ticket", claimed)
                .send()
        };
        assert_eq!(tickets_seen(&sent("/plain").await.json()), Vec::<String>::new());
        assert_eq!(tickets_seen(&sent("/public").await.json()), Vec::<String>::new());
        let given = tickets_seen(&sent("/orders").await.json());
        assert_eq!(given.len(), 1);
        let reply = gateway.get("/me").header("x-tenant-ticket", &given[0]).send().await;
        assert_eq!(reply.json(), json!("acme itself"));
    }
}

#[tokio::test]
async fn what_is_not_a_ticket_of_ours_is_refused() {
    const OURS: Option<&str> = Some("innkeeper-ticket+jwt");
    let stage = Stage::set().await;
    let gateway = stage.start(&shared_key()).await;
    let acme = json!({ "sub": "acme", "exp": in_seconds(3600) });
    let genuine = ticket_of(&gateway, "acme").await;
    let claims_of = |ticket: &str| ticket.split('.').nth(1).unwrap().to_owned();
    let stolen = genuine.replace(&claims_of(&genuine), &claims_of(&ticket_of(&gateway, "globex").await));
    let unsigned = format!(
        "eyJhbGciOiJub25lIiwidHlwIjoiaW5ua2VlcGVyLXRpY2tldCtqd3QifQ.{}.",
        claims_of(&signed(OURS, Algorithm::HS256, KEY, &acme))
    );
    for (what, ticket) in [
        ("no token at all", "acme".to_owned()),
        ("another tenant's claims under a signature", stolen),
        ("cut short", genuine[..genuine.len() - 4].to_owned()),
        ("unsigned", unsigned),
        ("another key", signed(OURS, Algorithm::HS256, "thirty-two bytes that nobody else knows.", &acme)),
        ("another algorithm", signed(OURS, Algorithm::HS512, KEY, &acme)),
        ("another kind of token", signed(Some("JWT"), Algorithm::HS256, KEY, &acme)),
        ("no kind at all", signed(None, Algorithm::HS256, KEY, &acme)),
        ("over", signed(OURS, Algorithm::HS256, KEY, &json!({ "sub": "acme", "exp": in_seconds(-2) }))),
        ("without an end", signed(OURS, Algorithm::HS256, KEY, &json!({ "sub": "acme" }))),
        ("of nobody", signed(OURS, Algorithm::HS256, KEY, &json!({ "sub": "", "exp": in_seconds(60) }))),
    ] {
        let reply = gateway.get("/me").header("x-tenant-ticket", &ticket).send().await;
        assert_eq!((reply.status(), reply.code().as_str()), (401, "denied"), "{what}: {}", reply.text());
        assert!(!reply.text().contains("itself"), "{what}: {}", reply.text());
    }
    // The key and the kind are what it takes, and then the tenant is looked up as any other.
    let ours = |tenant: &str| {
        signed(OURS, Algorithm::HS256, KEY, &json!({ "sub": tenant, "exp": in_seconds(3600) }))
    };
    for (tenant, status, code) in [("gone", 403, "tenant-suspended"), ("nobody", 404, "tenant-unknown")] {
        let reply = gateway.get("/me").header("x-tenant-ticket", &ours(tenant)).send().await;
        assert_eq!((reply.status(), reply.code().as_str()), (status, code), "{}", reply.text());
    }
    let reply = gateway.get("/me").header("x-tenant-ticket", &ours("acme")).send().await;
    assert_eq!(reply.json(), json!("acme itself"));
}

#[tokio::test]
async fn processes_with_one_key_honour_each_others_tickets_and_others_do_not() {
    let stage = Stage::set().await;
    let shared = shared_key();
    let (one, two) = tokio::join!(stage.start(&shared), stage.start(&shared));
    let ticket = ticket_of(&one, "globex").await;
    let reply = two.get("/me").header("x-tenant-ticket", &ticket).send().await;
    assert_eq!(reply.json(), json!("globex itself"));

    // Without a key each has its own; it outlives a reload.
    let (one, two) = tokio::join!(stage.start(""), stage.start(""));
    let ticket = ticket_of(&one, "globex").await;
    let reply = two.get("/me").header("x-tenant-ticket", &ticket).send().await;
    assert_eq!((reply.status(), reply.code().as_str()), (401, "denied"));
    one.write_policy(&stage.policy("timeouts: { keep_alive: 60s }", ""));
    one.until_generation(2).await;
    let reply = one.get("/me").header("x-tenant-ticket", &ticket).send().await;
    assert_eq!(reply.json(), json!("globex itself"));
}

#[tokio::test]
async fn a_route_may_be_served_on_one_listener_only() {
    let stage = Stage::set().await;
    let text = stage.policy("listen: [ 'FIRST', 'SECOND' ]", &format!(", listener: '{SECOND}'"));
    let gateway = start_on_free_ports(&text).await;
    let ticket = ticket_of(&gateway, "acme").await;
    let reply = gateway.get_at(1, "/me").header("x-tenant-ticket", &ticket).send().await;
    assert_eq!(reply.json(), json!("acme itself"));
    // Outside, the same path is the application's.
    let reply = gateway.get_at(0, "/me").tenant("acme").header("x-tenant-ticket", &ticket).send().await;
    assert_eq!(reply.json()["path"], "/me", "{}", reply.text());
}

/// A gateway with two listeners at addresses that its policy names. Between the moment when a port
/// was free and the one when it is bound, another test may take it: then others are tried.
async fn start_on_free_ports(policy: &str) -> TestGateway {
    loop {
        let free = || TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let addresses: [SocketAddr; 2] = {
            let (first, second) = (free(), free());
            [first.local_addr().unwrap(), second.local_addr().unwrap()]
        };
        let text =
            policy.replace("FIRST", &addresses[0].to_string()).replace(SECOND, &addresses[1].to_string());
        match Harness::new().policy(&text).try_start_at(vec![]).await {
            Ok(gateway) => return gateway,
            Err(StartError::Bind { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_listener_in_a_match_is_one_that_the_server_has() {
    let with = |listener: &str, test: &str| {
        Desk::with(&format!(
            "version: 1\nserver: {{ listen: [ 127.0.0.1:8080, 127.0.0.1:8081 ] }}\n\
             upstreams: {{ app: {{ endpoints: [ http://127.0.0.1:9000 ] }} }}\n\
             routes:\n  - {{ name: inside, match: {{ listener: '{listener}' }}, tenant: none, forward: app }}\n  \
             - {{ name: outside, tenant: none, forward: app }}\n{test}"
        ))
        .diagnostics()
    };
    assert_eq!(with("127.0.0.1:8081", ""), "");
    let unknown = with("127.0.0.1:8082", "");
    assert!(unknown.contains("no listener is at `127.0.0.1:8082`"), "{unknown}");
    let moving = with("127.0.0.1:0", "");
    assert!(moving.contains("port 0"), "{moving}");
}

#[test]
fn the_example_of_a_legacy_backend_is_right_with_nothing_set() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/fastapi/policy.yaml");
    let policy = std::fs::read_to_string(example).unwrap();
    assert_eq!(Desk::with(&policy).diagnostics(), "");
}
