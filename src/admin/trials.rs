//! Candidates on trial, and recordings of what a plugin decides.

use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::Answer;
use super::answer::{Problem, document, text, timestamp, yaml};
use super::call::Call;
use super::plugins::{find, replace};
use crate::body::Body;
use crate::plugin::{Keep, Recording, Trial, TrialState};
use crate::reload::Reloader;
use crate::snapshot::Replacement;

/// Cases that are recorded where nobody says how many.
const DEFAULT_COUNT: usize = 100;

/// Cases that can be recorded: nobody reads more, and each was a call more.
const MAX_COUNT: usize = 10_000;

/// Why a recording ended, or `recording`.
const STATE: HeaderName = HeaderName::from_static("x-recording-state");

/// Cases so far, and how many are wanted: `3/100`.
const CASES: HeaderName = HeaderName::from_static("x-recording-cases");

/// `GET /plugins/{name}/shadow`.
pub(super) async fn show(reloader: &Reloader, call: Call<'_>) -> Answer {
    let snapshot = reloader.store().load();
    let plugin = find(&snapshot, &call.name)?;
    let Some(rules) = &plugin.settings().shadow else {
        let detail = format!("the plugin `{}` has no `shadow` in the policy", call.name);
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    };
    let mut shown = json!({
        "name": plugin.name(),
        "active": plugin.version(),
        "file": rules.path,
        "sample": rules.sample,
        "promote_after": rules.promote_after,
        "drop_on_difference": rules.drop_on_difference,
    });
    match plugin.trial() {
        Some(trial) => describe(trial, &mut shown),
        None => shown["state"] = "serves".into(),
    }
    Ok(document(&shown))
}

/// `POST /plugins/{name}/promote`.
pub(super) async fn promote(reloader: &Reloader, call: Call<'_>) -> Answer {
    replace(reloader, &call.name, &Replacement::Promote).await
}

/// `POST /plugins/{name}/recording`.
pub(super) async fn record(reloader: &Reloader, call: Call<'_>) -> Answer {
    let snapshot = reloader.store().load();
    let plugin = find(&snapshot, &call.name)?;
    let count = match call.parameter("count").map(|count| count.parse()) {
        None => DEFAULT_COUNT,
        Some(Ok(count)) if (1..=MAX_COUNT).contains(&count) => count,
        Some(_) => {
            let detail = format!("`count` must be a number from 1 to {MAX_COUNT}");
            return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
        }
    };
    let keep = call.parameter("keep").unwrap_or_default();
    let keep: Keep = keep.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let recording = plugin.recorder().start(plugin.active(), count, keep);
    let mut response = recorded(&recording);
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// `GET /plugins/{name}/recording`.
pub(super) async fn download(reloader: &Reloader, call: Call<'_>) -> Answer {
    let snapshot = reloader.store().load();
    let recording = find(&snapshot, &call.name)?.recorder().recording();
    recording.map(|recording| recorded(&recording)).ok_or_else(|| nothing_recorded(&call.name))
}

/// `DELETE /plugins/{name}/recording`.
pub(super) async fn forget(reloader: &Reloader, call: Call<'_>) -> Answer {
    let snapshot = reloader.store().load();
    if find(&snapshot, &call.name)?.recorder().forget() {
        return Ok(text(StatusCode::OK, "stopped and forgotten\n".into()));
    }
    Err(nothing_recorded(&call.name))
}

fn describe(trial: &Trial, shown: &mut Value) {
    let (state, score) = (trial.state(), trial.score());
    shown["state"] = state.as_str().into();
    if let TrialState::Unfit(why) = state {
        shown["error"] = why.into();
    }
    shown["candidate"] = trial.source().as_ref().map_or(Value::Null, |version| (**version).into());
    if let Some(candidate) = trial.candidate() {
        shown["since"] = timestamp(candidate.loaded_at()).into();
    }
    shown["asked"] = (score.agreed + score.differed).into();
    shown["agreed"] = score.agreed.into();
    shown["differed"] = score.differed.into();
    shown["failed"] = score.failed.into();
    shown["dropped"] = score.dropped.into();
    shown["differences"] = json!(score.differences);
}

/// The file of cases, and in its head how far it is.
fn recorded(recording: &Recording) -> Response<Body> {
    let mut response = yaml(recording.to_string());
    let headers = response.headers_mut();
    headers.insert(STATE, HeaderValue::from_static(recording.ended().unwrap_or("recording")));
    let cases = format!("{}/{}", recording.count(), recording.wanted());
    headers.insert(CASES, cases.parse().expect("digits are a header value"));
    response
}

fn nothing_recorded(name: &str) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        format!("nothing is recorded of the plugin `{name}`: POST here starts"),
    )
}
