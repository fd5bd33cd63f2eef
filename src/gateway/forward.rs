//! The forward target: sends the request on, told its tenant in headers that no client can forge.

use std::sync::Arc;

use http::{Request, Response};

use super::access::Record;
use crate::body::Body;
use crate::decision::RequestHead;
use crate::error::Refusal;
use crate::forward::Errand;
use crate::forward::headers::{self, Hop};
use crate::snapshot::{Caller, Forward, Snapshot};
use crate::upgrade::Switch;

/// Forwards the request on behalf of the caller, and its response back, both streamed.
pub(super) async fn run(
    target: &Forward,
    caller: &Caller,
    snapshot: &Snapshot,
    head: Arc<RequestHead>,
    body: Body,
    switch: Option<Switch>,
    record: &mut Record,
) -> Result<Response<Body>, Refusal> {
    let upstream = match caller {
        Caller::Tenant { placement, .. } => match &placement.upstream {
            Some(name) => snapshot.upstream(name)?,
            None => &target.upstream,
        },
        Caller::NoTenant => &target.upstream,
    };
    // Resolvers are done with the head, so its headers are ours to change without a copy; only a
    // plugin that still held it would cost one.
    let head = Arc::unwrap_or_clone(head);
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = head.uri;
    *request.headers_mut() = head.headers;
    let hop = Hop { scheme: head.scheme, authority: &head.authority, peer: head.peer };
    let ticket = match (caller, target.ticket) {
        (Caller::Tenant { admitted, .. }, Some(lifetime)) => {
            Some(snapshot.tickets().issue(admitted, lifetime))
        }
        _ => None,
    };
    let on_behalf = match caller {
        Caller::Tenant { admitted, placement, .. } => {
            headers::Caller::Tenant { admitted, headers: &placement.headers, ticket: ticket.as_ref() }
        }
        Caller::NoTenant => headers::Caller::NoTenant,
    };
    headers::prepare(request.headers_mut(), hop, on_behalf, record.request_id());
    let tenant = match caller {
        Caller::Tenant { admitted, .. } => Some(admitted.tenant().id.as_str()),
        Caller::NoTenant => None,
    };
    let mut errand = Errand { switch, ..Errand::of(tenant) };
    let sent = upstream.send(request, &mut errand).await;
    record.sent(errand);
    let mut response = sent?;
    headers::clean_response(response.headers_mut());
    Ok(response)
}
