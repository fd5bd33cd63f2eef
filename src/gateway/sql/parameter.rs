//! Makes a parameter of a JSON value: text as PostgreSQL reads it, or NULL. Numbers keep their
//! digits, because they are never read as numbers.

use serde_json::value::RawValue;

/// Dimensions that an array of PostgreSQL's can have.
const MOST_DIMENSIONS: usize = 6;

/// The text of a parameter; `None` is NULL.
pub(super) fn text(value: &RawValue) -> Result<Option<String>, String> {
    match value.get().as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => string(value).map(Some),
        Some(b'[') => {
            let mut literal = String::with_capacity(value.get().len() + 2);
            push_array(&mut literal, value, 1)?;
            Ok(Some(literal))
        }
        // A number, a boolean, or an object, which PostgreSQL reads as JSON.
        _ => Ok(Some(value.get().to_owned())),
    }
}

/// Writes a JSON array as PostgreSQL's own: `[1,null,"a b"]` is `{1,NULL,"a b"}`.
fn push_array(literal: &mut String, value: &RawValue, dimension: usize) -> Result<(), String> {
    if dimension > MOST_DIMENSIONS {
        return Err(format!("an array in `params` has at most {MOST_DIMENSIONS} dimensions"));
    }
    let elements: Vec<&RawValue> = read(value)?;
    literal.push('{');
    for (index, element) in elements.into_iter().enumerate() {
        if index > 0 {
            literal.push(',');
        }
        match element.get().as_bytes().first() {
            Some(b'n') => literal.push_str("NULL"),
            Some(b'[') => push_array(literal, element, dimension + 1)?,
            Some(b'"') => push_quoted(literal, &string(element)?),
            Some(b'{') => push_quoted(literal, element.get()),
            _ => literal.push_str(element.get()),
        }
    }
    literal.push('}');
    Ok(())
}

fn push_quoted(literal: &mut String, text: &str) {
    literal.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            literal.push('\\');
        }
        literal.push(character);
    }
    literal.push('"');
}

fn string(value: &RawValue) -> Result<String, String> {
    read(value)
}

fn read<'a, T: serde::Deserialize<'a>>(value: &'a RawValue) -> Result<T, String> {
    serde_json::from_str(value.get())
        .map_err(|error| format!("`params` holds a value that is not sound: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(json: &str) -> Result<Option<String>, String> {
        text(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_value_becomes_the_text_that_postgresql_reads() {
        for (json, expected) in [
            ("null", None),
            (r#""a\nb""#, Some("a\nb")),
            ("true", Some("true")),
            (
                "12345678901234567890.123456789012345678901",
                Some("12345678901234567890.123456789012345678901"),
            ),
            (r#"{"a": [1]}"#, Some(r#"{"a": [1]}"#)),
            (r#"[1, null, "a \"b\" \\", true, [ 2 ]]"#, Some(r#"{1,NULL,"a \"b\" \\",true,{2}}"#)),
            (r#"[{"a": "b"}]"#, Some(r#"{"{\"a\": \"b\"}"}"#)),
            (r#"["NULL", "", "{}"]"#, Some(r#"{"NULL","","{}"}"#)),
            ("[]", Some("{}")),
        ] {
            assert_eq!(text_of(json).unwrap().as_deref(), expected, "{json}");
        }
    }

    #[test]
    fn arrays_nest_as_deep_as_postgresqls_own() {
        assert!(text_of(&format!("{}{}", "[".repeat(6), "]".repeat(6))).is_ok());
        assert!(text_of(&format!("{}{}", "[".repeat(7), "]".repeat(7))).unwrap_err().contains("dimensions"));
    }
}
