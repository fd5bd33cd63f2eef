//! Which names a statement may spell: those of the tenant's own schemas, and PostgreSQL's harmless
//! helpers.

use std::cell::Cell;

use squawk_syntax::{SyntaxElement, SyntaxKind, SyntaxNode, SyntaxToken};

use super::kinds::Role;
use super::objection::{Objection, shown};
use super::scan::{TokenKind, scan};

/// Types whose values are names, looked up from text, whatever their schema. `regconfig` names a
/// dictionary for full text search, and tells nothing.
const TYPES_THAT_LOOK_UP: [&str; 12] = [
    "aclitem",
    "regclass",
    "regcollation",
    "regdatabase",
    "regdictionary",
    "regnamespace",
    "regoper",
    "regoperator",
    "regproc",
    "regprocedure",
    "regrole",
    "regtype",
];

/// Where types, operators, collations and functions may come from besides a tenant's schemas.
pub(super) const CATALOGUE: &str = "pg_catalog";

/// Words that PostgreSQL reads as values, in an expression and in FROM, and that tell of the server or
/// of whoever connected.
const WORDS_OF_THE_SERVER: [SyntaxKind; 3] =
    [SyntaxKind::CURRENT_CATALOG_KW, SyntaxKind::SESSION_USER_KW, SyntaxKind::SYSTEM_USER_KW];

/// The schemas that a statement may name, its tenant's own one first.
pub(super) struct Schemas<'a> {
    path: Vec<&'a str>,
    consulted: Cell<bool>,
}

impl<'a> Schemas<'a> {
    pub(super) fn new(path: Vec<&'a str>) -> Self {
        Self { path, consulted: Cell::new(false) }
    }

    /// Whether anything was decided by which schemas these are.
    pub(super) fn were_consulted(&self) -> bool {
        self.consulted.get()
    }

    /// The tenant's own.
    pub(super) fn home(&self) -> Option<&str> {
        self.consulted.set(true);
        self.path.first().copied()
    }

    /// Judges the whole name in `node`.
    pub(super) fn judge(&self, role: Role, node: &SyntaxNode) -> Result<(), Objection> {
        let Some(path) = node.children().find(|child| is_path(child.kind())) else {
            // An operator without a schema, or `OWNED BY NONE`.
            return Ok(());
        };
        let parts = parts(&path);
        let names: Vec<&str> = parts.iter().map(String::as_str).collect();
        let text = || shown(&path.text().to_string());
        match (role, names.as_slice()) {
            (Role::Relation | Role::Definition, [name]) => own_relation(name),
            (Role::Relation, [schema, name]) => self.own(schema, &text()).and_then(|()| own_relation(name)),
            (Role::Definition, [schema, _]) if self.home() != Some(schema) => Err(Objection::Schema(text())),
            (Role::Definition, [_, name]) => own_relation(name),
            (Role::Type, [name]) => harmless_type(name),
            (Role::Type, [schema, name]) => {
                self.own_or_catalogue(schema, &text()).and_then(|()| harmless_type(name))
            }
            (Role::Helper, [schema]) if node.kind() == SyntaxKind::OP => {
                self.own_or_catalogue(schema, &text())
            }
            (Role::Helper, [schema, _]) if node.kind() != SyntaxKind::OP => {
                self.own_or_catalogue(schema, &text())
            }
            (Role::Helper, [_]) | (Role::Local, [_]) => Ok(()),
            (Role::Column, [table, _]) => own_relation(table),
            (Role::Column, [schema, table, _]) => {
                self.own(schema, &text()).and_then(|()| own_relation(table))
            }
            _ => Err(Objection::Parts(text())),
        }
    }

    /// Judges the column of a table that is changed itself: the table must be of the tenant's own schema.
    pub(super) fn judge_own_column(&self, node: &SyntaxNode) -> Result<(), Objection> {
        match parts(node).as_slice() {
            [schema, _, _] if self.home() != Some(schema) => {
                Err(Objection::Schema(shown(&node.text().to_string())))
            }
            _ => self.judge(Role::Column, node),
        }
    }

    /// Judges names with dots in an expression, `columns` from left to right: tables can come from
    /// FROM alone, so that only what names a schema matters.
    pub(super) fn judge_columns(&self, columns: &[String], text: &str) -> Result<(), Objection> {
        match columns {
            [] | [_] | [_, _] => Ok(()),
            [schema, _, _] => self.own(schema, &shown(text)),
            _ => Err(Objection::Parts(shown(text))),
        }
    }

    /// Judges a name that is spelled as a string constant, as `nextval` takes it: nothing may stand
    /// before, between or behind its parts.
    pub(super) fn judge_text(&self, text: &str) -> Result<(), Objection> {
        let tokens = scan(text).unwrap_or_default();
        let mut read_to = 0;
        let mut parts = Vec::new();
        for token in &tokens {
            let spelled = &text[token.start..token.end];
            match token.kind {
                TokenKind::Word | TokenKind::QuotedName if token.start == read_to => {
                    parts.push(fold(spelled));
                }
                TokenKind::Mark if token.start == read_to && spelled == "." && parts.len() == 1 => {}
                _ => break,
            }
            read_to = token.end;
        }
        match parts.as_slice() {
            [name] if read_to == text.len() => own_relation(name),
            [schema, name] if read_to == text.len() => {
                self.own(schema, &shown(text)).and_then(|()| own_relation(name))
            }
            _ => Err(Objection::SequenceName(shown(text))),
        }
    }

    /// Judges the schema that `text` starts with.
    pub(super) fn own(&self, schema: &str, text: &str) -> Result<(), Objection> {
        self.consulted.set(true);
        if self.path.contains(&schema) {
            Ok(())
        } else if is_catalogue(schema) {
            Err(Objection::Catalogue(text.to_owned()))
        } else {
            Err(Objection::Schema(text.to_owned()))
        }
    }

    fn own_or_catalogue(&self, schema: &str, text: &str) -> Result<(), Objection> {
        if schema == CATALOGUE { Ok(()) } else { self.own(schema, text) }
    }
}

/// Judges a word wherever it stands: `session_user` is written like a column or a table.
pub(super) fn judge_word(word: &SyntaxToken) -> Result<(), Objection> {
    if WORDS_OF_THE_SERVER.contains(&word.kind()) {
        Err(Objection::ServerName(shown(word.text())))
    } else {
        Ok(())
    }
}

/// The names of a path from left to right, as PostgreSQL stores them.
pub(super) fn parts(path: &SyntaxNode) -> Vec<String> {
    tokens(path)
        .filter(|token| !token.kind().is_trivia() && token.kind() != SyntaxKind::DOT)
        .map(|token| fold(token.text()))
        .collect()
}

/// A name as PostgreSQL stores it. Beyond ASCII nothing is left to fold: the scanner saw to it.
pub(super) fn fold(name: &str) -> String {
    match name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => name.to_ascii_lowercase(),
    }
}

/// Whether values of the type `type_name`, or of its elements, are names that are looked up from text.
pub(super) fn looks_names_up(type_name: &str) -> bool {
    TYPES_THAT_LOOK_UP.contains(&element(type_name))
}

/// PostgreSQL looks into `pg_catalog` first, and everything in it that has rows is called `pg_…`.
fn own_relation(name: &str) -> Result<(), Objection> {
    if name.starts_with("pg_") { Err(Objection::Catalogue(shown(name))) } else { Ok(()) }
}

fn harmless_type(name: &str) -> Result<(), Objection> {
    if looks_names_up(name) || of_the_catalogue(name) { Err(Objection::Type(shown(name))) } else { Ok(()) }
}

/// Whether `type_name` is a row type of the catalogue, or an array of them.
fn of_the_catalogue(type_name: &str) -> bool {
    element(type_name).starts_with("pg_")
}

/// An array's type is called like its element's, behind an underscore.
fn element(type_name: &str) -> &str {
    type_name.trim_start_matches('_')
}

fn is_catalogue(schema: &str) -> bool {
    schema.starts_with("pg_") || schema == "information_schema"
}

fn is_path(kind: SyntaxKind) -> bool {
    matches!(kind, SyntaxKind::PATH | SyntaxKind::PATH_REF)
}

fn tokens(node: &SyntaxNode) -> impl Iterator<Item = SyntaxToken> {
    node.descendants_with_tokens().filter_map(SyntaxElement::into_token)
}
