//! Idle connections are small: a sidecar holds very many for clients that may never speak again.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::backend::Backend;
use crate::support::process::Process;

/// Enough that what a process needs anyway is no part of the answer.
const CONNECTIONS: usize = 2_000;

/// What 10,000 connections within 150 MiB leave for each.
const MOST_BYTES: usize = 15 << 10;

/// A connection that is idle for so long has let go of what it does not need.
const LONGER_THAN_REST: Duration = Duration::from_millis(400);

/// Memory of a process that is in use, bytes.
fn resident(process: &Process) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[tokio::test]
async fn an_idle_connection_is_small() {
    // As the sidecar does for itself.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let (backend, directory) = (Backend::start().await, tempfile::tempdir().unwrap());
    let policy = directory.path().join("policy.yaml");
    let text = format!(
        "
version: 1
server: {{ listen: 127.0.0.1:0, admin: 127.0.0.1:0, access_log: off, timeouts: {{ keep_alive: 1h }} }}
upstreams: {{ app: {{ endpoints: [ 'http://{}' ], pool_max_idle: 4 }} }}
routes: [ {{ name: all, tenant: none, forward: app }} ]
",
        backend.address
    );
    std::fs::write(&policy, text).unwrap();
    let process =
        Process::start(Process::command(), &["serve", "--no-cache", "--policy", policy.to_str().unwrap()]);
    let address = process.address("the gateway listens").await;

    let mut warm = open(address).await;
    spoken(&mut warm).await;
    let before = resident(&process);
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = open(address).await;
        // An idle connection is one that has been used: its buffers have been, too.
        spoken(&mut stream).await;
        idle.push(stream);
    }
    let each = resident(&process).saturating_sub(before) / CONNECTIONS;
    assert!(each <= MOST_BYTES, "an idle connection takes {each} bytes");
    // However long they were silent, they are as good as new, and again after that.
    for _ in 0..2 {
        tokio::time::sleep(LONGER_THAN_REST).await;
        for stream in &mut idle[..20] {
            spoken(stream).await;
        }
    }
}

async fn open(address: std::net::SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// One request, its response read to the end.
async fn spoken(stream: &mut TcpStream) {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: app.example.com\r\n\r\n").await.unwrap();
    let mut reply = Vec::new();
    // The echo's answer is one JSON object, and ends with it.
    while !reply.ends_with(b"}") {
        let mut some = [0; 2048];
        let length = stream.read(&mut some).await.unwrap();
        assert!(length > 0);
        reply.extend_from_slice(&some[..length]);
    }
}
