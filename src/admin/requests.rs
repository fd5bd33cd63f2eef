//! What is in flight, for how long, and ending it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::Answer;
use super::answer::{Problem, document, text};
use super::call::Call;
use crate::tenant::TenantId;
use crate::underway::{Progress, Underway};

/// Requests that are shown where nobody says how many: a page of a terminal, twice.
const USUAL_LIMIT: usize = 100;

/// `GET /requests`.
pub(super) async fn list(underway: &Underway, call: Call<'_>) -> Answer {
    let refused = |detail: String| Problem::new(StatusCode::BAD_REQUEST, detail);
    let tenant = call.parameter("tenant");
    let older_than = call.duration("older_than")?.unwrap_or_default();
    let limit = match call.parameter("limit") {
        Some(limit) => {
            limit.parse().map_err(|_| refused(format!("`limit` must be a number, got `{limit}`")))?
        }
        None => USUAL_LIMIT,
    };
    let mut found = underway.list();
    found.retain(|progress| {
        let of_tenant =
            tenant.as_deref().is_none_or(|id| progress.known().tenant.is_some_and(|is| is.as_str() == id));
        of_tenant && progress.started.elapsed() >= older_than
    });
    let count = found.len();
    found.truncate(limit);
    match call.parameter("format").as_deref() {
        None | Some("json") => {
            let requests: Vec<Value> = found.iter().map(|progress| describe(progress)).collect();
            Ok(document(&json!({ "count": count, "requests": requests })))
        }
        Some("text") => Ok(text(StatusCode::OK, table(&found, count))),
        Some(other) => Err(refused(format!("`format` is `json` or `text`, got `{other}`"))),
    }
}

/// `DELETE /requests/{id}`.
pub(super) async fn end(underway: &Underway, call: Call<'_>) -> Answer {
    let id = &call.name;
    let Some(progress) = underway.find(id) else {
        let detail = format!("no request in flight has the id `{id}`; GET /requests lists them");
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    };
    tracing::warn!(
        request_id = id,
        tenant = progress.known().tenant.as_ref().map(TenantId::as_str),
        "an operator ends a request"
    );
    progress.end();
    Ok(text(StatusCode::ACCEPTED, format!("ending {id}; it leaves /requests with its last byte\n")))
}

fn describe(progress: &Progress) -> Value {
    let known = progress.known();
    json!({
        "id": progress.id.as_str(),
        "seconds": progress.started.elapsed().as_secs_f64(),
        "phase": progress.phase().as_str(),
        "tenant": known.tenant.as_ref().map(TenantId::as_str),
        "route": known.route,
        "method": progress.method.as_str(),
        "path": progress.uri.path(),
        "peer": known.peer,
        "received_bytes": progress.received(),
        "sent_bytes": progress.sent(),
    })
}

fn table(found: &[Arc<Progress>], count: usize) -> String {
    let head = ["AGE", "PHASE", "TENANT", "ROUTE", "RECEIVED", "SENT", "REQUEST", "ID"].map(str::to_owned);
    let row = |progress: &Arc<Progress>| {
        // Whole milliseconds: nobody reads more of a request that goes on.
        let milliseconds = u64::try_from(progress.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let known = progress.known();
        let age = humantime::format_duration(Duration::from_millis(milliseconds));
        [
            age.to_string(),
            progress.phase().as_str().to_owned(),
            known.tenant.as_ref().map_or("-", TenantId::as_str).to_owned(),
            known.route.as_deref().unwrap_or("-").to_owned(),
            progress.received().to_string(),
            progress.sent().to_string(),
            format!("{} {}", progress.method, progress.uri.path()),
            progress.id.to_string(),
        ]
    };
    let rows: Vec<[String; 8]> = std::iter::once(head).chain(found.iter().map(row)).collect();
    let mut page = String::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            let _ = write!(page, "{cell:<width$}  ");
        }
        page.truncate(page.trim_end().len());
        page.push('\n');
    }
    let _ = writeln!(page, "{} of {count} requests", found.len());
    page
}
