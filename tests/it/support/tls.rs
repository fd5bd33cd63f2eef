//! Certificates made for a test, and clients that look at what they are shown.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// An authority that issues certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server's certificate for these hosts.
    pub(crate) fn server(&self, names: &[&str]) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.issue(&CertificateParams::new(names).unwrap())
    }

    /// A server's certificate that was good for one day, long ago.
    pub(crate) fn expired(&self, name: &str) -> Pair {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 2);
        self.issue(&params)
    }

    /// A client's certificate with this common name, and a URI made of it.
    pub(crate) fn client(&self, name: &str) -> Pair {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        let uri = format!("spiffe://example.com/{name}").try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
        self.issue(&params)
    }

    /// The authority's list of revoked certificates, PEM, which is in date until `until` (a year).
    pub(crate) fn revoking(&self, revoked: &[&Pair], until: i32) -> String {
        let serials = revoked.iter().map(|pair| {
            let der = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
            let (_, read) = X509Certificate::from_der(&der).unwrap();
            read.raw_serial().to_vec()
        });
        let revoked_certs = serials.map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
    }

    fn issue(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A client that believes this authority.
    pub(crate) fn believer(&self) -> TlsClient {
        TlsClient { roots: vec![self.0.der().clone()], alpn: vec![b"http/1.1".to_vec()], identity: None }
    }
}

/// A TLS client that is being set up.
#[derive(Clone)]
pub(crate) struct TlsClient {
    roots: Vec<CertificateDer<'static>>,
    alpn: Vec<Vec<u8>>,
    identity: Option<Pair>,
}

impl TlsClient {
    pub(crate) fn alpn(mut self, protocols: &[&str]) -> Self {
        self.alpn = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        self
    }

    pub(crate) fn presenting(mut self, identity: &Pair) -> Self {
        self.identity = Some(identity.clone());
        self
    }

    /// How a client is configured that makes connections itself.
    pub(crate) fn config(&self) -> ClientConfig {
        let mut store = RootCertStore::empty();
        for root in &self.roots {
            store.add(root.clone()).unwrap();
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(store);
        let mut config = match &self.identity {
            Some(Pair { certificate, key }) => {
                let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain.map(Result::unwrap).collect(), key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.alpn);
        config
    }

    /// Connects, and asks for `name`.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        name: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(self.config())).connect(name, stream).await
    }

    /// One request on a connection of its own, and all that came back.
    pub(crate) async fn get(&self, address: SocketAddr, name: &str) -> std::io::Result<String> {
        let mut stream = self.connect(address, name).await?;
        ask(&mut stream, name).await
    }
}

/// Sends `GET /` for `host` as the connection's last request, and reads to the end.
pub(crate) async fn ask(
    stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin),
    host: &str,
) -> std::io::Result<String> {
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await?;
    Ok(String::from_utf8_lossy(&reply).into_owned())
}
