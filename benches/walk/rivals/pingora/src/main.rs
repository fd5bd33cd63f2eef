//! The least proxy that Pingora allows, doing the same map look-up.

use std::collections::HashMap;

use async_trait::async_trait;
use pingora::http::RequestHeader;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

struct Gateway {
    upstream: String,
    schemas: HashMap<String, String>,
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Option<String>;

    fn new_ctx(&self) -> Self::CTX {
        None
    }

    async fn request_filter(&self, session: &mut Session, schema: &mut Self::CTX) -> Result<bool> {
        let tenant = session.req_header().headers.get("x-tenant-id").and_then(|value| value.to_str().ok());
        *schema = tenant.and_then(|tenant| self.schemas.get(tenant)).cloned();
        match schema {
            Some(_) => Ok(false),
            None => Err(Error::new(ErrorType::HTTPStatus(404))),
        }
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut Self::CTX) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream.as_str(), false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        request: &mut RequestHeader,
        schema: &mut Self::CTX,
    ) -> Result<()> {
        request.insert_header("x-tenant-schema", schema.as_deref().unwrap_or_default())
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("port, upstream, number of tenants");
    let (port, upstream, count) = (next(), next(), next().parse::<usize>().expect("a number"));
    let schemas = (0..count).map(|index| (format!("t-{index:04}"), format!("schema_{index:04}"))).collect();
    let conf = ServerConf { threads: 1, upstream_keepalive_pool_size: 256, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut proxy = http_proxy_service(&server.configuration, Gateway { upstream, schemas });
    proxy.add_tcp(&format!("127.0.0.1:{port}"));
    server.add_service(proxy);
    server.run_forever();
}
