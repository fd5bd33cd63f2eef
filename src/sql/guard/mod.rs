//! The guard: reads a statement that a client wrote, and lets it pass only if all of it is known
//! to stay inside its tenant.

mod functions;
mod kinds;
mod memory;
mod names;
mod objection;
mod operators;
mod origins;
mod scan;
mod verdict;

use std::collections::HashSet;

use squawk_syntax::ast::AstNode as _;
use squawk_syntax::{SourceFile, SyntaxElement, SyntaxKind, SyntaxNode};

use super::scope::Scope;
use crate::error::Refusal;
use crate::policy::{SqlEndpoint, StatementKind};
use crate::tenant::SchemaName;
use kinds::Rule;
use memory::Memory;
use names::Schemas;
use objection::{Objection, shown};
use origins::Origins;
use scan::{Token, TokenKind, scan};
use verdict::Judge;

/// What is executed for `CREATE SCHEMA IF NOT EXISTS` of the tenant's own schema. That one is there,
/// and PostgreSQL would still ask for the right to make schemas, by which a role could take the next
/// tenant's name.
const NOTHING: &str = "SELECT WHERE false";

/// What statements of an endpoint may be.
#[derive(Debug)]
pub struct Guard {
    statements: Vec<StatementKind>,
    functions: HashSet<String>,
    operators: HashSet<String>,
    read_only: bool,
    passed: Memory,
}

/// A single statement that passed the guard. Nothing else makes one, and only this is executed.
///
/// It was read as PostgreSQL reads UTF-8 text with `standard_conforming_strings` on: whoever
/// executes it sets both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vetted {
    text: String,
    kind: StatementKind,
}

/// The functions of PostgreSQL's own that any client's statement may call, sorted.
pub fn harmless_functions() -> &'static [&'static str] {
    functions::HARMLESS
}

impl Guard {
    /// The guard of `endpoint`.
    pub fn new(endpoint: &SqlEndpoint) -> Self {
        Self {
            statements: endpoint.statements.clone(),
            functions: endpoint.functions.iter().cloned().collect(),
            operators: endpoint.operators.iter().cloned().collect(),
            read_only: endpoint.read_only,
            passed: Memory::default(),
        }
    }

    /// Reads `sql`, which is to run in `scope`.
    ///
    /// # Errors
    /// `query-refused`, with a detail that names what was found and what to write instead.
    pub fn vet(&self, sql: &str, scope: &Scope) -> Result<Vetted, Refusal> {
        if let Some(kind) = self.passed.recall(sql) {
            return Ok(Vetted { text: sql.to_owned(), kind });
        }
        let schemas = Schemas::new(scope.path().map(SchemaName::as_str).collect());
        let kind = self.read(sql, &schemas)?;
        // A verdict that did not depend on the tenant's schemas holds for every tenant.
        if !schemas.were_consulted() {
            self.passed.keep(sql, kind);
        }
        let is_done = kind == StatementKind::Ddl && asks_for_the_schema(sql);
        Ok(Vetted { text: if is_done { NOTHING } else { sql }.to_owned(), kind })
    }

    /// Two readers must agree on where each word starts and ends, and then each part of the tree
    /// must be on the list of what is understood.
    fn read(&self, sql: &str, schemas: &Schemas<'_>) -> Result<StatementKind, Objection> {
        let tokens = scan(sql)?;
        let parsed = SourceFile::parse(sql);
        let tree = parsed.tree().syntax().clone();
        agree(sql, &tokens, &tree)?;
        let misread = || {
            parsed.errors().first().map(|error| misread(sql, error.message(), error.range().start().into()))
        };
        let statement = only_statement(sql, &tree, misread)?;
        let kind = self.kind(&statement)?;
        if let Some(objection) = misread() {
            return Err(objection);
        }
        operators::judge(sql, &tokens, &self.operators)?;
        let judge = Judge { guard: self, schemas };
        let mut origins = Origins::default();
        for element in statement.descendants_with_tokens() {
            match element {
                SyntaxElement::Node(node) => {
                    judge.node(&node)?;
                    origins.note(&node)?;
                }
                SyntaxElement::Token(token) => judge.token(&token)?,
            }
        }
        origins.judge(&self.functions)?;
        Ok(kind)
    }

    /// What a statement is, going by its own node.
    fn kind(&self, statement: &SyntaxNode) -> Result<StatementKind, Objection> {
        let kind = match kinds::rule(statement.kind()) {
            Rule::Act(kind) => Some(kind),
            Rule::Schema => Some(StatementKind::Ddl),
            _ if kinds::reads(statement.kind()) => Some(StatementKind::Select),
            _ => None,
        };
        kind.filter(|kind| self.statements.contains(kind))
            .ok_or_else(|| Objection::statement(&leading_words(statement), &self.statements))
    }
}

impl Vetted {
    /// The text to execute: the client's own, unless there is nothing to do.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it does. `WITH … INSERT … SELECT` within a SELECT is a SELECT, as EXPLAIN ANALYZE of a
    /// change is an EXPLAIN; both passed only because the change is allowed too.
    pub fn kind(&self) -> StatementKind {
        self.kind
    }
}

/// Compares the parser's tokens with ours: each of its tokens must lie in one of ours and be of the
/// same sort, and together they must leave out nothing. Only operators may be cut differently.
fn agree(sql: &str, tokens: &[Token], tree: &SyntaxNode) -> Result<(), Objection> {
    let mut ours = tokens.iter().peekable();
    let mut covered = 0;
    for theirs in tree.descendants_with_tokens().filter_map(SyntaxElement::into_token) {
        if theirs.kind().is_trivia() || theirs.kind() == SyntaxKind::SEMICOLON {
            continue;
        }
        let (start, end) = (usize::from(theirs.text_range().start()), usize::from(theirs.text_range().end()));
        while ours.next_if(|token| token.end <= start).is_some() {}
        let holds = ours.peek().is_some_and(|token| match token.kind {
            TokenKind::Operator | TokenKind::Mark => token.start <= start && end <= token.end,
            kind => {
                (token.start, token.end) == (start, end) && is_of_kind(theirs.kind(), theirs.text(), kind)
            }
        });
        if !holds {
            return Err(Objection::Ambiguous(shown(&sql[start..])));
        }
        covered += end - start;
    }
    let whole: usize = tokens.iter().map(|token| token.end - token.start).sum();
    if covered == whole { Ok(()) } else { Err(Objection::Ambiguous(shown(sql))) }
}

fn is_of_kind(theirs: SyntaxKind, text: &str, ours: TokenKind) -> bool {
    use SyntaxKind as S;
    match theirs {
        S::STRING | S::ESC_STRING | S::DOLLAR_QUOTED_STRING | S::BIT_STRING | S::BYTE_STRING => {
            ours == TokenKind::Text
        }
        S::INT_NUMBER | S::NUMERIC_NUMBER => ours == TokenKind::Number,
        S::POSITIONAL_PARAM => ours == TokenKind::Parameter,
        S::IDENT if text.starts_with('"') => ours == TokenKind::QuotedName,
        kind => (kind == S::IDENT || kind.is_keyword()) && ours == TokenKind::Word,
    }
}

/// Whether `sql`, which passed, creates a schema unless it is there. The schema is the tenant's own:
/// no other passes.
fn asks_for_the_schema(sql: &str) -> bool {
    SourceFile::parse(sql).tree().syntax().children().any(|statement| {
        statement.kind() == SyntaxKind::CREATE_SCHEMA
            && statement.children().any(|part| part.kind() == SyntaxKind::IF_NOT_EXISTS)
    })
}

/// The statement that `tree` holds. `misread` is the parser's first complaint.
fn only_statement(
    sql: &str,
    tree: &SyntaxNode,
    misread: impl Fn() -> Option<Objection>,
) -> Result<SyntaxNode, Objection> {
    let mut statements = tree.children();
    match (statements.next(), statements.next()) {
        (Some(only), None) if only.kind() != SyntaxKind::ERROR => Ok(only),
        (None, _) => Err(Objection::Empty),
        // The scanner saw one: what the parser cuts in two, it does not understand.
        (Some(first), second) => {
            let start = second.unwrap_or(first).text_range().start();
            Err(misread().unwrap_or_else(|| self::misread(sql, "it is not expected", start.into())))
        }
    }
}

/// That the parser has something to say of what starts at the byte `start`.
fn misread(sql: &str, says: &str, start: usize) -> Objection {
    let (before, rest) = sql.split_at_checked(start).unwrap_or((sql, ""));
    // Where a word is missing, the next one is what PostgreSQL would point at.
    let near = rest.trim_start();
    let position = sql[..sql.len() - near.len()].chars().count() + 1;
    let near = near.split_whitespace().next().or_else(|| before.split_whitespace().last());
    Objection::Syntax { near: shown(near.unwrap_or_default()), says: shown(says), position }
}

/// The keywords that a statement starts with: two at most, as in `CREATE FUNCTION`.
fn leading_words(statement: &SyntaxNode) -> String {
    let words: Vec<String> = statement
        .descendants_with_tokens()
        .filter_map(SyntaxElement::into_token)
        .filter(|token| !token.kind().is_trivia())
        .take(2)
        .take_while(|token| token.kind().is_keyword())
        .map(|token| token.text().to_ascii_uppercase())
        .collect();
    if words.is_empty() { shown(&statement.text().to_string()) } else { words.join(" ") }
}

#[cfg(test)]
mod tests;
