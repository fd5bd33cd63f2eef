//! CPU time of a forwarded request, ours against the proxies that people run today, in one run.
//!
//! `cargo bench --bench peers` takes nginx, HAProxy (its map, and Lua), Envoy and Caddy where they
//! are on the `PATH`, Pingora where `cmake` is, and the least proxy that hyper allows. Each has one
//! thread on one core, and the load the other; each looks a thousand tenants up and tells the
//! backend the tenant's schema. They take turns, and every answer is checked. `PEERS_REQUESTS`,
//! `PEERS_ROUNDS`, `PEERS_CONNECTIONS` and `PEERS_ONLY=nginx,caddy` change the run.

#![expect(clippy::print_stdout, reason = "a benchmark's output is what it prints")]

mod bare;
mod load;
mod process;
mod rivals;
mod sidecar;

use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpListener;

use load::{TENANTS, schema_of, tenants};
use process::{Core, Proxy, in_turns, median, runtime, say, setting};
use rivals::Rival;

/// Both ends of the comparison that asks whether the number of tenants costs throughput.
const FEW: usize = 10;
const MANY: usize = 10_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1..).unwrap_or_default() {
        [mode, upstream] if mode == "bare" => runtime(1).block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            say(listener.local_addr().expect("it is bound"));
            bare::serve(listener, upstream, &tenants(TENANTS)).await;
        }),
        _ => runtime(1).block_on(compare()),
    }
}

async fn compare() {
    Core::Load.take(std::process::id());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let upstream = listener.local_addr().expect("it is bound").to_string();
    tokio::spawn(load::upstream(listener));

    let directory = tempfile::tempdir().expect("a temporary directory");
    let ours = async |count| sidecar::start(directory.path(), &upstream, &tenants(count)).await;
    let mut sides = vec![("innkeeper", ours(TENANTS).await), ("bare hyper", Proxy::start("bare", &upstream))];
    let only = std::env::var("PEERS_ONLY").ok();
    for rival in Rival::ALL {
        if only.as_ref().is_some_and(|only| !only.split(',').any(|name| name == rival.name())) {
            continue;
        }
        match rival.start(directory.path(), &upstream, &tenants(TENANTS)).await {
            Ok(proxy) => sides.push((rival.name(), proxy)),
            Err(why) => println!("{:<16} left out: {why}", rival.name()),
        }
    }
    race(&sides, &[TENANTS]).await;
    drop(sides);

    println!("\nthe number of tenants");
    race(&[("10 tenants", ours(FEW).await), ("10,000 tenants", ours(MANY).await)], &[FEW, MANY]).await;
}

/// Drives all sides in turns and prints what each cost, beside the first. `counts` are the numbers
/// of tenants that they know; the last goes for the rest.
async fn race(sides: &[(&str, Proxy)], counts: &[usize]) {
    let requests = setting("PEERS_REQUESTS", 60_000);
    let rounds = setting("PEERS_ROUNDS", 5);
    let connections = setting("PEERS_CONNECTIONS", 64);
    let known: Vec<Arc<[String]>> = counts.iter().map(|count| tenants(*count)).collect();
    for (_, proxy) in sides {
        Core::Proxy.take(proxy.id());
    }
    let proxies: Vec<&Proxy> = sides.iter().map(|(_, proxy)| proxy).collect();
    let costs = in_turns(&proxies, (rounds, requests), |index, requests| {
        let known = Arc::clone(&known[index.min(known.len() - 1)]);
        let address = proxies[index].address;
        async move {
            let started = Instant::now();
            load::drive(address, "/orders", known, connections, requests).await;
            requests as f64 / started.elapsed().as_secs_f64()
        }
    })
    .await;
    let ours = median(&costs[0].cpu);
    println!(
        "{:<16} {:>8} {:>18} {:>7} {:>10} {:>6}",
        "", "CPU µs", "least to most", "ratio", "requests/s", "MiB"
    );
    for ((name, proxy), costs) in sides.iter().zip(&costs) {
        let cpu = median(&costs.cpu);
        let mut rates = costs.outcomes.clone();
        rates.sort_by(f64::total_cmp);
        println!(
            "{name:<16} {cpu:>8.1} {:>18} {:>7.2} {:>10.0} {:>6}",
            format!("{:.1} to {:.1}", costs.cpu[0], costs.cpu[costs.cpu.len() - 1]),
            ours / cpu,
            median(&rates),
            proxy.peak_memory() >> 20,
        );
    }
    println!("ratio: innkeeper's CPU for each of this side's");
}
