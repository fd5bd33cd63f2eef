//! Whether this process is to get requests, and how what it stands on fares.
//!
//! Only a drain takes it out of rotation. A database or an upstream that is away is away for every
//! replica alike: if each said so, a load balancer would take all of them out, and requests that
//! need nothing of it would fail too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::Answer;
use super::answer::{document, text};
use super::call::Call;
use crate::body::Body;
use crate::plugin::BreakerState;
use crate::policy::Certificate;
use crate::reload::Reloader;
use crate::snapshot::Snapshot;

/// How long a part may take to give a sign of life.
const PATIENCE: Duration = Duration::from_secs(2);

/// `GET /readyz`.
pub(super) async fn show(reloader: &Reloader, draining: bool, call: Call<'_>) -> Answer {
    if call.parameter("verbose").is_none() {
        return Ok(brief(draining));
    }
    let snapshot = reloader.store().load();
    let last = reloader.last_attempt();
    let mut checks = vec![
        check("accepting", draining.then(|| "it drains: what is under way is finished".to_owned())),
        check(
            "policy",
            last.error.map(|_| "the last reload was refused in whole or in part: see /policy".into()),
        ),
    ];
    checks.extend(certificates(&snapshot));
    checks.extend(plugins(reloader, &snapshot));
    checks.extend(databases(&snapshot).await);
    let mut response = document(&json!({
        "ready": !draining,
        "generation": snapshot.generation(),
        "checks": checks,
    }));
    *response.status_mut() = status(draining);
    Ok(response)
}

fn brief(draining: bool) -> Response<Body> {
    text(status(draining), if draining { "draining\n" } else { "ready\n" }.into())
}

fn status(draining: bool) -> StatusCode {
    if draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

/// Each certificate once, however many listeners have it.
fn certificates(snapshot: &Snapshot) -> Vec<Value> {
    let listeners = snapshot.policy().server.listen.iter();
    let certificates =
        listeners.filter_map(|listener| listener.tls.as_ref()).flat_map(|tls| &tls.certificates);
    let by_name: BTreeMap<_, _> = certificates.map(|one| (&*one.files().name, one)).collect();
    let told = |(name, certificate): (&str, &Arc<Certificate>)| {
        let trouble = if certificate.is_held_back() {
            Some("its files are held back, and the one before them serves: see /policy".to_owned())
        } else if !certificate.is_valid_at(SystemTime::now()) {
            Some("it has expired, or is not valid yet".to_owned())
        } else {
            None
        };
        check(&format!("certificate {name}"), trouble)
    };
    by_name.into_iter().map(told).collect()
}

fn plugins(reloader: &Reloader, snapshot: &Snapshot) -> Vec<Value> {
    let told = |name: &str, plugin: &crate::snapshot::ActivePlugin| {
        if matches!(plugin.active().breaker(), BreakerState::Open { .. }) {
            return Some("it fails, and is not asked for a while: see /plugins".to_owned());
        }
        let held_back = reloader.builder().held_back(name)?;
        Some(format!("its file is held back ({}): see /plugins", held_back.class))
    };
    let plugins = snapshot.plugins().iter();
    plugins.map(|plugin| check(&format!("plugin {}", plugin.name()), told(plugin.name(), plugin))).collect()
}

/// Asks each database, all at once.
async fn databases(snapshot: &Snapshot) -> Vec<Value> {
    let asking = snapshot.databases().iter().map(|database| async move {
        let trouble = match tokio::time::timeout(PATIENCE, database.ready()).await {
            Ok(Ok(())) => None,
            Ok(Err(refusal)) => Some(refusal.to_string()),
            Err(_) => Some(format!("no sign of life within {PATIENCE:?}")),
        };
        check(&format!("database {}", database.settings().name), trouble)
    });
    futures_util::future::join_all(asking).await
}

fn check(name: &str, trouble: Option<String>) -> Value {
    match trouble {
        None => json!({ "check": name, "ok": true }),
        Some(trouble) => json!({ "check": name, "ok": false, "trouble": trouble }),
    }
}
