//! The sql target: runs statements that clients write, over the protocol of Neon's serverless driver.

mod answer;
mod client;
mod parameter;
mod request;
mod stream;
mod value;

use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};

use super::ndjson;
use crate::body::Body;
use crate::decision::RequestHead;
use crate::error::{Code, Refusal};
use crate::snapshot::{Caller, Snapshot, Sql};
use crate::sql::{Batch, ClientStatement, Guard, Scope};

pub(super) use client::Client;
use request::{Request, Spoken, Written};

/// Statements of this length in all, bytes, are read in about a millisecond. Longer ones would keep a
/// worker from other requests, and are read elsewhere.
const LONG: usize = 16 << 10;

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
    let modes: Vec<_> = request.statements.iter().map(|written| spoken.mode(written.array_mode)).collect();
    let batch = Batch {
        statements: vet(&target.guard, &scope, request.statements).await?,
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

/// Has the guard read the statements.
async fn vet(
    guard: &Arc<Guard>,
    scope: &Scope,
    statements: Vec<Written>,
) -> Result<Vec<ClientStatement>, Refusal> {
    let length: usize = statements.iter().map(|written| written.query.len()).sum();
    let (guard, scope) = (Arc::clone(guard), scope.clone());
    let vet = move || {
        let vetted = statements.into_iter().map(|written| {
            let vetted = guard.vet(&written.query, &scope)?;
            Ok(ClientStatement { vetted, parameters: written.params })
        });
        vetted.collect()
    };
    if length <= LONG {
        return vet();
    }
    #[expect(clippy::disallowed_methods, reason = "bounded by the guard's limits, and touches nothing else")]
    let vetted = tokio::task::spawn_blocking(vet).await;
    vetted.map_err(|panic| {
        Refusal::new(Code::InternalError, "the statement could not be read")
            .because(format!("reading a client's statement: {panic}"))
    })?
}

fn respond(text: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Rows of one tenant must not be kept by a cache that another tenant shares.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    response
}
