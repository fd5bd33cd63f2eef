//! Copies of requests for an upstream in the shadow: its answers reach nobody.

use std::sync::Arc;

use http::{Method, Request};

use crate::body::Body;
use crate::forward::Errand;
use crate::forward::headers::X_TENANT_TICKET;
use crate::snapshot::{Caller, Snapshot};
use crate::telemetry::{Metrics, ResultLabel};

/// Sends a copy of `request` elsewhere, if an override says so. Only of a request that reads and
/// has no body: a shadow must not act twice. It goes its own way, and no more than so many do at a
/// time: neither what becomes of it nor how long it takes touches the request itself.
pub(super) fn copy(request: &Request<Body>, caller: &Caller, snapshot: &Snapshot, metrics: &Arc<Metrics>) {
    let Caller::Tenant { ruling, .. } = caller else { return };
    let Some(mirror) = ruling.mirror() else { return };
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !reads || !http_body::Body::is_end_stream(request.body()) {
        return;
    }
    let count = |metrics: &Metrics, result| {
        metrics.mirrored.get_or_create(&ResultLabel { result }).inc();
    };
    let Some((upstream, permit)) = mirror.copy() else { return count(metrics, "dropped") };
    let Ok(upstream) = snapshot.upstream(upstream) else { return count(metrics, "failed") };
    let (upstream, metrics) = (Arc::clone(upstream), Arc::clone(metrics));
    let mut copy = Request::new(Body::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    // Whoever holds it may run statements as the tenant.
    copy.headers_mut().remove(X_TENANT_TICKET);
    tokio::spawn(async move {
        let _permit = permit;
        let result = if upstream.send(copy, &mut Errand::of(None)).await.is_ok() { "sent" } else { "failed" };
        count(&metrics, result);
    });
}
