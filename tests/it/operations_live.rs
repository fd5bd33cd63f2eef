//! What an operator sees and changes while the gateway runs.

use std::process::Stdio;
use std::sync::Arc;

use http::Method;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::Notify;

use crate::support::backend::Backend;
use crate::support::gateway::{Harness, PATIENCE, TestGateway, until};
use crate::support::raw_upstream::RawUpstream;

/// A gateway with this `server:` before whoever listens at `address`.
async fn start(server: &str, address: std::net::SocketAddr) -> TestGateway {
    let policy = format!(
        "version: 1
server: {{ {server} }}
upstreams: {{ app: {{ endpoints: [ 'http://{address}' ] }} }}
tenants: {{ list: [ {{ id: acme, schema: acme }}, {{ id: globex, schema: globex }} ] }}
routes:
  - {{ name: app, tenant: {{ header: X-Tenant-ID }}, forward: app }}
"
    );
    Harness::new().policy(&policy).start().await
}

async fn requests(gateway: &TestGateway, query: &str) -> Vec<Value> {
    let reply = gateway.admin(&format!("/requests{query}")).send().await;
    assert_eq!(reply.status(), 200, "{}", reply.text());
    let mut page = reply.json();
    page["requests"].as_array_mut().map(std::mem::take).unwrap()
}

#[tokio::test]
async fn a_request_that_hangs_is_shown_until_it_ends() {
    let released = Arc::new(Notify::new());
    let release = Arc::clone(&released);
    let upstream = RawUpstream::start(move |mut exchange| {
        let released = Arc::clone(&released);
        async move {
            exchange.request().await.unwrap();
            released.notified().await;
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let gateway = start("", upstream.address).await;
    let hanging = gateway.get("/slow?secret=1").tenant("acme").send();
    let watching = async {
        let shown = loop {
            let shown = requests(&gateway, "?tenant=acme").await;
            if shown.first().is_some_and(|one| one["phase"] == "upstream") {
                break shown;
            }
        };
        assert_eq!(shown.len(), 1);
        assert_eq!(shown[0]["tenant"], "acme");
        assert_eq!(shown[0]["route"], "app");
        assert_eq!((&shown[0]["method"], &shown[0]["path"]), (&"GET".into(), &"/slow".into()));
        assert!(shown[0]["seconds"].as_f64().unwrap() > 0.0);
        assert!(requests(&gateway, "?tenant=globex").await.is_empty());
        assert!(requests(&gateway, "?older_than=10h").await.is_empty());
        assert!(requests(&gateway, "?limit=0").await.is_empty());
        let table = gateway.admin("/requests?format=text").send().await.text();
        assert!(table.contains("acme") && table.contains("GET /slow") && table.contains("1 of 1"), "{table}");
        assert!(!table.contains("secret"), "{table}");
        for wrong in ["?limit=many", "?older_than=10", "?format=xml", "?tenants=acme"] {
            assert_eq!(gateway.admin(&format!("/requests{wrong}")).send().await.status(), 400, "{wrong}");
        }
        release.notify_one();
        shown[0]["id"].as_str().unwrap().to_owned()
    };
    let (reply, id) = tokio::join!(hanging, watching);
    assert_eq!((reply.status(), reply.header("x-request-id")), (200, Some(id.as_str())));
    let over = async {
        while !requests(&gateway, "").await.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, over).await.unwrap();
}

#[tokio::test]
async fn a_sampled_log_has_every_error_and_few_of_the_rest() {
    let backend = Backend::start().await;
    let sampled = "access_log: { sample: 0.0000001%, slow: 1h }";
    let gateway = start(sampled, backend.address).await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/").tenant("acme").send().await.status(), 200);
        assert_eq!(gateway.get("/").tenant("nobody").send().await.status(), 404);
    }
    until(|| gateway.lines_so_far().len() >= 20).await;
    assert!(gateway.lines_so_far().iter().all(|line| line["error"] == "tenant-unknown"));
    let all = start("access_log: { sample: 0.0000001%, slow: 1ns }", backend.address).await;
    assert_eq!(all.get("/").tenant("acme").body("four").send().await.status(), 200);
    let slow = all.records(|line| line["status"] == 200).await;
    assert_eq!(slow[0]["bytes_received"], 4, "what is slow is recorded");
    let none = start("access_log: { sample: 0.0000001%, errors: sampled, slow: 1h }", backend.address).await;
    assert_eq!(none.get("/").tenant("nobody").send().await.status(), 404);
    assert!(none.lines_so_far().is_empty());
}

#[tokio::test]
async fn tenants_have_metrics_where_the_policy_wants_them() {
    let backend = Backend::start().await;
    let silent = start("", backend.address).await;
    silent.get("/").tenant("acme").send().await;
    assert!(!silent.admin("/metrics").send().await.text().contains("acme"));
    let gateway = start("tenant_metrics: 1", backend.address).await;
    for tenant in ["acme", "acme", "globex", "nobody"] {
        gateway.get("/").tenant(tenant).body("abc").send().await;
    }
    let lines = [
        "innkeeper_tenant_requests_total{tenant=\"acme\",class=\"ok\"} 2",
        "innkeeper_tenant_requests_total{tenant=\"other\",class=\"ok\"} 1",
        "innkeeper_tenant_received_bytes_total{tenant=\"acme\"} 6",
    ];
    // A response's last byte is sent a moment before it is counted.
    let counted = async {
        loop {
            let text = gateway.admin("/metrics").send().await.text();
            if lines.iter().all(|line| text.contains(line)) {
                break text;
            }
        }
    };
    let text = tokio::time::timeout(PATIENCE, counted).await.unwrap();
    assert!(!text.contains("globex") && !text.contains("nobody"), "{text}");
}

#[tokio::test]
async fn readiness_is_the_gateways_own_and_says_how_the_rest_fares() {
    let backend = Backend::start().await;
    let policy = format!(
        "version: 1
databases: {{ away: {{ url: 'postgres://u@127.0.0.1:9/x', pool: {{ acquire_timeout: 50ms }} }} }}
upstreams: {{ app: {{ endpoints: [ 'http://{}' ] }} }}
tenants: {{ list: [ {{ id: acme, schema: acme }} ] }}
routes:
  - {{ name: rows, match: {{ path: /rows }}, tenant: {{ header: X-Tenant-ID }}, query: {{ database: away, sql: select 1 as one }} }}
  - {{ name: app, tenant: {{ header: X-Tenant-ID }}, forward: app }}
",
        backend.address
    );
    let gateway = Harness::new().policy(&policy).start().await;
    assert_eq!(gateway.admin("/readyz").send().await.text(), "ready\n");
    let reply = gateway.admin("/readyz?verbose").send().await;
    assert_eq!(reply.status(), 200, "a database that is away is away for every replica");
    let page = reply.json();
    let checks = page["checks"].as_array().unwrap();
    let check = |name: &str| checks.iter().find(|check| check["check"] == name).unwrap();
    assert_eq!(check("accepting")["ok"], true);
    assert_eq!(check("policy")["ok"], true);
    assert_eq!(check("database away")["ok"], false);
}

#[tokio::test]
async fn a_web_page_reaches_nothing_of_the_admin_listener() {
    let backend = Backend::start().await;
    let gateway = start("", backend.address).await;
    let reply = gateway.admin("/policy").host("rebound.example:9901").send().await;
    assert_eq!(reply.status(), 421, "{}", reply.text());
    assert_eq!(gateway.admin("/policy").host("localhost:9901").send().await.status(), 200);
    let page = gateway.admin("/log?filter=debug").method(Method::PUT).header("origin", "http://localhost");
    assert_eq!(page.send().await.status(), 403);
    let embedded = gateway.admin("/log").send().await;
    assert_eq!(embedded.status(), 404, "a library's log is its program's: {}", embedded.text());
}

/// A gateway in a process of its own, whose log is read.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    _directory: tempfile::TempDir,
}

impl Process {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy.yaml");
        std::fs::write(&policy, "version: 1\nupstreams: { app: { endpoints: [ 'http://127.0.0.1:9' ] } }\nroutes: [ { name: a, match: { path: /a }, tenant: none, forward: app } ]\n").unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_innkeeper"))
            .args(["--log", "info", "--log-format", "json", "serve", "--no-cache"])
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--policy"])
            .arg(&policy)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines, _directory: directory }
    }

    /// The next line of the log with this message.
    async fn line(&mut self, message: &str) -> Value {
        let reading = async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("the process lives");
                let line: Value = serde_json::from_str(&line).unwrap();
                if line["message"].as_str().is_some_and(|text| text.contains(message)) {
                    break line;
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.unwrap()
    }
}

async fn ask(method: Method, url: String) -> (u16, String) {
    use http_body_util::BodyExt;
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new());
    let client = client.build_http::<http_body_util::Empty<bytes::Bytes>>();
    let mut request = http::Request::new(http_body_util::Empty::new());
    (*request.method_mut(), *request.uri_mut()) = (method, url.parse().unwrap());
    let (head, body) = client.request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn a_running_process_logs_more_for_a_while() {
    let mut process = Process::start();
    let gateway = process.line("the gateway listens").await["address"].as_str().unwrap().to_owned();
    let admin = process.line("the admin listener listens").await["address"].as_str().unwrap().to_owned();
    let log = |query: &str| format!("http://{admin}/log{query}");
    let (status, page) = ask(Method::PUT, log("?filter=innkeeper%3Dloud")).await;
    assert_eq!(status, 400, "{page}");
    let (status, page) = ask(Method::PUT, log("?filter=info,debgu")).await;
    assert_eq!(status, 400, "{page}");
    assert!(page.contains("`debgu` is no log filter: did you mean `debug`?"), "{page}");
    assert_eq!(ask(Method::PUT, log("?filter=debug&for=2d")).await.0, 400);
    assert_eq!(ask(Method::PUT, log("")).await.0, 400);
    // Refusals of a client's mistake are logged at `debug`.
    assert_eq!(ask(Method::GET, format!("http://{gateway}/before")).await.0, 404);
    let (status, page) = ask(Method::PUT, log("?filter=innkeeper%3Ddebug&for=1h")).await;
    assert_eq!(status, 200, "{page}");
    assert_eq!(ask(Method::GET, format!("http://{gateway}/while")).await.0, 404);
    let refused = process.line("refused: no route").await;
    assert!(refused["cause"].as_str().unwrap().ends_with("/while"), "{refused}");
    let (status, page) = ask(Method::DELETE, log("")).await;
    assert_eq!(status, 200, "{page}");
    let shown: Value = serde_json::from_str(&ask(Method::GET, log("")).await.1).unwrap();
    assert_eq!((&shown["filter"], &shown["until"]), (&"info".into(), &Value::Null));
    process.child.kill().await.unwrap();
}
