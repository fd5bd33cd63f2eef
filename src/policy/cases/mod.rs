//! Cases: requests with what a plugin must make of them, written by hand or recorded from traffic.

mod compare;
mod document;
mod resolve;
mod rewrite;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use http::StatusCode;

use super::decode::Decode;
use super::diagnostic::{Diagnostics, Excerpt, Report};
use super::load::{self, Surroundings};
use super::source::{Place, Sources};
use super::yaml;
use crate::decision::{Decision, Placement, RequestHead};
use crate::tenant::{TenantId, TenantSchema};

pub use compare::Difference;
pub use rewrite::NotRewritten;

/// What stands where a recording left a secret out. As the value of an expected header it matches
/// any value.
pub const REDACTED: &str = "[redacted]";

/// A file of cases.
#[derive(Debug, Clone, Default)]
pub struct Cases {
    /// The plugin's name, for people.
    pub plugin: Option<String>,
    /// What `configure` is given, if the file says it.
    pub config: Option<serde_json::Value>,
    /// What the plugin may look up in `kv`.
    pub kv: BTreeMap<String, String>,
    /// The cases in their order.
    pub cases: Vec<Case>,
}

/// One request, the world around it, and what must become of it.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its name, which no other case of the file has.
    pub name: String,
    /// Where it is written, if it was read.
    pub at: Option<Excerpt>,
    /// What readers of the file should know of it.
    pub note: Option<String>,
    /// The request; what the case leaves out has its default.
    pub request: Arc<RequestHead>,
    /// What the directory answers: a tenant's schema, or that there is no such tenant.
    pub directory: BTreeMap<TenantId, Option<TenantSchema>>,
    /// What the plugin must answer.
    pub expected: CaseAnswer,
}

/// What a plugin answers, or must.
#[derive(Debug, Clone, PartialEq)]
pub enum CaseAnswer {
    /// The request belongs to a tenant. An expected reason of `None` may be any.
    Place(Placement),
    /// The next resolver is asked.
    Next,
    /// The request is refused.
    Deny {
        /// The status.
        status: StatusCode,
        /// The plugin's code; expected as `None` it may be any.
        code: Option<String>,
        /// The plugin's words for the client; expected as `None` they may be any.
        message: Option<String>,
    },
    /// The plugin fails, with this class.
    Failure(String),
}

impl Cases {
    /// Reads the file at `path`: its text, and the cases. Variables of the environment are not replaced in it: what was
    /// recorded means itself.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub fn parse(path: &Path, surroundings: &dyn Surroundings) -> Result<(String, Self), Diagnostics> {
        match surroundings.read(path) {
            Ok(text) => Self::read(path, &text).map(|cases| (text, cases)),
            Err(error) => {
                let (mut sources, mut report) = (Sources::default(), Report::default());
                let file = sources.add(path, "".into());
                let what = format!("cannot read `{}`: {}", path.display(), load::reason(&error));
                report.error(Place::start_of(file), what);
                Err(report.finish(&sources))
            }
        }
    }

    /// Reads `text`, the content of the file at `path`.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub fn read(path: &Path, text: &str) -> Result<Self, Diagnostics> {
        let (mut sources, mut report) = (Sources::default(), Report::default());
        let cases = read(path, text, &mut sources, &mut report);
        let diagnostics = report.finish(&sources);
        match cases {
            Some(cases) if !diagnostics.has_errors() => Ok(cases),
            _ => Err(diagnostics),
        }
    }
}

fn read(path: &Path, text: &str, sources: &mut Sources, report: &mut Report) -> Option<Cases> {
    let file = sources.add(path, text.into());
    if yaml::is_blank(text) {
        report
            .error(Place::start_of(file), "the file is empty")
            .help("the smallest file of cases is `cases: [ { name: a request, expect: { next: true } } ]`");
        return None;
    }
    let node = yaml::parse(text, file, report)?;
    let document = document::Cases::decode(&node, report)?;
    resolve::resolve(document, sources, report)
}

impl From<Decision> for CaseAnswer {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Place(placement) => Self::Place(placement),
            Decision::Next => Self::Next,
            Decision::Deny(denial) => {
                Self::Deny { status: denial.status, code: Some(denial.code), message: Some(denial.message) }
            }
        }
    }
}

impl fmt::Display for CaseAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place(placement) => write!(f, "tenant {}", placement.tenant),
            Self::Next => f.write_str("next"),
            Self::Deny { status, .. } => write!(f, "deny {}", status.as_u16()),
            Self::Failure(class) => write!(f, "failure {class}"),
        }
    }
}
