//! The sql target: runs statements that clients write, over the protocol of Neon's serverless driver.

mod answer;
mod client;
mod parameter;
mod request;
mod stream;
mod value;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};

use super::ndjson;
use crate::body::Body;
use crate::decision::RequestHead;
use crate::error::{Code, Refusal};
use crate::snapshot::{Caller, Snapshot, Sql};
use crate::sql::{Batch, ClientStatement, Scope};

pub(super) use client::Client;
use request::{Request, Spoken};

/// Runs the request's statements on behalf of the caller.
pub(super) async fn run(
    target: &Sql,
    caller: &Caller,
    snapshot: &Snapshot,
    head: &RequestHead,
    body: Body,
    request_id: &str,
) -> Result<Response<Body>, Refusal> {
    if head.method != Method::POST {
        return Err(Refusal::new(Code::RequestInvalid, "statements are sent with POST")
            .with_status(StatusCode::METHOD_NOT_ALLOWED));
    }
    let Caller::Tenant { admitted, .. } = caller else {
        return Err(Refusal::new(Code::InternalError, "the request cannot be served")
            .because("a sql route must have a tenant: the policy parser refuses all others"));
    };
    let endpoint = &target.endpoint;
    let home = admitted.tenant().database.as_deref();
    let database = snapshot.database(home.unwrap_or(&endpoint.database.name))?;
    let scope = Scope::of(admitted, database.settings())?;

    let spoken = Spoken::read(head)?;
    let bytes = body.read_whole(endpoint.max_request).await.map_err(|error| error.refusal())?;
    let request = Request::read(&bytes, endpoint)?;
    let mut statements = Vec::with_capacity(request.statements.len());
    let mut modes = Vec::with_capacity(request.statements.len());
    for written in request.statements {
        let vetted = target.guard.vet(&written.query, &scope)?;
        statements.push(ClientStatement { vetted, parameters: written.params });
        modes.push(spoken.mode(written.array_mode));
    }
    let batch = Batch {
        statements,
        characteristics: spoken.characteristics(endpoint, request.is_batch)?,
        timeout: endpoint.timeout,
        max_answer: endpoint.max_response,
    };
    if ndjson::accepted(&head.headers) {
        if request.is_batch {
            return Err(Refusal::new(
                Code::RequestInvalid,
                "a batch cannot be streamed: send its statements one by one, or accept `application/json`",
            ));
        }
        let rows = database.start(scope, &batch).await?;
        return Ok(ndjson::response(stream::lines(rows, modes[0]).await?, request_id));
    }
    let results = database.execute(&scope, &batch).await?;
    let text =
        if request.is_batch { answer::batch(&results, &modes) } else { answer::single(&results, &modes) };
    Ok(respond(text))
}

fn respond(text: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Rows of one tenant must not be kept by a cache that another tenant shares.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    response
}
