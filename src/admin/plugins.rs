//! The plugins in force: which version serves, and how it fares.

use http::StatusCode;
use serde_json::{Value, json};

use super::Answer;
use super::answer::{Problem, document};
use super::call::Call;
use crate::plugin::LoadedPlugin;
use crate::reload::Reloader;
use crate::snapshot::Snapshot;

/// `GET /plugins`.
pub(super) async fn list(reloader: &Reloader) -> Answer {
    let snapshot = reloader.store().load();
    let plugins: Vec<Value> = snapshot.plugins().iter().map(|plugin| describe(plugin)).collect();
    Ok(document(&json!({ "plugins": plugins })))
}

/// `GET /plugins/{name}`.
pub(super) async fn show(reloader: &Reloader, call: Call<'_>) -> Answer {
    let snapshot = reloader.store().load();
    Ok(document(&describe(find(&snapshot, &call.name)?)))
}

fn find<'s>(snapshot: &'s Snapshot, name: &str) -> Result<&'s LoadedPlugin, Problem> {
    let found = snapshot.plugins().iter().find(|plugin| &**plugin.name() == name);
    found.map(|plugin| &**plugin).ok_or_else(|| {
        let names: Vec<&str> = snapshot.plugins().iter().map(|plugin| &**plugin.name()).collect();
        let known = if names.is_empty() { "none".to_owned() } else { format!("`{}`", names.join("`, `")) };
        let detail = format!("no plugin `{name}`; the policy has {known}");
        Problem::new(StatusCode::NOT_FOUND, detail)
    })
}

fn describe(plugin: &LoadedPlugin) -> Value {
    json!({
        "name": plugin.name(),
        "version": plugin.version(),
        "file": plugin.settings().path,
    })
}
