//! What is logged: shown, and changed for a while.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use super::Answer;
use super::answer::{Problem, document, timestamp};
use super::call::Call;
use crate::log_filter::LogFilter;

/// How long a change holds where nobody says: a debug log that is forgotten fills a disk.
const USUAL_TIME: Duration = Duration::from_secs(600);
/// How long at most.
const MAX_TIME: Duration = Duration::from_secs(24 * 3600);

/// `GET /log`.
pub(super) async fn show(filter: Option<&Arc<LogFilter>>) -> Answer {
    let in_force = known(filter)?.in_force();
    Ok(document(&json!({
        "filter": in_force.filter,
        "until": in_force.until.map(timestamp),
        "usual": in_force.usual,
    })))
}

/// `PUT /log?filter=FILTER&for=TIME`.
pub(super) async fn change(filter: Option<&Arc<LogFilter>>, call: Call<'_>) -> Answer {
    let log = known(filter)?;
    let refused = |detail: String| Problem::new(StatusCode::BAD_REQUEST, detail);
    let wanted = call.parameter("filter").filter(|filter| !filter.is_empty());
    let wanted = wanted.ok_or_else(|| {
        refused("say what to log: `filter=debug`, or `filter=info,innkeeper::plugin=debug`".into())
    })?;
    let time = call.duration("for")?.unwrap_or(USUAL_TIME);
    if time > MAX_TIME {
        return Err(refused(format!("`for` is at most {}", humantime::format_duration(MAX_TIME))));
    }
    log.change(&wanted, time).map_err(refused)?;
    tracing::info!(filter = wanted, ?time, "the log's filter was changed");
    show(filter).await
}

/// `DELETE /log`.
pub(super) async fn revert(filter: Option<&Arc<LogFilter>>) -> Answer {
    known(filter)?.revert();
    show(filter).await
}

fn known(filter: Option<&Arc<LogFilter>>) -> Result<&Arc<LogFilter>, Problem> {
    let missing = "the log of this process belongs to the program that embeds it";
    filter.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, missing))
}
