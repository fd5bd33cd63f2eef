//! Clients that check every answer: it has the rows of the tenant that was named, and no others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::process::setting;
use crate::scene::{ROWS, TENANTS, tenant};

/// What is asked, and on whose behalf.
#[derive(Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) path: &'static str,
    /// Tenants in turn, from this one on.
    pub(crate) first: usize,
    pub(crate) tenants: usize,
    pub(crate) connections: usize,
    /// Whether 429 and 503 are answers too.
    pub(crate) may_be_refused: bool,
}

/// What became of a round.
pub(crate) struct Served {
    /// How long each request took, sorted.
    pub(crate) latencies: Vec<Duration>,
    took: Duration,
}

impl Ask {
    /// All tenants in turn.
    pub(crate) fn of(path: &'static str) -> Self {
        Self {
            path,
            first: 0,
            tenants: TENANTS,
            connections: setting("QUERY_CONNECTIONS", 16),
            may_be_refused: false,
        }
    }
}

impl Served {
    /// Requests a second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    /// The time within which this part of the requests was answered.
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a length")]
        let index = ((self.latencies.len() - 1) as f64 * part) as usize;
        self.latencies[index]
    }
}

/// Sends `requests` over kept-alive connections, one at a time on each.
pub(crate) async fn drive(address: SocketAddr, ask: Ask, requests: usize) -> Served {
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..ask.connections {
        let next = Arc::clone(&next);
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            let mut latencies = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= requests {
                    return latencies;
                }
                let sent = Instant::now();
                // A stride that is prime to the number of tenants visits all of them.
                client.ask(ask, &tenant(ask.first + number * 7 % ask.tenants)).await;
                latencies.push(sent.elapsed());
            }
        });
    }
    let mut latencies: Vec<Duration> = Vec::new();
    while let Some(client) = clients.join_next().await {
        latencies.extend(client.expect("every answer is right"));
    }
    latencies.sort_unstable();
    Served { latencies, took: started.elapsed() }
}

/// One kept-alive connection.
struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("a socket has this option");
        Self { stream, unread: Vec::with_capacity(8192) }
    }

    /// Asks for a tenant's rows and checks them.
    async fn ask(&mut self, ask: Ask, tenant: &str) {
        let request = format!(
            "GET {}?limit={ROWS} HTTP/1.1\r\nHost: app.example.com\r\nAccept: application/json\r\n\
             User-Agent: load/1\r\nX-Tenant-ID: {tenant}\r\n\r\n",
            ask.path
        );
        self.stream.write_all(request.as_bytes()).await.expect("the server reads");
        let (head, length) = loop {
            if let Some(end) = memchr::memmem::find(&self.unread, b"\r\n\r\n").map(|at| at + 4) {
                let length = content_length(&self.unread[..end]);
                if self.unread.len() >= end + length {
                    break (end, length);
                }
            }
            let read = self.stream.read_buf(&mut self.unread).await.expect("the server answers");
            assert_ne!(read, 0, "the server closed");
        };
        let body = &self.unread[head..head + length];
        let status = &self.unread[9..12];
        if ask.may_be_refused && (status == b"429" || status == b"503") {
            self.unread.clear();
            return;
        }
        assert_eq!(status, b"200", "{}", String::from_utf8_lossy(&self.unread));
        let rows = memchr::memmem::find_iter(body, b"\"tenant\":").count();
        let own = memchr::memmem::find_iter(body, format!("\"tenant\":\"{tenant}\"").as_bytes()).count();
        assert_eq!((rows, own), (ROWS, ROWS), "{tenant}: {}", String::from_utf8_lossy(body));
        self.unread.clear();
    }
}

fn content_length(head: &[u8]) -> usize {
    let head = std::str::from_utf8(head).expect("a head of visible ASCII");
    let value = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim())
    });
    value.and_then(|value| value.parse().ok()).expect("an answer of known length")
}
