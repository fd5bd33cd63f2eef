//! Leaving HTTP: what a client wishes to speak instead, and the raw bytes once both sides agreed.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderValue};
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncWrite};

/// What a server appends to a client's key, so that nobody who merely echoes can pass for one
/// (RFC 6455, section 1.3).
const WEBSOCKET_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The name of a protocol in lower case, as in `Upgrade: websocket` (RFC 9110, section 7.8). None
/// of them is HTTP: requests inside of a switched connection would pass no route and no tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol(String);

/// Why a name is no [`Protocol`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// It is no token.
    #[error("a protocol's name must be a token such as `websocket`")]
    Token,
    /// It is HTTP, or HTTP in TLS.
    #[error("a switch to HTTP itself cannot be passed on: its requests would reach no route")]
    Http,
}

/// What a client asks to speak instead of HTTP, in the order in which it would like to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    protocols: Vec<Protocol>,
    is_binding: bool,
}

/// A wish that a route grants: the upstream is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// What is to be spoken.
    pub protocol: Protocol,
    /// Whether there is nothing to fall back to.
    pub is_binding: bool,
}

/// Bytes both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// The upstream's end of a connection that has left HTTP.
pub struct FarEnd {
    /// What is spoken.
    pub protocol: Protocol,
    /// The bytes.
    pub stream: Pin<Box<dyn Duplex>>,
    /// What is kept for as long as the tunnel stands, and then let go of.
    pub held: Box<dyn Any + Send>,
}

impl Protocol {
    /// What browsers ask for (RFC 6455).
    pub fn websocket() -> Self {
        Self("websocket".into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is WebSocket, whose handshake has a key of its own.
    pub fn is_websocket(&self) -> bool {
        self.0 == "websocket"
    }
}

impl FromStr for Protocol {
    type Err = ProtocolError;

    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        let is_token = |part: &str| {
            let sign = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            !part.is_empty() && part.bytes().all(sign)
        };
        let (name, version) = text.split_once('/').unwrap_or((text, "0"));
        if !is_token(name) || !is_token(version) {
            return Err(ProtocolError::Token);
        }
        let name = name.to_ascii_lowercase();
        if matches!(name.as_str(), "h2c" | "h2" | "h3" | "http" | "tls") {
            return Err(ProtocolError::Http);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Wish {
    /// The wish of an HTTP/1.1 request, which may be left unheard (RFC 9110, section 7.8). None
    /// where `Connection` does not name `Upgrade`: then the header is not meant for us.
    pub fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let upgrade = headers.get_all(header::UPGRADE);
        if !parts(headers.get_all(header::CONNECTION)).any(|part| part.eq_ignore_ascii_case("upgrade")) {
            return None;
        }
        let protocols: Vec<Protocol> = parts(upgrade).filter_map(|part| part.parse().ok()).collect();
        (!protocols.is_empty()).then_some(Self { protocols, is_binding: false })
    }

    /// The wish of an extended CONNECT, which is all that such a request is (RFC 8441, section 4).
    pub fn of_connect(protocol: &str) -> Self {
        Self { protocols: protocol.parse().into_iter().collect(), is_binding: true }
    }

    /// Whether the request is nothing without it.
    pub fn is_binding(&self) -> bool {
        self.is_binding
    }

    /// Whether one of its protocols is WebSocket.
    pub fn is_for_websocket(&self) -> bool {
        self.protocols.iter().any(Protocol::is_websocket)
    }

    /// Grants the first protocol that is allowed.
    pub fn grant(&self, allowed: &[Protocol]) -> Option<Switch> {
        let protocol = self.protocols.iter().find(|protocol| allowed.contains(protocol))?;
        Some(Switch { protocol: protocol.clone(), is_binding: self.is_binding })
    }
}

/// A key for a handshake of ours, for a client whose protocol has none (RFC 6455, section 4.1).
pub fn new_websocket_key() -> HeaderValue {
    let key = STANDARD.encode(uuid::Uuid::new_v4().as_bytes());
    HeaderValue::try_from(key).expect("base64 is a header value")
}

/// What proves that a server understood the handshake with this key (RFC 6455, section 4.2.2).
pub fn websocket_accept(key: &HeaderValue) -> HeaderValue {
    let digest = Sha1::new().chain_update(key.as_bytes()).chain_update(WEBSOCKET_GUID).finalize();
    HeaderValue::try_from(STANDARD.encode(digest)).expect("base64 is a header value")
}

/// The parts of a header that is a list; those that are no text are left out.
fn parts<'a>(values: header::GetAll<'a, HeaderValue>) -> impl Iterator<Item = &'a str> {
    values.into_iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(connection: &'static str, upgrade: &'static str) -> Option<Wish> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static(connection));
        headers.insert(header::UPGRADE, HeaderValue::from_static(upgrade));
        Wish::of_headers(&headers)
    }

    #[test]
    fn a_wish_is_one_that_connection_names() {
        assert!(wish("keep-alive, Upgrade", "WebSocket").is_some_and(|wish| wish.is_for_websocket()));
        assert_eq!(wish("keep-alive", "websocket"), None);
        assert_eq!(wish("upgraded", "websocket"), None);
    }

    #[test]
    fn a_switch_to_http_is_no_wish() {
        for protocol in ["h2c", "H2C", "HTTP/2.0", "TLS/1.0", "", "web socket", "a/", "/"] {
            assert_eq!(wish("upgrade", protocol), None, "{protocol}");
        }
    }

    #[test]
    fn the_first_protocol_that_is_allowed_is_granted() {
        let allowed = ["chat/2".parse().unwrap(), Protocol::websocket()];
        let granted = |upgrade| wish("upgrade", upgrade)?.grant(&allowed).map(|it| it.protocol.to_string());
        assert_eq!(granted("h2c, WebSocket, chat/2").as_deref(), Some("websocket"));
        assert_eq!(granted("chat/2, websocket").as_deref(), Some("chat/2"));
        assert_eq!(granted("chat/1"), None);
    }

    /// The example of RFC 6455, section 1.3.
    #[test]
    fn a_key_is_accepted_as_the_rfc_says() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(websocket_accept(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
