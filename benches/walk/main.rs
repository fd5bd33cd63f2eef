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
use process::{Proxy, median, runtime, say, setting};

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
    let settings = Settings { policy, listen: vec![loopback], admin: Some(loopback), cache: None };
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
    let upstream = listener.local_addr().expect("it is bound");
    tokio::spawn(load::upstream(listener));
    let proxies =
        [("bare", Proxy::start("bare", upstream)), ("innkeeper", Proxy::start("innkeeper", upstream))];
    let mut costs = [Vec::new(), Vec::new()];
    for (_, proxy) in &proxies {
        load::drive(proxy.address, "/orders", Arc::clone(tenants), connections, requests / 10).await;
    }
    for round in 0..rounds {
        // Whoever comes second finds another machine: they take turns at that too.
        for index in [round % 2, 1 - round % 2] {
            let (_, proxy) = &proxies[index];
            let before = proxy.cpu_seconds();
            load::drive(proxy.address, "/orders", Arc::clone(tenants), connections, requests).await;
            costs[index].push((proxy.cpu_seconds() - before) * 1e6 / requests as f64);
        }
    }
    for ((name, _), costs) in proxies.iter().zip(&mut costs) {
        costs.sort_by(f64::total_cmp);
        let (least, most) = (costs[0], costs[costs.len() - 1]);
        println!(
            "{name:<10} {:>6.1} µs of CPU a request (median of {rounds}; {least:.1} to {most:.1})",
            median(costs)
        );
    }
    println!("ratio      {:>6.2} (budget 1.15)", median(&costs[1]) / median(&costs[0]));
}
