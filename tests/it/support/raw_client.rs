//! A client that sends exactly the bytes it is told, and parses what comes back.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection with what was read from it and not yet parsed.
pub(crate) struct RawClient {
    pub(crate) stream: TcpStream,
    unread: Vec<u8>,
}

/// A response as it stood on the wire, its body decoded.
#[derive(Debug)]
pub(crate) struct RawResponse {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the body came to the end that its head announced.
    pub(crate) complete: bool,
}

impl RawResponse {
    /// The only value of a header, its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(other, _)| other == name).map(|(_, value)| value);
        let value = values.next();
        assert!(values.next().is_none(), "header {name} came twice: {self:?}");
        value.map(String::as_str)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl RawClient {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, unread: Vec::new() }
    }

    /// Sends bytes. A server that has closed already is not an error here: reading will tell.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Says that no more will be sent.
    pub(crate) async fn half_close(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Reads one response with its body; None at the end of the connection.
    pub(crate) async fn response(&mut self) -> Option<RawResponse> {
        let mut response = self.head().await?;
        let lower = |name: &str| response.header(name).map(str::to_ascii_lowercase);
        if matches!(response.status, 100..200 | 204 | 304) {
            return Some(response);
        }
        if lower("transfer-encoding").as_deref() == Some("chunked") {
            response.complete = self.chunks(&mut response.body).await;
        } else if let Some(length) = lower("content-length") {
            let length: usize = length.parse().unwrap();
            while self.unread.len() < length && self.fill().await {}
            response.complete = self.unread.len() >= length;
            response.body = self.unread.drain(..length.min(self.unread.len())).collect();
        } else {
            while self.fill().await {}
            response.body = std::mem::take(&mut self.unread);
        }
        Some(response)
    }

    /// Reads a response's head only, as after HEAD.
    pub(crate) async fn head(&mut self) -> Option<RawResponse> {
        loop {
            if let Some(response) = self.parse_head() {
                return Some(response);
            }
            if !self.fill().await {
                assert!(self.unread.is_empty(), "half a head: {:?}", String::from_utf8_lossy(&self.unread));
                return None;
            }
        }
    }

    /// Reads on, whatever the protocol, until `end` has come.
    pub(crate) async fn raw_through(&mut self, end: &str) {
        while !self.unread.windows(end.len()).any(|part| part == end.as_bytes()) {
            assert!(self.fill().await, "closed before {end:?}");
        }
        self.unread.clear();
    }

    /// Whether the server has closed the connection, with nothing more said.
    pub(crate) async fn is_closed(&mut self) -> bool {
        !self.fill().await && self.unread.is_empty()
    }

    fn parse_head(&mut self) -> Option<RawResponse> {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Response::new(&mut fields);
        let length = match parsed.parse(&self.unread).expect("a response") {
            httparse::Status::Complete(length) => length,
            httparse::Status::Partial => return None,
        };
        let headers = parsed.headers.iter().map(|field| {
            (field.name.to_ascii_lowercase(), String::from_utf8_lossy(field.value).into_owned())
        });
        let response = RawResponse {
            status: parsed.code.unwrap(),
            headers: headers.collect(),
            body: Vec::new(),
            complete: true,
        };
        self.unread.drain(..length);
        Some(response)
    }

    async fn chunks(&mut self, body: &mut Vec<u8>) -> bool {
        loop {
            let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") else {
                if self.fill().await {
                    continue;
                }
                return false;
            };
            let size = std::str::from_utf8(&self.unread[..end]).unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            let whole = end + 2 + size + 2;
            while self.unread.len() < whole {
                if !self.fill().await {
                    body.extend_from_slice(&self.unread[end + 2..]);
                    return false;
                }
            }
            body.extend_from_slice(&self.unread[end + 2..end + 2 + size]);
            self.unread.drain(..whole);
            if size == 0 {
                return true;
            }
        }
    }

    async fn fill(&mut self) -> bool {
        let mut space = vec![0; 64 << 10];
        match self.stream.read(&mut space).await {
            Ok(0) | Err(_) => false,
            Ok(read) => {
                self.unread.extend_from_slice(&space[..read]);
                true
            }
        }
    }
}
