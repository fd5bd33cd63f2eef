//! The HTTP client behind the exporter of spans: ours, so that there is one in the program.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{HttpClient, HttpError};
use tokio::runtime::Handle;

/// A collector answers with next to nothing; what is longer is none.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Sends requests to a collector from any thread, within a time.
pub(super) struct CollectorClient {
    client: Client<Connector, Full<Bytes>>,
    runtime: Handle,
    timeout: Duration,
}

type Connector = HttpsConnector<HttpConnector>;

type Sending<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl CollectorClient {
    /// A client for this endpoint.
    ///
    /// # Errors
    /// The machine's certificates cannot be read, and the endpoint wants them.
    pub(super) fn new(endpoint: &Uri, runtime: Handle, timeout: Duration) -> io::Result<Self> {
        let provider = rustls::crypto::ring::default_provider();
        let builder = HttpsConnectorBuilder::new();
        let connector = if endpoint.scheme_str() == Some("https") {
            builder.with_provider_and_native_roots(provider)?.https_only().enable_http1().build()
        } else {
            // Nothing is verified where nothing is encrypted.
            let roots = rustls::RootCertStore::empty();
            let tls = rustls::ClientConfig::builder_with_provider(provider.into())
                .with_safe_default_protocol_versions()
                .map_err(io::Error::other)?
                .with_root_certificates(roots)
                .with_no_client_auth();
            builder.with_tls_config(tls).https_or_http().enable_http1().build()
        };
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, runtime, timeout })
    }
}

impl HttpClient for CollectorClient {
    fn send_bytes<'client, 'sending>(&'client self, request: Request<Bytes>) -> Sending<'sending>
    where
        'client: 'sending,
        Self: 'sending,
    {
        let (client, timeout) = (self.client.clone(), self.timeout);
        let sending = async move {
            let (head, body) = client.request(request.map(Full::new)).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(head, body))
        };
        // The caller's thread has no runtime to connect on.
        let sending = self.runtime.spawn(async move { tokio::time::timeout(timeout, sending).await });
        Box::pin(async move { sending.await?? })
    }
}

impl fmt::Debug for CollectorClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CollectorClient").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
