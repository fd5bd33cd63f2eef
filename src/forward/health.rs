//! Active health checks: every endpoint is asked now and then whether it is well.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;
use http::header::{HOST, HeaderValue, USER_AGENT};
use http::{Request, StatusCode, Uri, Version, uri};

use super::connect::Sender;
use super::endpoint::Endpoint;
use super::endpoints::Endpoints;
use super::outgoing::Outgoing;
use crate::error;
use crate::policy::Health;

/// How many answers in a row were alike.
#[derive(Default, Clone, Copy)]
struct Row {
    good: u32,
    bad: u32,
}

/// Checks every endpoint that there is, for as long as the upstream is in force. An endpoint is
/// well until it has failed as often as the rules say.
pub(super) async fn watch(endpoints: Arc<Endpoints>, rules: Health) {
    let mut rows: HashMap<Arc<str>, Row> = HashMap::new();
    loop {
        let set = endpoints.get().await;
        let rules = &rules;
        let checks = set.iter().map(|endpoint| async move {
            let answer = tokio::time::timeout(rules.timeout, check(endpoint, rules)).await;
            let fault = match answer {
                Ok(Ok(status)) if rules.is_good(status) => None,
                Ok(Ok(status)) => Some(format!("status {}", status.as_u16())),
                Ok(Err(error)) => Some(error),
                Err(_) => Some(format!("no answer within {:?}", rules.timeout)),
            };
            (endpoint, fault)
        });
        let found = join_all(checks).await;
        // Endpoints that are gone are forgotten.
        rows = found
            .into_iter()
            .map(|(endpoint, fault)| {
                let row = rows.get(&endpoint.label).copied().unwrap_or_default();
                (Arc::clone(&endpoint.label), judge(endpoint, row, fault, rules))
            })
            .collect();
        tokio::time::sleep(rules.interval).await;
    }
}

fn judge(endpoint: &Endpoint, row: Row, fault: Option<String>, rules: &Health) -> Row {
    match fault {
        None => {
            let good = row.good.saturating_add(1);
            if good >= rules.healthy && !endpoint.passes_checks() {
                tracing::info!(endpoint = %endpoint, "the endpoint is well again");
                endpoint.set_passes_checks(true);
            }
            Row { good, bad: 0 }
        }
        Some(fault) => {
            let bad = row.bad.saturating_add(1);
            if bad >= rules.unhealthy && endpoint.passes_checks() {
                tracing::warn!(endpoint = %endpoint, "the endpoint is not well: {fault}");
                endpoint.set_passes_checks(false);
            }
            Row { good: 0, bad }
        }
    }
}

/// Asks over a connection of its own: one that is kept proves only that it was well before.
async fn check(endpoint: &Endpoint, rules: &Health) -> Result<StatusCode, String> {
    let connector = endpoint.pool.connector();
    let sender = connector.connect(&Arc::default()).await.map_err(|error| error.to_string())?;
    let authority = &connector.authority;
    let mut request = Request::new(Outgoing::empty());
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static("innkeeper-health"));
    let mut target = uri::Parts::default();
    target.path_and_query = Some(rules.path.clone());
    if let Sender::Http2(_) = sender {
        *request.version_mut() = Version::HTTP_2;
        let encrypted = connector.tls.is_some();
        target.scheme = Some(if encrypted { uri::Scheme::HTTPS } else { uri::Scheme::HTTP });
        target.authority = Some(authority.clone());
    } else {
        let host = HeaderValue::from_str(authority.as_str()).expect("an authority is a header value");
        headers.insert(HOST, host);
    }
    *request.uri_mut() = Uri::from_parts(target).expect("a path, or a path with scheme and authority");
    let response = match sender {
        Sender::Http1(mut sender) => sender.send_request(request).await,
        Sender::Http2(mut shared) => shared.requests.send_request(request).await,
    };
    let response = response.map_err(|error| error::in_full(&error))?;
    Ok(response.status())
}
