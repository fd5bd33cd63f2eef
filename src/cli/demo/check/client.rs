//! The check's HTTP client: pooled connections, a deadline, whole bodies.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// No answer of the demo takes longer, unless something hangs.
const TIMEOUT: Duration = Duration::from_secs(30);

/// No answer of the demo is longer, bytes.
const ANSWER_LIMIT: usize = 1 << 20;

/// A client; clones share its connections.
#[derive(Debug, Clone)]
pub(super) struct Client(legacy::Client<HttpConnector, Full<Bytes>>);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// It took too long.
    #[error("no answer within {} seconds", TIMEOUT.as_secs())]
    Timeout,
    /// The connection failed.
    #[error("no answer: {0}: {1}")]
    Connection(legacy::Error, String),
    /// The answer broke off, or was too long.
    #[error("the answer broke off: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
}

impl Client {
    /// A client that keeps so many connections.
    pub(super) fn new(connections: usize) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self(
            legacy::Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(connections)
                .build(connector),
        )
    }

    /// Sends a request and reads the whole answer.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let answer = async {
            let response = self.0.request(request).await.map_err(|error| {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                ClientError::Connection(error, cause)
            })?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_LIMIT);
            let body = body.collect().await.map_err(ClientError::Body)?;
            Ok((status, body.to_bytes()))
        };
        tokio::time::timeout(TIMEOUT, answer).await.map_err(|_| ClientError::Timeout)?
    }
}
