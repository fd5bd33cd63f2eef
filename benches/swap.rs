//! A thousand swaps between two versions of a plugin under load: no failed request, no mixed answer,
//! steady memory, and nothing left alive.
//!
//! `cargo bench --bench swap` exits with 1 where a claim fails. `SWAP_SWAPS` and `SWAP_CLIENTS`
//! change the load. Gateway, clients and upstream share one process, whose memory is measured.

#![expect(clippy::print_stdout, reason = "a benchmark's output is what it prints")]

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use innkeeper::gateway::{AccessLog, LogFormat};
use innkeeper::plugin::version_of;
use innkeeper::sidecar::{Settings, Sidecar};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The tenant that each version names.
const TENANTS: [&str; 2] = ["acme", "bolt"];

/// How far memory after all swaps may be from that after half of them.
const DRIFT_PERCENT: f64 = 5.0;

/// How long the last requests may take to be recorded, and what they hold to be freed.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Counts {
    answers: AtomicU64,
    failed: AtomicU64,
    mixed: AtomicU64,
    records: AtomicU64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let swaps = setting("SWAP_SWAPS", 1000);
    let clients = setting("SWAP_CLIENTS", 16);
    let versions = TENANTS.map(guest);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let counts = Arc::new(Counts::default());
    let sidecar = start(directory.path(), &versions, &counts).await;

    let over = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    for _ in 0..clients {
        load.spawn(ask(sidecar.addresses[0], Arc::clone(&counts), Arc::clone(&over)));
    }
    let started = Instant::now();
    let mut lost = 0;
    let mut resident_halfway = 0.0;
    for swap in 1..=swaps {
        let version = &versions[swap % 2];
        replace(directory.path(), version);
        // The watcher races with this call for the turn; either brings the version into force.
        let _ = sidecar.reloader.reload().await;
        let snapshot = sidecar.reloader.store().load();
        let serving = snapshot.plugin("keys").expect("the policy has it").version();
        lost += u32::from(**serving != *version_of(version));
        if swap == swaps / 2 {
            resident_halfway = resident_mib();
        }
    }
    let took = started.elapsed();
    let resident = resident_mib();
    over.store(true, Ordering::Relaxed);
    while load.join_next().await.is_some() {}
    let builder = sidecar.reloader.builder();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    until(|| builder.live_versions().count <= 1 && count(&counts.records) == count(&counts.answers)).await;
    let live = builder.live_versions().count;

    let drift = (resident - resident_halfway) / resident_halfway * 100.0;
    println!("{swaps} swaps in {took:.1?}, {clients} clients");
    let claims = [
        (lost == 0, format!("{lost} swaps without effect")),
        (count(&counts.answers) > 0, format!("{} answers", count(&counts.answers))),
        (count(&counts.failed) == 0, format!("{} failed requests", count(&counts.failed))),
        (count(&counts.mixed) == 0, format!("{} answers or records of two versions", count(&counts.mixed))),
        (
            count(&counts.records) == count(&counts.answers),
            format!("{} access records", count(&counts.records)),
        ),
        (live == 1, format!("{live} live versions")),
        (
            drift.abs() <= DRIFT_PERCENT,
            format!(
                "resident memory {resident_halfway:.1} MiB after half, {resident:.1} MiB after all: {drift:+.1} %"
            ),
        ),
    ];
    for (holds, claim) in &claims {
        println!("{} {claim}", if *holds { "ok    " } else { "FAILED" });
    }
    if claims.iter().all(|(holds, _)| *holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn start(directory: &Path, versions: &[Vec<u8>; 2], counts: &Arc<Counts>) -> Sidecar {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let upstream = listener.local_addr().expect("it is bound");
    tokio::spawn(echo(listener));
    replace(directory, &versions[0]);
    let policy = directory.join("policy.yaml");
    let text = format!(
        "version: 1\nupstreams: {{ app: {{ endpoints: [ 'http://{upstream}' ] }} }}\n\
         tenants: {{ list: [ {{ id: acme, schema: s_acme }}, {{ id: bolt, schema: s_bolt }} ] }}\n\
         plugins: {{ keys: {{ path: keys.wasm, limits: {{ time: 10s }} }} }}\n\
         routes: [ {{ name: app, tenant: {{ plugin: keys }}, forward: app }} ]\n"
    );
    std::fs::write(&policy, text).expect("a file can be written");
    let loopback: SocketAddr = ([127, 0, 0, 1], 0).into();
    let settings = Settings {
        policy,
        listen: vec![loopback.into()],
        admin: Some(loopback.into()),
        cache: None,
        workers: 2,
    };
    let hashes = versions.each_ref().map(|version| version_of(version));
    let records = Records { counts: Arc::clone(counts), hashes, unfinished: Vec::new() };
    Sidecar::start(settings, AccessLog::new(LogFormat::Json, records)).await.expect("the policy is sound")
}

/// Asks until it is over, and checks that tenant and schema are those of one version.
async fn ask(gateway: SocketAddr, counts: Arc<Counts>, over: Arc<AtomicBool>) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    while !over.load(Ordering::Relaxed) {
        let request = Request::get(format!("http://{gateway}/orders")).body(Empty::new());
        let answer = client.request(request.expect("a request")).await;
        counts.answers.fetch_add(1, Ordering::Relaxed);
        let Some(answer) = answer.ok().filter(|answer| answer.status().is_success()) else {
            counts.failed.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let told =
            answer.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        if !TENANTS.iter().any(|tenant| told == format!("{tenant} s_{tenant}")) {
            counts.mixed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// An upstream that answers with the tenant that it was told.
async fn echo(listener: TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection can be accepted");
        let service = service_fn(|request: Request<Incoming>| async move {
            let told = |name: &str| told(request.headers(), name);
            let body = format!("{} {}", told("x-tenant-id"), told("x-tenant-schema"));
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(body))))
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
        );
    }
}

fn told(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
}

/// Reads access records: tenant and version must be of one version there too.
struct Records {
    counts: Arc<Counts>,
    hashes: [String; 2],
    unfinished: Vec<u8>,
}

impl Write for Records {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.unfinished.extend_from_slice(bytes);
        let end = self.unfinished.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in self.unfinished.drain(..end).collect::<Vec<_>>().split(|byte| *byte == b'\n') {
            let Ok(record) = serde_json::from_slice::<serde_json::Value>(line) else { continue };
            self.counts.records.fetch_add(1, Ordering::Relaxed);
            let pairs = || TENANTS.iter().zip(&self.hashes);
            if !pairs()
                .any(|(tenant, hash)| record["tenant"] == *tenant && record["plugin_version"] == **hash)
            {
                self.counts.mixed.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Waits until the last request has left nothing behind; what never comes about is reported.
async fn until(holds: impl Fn() -> bool) {
    let ends = Instant::now() + PATIENCE;
    while !holds() && Instant::now() < ends {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A component that names this tenant.
fn guest(tenant: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("tests/guests/good.wat")).expect("the guest is there");
    let mut wasm = wat::parse_str(text.replace("acme", tenant)).expect("the guest is right");
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(root.join("wit")).expect("the contract is right");
    let world = resolve.select_world(&[package], Some("policy")).expect("it has the world");
    embed_component_metadata(&mut wasm, &resolve, world, StringEncoding::UTF8, false).expect("they fit");
    let mut encoder = ComponentEncoder::default();
    encoder.validate(true).module(&wasm).expect("they fit").encode().expect("they fit")
}

fn replace(directory: &Path, version: &[u8]) {
    let aside = directory.join("keys.wasm.new");
    std::fs::write(&aside, version).expect("a file can be written");
    std::fs::rename(aside, directory.join("keys.wasm")).expect("a file can be renamed");
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has a size");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("kibibytes") / 1024.0
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
