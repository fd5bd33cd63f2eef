//! A response of JSON lines that are written as they come, and whose end tells whether all are there.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::json;

use super::problem;
use crate::body::{Body, BodyError};
use crate::error::Refusal;

const MEDIA_TYPE: &str = "application/x-ndjson";

/// How long the line that tells of an error has to get out, before the response is broken off
/// behind it: whatever is still in a buffer then goes with the connection.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Whether the client asks for lines.
pub(super) fn accepted(headers: &HeaderMap) -> bool {
    let listed = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    listed
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .any(|range| range.trim().eq_ignore_ascii_case(MEDIA_TYPE))
}

/// The response of `pieces`, which are lines. A refusal among them becomes the last line, and the
/// response is broken off: a client that overlooks the line finds that the end is missing.
pub(super) fn response(
    pieces: impl Stream<Item = Result<Bytes, Refusal>> + Send + 'static,
    request_id: &str,
) -> Response<Body> {
    let request_id = request_id.to_owned();
    let frames = pieces.flat_map(move |piece| match piece {
        Ok(piece) => stream::iter([Ok(Frame::data(piece))]).left_stream(),
        Err(refusal) => broken(&refusal, &request_id).right_stream(),
    });
    let mut response = Response::new(Body::stream(StreamBody::new(frames)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    // Rows of one tenant must not be kept by a cache that another tenant shares.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    response
}

fn broken(
    refusal: &Refusal,
    request_id: &str,
) -> impl Stream<Item = Result<Frame<Bytes>, BodyError>> + use<> {
    let (code, cause) = (refusal.code().as_str(), refusal.cause().unwrap_or_default());
    tracing::warn!(request_id, code, cause, "a response broke off: {}", refusal.detail());
    let mut line = json!({ "error": problem::document(refusal, request_id) }).to_string();
    line.push('\n');
    let end = async move {
        tokio::time::sleep(LAST_WORDS).await;
        Err(BodyError::AnswerBroken(code))
    };
    stream::iter([Ok(Frame::data(Bytes::from(line)))]).chain(stream::once(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_for_those_who_ask_for_them() {
        for (accept, expected) in [
            ("application/x-ndjson", true),
            ("application/json, Application/X-NDJSON;q=0.9", true),
            ("application/json", false),
            ("*/*", false),
            ("application/x-ndjson-more", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(accepted(&headers), expected, "{accept}");
        }
        assert!(!accepted(&HeaderMap::new()));
    }
}
