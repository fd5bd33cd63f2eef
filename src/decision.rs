//! What a resolver says of a request, and what it may read to say it.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};

use crate::address::{ListenAddress, Peer};
use crate::client_certificate::ClientCertificate;
use crate::error::{Code, Refusal};
use crate::tenant::{Tenant, TenantId};

/// A request's head as the client sent it, before anything was stripped: what resolvers read.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// `http` or `https`, as the client reached us.
    pub scheme: &'static str,
    /// Host and port that the client asked for, as it wrote them: `Host`, or `:authority` under
    /// HTTP/2. Empty where an HTTP/1.0 request names none.
    pub authority: String,
    /// The host of the authority in lower case, without its port.
    pub host: String,
    /// The request target; its path is not empty and starts with `/`.
    pub uri: Uri,
    /// Every header, forgeable ones included.
    pub headers: HeaderMap,
    /// The client: the other end of the connection, or whom a trusted hop tells, then with port 0.
    pub peer: Peer,
    /// Trusted hops between the client and us, its own side first; empty where it connected itself.
    pub hops: Vec<Peer>,
    /// Our end of it: which listener took the request.
    pub local: ListenAddress,
    /// Whom the client proved to be in the TLS handshake, where it did.
    pub client_certificate: Option<Arc<ClientCertificate>>,
    /// The verified claims of its token as JSON, where the route verifies one.
    pub claims: Option<Arc<str>>,
}

/// A request that says nothing: `GET http://localhost/` from nobody.
impl Default for RequestHead {
    fn default() -> Self {
        Self {
            method: Method::GET,
            scheme: "http",
            authority: "localhost".into(),
            host: "localhost".into(),
            uri: Uri::from_static("/"),
            headers: HeaderMap::new(),
            // A documentation address (RFC 5737): no rule can mean it.
            peer: SocketAddr::from(([192, 0, 2, 1], 0)).into(),
            hops: Vec::new(),
            local: SocketAddr::from(([192, 0, 2, 2], 0)).into(),
            client_certificate: None,
            claims: None,
        }
    }
}

impl RequestHead {
    /// The value of a header that must not be there twice, in any spelling that a backend may fold
    /// into the same name (`X_Tenant_ID` beside `X-Tenant-ID`). An empty value counts as absent.
    ///
    /// # Errors
    /// `tenant-ambiguous` where it is there more than once, or is not text.
    pub fn header_once(&self, name: &HeaderName) -> Result<Option<&str>, Refusal> {
        let mut found: Option<&HeaderValue> = None;
        for (other, value) in &self.headers {
            if other != name && !folds_alike(other.as_str(), name.as_str()) {
                continue;
            }
            if found.is_some() {
                return Err(Refusal::new(
                    Code::TenantAmbiguous,
                    format!("the header `{name}` must be given once, in one spelling"),
                ));
            }
            if other == name {
                found = Some(value);
            } else {
                return Err(Refusal::new(
                    Code::TenantAmbiguous,
                    format!("the header `{other}` can be mistaken for `{name}`: send `{name}`"),
                ));
            }
        }
        let Some(value) = found else { return Ok(None) };
        let text = value.to_str().map_err(|_| {
            Refusal::new(Code::TenantAmbiguous, format!("the header `{name}` must be visible ASCII text"))
        })?;
        let text = text.trim();
        Ok((!text.is_empty()).then_some(text))
    }
}

/// The host of an authority in lower case, without its port.
pub fn host_of(authority: &str) -> String {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    host.to_ascii_lowercase()
}

/// Whether a backend that folds header names (CGI, WSGI and their kin turn `-` and other signs
/// into `_`) would take one name for the other.
pub fn folds_alike(one: &str, other: &str) -> bool {
    let fold = |byte: u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
    one.len() == other.len() && one.bytes().zip(other.bytes()).all(|(a, b)| fold(a) == fold(b))
}

/// What one resolver, or a plugin, decided.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// The request belongs to this tenant.
    Place(Placement),
    /// This resolver cannot tell; the next one may.
    Next,
    /// The request is to be refused.
    Deny(Denial),
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// The tenant that the resolver named. Only the directory knows whether it exists.
    pub tenant: TenantId,
    /// Headers that a plugin adds to the forwarded request; none of ours among them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The upstream that a plugin chose in place of the route's own.
    pub upstream: Option<String>,
    /// Why, in the plugin's words: for the access record and `explain`, never for the client.
    pub reason: Option<String>,
}

impl From<TenantId> for Placement {
    fn from(tenant: TenantId) -> Self {
        Self { tenant, headers: Vec::new(), upstream: None, reason: None }
    }
}

/// A plugin's refusal, already held to what a client may be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Denial {
    /// A 4xx or 5xx status.
    pub status: StatusCode,
    /// The plugin's own machine-readable code.
    pub code: String,
    /// The plugin's own words for the client.
    pub message: String,
}

/// The directory cannot be read and nothing fresh enough is known.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct DirectoryUnavailable(pub Arc<str>);

/// A look-up under way.
pub type Lookup<'a> =
    Pin<Box<dyn Future<Output = Result<Option<Arc<Tenant>>, DirectoryUnavailable>> + Send + 'a>>;

/// Something that can look a tenant up. Plugins and the gateway ask through it, so that neither
/// has to know which directory the policy chose.
pub trait FindTenant: Send + Sync {
    /// Looks `id` up: a tenant, or `None` where there is surely none.
    fn find<'a>(&'a self, id: &'a TenantId) -> Lookup<'a>;

    /// Forgets what is remembered of `id`, so that the next look-up sees what is true by then.
    fn forget<'a>(&'a self, _id: &'a TenantId) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(std::future::ready(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &[(&str, &[u8])]) -> RequestHead {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        RequestHead { headers, ..RequestHead::default() }
    }

    #[test]
    fn a_header_that_decides_is_sent_once_in_one_spelling() {
        let name = HeaderName::from_static("x-tenant-id");
        assert_eq!(head(&[]).header_once(&name).unwrap(), None);
        assert_eq!(head(&[("X-Tenant-ID", b"a")]).header_once(&name).unwrap(), Some("a"));
        assert_eq!(head(&[("X-Tenant-ID", b" ")]).header_once(&name).unwrap(), None);
        for lines in [
            &[("X-Tenant-ID", &b"a"[..]), ("x-tenant-id", b"a")][..],
            &[("X-Tenant-ID", b"a"), ("X_Tenant_ID", b"a")],
            &[("X_TENANT.ID", b"a")],
            &[("X-Tenant-ID", b"\xff")],
        ] {
            let refusal = head(lines).header_once(&name).expect_err("ambiguous");
            assert_eq!(refusal.code(), Code::TenantAmbiguous);
        }
    }
}
