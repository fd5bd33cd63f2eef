//! The claims of a token whose signature was verified.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::invalid;
use crate::error::Refusal;

/// What a token says (RFC 7519, section 4). Those that [`Verifier::verify`](super::Verifier::verify)
/// gives are believed.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// The text that the names in `path` lead to; a whole number is its digits. `None` where there
    /// is nothing, or nothing in it.
    ///
    /// # Errors
    /// `token-invalid` where something else stands there: no tenant can be read from a list.
    pub fn text(&self, path: &[String]) -> Result<Option<String>, Refusal> {
        let mut steps = path.iter();
        let first = steps.next().and_then(|name| self.0.get(name));
        let found = steps.try_fold(first, |inside, name| match inside {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(inside)) => Ok(inside.get(name)),
            Some(_) => Err(()),
        });
        match found {
            Ok(None | Some(Value::Null)) => Ok(None),
            Ok(Some(Value::String(text))) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Ok(Some(Value::Number(number))) if !number.is_f64() => Ok(Some(number.to_string())),
            Ok(Some(_)) | Err(()) => {
                Err(invalid(format!("the claim `{}` of the token must be a text", path.join("."))))
            }
        }
    }

    /// Whether `exp` is over, or is not there: the rest of a token does not change with time, as its
    /// issuer has no way to take it back (RFC 7519, section 4.1.4).
    pub(super) fn have_expired(&self, leeway: Duration) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::MAX);
        let end = self.0.get("exp").and_then(Value::as_f64).unwrap_or(0.0);
        now.as_secs_f64() >= end + leeway.as_secs_f64()
    }

    /// All of them as JSON, for plugins.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.0).expect("what was read from JSON is JSON")
    }
}

/// Refuses names that stand twice in one object: two readers could each believe another one
/// (RFC 7519, section 4).
impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Unambiguous::deserialize(deserializer)?.0 {
            Value::Object(claims) => Ok(Self(claims)),
            _ => Err(D::Error::custom("claims are a JSON object")),
        }
    }
}

/// Any JSON without a name that stands twice.
struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyJson).map(Self)
    }
}

struct AnyJson;

impl<'de> Visitor<'de> for AnyJson {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("JSON has no such number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unambiguous(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((name, Unambiguous(value))) = entries.next_entry::<String, _>()? {
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom("a name stands twice in one object"));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Claims, serde_json::Error> {
        serde_json::from_str(text)
    }

    fn text(claims: &str, path: &[&str]) -> Result<Option<String>, Refusal> {
        let path: Vec<String> = path.iter().map(|&step| step.into()).collect();
        read(claims).unwrap().text(&path)
    }

    #[test]
    fn a_path_leads_to_a_text_or_nowhere() {
        let claims = r#"{"t":"acme","n":7,"x":{"y":{"t":"globex"}},"null":null,"empty":"","l":["a"],"b":true,"f":1.5,"a.b":"dotted"}"#;
        for (path, expected) in [
            (&["t"][..], Some("acme")),
            (&["n"], Some("7")),
            (&["x", "y", "t"], Some("globex")),
            (&["a.b"], Some("dotted")),
            (&["missing"], None),
            (&["x", "missing", "t"], None),
            (&["null"], None),
            (&["null", "t"], None),
            (&["empty"], None),
        ] {
            assert_eq!(text(claims, path).unwrap().as_deref(), expected, "{path:?}");
        }
        for path in [&["l"][..], &["b"], &["f"], &["x"], &["t", "x"], &["l", "0"]] {
            assert!(text(claims, path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn claims_end() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let ended = |exp: &str, leeway| {
            read(&format!(r#"{{"exp":{exp}}}"#)).unwrap().have_expired(Duration::from_secs(leeway))
        };
        assert!(!ended(&(now + 60).to_string(), 0));
        assert!(ended(&(now - 5).to_string(), 0));
        assert!(!ended(&(now - 5).to_string(), 60));
        assert!(ended("null", 0) && ended("\"soon\"", 0));
    }

    #[test]
    fn a_name_that_stands_twice_is_refused() {
        for ambiguous in [
            r#"{"t":"acme","t":"globex"}"#,
            r#"{"t":"acme","\u0074":"globex"}"#,
            r#"{"x":{"t":1,"t":1}}"#,
            r#"{"l":[{"t":1,"t":2}]}"#,
            "[]",
            "7",
        ] {
            assert!(read(ambiguous).is_err(), "{ambiguous}");
        }
    }

    proptest! {
        #[test]
        fn other_json_is_read_as_everybody_reads_it(name in "\\PC{0,5}", value in "\\PC{0,9}", number in any::<i64>()) {
            let written = serde_json::json!({ name: { "in": [value, number, null, true] } });
            prop_assert_eq!(read(&written.to_string()).unwrap().to_json(), written.to_string());
        }
    }
}
