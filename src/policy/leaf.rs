//! How single values are spelled: numbers, durations, sizes, names.

mod identity;

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use bytesize::ByteSize;
use ed25519_dalek::VerifyingKey;
use http::{HeaderName, Method, StatusCode};
use schemars::{Schema, json_schema};

use super::QualifiedName;
use super::decode::{Leaf, Unreadable};
use super::yaml::{Scalar, ScalarKind};
use crate::address::{ListenAddress, Peer, PeerRange};
use crate::tenant::{RoleName, SchemaName, TenantId, TenantSchema};

pub(crate) use identity::{Instant, KeySetPlace};

impl Leaf for String {
    const EXPECTED: &'static str = "a text";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        match scalar.kind {
            ScalarKind::Bool => Err(Unreadable::Rule(format!(
                "expected a text, got `{0}`, which YAML reads as yes or no: write \"{0}\" in quotes",
                scalar.text
            ))),
            _ => Ok(scalar.text.clone()),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": ["string", "number"] })
    }
}

impl Leaf for bool {
    const EXPECTED: &'static str = "`true` or `false`";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        match (scalar.kind, scalar.text.as_str()) {
            (ScalarKind::Bool | ScalarKind::Interpolated, "true") => Ok(true),
            (ScalarKind::Bool | ScalarKind::Interpolated, "false") => Ok(false),
            _ => Err(Unreadable::Kind),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "boolean" })
    }
}

macro_rules! whole_numbers {
    ($($kind:ty: $expected:literal from $minimum:literal;)*) => {$(
        impl Leaf for $kind {
            const EXPECTED: &'static str = $expected;

            fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
                if scalar.kind == ScalarKind::Text {
                    return Err(Unreadable::Kind);
                }
                let number: $kind =
                    scalar.text.replace('_', "").parse().map_err(|_| Unreadable::Kind)?;
                if ($minimum..=<$kind>::MAX).contains(&number) { Ok(number) } else { Err(Unreadable::Kind) }
            }

            fn schema() -> Schema {
                json_schema!({ "type": "integer", "minimum": $minimum })
            }
        }
    )*};
}
whole_numbers! {
    u32: "a whole number of at least 1" from 1;
    u64: "a whole number of at least 1" from 1;
    usize: "a whole number" from 0;
}

impl Leaf for f64 {
    const EXPECTED: &'static str = "a number";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        let number: Self = match scalar.kind {
            ScalarKind::Text | ScalarKind::Bool => return Err(Unreadable::Kind),
            _ => scalar.text.replace('_', "").parse().map_err(|_| Unreadable::Kind)?,
        };
        if number.is_finite() { Ok(number) } else { Err(Unreadable::Kind) }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "number" })
    }
}

/// A duration that may be zero, where zero switches something off.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DurationOrZero(pub Duration);

impl Leaf for DurationOrZero {
    const EXPECTED: &'static str = "a duration such as `5ms`, `2s`, `10m` or `1h`";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        if scalar.text.parse::<f64>().is_ok_and(|number| number != 0.0) {
            return Err(Unreadable::Rule(format!(
                "a duration needs a unit: `{0}s` for seconds, `{0}ms` for milliseconds",
                scalar.text
            )));
        }
        humantime::parse_duration(scalar.text.trim()).map(Self).map_err(|_| Unreadable::Kind)
    }

    fn schema() -> Schema {
        json_schema!({
            "type": ["string", "number"],
            "pattern": "^\\s*(0|([0-9.]+\\s*[A-Za-zµ]+\\s*)+)$",
            "examples": ["5ms", "2s", "10m", "1h"]
        })
    }
}

/// A duration above zero: a wait of no time at all would fail every request.
impl Leaf for Duration {
    const EXPECTED: &'static str = DurationOrZero::EXPECTED;

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        match DurationOrZero::read(scalar)?.0 {
            Self::ZERO => Err(Unreadable::Rule("this duration must be longer than zero".into())),
            longer => Ok(longer),
        }
    }

    fn schema() -> Schema {
        DurationOrZero::schema()
    }
}

/// A number of bytes above zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size(pub u64);

impl Leaf for Size {
    const EXPECTED: &'static str = "a size such as `64KiB`, `16MiB` or `1GiB`";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        match scalar.text.trim().parse::<ByteSize>() {
            Ok(size) if size.as_u64() > 0 => Ok(Self(size.as_u64())),
            Ok(_) => Err(Unreadable::Rule("this size must be larger than zero".into())),
            Err(_) => Err(Unreadable::Kind),
        }
    }

    fn schema() -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string", "pattern": "^\\s*[0-9.]+\\s*[A-Za-z]*\\s*$", "examples": ["64KiB", "16MiB"] },
                { "type": "integer", "minimum": 1 }
            ]
        })
    }
}

impl Leaf for SocketAddr {
    const EXPECTED: &'static str = "an address and port such as `127.0.0.1:8080` or `[::1]:8080`";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        let text = scalar.text.as_str();
        if let Some(port) =
            text.strip_prefix(':').or(text.strip_prefix("*:")).or(text.parse::<u16>().ok().map(|_| text))
        {
            return Err(Unreadable::Rule(format!(
                "a listener needs an address: `127.0.0.1:{port}` for this machine only, `0.0.0.0:{port}` for all"
            )));
        }
        if let Some(port) = text.strip_prefix("localhost:") {
            return Err(Unreadable::Rule(format!(
                "a listener's address is a number: write `127.0.0.1:{port}` for `localhost`"
            )));
        }
        text.parse().map_err(|_| Unreadable::Kind)
    }
}

impl Leaf for ListenAddress {
    const EXPECTED: &'static str =
        "an address and port such as `127.0.0.1:8080`, or a path such as `unix:/run/innkeeper.sock`";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        if scalar.text.starts_with("unix:") || scalar.text.starts_with('/') {
            return match scalar.text.parse() {
                Ok(address) => Ok(address),
                Err(_) => Err(Unreadable::Rule(
                    "a Unix socket is written with its whole path, as in `unix:/run/innkeeper.sock`".into(),
                )),
            };
        }
        SocketAddr::read(scalar).map(Self::Tcp)
    }
}

impl Leaf for Peer {
    const EXPECTED: &'static str = "an address and port such as `192.0.2.1:40000`, or `unix`";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        scalar.text.parse().map_err(|_| Unreadable::Kind)
    }
}

impl Leaf for PeerRange {
    const EXPECTED: &'static str = "an address or network such as `10.0.0.0/8`, or `unix`";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        scalar.text.parse().map_err(|_| Unreadable::Kind)
    }
}

/// Permissions of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileMode(pub u32);

impl Leaf for FileMode {
    const EXPECTED: &'static str = "permissions as `chmod` takes them, such as `\"0660\"`";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        match u32::from_str_radix(&scalar.text, 8) {
            Ok(mode) if mode <= 0o777 => Ok(Self(mode)),
            _ => Err(Unreadable::Kind),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": ["string", "integer"], "pattern": "^0?[0-7]{3}$" })
    }
}

macro_rules! checked_names {
    ($($kind:ty: $expected:literal;)*) => {$(
        impl Leaf for $kind {
            const EXPECTED: &'static str = $expected;

            fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
                Ok(String::read(scalar)?.parse::<$kind>()?)
            }

            fn schema() -> Schema {
                String::schema()
            }
        }
    )*};
}
checked_names! {
    TenantId: "a tenant id of 1 to 128 visible ASCII characters";
    TenantSchema: "the name of a tenant's schema";
    SchemaName: "the name of a schema";
    RoleName: "the name of a role";
    HeaderName: "the name of a header such as `X-Tenant-ID`";
}

impl Leaf for Method {
    const EXPECTED: &'static str = "an HTTP method such as `GET`";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        let upper = scalar.text.to_ascii_uppercase();
        if upper != scalar.text {
            return Err(Unreadable::Rule(format!("methods are written in capitals: `{upper}`")));
        }
        Self::from_bytes(scalar.text.as_bytes()).map_err(|_| Unreadable::Kind)
    }
}

impl Leaf for StatusCode {
    const EXPECTED: &'static str = "an HTTP status such as `404`";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        scalar.text.parse().map_err(|_| Unreadable::Kind)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "integer", "minimum": 100, "maximum": 999 })
    }
}

/// The SHA-256 of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sha256(pub [u8; 32]);

impl Leaf for Sha256 {
    const EXPECTED: &'static str = "a SHA-256 in 64 hexadecimal digits";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        let mut bytes = [0; 32];
        let digits: Option<Vec<u8>> =
            scalar.text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
        match digits {
            Some(digits) if digits.len() == 64 => {
                for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
                    *byte = pair[0] << 4 | pair[1];
                }
                Ok(Self(bytes))
            }
            _ => Err(Unreadable::Kind),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": ["string", "number"] })
    }
}

/// An Ed25519 public key (RFC 8032), raw in base64.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PublicKey(pub VerifyingKey);

impl Leaf for PublicKey {
    const EXPECTED: &'static str = "an Ed25519 public key: 32 bytes in base64";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        let rule = |text: &str| Err(Unreadable::Rule(text.into()));
        let bytes = BASE64.decode(scalar.text.trim()).map_err(|_| Unreadable::Kind)?;
        let bytes = <[u8; 32]>::try_from(bytes).map_err(|other| {
            let bytes = other.len();
            Unreadable::Rule(format!("an Ed25519 public key has 32 bytes, this one has {bytes}"))
        })?;
        match VerifyingKey::from_bytes(&bytes) {
            Ok(key) if key.is_weak() => rule("this key is worthless: anybody can sign for it"),
            Ok(key) => Ok(Self(key)),
            Err(_) => rule("these 32 bytes are not an Ed25519 public key"),
        }
    }
}

/// A part of the whole, above 0 and at most 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share(pub f64);

impl Leaf for Share {
    const EXPECTED: &'static str = "a share such as `10%` or `0.1`";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        let text = scalar.text.trim();
        let share = match text.strip_suffix('%') {
            Some(percent) => percent.trim_end().parse::<f64>().map(|percent| percent / 100.0),
            None => text.parse(),
        };
        match share {
            Ok(share) if share > 0.0 && share <= 1.0 => Ok(Self(share)),
            Ok(_) => Err(Unreadable::Rule("a share is above 0% and at most 100%".into())),
            Err(_) => Err(Unreadable::Kind),
        }
    }

    fn schema() -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string", "pattern": "^\\s*[0-9.]+\\s*%?\\s*$", "examples": ["10%"] },
                { "type": "number", "exclusiveMinimum": 0, "maximum": 1 }
            ]
        })
    }
}

/// A connection URL of PostgreSQL.
#[derive(Debug, Clone)]
pub(crate) struct DatabaseUrl(pub super::Secret);

impl Leaf for DatabaseUrl {
    const EXPECTED: &'static str =
        "a connection URL such as `postgres://user:password@host:5432/database` or `${DATABASE_URL}`";
    const SECRET: bool = true;

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        // The driver's own parser would look at the process's environment and home directory.
        let url = url::Url::parse(&scalar.text).map_err(|_| Unreadable::Kind)?;
        let authority = scalar.text.split_once("://").ok_or(Unreadable::Kind)?.1;
        if !matches!(url.scheme(), "postgres" | "postgresql") || authority.is_empty() {
            return Err(Unreadable::Kind);
        }
        Ok(Self(super::Secret::new(scalar.text.clone())))
    }
}

/// A web origin (RFC 6454, section 6.2) in lower case.
#[derive(Debug, Clone)]
pub(crate) struct Origin(pub String);

impl Leaf for Origin {
    const EXPECTED: &'static str = "a web origin such as `https://app.example.com`";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        let url = url::Url::parse(&scalar.text).map_err(|_| Unreadable::Kind)?;
        let origin = url.origin();
        // What a browser sends has neither a path nor a slash at its end, and is compared as text.
        let text = origin.ascii_serialization();
        if !origin.is_tuple() || !text.eq_ignore_ascii_case(&scalar.text) {
            return Err(Unreadable::Kind);
        }
        Ok(Self(text))
    }
}

/// A password or a key.
#[derive(Debug, Clone)]
pub(crate) struct SharedKey(pub super::Secret);

impl Leaf for SharedKey {
    const EXPECTED: &'static str = "a secret, best taken from the environment: `${NAME}`";
    const SECRET: bool = true;

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        if scalar.text.is_empty() || scalar.text.contains('\0') {
            return Err(Unreadable::Kind);
        }
        Ok(Self(super::Secret::new(scalar.text.clone())))
    }
}

impl Leaf for QualifiedName {
    const EXPECTED: &'static str = "a table such as `tenants` or `public.tenants`";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        let part = |text: &str| text.parse::<SchemaName>().map(|name| name.as_str().to_owned());
        match scalar.text.split('.').collect::<Vec<_>>().as_slice() {
            [table] => Ok(Self { schema: None, table: part(table)? }),
            [schema, table] => Ok(Self { schema: Some(part(schema)?), table: part(table)? }),
            _ => Err(Unreadable::Kind),
        }
    }
}

/// The version of the document's grammar.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Version;

impl Leaf for Version {
    const EXPECTED: &'static str = "`1`, the only version of the policy document there is";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        if scalar.text == "1" { Ok(Self) } else { Err(Unreadable::Kind) }
    }

    fn schema() -> Schema {
        json_schema!({ "const": 1 })
    }
}
