//! An upstream that plays a script, byte for byte.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A listener whose every connection plays the same script.
pub(crate) struct RawUpstream {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// One connection from the gateway.
pub(crate) struct RawExchange {
    pub(crate) stream: TcpStream,
    unread: Vec<u8>,
}

impl RawUpstream {
    /// Plays `script` on every connection; the connection closes when the script ends.
    pub(crate) async fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(RawExchange) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(script(RawExchange { stream, unread: Vec::new() }));
            }
        });
        Self { address, connections, task }
    }

    /// An upstream that reads one request a time and answers each with `response`.
    pub(crate) async fn answering(response: &'static str) -> Self {
        Self::start(move |mut exchange| async move {
            while exchange.request().await.is_some() {
                exchange.send(response).await;
            }
        })
        .await
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for RawUpstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RawExchange {
    /// Reads a request without a body: its head as text; None when the gateway closed.
    pub(crate) async fn request(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                return Some(String::from_utf8(self.unread.drain(..end + 4).collect()).unwrap());
            }
            if self.read_some().await == 0 {
                return None;
            }
        }
    }

    /// Reads until `end` has come, and takes all that was read.
    pub(crate) async fn through(&mut self, end: &str) -> String {
        while !self.unread.windows(end.len()).any(|part| part == end.as_bytes()) {
            assert_ne!(self.read_some().await, 0, "closed before {end:?}");
        }
        String::from_utf8(std::mem::take(&mut self.unread)).unwrap()
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Waits until the gateway has closed the connection.
    pub(crate) async fn closed(&mut self) {
        while self.read_some().await > 0 {}
    }

    async fn read_some(&mut self) -> usize {
        let mut space = vec![0; 64 << 10];
        let read = self.stream.read(&mut space).await.unwrap_or(0);
        self.unread.extend_from_slice(&space[..read]);
        read
    }
}
