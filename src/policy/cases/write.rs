//! Cases as text that people read and [`Cases::read`] reads back.

use std::fmt::{self, Write as _};

use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Map, Value};

use super::{Case, CaseAnswer, Cases};
use crate::decision::RequestHead;

impl fmt::Display for Cases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(plugin) = &self.plugin {
            writeln!(f, "plugin: {}", text(plugin))?;
        }
        if let Some(config) = &self.config {
            writeln!(f, "config: {}", flow(config))?;
        }
        if !self.kv.is_empty() {
            let table = self.kv.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str())));
            writeln!(f, "kv: {}", flow(&Value::Object(table.collect())))?;
        }
        if self.cases.is_empty() {
            return writeln!(f, "cases: []");
        }
        writeln!(f, "cases:")?;
        self.cases.iter().try_for_each(|case| write!(f, "{case}"))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  - name: {}", text(&self.name))?;
        for line in self.note.iter().flat_map(|note| note.lines()) {
            writeln!(f, "    # {line}")?;
        }
        write!(f, "{}", self.body())
    }
}

impl Case {
    /// The case without its name and note: equal for cases that say the same.
    pub fn body(&self) -> String {
        let mut body = String::new();
        let mut line = |key: &str, value: Value| {
            let _ = writeln!(body, "    {key}: {}", flow(&value));
        };
        let request = request(&self.request);
        if !request.is_empty() {
            line("request", Value::Object(request));
        }
        if !self.directory.is_empty() {
            let known = self.directory.iter().map(|(id, schema)| {
                let known = schema.as_ref().map(|schema| serde_json::json!({ "schema": schema.as_str() }));
                (id.as_str().to_owned(), known.unwrap_or_default())
            });
            line("directory", Value::Object(known.collect()));
        }
        line("expect", self.expected.to_json());
        body
    }
}

/// What differs from a request that says nothing.
fn request(head: &RequestHead) -> Map<String, Value> {
    let default = RequestHead::default();
    let mut request = Map::new();
    let mut put = |key: &str, value: Value| drop(request.insert(key.to_owned(), value));
    if head.method != Method::GET {
        put("method", head.method.as_str().into());
    }
    if head.scheme != default.scheme {
        put("scheme", head.scheme.into());
    }
    if head.authority != default.authority {
        put("authority", head.authority.as_str().into());
    }
    if head.uri.path() != "/" {
        put("path", head.uri.path().into());
    }
    if let Some(query) = head.uri.query() {
        put("query", query.into());
    }
    if !head.headers.is_empty() {
        put("headers", headers(&head.headers));
    }
    if head.peer != default.peer {
        put("peer", head.peer.to_string().into());
    }
    if let Some(claims) = &head.claims {
        put("claims", serde_json::from_str(claims).unwrap_or_else(|_| Value::from(&**claims)));
    }
    request
}

fn headers(headers: &HeaderMap) -> Value {
    let mut written = Map::new();
    for name in headers.keys() {
        let mut values: Vec<Value> = headers.get_all(name).iter().map(header_text).collect();
        let value = if values.len() == 1 { values.remove(0) } else { Value::Array(values) };
        written.insert(name.as_str().to_owned(), value);
    }
    Value::Object(written)
}

/// A plugin sees bytes that are not UTF-8 as U+FFFD, and so does the reader of a case.
fn header_text(value: &HeaderValue) -> Value {
    String::from_utf8_lossy(value.as_bytes()).into()
}

impl CaseAnswer {
    /// The answer as `expect` says it.
    pub fn to_json(&self) -> Value {
        let mut written = Map::new();
        let mut put = |key: &str, value: Value| drop(written.insert(key.to_owned(), value));
        match self {
            Self::Place(placement) => {
                put("tenant", placement.tenant.as_str().into());
                if !placement.headers.is_empty() {
                    put("headers", headers(&placement.headers.iter().cloned().collect()));
                }
                if let Some(upstream) = &placement.upstream {
                    put("upstream", upstream.as_str().into());
                }
                if let Some(reason) = &placement.reason {
                    put("reason", reason.as_str().into());
                }
            }
            Self::Next => put("next", true.into()),
            Self::Deny { status, code, message } => {
                let mut denial = Map::new();
                denial.insert("status".into(), status.as_u16().into());
                denial.extend(code.iter().map(|code| ("code".to_owned(), code.as_str().into())));
                denial.extend(message.iter().map(|message| ("message".to_owned(), message.as_str().into())));
                put("deny", denial.into());
            }
            Self::Failure(class) => put("failure", class.as_str().into()),
        }
        Value::Object(written)
    }
}

/// A value on one line, as YAML.
pub(super) fn flow(value: &Value) -> String {
    match value {
        Value::String(string) => text(string),
        Value::Array(items) if items.is_empty() => "[]".into(),
        Value::Array(items) => format!("[ {} ]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) if entries.is_empty() => "{}".into(),
        Value::Object(entries) => {
            let pairs = entries.iter().map(|(key, value)| format!("{}: {}", text(key), flow(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// A text as YAML reads it back: plain where that is surely a text, else in quotes.
fn text(text: &str) -> String {
    let plain = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./@+".contains(c))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str());
    if plain {
        return text.to_owned();
    }
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            // Line breaks to YAML, invisible to a reader, or both.
            '\u{2028}' | '\u{2029}' | '\u{feff}' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(character));
            }
            _ if character.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(character));
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::HeaderName;
    use proptest::prelude::*;

    use super::*;
    use crate::decision::Placement;
    use crate::tenant::{TenantId, TenantSchema};

    fn headers() -> impl Strategy<Value = Vec<(HeaderName, HeaderValue)>> {
        let name = "[a-z][a-z0-9-]{0,8}".prop_map(|name| name.parse::<HeaderName>().unwrap());
        let value = r#"[ -~äß\u{2028}\u{feff}]{0,12}"#
            .prop_map(|value| HeaderValue::from_bytes(value.as_bytes()).unwrap());
        prop::collection::vec((name, value), 0..4)
    }

    fn tenant() -> impl Strategy<Value = TenantId> {
        "[!-~]{1,12}".prop_map(|id| id.parse().unwrap())
    }

    fn answers() -> impl Strategy<Value = CaseAnswer> {
        let place = (tenant(), headers(), prop::option::of("\\PC{1,8}"), prop::option::of("\\PC{1,8}"));
        prop_oneof![
            Just(CaseAnswer::Next),
            "[a-z-]{1,8}".prop_map(CaseAnswer::Failure),
            (400..600u16, prop::option::of("[!-~]{1,8}"), prop::option::of("\\PC{0,12}")).prop_map(
                |(status, code, message)| CaseAnswer::Deny {
                    status: status.try_into().unwrap(),
                    code,
                    message
                }
            ),
            place.prop_map(|(tenant, headers, upstream, reason)| {
                CaseAnswer::Place(Placement { tenant, headers, upstream, reason })
            }),
        ]
    }

    prop_compose! {
        fn cases()(
            method in prop_oneof![Just("GET"), Just("DELETE"), Just("PURGE")],
            scheme in prop_oneof![Just("http"), Just("https")],
            authority in "\\PC{0,12}",
            path in "/[a-z0-9%~:@,.]{0,8}",
            query in prop::option::of("[a-z0-9=&?/:,%]{0,8}"),
            headers in headers(),
            peer in any::<(std::net::Ipv4Addr, u16)>(),
            claims in prop::option::of(prop::collection::btree_map("\\PC{0,6}", any::<i64>(), 0..3)),
            directory in prop::collection::btree_map(tenant(), prop::option::of("[a-z \"']{1,8}"), 0..3),
            expected in answers(),
            name in "\\PC{1,20}",
        ) -> Case {
            let uri = query.map_or(path.clone(), |query| format!("{path}?{query}"));
            let claims = claims.map(|claims| serde_json::to_string(&claims).unwrap().into());
            let schema = |schema: String| schema.parse::<TenantSchema>().unwrap();
            Case {
                name,
                at: None,
                note: Some("Read by people: not by the parser.".into()),
                request: Arc::new(RequestHead {
                    method: method.parse().unwrap(),
                    scheme,
                    host: crate::decision::host_of(&authority),
                    authority,
                    uri: uri.parse().unwrap(),
                    headers: headers.into_iter().collect(),
                    peer: std::net::SocketAddr::from(peer).into(),
                    claims,
                    ..RequestHead::default()
                }),
                directory: directory.into_iter().map(|(id, known)| (id, known.map(schema))).collect(),
                expected,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(case in cases(), kv in prop::collection::btree_map("\\PC{0,6}", "\\PC{0,6}", 0..3)) {
            let config = Some(serde_json::json!({ "keys": { "k 1": [1, "1", null, true, "true"] } }));
            let written = Cases { plugin: Some("no".into()), config, kv, cases: vec![case] };
            let text = written.to_string();
            let read = Cases::read("cases.yaml".as_ref(), &text)
                .unwrap_or_else(|error| panic!("{text}\n{error}"));
            prop_assert_eq!((&read.plugin, &read.config, &read.kv), (&written.plugin, &written.config, &written.kv));
            let (read, written) = (&read.cases[0], &written.cases[0]);
            prop_assert_eq!(&read.name, &written.name);
            prop_assert_eq!(&read.request, &written.request, "{}", text);
            prop_assert_eq!(&read.directory, &written.directory);
            prop_assert!(written.expected.differences(&read.expected).is_empty(), "{}", text);
        }

        #[test]
        fn any_answer_takes_the_place_of_any_other(case in cases(), answer in answers()) {
            let cases = Cases { cases: vec![case.clone()], ..Cases::default() };
            let other = Case { expected: answer.clone(), ..case };
            let wanted = Cases { cases: vec![other], ..Cases::default() }.to_string();
            let expected = [(cases.cases[0].name.as_str(), answer)].into();
            prop_assert_eq!(cases.rewrite(&cases.to_string(), &expected), Ok(wanted));
        }
    }
}
