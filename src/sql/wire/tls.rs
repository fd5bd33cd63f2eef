//! TLS to a server, with as much proof of who it is as `sslmode` asks for.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{self, CryptoProvider};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::WireError;

/// Whom a server must prove to be, and who we say that we are.
pub(super) struct Trust {
    pub(super) verifies: Verifies,
    /// A file of certificates, in place of the machine's own list.
    pub(super) root: Option<PathBuf>,
    /// Files of our certificate and its key.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
}

/// What of a server's certificate is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verifies {
    /// Nothing: whoever stands between can read along.
    Nothing,
    /// Who issued it (`verify-ca`).
    Issuer,
    /// Who issued it, and for which host (`verify-full`).
    IssuerAndHost,
}

/// Encrypts a connection whose server is willing to.
pub(super) async fn encrypt(
    stream: TcpStream,
    host: &str,
    trust: &Trust,
) -> Result<TlsStream<TcpStream>, WireError> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| WireError::Tls(format!("`{host}` is no name that a certificate could have")))?;
    let configuration = configure(trust).map_err(WireError::Tls)?;
    Ok(TlsConnector::from(Arc::new(configuration)).connect(name, stream).await?)
}

/// Reads the files at each connection: a certificate that was renewed is used at once.
fn configure(trust: &Trust) -> Result<ClientConfig, String> {
    let provider = Arc::new(crypto::ring::default_provider());
    let issuers = match trust.verifies {
        Verifies::Nothing => None,
        Verifies::Issuer | Verifies::IssuerAndHost => Some(
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots(trust)?), Arc::clone(&provider))
                .build()
                .map_err(|error| format!("certificates to check the server against: {error}"))?,
        ),
    };
    let verifier = Verifier { verifies: trust.verifies, issuers, provider: Arc::clone(&provider) };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let Some((certificate, key)) = &trust.identity else { return Ok(builder.with_no_client_auth()) };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| format!("`sslcert` {}: {error}", certificate.display()))?;
    let key =
        PrivateKeyDer::from_pem_file(key).map_err(|error| format!("`sslkey` {}: {error}", key.display()))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| format!("`sslcert` and `sslkey`: {error}"))
}

fn roots(trust: &Trust) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let Some(file) = &trust.root else {
        let found = rustls_native_certs::load_native_certs();
        store.add_parsable_certificates(found.certs);
        return Ok(store);
    };
    let complain = |error: &dyn std::fmt::Display| format!("`sslrootcert` {}: {error}", file.display());
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| complain(&error))? {
        let certificate = certificate.map_err(|error| complain(&error))?;
        store.add(certificate).map_err(|error| complain(&error))?;
    }
    Ok(store)
}

/// Looks at as much of a certificate as it was told to.
#[derive(Debug)]
struct Verifier {
    verifies: Verifies,
    issuers: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(issuers) = &self.issuers else { return Ok(ServerCertVerified::assertion()) };
        let verified = issuers.verify_server_cert(certificate, intermediates, name, ocsp, now);
        match verified {
            // The name is the last thing that is looked at.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.verifies == Verifies::Issuer => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
