//! The id that a client, its backend and the log know a request by.

use std::fmt;

use http::HeaderValue;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

/// An id that sorts by time (RFC 9562, UUID version 7). Its text is made once, as the header that
/// goes both ways.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestId {
    id: Uuid,
    header: HeaderValue,
}

impl RequestId {
    /// The id of a request that begins now.
    pub fn fresh() -> Self {
        let id = Uuid::now_v7();
        let mut text = [0; Hyphenated::LENGTH];
        let text = id.as_hyphenated().encode_lower(&mut text);
        Self { id, header: HeaderValue::from_str(text).expect("hexadecimal digits and dashes") }
    }

    /// As text, in lower case with dashes.
    pub fn as_str(&self) -> &str {
        self.header.to_str().expect("hexadecimal digits and dashes")
    }

    /// As the value of a header.
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// As a number, whose low bits are random.
    pub fn as_u128(&self) -> u128 {
        self.id.as_u128()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_text_everywhere() {
        let id = RequestId::fresh();
        assert_eq!(id.to_string(), id.id.to_string());
        assert_eq!(id.header(), id.as_str());
        assert_ne!(id, RequestId::fresh());
    }
}
