//! Names of FROM that stand for what a function answered: `x.f` calls `f` with such an answer, unless
//! `f` is one of its columns.

use std::collections::HashSet;

use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::functions;
use super::names::{CATALOGUE, parts};
use super::objection::{Objection, shown};

/// What a statement says of functions in FROM, and of names with a dot, until all of it is read: FROM
/// stands behind what it is for.
#[derive(Default)]
pub(super) struct Origins {
    items: Vec<Item>,
    fields: Vec<SyntaxNode>,
}

/// A function in FROM.
struct Item {
    name: String,
    columns: HashSet<String>,
}

impl Origins {
    /// Takes note of a part of the statement.
    pub(super) fn note(&mut self, node: &SyntaxNode) -> Result<(), Objection> {
        match node.kind() {
            SyntaxKind::FUNCTION_FROM_ITEM | SyntaxKind::EXPR_FROM_ITEM | SyntaxKind::ROWS_FROM_ITEM => {
                let item = Item::read(node).ok_or_else(|| Objection::Anonymous(text(node)))?;
                self.items.push(item);
            }
            SyntaxKind::FIELD_EXPR => self.fields.push(node.clone()),
            _ => {}
        }
        Ok(())
    }

    /// Judges the fields. Which of two names of one spelling is meant is not asked: the field must be a
    /// column of both.
    pub(super) fn judge(&self, listed: &HashSet<String>) -> Result<(), Objection> {
        if self.items.is_empty() {
            return Ok(());
        }
        for field in &self.fields {
            let Some((name, column)) = column_of(field) else { continue };
            let calls = |item: &Item| item.name == name && !item.columns.contains(&column);
            if !listed.contains(&column) && self.items.iter().any(calls) {
                return Err(Objection::Answer { found: text(field), item: shown(&name) });
            }
        }
        Ok(())
    }
}

impl Item {
    /// What the item is called, and its columns as far as the statement tells them; `None` where only
    /// PostgreSQL knows what it is called.
    fn read(node: &SyntaxNode) -> Option<Self> {
        let alias = node.children().find(|part| part.kind() == SyntaxKind::FROM_ALIAS);
        let called = alias.iter().flat_map(SyntaxNode::children).find_map(|part| {
            (part.kind() == SyntaxKind::TABLE_ALIAS).then(|| parts(&part)).and_then(|mut names| names.pop())
        });
        let mut columns: HashSet<String> = alias
            .iter()
            .flat_map(SyntaxNode::descendants)
            .filter(|part| part.kind() == SyntaxKind::COLUMN_NAME)
            .flat_map(|column| parts(&column))
            .collect();
        let callee = (node.kind() == SyntaxKind::FUNCTION_FROM_ITEM)
            .then(|| node.children().find(|part| part.kind() == SyntaxKind::CALL_EXPR))
            .flatten()
            .and_then(|call| call.first_child())
            .map(|callee| parts(&callee));
        let name = called.or_else(|| callee.as_ref().and_then(|path| path.last().cloned()))?;
        if columns.is_empty() {
            columns.extend(own_columns(callee.as_deref().unwrap_or_default(), &name));
        }
        if node.children().any(|part| part.kind() == SyntaxKind::WITH_ORDINALITY) {
            columns.insert("ordinality".to_owned());
        }
        Some(Self { name, columns })
    }
}

/// The columns of one of PostgreSQL's own functions where the statement names none: a value without a
/// name of its own has that of the item. Other functions may answer with one value of any name.
fn own_columns(callee: &[String], name: &str) -> Vec<String> {
    let function = match callee {
        [function] => function,
        [schema, function] if schema == CATALOGUE => function,
        _ => return Vec::new(),
    };
    match functions::columns(function) {
        Some(columns) => columns.iter().map(|&column| column.to_owned()).collect(),
        None if functions::is_harmless(function) || functions::is_form(function) => vec![name.to_owned()],
        None => Vec::new(),
    }
}

/// The two names of `a.b`, where it is neither the name of a function nor part of a longer one.
fn column_of(field: &SyntaxNode) -> Option<(String, String)> {
    let parent = field.parent()?;
    if parent.kind() == SyntaxKind::FIELD_EXPR
        || (parent.kind() == SyntaxKind::CALL_EXPR && parent.first_child().as_ref() == Some(field))
    {
        return None;
    }
    let (base, column) = (field.first_child()?, field.children().nth(1)?);
    (base.kind() == SyntaxKind::NAME_REF).then_some(())?;
    Some((parts(&base).pop()?, parts(&column).pop()?))
}

fn text(node: &SyntaxNode) -> String {
    shown(&node.text().to_string())
}
