//! What the doctor finds, and how it is told: to people, and as one JSON document.

use std::fmt::{self, Write as _};

use serde::{Serialize, Serializer};

use super::subject::Subject;
use crate::policy::Name;
use crate::tenant::Isolation;

/// How much a finding matters, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// A tenant reaches what is another's.
    Leak,
    /// Nothing is reached today; one mistake more, and it is. Or requests will fail.
    Risk,
    /// Worth knowing; often a property of the level that was chosen.
    Note,
    /// It was tried, and it holds.
    Holds,
}

/// One thing that was found, or was looked for in vain.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    /// Stable, for scripts.
    pub(super) id: &'static str,
    /// How much it matters.
    pub(super) severity: Severity,
    /// What is so.
    pub(super) what: String,
    /// Why that matters; empty where it holds.
    pub(super) why: &'static str,
    /// Statements that mend it, to be run by an administrator; empty where none can.
    pub(super) mend: Vec<String>,
    /// The tenants that it was seen at.
    pub(super) tenants: Vec<String>,
}

impl Finding {
    /// A finding without advice yet.
    pub(super) fn new(severity: Severity, id: &'static str, what: impl Into<String>) -> Self {
        Self { id, severity, what: what.into(), why: "", mend: Vec::new(), tenants: Vec::new() }
    }

    pub(super) fn because(mut self, why: &'static str) -> Self {
        self.why = why;
        self
    }

    pub(super) fn mended_by(mut self, statements: impl IntoIterator<Item = String>) -> Self {
        self.mend.extend(statements);
        self
    }

    pub(super) fn at<'a>(mut self, tenants: impl IntoIterator<Item = &'a Subject>) -> Self {
        self.tenants.extend(tenants.into_iter().map(|tenant| tenant.id.to_string()));
        self
    }
}

/// A database after it was looked at.
#[derive(Debug, Serialize)]
pub(super) struct Examined {
    /// Its name in the policy.
    pub(super) database: Name,
    /// Its level.
    #[serde(serialize_with = "as_text")]
    pub(super) isolation: Isolation,
    /// What the server calls itself; `None` where it could not be reached.
    pub(super) server: Option<String>,
    /// The tenants that were taken as a sample.
    pub(super) tenants: Vec<String>,
    /// What was found, the worst first.
    pub(super) findings: Vec<Finding>,
    /// What could not be looked at, and why.
    pub(super) unseen: Vec<String>,
}

/// Everything that was looked at.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Each database.
    pub(super) databases: Vec<Examined>,
}

impl Report {
    /// Whether a tenant reaches what is another's anywhere.
    pub(super) fn leaks(&self) -> bool {
        self.databases.iter().flat_map(|one| &one.findings).any(|found| found.severity == Severity::Leak)
    }

    /// Whether something could not be looked at.
    pub(super) fn is_partial(&self) -> bool {
        self.databases.iter().any(|one| !one.unseen.is_empty())
    }

    /// For scripts.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("text and lists always become JSON")
    }
}

/// For people: what leaks first, what holds last and in one line each.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, one) in self.databases.iter().enumerate() {
            if index > 0 {
                f.write_char('\n')?;
            }
            let server = one.server.as_deref().unwrap_or("not reached");
            writeln!(f, "database {}: {server}, level `{}`", one.database, one.isolation)?;
            if !one.tenants.is_empty() {
                writeln!(f, "tenants looked at: {}", one.tenants.join(", "))?;
            }
            for unseen in &one.unseen {
                writeln!(f, "\nunseen  {unseen}")?;
            }
            let mut before = Severity::Leak;
            for found in &one.findings {
                if found.severity != Severity::Holds || before != Severity::Holds {
                    f.write_char('\n')?;
                }
                write!(f, "{found}")?;
                before = found.severity;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<6}  {}: {}", self.severity, self.id, self.what)?;
        if !self.why.is_empty() {
            writeln!(f, "        {}", self.why)?;
        }
        for (index, statement) in self.mend.iter().enumerate() {
            let label = if index == 0 { "mend" } else { "" };
            writeln!(f, "  {label:<4}  {statement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Leak => "LEAK",
            Self::Risk => "risk",
            Self::Note => "note",
            Self::Holds => "holds",
        })
    }
}

fn as_text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
