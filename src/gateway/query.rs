//! The query target: fills a named query's parameters from the request and answers with JSON.

use std::borrow::Cow;
use std::str::Utf8Error;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::Value as Json;

use super::ndjson;
use crate::body::Body;
use crate::decision::RequestHead;
use crate::error::{Code, Refusal};
use crate::policy::{Param, ParamSource, Query, ResultShape};
use crate::snapshot::{Caller, Captures, Matched, Snapshot};
use crate::sql::{Answer, Given, Scope, read_value};

/// Runs the route's query on behalf of the caller.
pub(super) async fn run(
    query: &Query,
    matched: &Matched<'_>,
    caller: &Caller,
    snapshot: &Snapshot,
    head: &RequestHead,
    body: Body,
    request_id: &str,
) -> Result<Response<Body>, Refusal> {
    let home = match caller {
        Caller::Tenant { admitted, .. } => admitted.tenant().database.as_deref(),
        Caller::NoTenant => None,
    };
    let database = snapshot.database(home.unwrap_or(&query.database.name))?;
    let scope = match (caller, &query.declared_schema) {
        (Caller::Tenant { admitted, .. }, None) => Scope::of(admitted, database.settings())?,
        (Caller::NoTenant, Some(schema)) => Scope::declared(schema, database.settings()),
        // The policy parser refuses both; to guess here would be to pick a schema for somebody.
        (Caller::Tenant { .. }, Some(_)) | (Caller::NoTenant, None) => {
            return Err(Refusal::new(Code::InternalError, "the request cannot be served")
                .because("a query route must have a tenant or a schema of its own, and not both"));
        }
    };
    let limit = snapshot.policy().server.limits.query_body_bytes;
    let document = read_document(query, body, limit).await?;
    let mut values = Vec::with_capacity(query.params.len());
    for (index, param) in query.params.iter().enumerate() {
        values.push(read_value(param, index + 1, given(param, head, &matched.captures, &document)?)?);
    }
    let streams = query.result == ResultShape::Rows && query.statement.returns_rows();
    if streams && ndjson::accepted(&head.headers) {
        let rows = database.stream(scope, query, values).await?;
        return Ok(ndjson::response(rows, request_id));
    }
    let answer = database.run(&scope, query, values).await?;
    Ok(respond(answer))
}

/// The request's JSON body, where a parameter wants it.
async fn read_document(query: &Query, body: Body, limit: usize) -> Result<Json, Refusal> {
    if !query.params.iter().any(|param| matches!(param.source, ParamSource::Body(_))) {
        return Ok(Json::Null);
    }
    let bytes = body.read_whole(limit).await.map_err(|error| error.refusal())?;
    if bytes.is_empty() {
        return Ok(Json::Null);
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        Refusal::new(Code::RequestInvalid, format!("the body must be a JSON document: {error}"))
    })
}

/// What the request gives for a parameter.
fn given(param: &Param, head: &RequestHead, captures: &Captures, document: &Json) -> Result<Given, Refusal> {
    let twice = |what: String| Refusal::new(Code::QueryParameter, format!("{what} must be given once"));
    let text = match &param.source {
        ParamSource::Query(name) => {
            let query = head.uri.query().unwrap_or_default();
            let mut fields = query_values(query, name);
            let first = fields.next();
            if fields.next().is_some() {
                return Err(twice(format!("the query field `{name}`")));
            }
            first.transpose().map_err(|_| {
                Refusal::new(Code::QueryParameter, format!("the query field `{name}` must be UTF-8 text"))
            })?
        }
        ParamSource::Path(name) => captures.get(name).map(str::to_owned),
        ParamSource::Header(name) => {
            let mut values = head.headers.get_all(name).iter();
            let first = values.next();
            if values.next().is_some() {
                return Err(twice(format!("the header `{name}`")));
            }
            let text =
                first.map(|value| std::str::from_utf8(value.as_bytes()).map(str::to_owned)).transpose();
            text.map_err(|_| {
                Refusal::new(Code::QueryParameter, format!("the header `{name}` must be UTF-8 text"))
            })?
        }
        ParamSource::Body(name) => {
            let member = if name.is_empty() || name.starts_with('/') {
                document.pointer(name)
            } else {
                document.get(name)
            };
            return Ok(member.map_or(Given::Absent, |member| Given::Json(member.clone())));
        }
    };
    Ok(text.map_or(Given::Absent, Given::Text))
}

/// The values of a field of a query string (WHATWG URL, section 5.1), but that bytes which are not UTF-8
/// are an error, and not replaced.
fn query_values<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = Result<String, Utf8Error>> + 'a {
    let decoded = |part: &str| {
        let spaced = part.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8().map(Cow::into_owned)
    };
    let parts = query.split('&').map(|part| part.split_once('=').unwrap_or((part, "")));
    let named = parts.filter(move |(field, _)| decoded(field).is_ok_and(|field| field == name));
    named.map(move |(_, value)| decoded(value))
}

fn respond(answer: Answer) -> Response<Body> {
    let mut response = match answer {
        Answer::Json(text) => {
            let mut response = Response::new(Body::full(text));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Answer::Empty => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
    };
    // Rows of one tenant must not be kept by a cache that another tenant shares.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    response
}
