//! Upstreams behind TLS, who must prove who they are, and behind Unix sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::policy::Desk;
use super::support::gateway::{Harness, TestGateway};

/// An authority that issues certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    fn server(&self) -> Pair {
        self.issue("app.internal", |_| {})
    }
}

/// A backend behind TLS that says which protocol it was spoken to in. Ends when it is dropped.
struct SecretBackend {
    address: SocketAddr,
    accepting: AbortHandle,
}

impl SecretBackend {
    /// Shows this certificate; asks for one of `clients`' if that is given.
    async fn start(shown: &Pair, clients: Option<&Authority>) -> Self {
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.0.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = vec![CertificateDer::from_pem_slice(shown.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).unwrap();
        let mut configuration = builder.with_single_cert(chain, key).unwrap();
        configuration.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(configuration));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        answer(stream).await;
                    }
                });
            }
        });
        Self { address, accepting: accepting.abort_handle() }
    }
}

impl Drop for SecretBackend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let say = |request: Request<Incoming>| async move {
        let host = match request.uri().authority() {
            Some(authority) => authority.to_string(),
            None => request.headers()["host"].to_str().unwrap().to_owned(),
        };
        Ok::<_, std::convert::Infallible>(Response::new(format!("{:?} {host}", request.version())))
    };
    let connection = auto::Builder::new(TokioExecutor::new());
    let _ = connection.serve_connection(TokioIo::new(stream), service_fn(say)).await;
}

#[tokio::test]
async fn a_backend_that_chooses_http1_gets_no_more_connections_than_it_may_have() {
    let authority = Authority::new();
    let pair = authority.server();
    let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let mut configuration = builder.with_single_cert(chain, key).unwrap();
    configuration.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(configuration));
    let released = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (release, connections) = (released.clone(), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&connections);
    let accepting = tokio::spawn(async move {
        loop {
            let stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
            let released = released.clone();
            let hold = service_fn(move |_: Request<Incoming>| {
                let released = released.clone();
                async move {
                    released.cancelled().await;
                    Ok::<_, std::convert::Infallible>(Response::new("late".to_owned()))
                }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), hold),
            );
        }
    });
    let settings = "    tls: { ca: ca.pem, server_name: app.internal }\n    max_connections: 2\n    connect_timeout: 1m\n    max_pending: 1\n";
    let gateway = Harness::new()
        .file("ca.pem", authority.0.pem())
        .policy(&policy(&format!("https://{address}"), settings))
        .start()
        .await;
    let requests: FuturesUnordered<_> = (0..6).map(|_| gateway.get("/").send()).collect();
    let statuses: Vec<u16> = requests
        .enumerate()
        .map(|(index, reply)| {
            // The refusals come first, as the backend answers nobody before.
            if index == 2 {
                release.cancel();
            }
            reply.status()
        })
        .collect()
        .await;
    assert_eq!(statuses, [503, 503, 503, 200, 200, 200]);
    assert_eq!(connections.load(Ordering::SeqCst), 2);
    accepting.abort();
}

fn policy(endpoint: &str, settings: &str) -> String {
    format!(
        "version: 1\nupstreams:\n  app:\n    endpoints: [ '{endpoint}' ]\n{settings}\
         routes:\n  - {{ name: app, tenant: none, forward: app }}\n"
    )
}

async fn gateway(backend: &SecretBackend, settings: &str, files: &[(&str, &str)]) -> TestGateway {
    let policy = policy(&format!("https://{}", backend.address), settings);
    let harness = Harness::new().policy(&policy);
    files.iter().fold(harness, |harness, (name, text)| harness.file(name, text)).start().await
}

const TRUSTING: &str = "    tls: { ca: ca.pem, server_name: app.internal }\n";

#[tokio::test]
async fn an_upstream_that_proves_itself_is_spoken_to_in_the_protocol_that_it_chooses() {
    let authority = Authority::new();
    let backend = SecretBackend::start(&authority.server(), None).await;
    let ca = authority.0.pem();
    for (protocol, version) in
        [("", "HTTP/2.0"), ("    protocol: http2\n", "HTTP/2.0"), ("    protocol: http1\n", "HTTP/1.1")]
    {
        let settings = format!("{TRUSTING}{protocol}");
        let gateway = gateway(&backend, &settings, &[("ca.pem", &ca)]).await;
        for _ in 0..2 {
            let reply = gateway.get("/").host("shop.example").send().await;
            assert_eq!(reply.text(), format!("{version} shop.example"));
        }
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_prove_itself_is_502_and_the_operator_reads_why() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let expired = authority.issue("app.internal", |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let future = authority.issue("app.internal", |params| {
        params.not_before = date_time_ymd(3020, 1, 1);
        params.not_after = date_time_ymd(3021, 1, 1);
    });
    let ca = authority.0.pem();
    let other_name = "    tls: { ca: ca.pem, server_name: other.internal }\n";
    let no_name = "    tls: { ca: ca.pem }\n";
    for (shown, settings, why) in [
        (authority.server(), "", "issuer is not trusted"),
        (stranger.server(), TRUSTING, "signed with another key than its issuer's"),
        (authority.server(), other_name, "is not for `other.internal`"),
        (authority.server(), no_name, "is not for `127.0.0.1`"),
        (expired, TRUSTING, "has expired"),
        (future, TRUSTING, "is not valid yet"),
    ] {
        let backend = SecretBackend::start(&shown, None).await;
        let gateway = gateway(&backend, settings, &[("ca.pem", &ca)]).await;
        let reply = gateway.get("/").send().await;
        assert_eq!((reply.status(), reply.code().as_str()), (502, "upstream-unreachable"), "{why}");
        assert!(!reply.text().contains("certificate"), "a client reads nothing of it: {}", reply.text());
        let record = &gateway.records(|record| record["status"] == 502).await[0];
        let cause = record["cause"].as_str().unwrap();
        assert!(cause.contains(why), "{cause}");
    }
}

#[tokio::test]
async fn an_upstream_may_ask_for_our_certificate() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let backend = SecretBackend::start(&authority.server(), Some(&clients)).await;
    let (ca, ours) = (authority.0.pem(), clients.issue("innkeeper", |_| {}));
    let files = [("ca.pem", &*ca), ("c.pem", &*ours.certificate), ("k.pem", &*ours.key)];
    let anonymous = gateway(&backend, TRUSTING, &files).await;
    assert_eq!(anonymous.get("/").send().await.code(), "upstream-unreachable");
    let settings = "    tls:\n      ca: ca.pem\n      server_name: app.internal\n      \
                    client: { certificate: c.pem, key: k.pem }\n";
    let known = gateway(&backend, settings, &files).await;
    assert_eq!(known.get("/").send().await.status(), 200);
}

#[tokio::test]
async fn a_renewed_certificate_of_ours_is_a_changed_policy() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let backend = SecretBackend::start(&authority.server(), Some(&clients)).await;
    let stranger = Authority::new().issue("innkeeper", |_| {});
    let ca = authority.0.pem();
    let both = |pair: &Pair| format!("{}{}", pair.certificate, pair.key);
    let settings = "    tls:\n      ca: ca.pem\n      server_name: app.internal\n      \
                    client: { certificate: ours.pem, key: ours.pem }\n";
    let files = [("ca.pem", &*ca), ("ours.pem", &*both(&stranger))];
    let gateway = gateway(&backend, settings, &files).await;
    assert_eq!(gateway.get("/").send().await.status(), 502);
    gateway.replace_file("ours.pem", both(&clients.issue("innkeeper", |_| {})));
    gateway.until_generation(2).await;
    assert_eq!(gateway.get("/").send().await.status(), 200);
}

#[test]
fn mistakes_about_certificates_have_a_place_and_a_way_out() {
    let authority = Authority::new();
    let (one, other) = (authority.server(), authority.server());
    let said = |settings: &str| {
        Desk::with(&policy("https://app.internal:1", settings))
            .file("one.pem", &one.certificate)
            .file("one-key.pem", &one.key)
            .file("other-key.pem", &other.key)
            .file("nonsense.pem", "hello")
            .diagnostics()
    };
    for (settings, wrong) in [
        ("tls: { ca: lost.pem }", "cannot read `lost.pem`: there is no such file"),
        ("tls: { ca: nonsense.pem }", "`nonsense.pem` has no certificate in it"),
        ("tls: { server_name: 'a b' }", "`a b` is no name that a certificate could have"),
        ("tls: { client: { certificate: one.pem, key: one.pem } }", "`one.pem` has no private key in it"),
        (
            "tls: { client: { certificate: one.pem, key: other-key.pem } }",
            "`other-key.pem` is not this certificate's key",
        ),
        ("tls: { client: { certificate: one.pem } }", "`client` needs the key `key`"),
        ("tls: { verify: false }", "unknown key `verify` in an upstream's `tls`"),
        ("health: { path: healthz }", "expected a path such as `/healthz`"),
        ("health: { path: /h, status: 299..200 }", "this range is empty"),
        ("retries: { on: [connect] }", "always passed over for the next"),
        ("retries: { on: [404] }", "a status from `500` to `599`"),
    ] {
        let said = said(&format!("    {settings}\n"));
        assert!(said.contains(wrong) && said.contains("policy.yaml:5"), "{settings}: {said}");
        assert!(!said.contains(one.key.lines().nth(1).unwrap()), "{said}");
    }
    let right = "    tls: { client: { certificate: one.pem, key: one-key.pem }, ca: one.pem }\n    \
                 health: { path: /h, status: [ 200..299, 401 ] }\n    retries: { on: [ reset, 503 ] }\n";
    assert_eq!(said(right), "");
    let plain = Desk::with(&policy("http://app.internal:1", "    tls: { server_name: a }\n"));
    assert!(plain.diagnostics().contains("none of the endpoints is `https`"));
    for endpoint in ["unix:run/app.sock", "https://app.internal:0", "https://my host:1", "https://a/b"] {
        assert_ne!(Desk::with(&policy(endpoint, "")).diagnostics(), "", "{endpoint}");
    }
}

#[tokio::test]
async fn an_upstream_may_be_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let accepting = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(answer(stream));
        }
    });
    let endpoint = format!("unix:{}", path.display());
    for (settings, version) in [("", "HTTP/1.1"), ("    protocol: http2\n", "HTTP/2.0")] {
        let gateway = Harness::new().policy(&policy(&endpoint, settings)).start().await;
        let reply = gateway.get("/").host("shop.example").send().await;
        assert_eq!(reply.text(), format!("{version} shop.example"));
    }
    accepting.abort();
    std::fs::remove_file(&path).unwrap();
    let gateway = Harness::new().policy(&policy(&endpoint, "")).start().await;
    assert_eq!(gateway.get("/").send().await.code(), "upstream-unreachable");
}
