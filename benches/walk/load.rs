//! The two ends of the benchmark: clients that check every answer, and an upstream that says which
//! tenant it was told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Tenants in the directory, in the map, and in the plugin's configuration.
pub(crate) const TENANTS: usize = 1000;
/// Size of every response's body, bytes.
const BODY: usize = 1024;

/// So many tenants.
pub(crate) fn tenants(count: usize) -> Arc<[String]> {
    (0..count).map(|index| format!("t-{index:04}")).collect()
}

/// A tenant's schema.
pub(crate) fn schema_of(tenant: &str) -> String {
    format!("schema_{}", &tenant[2..])
}

/// Answers each request with 1 KiB that begins with the tenant's id and schema as it was told them.
pub(crate) async fn upstream(listener: TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection can be accepted");
        stream.set_nodelay(true).expect("a socket has this option");
        tokio::spawn(answer(stream));
    }
}

async fn answer(mut stream: TcpStream) {
    let mut unread = Vec::with_capacity(8192);
    let mut response = Vec::with_capacity(2048);
    loop {
        let Some(end) = head_end(&unread) else {
            match stream.read_buf(&mut unread).await {
                Ok(0) | Err(_) => return,
                Ok(_) => continue,
            }
        };
        let head = std::str::from_utf8(&unread[..end]).expect("a head of visible ASCII");
        let told = format!("{} {};", header(head, "x-tenant-id"), header(head, "x-tenant-schema"));
        response.clear();
        response.extend_from_slice(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1024\r\n\r\n",
        );
        response.extend_from_slice(told.as_bytes());
        response.resize(response.len() + BODY - told.len(), b'.');
        unread.drain(..end);
        if stream.write_all(&response).await.is_err() {
            return;
        }
    }
}

/// Sends `requests` under `path` over `connections` kept-alive connections, one at a time on each,
/// and checks that each answer is its own tenant's.
pub(crate) async fn drive(
    address: SocketAddr,
    path: &'static str,
    tenants: Arc<[String]>,
    connections: usize,
    requests: usize,
) {
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        let (next, tenants) = (Arc::clone(&next), Arc::clone(&tenants));
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await.expect("the proxy listens");
            stream.set_nodelay(true).expect("a socket has this option");
            let mut unread = Vec::with_capacity(8192);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= requests {
                    return;
                }
                // A stride that is prime to the number of tenants visits all of them.
                ask(&mut stream, &mut unread, path, &tenants[number * 7 % tenants.len()], number).await;
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.expect("every answer is right");
    }
}

async fn ask(stream: &mut TcpStream, unread: &mut Vec<u8>, path: &str, tenant: &str, number: usize) {
    let request = format!(
        "GET {path}/{number}?sort=date HTTP/1.1\r\nHost: app.example.com\r\nUser-Agent: load/1\r\n\
         Accept: application/json\r\nAccept-Encoding: gzip, br\r\nAccept-Language: en\r\n\
         Cookie: session=0123456789abcdef\r\nX-Api-Key: k-{tenant}\r\nX-Tenant-ID: {tenant}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("the proxy reads");
    let end = loop {
        if let Some(end) = head_end(unread) {
            assert!(unread.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(unread));
            if unread.len() >= end + BODY {
                break end;
            }
        }
        assert_ne!(stream.read_buf(unread).await.expect("the proxy answers"), 0, "the proxy closed");
    };
    let expected = format!("{tenant} {};", schema_of(tenant));
    assert!(unread[end..].starts_with(expected.as_bytes()), "{}", String::from_utf8_lossy(unread));
    assert_eq!(unread.len(), end + BODY);
    unread.clear();
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    head.lines()
        .find_map(|line| line.split_once(": ").filter(|(other, _)| other.eq_ignore_ascii_case(name)))
        .map_or("none", |(_, value)| value)
}
