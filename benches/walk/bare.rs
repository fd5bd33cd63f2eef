//! What we measure against: the least proxy that hyper allows, doing the same map look-up.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use http::header::{CONNECTION, HOST};
use http::uri::{PathAndQuery, Scheme, Uri};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{Either, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

const X_TENANT_ID: HeaderName = HeaderName::from_static("x-tenant-id");
const X_TENANT_SCHEMA: HeaderName = HeaderName::from_static("x-tenant-schema");

type Answer = Either<Incoming, Empty<Bytes>>;

struct Proxy {
    client: Client<HttpConnector, Incoming>,
    upstream: http::uri::Authority,
    schemas: HashMap<String, HeaderValue>,
}

/// Serves for ever.
pub(crate) async fn serve(listener: TcpListener, upstream: &str, tenants: &[String]) {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let schemas = tenants.iter().map(|tenant| {
        let schema = HeaderValue::try_from(super::schema_of(tenant)).expect("a schema fits a header");
        (tenant.clone(), schema)
    });
    let proxy = Arc::new(Proxy {
        client: Client::builder(TokioExecutor::new()).build(connector),
        upstream: upstream.parse().expect("an address is an authority"),
        schemas: schemas.collect(),
    });
    loop {
        let (stream, _) = listener.accept().await.expect("a connection can be accepted");
        stream.set_nodelay(true).expect("a socket has this option");
        let proxy = Arc::clone(&proxy);
        let service = service_fn(move |request| {
            let proxy = Arc::clone(&proxy);
            async move { Ok::<_, Infallible>(proxy.forward(request).await) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

impl Proxy {
    async fn forward(&self, mut request: Request<Incoming>) -> Response<Answer> {
        let tenant = request.headers().get(X_TENANT_ID).and_then(|value| value.to_str().ok());
        let Some(schema) = tenant.and_then(|tenant| self.schemas.get(tenant)).cloned() else {
            return refuse(StatusCode::NOT_FOUND);
        };
        request.headers_mut().insert(X_TENANT_SCHEMA, schema);
        request.headers_mut().remove(CONNECTION);
        request.headers_mut().remove(HOST);
        let path = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let target =
            Uri::builder().scheme(Scheme::HTTP).authority(self.upstream.clone()).path_and_query(path);
        *request.uri_mut() = target.build().expect("its parts are whole");
        match self.client.request(request).await {
            Ok(mut response) => {
                response.headers_mut().remove(CONNECTION);
                response.map(Either::Left)
            }
            Err(_) => refuse(StatusCode::BAD_GATEWAY),
        }
    }
}

fn refuse(status: StatusCode) -> Response<Answer> {
    let mut response = Response::new(Either::Right(Empty::new()));
    *response.status_mut() = status;
    response
}
