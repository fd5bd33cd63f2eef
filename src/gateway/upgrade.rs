//! Which wish to leave HTTP is granted: a route says what it lets through.

use http::StatusCode;

use crate::error::{Code, Refusal};
use crate::snapshot::Target;
use crate::upgrade::{Switch, Wish};

/// What the upstream is to be asked, if the route allows it.
///
/// # Errors
/// `request-invalid` where the request is nothing but its wish, and that is not granted.
pub(super) fn grant(wish: Option<Wish>, target: &Target) -> Result<Option<Switch>, Refusal> {
    let Some(wish) = wish else { return Ok(None) };
    let granted = match target {
        Target::Forward(forward) => wish.grant(&forward.upgrade),
        Target::Query(_) | Target::Sql(_) => None,
    };
    if granted.is_none() && wish.is_binding() {
        // As RFC 9220, section 3, has it for a protocol that is not supported.
        return Err(Refusal::new(
            Code::RequestInvalid,
            "this route does not offer the protocol of `:protocol`",
        )
        .with_status(StatusCode::NOT_IMPLEMENTED));
    }
    Ok(granted)
}
