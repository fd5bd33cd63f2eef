//! A listener: a socket, what holds for its connections, and who has it after us.

use std::io;
use std::sync::Arc;

use socket2::{SockFilter, SockRef};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::tls::TlsTerms;
use super::transport::Unattended;
use crate::address::{ListenAddress, Peer, PeerRange};
use crate::policy;

/// A classic BPF program over a TCP header: lets pass what is no SYN, as no new connection must be
/// made to a listener that is about to close. The kernel would reset it; a SYN that is dropped is
/// sent again, to the successor.
const NO_SYN: [SockFilter; 4] = [
    // The byte with the flags: BPF_LD | BPF_B | BPF_ABS.
    SockFilter::new(0x30, 0, 0, 13),
    // Jump on SYN: BPF_JMP | BPF_JSET | BPF_K.
    SockFilter::new(0x45, 0, 1, 0x02),
    // BPF_RET | BPF_K: nothing of the packet, or all of it.
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];

/// Who takes the connections at a listener's address when we no longer do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Successor {
    /// Nobody, as far as we know.
    #[default]
    None,
    /// A process with a socket of its own at the same address. The connections in our queue are
    /// ours to serve.
    OwnSocket,
    /// Whoever gave us the socket still has it, and the queue with it.
    SameSocket,
}

/// A listener of the gateway.
pub struct Listener {
    socket: Socket,
    local: ListenAddress,
    successor: Successor,
    terms: watch::Sender<Arc<Terms>>,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection that has said nothing yet.
pub(super) struct Accepted {
    pub(super) socket: Unattended,
    pub(super) peer: Peer,
    pub(super) local: ListenAddress,
}

/// What holds for the connections of a listener; replaced as a whole when the policy changes.
pub(super) struct Terms {
    pub(super) tls: Option<TlsTerms>,
    proxy_protocol: Vec<PeerRange>,
    /// Cancelled when whom we believe has changed, so that nobody stays who was believed before.
    pub(super) outdated: CancellationToken,
}

/// The way to change the terms of a listener that runs.
#[derive(Clone)]
pub struct TermsHandle(watch::Sender<Arc<Terms>>);

impl TermsHandle {
    /// Puts what `policy` says in force for new connections. Connections stay as they are where
    /// only certificates were renewed; where it changed who is believed, they finish what is under
    /// way and end.
    pub fn set(&self, policy: &policy::Listener) {
        let current = Arc::clone(&self.0.borrow());
        if current.is_of(policy) {
            return;
        }
        let mut next = Terms::new(policy);
        let trusts_alike = current.trusts_like(&next);
        if trusts_alike {
            // Whoever came under former terms is as good as who comes under these, and ends with them.
            next.outdated = current.outdated.clone();
        }
        self.0.send_replace(Arc::new(next));
        if !trusts_alike {
            current.outdated.cancel();
        }
    }
}

impl Listener {
    /// A TCP listener under the terms of `policy`.
    ///
    /// # Errors
    /// Where the socket is not one that listens.
    pub fn tcp(socket: TcpListener, policy: &policy::Listener, successor: Successor) -> io::Result<Self> {
        let local = socket.local_addr()?.into();
        Ok(Self::new(Socket::Tcp(socket), local, policy, successor))
    }

    /// A Unix listener under the terms of `policy`, at the policy's path.
    pub fn unix(socket: UnixListener, policy: &policy::Listener, successor: Successor) -> Self {
        Self::new(Socket::Unix(socket), policy.address.clone(), policy, successor)
    }

    fn new(socket: Socket, local: ListenAddress, policy: &policy::Listener, successor: Successor) -> Self {
        let terms = watch::Sender::new(Arc::new(Terms::new(policy)));
        Self { socket, local, successor, terms }
    }

    /// Where it is, as the system gave it.
    pub fn address(&self) -> &ListenAddress {
        &self.local
    }

    /// The way to change its terms while it runs.
    pub fn terms(&self) -> TermsHandle {
        TermsHandle(self.terms.clone())
    }

    /// What holds for a connection that is accepted now.
    pub(super) fn current_terms(&self) -> Arc<Terms> {
        Arc::clone(&self.terms.borrow())
    }

    /// The next connection; `None` where the client has gone already.
    pub(super) async fn accept(&self) -> io::Result<Option<Accepted>> {
        match &self.socket {
            Socket::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                let local = stream.set_nodelay(true).and_then(|()| stream.local_addr());
                let Ok(local) = local else { return Ok(None) };
                let socket = Unattended::Tcp(stream.into_std()?);
                Ok(Some(Accepted { socket, peer: peer.into(), local: local.into() }))
            }
            Socket::Unix(socket) => {
                let (stream, _) = socket.accept().await?;
                let socket = Unattended::Unix(stream.into_std()?);
                Ok(Some(Accepted { socket, peer: Peer::Unix, local: self.local.clone() }))
            }
        }
    }

    /// Has the kernel turn new connections to the successor, where there is one with a socket of its
    /// own. What is half made comes in still: true where it is to be waited for.
    pub(super) fn turn_away(&self) -> bool {
        let (Successor::OwnSocket, Socket::Tcp(socket)) = (self.successor, &self.socket) else {
            return false;
        };
        let turned = SockRef::from(socket).attach_filter(&NO_SYN);
        if let Err(error) = &turned {
            // Then what is lost are connections of the microseconds before the socket is closed.
            tracing::debug!(%error, "cannot turn new connections to the successor");
        }
        turned.is_ok()
    }

    /// Closes, and gives the connections that the kernel has made for us and that would be reset
    /// with the socket.
    pub(super) fn close(self) -> Vec<Accepted> {
        if self.successor == Successor::SameSocket {
            return Vec::new();
        }
        let queued = match self.socket {
            Socket::Tcp(socket) => queued_tcp(socket),
            Socket::Unix(socket) => queued_unix(socket, &self.local),
        };
        queued.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot take the connections that were waiting");
            Vec::new()
        })
    }
}

/// Everything in the queue. The runtime's own view of it may lag behind, so that the kernel is asked.
fn queued_tcp(socket: TcpListener) -> io::Result<Vec<Accepted>> {
    let socket = socket.into_std()?;
    let mut queued = Vec::new();
    while let Ok((stream, peer)) = socket.accept() {
        // One that cannot be served takes no other along.
        let served = stream
            .set_nonblocking(true)
            .and_then(|()| stream.set_nodelay(true))
            .and_then(|()| stream.local_addr().map(ListenAddress::from));
        queued.extend(served.map(|local| Accepted {
            socket: Unattended::Tcp(stream),
            peer: peer.into(),
            local,
        }));
    }
    Ok(queued)
}

fn queued_unix(socket: UnixListener, local: &ListenAddress) -> io::Result<Vec<Accepted>> {
    let socket = socket.into_std()?;
    let mut queued = Vec::new();
    while let Ok((stream, _)) = socket.accept() {
        let served = stream.set_nonblocking(true).map(|()| Unattended::Unix(stream));
        queued.extend(served.map(|socket| Accepted { socket, peer: Peer::Unix, local: local.clone() }));
    }
    Ok(queued)
}

impl Terms {
    fn new(policy: &policy::Listener) -> Self {
        Self {
            tls: policy.tls.clone().map(TlsTerms::new),
            proxy_protocol: policy.proxy_protocol.clone(),
            outdated: CancellationToken::new(),
        }
    }

    fn is_of(&self, policy: &policy::Listener) -> bool {
        self.tls.as_ref().map(TlsTerms::policy) == policy.tls.as_ref()
            && self.proxy_protocol == policy.proxy_protocol
    }

    fn trusts_like(&self, other: &Self) -> bool {
        let of = |terms: &Self| terms.tls.as_ref().map(|tls| tls.policy().clients.clone());
        of(self) == of(other) && self.proxy_protocol == other.proxy_protocol
    }

    /// Whether `peer` must announce its client.
    pub(super) fn is_announced(&self, peer: &Peer) -> bool {
        self.proxy_protocol.iter().any(|range| range.contains(peer))
    }
}
