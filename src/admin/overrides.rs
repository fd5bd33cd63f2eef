//! The overrides in force, and those that an operator gives for a while.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::Answer;
use super::answer::{Problem, document, timestamp};
use super::call::Call;
use crate::policy::Diagnostics;
use crate::reload::Reloader;
use crate::snapshot::InForce;

/// What `POST /overrides` takes.
pub(super) const GIVE: &str = "/overrides?tenant=ID&for=TIME&upstream=NAME&percent=N&header=NAME\
    &upstreams=NAME,NAME&choose=N&quarantine=NAME&refuse=true&hold=TIME&mirror=NAME&id=ID&reason=TEXT";

/// What an operator must know of an override that no file has.
const IN_MEMORY: &str = "kept in memory: it ends at `until`, when it is deleted, or with the process";

/// Keys whose value may be handed on as the text that it is.
const TEXTS: [&str; 9] =
    ["tenant", "upstream", "percent", "header", "quarantine", "hold", "mirror", "id", "reason"];

/// `GET /overrides`.
pub(super) async fn list(reloader: &Reloader) -> Answer {
    let (snapshot, now) = (reloader.store().load(), SystemTime::now());
    let overrides: Vec<Value> = snapshot.overrides().iter().map(|one| describe(one, now)).collect();
    Ok(document(&json!({ "overrides": overrides })))
}

/// `POST /overrides`.
pub(super) async fn give(reloader: &Reloader, call: Call<'_>) -> Answer {
    let written = written(&call)?;
    let given = reloader.add_override(&written.to_string()).await;
    let id = given.map_err(|findings| bad_request(explain(&findings)))?;
    tracing::warn!(id = &*id, "an operator gave an override: {written}");
    let (snapshot, now) = (reloader.store().load(), SystemTime::now());
    let given = snapshot.overrides().iter().find(|one| one.is_temporary() && one.rule().id == id);
    // Another operator may have deleted it again.
    Ok(document(&given.map_or(Value::Null, |one| describe(one, now))))
}

/// `DELETE /overrides/{id}`.
pub(super) async fn end(reloader: &Reloader, call: Call<'_>) -> Answer {
    if !reloader.end_override(&call.name).await {
        let detail = format!(
            "no override `{}` was given here; those of the policy end when they are taken out of it",
            call.name
        );
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    }
    tracing::warn!(id = call.name, "an operator ended an override");
    list(reloader).await
}

/// The override as the policy would have it written.
fn written(call: &Call<'_>) -> Result<Value, Problem> {
    let Some(time) = call.parameter("for") else {
        return Err(bad_request("say for how long: `for=1h`; what is to last belongs in the policy"));
    };
    let time: Duration = humantime::parse_duration(&time)
        .map_err(|_| bad_request(format!("`for={time}` is no time such as `10m` or `1h`")))?;
    let until = SystemTime::now().checked_add(time).filter(|_| !time.is_zero());
    let until = until.ok_or_else(|| bad_request("`for` must be longer than zero, and end some day"))?;
    let mut written = Map::new();
    written.insert("until".into(), timestamp(until).into());
    for key in TEXTS {
        written.extend(call.parameter(key).map(|text| (key.to_owned(), Value::from(text))));
    }
    if let Some(names) = call.parameter("upstreams") {
        written.insert("upstreams".into(), names.split(',').map(Value::from).collect());
    }
    for key in ["choose", "refuse"] {
        let value = call.parameter(key).map(|text| text.parse::<Value>().unwrap_or(Value::from(text)));
        written.extend(value.map(|value| (key.to_owned(), value)));
    }
    Ok(written.into())
}

fn describe(one: &InForce, now: SystemTime) -> Value {
    let rule = one.rule();
    json!({
        "id": rule.id,
        "tenant": rule.tenant.as_ref().map_or("*", |tenant| tenant.as_str()),
        "action": rule.action.to_string(),
        "if_unresolved": rule.if_unresolved.is_some(),
        "until": rule.until.map(timestamp),
        "in_force": rule.holds_at(now),
        "reason": rule.reason,
        "holding": one.holding(),
        "from": if one.is_temporary() { IN_MEMORY } else { "the policy" },
    })
}

fn explain(findings: &Diagnostics) -> String {
    let sentence = |one: &crate::policy::Diagnostic| match &one.help {
        Some(help) => format!("{}; {help}", one.message),
        None => one.message.clone(),
    };
    findings.iter().map(sentence).collect::<Vec<_>>().join(". ")
}

fn bad_request(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}
