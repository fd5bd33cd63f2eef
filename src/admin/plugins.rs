//! The plugins in force: which version serves, how it fares, and going back to an earlier one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::Answer;
use super::answer::{Problem, document, timestamp};
use super::call::Call;
use crate::plugin::{BreakerState, LastFailure, LoadedPlugin, Tally};
use crate::policy::Instances;
use crate::reload::Reloader;
use crate::snapshot::{ActivePlugin, Builder, HeldBack, Replacement, Served, Snapshot};
use crate::telemetry::{Metrics, PluginLabel};

/// What an operator must know of a version that serves in place of the file's.
const OVERRIDES_FILE: &str = "this version serves until the plugin's file or its entry in the policy changes, \
    the rollback is ended, or the process restarts";

/// `GET /plugins`.
pub(super) async fn list(reloader: &Reloader) -> Answer {
    let snapshot = reloader.store().load();
    let builder = reloader.builder();
    let plugins: Vec<Value> = snapshot.plugins().iter().map(|plugin| describe(plugin, builder)).collect();
    let live = builder.live_versions();
    Ok(document(&json!({
        "plugins": plugins,
        "live_versions": { "count": live.count, "oldest_seconds": live.oldest.as_secs_f64() },
    })))
}

/// `GET /plugins/{name}`.
pub(super) async fn show(reloader: &Reloader, call: Call<'_>) -> Answer {
    let snapshot = reloader.store().load();
    Ok(document(&describe(find(&snapshot, &call.name)?, reloader.builder())))
}

/// `POST /plugins/{name}/rollback`.
pub(super) async fn roll_back(reloader: &Reloader, call: Call<'_>) -> Answer {
    replace(reloader, &call.name, &Replacement::RollBack(call.parameter("version"))).await
}

/// `DELETE /plugins/{name}/rollback`.
pub(super) async fn follow(reloader: &Reloader, call: Call<'_>) -> Answer {
    replace(reloader, &call.name, &Replacement::Follow).await
}

/// Gauges that are measured when somebody looks.
pub(super) fn measure(reloader: &Reloader, metrics: &Metrics) {
    let live = reloader.builder().live_versions();
    metrics.live_plugin_versions.set(i64::try_from(live.count).unwrap_or(i64::MAX));
    metrics.oldest_plugin_version_age.set(live.oldest.as_secs_f64());
    // A plugin that left the policy leaves the metrics too.
    metrics.plugin_breaker.clear();
    metrics.plugin_held_back.clear();
    for plugin in reloader.store().load().plugins() {
        let label = PluginLabel { plugin: Arc::clone(plugin.name()) };
        let breaker = match plugin.active().breaker() {
            BreakerState::Closed { .. } => 0,
            BreakerState::Open { .. } => 1,
            BreakerState::HalfOpen => 2,
        };
        metrics.plugin_breaker.get_or_create(&label).set(breaker);
        let held_back = reloader.builder().held_back(plugin.name()).is_some();
        metrics.plugin_held_back.get_or_create(&label).set(held_back.into());
    }
}

/// Puts another version in force, and shows the plugin as it is then.
pub(super) async fn replace(reloader: &Reloader, name: &str, with: &Replacement) -> Answer {
    find(&reloader.store().load(), name)?;
    let replaced = reloader.replace(name, with).await;
    replaced.map_err(|error| Problem::new(StatusCode::CONFLICT, error.to_string()))?;
    let snapshot = reloader.store().load();
    Ok(document(&describe(find(&snapshot, name)?, reloader.builder())))
}

/// The plugin of that name.
pub(super) fn find<'s>(snapshot: &'s Snapshot, name: &str) -> Result<&'s ActivePlugin, Problem> {
    snapshot.plugin(name).map(|plugin| &**plugin).ok_or_else(|| {
        let names: Vec<&str> = snapshot.plugins().iter().map(|plugin| &**plugin.name()).collect();
        let known = if names.is_empty() { "none".to_owned() } else { format!("`{}`", names.join("`, `")) };
        let detail = format!("no plugin `{name}`; the policy has {known}");
        Problem::new(StatusCode::NOT_FOUND, detail)
    })
}

/// Everything but the configuration and the table, which may hold secrets.
fn describe(plugin: &ActivePlugin, builder: &Builder) -> Value {
    let settings = plugin.settings();
    let history = builder.history(plugin.name());
    let last_failure = history
        .iter()
        .map(|served| (served.version(), &served.tally))
        .chain([(plugin.version(), plugin.active().tally())])
        .filter_map(|(version, tally)| Some((version, tally.last_failure()?)))
        .max_by_key(|(_, last)| last.at);
    json!({
        "name": plugin.name(),
        "file": settings.path,
        "file_version": plugin.file(),
        "bytes": history.iter().find(|served| served.version() == plugin.version()).map(Served::bytes),
        "instances": match settings.instances {
            Instances::PerRequest => "per-request",
            Instances::Reused => "reused",
        },
        "active": version(plugin.active()),
        "previous": plugin.previous().map(|previous| version(previous)),
        "overrides_file": plugin.overrides_file().then_some(OVERRIDES_FILE),
        "held_back": builder.held_back(plugin.name()).as_ref().map(held_back),
        "last_failure": last_failure.map(|(version, last)| failure(version, &last)),
        "history": history.iter().map(|served| json!({
            "version": served.version(),
            "bytes": served.bytes(),
            "since": timestamp(served.since),
            "active": served.version() == plugin.version(),
            "calls": calls(&served.tally),
            "last_failure": served.tally.last_failure().map(|last| failure(served.version(), &last)),
        })).collect::<Vec<_>>(),
    })
}

fn version(plugin: &LoadedPlugin) -> Value {
    let tally = plugin.tally();
    json!({
        "version": plugin.version(),
        "loaded_at": timestamp(plugin.loaded_at()),
        "starts_configured": plugin.starts_configured(),
        "calls": calls(tally),
        "total_us": micros(tally.total()),
        "longest_us": micros(tally.longest()),
        "breaker": breaker(plugin.breaker()),
    })
}

fn calls(tally: &Tally) -> Map<String, Value> {
    tally.calls().into_iter().map(|(outcome, count)| (outcome.to_owned(), count.into())).collect()
}

fn breaker(state: BreakerState) -> Value {
    let mut breaker = json!({ "state": state.as_str() });
    match state {
        BreakerState::Closed { failures } => breaker["failures_in_a_row"] = failures.into(),
        BreakerState::Open { remaining } => {
            breaker["tried_again_at"] = timestamp(SystemTime::now() + remaining).into();
        }
        BreakerState::HalfOpen => {}
    }
    breaker
}

fn failure(version: &str, last: &LastFailure) -> Value {
    json!({
        "version": version,
        "class": last.failure.class.as_str(),
        "message": last.failure.message,
        "at": timestamp(last.at),
    })
}

fn held_back(held: &HeldBack) -> Value {
    json!({ "version": held.version, "class": held.class, "message": held.message, "at": timestamp(held.at) })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
