//! What must come back, and the judgement of what did.

use serde::Deserialize;
use serde_json::Value;

use crate::cli::demo::files::Edition;
use crate::cli::demo::legacy;
use crate::cli::demo::seed::{DemoTenant, SUSPENDED, TENANTS};

/// How much of an answer a complaint quotes, in characters.
const QUOTED_CHARACTERS: usize = 200;

/// What must come back.
#[derive(Debug, Clone)]
pub(super) enum Expected {
    /// So many rows, all of this tenant.
    Rows {
        /// The tenant.
        tenant: &'static str,
        /// How many.
        rows: usize,
    },
    /// One row of this tenant.
    Row {
        /// The tenant.
        tenant: &'static str,
    },
    /// A row that this tenant has had written.
    Written {
        /// The tenant.
        tenant: &'static str,
    },
    /// Rows of the tenant whom one edition of the policy gives the key to, marked with the same
    /// edition.
    OneEdition,
    /// The tenant that an address belongs to.
    Found {
        /// The tenant.
        tenant: &'static str,
    },
    /// The old application was told this tenant, once, and nothing else.
    Told {
        /// The tenant.
        tenant: &'static DemoTenant,
        /// How long the body was when it arrived there.
        received_bytes: usize,
    },
    /// The old application was told of no tenant.
    Untold,
    /// A problem document.
    Refused {
        /// Its status.
        status: u16,
        /// Its code.
        code: &'static str,
    },
}

/// What an answer was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// What it must be.
    Right,
    /// It carries another tenant's data, or told the application another tenant.
    WrongTenant(String),
    /// Anything else.
    Failed(String),
}

impl Expected {
    /// Whether the answer counts as a row written for a tenant.
    pub(super) fn writes_for(&self) -> Option<&'static str> {
        match self {
            Self::Written { tenant } => Some(tenant),
            _ => None,
        }
    }

    /// Judges an answer.
    pub(super) fn judge(&self, status: u16, body: &[u8]) -> Verdict {
        let text = String::from_utf8_lossy(body);
        // Whatever an answer is, a word of another tenant in it is the worst that it can contain.
        if let Some(stranger) = self.owner(&text).and_then(|owner| stranger(&text, owner)) {
            return Verdict::WrongTenant(format!("names `{stranger}`: {}", quoted(&text)));
        }
        match self.is_met(status, body) {
            Ok(true) => Verdict::Right,
            Ok(false) => Verdict::Failed(format!("unexpected answer {status}: {}", quoted(&text))),
            Err(error) => Verdict::Failed(format!("unreadable answer {status} ({error}): {}", quoted(&text))),
        }
    }

    /// The only tenant whom a good answer may name; the empty name is nobody's.
    fn owner(&self, text: &str) -> Option<&'static str> {
        match self {
            Self::Rows { tenant, .. }
            | Self::Row { tenant }
            | Self::Written { tenant }
            | Self::Found { tenant } => Some(tenant),
            Self::Told { tenant, .. } => Some(tenant.id),
            Self::OneEdition => {
                let edition = Edition::ALL.into_iter().find(|edition| text.contains(&edition.mark()));
                Some(edition.map_or("", Edition::moving))
            }
            Self::Untold => Some(""),
            // A refusal may say to its client what that client said.
            Self::Refused { .. } => None,
        }
    }

    fn is_met(&self, status: u16, body: &[u8]) -> Result<bool, serde_json::Error> {
        Ok(match self {
            Self::Rows { tenant, rows } => {
                let found: Vec<Row> = serde_json::from_slice(body)?;
                status == 200 && found.len() == *rows && found.iter().all(|row| row.tenant == *tenant)
            }
            Self::Row { tenant } => {
                let row: Row = serde_json::from_slice(body)?;
                status == 200 && row.tenant == *tenant && row.id == 2
            }
            Self::Written { tenant } => {
                let row: Row = serde_json::from_slice(body)?;
                status == 200 && row.tenant == *tenant && row.name == "attic"
            }
            Self::OneEdition => {
                let found: Vec<Row> = serde_json::from_slice(body)?;
                let one = |edition: Edition| {
                    found.iter().all(|row| {
                        row.edition.as_deref() == Some(edition.word()) && row.tenant == edition.moving()
                    })
                };
                status == 200 && found.len() == 2 && Edition::ALL.into_iter().any(one)
            }
            Self::Found { tenant } => {
                let found: Value = serde_json::from_slice(body)?;
                status == 200 && found["tenant_id"] == *tenant
            }
            Self::Told { tenant, received_bytes } => {
                let answer: legacy::Answer = serde_json::from_slice(body)?;
                let told =
                    |name: &str, value: &str| answer.told.get(name).is_some_and(|values| *values == [value]);
                status == 200
                    && answer.tenant.as_deref() == Some(tenant.id)
                    && answer.told.len() == 2
                    && told("x-tenant-id", tenant.id)
                    && told("x-tenant-schema", tenant.schema)
                    && answer.received_bytes == *received_bytes
            }
            Self::Untold => {
                let answer: legacy::Answer = serde_json::from_slice(body)?;
                status == 200 && answer.tenant.is_none() && answer.told.is_empty()
            }
            Self::Refused { status: expected, code } => {
                let problem: Problem = serde_json::from_slice(body)?;
                status == *expected
                    && problem.status == status
                    && problem.kind == format!("urn:innkeeper:error:{code}")
                    && !problem.request_id.is_empty()
            }
        })
    }
}

impl Edition {
    fn mark(self) -> String {
        format!("\"{}\"", self.word())
    }
}

#[derive(Deserialize)]
struct Row {
    id: i64,
    name: String,
    tenant: String,
    edition: Option<String>,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: String,
    status: u16,
    request_id: String,
}

/// A tenant other than `owner` whom `text` names in any way. The rows that all tenants share in
/// `public` are a stranger's too.
fn stranger(text: &str, owner: &str) -> Option<&'static str> {
    let folded = text.to_ascii_lowercase();
    TENANTS
        .iter()
        .map(|tenant| tenant.id)
        .chain([SUSPENDED, "shared"])
        .find(|name| *name != owner && folded.contains(name))
}

/// The beginning of an answer, on one line.
fn quoted(text: &str) -> String {
    let mut quoted: String = text.chars().filter(|c| !c.is_control()).take(QUOTED_CHARACTERS).collect();
    if quoted.len() < text.len() {
        quoted.push('…');
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(expected: &Expected, status: u16, body: &str) -> &'static str {
        match expected.judge(status, body.as_bytes()) {
            Verdict::Right => "right",
            Verdict::WrongTenant(_) => "wrong tenant",
            Verdict::Failed(_) => "failed",
        }
    }

    #[test]
    fn a_row_of_another_tenant_is_seen() {
        let rows = Expected::Rows { tenant: "acme", rows: 2 };
        let row = |name: &str, tenant: &str| format!(r#"{{"id":1,"name":"{name}","tenant":"{tenant}"}}"#);
        let own = row("Acme house 1", "acme");
        assert_eq!(verdict(&rows, 200, &format!("[{own},{own}]")), "right");
        for foreign in [row("Globex house 1", "globex"), row("Globex house 1", "acme"), row("Olga", "shared")]
        {
            assert_eq!(verdict(&rows, 200, &format!("[{own},{foreign}]")), "wrong tenant", "{foreign}");
        }
        assert_eq!(verdict(&rows, 200, &format!("[{own}]")), "failed");
        assert_eq!(verdict(&rows, 500, &format!("[{own},{own}]")), "failed");
        assert_eq!(verdict(&rows, 200, "<html>"), "failed");
    }

    #[test]
    fn a_mixture_of_two_editions_is_seen() {
        let row = |edition: &str, tenant: &str| {
            format!(r#"{{"id":1,"name":"Ada","tenant":"{tenant}","edition":"{edition}"}}"#)
        };
        let rows = |edition, tenant| format!("[{0},{0}]", row(edition, tenant));
        assert_eq!(verdict(&Expected::OneEdition, 200, &rows("blue", "acme")), "right");
        assert_eq!(verdict(&Expected::OneEdition, 200, &rows("green", "globex")), "right");
        assert_eq!(verdict(&Expected::OneEdition, 200, &rows("green", "acme")), "wrong tenant");
        assert_eq!(verdict(&Expected::OneEdition, 200, &rows("red", "acme")), "wrong tenant");
    }

    #[test]
    fn an_application_that_was_told_too_much_is_seen() {
        let [acme, ..] = &TENANTS;
        let told = Expected::Told { tenant: acme, received_bytes: 0 };
        let answer = |told: &str| {
            format!(
                r#"{{"application":"legacy","path":"/app","tenant":"acme","open_tickets":7,"received_bytes":0,"told":{{{told}}}}}"#
            )
        };
        let good = r#""x-tenant-id":["acme"],"x-tenant-schema":["tenant_acme"]"#;
        assert_eq!(verdict(&told, 200, &answer(good)), "right");
        let forged = format!(r#"{good},"x_tenant_id":["globex"]"#);
        assert_eq!(verdict(&told, 200, &answer(&forged)), "wrong tenant");
        let twice = good.replace(r#"["acme"]"#, r#"["acme","acme"]"#);
        assert_eq!(verdict(&told, 200, &answer(&twice)), "failed");
        assert_eq!(verdict(&Expected::Untold, 200, &answer(good)), "wrong tenant");
    }

    #[test]
    fn a_refusal_has_its_own_code() {
        let refused = Expected::Refused { status: 404, code: "tenant-unknown" };
        let problem = |code: &str| {
            format!(r#"{{"type":"urn:innkeeper:error:{code}","title":"","status":404,"request_id":"r"}}"#)
        };
        assert_eq!(verdict(&refused, 404, &problem("tenant-unknown")), "right");
        assert_eq!(verdict(&refused, 404, &problem("route-not-found")), "failed");
        assert_eq!(verdict(&refused, 200, "[]"), "failed");
    }
}
