//! New connections to an endpoint: over TCP, TLS or a Unix socket, in the protocol that it speaks.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::uri::Authority;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::outgoing::Outgoing;
use super::tls;

/// How often an HTTP/2 connection with requests on it is asked whether it still lives: a machine
/// that vanished closes nothing.
const HTTP2_PING: Duration = Duration::from_secs(20);
/// What may be on its way to us on one stream, bytes. As many streams as there may be have room on
/// their connection: an answer that its client does not take holds up no other.
const HTTP2_STREAM_WINDOW: u32 = 128 << 10;
/// The largest window that there is (RFC 9113, section 6.9.1).
const HTTP2_MOST_WINDOW: u32 = (1 << 31) - 1;
/// When it is first looked whether a new HTTP/2 connection's settings have come, which are the first that
/// the other side says (RFC 9113, section 3.4); each time, it is waited twice as long for the next.
const FIRST_LOOK: Duration = Duration::from_millis(1);
/// The last such wait: until then, a second has passed.
const LAST_LOOK: Duration = Duration::from_millis(512);
/// What is read of a response at a time, bytes, and the longest head that one may have. As much of
/// it waits here, more than once, while its client takes none.
const HTTP1_BUFFER: usize = 32 << 10;

/// How to connect to one endpoint.
pub(super) struct Connector {
    /// Where it is.
    pub(super) address: Address,
    /// How it is talked to in secret, if it is.
    pub(super) tls: Option<Tls>,
    /// Whether it speaks HTTP/2 without negotiation.
    pub(super) http2: bool,
    /// Requests that may share one HTTP/2 connection.
    pub(super) most_streams: usize,
    /// What it goes by in a request that names no host.
    pub(super) authority: Authority,
}

/// Where an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Address {
    Socket(SocketAddr),
    Path(PathBuf),
}

/// TLS with whom the endpoint must prove to be.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) connector: TlsConnector,
    pub(super) name: ServerName<'static>,
}

/// The near end of a connection.
pub(super) enum Sender {
    Http1(http1::SendRequest<Outgoing>),
    Http2(Shared),
}

/// The near end of an HTTP/2 connection, which requests share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) requests: http2::SendRequest<Outgoing>,
    /// Whether the other side has said that it takes extended CONNECT (RFC 8441, section 3).
    pub(super) offers_connect: watch::Receiver<bool>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    #[error("all connections are in use: {0}")]
    Busy(&'static str),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("TLS: {0}")]
    Tls(String),
    #[error("handshake: {0}")]
    Handshake(#[from] hyper::Error),
}

/// A connection while it is open, for whoever counts them.
struct Open(Arc<AtomicUsize>);

/// What bytes go over that are not plain TCP.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Connector {
    /// Connects; `open` counts the connection for as long as it lives.
    pub(super) async fn connect(&self, open: &Arc<AtomicUsize>) -> Result<Sender, ConnectError> {
        let address = match &self.address {
            Address::Socket(address) => address,
            Address::Path(path) => {
                let stream: Box<dyn Stream> = Box::new(UnixStream::connect(path).await?);
                return self.speak(stream, self.http2, open).await;
            }
        };
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let Some(Tls { connector, name }) = &self.tls else {
            return self.speak(stream, self.http2, open).await;
        };
        let connected = connector.connect(name.clone(), stream).await;
        let stream = connected.map_err(|error| ConnectError::Tls(tls::reason(&error, name)))?;
        let http2 = self.http2 || stream.get_ref().1.alpn_protocol() == Some(tls::HTTP2);
        let stream: Box<dyn Stream> = Box::new(stream);
        self.speak(stream, http2, open).await
    }

    async fn speak<S: Stream + 'static>(
        &self,
        stream: S,
        http2: bool,
        open: &Arc<AtomicUsize>,
    ) -> Result<Sender, ConnectError> {
        let open = Open::count(open);
        let stream = TokioIo::new(stream);
        // The connection's task ends when the last sender is dropped, with the endpoint at the latest.
        if http2 {
            let streams = u32::try_from(self.most_streams).unwrap_or(u32::MAX);
            let (requests, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(HTTP2_PING)
                .initial_stream_window_size(HTTP2_STREAM_WINDOW)
                .initial_connection_window_size(
                    HTTP2_STREAM_WINDOW.saturating_mul(streams).min(HTTP2_MOST_WINDOW),
                )
                .handshake(stream)
                .await?;
            let (offers, offers_connect) = watch::channel(false);
            tokio::spawn(open.during(telling(connection, offers)));
            return Ok(Sender::Http2(Shared { requests, offers_connect }));
        }
        let (sender, connection) = http1::Builder::new().max_buf_size(HTTP1_BUFFER).handshake(stream).await?;
        tokio::spawn(open.during(connection.with_upgrades()));
        Ok(Sender::Http1(sender))
    }
}

impl Sender {
    pub(super) async fn ready(&mut self) -> hyper::Result<()> {
        match self {
            Self::Http1(sender) => sender.ready().await,
            Self::Http2(shared) => shared.requests.ready().await,
        }
    }
}

/// Drives a connection, and tells once the other side has said that it takes extended CONNECT. The HTTP
/// library has settings come in on a task of its own and tells nobody, so that it is looked for them.
async fn telling<S: Stream + 'static>(
    connection: http2::Connection<TokioIo<S>, Outgoing, TokioExecutor>,
    offers: watch::Sender<bool>,
) {
    let mut connection = pin!(connection);
    let mut pause = FIRST_LOOK;
    while pause <= LAST_LOOK {
        if tokio::time::timeout(pause, connection.as_mut()).await.is_ok() {
            return;
        }
        if connection.is_extended_connect_protocol_enabled() {
            offers.send_replace(true);
            break;
        }
        pause *= 2;
    }
    // Nobody need wait for it any longer.
    drop(offers);
    let _ = connection.await;
}

impl Open {
    fn count(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(open))
    }

    async fn during(self, connection: impl Future) {
        connection.await;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
