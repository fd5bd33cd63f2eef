//! What comes before a connection's first request: who is there, and under which terms.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::listener::{Accepted, Terms};
use super::proxy_protocol::{self, Announced};
use super::transport::{Looked, Transport};
use crate::address::Peer;
use crate::client_certificate::ClientCertificate;
use crate::handler::Connection;
use crate::server_names::ServerNames;

/// Who was greeted, and how to speak with them.
pub(super) struct Greeted {
    pub(super) transport: Transport,
    pub(super) client_certificate: Option<Arc<ClientCertificate>>,
    pub(super) names: Option<Arc<ServerNames>>,
}

/// Why a connection ended before its first request.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the client went away")]
    Gone,
    #[error("it took longer than {0:?}")]
    Late(Duration),
    #[error("expected a PROXY header from this peer")]
    NotAnnounced,
    #[error("the client does not speak TLS")]
    NotTls,
    #[error("the names in the client's certificate cannot be read")]
    StrangeCertificate,
    #[error("{0}")]
    Failed(#[from] io::Error),
}

impl Ended {
    /// For a metric.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Late(_) => "late",
            Self::NotAnnounced => "not-announced",
            Self::NotTls => "not-tls",
            Self::StrangeCertificate | Self::Failed(_) => "failed",
        }
    }
}

/// Hears what comes before the first request, in no more than `patience`.
pub(super) async fn greet(
    accepted: Accepted,
    terms: &Terms,
    places: &Semaphore,
    patience: Duration,
    half_closed: CancellationToken,
) -> Result<(Transport, Connection), Ended> {
    let Accepted { socket, peer, local } = accepted;
    let transport = socket.attend()?;
    let is_announced = terms.is_announced(&peer);
    if terms.tls.is_none() && !is_announced {
        let (scheme, client_certificate, names) = ("http", None, None);
        let connection = Connection { peer, local, scheme, client_certificate, names, half_closed };
        return Ok((transport, connection));
    }
    // On the heap while it lasts: its state is many times that of a connection that waits.
    let greeting = Box::pin(async {
        let mut looked = Looked::new(transport);
        let peer = if is_announced { announced(&mut looked, peer).await? } else { peer };
        let greeted = match &terms.tls {
            Some(tls) => tls.greet(looked, places).await?,
            None => Greeted { transport: looked.into_transport(), client_certificate: None, names: None },
        };
        Ok::<_, Ended>((peer, greeted))
    });
    let greeted = tokio::time::timeout(patience, greeting).await;
    let (peer, Greeted { transport, client_certificate, names }) =
        greeted.unwrap_or(Err(Ended::Late(patience)))?;
    let scheme = if terms.tls.is_some() { "https" } else { "http" };
    Ok((transport, Connection { peer, local, scheme, client_certificate, names, half_closed }))
}

/// The client that the load balancer at `peer` announces; the load balancer where it speaks for
/// itself.
async fn announced(looked: &mut Looked, peer: Peer) -> Result<Peer, Ended> {
    loop {
        match proxy_protocol::read(looked.held()) {
            Announced::Whole { length, client } => {
                looked.take(length);
                return Ok(client.map_or(peer, Peer::Ip));
            }
            Announced::Nothing => return Err(Ended::NotAnnounced),
            Announced::Part => {
                if !looked.look().await? {
                    return Err(Ended::Gone);
                }
            }
        }
    }
}
