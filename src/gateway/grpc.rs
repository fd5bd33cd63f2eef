//! A refusal as gRPC's clients read it: they look for a status of their own, in HTTP's trailers,
//! and take any other answer for a broken proxy.

use std::fmt::Write as _;

use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Request, Response, StatusCode, Version};

use crate::body::Body;
use crate::error::{Code, Refusal};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// When a client may retry, in milliseconds (gRPC's A6 proposal).
const GRPC_RETRY_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// gRPC's statuses, as far as a refusal can mean one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// Whether a client speaks gRPC: only over HTTP/2, and it says so.
pub(super) fn is_spoken<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_2
        && request.headers().get(CONTENT_TYPE).is_some_and(|kind| {
            let rest = kind.as_bytes().strip_prefix(b"application/grpc");
            // gRPC-Web is another protocol.
            rest.is_some_and(|rest| rest.first().is_none_or(|byte| matches!(byte, b'+' | b';')))
        })
}

/// The response for a refusal: trailers alone, in the place of headers.
pub(super) fn refuse(refusal: &Refusal) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(status(refusal) as u16));
    let message = escape(&format!("{}: {}", refusal.code().as_str(), refusal.detail()));
    headers.insert(GRPC_MESSAGE, HeaderValue::try_from(message).expect("what is left is visible ASCII"));
    if let Some(wait) = refusal.retry_after_hint() {
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        headers.insert(GRPC_RETRY_PUSHBACK, HeaderValue::from(wait));
    }
    response
}

fn status(refusal: &Refusal) -> Status {
    match (refusal.code(), refusal.status()) {
        // No such method, to a client of gRPC.
        (Code::RouteNotFound, _) | (_, StatusCode::NOT_IMPLEMENTED) => Status::Unimplemented,
        (_, StatusCode::BAD_REQUEST) => Status::InvalidArgument,
        (_, StatusCode::UNAUTHORIZED) => Status::Unauthenticated,
        (_, StatusCode::FORBIDDEN) => Status::PermissionDenied,
        (_, StatusCode::NOT_FOUND) => Status::NotFound,
        (_, StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT) => Status::DeadlineExceeded,
        (
            _,
            StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::URI_TOO_LONG
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        ) => Status::ResourceExhausted,
        (_, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE) => Status::Unavailable,
        (_, status) if status.is_client_error() => Status::FailedPrecondition,
        _ => Status::Internal,
    }
}

/// Percent-encodes what is not visible ASCII, as gRPC over HTTP/2 has it for messages.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_grpc_over_http2_is_grpc() {
        let spoken = |version, kind: &str| {
            is_spoken(&Request::builder().version(version).header(CONTENT_TYPE, kind).body(()).unwrap())
        };
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc;x=y"] {
            assert!(spoken(Version::HTTP_2, kind), "{kind}");
            assert!(!spoken(Version::HTTP_11, kind), "{kind}");
        }
        for kind in ["application/grpc-web", "application/grpcx", "application/json"] {
            assert!(!spoken(Version::HTTP_2, kind), "{kind}");
        }
    }

    #[test]
    fn a_refusal_is_a_status_and_a_message() {
        let refusal =
            Refusal::new(Code::TenantHeld, "come back später, 100%").retry_after(Duration::from_secs(2));
        let response = refuse(&refusal);
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(response.headers()["grpc-message"], "tenant-held: come back sp%C3%A4ter, 100%25");
        assert_eq!(response.headers()["grpc-retry-pushback-ms"], "2000");
    }
}
