//! Judges the parts of a statement's tree one by one.

use squawk_syntax::{SyntaxKind, SyntaxNode, SyntaxToken};

use super::Guard;
use super::functions;
use super::kinds::{self, Role, Rule};
use super::names::{self, CATALOGUE, Schemas};
use super::objection::{Objection, shown, verb};
use crate::policy::{StatementKind, is_forbidden_function};

/// The options of EXPLAIN that show the plan and nothing of the server.
const EXPLAIN_OPTIONS: [&str; 8] =
    ["analyze", "buffers", "costs", "format", "summary", "timing", "verbose", "wal"];

/// A guard at work on one statement.
pub(super) struct Judge<'a> {
    pub(super) guard: &'a Guard,
    pub(super) schemas: &'a Schemas<'a>,
}

impl Judge<'_> {
    /// Judges a node by itself; what is in it is judged in its own turn.
    pub(super) fn node(&self, node: &SyntaxNode) -> Result<(), Objection> {
        match kinds::rule(node.kind()) {
            Rule::Plain => Ok(()),
            Rule::Act(kind) => self.act(kind, node),
            Rule::Name(Role::Type) if is_sequence_cast(node) => Ok(()),
            Rule::Name(Role::Relation) if is_commented_on(node) => self.schemas.judge(Role::Definition, node),
            Rule::Name(Role::Column) if is_commented_on(node) => self.schemas.judge_own_column(node),
            Rule::Name(role) => self.schemas.judge(role, node),
            Rule::NamePart => part_of_a_judged_name(node),
            Rule::Field if is_callee(node) => Ok(()),
            Rule::Field => self.field(node),
            Rule::Call => self.call(node),
            Rule::Schema => self.create_schema(node),
            Rule::Lock if self.guard.read_only => Err(Objection::Lock),
            Rule::Lock => lock(node),
            Rule::ExplainOption => explain_option(node),
            Rule::Refused => Err(Objection::Construct(shown(&node.text().to_string()))),
        }
    }

    /// Judges a word or mark that is no node.
    pub(super) fn token(&self, token: &SyntaxToken) -> Result<(), Objection> {
        names::judge_word(token)?;
        let is_name = (token.kind() == SyntaxKind::IDENT || token.kind().is_keyword())
            && token.parent().is_some_and(|parent| kinds::holds_a_name(parent.kind()));
        if is_name || kinds::is_structure(token.kind()) {
            Ok(())
        } else {
            Err(Objection::Construct(shown(token.text())))
        }
    }

    fn act(&self, kind: StatementKind, node: &SyntaxNode) -> Result<(), Objection> {
        // SELECT INTO makes a table of what it reads.
        let reads_too = node.kind() == SyntaxKind::SELECT_INTO;
        for kind in std::iter::once(kind).chain(reads_too.then_some(StatementKind::Select)) {
            if !self.guard.statements.contains(&kind) {
                let found = if reads_too { "SELECT INTO" } else { verb(kind) };
                return Err(Objection::statement(found, &self.guard.statements));
            }
        }
        Ok(())
    }

    fn call(&self, call: &SyntaxNode) -> Result<(), Objection> {
        let callee = call.first_child().ok_or_else(|| refused(call))?;
        let path = match callee.kind() {
            kind if kinds::is_call_by_grammar(kind) => return Ok(()),
            SyntaxKind::NAME_REF => names::parts(&callee),
            SyntaxKind::FIELD_EXPR => dotted_names(&callee).ok_or_else(|| refused(call))?,
            _ => return Err(refused(call)),
        };
        let text = shown(&callee.text().to_string());
        let (schema, name) = match path.as_slice() {
            [name] => (None, name.as_str()),
            [schema, name] => (Some(schema.as_str()), name.as_str()),
            _ => return Err(Objection::Parts(text)),
        };
        if is_forbidden_function(name) {
            return Err(Objection::ForbiddenFunction(text));
        }
        if let Some(schema) = schema
            && schema != CATALOGUE
        {
            self.schemas.own(schema, &text)?;
        }
        // A harmless function is PostgreSQL's own: under another schema's name it is not it.
        let is_builtin = schema.is_none_or(|schema| schema == CATALOGUE);
        let is_known = self.guard.functions.contains(name)
            || (is_builtin && functions::is_harmless(name))
            || (schema.is_none() && functions::is_form(name));
        if !is_known {
            return match (is_builtin && functions::is_harmless_as_text(name), becomes_text(call)) {
                (true, true) => Ok(()),
                (true, false) => Err(Objection::OnlyAsText(shown(&call.text().to_string()))),
                (false, _) => Err(Objection::Function(text)),
            };
        }
        if functions::takes_a_sequence(name) { self.sequence(call, &text) } else { Ok(()) }
    }

    /// The sequence of `nextval` must be spelled out: computed text could name any.
    fn sequence(&self, call: &SyntaxNode, function: &str) -> Result<(), Objection> {
        let text = first_argument(call).and_then(|argument| match argument.kind() {
            SyntaxKind::CAST_EXPR if argument.children().any(|part| is_sequence_cast(&part)) => {
                argument.children().find_map(|part| plain_text(&part))
            }
            _ => plain_text(&argument),
        });
        self.schemas.judge_text(&text.ok_or_else(|| Objection::SequenceName(function.to_owned()))?)
    }

    fn field(&self, field: &SyntaxNode) -> Result<(), Objection> {
        let text = field.text().to_string();
        // `x.f` calls f(x) where x has no such column.
        let last = field.children().nth(1).map(|name| names::parts(&name)).unwrap_or_default();
        if last.iter().any(|name| is_forbidden_function(name)) {
            return Err(Objection::ForbiddenFunction(shown(&text)));
        }
        if last.iter().any(|name| functions::reaches_as_a_field(name)) {
            return Err(Objection::Field(shown(&text)));
        }
        match dotted_names(field) {
            // The whole of `a.b.c` tells whether `a` is a schema.
            Some(_) if field.parent().is_some_and(|parent| parent.kind() == SyntaxKind::FIELD_EXPR) => Ok(()),
            Some(columns) => self.schemas.judge_columns(&columns, &text),
            // What starts with a value has any function of one argument for a field.
            None if last.iter().all(|name| self.guard.functions.contains(name)) => Ok(()),
            None if is_column_of_a_call(field, &last) => Ok(()),
            None => Err(Objection::CompositeField(shown(&text))),
        }
    }

    fn create_schema(&self, node: &SyntaxNode) -> Result<(), Objection> {
        let is_plain = node
            .children()
            .all(|part| matches!(part.kind(), SyntaxKind::IF_NOT_EXISTS | SyntaxKind::NAMED_SCHEMA));
        let named = node.children().find(|part| part.kind() == SyntaxKind::NAMED_SCHEMA);
        let name = named.map(|name| names::parts(&name)).unwrap_or_default();
        match name.as_slice() {
            [name] if is_plain && self.schemas.home() == Some(name) => Ok(()),
            _ => Err(Objection::CreateSchema),
        }
    }
}

fn refused(node: &SyntaxNode) -> Objection {
    Objection::Construct(shown(&node.text().to_string()))
}

fn part_of_a_judged_name(node: &SyntaxNode) -> Result<(), Objection> {
    match node.parent().map(|parent| kinds::rule(parent.kind())) {
        Some(Rule::Name(_) | Rule::NamePart) => Ok(()),
        _ => Err(refused(node)),
    }
}

/// A lock names tables of FROM, by what they are called there.
fn lock(clause: &SyntaxNode) -> Result<(), Objection> {
    let mut named = clause.children().filter(|part| part.kind() == SyntaxKind::LOCKING_OF);
    match named.find(|list| list.children().any(|table| table.kind() != SyntaxKind::NAME_REF)) {
        Some(list) => Err(refused(&list)),
        None => Ok(()),
    }
}

/// Whether `field` is `(f(…)).column`, where `f` is PostgreSQL's own and answers with such columns.
fn is_column_of_a_call(field: &SyntaxNode, column: &[String]) -> bool {
    let base = field.first_child().filter(|base| base.kind() == SyntaxKind::PAREN_EXPR);
    let call = base.and_then(|base| base.first_child()).filter(|call| call.kind() == SyntaxKind::CALL_EXPR);
    let callee = call.and_then(|call| call.first_child()).map(|callee| names::parts(&callee));
    let columns = match callee.as_deref() {
        Some([function]) => functions::columns(function).unwrap_or_default(),
        _ => &[],
    };
    // One column alone is the value itself, whatever it is called.
    columns.len() > 1 && column.iter().all(|name| columns.contains(&name.as_str()))
}

/// Whether `name` is what COMMENT describes, or the table of it.
fn is_commented_on(name: &SyntaxNode) -> bool {
    name.ancestors().any(|above| above.kind() == SyntaxKind::COMMENT_ON)
}

/// Whether `field` is the name of a function that is called, and judged with the call.
fn is_callee(field: &SyntaxNode) -> bool {
    field.parent().is_some_and(|parent| {
        parent.kind() == SyntaxKind::CALL_EXPR && parent.first_child().as_ref() == Some(field)
    })
}

/// The names of `a.b.c` from left to right, or `None` if it starts with something else. The star of
/// `a.*` counts as a name.
fn dotted_names(field: &SyntaxNode) -> Option<Vec<String>> {
    let base = field.first_child()?;
    let mut names = match base.kind() {
        SyntaxKind::NAME_REF => names::parts(&base),
        SyntaxKind::FIELD_EXPR => dotted_names(&base)?,
        _ => return None,
    };
    match field.children().nth(1) {
        Some(name) => names.extend(names::parts(&name)),
        None => names.push("*".to_owned()),
    }
    Some(names)
}

/// Whether what `call` answers is text before anything else sees it.
fn becomes_text(call: &SyntaxNode) -> bool {
    call.parent().is_some_and(|cast| {
        cast.kind() == SyntaxKind::CAST_EXPR
            && cast.children().any(|part| part.kind() == SyntaxKind::PATH_TYPE && part.text() == "text")
    })
}

fn first_argument(call: &SyntaxNode) -> Option<SyntaxNode> {
    call.children().find(|part| part.kind() == SyntaxKind::ARG_LIST)?.first_child()?.first_child()
}

/// Whether `node` is the type in `nextval('…'::regclass)`, as schema dumps write it. The text is
/// judged with the call. Anywhere else the type is refused: it would look up other text as well.
fn is_sequence_cast(node: &SyntaxNode) -> bool {
    node.kind() == SyntaxKind::PATH_TYPE
        && node.text() == "regclass"
        && node.parent().is_some_and(|cast| {
            cast.ancestors().find(|above| above.kind() == SyntaxKind::CALL_EXPR).is_some_and(|call| {
                first_argument(&call) == Some(cast)
                    && call.first_child().is_some_and(|callee| {
                        names::parts(&callee).last().is_some_and(|name| functions::takes_a_sequence(name))
                    })
            })
        })
}

/// The value of a string constant in single quotes without escapes.
fn plain_text(literal: &SyntaxNode) -> Option<String> {
    let token = literal.first_token().filter(|token| token.kind() == SyntaxKind::STRING)?;
    let is_all = literal.kind() == SyntaxKind::LITERAL && literal.text_range() == token.text_range();
    let inside = token.text().strip_prefix('\'')?.strip_suffix('\'')?;
    is_all.then(|| inside.replace("''", "'"))
}

fn explain_option(name: &SyntaxNode) -> Result<(), Objection> {
    let text = name.text().to_string();
    if EXPLAIN_OPTIONS.contains(&text.to_ascii_lowercase().as_str()) {
        Ok(())
    } else {
        Err(Objection::ExplainOption(shown(&text)))
    }
}
