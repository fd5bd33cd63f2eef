//! CPU time of a forwarded request, ours against the least proxy that hyper allows, in one run.
//!
//! `cargo bench --bench walk` runs both as processes of their own, in turns, and checks every
//! answer. `WALK_REQUESTS`, `WALK_ROUNDS` and `WALK_CONNECTIONS` change the load.

#![expect(clippy::print_stdout, reason = "a benchmark's output is what it prints")]

mod bare;
mod load;
mod process;
mod sidecar;

use std::sync::Arc;

use tokio::net::TcpListener;

use load::{TENANTS, schema_of, tenants};
use process::{Proxy, in_turns, median, report, runtime, say, setting};

fn main() {
    let tenants = tenants(TENANTS);
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1..).unwrap_or_default() {
        [mode, upstream] if mode == "bare" => runtime(1).block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            say(listener.local_addr().expect("it is bound"));
            bare::serve(listener, upstream, &tenants).await;
        }),
        _ => runtime(1).block_on(compare(&tenants)),
    }
}

async fn compare(tenants: &Arc<[String]>) {
    let requests = setting("WALK_REQUESTS", 60_000);
    let rounds = setting("WALK_ROUNDS", 5);
    let connections = setting("WALK_CONNECTIONS", 32);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let upstream = listener.local_addr().expect("it is bound").to_string();
    tokio::spawn(load::upstream(listener));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let bare = Proxy::start("bare", &upstream);
    let innkeeper = sidecar::start(directory.path(), &upstream, tenants).await;
    let sides = [&bare, &innkeeper];
    let costs = in_turns(&sides, (rounds, requests), |index, requests| {
        load::drive(sides[index].address, "/orders", Arc::clone(tenants), connections, requests)
    })
    .await;
    report("bare", &costs[0]);
    report("innkeeper", &costs[1]);
    println!("{:<24} {:>6.2} (budget 1.15)", "ratio", median(&costs[1].cpu) / median(&costs[0].cpu));
}
