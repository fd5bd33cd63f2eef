//! The sql target: runs statements that clients write, over the protocol of Neon's serverless driver.

use http::Response;

use crate::body::Body;
use crate::decision::RequestHead;
use crate::error::{Code, Refusal};
use crate::policy::SqlEndpoint;
use crate::snapshot::{Caller, Snapshot};

/// Runs the request's statements on behalf of the caller.
pub(super) async fn run(
    _endpoint: &SqlEndpoint,
    _caller: &Caller,
    _snapshot: &Snapshot,
    _head: &RequestHead,
    _body: Body,
) -> Result<Response<Body>, Refusal> {
    Err(Refusal::new(Code::InternalError, "this branch does not run statements yet"))
}
