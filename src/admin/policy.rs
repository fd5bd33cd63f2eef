//! The policy in force, and looking at its files now.

use http::StatusCode;
use serde_json::json;

use super::Answer;
use super::answer::{document, text, timestamp};
use crate::reload::{Reloader, Trigger};

/// `GET /policy`.
pub(super) async fn show(reloader: &Reloader) -> Answer {
    let snapshot = reloader.store().load();
    let policy = snapshot.policy();
    let last = reloader.last_attempt();
    let live = reloader.store().live();
    Ok(document(&json!({
        "file": reloader.path(),
        "generation": snapshot.generation(),
        "hash": policy.hash,
        "loaded_at": timestamp(snapshot.loaded_at()),
        "last_attempt": { "at": timestamp(last.at), "error": last.error },
        "live_generations": { "count": live.count, "oldest_seconds": live.oldest.as_secs_f64() },
        "routes": policy.routes.iter().map(|route| &route.name).collect::<Vec<_>>(),
        "upstreams": policy.upstreams.keys().collect::<Vec<_>>(),
        "databases": policy.databases.keys().collect::<Vec<_>>(),
        "plugins": snapshot.plugins().iter().map(|plugin| {
            json!({ "name": plugin.name(), "version": plugin.version() })
        }).collect::<Vec<_>>(),
        "tests": policy.tests.len(),
    })))
}

/// `POST /reload`.
pub(super) async fn reload(trigger: &Trigger) -> Answer {
    trigger.reload();
    Ok(text(StatusCode::ACCEPTED, "reloading; /policy tells what came of it\n".into()))
}
