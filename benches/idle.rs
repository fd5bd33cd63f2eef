//! What an idle connection takes: the memory of a sidecar that holds many.
//!
//! `cargo bench --bench idle` opens them one after another, over plain HTTP and over TLS, each used
//! for one request. `IDLE_CONNECTIONS` changes how many (10,000; twice as many descriptors are not
//! needed, as the sidecar is a process of its own).

#![expect(clippy::print_stdout, reason = "a benchmark's output is what it prints")]

#[path = "walk/process.rs"]
#[allow(dead_code, reason = "the part that measures time is for others")]
mod process;

use std::net::SocketAddr;
use std::sync::Arc;

use innkeeper::gateway::{AccessLog, LogFormat};
use innkeeper::sidecar::{Settings, Sidecar};
use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use process::{Proxy, runtime, say, setting};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1..).unwrap_or_default() {
        [mode, upstream] if mode == "plain" || mode == "tls" => {
            runtime(2).block_on(serve(upstream, mode == "tls"));
        }
        _ => runtime(1).block_on(measure()),
    }
}

/// A sidecar whose certificate, if it has one, is written where its parent finds it.
async fn serve(upstream: &str, tls: bool) {
    let directory = std::env::temp_dir().join(format!("innkeeper-idle-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a temporary directory");
    let key = KeyPair::generate().expect("a key");
    let names = vec!["localhost".to_owned()];
    let certificate = CertificateParams::new(names).expect("a name").self_signed(&key).expect("it signs");
    std::fs::write(directory.join("cert.pem"), certificate.pem()).expect("a file can be written");
    std::fs::write(directory.join("key.pem"), key.serialize_pem()).expect("a file can be written");
    let tls = if tls { ", tls: { certificates: [ { certificate: cert.pem, key: key.pem } ] }" } else { "" };
    let policy = directory.join("policy.yaml");
    let text = format!(
        "version: 1\nserver: {{ listen: {{ address: 127.0.0.1:0{tls} }}, admin: 127.0.0.1:0, \
         limits: {{ connections: 100000 }}, timeouts: {{ keep_alive: 1h }} }}\n\
         upstreams: {{ app: {{ endpoints: [ 'http://{upstream}' ] }} }}\n\
         routes: [ {{ name: app, tenant: none, forward: app }} ]\n"
    );
    std::fs::write(&policy, text).expect("a file can be written");
    let settings = Settings { policy, listen: Vec::new(), admin: None, cache: None, workers: 2 };
    let log = AccessLog::new(LogFormat::Json, std::io::sink());
    let sidecar = Sidecar::start(settings, log).await.expect("the policy is sound");
    say(sidecar.addresses[0]);
    std::future::pending::<()>().await;
}

async fn measure() {
    let connections = setting("IDLE_CONNECTIONS", 10_000);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let upstream = listener.local_addr().expect("it is bound").to_string();
    tokio::spawn(answer(listener));
    for mode in ["plain", "tls"] {
        let proxy = Proxy::start(mode, &upstream);
        let client = (mode == "tls").then(|| connector(&proxy));
        let mut idle: Vec<Box<dyn Stream>> = Vec::new();
        let mut before = 0;
        for number in 0..=connections {
            idle.push(spoken(proxy.address, client.as_ref()).await);
            if number == 0 {
                before = proxy.peak_memory();
            }
        }
        let after = proxy.peak_memory();
        println!(
            "{mode:<6} {connections} idle connections: {:>6.1} MiB in all, {:>6.1} KiB each (budget 150 MiB for 10000)",
            after as f64 / f64::from(1 << 20),
            (after - before) as f64 / connections as f64 / 1024.0
        );
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// A connection after its first request.
async fn spoken(address: SocketAddr, client: Option<&TlsConnector>) -> Box<dyn Stream> {
    let stream = TcpStream::connect(address).await.expect("it listens");
    let mut stream: Box<dyn Stream> = match client {
        Some(client) => {
            let name = ServerName::try_from("localhost").expect("a name");
            Box::new(client.connect(name, stream).await.expect("a handshake"))
        }
        None => Box::new(stream),
    };
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("it reads");
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok") {
        assert!(stream.read_buf(&mut answer).await.expect("it answers") > 0, "it closed");
    }
    stream
}

fn connector(proxy: &Proxy) -> TlsConnector {
    let directory = std::env::temp_dir().join(format!("innkeeper-idle-{}", proxy.id()));
    let pem = std::fs::read(directory.join("cert.pem")).expect("it wrote one");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem).expect("a certificate")).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

async fn answer(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        tokio::spawn(async move {
            let mut request = [0; 4096];
            while stream.read(&mut request).await.is_ok_and(|length| length > 0) {
                let _ = stream.write_all(ANSWER).await;
            }
        });
    }
}
