//! The requests that the check sends: for each tenant, over each route, honest and forged.

use std::net::SocketAddr;

use bytes::Bytes;
use http::request::Builder;
use http::{Method, Request, header};
use http_body_util::Full;

use super::expected::Expected;
use crate::cli::demo::seed::{DemoTenant, SUSPENDED, TENANTS};

/// Body of the requests that are streamed to the old application, bytes.
const UPLOAD_BYTES: usize = 48 << 10;

/// A request and what must come back.
#[derive(Debug, Clone)]
pub(super) struct Case {
    /// Its kind: a line of the table.
    pub(super) kind: &'static str,
    /// The request.
    pub(super) request: Request<Full<Bytes>>,
    /// What must come back.
    pub(super) expected: Expected,
}

/// Every case, so ordered that neighbours belong to different tenants.
pub(super) fn cases(gateway: SocketAddr) -> Vec<Case> {
    let to = Gateway(gateway);
    let mut by_tenant: Vec<Vec<Case>> = TENANTS.iter().map(|tenant| to.tenant(tenant)).collect();
    by_tenant.push(to.nobody());
    let longest = by_tenant.iter().map(Vec::len).max().unwrap_or(0);
    (0..longest).flat_map(|row| by_tenant.iter().filter_map(move |column| column.get(row))).cloned().collect()
}

struct Gateway(SocketAddr);

impl Gateway {
    fn tenant(&self, tenant: &'static DemoTenant) -> Vec<Case> {
        let &DemoTenant { id, host, key, buildings, .. } = tenant;
        let other = TENANTS.iter().find(|other| other.id != id).expect("the demo has several tenants");
        vec![
            case(
                "query, header",
                self.get("/api/buildings").header("X-Tenant-ID", id),
                Expected::Rows { tenant: id, rows: buildings },
            ),
            case(
                "query, plugin",
                self.get("/api/users").header("X-Api-Key", key),
                Expected::Rows { tenant: id, rows: 2 },
            ),
            case(
                "forward, host",
                self.get("/app/welcome").header(header::HOST, host),
                Expected::Told { tenant, received_bytes: 0 },
            ),
            case(
                "forward, plugin",
                self.get("/app/welcome").header("X-Api-Key", key),
                Expected::Told { tenant, received_bytes: 0 },
            ),
            case(
                "query, parameter",
                self.get("/api/buildings?limit=2&q=%25house%25").header("X-Tenant-ID", id),
                Expected::Rows { tenant: id, rows: 2 },
            ),
            case(
                "query, one row",
                self.get("/api/buildings/2").header("X-Tenant-ID", id),
                Expected::Row { tenant: id },
            ),
            case(
                "key that moves",
                self.get("/api/users").header("X-Api-Key", "k-moving"),
                Expected::OneEdition,
            ),
            case(
                "change",
                self.request(Method::POST, "/api/buildings/1/floors").header("X-Tenant-ID", id),
                Expected::Written { tenant: id },
            )
            .body(r#"{"name":"attic"}"#.into()),
            case(
                "forward, upload",
                self.request(Method::POST, "/app/upload").header(header::HOST, host),
                Expected::Told { tenant, received_bytes: UPLOAD_BYTES },
            )
            .body(vec![b'.'; UPLOAD_BYTES].into()),
            case(
                "query, two witnesses",
                self.get("/api/floors").header("X-Tenant-ID", id).header(header::HOST, host),
                Expected::Rows { tenant: id, rows: 6 },
            ),
            case(
                "log-in, no tenant",
                self.get(&format!("/log-in?email=ada@{id}.example")),
                Expected::Found { tenant: id },
            ),
            case(
                "forged headers",
                self.get("/app/welcome")
                    .header(header::HOST, host)
                    .header("X-Tenant-ID", other.id)
                    .header("X_Tenant_ID", other.id)
                    .header("x-tenant-id", other.id)
                    .header("X-Tenant-Schema", other.schema)
                    .header("X-Tenant_Schema", other.schema),
                Expected::Told { tenant, received_bytes: 0 },
            ),
            case(
                "forged headers",
                self.get("/health").header("X-Tenant-ID", id).header("X_Tenant_Schema", tenant.schema),
                Expected::Untold,
            ),
            case(
                "refused",
                self.get("/api/floors").header("X-Tenant-ID", other.id).header(header::HOST, host),
                Expected::Refused { status: 400, code: "tenant-ambiguous" },
            ),
            case(
                "refused",
                self.get("/api/buildings").header("X-Tenant-ID", id).header("X-Tenant-ID", other.id),
                Expected::Refused { status: 400, code: "tenant-ambiguous" },
            ),
            case(
                "refused",
                self.get("/api/buildings?limit=501").header("X-Tenant-ID", id),
                Expected::Refused { status: 400, code: "query-parameter" },
            ),
        ]
    }

    fn nobody(&self) -> Vec<Case> {
        let refused = |request, status, code| case("refused", request, Expected::Refused { status, code });
        vec![
            refused(self.get("/api/buildings"), 400, "tenant-missing"),
            refused(self.get("/api/users").header("X-Api-Key", "k-nobody"), 400, "tenant-missing"),
            refused(self.get("/api/buildings").header("X-Tenant-ID", "hooli"), 404, "tenant-unknown"),
            refused(self.get("/api/buildings").header("X-Tenant-ID", SUSPENDED), 403, "tenant-suspended"),
            refused(self.get("/app/welcome").header(header::HOST, "hooli.demo.test"), 404, "tenant-unknown"),
            refused(self.get("/nowhere"), 404, "route-not-found"),
            // A header that names a tenant does not make one for a route that asks the plugin.
            refused(self.get("/api/users").header("X-Tenant-ID", "acme"), 400, "tenant-missing"),
        ]
    }

    fn get(&self, path: &str) -> Builder {
        self.request(Method::GET, path)
    }

    fn request(&self, method: Method, path: &str) -> Builder {
        Request::builder().method(method).uri(format!("http://{}{path}", self.0))
    }
}

fn case(kind: &'static str, request: Builder, expected: Expected) -> Case {
    let request = request.body(Full::default()).expect("the demo's requests are well-formed");
    Case { kind, request, expected }
}

impl Case {
    fn body(mut self, body: Bytes) -> Self {
        let json = body.starts_with(b"{");
        *self.request.body_mut() = Full::new(body);
        if json {
            let value = header::HeaderValue::from_static("application/json");
            self.request.headers_mut().insert(header::CONTENT_TYPE, value);
        }
        self
    }
}
