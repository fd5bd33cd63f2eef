//! The forward target: sends the request on, told its tenant in headers that no client can forge.

use std::sync::Arc;

use http::{HeaderValue, Request, Response};

use super::access::Record;
use super::{mirror, sanitise};
use crate::body::Body;
use crate::decision::RequestHead;
use crate::error::Refusal;
use crate::forward::Errand;
use crate::forward::headers::{self, Hop};
use crate::forward::rewrite::{self, Values};
use crate::identity::Subject;
use crate::snapshot::{Caller, Captures, Forward, Snapshot};
use crate::telemetry::Metrics;
use crate::trace::TRACEPARENT;
use crate::upgrade::Switch;

/// A request on its way out.
pub(super) struct Outbound {
    pub(super) head: Arc<RequestHead>,
    pub(super) body: Body,
    /// What the upstream is asked to switch to.
    pub(super) switch: Option<Switch>,
}

/// Forwards the request on behalf of the caller, and its response back, both streamed.
pub(super) async fn run(
    target: &Forward,
    captures: &Captures,
    caller: &Caller,
    snapshot: &Snapshot,
    outbound: Outbound,
    record: &mut Record,
    metrics: &Arc<Metrics>,
) -> Result<Response<Body>, Refusal> {
    let Outbound { head, body, switch } = outbound;
    let upstream = match caller {
        Caller::Tenant { placement, .. } => match &placement.upstream {
            Some(name) => snapshot.upstream(name)?,
            None => &target.upstream,
        },
        Caller::NoTenant => &target.upstream,
    };
    // Resolvers are done with the head, so its headers are ours to change without a copy; only a
    // plugin that still held it would cost one.
    let mut head = Arc::unwrap_or_clone(head);
    let mut rules = None;
    if let Some(rewrite) = &target.rewrite {
        let capture = |name: &str| captures.get(name);
        let values =
            Values { tenant: caller.tenant(), request_id: record.request_id().as_str(), capture: &capture };
        head.uri = rewrite::target(rewrite, &head.uri, values)?;
        // Put together, parts can read otherwise than each of them did.
        sanitise::inspect_path(head.uri.path())?;
        // Filled in now: what cannot be said must not be found out after the request was sent.
        let of_request = rewrite::fill(&rewrite.request_headers, values)?;
        rules = Some((&rewrite.host, of_request, rewrite::fill(&rewrite.response_headers, values)?));
    }
    let ticket = match (caller, target.ticket) {
        (Caller::Tenant { admitted, .. }, Some(lifetime)) => {
            Some(snapshot.tickets().issue(admitted, lifetime))
        }
        _ => None,
    };
    let assertion = assertion(target, caller, &head, record.request_id().as_str()).await;
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = head.uri;
    *request.headers_mut() = head.headers;
    let hop = Hop { scheme: head.scheme, authority: &head.authority, peer: head.peer, hops: &head.hops };
    let on_behalf = match caller {
        Caller::Tenant { admitted, placement, .. } => headers::Caller::Tenant {
            admitted,
            headers: &placement.headers,
            ticket: ticket.as_ref(),
            assertion: assertion.as_ref(),
        },
        Caller::NoTenant => headers::Caller::NoTenant,
    };
    headers::prepare(request.headers_mut(), hop, on_behalf, record.request_id());
    if let Some(trace) = record.traceparent() {
        request.headers_mut().insert(TRACEPARENT, trace);
    }
    let mut of_response = None;
    if let Some((host, of_request, later)) = rules {
        rewrite::host(host, request.headers_mut());
        of_request.apply(request.headers_mut());
        of_response = Some(later);
    }
    if switch.is_none() {
        mirror::copy(&request, caller, snapshot, metrics);
    }
    let tenant = caller.tenant().map(|tenant| tenant.id.as_str());
    let mut errand = Errand { switch, ..Errand::of(tenant) };
    let sent = upstream.send(request, &mut errand).await;
    record.sent(errand);
    let mut response = sent?;
    if let Some(rules) = of_response {
        rules.apply(response.headers_mut());
    }
    Ok(response)
}

/// Whose request it is, signed, where the route wants its backend to have that.
async fn assertion(
    target: &Forward,
    caller: &Caller,
    head: &RequestHead,
    request_id: &str,
) -> Option<HeaderValue> {
    let (Caller::Tenant { admitted, .. }, Some(asserter)) = (caller, &target.asserter) else { return None };
    let subject = Subject {
        id: request_id,
        method: &head.method,
        scheme: head.scheme,
        authority: &head.authority,
        path: head.uri.path(),
    };
    Some(asserter.assert(admitted, subject).await)
}
