//! Who a backend is told that a request comes from, and from where: whatever a client writes, only
//! we say. Each case looks at what the backend received.

use std::fmt::Write as _;

use tokio::sync::mpsc;

use super::support::gateway::{Harness, TestGateway};
use super::support::raw_client::RawClient;
use super::support::raw_upstream::RawUpstream;

/// Header lines that a client adds to a sound request of acme's. None may reach the backend.
const FORGED: &[&str] = &[
    // The tenant, in every spelling that some backend folds into the same name.
    "X-Tenant-ID: evil",
    "x-tenant-id: evil",
    "X-TENANT-ID: evil",
    "X_Tenant_ID: evil",
    "x_tenant_id: evil",
    "X-Tenant_ID: evil",
    "X_Tenant-ID: evil",
    "X.Tenant.ID: evil",
    "X~Tenant~ID: evil",
    "X!Tenant!ID: evil",
    "X|Tenant|ID: evil",
    "X-Tenant.ID: evil",
    "X-Tenant-ID: evil\r\nX-Tenant-ID: evil",
    "X-Tenant-ID: evil\r\nX_Tenant_ID: evil",
    "X-Tenant-ID:evil",
    "X-Tenant-ID:   evil   ",
    "X-Tenant-ID:\tevil",
    "X-Tenant-ID: acme, evil",
    "X-Tenant-ID: \"evil\"",
    "X-Tenant-ID: \u{430}cme-evil",
    "X-Tenant-Schema: evil",
    "X_TENANT_SCHEMA: evil",
    "X-Tenant-Ticket: evil",
    "x_tenant_ticket: evil",
    "X-Tenant-Role: evil",
    "X-Tenant-Anything: evil",
    // Where it came from.
    "Forwarded: for=evil",
    "forwarded: for=127.0.0.1;host=evil",
    "X-Forwarded-For: evil",
    "X_Forwarded_For: evil",
    "x.forwarded.for: evil",
    "X-Forwarded-For: evil\r\nX-Forwarded-For: evil",
    "X-Forwarded-Host: evil",
    "X-Forwarded-Proto: evil",
    "X-Forwarded-Port: evil",
    "X-Forwarded-Prefix: /evil",
    "X-Forwarded-Server: evil",
    "X-Forwarded-Tenant: evil",
    "X_FORWARDED_HOST: evil",
    "X-Real-IP: evil",
    "X_Real_IP: evil",
    "X-Request-ID: evil",
    "X_Request_ID: evil",
    // What ends at a hop, or speaks to proxies.
    "Proxy: http://evil/",
    "Proxy-Authorization: evil",
    "Proxy-Connection: evil",
    "Keep-Alive: timeout=evil",
    "TE: evil",
    "Trailer: evil",
    "Connection: evil",
    "Connection: X-Hop\r\nX-Hop: evil",
    "Connection: close, X-Hop\r\nX-Hop: evil",
    "connection: x-HOP\r\nX-Hop: evil",
    "Connection: keep-alive\r\nConnection: X-Hop\r\nX-Hop: evil",
    "Connection: Upgrade\r\nUpgrade: evil",
    "Connection: Upgrade\r\nUpgrade: h2c\r\nX-Tenant-ID: evil",
    "HTTP2-Settings: evil",
];

/// What `Connection` may not nominate away (lower case), and the line that brings it.
const NOT_NOMINATED: &[(&str, &str)] = &[
    ("x-tenant-id: acme", "Connection: X-Tenant-ID"),
    ("x-tenant-id: acme", "Connection: close, x_tenant_id, X-Tenant-Id"),
    ("x-tenant-schema: acme_schema", "Connection: X-Tenant-Schema"),
    ("x-forwarded-for: 127.0.0.1", "Connection: X-Forwarded-For"),
    ("forwarded: for=127.0.0.1", "Connection: Forwarded"),
    ("x-request-id: ", "Connection: X-Request-ID"),
    ("host: app.example", "Connection: Host"),
    ("authorization: kept", "Connection: Authorization\r\nAuthorization: kept"),
    ("cookie: kept=1", "Connection: Cookie\r\nCookie: kept=1"),
    ("content-type: text/kept", "Connection: Content-Type\r\nContent-Type: text/kept"),
];

/// Requests that the route at `/header` must refuse: more than one reader could take them for more
/// than one tenant's. A status of 0 stands for anything but an answer of the backend's.
const AMBIGUOUS: &[(&str, &str, u16)] = &[
    ("no tenant", "", 400),
    ("an empty tenant", "X-Tenant-ID:", 400),
    ("a blank tenant", "X-Tenant-ID:   ", 400),
    ("two tenants", "X-Tenant-ID: acme\r\nX-Tenant-ID: globex", 400),
    ("one tenant twice", "X-Tenant-ID: acme\r\nX-Tenant-ID: acme", 400),
    ("two spellings", "X-Tenant-ID: acme\r\nX_Tenant_ID: globex", 400),
    ("two spellings that agree", "X-Tenant-ID: acme\r\nx.tenant.id: acme", 400),
    ("another spelling alone", "X_Tenant_ID: acme", 400),
    ("a list", "X-Tenant-ID: acme, globex", 0),
    ("a list by semicolon", "X-Tenant-ID: acme;globex", 0),
    ("capitals", "X-Tenant-ID: ACME", 0),
    ("quotes", "X-Tenant-ID: \"acme\"", 0),
    ("percent-encoded", "X-Tenant-ID: %61cme", 0),
    ("a look-alike letter", "X-Tenant-ID: \u{430}cme", 400),
    ("a zero-width space", "X-Tenant-ID: acme\u{200b}", 400),
    ("a NUL", "X-Tenant-ID: acme\0", 400),
    ("a line end", "X-Tenant-ID: acme\rX: y", 400),
    ("a folded line", "X-Tenant-ID: ac\r\n me", 400),
    ("a space before the colon", "X-Tenant-ID : acme", 400),
    ("a path in place of a name", "X-Tenant-ID: ../acme", 0),
];

/// Targets of the route whose path names the tenant, and which tenant the backend must be told;
/// none: it must not be asked.
const PATHS: &[(&str, Option<&str>)] = &[
    ("/t/acme/x", Some("acme")),
    ("/t/%61cme/x", Some("acme")),
    ("/t/acme/x?next=/../globex", Some("acme")),
    ("/t/acme/../globex/x", None),
    ("/t/acme/./x", None),
    ("/t/acme/%2e%2e/globex/x", None),
    ("/t/acme/.%2e/globex/x", None),
    ("/t/acme%2f..%2fglobex/x", None),
    ("/t/acme%2Fglobex", None),
    ("/t/acme%5cglobex", None),
    ("/t/acme\\..\\globex/x", None),
    ("/t/acme/..;/globex/x", None),
    ("/t/acme/..;a=b/globex/x", None),
    ("/t/;/globex/x", None),
    ("//t/acme/x", None),
    ("/t//acme/x", None),
    ("/t/acme%00/x", None),
    ("/t/acme%0d%0aX-Tenant-ID:%20globex/x", None),
    ("/t/acme/%252e%252e/globex/x", None),
    ("/t/acme%25%32%66globex/x", None),
    ("/t/acme%/x", None),
    ("/t/acme%zz/x", None),
    ("/t/acme%c0%afglobex/x", None),
    ("/t/acme#/x", None),
    ("/T/acme/x", None),
    ("http://app.example/t/acme/x", Some("acme")),
    ("http://evil.example/t/acme/x", None),
    ("http://app.example@evil.example/t/acme/x", None),
    ("http://app.example:80:80/t/acme/x", None),
    ("https://app.example/t/../t/acme/x", None),
];

/// Hosts that must be refused wherever a host can decide.
const HOSTS: &[&str] = &[
    "app.example, evil.example",
    "app.example evil.example",
    "user@app.example",
    "app.example:",
    "app.example:80x",
    "app.example:99999",
    "app.example/evil",
    "app.example?evil",
    "app.example\\evil",
    "app..example",
    ".app.example",
    "[::1",
    "[::zz]",
    "\u{430}pp.example",
    "",
];

struct Trial {
    gateway: TestGateway,
    heads: mpsc::UnboundedReceiver<String>,
    _backend: RawUpstream,
}

impl Trial {
    async fn start() -> Self {
        let (sender, heads) = mpsc::unbounded_channel();
        let backend = RawUpstream::start(move |mut exchange| {
            let sender = sender.clone();
            async move {
                while let Some(head) = exchange.request().await {
                    sender.send(head).unwrap();
                    exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                }
            }
        })
        .await;
        let policy = format!(
            "version: 1
tenants: {{ list: [ {{ id: acme, schema: acme_schema }}, {{ id: globex, schema: globex_schema }} ] }}
upstreams: {{ app: {{ endpoints: [ http://{} ] }} }}
routes:
  - {{ name: path, match: {{ path: /t }}, tenant: {{ path: '/t/{{tenant}}' }}, forward: app }}
  - {{ name: header, match: {{ path: /header }}, tenant: {{ header: X-Tenant-ID }}, forward: app }}
  - {{ name: none, match: {{ path: /none }}, tenant: none, forward: app }}
  - {{ name: key, match: {{ path: /key }}, tenant: {{ header: Key }}, forward: app }}
",
            backend.address
        );
        Self { gateway: Harness::new().policy(&policy).start().await, heads, _backend: backend }
    }

    /// Sends a request, and says with what status it was answered and what the backend saw.
    async fn ask(&mut self, request: &str) -> (u16, Option<String>) {
        let mut client = RawClient::connect(self.gateway.address()).await;
        client.send(request).await;
        let status = client.response().await.map_or(0, |response| response.status);
        (status, self.heads.try_recv().ok().map(|head| head.to_ascii_lowercase()))
    }
}

/// How often a header line begins with this name.
fn count(head: &str, name: &str) -> usize {
    head.matches(&format!("\r\n{name}:")).count()
}

#[tokio::test]
async fn nothing_that_a_client_forges_reaches_a_backend() {
    let mut trial = Trial::start().await;
    let mut wrong = String::new();
    for forged in FORGED {
        for (path, tenants) in [("/key", 1), ("/none", 0)] {
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: app.example\r\nKey: acme\r\n{forged}\r\n\r\n");
            let (status, head) = trial.ask(&request).await;
            let head = head.unwrap_or_default();
            let is_told =
                count(&head, "x-tenant-id") == tenants && count(&head, "x-tenant-schema") == tenants;
            if status != 200 || head.contains("evil") || !is_told || count(&head, "x-forwarded-for") != 1 {
                let _ = writeln!(wrong, "{path} {forged:?}: {status}, {head}");
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[tokio::test]
async fn nothing_that_a_client_forges_in_trailers_reaches_a_backend() {
    let mut trial = Trial::start().await;
    for forged in FORGED.iter().filter(|line| !line.contains('\u{430}')) {
        let request = format!(
            "POST /key HTTP/1.1\r\nHost: app.example\r\nKey: acme\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{forged}\r\n\r\n"
        );
        let (_, head) = trial.ask(&request).await;
        // The head, and the whole chunked body behind it as the next thing that was read.
        let rest = trial.heads.try_recv().unwrap_or_default();
        assert!(!head.unwrap_or_default().contains("evil") && !rest.contains("evil"), "{forged:?}: {rest}");
    }
}

#[tokio::test]
async fn what_we_say_cannot_be_nominated_away() {
    let mut trial = Trial::start().await;
    for (line, nomination) in NOT_NOMINATED {
        let request = format!("GET /key HTTP/1.1\r\nHost: app.example\r\nKey: acme\r\n{nomination}\r\n\r\n");
        let (status, head) = trial.ask(&request).await;
        let head = head.unwrap_or_default();
        assert!(status == 200 && head.contains(&format!("\r\n{line}")), "{nomination:?}: {head}");
    }
}

#[tokio::test]
async fn a_tenant_is_named_once_and_clearly() {
    let mut trial = Trial::start().await;
    for (name, lines, status) in AMBIGUOUS {
        let lines = if lines.is_empty() { String::new() } else { format!("{lines}\r\n") };
        let request = format!("GET /header HTTP/1.1\r\nHost: app.example\r\n{lines}\r\n");
        let (got, head) = trial.ask(&request).await;
        assert_eq!(head, None, "{name} reached the backend");
        assert!(got >= 400 && (*status == 0 || got == *status), "{name}: {got}");
    }
}

#[tokio::test]
async fn a_path_names_one_tenant_or_none() {
    let mut trial = Trial::start().await;
    for (target, tenant) in PATHS {
        let request = format!("GET {target} HTTP/1.1\r\nHost: app.example\r\n\r\n");
        let (status, head) = trial.ask(&request).await;
        match tenant {
            Some(tenant) => {
                let head = head.unwrap_or_else(|| panic!("{target} was refused with {status}"));
                assert!(head.contains(&format!("\r\nx-tenant-id: {tenant}\r\n")), "{target}: {head}");
            }
            None => assert!(head.is_none() && status >= 400, "{target}: {status}, {head:?}"),
        }
    }
}

#[tokio::test]
async fn a_host_is_one_host() {
    let mut trial = Trial::start().await;
    for host in HOSTS {
        let (status, head) = trial.ask(&format!("GET /none HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!((status, head), (400, None), "{host:?}");
    }
    // HTTP/1.0 may name none, and keeps its connection only if asked to.
    let (status, head) =
        trial.ask("GET /none HTTP/1.0\r\nConnection: keep-alive, X-Hop\r\nX-Hop: evil\r\n\r\n").await;
    assert_eq!(status, 200);
    assert!(!head.unwrap().contains("evil"));
}
