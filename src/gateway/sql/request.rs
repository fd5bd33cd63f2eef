//! What a request asks for: statements in its body, and in its headers how to run and to answer
//! them.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::parameter;
use crate::decision::RequestHead;
use crate::error::{Code, Refusal};
use crate::policy::SqlEndpoint;
use crate::sql::{Characteristics, IsolationLevel};

/// PostgreSQL counts a statement's parameters in 16 bits.
const MOST_PARAMETERS: usize = u16::MAX as usize;

const RAW_TEXT_OUTPUT: HeaderName = HeaderName::from_static("neon-raw-text-output");
const ARRAY_MODE: HeaderName = HeaderName::from_static("neon-array-mode");
const ISOLATION_LEVEL: HeaderName = HeaderName::from_static("neon-batch-isolation-level");
const READ_ONLY: HeaderName = HeaderName::from_static("neon-batch-read-only");
const DEFERRABLE: HeaderName = HeaderName::from_static("neon-batch-deferrable");

/// A body, read.
pub(super) struct Request {
    pub(super) statements: Vec<Written>,
    /// Whether it is a list, which is answered with a list.
    pub(super) is_batch: bool,
}

/// A statement as the client wrote it.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) query: String,
    pub(super) params: Vec<Option<String>>,
    pub(super) array_mode: Option<bool>,
}

/// What the headers say.
pub(super) struct Spoken {
    mode: Mode,
    batch: Characteristics,
}

/// How a row is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mode {
    /// Every value as PostgreSQL's text, where otherwise numbers and the like are JSON.
    pub(super) raw_text: bool,
    /// A row as an array, where otherwise it is an object.
    pub(super) arrays: bool,
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    query: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<Vec<&'a RawValue>>,
    #[serde(rename = "arrayMode")]
    array_mode: Option<bool>,
    #[serde(borrow)]
    queries: Option<Vec<Query<'a>>>,
}

#[derive(Deserialize)]
struct Query<'a> {
    #[serde(borrow)]
    query: Cow<'a, str>,
    #[serde(borrow)]
    params: Option<Vec<&'a RawValue>>,
    #[serde(rename = "arrayMode")]
    array_mode: Option<bool>,
}

impl Request {
    /// Reads a body, whatever its type is said to be: drivers say `text/plain`.
    pub(super) fn read(body: &[u8], endpoint: &SqlEndpoint) -> Result<Self, Refusal> {
        let document: Document<'_> = serde_json::from_slice(body).map_err(|error| {
            invalid(format!("the body must be `{{\"query\": …, \"params\": […]}}` as JSON: {error}"))
        })?;
        let (queries, is_batch) = match (document.query, document.queries) {
            (Some(query), None) => {
                (vec![Query { query, params: document.params, array_mode: document.array_mode }], false)
            }
            (None, Some(queries)) => (queries, true),
            _ => return Err(invalid("the body must have either `query` or `queries`".into())),
        };
        if queries.is_empty() {
            return Err(invalid("`queries` must not be empty".into()));
        }
        if queries.len() > endpoint.max_batch {
            return Err(invalid(format!(
                "a batch has at most {} statements, got {}: split it",
                endpoint.max_batch,
                queries.len()
            )));
        }
        let statements = queries.into_iter().map(Written::read).collect::<Result<_, _>>()?;
        Ok(Self { statements, is_batch })
    }
}

impl Written {
    fn read(query: Query<'_>) -> Result<Self, Refusal> {
        let params = query.params.unwrap_or_default();
        if params.len() > MOST_PARAMETERS {
            return Err(invalid(format!(
                "a statement has at most {MOST_PARAMETERS} parameters, got {}",
                params.len()
            )));
        }
        let params = params.into_iter().map(parameter::text).collect::<Result<_, _>>().map_err(invalid)?;
        Ok(Self { query: query.query.into_owned(), params, array_mode: query.array_mode })
    }
}

impl Spoken {
    pub(super) fn read(head: &RequestHead) -> Result<Self, Refusal> {
        let headers = &head.headers;
        let mode = if headers.contains_key(RAW_TEXT_OUTPUT) || headers.contains_key(ARRAY_MODE) {
            Mode { raw_text: says_true(headers, &RAW_TEXT_OUTPUT), arrays: says_true(headers, &ARRAY_MODE) }
        } else {
            // The driver's `fetchOptions.headers` take the place of its own; it expects these still.
            Mode { raw_text: true, arrays: true }
        };
        let batch = Characteristics {
            isolation: headers.get(ISOLATION_LEVEL).map(isolation_level).transpose()?,
            read_only: says_true(headers, &READ_ONLY),
            deferrable: says_true(headers, &DEFERRABLE),
        };
        Ok(Self { mode, batch })
    }

    /// How a statement's rows are written.
    pub(super) fn mode(&self, arrays: Option<bool>) -> Mode {
        Mode { arrays: arrays.unwrap_or(self.mode.arrays), ..self.mode }
    }

    /// How the transaction runs: the headers are for batches, the endpoint's word for all.
    pub(super) fn characteristics(
        &self,
        endpoint: &SqlEndpoint,
        is_batch: bool,
    ) -> Result<Characteristics, Refusal> {
        let asked = if is_batch { self.batch } else { Characteristics::default() };
        Ok(Characteristics { read_only: asked.read_only || endpoint.read_only, ..asked })
    }
}

/// Only exactly `true` counts.
fn says_true(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.get(name).is_some_and(|value| value == "true")
}

fn isolation_level(value: &http::HeaderValue) -> Result<IsolationLevel, Refusal> {
    match value.as_bytes() {
        b"ReadUncommitted" => Ok(IsolationLevel::ReadUncommitted),
        b"ReadCommitted" => Ok(IsolationLevel::ReadCommitted),
        b"RepeatableRead" => Ok(IsolationLevel::RepeatableRead),
        b"Serializable" => Ok(IsolationLevel::Serializable),
        _ => Err(invalid(
            "`Neon-Batch-Isolation-Level` must be `ReadUncommitted`, `ReadCommitted`, `RepeatableRead` or \
             `Serializable`"
                .into(),
        )),
    }
}

fn invalid(detail: String) -> Refusal {
    Refusal::new(Code::RequestInvalid, detail)
}
