//! What of a request may be recorded: only what the plugin read, and no secrets.

use std::collections::BTreeSet;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use crate::decision::{Placement, RequestHead};
use crate::plugin::trace::{Part, Reads};
use crate::policy::{CaseAnswer, REDACTED};

/// Parts of a name that say that its value is a secret. Too many are replaced rather than too few:
/// the operator can name what is to be kept.
const SECRET_NAMES: [&str; 13] = [
    "auth",
    "connection-string",
    "cookie",
    "credential",
    "jwt",
    "key",
    "pass",
    "secret",
    "session",
    "signature",
    "sid",
    "ticket",
    "token",
];

/// How secrets start, whatever their header is called: credentials of RFC 7617 and 6750, and a
/// JSON object in base64, as tokens begin.
const SECRET_VALUES: [&str; 3] = ["basic ", "bearer ", "eyj"];

/// Names of headers and query fields whose values are recorded although they look secret; `claims`
/// among them keeps the claims.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keep(BTreeSet<String>);

impl Keep {
    fn has(&self, name: &str) -> bool {
        self.0.contains(&name.to_ascii_lowercase())
    }

    /// Whether the value is left out.
    pub(in crate::plugin) fn hides(&self, name: &str, value: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let start = value.get(..8).unwrap_or(value).to_ascii_lowercase();
        let secret = SECRET_NAMES.iter().any(|part| name.contains(part))
            || SECRET_VALUES.iter().any(|secret| start.starts_with(secret));
        secret && !self.0.contains(&name)
    }
}

impl<T: AsRef<str>> FromIterator<T> for Keep {
    fn from_iter<I: IntoIterator<Item = T>>(names: I) -> Self {
        Self(names.into_iter().map(|name| name.as_ref().to_ascii_lowercase()).collect())
    }
}

/// The part of `head` that was read, without secrets, and what was replaced in it.
pub(super) fn request(head: &RequestHead, reads: &Reads, keep: &Keep) -> (RequestHead, BTreeSet<String>) {
    let mut replaced = BTreeSet::new();
    let mut shown = RequestHead::default();
    if reads.has(&Part::Method) {
        shown.method = head.method.clone();
    }
    if reads.has(&Part::Scheme) {
        shown.scheme = head.scheme;
    }
    if reads.has(&Part::Authority) {
        shown.authority = head.authority.clone();
        shown.host = head.host.clone();
    }
    let path = if reads.has(&Part::Path) { head.uri.path() } else { "/" };
    let query = head.uri.query().filter(|_| reads.has(&Part::Query));
    let query = query.map(|query| format!("?{}", self::query(query, keep, &mut replaced)));
    shown.uri = target(path, query.as_deref().unwrap_or_default());
    for name in head.headers.keys().filter(|name| was_read(name, reads)) {
        for value in head.headers.get_all(name) {
            let text = String::from_utf8_lossy(value.as_bytes());
            let text = if keep.hides(name.as_str(), &text) {
                replaced.insert(format!("header {name}"));
                REDACTED
            } else {
                &text
            };
            append(&mut shown.headers, name, text);
        }
    }
    if reads.has(&Part::Peer) {
        shown.peer = head.peer;
    }
    if reads.has(&Part::Claims) && head.claims.is_some() {
        if keep.has("claims") {
            shown.claims = head.claims.clone();
        } else {
            replaced.insert("claims".into());
            shown.claims = Some("{}".into());
        }
    }
    (shown, replaced)
}

/// What a plugin answered, without secrets and without its reason, which is for the operator alone.
pub(super) fn answer(answer: CaseAnswer, keep: &Keep) -> CaseAnswer {
    let CaseAnswer::Place(placement) = answer else { return answer };
    let headers = placement.headers.into_iter().map(|(name, value)| {
        let hidden = keep.hides(name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
        let value = if hidden { HeaderValue::from_static(REDACTED) } else { value };
        (name, value)
    });
    CaseAnswer::Place(Placement { headers: headers.collect(), reason: None, ..placement })
}

fn was_read(name: &HeaderName, reads: &Reads) -> bool {
    reads.has(&Part::AllHeaders) || reads.has(&Part::Header(name.as_str().to_owned()))
}

fn append(headers: &mut HeaderMap, name: &HeaderName, text: &str) {
    // Whatever is not UTF-8 became U+FFFD, as it does for the plugin.
    let value = HeaderValue::from_bytes(text.as_bytes()).expect("a header's text is a header's value");
    headers.append(name.clone(), value);
}

/// Fields keep their order and spelling: a plugin reads the query as it was sent.
fn query(query: &str, keep: &Keep, replaced: &mut BTreeSet<String>) -> String {
    let fields = query.split('&').map(|field| {
        let Some((written, value)) = field.split_once('=') else { return field.to_owned() };
        let name = form_urlencoded::parse(written.as_bytes()).next().unwrap_or_default().0;
        if !keep.hides(&name, value) {
            return field.to_owned();
        }
        replaced.insert(format!("query field {name}"));
        format!("{written}={REDACTED}")
    });
    fields.collect::<Vec<_>>().join("&")
}

fn target(path: &str, query: &str) -> Uri {
    // `*`, which only `OPTIONS` may have, is the one target without a path.
    format!("{path}{query}").parse().unwrap_or_else(|_| Uri::from_static("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::trace::Trace;

    fn sent() -> RequestHead {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer t-1"),
            ("cookie", "id=1"),
            ("x-api-key", "k-1"),
            ("x-api-key", "k-2"),
            ("x-plan", "gold"),
            ("x-forwarded-user", "Basic dTpw"),
            ("x-unread", "private"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        RequestHead {
            uri: "/orders?q=a%20b&api_key=k-3&flag&t%6Fken=x&".parse().unwrap(),
            headers,
            claims: Some(r#"{"sub":"7"}"#.into()),
            ..RequestHead::default()
        }
    }

    fn reads(parts: &[Part]) -> Reads {
        let trace = Trace::default();
        parts.iter().for_each(|part| trace.read(part.clone()));
        trace.reads()
    }

    #[test]
    fn only_what_was_read_is_shown() {
        let (shown, replaced) = request(&sent(), &reads(&[]), &Keep::default());
        assert_eq!(shown, RequestHead::default());
        assert!(replaced.is_empty());
        let plan = reads(&[Part::Header("x-plan".into()), Part::Header("x-absent".into()), Part::Path]);
        let (shown, replaced) = request(&sent(), &plan, &Keep::default());
        assert_eq!(shown.uri, "/orders");
        assert_eq!(shown.headers.len(), 1);
        assert_eq!(shown.headers["x-plan"], "gold");
        assert!(replaced.is_empty());
    }

    #[test]
    fn secrets_are_replaced_wherever_they_stand() {
        let (shown, replaced) =
            request(&sent(), &reads(&[Part::AllHeaders, Part::Query, Part::Claims]), &Keep::default());
        let text = format!("{shown:?}");
        for secret in ["t-1", "id=1", "k-1", "k-2", "k-3", "dTpw", "=x", "sub"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        assert_eq!(shown.headers.get_all("x-api-key").iter().count(), 2, "how often it came is no secret");
        assert_eq!(shown.uri.query(), Some("q=a%20b&api_key=[redacted]&flag&t%6Fken=[redacted]&"));
        let names: Vec<&str> = replaced.iter().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "claims",
                "header authorization",
                "header cookie",
                "header x-api-key",
                "header x-forwarded-user",
                "query field api_key",
                "query field token",
            ]
        );
    }

    #[test]
    fn what_the_operator_names_is_kept() {
        let keep: Keep = ["X-API-Key", "claims", "token"].into_iter().collect();
        let (shown, replaced) =
            request(&sent(), &reads(&[Part::Header("x-api-key".into()), Part::Query, Part::Claims]), &keep);
        assert_eq!(shown.headers["x-api-key"], "k-1");
        assert_eq!(shown.claims.as_deref(), Some(r#"{"sub":"7"}"#));
        assert_eq!(replaced.into_iter().collect::<Vec<_>>(), ["query field api_key"]);
    }
}
