//! Makes an answer of what PostgreSQL returned, byte for byte: numbers keep every digit.

use std::fmt;

use http::StatusCode;
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{Blame, Code, Refusal};

/// The rows of a result, which is a JSON array of objects. All have the same columns: the first
/// one tells whether two share a name.
pub(super) fn rows(array: String) -> Result<String, Refusal> {
    if let Some(first) = array.strip_prefix('[').filter(|rest| rest.starts_with('{')) {
        members(first)?;
    }
    Ok(array)
}

/// The first row of a stream, as a line of it. The others have the same columns.
pub(super) fn first(row: &str) -> Result<(), Refusal> {
    members(row).map(drop)
}

/// The only row of a result.
pub(super) fn one(count: i64, row: Option<String>) -> Result<String, Refusal> {
    let row = only(count, row)?;
    members(&row)?;
    Ok(row)
}

/// The only column of the only row of a result.
pub(super) fn value(count: i64, row: Option<String>) -> Result<String, Refusal> {
    let row = only(count, row)?;
    match members(&row)?.as_slice() {
        [(_, value)] => Ok((*value).to_owned()),
        columns => Err(wrong_statement(format!(
            "`result: value` needs a statement with one column, and this one has {}",
            columns.len()
        ))),
    }
}

fn only(count: i64, row: Option<String>) -> Result<String, Refusal> {
    match (count, row) {
        (1, Some(row)) => Ok(row),
        (0, _) => Err(Refusal::new(Code::QueryFailed, "there is nothing that the query asks for")
            .with_status(StatusCode::NOT_FOUND)),
        _ => Err(wrong_statement(
            "the statement found more than one row, and its `result` takes one".to_owned(),
        )),
    }
}

/// The members of the object at the start of `text`: names and values as they are written.
fn members(text: &str) -> Result<Vec<(&str, &str)>, Refusal> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(&'de str, &'de str)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
            let mut members = Vec::new();
            while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                members.push((name.get(), value.get()));
            }
            Ok(members)
        }
    }
    let members = serde_json::Deserializer::from_str(text)
        .deserialize_map(Members)
        .map_err(|error| wrong_statement(format!("a row is not the JSON that it must be: {error}")))?;
    let mut names: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(wrong_statement(format!(
            "the statement has two columns named {}, of which a client would see one: give each a name of its own \
             with AS",
            pair[0]
        ))),
        None => Ok(members),
    }
}

fn wrong_statement(cause: String) -> Refusal {
    Refusal::new(Code::QueryFailed, "the query itself is wrong; ask whoever runs the service")
        .with_status(StatusCode::INTERNAL_SERVER_ERROR)
        .blamed_on(Blame::Policy)
        .because(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_keeps_its_digits() {
        let row = r#"{"total":12345678901234567890.12345678901234567890}"#;
        assert_eq!(value(1, Some(row.into())).unwrap(), "12345678901234567890.12345678901234567890");
        assert_eq!(value(1, Some(r#"{"a":null}"#.into())).unwrap(), "null");
        assert_eq!(value(1, Some(r#"{"a":{"b":[1]}}"#.into())).unwrap(), r#"{"b":[1]}"#);
    }

    #[test]
    fn two_columns_of_one_name_are_an_error_of_the_policy() {
        for refusal in [
            rows(r#"[{"a":1,"b":{"a":1},"a":2}, {"a":1,"b":2,"a":2}]"#.into()).unwrap_err(),
            one(1, Some(r#"{"a":1,"a":1}"#.into())).unwrap_err(),
            value(1, Some(r#"{"a":1,"b":1}"#.into())).unwrap_err(),
        ] {
            assert_eq!((refusal.status().as_u16(), refusal.blame()), (500, Blame::Policy), "{refusal}");
            assert!(refusal.cause().unwrap().contains("column"), "{refusal}");
        }
        assert!(rows(r#"[{"a":1,"b":{"a":1}}, {"a":2}]"#.into()).is_ok());
        assert!(rows("[]".into()).is_ok());
    }

    #[test]
    fn none_is_not_found_and_many_is_a_mistake() {
        assert_eq!(one(0, None).unwrap_err().status().as_u16(), 404);
        assert_eq!(one(2, Some("{}".into())).unwrap_err().status().as_u16(), 500);
    }
}
