//! Why a request's framing is refused.

use http::StatusCode;

use crate::error::{Code, Refusal};

/// What is wrong with the bytes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The head is over its limit.
    HeadTooLarge,
    /// There are more fields than the limit.
    TooManyFields,
    /// The request target is over its limit.
    TargetTooLong,
    /// The head did not arrive in time.
    Late,
    /// A line ends in a bare line feed.
    LineEnd,
    /// A control character, such as a bare carriage return or NUL.
    ControlCharacter,
    /// The request line is none.
    RequestLine,
    /// It is not HTTP/1.0 or 1.1.
    Version,
    /// The first line of the connection names no version of HTTP: another protocol's, or half of
    /// HTTP/2's. It gets no answer (RFC 9113, section 3.4).
    Foreign,
    /// The request target is no path, or has characters that no path has.
    Target,
    /// CONNECT.
    Tunnel,
    /// A field continues on the next line.
    FoldedLine,
    /// Space between a field's name and the colon.
    SpaceBeforeColon,
    /// A field has no name, or one that it may not have.
    FieldName,
    /// There is no `Host`.
    MissingHost,
    /// There is more than one `Host`.
    RepeatedHost,
    /// Both `Content-Length` and `Transfer-Encoding`.
    LengthAndEncoding,
    /// More than one `Content-Length`.
    RepeatedLength,
    /// `Content-Length` is not a number.
    Length,
    /// `Transfer-Encoding` is not `chunked`.
    Encoding,
    /// `Transfer-Encoding` in HTTP/1.0.
    EncodingInHttp10,
    /// A chunk's size is none.
    ChunkSize,
    /// A chunk is longer than its size.
    ChunkEnd,
    /// Trailers are malformed.
    Trailer,
    /// The HTTP library read the request differently than we did.
    Disagreement,
}

impl Reason {
    /// What the client is told.
    pub fn detail(self) -> &'static str {
        match self {
            Self::HeadTooLarge => "the header section is too large; send fewer or shorter headers",
            Self::TooManyFields => "there are too many headers",
            Self::TargetTooLong => "the request line is too long; send data in the body",
            Self::Late => "the header section arrived too slowly",
            Self::LineEnd => "lines of the header section must end in CRLF",
            Self::ControlCharacter => "the header section must not contain control characters",
            Self::RequestLine => {
                "the request line must be a method, a target and a version, one space between"
            }
            Self::Version => "the version must be HTTP/1.0, HTTP/1.1, or HTTP/2 with prior knowledge",
            Self::Foreign => "this is not HTTP",
            Self::Target => "the request target must be a path or an http URL, without a fragment",
            Self::Tunnel => "method CONNECT is not offered: this is no tunnel",
            Self::FoldedLine => "headers must not be folded over several lines",
            Self::SpaceBeforeColon => "there must be no space between a header's name and its colon",
            Self::FieldName => "a header's name is missing or has characters that it may not have",
            Self::MissingHost => "header `host` is missing",
            Self::RepeatedHost => "header `host` must be sent once",
            Self::LengthAndEncoding => "send either `content-length` or `transfer-encoding`, not both",
            Self::RepeatedLength => "header `content-length` must be sent once",
            Self::Length => "header `content-length` must be one decimal number",
            Self::Encoding => "header `transfer-encoding` must be sent once and be `chunked`",
            Self::EncodingInHttp10 => "HTTP/1.0 has no `transfer-encoding`",
            Self::ChunkSize => "a chunk's size must be hexadecimal digits and end in CRLF",
            Self::ChunkEnd => "a chunk must end in CRLF after as many bytes as it announced",
            Self::Trailer => "the trailers are malformed or too large",
            Self::Disagreement => "the request can be read in two ways",
        }
    }

    /// The refusal for it.
    pub fn refusal(self) -> Refusal {
        let refusal = |code| Refusal::new(code, self.detail());
        match self {
            Self::HeadTooLarge | Self::TooManyFields => {
                refusal(Code::RequestTooLarge).with_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
            }
            Self::TargetTooLong => refusal(Code::RequestTooLarge).with_status(StatusCode::URI_TOO_LONG),
            Self::Late => refusal(Code::RequestTimeout),
            _ => refusal(Code::RequestInvalid),
        }
    }
}

/// Broken framing as an I/O error, which is how it reaches whoever reads the body.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.detail())]
pub struct BrokenFraming(pub Reason);
