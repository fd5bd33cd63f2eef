//! Sixty-four requests to a plugin that loops for ever, and what the other routes lose by it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::load;
use super::process::{Proxy, median, setting};

/// Requests to the plugin under way at any time.
const LOOPING: usize = 64;
/// The plugin's time limit.
const DEADLINE: Duration = Duration::from_millis(50);
/// The same, as the policy has it.
pub(crate) const DEADLINE_TEXT: &str = "50ms";
/// Connections to the other route.
const CONNECTIONS: usize = 16;
/// Requests of one measurement of the other route's throughput.
const REQUESTS: usize = 10_000;

/// A plugin that never answers.
pub(crate) fn plugin() -> Vec<u8> {
    const LOOPS: &str = r#"(module
        (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
        (func (export "configure") (param i32 i32) (result i32) (i32.const 8))
        (func (export "resolve") (param i32) (result i32) (loop $again (br $again)) (unreachable)))"#;
    let mut wasm = wat::parse_str(LOOPS).expect("it is WebAssembly");
    let mut resolve = Resolve::default();
    let contract = concat!(env!("CARGO_MANIFEST_DIR"), "/wit");
    let (package, _) = resolve.push_dir(contract).expect("the contract is sound");
    let world = resolve.select_world(&[package], Some("policy")).expect("it has this world");
    embed_component_metadata(&mut wasm, &resolve, world, StringEncoding::UTF8, false).expect("it fits");
    let mut encoder = ComponentEncoder::default();
    encoder.validate(true).module(&wasm).expect("it is a module").encode().expect("it fits the world")
}

/// Measures another route's throughput with and without looping requests, in turns.
pub(crate) async fn others(proxy: &Proxy, tenants: &Arc<[String]>) {
    let rounds = setting("WALK_ROUNDS", 7);
    let mut speeds = [Vec::new(), Vec::new()];
    let mut waits = Vec::new();
    throughput(proxy.address, tenants).await;
    for _ in 0..rounds {
        speeds[0].push(throughput(proxy.address, tenants).await);
        let stop = Arc::new(AtomicBool::new(false));
        let mut looping = JoinSet::new();
        for _ in 0..LOOPING {
            looping.spawn(keep_looping(proxy.address, Arc::clone(&stop)));
        }
        tokio::time::sleep(DEADLINE).await;
        speeds[1].push(throughput(proxy.address, tenants).await);
        stop.store(true, Ordering::Relaxed);
        while let Some(client) = looping.join_next().await {
            waits.extend(client.expect("every looping request is refused"));
        }
    }
    for speeds in &mut speeds {
        speeds.sort_by(f64::total_cmp);
    }
    let (quiet, beside) = (median(&speeds[0]), median(&speeds[1]));
    println!("other route      {quiet:>6.0} requests a second, quiet");
    println!(
        "                 {beside:>6.0} beside {LOOPING} looping requests: {:.1} % less (budget 10 %)",
        (1.0 - beside / quiet) * 100.0
    );
    waits.sort();
    // The wait that this share of them, in percent, did not exceed.
    let over = |percent: usize| {
        let index = (waits.len() - 1) * percent / 100;
        waits[index].saturating_sub(DEADLINE).as_secs_f64() * 1e3
    };
    println!(
        "looping requests {:>6} refused; after their deadline, as the client sees it: median {:.1} ms, \
         99 % {:.1} ms, all {:.1} ms (budget 5 ms)",
        waits.len(),
        over(50),
        over(99),
        over(100)
    );
}

/// Requests a second.
async fn throughput(address: SocketAddr, tenants: &Arc<[String]>) -> f64 {
    let started = Instant::now();
    load::drive(address, "/built-in", Arc::clone(tenants), CONNECTIONS, REQUESTS).await;
    REQUESTS as f64 / started.elapsed().as_secs_f64()
}

/// Asks the plugin again and again, and tells how long each answer took.
async fn keep_looping(address: SocketAddr, stop: Arc<AtomicBool>) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).await.expect("the proxy listens");
    stream.set_nodelay(true).expect("a socket has this option");
    let mut waits = Vec::new();
    let mut answer = Vec::with_capacity(4096);
    while !stop.load(Ordering::Relaxed) {
        let started = Instant::now();
        stream
            .write_all(b"GET /loops HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
            .await
            .expect("the proxy reads");
        answer.clear();
        // The refusal's body is JSON: its last byte ends it.
        while !answer.ends_with(b"}") {
            let read = stream.read_buf(&mut answer).await.expect("the proxy answers");
            assert_ne!(read, 0, "the proxy closed");
        }
        waits.push(started.elapsed());
        assert!(answer.starts_with(b"HTTP/1.1 503 "), "{}", String::from_utf8_lossy(&answer));
    }
    waits
}
