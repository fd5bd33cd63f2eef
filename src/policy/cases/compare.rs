//! What differs between two answers, by meaning: the order of headers has none.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use serde::Serialize;

use super::{CaseAnswer, REDACTED};
use crate::decision::Placement;

/// A part of an answer that is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The part: `decision`, `tenant`, `header x-plan`, …
    pub field: String,
    /// What it must be; `None` where it must be absent.
    pub expected: Option<String>,
    /// What it is; `None` where it is absent.
    pub got: Option<String>,
}

impl CaseAnswer {
    /// What differs where this is expected and `got` came; nothing where they agree.
    pub fn differences(&self, got: &Self) -> Vec<Difference> {
        let mut found = Differences(Vec::new());
        match (self, got) {
            (Self::Place(expected), Self::Place(got)) => found.placements(expected, got),
            (Self::Next, Self::Next) => {}
            (
                Self::Deny { status, code, message },
                Self::Deny { status: got_status, code: got_code, message: got_message },
            ) => {
                found.compare("status", Some(status.as_str()), Some(got_status.as_str()));
                found.compare_if_said("code", code.as_deref(), got_code.as_deref());
                found.compare_if_said("message", message.as_deref(), got_message.as_deref());
            }
            (Self::Failure(expected), Self::Failure(got)) => {
                found.compare("failure", Some(expected), Some(got));
            }
            _ => found.compare("decision", Some(&self.to_string()), Some(&got.to_string())),
        }
        found.0
    }
}

struct Differences(Vec<Difference>);

impl Differences {
    fn placements(&mut self, expected: &Placement, got: &Placement) {
        self.compare("tenant", Some(expected.tenant.as_str()), Some(got.tenant.as_str()));
        let (wanted, added) = (by_name(&expected.headers), by_name(&got.headers));
        let missing = wanted.keys().filter(|name| !added.contains_key(*name));
        for name in missing.chain(added.keys()) {
            let (wanted, added) = (wanted.get(name), added.get(name));
            if wanted.is_some_and(|value| value == REDACTED) && added.is_some() {
                continue;
            }
            self.compare(&format!("header {name}"), wanted.map(String::as_str), added.map(String::as_str));
        }
        self.compare("upstream", expected.upstream.as_deref(), got.upstream.as_deref());
        self.compare_if_said("reason", expected.reason.as_deref(), got.reason.as_deref());
    }

    fn compare(&mut self, field: &str, expected: Option<&str>, got: Option<&str>) {
        if expected != got {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            self.0.push(Difference { field: field.into(), expected: owned(expected), got: owned(got) });
        }
    }

    fn compare_if_said(&mut self, field: &str, expected: Option<&str>, got: Option<&str>) {
        if expected.is_some() {
            self.compare(field, expected, got);
        }
    }
}

fn by_name(headers: &[(HeaderName, HeaderValue)]) -> BTreeMap<&str, String> {
    let mut joined: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        joined
            .entry(name.as_str())
            .and_modify(|earlier| *earlier = format!("{earlier}, {value}"))
            .or_insert_with(|| value.into_owned());
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(tenant: &str, headers: &[(&str, &str)]) -> CaseAnswer {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        CaseAnswer::Place(Placement {
            headers: headers.collect(),
            ..Placement::from(tenant.parse::<crate::tenant::TenantId>().unwrap())
        })
    }

    fn fields(expected: &CaseAnswer, got: &CaseAnswer) -> Vec<String> {
        expected.differences(got).into_iter().map(|one| one.field).collect()
    }

    #[test]
    fn answers_agree_by_meaning() {
        let expected = place("acme", &[("x-a", "1"), ("x-b", "2")]);
        assert!(fields(&expected, &place("acme", &[("x-b", "2"), ("x-a", "1")])).is_empty());
        assert_eq!(
            fields(&expected, &place("globex", &[("x-a", "1"), ("x-c", "2")])),
            ["tenant", "header x-b", "header x-c"]
        );
        assert_eq!(fields(&expected, &CaseAnswer::Next), ["decision"]);
        assert_eq!(
            fields(&CaseAnswer::Failure("trap".into()), &CaseAnswer::Failure("memory".into())),
            ["failure"]
        );
    }

    #[test]
    fn what_was_redacted_may_be_anything_but_absent() {
        let expected = place("acme", &[("x-token", REDACTED)]);
        assert!(fields(&expected, &place("acme", &[("x-token", "t-1")])).is_empty());
        assert_eq!(fields(&expected, &place("acme", &[])), ["header x-token"]);
    }

    #[test]
    fn what_is_not_said_of_a_denial_may_be_anything() {
        let deny = |code: Option<&str>, message: Option<&str>| CaseAnswer::Deny {
            status: http::StatusCode::FORBIDDEN,
            code: code.map(Into::into),
            message: message.map(Into::into),
        };
        let got = deny(Some("no-access"), Some("go away"));
        assert!(fields(&deny(None, None), &got).is_empty());
        assert_eq!(fields(&deny(Some("other"), Some("go")), &got), ["code", "message"]);
    }
}
