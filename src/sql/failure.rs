//! What a failure means for the client and the operator: SQLSTATE to refusal.

use std::fmt::Display;
use std::time::Duration;

use http::StatusCode;

use super::pool::NotOpened;
use super::scope::Scope;
use super::wire::WireError;
use crate::error::{Blame, Code, Refusal};
use crate::tenant::RoleName;

/// PostgreSQL's `query_canceled`: a timeout, since nobody else cancels our statements.
const QUERY_CANCELED: &str = "57014";

/// What a client is told to wait where the database is away: a restart takes about this long.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Whether the connection is gone, or must go because of what it answered. Another connection
/// may do better.
pub(super) fn is_lost(error: &WireError) -> bool {
    error.is_lost() || is_stale(error)
}

/// Whether what is prepared on the connection is of no more use, so that the statement was not
/// begun: a new connection prepares anew.
pub(super) fn is_stale(error: &WireError) -> bool {
    match error {
        // Someone deallocated what we prepared, or the plan is for a table that has changed since.
        WireError::Database(error) => {
            // What a tenant's own function raises comes with where it did.
            let state = if error.is_raised_inside() { "" } else { error.state() };
            state == "26000" || (state == "0A000" && error.message().contains("cached plan"))
        }
        _ => false,
    }
}

/// The refusal where a tenant has more requests waiting than it may.
pub(super) fn tenant_limited(queue: u32) -> Refusal {
    Refusal::new(
        Code::TenantLimited,
        "too many of this tenant's requests wait for the database; send fewer at once, and this one again shortly",
    )
    .retry_after(RETRY_AFTER)
    .because(format!("{queue} requests of the tenant wait already (`pool.per_tenant.queue`)"))
}

/// The refusal where all connections stayed in use.
pub(super) fn pool_busy(connections: u32) -> Refusal {
    no_connection().because(format!(
        "all {connections} connections of the pool stayed busy; raise `max_connections`, or look for slow queries"
    ))
}

/// The refusal where a tenant's own requests stayed in its way.
pub(super) fn tenant_busy(connections: u32) -> Refusal {
    no_connection().because(format!(
        "all {connections} connections that the tenant may use stayed busy; raise `pool.per_tenant.connections` or \
         its own `limits.connections`, or look for its slow queries"
    ))
}

/// The refusal where the server said nothing while it was connected to.
pub(super) fn no_answer() -> Refusal {
    no_connection().because("the server did not accept a connection within `acquire_timeout`")
}

/// Why there is no connection, by the server's SQLSTATE if it came to one. `refused` says that
/// nobody listens, as while the server starts.
pub(super) fn not_opened(
    state: Option<&str>,
    refused: bool,
    cause: &str,
    login: Option<&RoleName>,
) -> NotOpened {
    // Too many connections, or not ready to take one.
    let passes = refused || matches!(state, Some("53300" | "57P03"));
    let class = state.and_then(|state| state.get(..2));
    let refusal = match login {
        Some(role) => no_connection().because(format!("connecting as the role `{}`: {cause}", role.as_str())),
        None => no_connection().because(format!("connecting: {cause}")),
    };
    // No such role, a wrong password, no right to log in or to connect: whoever set it up can mend it.
    let refusal = match class {
        Some("28" | "3D" | "42") => refusal.blamed_on(Blame::Policy),
        _ => refusal,
    };
    NotOpened { refusal, passes }
}

fn no_connection() -> Refusal {
    unavailable("no database connection could be had in time; send the request again shortly")
}

/// The refusal where PostgreSQL would not let the scope be set. No statement has run.
pub(super) fn not_scoped(error: &WireError) -> Refusal {
    if is_lost(error) {
        return unavailable("the database went away; send the request again shortly")
            .because(format!("beginning a transaction: {}", in_full(error)));
    }
    // A setting of the session's own may end it, at the very start.
    if let Some(state) = error.state().filter(|state| *state == QUERY_CANCELED) {
        return by_sqlstate(state, false)
            .with_extension("sqlstate", state.to_owned())
            .because(format!("setting the scope: {}", in_full(error)));
    }
    not_set_up().because(format!("setting the scope: {}", in_full(error)))
}

/// The refusal where a scope's own schema is passed over. Nothing of the result is returned.
pub(super) fn no_home(scope: &Scope) -> Refusal {
    let (home, role) = (scope.home().as_str(), scope.role().map_or("the database's user", RoleName::as_str));
    not_set_up().because(format!("the schema `{home}` does not exist, or `{role}` has no USAGE on it"))
}

/// The refusal where a tenant's place in the database is not what the directory says.
pub(super) fn not_set_up() -> Refusal {
    let detail = "this tenant's place in the database is not set up; ask whoever runs the service";
    Refusal::new(Code::InternalError, detail).blamed_on(Blame::Policy)
}

/// The refusal where a statement failed. `parameters` says whether the request gave values.
pub(super) fn failed(error: &WireError, parameters: bool) -> Refusal {
    match error.state() {
        Some(state) => by_sqlstate(state, parameters)
            .with_extension("sqlstate", state.to_owned())
            .because(in_full(error)),
        None => error.failed(),
    }
}

/// The refusal where a result is not what its statement was written to give.
pub(super) fn unreadable() -> Refusal {
    Refusal::new(Code::InternalError, "the query's result could not be read").blamed_on(Blame::Us).because(
        "the statement that is prepared on the connection is not the one that was sent to be prepared",
    )
}

pub(super) fn by_sqlstate(state: &str, parameters: bool) -> Refusal {
    let query = |status: StatusCode, detail: &'static str| {
        Refusal::new(Code::QueryFailed, detail).with_status(status)
    };
    let class = state.get(..2).unwrap_or_default();
    match (state, class) {
        (QUERY_CANCELED, _) => Refusal::new(
            Code::QueryTimeout,
            "the query ran longer than it may; ask for less, or try again later",
        ),
        ("22P02" | "22003" | "22007" | "22008" | "22P05" | "22021", _) if parameters => Refusal::new(
            Code::QueryParameter,
            "a parameter's value does not fit the query: it is out of range or of the wrong form",
        ),
        ("23503" | "23505" | "23P01", _) => {
            query(StatusCode::CONFLICT, "the change conflicts with what is stored")
        }
        ("40001" | "40P01" | "55P03", _) => {
            query(StatusCode::SERVICE_UNAVAILABLE, "the change met another one; send the request again")
                .blamed_on(Blame::Database)
                .retry_after(RETRY_AFTER)
        }
        ("25006", _) => {
            query(StatusCode::METHOD_NOT_ALLOWED, "the query may only read, and tried to change something")
                .blamed_on(Blame::Policy)
        }
        ("42501", _) | (_, "28" | "0P") => {
            query(StatusCode::FORBIDDEN, "the query may not touch what it asked for").blamed_on(Blame::Policy)
        }
        ("42883" | "42P01", _) => {
            query(StatusCode::NOT_FOUND, "the query asks for something that this tenant does not have")
                .blamed_on(Blame::Policy)
        }
        (_, "08" | "53") | ("57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "25P03", _) => {
            unavailable("the database went away; send the request again shortly")
        }
        (_, "58" | "XX" | "57" | "F0") => {
            query(StatusCode::INTERNAL_SERVER_ERROR, "the database failed").blamed_on(Blame::Database)
        }
        (_, "42" | "26" | "25" | "0A" | "3D" | "3F" | "2D" | "34" | "39" | "38" | "2F") => query(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the query itself is wrong; ask whoever runs the service",
        )
        .blamed_on(Blame::Policy),
        _ => query(StatusCode::BAD_REQUEST, "the database refused the query with these values"),
    }
}

/// The refusal where the scope did not hold. Nothing of the result is returned.
pub(super) fn breach(cause: &str) -> Refusal {
    Refusal::new(Code::IsolationBreach, "the query left its tenant and was stopped")
        .because(format!("the scope was not what it must be at the end of the statement: {cause}"))
}

/// The refusal where the connection broke while a change was being saved.
pub(super) fn in_doubt(error: &impl Display) -> Refusal {
    Refusal::new(
        Code::DatabaseUnavailable,
        "the connection broke while the change was being saved: it may or may not have been applied, look before \
         you send it again",
    )
    .because(format!("committing: {error}"))
}

/// The refusal where the server did not answer though its own time limit was over.
pub(super) fn silent() -> Refusal {
    Refusal::new(Code::QueryTimeout, "the query ran longer than it may; ask for less, or try again later")
        .because("the server did not answer within `statement_timeout` and a while after")
}

pub(super) fn unavailable(detail: &'static str) -> Refusal {
    Refusal::new(Code::DatabaseUnavailable, detail).retry_after(RETRY_AFTER)
}

fn in_full(error: &WireError) -> String {
    match error {
        WireError::Database(error) => error.in_full(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_has_its_code_status_and_blame() {
        for (state, code, status, blame) in [
            ("57014", Code::QueryTimeout, 504, Blame::Database),
            ("53300", Code::DatabaseUnavailable, 503, Blame::Database),
            ("57P01", Code::DatabaseUnavailable, 503, Blame::Database),
            ("22P02", Code::QueryParameter, 400, Blame::Client),
            ("23505", Code::QueryFailed, 409, Blame::Client),
            ("23514", Code::QueryFailed, 400, Blame::Client),
            ("25006", Code::QueryFailed, 405, Blame::Policy),
            ("42501", Code::QueryFailed, 403, Blame::Policy),
            ("42P01", Code::QueryFailed, 404, Blame::Policy),
            ("42601", Code::QueryFailed, 500, Blame::Policy),
            ("P0001", Code::QueryFailed, 400, Blame::Client),
            ("XX000", Code::QueryFailed, 500, Blame::Database),
        ] {
            let refusal = by_sqlstate(state, true);
            assert_eq!(
                (refusal.code(), refusal.status().as_u16(), refusal.blame()),
                (code, status, blame),
                "{state}"
            );
        }
        assert_eq!(by_sqlstate("22P02", false).code(), Code::QueryFailed);
    }
}
