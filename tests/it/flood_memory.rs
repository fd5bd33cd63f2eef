//! What floods take of our memory: a process of its own is flooded, and its high-water mark is read,
//! where the system tells it, which is Linux. Everything has its default limit.
#![cfg(target_os = "linux")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, FrameClient, HEADERS, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, fields, frame,
};
use crate::support::process::Process;
use crate::support::raw_client::RawClient;
use crate::support::raw_upstream::RawUpstream;
use crate::support::tls::Authority;

/// Connections of each kind of HTTP/2 flood.
const CONNECTIONS: usize = 40;
/// Streams that each of them tries to open: more than it may have.
const STREAMS: u32 = 200;
/// Clients of HTTP/1.1 that take no answer: about as many as an upstream may have requests.
const CLIENTS: usize = 1_000;
/// Clients that never finish their greeting.
const STRANGERS: usize = 3_000;
/// An answer that is larger than all that could be held of it.
const ANSWER_BYTES: usize = 4_000_000;
/// What a flood may take: an upstream has 1,024 requests, for each of which a fifth of a MiB waits, and
/// the rest is for streams that hold none. It was more than 600 when an answer held what hyper lets it.
const MOST_MIB: usize = 320;
/// What strangers may take, bytes each.
const MOST_OF_A_STRANGER: usize = 20 << 10;
/// A part of a flood that is no longer read is over.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether a flood has filled what it fills.
const PULSE: Duration = Duration::from_millis(300);
/// How often at most: a flood that is still rising by then has shown what it takes.
const PULSES: usize = 60;

struct Flooded {
    process: Process,
    plain: SocketAddr,
    secret: SocketAddr,
    _upstream: RawUpstream,
    _directory: tempfile::TempDir,
}

impl Flooded {
    async fn start() -> Self {
        // As the sidecar does for itself.
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
        let answer: Arc<[u8]> = vec![b'x'; ANSWER_BYTES].into();
        let upstream = RawUpstream::start(move |mut exchange| {
            let answer = Arc::clone(&answer);
            async move {
                while exchange.request().await.is_some() {
                    exchange.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {ANSWER_BYTES}\r\n\r\n")).await;
                    exchange.send(&answer).await;
                }
            }
        })
        .await;
        let (directory, pair) =
            (tempfile::tempdir().unwrap(), Authority::new("test").server(&["app.example"]));
        let policy = directory.path().join("policy.yaml");
        std::fs::write(directory.path().join("cert.pem"), pair.certificate).unwrap();
        std::fs::write(directory.path().join("key.pem"), pair.key).unwrap();
        let text = format!(
            "
version: 1
server:
  listen:
    - 127.0.0.1:0
    - {{ address: 127.0.0.1:0, tls: {{ certificates: [ {{ certificate: cert.pem, key: key.pem }} ] }} }}
  admin: 127.0.0.1:0
  access_log: off
upstreams:
  app: {{ endpoints: [ 'http://{address}' ] }}
  wide: {{ endpoints: [ 'http://{address}' ] }}
  others: {{ endpoints: [ 'http://{address}' ] }}
routes:
  - {{ name: others, match: {{ path: /others }}, tenant: none, forward: others }}
  - {{ name: wide, match: {{ path: /wide }}, tenant: none, forward: wide }}
  - {{ name: app, tenant: none, forward: app }}
",
            address = upstream.address
        );
        std::fs::write(&policy, text).unwrap();
        let command = Process::command();
        let process = Process::start(command, &["serve", "--no-cache", "--policy", policy.to_str().unwrap()]);
        process.says("the admin listener listens").await;
        let log = process.log();
        let at = |tls: &str| {
            let line = log.lines().find(|line| line.contains(tls)).unwrap();
            line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap()
        };
        let (plain, secret) = (at("tls=false"), at("tls=true"));
        let scene = Self { process, plain, secret, _upstream: upstream, _directory: directory };
        scene.others_are_served().await;
        scene
    }

    /// The most memory that it ever had, bytes.
    fn high_water(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }

    /// The most memory that it ever had when it takes no more.
    async fn settled(&self) -> usize {
        let mut before = self.high_water();
        for _ in 0..PULSES {
            tokio::time::sleep(PULSE).await;
            let now = self.high_water();
            if now == before {
                break;
            }
            before = now;
        }
        before
    }

    /// Connections that each send `opening` and then `again` and again, and read nothing.
    async fn flood(&self, opening: &[u8], again: &[u8]) -> Vec<FrameClient> {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut client = FrameClient::connect(self.plain).await;
            client.send(opening).await;
            for _ in 0..64 {
                let sent = tokio::time::timeout(PATIENCE, client.send(again)).await;
                if again.is_empty() || !matches!(sent, Ok(true)) {
                    break;
                }
            }
            clients.push(client);
        }
        clients
    }

    async fn others_are_served(&self) {
        let mut client = RawClient::connect(self.plain).await;
        client.send("GET /others HTTP/1.1\r\nhost: app.example\r\n\r\n").await;
        assert_eq!(client.response().await.expect("an answer").body.len(), ANSWER_BYTES);
    }
}

/// A head on each stream that a client tries to open.
fn heads(method: &str, path: &str, flags: u8) -> Vec<u8> {
    let head = fields(&[(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")]);
    (0..STREAMS).flat_map(|index| frame(HEADERS, END_HEADERS | flags, 2 * index + 1, &head)).collect()
}

#[tokio::test]
async fn floods_of_streams_take_a_bounded_share_of_memory() {
    let scene = Flooded::start().await;
    let before = scene.high_water();

    // Pings and settings that want answers, which nobody reads.
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(100);
    let settings = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]).repeat(100);
    // Heads without an end, bodies without an end, and streams that are reset at once.
    let endless = frame(CONTINUATION, 0, 1, &fields(&[("x", &"y".repeat(100))])).repeat(100);
    let begun = frame(HEADERS, END_STREAM, 1, &fields(&[(":method", "GET")]));
    let bodies: Vec<u8> =
        (0..STREAMS).flat_map(|index| frame(DATA, 0, 2 * index + 1, &[b'x'; 4096])).collect();
    let resets: Vec<u8> =
        (0..STREAMS).flat_map(|index| frame(RST_STREAM, 0, 2 * index + 1, &[0, 0, 0, 8])).collect();
    // Answers that nobody takes: because the window of each stream is shut from the beginning, or
    // because it is as wide as can be and nothing is read.
    let get = heads("GET", "/", END_STREAM);
    let shut = [frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]), get.clone()].concat();
    let wide = frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    let wider = frame(WINDOW_UPDATE, 0, 0, &(0x7fff_ffff_u32 - 0xffff).to_be_bytes());
    let (mut held, mut taken) = (Vec::new(), Vec::new());
    for (name, opening, again) in [
        ("pings", Vec::new(), pings),
        ("settings", Vec::new(), settings),
        ("heads", begun, endless),
        ("bodies", heads("POST", "/", 0), bodies),
        ("resets", get, resets),
        ("answers at shut windows", shut, Vec::new()),
        // These go where no place is taken yet.
        ("answers at wide windows", [wide, wider, heads("GET", "/wide", END_STREAM)].concat(), Vec::new()),
    ] {
        held.push(scene.flood(&opening, &again).await);
        taken.push((name, scene.settled().await.saturating_sub(before) >> 20));
    }
    scene.others_are_served().await;
    let whole = scene.high_water().saturating_sub(before) >> 20;
    assert!(whole <= MOST_MIB, "the floods took {whole} MiB, one after another: {taken:?}");
}

#[tokio::test]
async fn clients_that_take_no_answer_take_a_bounded_share_of_memory() {
    let scene = Flooded::start().await;
    let before = scene.high_water();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let socket = TcpSocket::new_v4().unwrap();
        // What the kernel takes for a client is no part of the question.
        socket.set_recv_buffer_size(4096).unwrap();
        let mut client = socket.connect(scene.plain).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: app.example\r\n\r\n").await.unwrap();
        clients.push(client);
    }
    let whole = scene.settled().await.saturating_sub(before) >> 20;
    assert!(whole <= MOST_MIB, "{CLIENTS} clients took {whole} MiB");
    scene.others_are_served().await;
}

#[tokio::test]
async fn strangers_take_a_bounded_share_of_memory() {
    let scene = Flooded::start().await;
    let before = scene.high_water();
    // Greetings that stop in the middle of the longest record that there is.
    let greeting = [&[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3][..], &[0; 16_000]].concat();
    let mut strangers = Vec::new();
    for _ in 0..STRANGERS {
        let mut stranger = TcpStream::connect(scene.secret).await.unwrap();
        let _ = stranger.write_all(&greeting).await;
        strangers.push(stranger);
    }
    let each = scene.settled().await.saturating_sub(before) / STRANGERS;
    assert!(each <= MOST_OF_A_STRANGER, "a stranger takes {each} bytes");
    scene.others_are_served().await;
}
