//! TLS at a listener: the handshake, and what it tells of the client.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection, version};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::greeting::{Ended, Greeted};
use super::transport::{Looked, Transport};
use crate::client_certificate::ClientCertificate;
use crate::policy::{Tls, TlsVersion};

/// How a TLS client begins: a record with a handshake message (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// What is held of a greeting until its client has a place among the handshakes, bytes. Most are
/// shorter, and there can be as many strangers as connections.
const STRANGERS_BYTES: usize = 4 << 10;

/// What someone reads who forgot the `s` in `https`.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 45\r\n\
    connection: close\r\n\r\nthis port speaks TLS: the URL needs `https:`\n";

/// TLS as one listener has it, ready for handshakes.
pub(super) struct TlsTerms {
    policy: Tls,
    config: Arc<ServerConfig>,
}

impl TlsTerms {
    pub(super) fn new(policy: Tls) -> Self {
        let versions: &[_] = match policy.min_version {
            TlsVersion::Tls12 => &[&version::TLS13, &version::TLS12],
            TlsVersion::Tls13 => &[&version::TLS13],
        };
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .expect("ring speaks both versions");
        let builder = match &policy.clients {
            Some(clients) => builder.with_client_cert_verifier(Arc::clone(clients.verifier())),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(BySni(policy.clone())));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A ticket is of these terms: under others, whoever was vouched for must be so again.
        if let Ok(ticketer) = Ticketer::new() {
            config.ticketer = ticketer;
        }
        Self { policy, config: Arc::new(config) }
    }

    /// What the policy says.
    pub(super) fn policy(&self) -> &Tls {
        &self.policy
    }

    /// Shakes hands. A place among the handshakes is taken only once the client has said its part,
    /// so that one that connects and says little keeps none.
    pub(super) async fn greet(&self, mut looked: Looked, places: &Semaphore) -> Result<Greeted, Ended> {
        while !has_greeted(looked.held()) {
            if !looked.look().await? {
                return Err(Ended::Gone);
            }
        }
        if looked.held()[0] != HANDSHAKE {
            let mut transport = looked.into_transport();
            transport.write_all(PLAIN_HTTP).await?;
            transport.shutdown().await?;
            return Err(Ended::NotTls);
        }
        let _place = places.acquire().await.expect("it is never closed");
        let stream = TlsAcceptor::from(Arc::clone(&self.config)).accept(looked).await?;
        let (_, connection) = stream.get_ref();
        let client_certificate = self.client(connection)?;
        // Which certificate was served matters only to whom it vouched for.
        let names = self
            .policy
            .clients
            .is_some()
            .then(|| Arc::clone(self.policy.certificate_for(connection.server_name()).names()));
        Ok(Greeted { transport: Transport::Other(Box::new(stream)), client_certificate, names })
    }

    fn client(&self, connection: &ServerConnection) -> Result<Option<Arc<ClientCertificate>>, Ended> {
        let Some(der) = connection.peer_certificates().and_then(|chain| chain.first()) else {
            return Ok(None);
        };
        let read = ClientCertificate::read(der).map_err(|_| Ended::StrangeCertificate)?;
        Ok(Some(Arc::new(read)))
    }
}

/// Whether a client has said enough to be answered: all of its first record (RFC 8446, section 5.1),
/// as much as is held for one without a place, or something that is not TLS.
fn has_greeted(held: &[u8]) -> bool {
    match *held {
        [HANDSHAKE, _, _, high, low, ref said @ ..] => {
            said.len() >= usize::from(u16::from_be_bytes([high, low])) || held.len() >= STRANGERS_BYTES
        }
        [] | [HANDSHAKE, ..] => false,
        _ => true,
    }
}

/// Picks the certificate that the client asks for.
struct BySni(Tls);

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.0.certificate_for(hello.server_name()).key()))
    }
}

impl fmt::Debug for BySni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0.certificates).finish()
    }
}
