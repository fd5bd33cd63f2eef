//! Reads a request's parameters: typed, bounded, and refused with the name that the client gave.

use bytes::{BufMut as _, BytesMut};
use postgres_protocol::{IsNull, Oid};
use serde_json::Value as Json;

use crate::error::{Code, Refusal};
use crate::policy::{Param, ParamSource, ParamType};

/// The most digits and the greatest exponent that a numeric parameter may have. PostgreSQL would
/// take 131,072 digits; a hundred bytes of request must not become that much work.
const MAX_NUMERIC_DIGITS: usize = 1_000;
const MAX_NUMERIC_EXPONENT: u32 = 1_000;

/// How much of a wrong value its message shows, in characters.
const SHOWN_CHARACTERS: usize = 40;

/// A number with more significant digits than this may have lost some as a JSON number, which is
/// read as a 64-bit float.
const SAFE_FLOAT_DIGITS: usize = 15;

/// What the request gave for a parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// Nothing.
    Absent,
    /// A text: from the query string, the path or a header.
    Text(String),
    /// A member of the JSON body.
    Json(Json),
}

/// A value that fits its parameter and is ready to be bound. Only [`read_value`] makes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Value(Bound);

#[derive(Debug, Clone, PartialEq)]
enum Bound {
    Text(Option<String>),
    Int(Option<i64>),
    Float(Option<f64>),
    Bool(Option<bool>),
}

impl Value {
    /// The OID of the type that it is bound as (`pg_type.dat`).
    pub(super) fn type_oid(&self) -> Oid {
        match self.0 {
            Bound::Bool(_) => 16,
            Bound::Int(_) => 20,
            Bound::Text(_) => 25,
            Bound::Float(_) => 701,
        }
    }

    /// Writes it in PostgreSQL's binary format.
    pub(super) fn put(&self, buffer: &mut BytesMut) -> IsNull {
        match &self.0 {
            Bound::Bool(Some(value)) => buffer.put_u8(u8::from(*value)),
            Bound::Int(Some(value)) => buffer.put_i64(*value),
            Bound::Text(Some(value)) => buffer.put_slice(value.as_bytes()),
            Bound::Float(Some(value)) => buffer.put_f64(*value),
            Bound::Bool(None) | Bound::Int(None) | Bound::Text(None) | Bound::Float(None) => {
                return IsNull::Yes;
            }
        }
        IsNull::No
    }
}

/// Reads the value of the parameter that the statement calls `$position`. Where the request gives none,
/// the parameter's default is read, or NULL where it is nullable.
///
/// A value out of bounds is refused and never moved to the nearest one that is in: a client that
/// asked for 1,000 rows and got 500 would take them for all.
///
/// # Errors
/// `query-parameter`, naming the parameter as the client knows it.
pub fn read_value(param: &Param, position: usize, given: Given) -> Result<Value, Refusal> {
    let given = match given {
        Given::Absent => match &param.default {
            Some(default) => Given::Json(default.clone()),
            None if param.nullable => Given::Json(Json::Null),
            None => return Err(refuse(param, position, "is required")),
        },
        given => given,
    };
    if given == Given::Json(Json::Null) && param.kind != ParamType::Json {
        return if param.nullable || param.default == Some(Json::Null) {
            Ok(null(param.kind))
        } else {
            Err(refuse(param, position, "must not be null"))
        };
    }
    let bound = match param.kind {
        ParamType::Text => text(param, given).map(|value| Bound::Text(Some(value))),
        ParamType::Int => int(param, &given).map(|value| Bound::Int(Some(value))),
        ParamType::Float => float(param, &given).map(|value| Bound::Float(Some(value))),
        ParamType::Numeric => numeric(param, &given).map(|value| Bound::Text(Some(value))),
        ParamType::Bool => boolean(&given).map(|value| Bound::Bool(Some(value))),
        ParamType::Uuid => uuid(&given).map(|value| Bound::Text(Some(value))),
        ParamType::Date => date(&given).map(|value| Bound::Text(Some(value))),
        ParamType::Timestamp => timestamp(&given).map(|value| Bound::Text(Some(value))),
        ParamType::Json => json(param, &given).map(Bound::Text),
    };
    bound.map(Value).map_err(|complaint| refuse(param, position, &complaint))
}

fn null(kind: ParamType) -> Value {
    Value(match kind {
        ParamType::Int => Bound::Int(None),
        ParamType::Float => Bound::Float(None),
        ParamType::Bool => Bound::Bool(None),
        _ => Bound::Text(None),
    })
}

fn refuse(param: &Param, position: usize, complaint: &str) -> Refusal {
    let name = match &param.source {
        ParamSource::Query(name) => format!("query parameter `{name}`"),
        ParamSource::Path(name) => format!("path parameter `{name}`"),
        ParamSource::Header(name) => format!("header `{name}`"),
        ParamSource::Body(pointer) if pointer.starts_with('/') => format!("body value at `{pointer}`"),
        ParamSource::Body(name) => format!("body member `{name}`"),
    };
    Refusal::new(Code::QueryParameter, format!("{name} {complaint}"))
        .because(format!("value of ${} ({:?})", position, param.kind))
}

fn text(param: &Param, given: Given) -> Result<String, String> {
    let text = match given {
        Given::Text(text) | Given::Json(Json::String(text)) => text,
        other => return Err(format!("must be a text, got {}", show(&other))),
    };
    // Counted only where the bytes leave a doubt: a character is at most four of them.
    if text.len() > param.max_length && text.chars().count() > param.max_length {
        return Err(format!(
            "must be at most {} characters long, got {}",
            param.max_length,
            text.chars().count()
        ));
    }
    if text.contains('\0') {
        return Err("must not contain the character NUL, which PostgreSQL cannot store".into());
    }
    Ok(text)
}

fn int(param: &Param, given: &Given) -> Result<i64, String> {
    let value = match given {
        Given::Text(text) => text.parse().ok(),
        Given::Json(Json::Number(number)) => number.as_i64(),
        _ => None,
    };
    value
        .filter(|value| {
            param.min.is_none_or(|min| *value >= least_int(min))
                && param.max.is_none_or(|max| *value <= greatest_int(max))
        })
        .ok_or_else(|| format!("must be a whole number{}, got {}", bounds(param), show(given)))
}

/// The least whole number that is not below `bound`. A cast to `i64` holds at its ends.
#[expect(clippy::cast_possible_truncation, reason = "saturates, which is what a bound wants")]
fn least_int(bound: f64) -> i64 {
    bound.ceil() as i64
}

/// The greatest whole number that is not above `bound`.
#[expect(clippy::cast_possible_truncation, reason = "saturates, which is what a bound wants")]
fn greatest_int(bound: f64) -> i64 {
    bound.floor() as i64
}

fn float(param: &Param, given: &Given) -> Result<f64, String> {
    let value = match given {
        // Rust also reads `inf` and `nan`, which are no numbers to compare with a bound.
        Given::Text(text) => text.parse().ok().filter(|value: &f64| value.is_finite()),
        Given::Json(Json::Number(number)) => number.as_f64(),
        _ => None,
    };
    value
        .filter(|value| in_bounds(param, *value))
        .ok_or_else(|| format!("must be a number{}, got {}", bounds(param), show(given)))
}

fn numeric(param: &Param, given: &Given) -> Result<String, String> {
    let text = match given {
        Given::Text(text) | Given::Json(Json::String(text)) => text.clone(),
        Given::Json(Json::Number(number)) => {
            let text = number.to_string();
            if number.is_f64()
                && (significant_digits(&text) > SAFE_FLOAT_DIGITS || !is_plain(number.as_f64()))
            {
                return Err(format!(
                    "has more digits than a JSON number keeps: send it as a string, got {}",
                    show(given)
                ));
            }
            text
        }
        _ => String::new(),
    };
    if !is_decimal(&text) {
        return Err(format!("must be a decimal number{}, got {}", bounds(param), show(given)));
    }
    // A bound is a 64-bit float in the policy, and is compared as one.
    let near = text.parse::<f64>().unwrap_or(f64::NAN);
    if (param.min.is_some() || param.max.is_some()) && !in_bounds(param, near) {
        return Err(format!("must be a decimal number{}, got {}", bounds(param), show(given)));
    }
    Ok(text)
}

/// Whether every whole number of this size is a float of its own.
fn is_plain(value: Option<f64>) -> bool {
    const FIRST_GAP: f64 = 9_007_199_254_740_992.0;
    value.is_some_and(|value| value.abs() < FIRST_GAP)
}

fn significant_digits(text: &str) -> usize {
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    digits.trim_start_matches('0').len()
}

/// `-12.5e3`: a sign, digits, a point, an exponent; no NaN, no infinity, no spaces.
fn is_decimal(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let exponent_holds = exponent.is_none_or(|exponent| {
        let size = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !size.is_empty() && digits(size) && size.parse::<u32>().is_ok_and(|size| size <= MAX_NUMERIC_EXPONENT)
    });
    mantissa.len() <= MAX_NUMERIC_DIGITS
        && !(whole.is_empty() && fraction.is_empty())
        && digits(whole)
        && digits(fraction)
        && exponent_holds
}

fn boolean(given: &Given) -> Result<bool, String> {
    match given {
        Given::Json(Json::Bool(value)) => Ok(*value),
        Given::Text(text) if text == "true" => Ok(true),
        Given::Text(text) if text == "false" => Ok(false),
        other => Err(format!("must be `true` or `false`, got {}", show(other))),
    }
}

fn uuid(given: &Given) -> Result<String, String> {
    text_of(given)
        .and_then(|text| uuid::Uuid::try_parse(text).ok())
        .map(|id| id.hyphenated().to_string())
        .ok_or_else(|| {
            format!("must be a UUID such as 123e4567-e89b-12d3-a456-426614174000, got {}", show(given))
        })
}

fn date(given: &Given) -> Result<String, String> {
    text_of(given)
        .filter(|text| is_date(text))
        .map(str::to_owned)
        .ok_or_else(|| format!("must be a date such as 2024-01-31, got {}", show(given)))
}

/// RFC 3339 only: what PostgreSQL takes besides depends on the session's zone, its date style, or
/// the moment (`now`, `tomorrow`).
fn timestamp(given: &Given) -> Result<String, String> {
    text_of(given).filter(|text| is_timestamp(text)).map(str::to_owned).ok_or_else(|| {
        format!("must be a time with its offset such as 2024-01-31T12:00:00Z, got {}", show(given))
    })
}

fn is_date(text: &str) -> bool {
    let Some([year, month, day]) = split_digits(text, '-') else { return false };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => return false,
    };
    // There is no year 0 in PostgreSQL, nor in the calendar.
    text.len() == "2024-01-31".len() && year > 0 && (1..=days).contains(&day)
}

fn is_timestamp(text: &str) -> bool {
    let Some((day, time)) = text.split_once(['T', 't', ' ']) else { return false };
    let (clock, offset) = match time.find(['Z', 'z', '+', '-']) {
        Some(at) => time.split_at(at),
        None => return false,
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let offset_holds = match offset.as_bytes() {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', ..] if offset.len() == "+05:30".len() => {
            split_digits::<2>(&offset[1..], ':').is_some_and(|[hours, minutes]| hours < 16 && minutes < 60)
        }
        _ => false,
    };
    is_date(day)
        && clock.len() == "12:00:00".len()
        && split_digits::<3>(clock, ':')
            .is_some_and(|[hours, minutes, seconds]| hours < 24 && minutes < 60 && seconds < 61)
        && !fraction.is_empty()
        && fraction.len() <= 9
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
        && offset_holds
}

fn split_digits<const PARTS: usize>(text: &str, separator: char) -> Option<[u32; PARTS]> {
    let parts: Vec<u32> = text
        .split(separator)
        .map(|part| {
            let digits = part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse().ok().filter(|_| digits && part.len() >= 2)
        })
        .collect::<Option<_>>()?;
    parts.try_into().ok()
}

/// JSON null is a value of this type, and so is told from NULL by where it stands: an absent
/// parameter is NULL, a null that was given is JSON's.
fn json(param: &Param, given: &Given) -> Result<Option<String>, String> {
    let text = match given {
        Given::Json(Json::Null) if param.nullable => return Ok(None),
        Given::Json(value) => value.to_string(),
        Given::Text(text) => {
            serde_json::from_str::<Json>(text).map_err(|error| format!("must be JSON: {error}"))?;
            text.clone()
        }
        Given::Absent => return Ok(None),
    };
    if text.len() > param.max_length && text.chars().count() > param.max_length {
        return Err(format!("must be at most {} characters long as JSON", param.max_length));
    }
    Ok(Some(text))
}

fn text_of(given: &Given) -> Option<&str> {
    match given {
        Given::Text(text) | Given::Json(Json::String(text)) => Some(text),
        _ => None,
    }
}

fn in_bounds(param: &Param, value: f64) -> bool {
    param.min.is_none_or(|min| value >= min) && param.max.is_none_or(|max| value <= max)
}

fn bounds(param: &Param) -> String {
    match (param.min, param.max) {
        (Some(min), Some(max)) => format!(" between {min} and {max}"),
        (Some(min), None) => format!(" of at least {min}"),
        (None, Some(max)) => format!(" of at most {max}"),
        (None, None) => String::new(),
    }
}

/// The value as the client may read it back: short, and on one line.
fn show(given: &Given) -> String {
    let text = match given {
        Given::Absent => return "nothing".to_owned(),
        Given::Json(Json::Object(_)) => return "an object".to_owned(),
        Given::Json(Json::Array(_)) => return "an array".to_owned(),
        Given::Json(Json::String(text)) => format!("the text {text:?}"),
        Given::Json(value) => value.to_string(),
        Given::Text(text) => format!("{text:?}"),
    };
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn param(kind: ParamType) -> Param {
        Param {
            source: ParamSource::Query("limit".into()),
            kind,
            default: None,
            nullable: false,
            min: None,
            max: None,
            max_length: 10,
        }
    }

    fn read(param: &Param, given: Given) -> Result<Bound, String> {
        read_value(param, 1, given).map(|value| value.0).map_err(|refusal| refusal.detail().to_owned())
    }

    fn written(text: &str) -> Given {
        Given::Text(text.into())
    }

    #[test]
    fn a_number_out_of_bounds_is_refused_and_not_moved() {
        let limit = Param { min: Some(1.0), max: Some(500.0), ..param(ParamType::Int) };
        assert_eq!(read(&limit, written("500")), Ok(Bound::Int(Some(500))));
        assert_eq!(
            read(&limit, written("501")).unwrap_err(),
            "query parameter `limit` must be a whole number between 1 and 500, got \"501\""
        );
        for wrong in ["0", "", "1.5", " 1", "1e2", "99999999999999999999"] {
            assert!(read(&limit, written(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn whole_numbers_are_exact_to_their_ends() {
        let any = param(ParamType::Int);
        assert_eq!(read(&any, written("9223372036854775807")), Ok(Bound::Int(Some(i64::MAX))));
        assert_eq!(read(&any, Given::Json(json!(i64::MIN))), Ok(Bound::Int(Some(i64::MIN))));
        assert!(read(&any, Given::Json(json!(1.5))).is_err());
        assert!(read(&any, Given::Json(json!("1"))).is_err());
        let above = Param { min: Some(0.5), ..param(ParamType::Int) };
        assert!(read(&above, written("0")).is_err());
        assert!(read(&above, written("1")).is_ok());
    }

    #[test]
    fn absent_null_and_default_are_told_apart() {
        let required = param(ParamType::Int);
        assert_eq!(read(&required, Given::Absent).unwrap_err(), "query parameter `limit` is required");
        assert_eq!(
            read(&required, Given::Json(Json::Null)).unwrap_err(),
            "query parameter `limit` must not be null"
        );
        let nullable = Param { nullable: true, ..param(ParamType::Int) };
        assert_eq!(read(&nullable, Given::Absent), Ok(Bound::Int(None)));
        assert_eq!(read(&nullable, Given::Json(Json::Null)), Ok(Bound::Int(None)));
        let defaulted = Param { default: Some(json!(50)), ..param(ParamType::Int) };
        assert_eq!(read(&defaulted, Given::Absent), Ok(Bound::Int(Some(50))));
    }

    #[test]
    fn numeric_keeps_every_digit_or_says_that_it_cannot() {
        let amount = param(ParamType::Numeric);
        let digits = "12345678901234567890.123456789012345678901234567890";
        assert_eq!(read(&amount, written(digits)), Ok(Bound::Text(Some(digits.into()))));
        assert_eq!(read(&amount, Given::Json(json!(0.1))), Ok(Bound::Text(Some("0.1".into()))));
        let many: Json = serde_json::from_str("0.12345678901234567890123").unwrap();
        assert!(read(&amount, Given::Json(many)).unwrap_err().contains("send it as a string"));
        let large: Json = serde_json::from_str("100000000000000000001").unwrap();
        assert!(read(&amount, Given::Json(large)).unwrap_err().contains("send it as a string"));
        for wrong in ["", ".", "NaN", "Infinity", "1e1001", "1e", "0x10", "1 ", "--1", "1_000"] {
            assert!(read(&amount, written(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn text_is_bounded_in_characters() {
        let name = param(ParamType::Text);
        assert!(read(&name, written("ääääääääää")).is_ok());
        assert!(read(&name, written("äääääääääää")).is_err());
        assert!(read(&name, written("a\0b")).unwrap_err().contains("NUL"));
        assert!(read(&name, Given::Json(json!(7))).is_err());
    }

    #[test]
    fn times_need_no_guess() {
        let day = param(ParamType::Date);
        assert!(read(&day, written("2024-02-29")).is_ok());
        for wrong in
            ["2023-02-29", "2024-1-31", "31.01.2024", "tomorrow", "2024-13-01", "+024-01-01", "0000-01-01"]
        {
            assert!(read(&day, written(wrong)).is_err(), "{wrong}");
        }
        let time = param(ParamType::Timestamp);
        for right in ["2024-01-31T12:00:00Z", "2024-01-31 12:00:00.123456+05:30", "2024-01-31T12:00:00-08:00"]
        {
            assert!(read(&time, written(right)).is_ok(), "{right}");
        }
        for wrong in
            ["2024-01-31T12:00:00", "2024-01-31", "now", "2024-01-31T25:00:00Z", "2024-01-31T12:00:00+5"]
        {
            assert!(read(&time, written(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn messages_stay_short_and_on_one_line() {
        let detail = read(&param(ParamType::Bool), written(&"x\n".repeat(500))).unwrap_err();
        assert!(detail.len() < 120 && !detail.contains('\n'), "{detail}");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_reading_panic(text in proptest::prelude::any::<String>()) {
            for kind in [
                ParamType::Text, ParamType::Int, ParamType::Float, ParamType::Numeric, ParamType::Bool,
                ParamType::Uuid, ParamType::Date, ParamType::Timestamp, ParamType::Json,
            ] {
                let _ = read(&param(kind), written(&text));
            }
        }
    }
}
