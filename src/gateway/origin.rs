//! Who a request comes from: the connection's other end, or whom a trusted hop tells.

use http::HeaderMap;

use super::sanitise::{self, Authority};
use crate::address::Peer;
use crate::error::Refusal;
use crate::forward::forwarded;
use crate::handler::Connection;
use crate::policy::Server;

/// Where a request comes from, and what for.
pub(super) struct Origin {
    /// The client.
    pub(super) client: Peer,
    /// Trusted hops between it and us, its own side first.
    pub(super) hops: Vec<Peer>,
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
    let (client, scheme) = (connection.peer, connection.scheme);
    if !forwarded::is_trusted(&client, &server.trusted_proxies) {
        return Ok(Origin { client, hops: Vec::new(), scheme, authority: asked });
    }
    let told = forwarded::origin(headers, client, &server.trusted_proxies)?;
    let authority = match told.host {
        // Hosts decide tenants: only whoever says so lets a hop name one besides `Host`.
        Some(host) if server.forwarded_host => sanitise::parse(&host)?,
        _ => asked,
    };
    Ok(Origin { client: told.client, hops: told.hops, scheme: told.scheme.unwrap_or(scheme), authority })
}
