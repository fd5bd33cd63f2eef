//! An issuer of tokens: keys of every kind, and an HTTPS server that publishes them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ed25519_dalek::pkcs8::{EncodePrivateKey as _, KeypairBytes};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

/// A key that signs tokens.
pub struct SigningKey {
    pub id: String,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl SigningKey {
    pub fn ed25519(id: &str) -> Self {
        let mut secret_key = [0; 32];
        getrandom::fill(&mut secret_key).unwrap();
        let der = KeypairBytes { secret_key, public_key: None }.to_pkcs8_der().unwrap();
        Self { id: id.into(), algorithm: Algorithm::EdDSA, key: EncodingKey::from_ed_der(der.as_bytes()) }
    }

    pub fn es256(id: &str) -> Self {
        let der = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_der();
        Self { id: id.into(), algorithm: Algorithm::ES256, key: EncodingKey::from_ec_der(&der) }
    }

    /// Always the same key: making one takes seconds.
    pub fn rs256(id: &str) -> Self {
        let der = include_bytes!("../fixtures/keys/rsa.der");
        Self { id: id.into(), algorithm: Algorithm::RS256, key: EncodingKey::from_rsa_der(der) }
    }

    /// The public key, as a JWK set has it.
    pub fn public(&self) -> Value {
        let mut key = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        key.common.key_id = Some(self.id.clone());
        serde_json::to_value(key).unwrap()
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(&self.header(), claims)
    }

    pub fn sign_as(&self, header: &Header, claims: &Value) -> String {
        encode(header, claims, &self.key).unwrap()
    }

    /// The private key, for what the library's own way to sign cannot write.
    pub fn encoding(&self) -> &EncodingKey {
        &self.key
    }

    pub fn header(&self) -> Header {
        Header { kid: Some(self.id.clone()), ..Header::new(self.algorithm) }
    }
}

/// A JWK set of these keys.
pub fn key_set(keys: &[&SigningKey]) -> String {
    json!({ "keys": keys.iter().map(|key| key.public()).collect::<Vec<_>>() }).to_string()
}

/// Seconds since 1970, and so many more or less.
pub fn now_and(seconds: i64) -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap() + seconds
}

/// What an [`IssuerServer`] answers.
#[derive(Debug, Clone, Default)]
pub struct Published {
    pub status: u16,
    pub body: String,
    pub headers: BTreeMap<&'static str, String>,
    /// Requests so far.
    pub asked: usize,
}

/// An HTTPS server with one document. Ends when it is dropped.
pub struct IssuerServer {
    pub address: SocketAddr,
    /// The certificate (PEM) that it is to be checked against.
    pub certificate: String,
    published: Arc<Mutex<Published>>,
    accepting: AbortHandle,
}

impl IssuerServer {
    pub async fn start(body: String) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = made.cert.pem();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let published = Arc::new(Mutex::new(Published { status: 200, body, ..Published::default() }));
        let answers = Arc::clone(&published);
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, answers) = (acceptor.clone(), Arc::clone(&answers));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |_: Request<Incoming>| {
                        let answer = answer(&answers);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let mut connection = hyper::server::conn::http1::Builder::new();
                    let _ =
                        connection.keep_alive(false).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, certificate, published, accepting: accepting.abort_handle() }
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}/jwks.json", self.address.port())
    }

    pub fn change(&self, change: impl FnOnce(&mut Published)) {
        change(&mut self.published.lock().unwrap());
    }

    pub fn asked(&self) -> usize {
        self.published.lock().unwrap().asked
    }
}

impl Drop for IssuerServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn answer(published: &Mutex<Published>) -> Response<Full<Bytes>> {
    let mut published = published.lock().unwrap();
    published.asked += 1;
    let mut response = Response::builder().status(published.status);
    for (name, value) in &published.headers {
        response = response.header(*name, value);
    }
    response.body(Full::from(published.body.clone())).unwrap()
}
