//! CPU time of a forwarded request, ours against the least proxy that hyper allows, in one run.
//!
//! `cargo bench --bench walk` runs both as processes of their own, in turns, and checks every
//! answer. `WALK_REQUESTS`, `WALK_ROUNDS` and `WALK_CONNECTIONS` change the load.

#![expect(clippy::print_stdout, reason = "a benchmark's output is what it prints")]

mod bare;
mod load;
mod process;

use std::net::SocketAddr;
use std::sync::Arc;

use innkeeper::gateway::{AccessLog, LogFormat};
use innkeeper::sidecar::{Settings, Sidecar};
use tokio::net::TcpListener;

use load::{schema_of, tenants};
use process::{Proxy, in_turns, median, report, runtime, say, setting};

fn main() {
    let tenants = tenants();
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1..).unwrap_or_default() {
        [mode, upstream] if mode == "bare" => runtime(1).block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            say(listener.local_addr().expect("it is bound"));
            bare::serve(listener, upstream, &tenants).await;
        }),
        [mode, upstream] if mode == "innkeeper" => runtime(1).block_on(serve_innkeeper(upstream, &tenants)),
        _ => runtime(1).block_on(compare(&tenants)),
    }
}

async fn serve_innkeeper(upstream: &str, tenants: &[String]) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let policy = directory.path().join("policy.yaml");
    let mut text = format!(
        "version: 1\nupstreams:\n  app: {{ endpoints: [ 'http://{upstream}' ] }}\n\
         routes:\n  - {{ name: app, match: {{ path: / }}, tenant: {{ header: X-Tenant-ID }}, forward: app }}\n\
         tenants:\n  list:\n"
    );
    for tenant in tenants {
        text.push_str(&format!("    - {{ id: {tenant}, schema: {} }}\n", schema_of(tenant)));
    }
    std::fs::write(&policy, text).expect("a file can be written");
    // Access records are made and written, to nowhere.
    let loopback: SocketAddr = ([127, 0, 0, 1], 0).into();
    let settings = Settings { policy, listen: vec![loopback.into()], admin: Some(loopback), cache: None };
    let sidecar = Sidecar::start(settings, AccessLog::new(LogFormat::Json, std::io::sink()))
        .await
        .expect("the policy is sound");
    say(sidecar.addresses[0]);
    std::future::pending::<()>().await;
}

async fn compare(tenants: &Arc<[String]>) {
    let requests = setting("WALK_REQUESTS", 60_000);
    let rounds = setting("WALK_ROUNDS", 5);
    let connections = setting("WALK_CONNECTIONS", 32);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let upstream = listener.local_addr().expect("it is bound").to_string();
    tokio::spawn(load::upstream(listener));
    let (bare, innkeeper) = (Proxy::start("bare", &upstream), Proxy::start("innkeeper", &upstream));
    let sides = [&bare, &innkeeper];
    let costs = in_turns(&sides, (rounds, requests), |index, requests| {
        load::drive(sides[index].address, "/orders", Arc::clone(tenants), connections, requests)
    })
    .await;
    report("bare", &costs[0]);
    report("innkeeper", &costs[1]);
    println!("{:<24} {:>6.2} (budget 1.15)", "ratio", median(&costs[1].cpu) / median(&costs[0].cpu));
}
