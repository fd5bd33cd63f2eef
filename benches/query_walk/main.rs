//! A named query from a client's socket to PostgreSQL and back: ours against the same transaction by
//! hand with sqlx behind a bare hyper server, one tenant against a thousand, a tenant beside one that
//! floods, and a result of a million rows. `docs/performance.md` has the figures.
//!
//! `cargo bench --bench query_walk`. `QUERY_REQUESTS`, `QUERY_ROUNDS`, `QUERY_CONNECTIONS` and
//! `QUERY_STREAM_ROWS` change the load. With `QUERY_PYTHON` set to a Python that has the packages of
//! `docs/examples/fastapi`, the correct service there is measured too.

#![expect(clippy::print_stdout, reason = "a benchmark's output is what it prints")]

mod by_hand;
mod flood;
mod load;
#[path = "../walk/process.rs"]
mod process;
mod python;
mod scene;
mod stream;

use load::{Ask, Served};
use process::{Costs, Proxy, in_turns, median, runtime, setting};
use scene::Scene;

/// What our request may cost, as a multiple of the same transaction by hand.
const BUDGET: f64 = 1.1;
/// What a thousand tenants in turn may cost, as a multiple of one.
const TENANTS_BUDGET: f64 = 1.15;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1..).unwrap_or_default() {
        [mode, url] if mode == "by-hand" => runtime(1).block_on(by_hand::serve(url)),
        [mode, url] if mode == "innkeeper" => runtime(1).block_on(scene::serve_innkeeper(url)),
        _ => runtime(1).block_on(measure()),
    }
}

async fn measure() {
    let scene = Scene::start().await;
    let ours = Proxy::start("innkeeper", &scene.url);
    let hand = Proxy::start("by-hand", &scene.url);
    for (what, path) in [("read", "/orders"), ("change", "/restored")] {
        let ask = Ask::of(path);
        let [ours, hand] = compare([(&ours, ask), (&hand, ask)]).await;
        report(&format!("{what}, innkeeper"), &ours);
        report(&format!("{what}, by hand"), &hand);
        ratio(&ours, &hand, BUDGET);
    }
    let one = Ask { tenants: 1, ..Ask::of("/orders") };
    let [our_one, hands_one] = compare([(&ours, one), (&hand, one)]).await;
    report("one tenant, innkeeper", &our_one);
    report("one tenant, by hand", &hands_one);
    ratio(&our_one, &hands_one, BUDGET);
    let [thousand, one] = compare([(&ours, Ask::of("/orders")), (&ours, one)]).await;
    report("1,000 tenants in turn", &thousand);
    report("one tenant", &one);
    ratio(&thousand, &one, TENANTS_BUDGET);
    drop(hand);
    python::compare(&scene.url, &ours).await;
    flood::beside(&ours).await;
    stream::whole(&ours).await;
}

async fn compare<const N: usize>(sides: [(&Proxy, Ask); N]) -> [Costs<Served>; N] {
    let load = (setting("QUERY_ROUNDS", 7), setting("QUERY_REQUESTS", 20_000));
    let costs = in_turns(&sides.map(|(proxy, _)| proxy), load, |index, requests| {
        let (proxy, ask) = sides[index];
        load::drive(proxy.address, ask, requests)
    })
    .await;
    costs.try_into().unwrap_or_else(|_| unreachable!("each side has its costs"))
}

fn report(name: &str, costs: &Costs<Served>) {
    process::report(name, costs);
    let mut rates: Vec<f64> = costs.outcomes.iter().map(Served::rate).collect();
    rates.sort_by(f64::total_cmp);
    println!("{:<24} {:>6.0} requests a second", "", median(&rates));
}

fn ratio<T>(ours: &Costs<T>, others: &Costs<T>, budget: f64) {
    println!("{:<24} {:>6.2} (budget {budget})", "ratio", median(&ours.cpu) / median(&others.cpu));
}
