//! What a plugin costs a request through the whole gateway, against the same route with a built-in
//! resolver, and what a plugin that loops for ever costs everybody else. `docs/plugins.md` has the
//! figures.
//!
//! `cargo bench --bench plugin_walk`. `WALK_REQUESTS`, `WALK_ROUNDS`, `WALK_CONNECTIONS` and
//! `WALK_SECONDS` change the load.

#![expect(clippy::print_stdout, reason = "a benchmark's output is what it prints")]

mod load;
mod loops;
mod process;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use innkeeper::gateway::{AccessLog, LogFormat};
use innkeeper::sidecar::{Settings, Sidecar};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use load::{TENANTS, schema_of, tenants};
use process::{Proxy, in_turns, median, report, runtime, say, setting};

/// The program's own: with another one, neither costs nor waits are those of the gateway that people run.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Routes to the same upstream, by what resolves the tenant.
const ROUTES: [(&str, &str); 3] =
    [("built in", "/built-in"), ("plugin, fresh", "/fresh"), ("plugin, reused", "/reused")];
/// What a plugin may add to a request in a fresh instance and in a reused one, µs.
const BUDGETS: [f64; 2] = [10.0, 2.0];

fn main() {
    let tenants = tenants(TENANTS);
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1..).unwrap_or_default() {
        [mode, upstream] if mode == "one-worker" => runtime(1).block_on(serve(upstream, &tenants, 1)),
        [mode, upstream] if mode == "two-workers" => runtime(2).block_on(serve(upstream, &tenants, 2)),
        _ => runtime(1).block_on(measure(&tenants)),
    }
}

async fn serve(upstream: &str, tenants: &[String], workers: usize) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let policy = directory.path().join("policy.yaml");
    std::fs::write(directory.path().join("loops.wasm"), loops::plugin()).expect("a file can be written");
    std::fs::write(&policy, self::policy(upstream, tenants).to_string()).expect("a file can be written");
    // Access records are made and written, to nowhere.
    let loopback: SocketAddr = ([127, 0, 0, 1], 0).into();
    let settings = Settings {
        policy,
        listen: vec![loopback.into()],
        admin: Some(loopback.into()),
        cache: None,
        workers,
    };
    let sidecar = Sidecar::start(settings, AccessLog::new(LogFormat::Json, std::io::sink()))
        .await
        .expect("the policy is sound");
    say(sidecar.addresses[0]);
    std::future::pending::<()>().await;
}

/// JSON is YAML.
fn policy(upstream: &str, tenants: &[String]) -> Value {
    let keys: Map<String, Value> =
        tenants.iter().map(|tenant| (format!("k-{tenant}"), tenant.as_str().into())).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/legacy-keys.wasm");
    let keys = |instances: &str| json!({ "path": path, "config": { "keys": keys }, "instances": instances });
    let route = |name: &str, path: &str, resolver: Value| json!({ "name": name, "match": { "path": path }, "tenant": resolver, "forward": "app" });
    json!({
        "version": 1,
        "upstreams": { "app": { "endpoints": [format!("http://{upstream}")] } },
        "plugins": {
            "fresh": keys("per-request"),
            "reused": keys("reused"),
            // Without its breaker it would soon not be asked any more.
            "loops": {
                "path": "loops.wasm", "limits": { "time": loops::DEADLINE_TEXT }, "breaker": { "failures": 0 },
            },
        },
        "routes": [
            route("built-in", "/built-in", json!({ "header": "X-Tenant-ID" })),
            route("fresh", "/fresh", json!({ "plugin": "fresh" })),
            route("reused", "/reused", json!({ "plugin": "reused" })),
            route("loops", "/loops", json!({ "plugin": "loops" })),
        ],
        "tenants": {
            "list": tenants.iter()
                .map(|tenant| json!({ "id": tenant, "schema": schema_of(tenant) }))
                .collect::<Vec<_>>(),
        },
    })
}

async fn measure(tenants: &Arc<[String]>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let upstream = listener.local_addr().expect("it is bound").to_string();
    tokio::spawn(load::upstream(listener));
    cost(&Proxy::start("one-worker", &upstream), tenants).await;
    loops::others(&Proxy::start("two-workers", &upstream), tenants).await;
}

/// CPU time of a request on each route, in turns.
async fn cost(proxy: &Proxy, tenants: &Arc<[String]>) {
    let requests = setting("WALK_REQUESTS", 40_000);
    let rounds = setting("WALK_ROUNDS", 7);
    let connections = setting("WALK_CONNECTIONS", 32);
    let costs = in_turns(&[proxy; ROUTES.len()], (rounds, requests), |index, requests| {
        load::drive(proxy.address, ROUTES[index].1, Arc::clone(tenants), connections, requests)
    })
    .await;
    for ((name, _), costs) in ROUTES.iter().zip(&costs) {
        report(name, costs);
    }
    for (index, budget) in BUDGETS.into_iter().enumerate() {
        let added = median(&costs[index + 1].cpu) - median(&costs[0].cpu);
        println!("{:<24} adds {added:>5.1} µs (budget {budget})", ROUTES[index + 1].0);
    }
}
