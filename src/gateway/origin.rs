//! Who a request comes from: the connection's other end, or whom a trusted hop tells.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

use super::sanitise::{self, Authority};
use crate::error::Refusal;
use crate::forward::forwarded;
use crate::handler::Connection;
use crate::policy::Server;

/// Where a request comes from, and what for.
pub(super) struct Origin {
    /// The client. Its port is 0 where a hop told its address.
    pub(super) client: SocketAddr,
    /// Trusted hops between it and us, its own side first.
    pub(super) hops: Vec<IpAddr>,
    /// How it reached the first of them.
    pub(super) scheme: &'static str,
    /// What it asked for there.
    pub(super) authority: Authority,
}

/// Believes the hops that the policy trusts, and nobody else.
///
/// # Errors
/// `request-invalid` where what a trusted hop says cannot be read or contradicts itself.
pub(super) fn believe(
    headers: &HeaderMap,
    asked: Authority,
    connection: &Connection,
    server: &Server,
) -> Result<Origin, Refusal> {
    let peer = connection.peer.ip();
    if !forwarded::is_trusted(peer, &server.trusted_proxies) {
        let (client, scheme) = (connection.peer, connection.scheme);
        return Ok(Origin { client, hops: Vec::new(), scheme, authority: asked });
    }
    let told = forwarded::origin(headers, peer, &server.trusted_proxies)?;
    let client = match told.hops.is_empty() {
        true => connection.peer,
        false => SocketAddr::new(told.client, 0),
    };
    let authority = match told.host {
        // Hosts decide tenants: only whoever says so lets a hop name one besides `Host`.
        Some(host) if server.forwarded_host => sanitise::parse(&host)?,
        _ => asked,
    };
    Ok(Origin { client, hops: told.hops, scheme: told.scheme.unwrap_or(connection.scheme), authority })
}
