//! Writes a value of PostgreSQL's text format as JSON: numbers, booleans, JSON and arrays of them
//! as such, all else as a string. Digits are copied and never read as a number, so that none is
//! lost; types whose values a JSON reader would round (`int8`, `numeric`) stay strings.

/// What a type's values are in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A string: PostgreSQL's text.
    Text,
    Bool,
    Number,
    /// A number, unless it is NaN or infinite.
    Float,
    Json,
    /// An array whose elements are of one of these kinds.
    Array(Element),
}

/// What an array's elements are in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    Text,
    Bool,
    Number,
    Float,
    Json,
}

impl Kind {
    /// The kind of a type, by its OID. Types that are not PostgreSQL's own have OIDs that differ
    /// from one database to the next, and are text, their arrays too.
    pub(super) fn of(type_oid: u32) -> Self {
        match type_oid {
            16 => Self::Bool,
            21 | 23 => Self::Number,
            700 | 701 => Self::Float,
            114 | 3802 => Self::Json,
            1000 => Self::Array(Element::Bool),
            1005 | 1007 => Self::Array(Element::Number),
            1021 | 1022 => Self::Array(Element::Float),
            199 | 3807 => Self::Array(Element::Json),
            // bytea, "char", name, int8, oid, text, bpchar, varchar.
            1001 | 1002 | 1003 | 1016 | 1028 | 1009 | 1014 | 1015
            // numeric, uuid, money, bit, varbit, xml.
            | 1231 | 2951 | 791 | 1561 | 1563 | 143
            // timestamp, date, time, timestamptz, interval, timetz.
            | 1115 | 1182 | 1183 | 1185 | 1187 | 1270
            // inet, cidr, macaddr.
            | 1041 | 651 | 1040
            // point, lseg, path, polygon, circle, line. Not box: `;` stands between its values.
            | 1017 | 1018 | 1019 | 1027 | 719 | 629
            // Ranges of int4, numeric, timestamp, timestamptz, date, int8.
            | 3905 | 3907 | 3909 | 3911 | 3913 | 3927 => Self::Array(Element::Text),
            _ => Self::Text,
        }
    }

    /// Writes a value.
    pub(super) fn push(self, out: &mut Vec<u8>, text: &str) {
        let element = match self {
            Self::Text => Element::Text,
            Self::Bool => Element::Bool,
            Self::Number => Element::Number,
            Self::Float => Element::Float,
            Self::Json => Element::Json,
            Self::Array(element) => {
                let start = out.len();
                let body = text.find('{').map_or("", |at| &text[at..]);
                // What is no array after all is shown as it is, and nothing of it is lost.
                let reader = Reader { rest: body };
                if reader.array(out, element, 1).is_none_or(|rest| !rest.is_empty()) {
                    out.truncate(start);
                    push_string(out, text);
                }
                return;
            }
        };
        element.push(out, text);
    }
}

impl Element {
    fn push(self, out: &mut Vec<u8>, text: &str) {
        match self {
            Self::Bool => out.extend_from_slice(if text == "t" { b"true" } else { b"false" }),
            Self::Number => out.extend_from_slice(text.as_bytes()),
            // What PostgreSQL writes of a finite float is a number of JSON's.
            Self::Float if text.ends_with(|last: char| last.is_ascii_digit()) => {
                out.extend_from_slice(text.as_bytes());
            }
            // Line ends stand between JSON's tokens only, and would end a line of a stream.
            Self::Json => {
                out.extend(text.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
            }
            Self::Text | Self::Float => push_string(out, text),
        }
    }
}

/// Writes a JSON string.
pub(super) fn push_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string is written to memory");
}

/// Reads an array as PostgreSQL writes it (manual, chapter 8.15.6).
struct Reader<'t> {
    rest: &'t str,
}

impl<'t> Reader<'t> {
    /// Writes the array that `rest` starts with; what stands behind it.
    fn array(mut self, out: &mut Vec<u8>, element: Element, dimension: u8) -> Option<&'t str> {
        // PostgreSQL has six.
        if dimension > 6 || !self.takes('{') {
            return None;
        }
        out.push(b'[');
        if self.takes('}') {
            out.push(b']');
            return Some(self.rest);
        }
        loop {
            match self.rest.chars().next()? {
                '{' => self.rest = Self { rest: self.rest }.array(out, element, dimension + 1)?,
                '"' => {
                    let text = self.quoted()?;
                    element.push(out, &text);
                }
                _ => {
                    let end = self.rest.find([',', '}'])?;
                    let (text, behind) = self.rest.split_at(end);
                    self.rest = behind;
                    if text == "NULL" { out.extend_from_slice(b"null") } else { element.push(out, text) }
                }
            }
            if self.takes('}') {
                out.push(b']');
                return Some(self.rest);
            }
            if !self.takes(',') {
                return None;
            }
            out.push(b',');
        }
    }

    fn quoted(&mut self) -> Option<String> {
        let mut text = String::new();
        let mut characters = self.rest.char_indices().skip(1);
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Some(text);
                }
                '\\' => text.push(characters.next()?.1),
                other => text.push(other),
            }
        }
        None
    }

    fn takes(&mut self, sign: char) -> bool {
        self.rest.strip_prefix(sign).inspect(|rest| self.rest = rest).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(type_oid: u32, text: &str) -> String {
        let mut out = Vec::new();
        Kind::of(type_oid).push(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_json_can_hold_exactly_is_json_and_all_else_is_text() {
        for (type_oid, text, expected) in [
            (16, "t", "true"),
            (23, "-7", "-7"),
            (20, "9007199254740993", r#""9007199254740993""#),
            (1700, "1.10", r#""1.10""#),
            (701, "1e+20", "1e+20"),
            (701, "-0", "-0"),
            (701, "NaN", r#""NaN""#),
            (701, "-Infinity", r#""-Infinity""#),
            (3802, r#"{"a": 12345678901234567890.10}"#, r#"{"a": 12345678901234567890.10}"#),
            (114, "[1,\n2]", "[1, 2]"),
            (25, "a\"b\n", r#""a\"b\n""#),
            (99_999, "{a,b}", r#""{a,b}""#),
        ] {
            assert_eq!(written(type_oid, text), expected);
        }
    }

    #[test]
    fn arrays_are_read_as_postgresql_writes_them() {
        for (type_oid, text, expected) in [
            (1007, "{}", "[]"),
            (1007, "{1,NULL,3}", "[1,null,3]"),
            (1007, "{{1,2},{3,4}}", "[[1,2],[3,4]]"),
            (1007, "[0:1]={1,2}", "[1,2]"),
            (1000, "{t,f}", "[true,false]"),
            (1016, "{9007199254740993}", r#"["9007199254740993"]"#),
            (1022, "{1.5,NaN}", r#"[1.5,"NaN"]"#),
            (1009, r#"{a,"b,c","d\"e\\","NULL",NULL,""}"#, r#"["a","b,c","d\"e\\","NULL",null,""]"#),
            (3807, r#"{"{\"a\": 1}",2}"#, r#"[{"a": 1},2]"#),
            (1009, "{broken", r#""{broken""#),
        ] {
            assert_eq!(written(type_oid, text), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_text_is_json_comes_out(text in proptest::prelude::any::<String>()) {
            for type_oid in [25, 1009, 1016] {
                let out = written(type_oid, &text);
                proptest::prop_assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{}", out);
            }
        }
    }
}
