//! Why a statement is refused: what was found, and what to write instead.

use serde_json::Value;

use crate::error::{Code, Refusal};
use crate::policy::StatementKind;

/// The most of a client's text that a refusal repeats, in characters.
const MAX_SHOWN: usize = 60;

/// PostgreSQL's `syntax_error`.
const SYNTAX_ERROR: &str = "42601";

/// One reason. Its text is what the client reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Objection {
    #[error("there is no statement here: write one")]
    Empty,
    #[error("the statement is longer than {} bytes: pass data as parameters", super::scan::MAX_BYTES)]
    TooLong,
    #[error(
        "the statement is nested too deeply, or a list in it has too many parts without a comma: split it"
    )]
    TooDeep,
    #[error("the character {0:?} has no place outside strings, quoted names and comments")]
    Character(char),
    #[error("a comment that starts with `/*+` could be a hint to an extension, and is not allowed")]
    Hint,
    #[error("a {0} starts here and does not end")]
    Unended(&'static str),
    #[error("only one statement is allowed: send several as a batch")]
    SeveralStatements,
    #[error("a string that goes on after a space or a new line is not allowed: write it as one")]
    ContinuedText,
    #[error("strings and names with `U&` escapes are not allowed: write the characters themselves")]
    UnicodeEscapes,
    #[error("strings with `N` before them are not allowed: leave the `N` out")]
    NationalText,
    #[error("a number is digits with a point and an exponent, followed by a space or an operator")]
    Number,
    #[error("a bit string holds binary digits after `B`, or hexadecimal ones after `X`, and nothing else")]
    BitString,
    #[error("a name in double quotes must not be empty")]
    EmptyName,
    #[error("a name longer than 63 bytes would be cut: shorten it")]
    LongName,
    #[error("a name with capital letters beyond ASCII must stand in double quotes")]
    FoldedName,
    #[error(
        "the guard's grammar does not understand this at or near `{near}` ({says}): it was not run, though \
             PostgreSQL itself may know more"
    )]
    Syntax {
        near: String,
        says: String,
        /// The first character that is not understood, counted from 1 as PostgreSQL counts.
        position: usize,
    },
    #[error("this can be read in two ways, near `{0}`: write it more plainly")]
    Ambiguous(String),
    #[error("{found} is not allowed here: {allowed}")]
    Statement { found: String, allowed: String },
    #[error("`{0}` is not allowed in statements here")]
    Construct(String),
    #[error(
        "an EXPLAIN option `{0}` is not allowed: `analyze`, `verbose`, `costs`, `buffers`, `timing`, `summary`, \
             `wal` and `format` are"
    )]
    ExplainOption(String),
    #[error(
        "`{0}` is part of PostgreSQL's catalogue, which shows other tenants' names, and cannot be read here"
    )]
    Catalogue(String),
    #[error("the schema of `{0}` is not one of this tenant: leave the schema out, or name its own")]
    Schema(String),
    #[error("`{0}` has too many parts: write a table as `table`, a column as `table.column`")]
    Parts(String),
    #[error("the type `{0}` looks names up from text and is not allowed: compare names as `text`")]
    Type(String),
    #[error(
        "`{0}` is not among the functions that statements here may call: whoever runs this service can add \
             it to the route's `functions`, if it is harmless"
    )]
    Function(String),
    #[error("the function `{0}` can reach beyond this tenant and is never allowed")]
    ForbiddenFunction(String),
    #[error(
        "`{0}` calls a function that can reach beyond this tenant, unless there is a column of that name: \
             give the column another name in the table, or in a view"
    )]
    Field(String),
    #[error(
        "`{0}` calls a function, unless it is a field of a composite type, which cannot be told without the \
             catalogue: whoever runs this service can add the field's name to the route's `functions`"
    )]
    CompositeField(String),
    #[error(
        "`{found}` calls a function with what stands as `{item}` in FROM, unless it is a column of it: write \
             the columns behind the name, `AS {item}(a, b)`"
    )]
    Answer { found: String, item: String },
    #[error("`{0}` in FROM needs a name: write `AS name(column)` behind it")]
    Anonymous(String),
    #[error(
        "the operator `{0}` is none of PostgreSQL's own: whoever runs this service can add it to the route's \
             `operators`, if its function is harmless"
    )]
    Operator(String),
    #[error("`{0}` answers with a type that looks names up from text: write it as `{0}::text`")]
    OnlyAsText(String),
    #[error("the sequence of `{0}` must be a name in single quotes, of this tenant's own schema")]
    SequenceName(String),
    #[error("`{0}` tells of the server's own set-up and is not allowed")]
    ServerName(String),
    #[error("row locks are not allowed where statements only read: leave `FOR UPDATE` or `FOR SHARE` out")]
    Lock,
    #[error(
        "only this tenant's own schema can be created, without an owner and without contents: have a \
             migrator keep its journal there (drizzle: `migrationsSchema`)"
    )]
    CreateSchema,
}

impl Objection {
    /// That `found`, a statement or a part of one, is not among `kinds`.
    pub(super) fn statement(found: &str, kinds: &[StatementKind]) -> Self {
        let mut kinds = kinds.to_vec();
        kinds.sort_unstable();
        let words: Vec<&str> = kinds.into_iter().map(verb).collect();
        let allowed = match words.as_slice() {
            [] => "this route allows no statements".to_owned(),
            [only] => format!("this route allows {only} alone"),
            several => format!("this route allows {}", several.join(", ")),
        };
        Self::Statement { found: shown(found), allowed }
    }
}

impl From<Objection> for Refusal {
    fn from(objection: Objection) -> Self {
        let detail = objection.to_string();
        match objection {
            // To whoever wrote it this is a syntax error like PostgreSQL's own, which drivers know by its
            // state.
            Objection::Syntax { position, .. } => {
                let members = [
                    ("message", detail.as_str()),
                    ("code", SYNTAX_ERROR),
                    ("severity", "ERROR"),
                    ("position", &position.to_string()),
                ];
                let members = members.map(|(name, value)| (name.to_owned(), Value::from(value)));
                Self::new(Code::QueryFailed, detail.clone()).with_members(members.into_iter().collect())
            }
            _ => Self::new(Code::QueryRefused, detail),
        }
    }
}

/// As much of a client's own text as fits a message, on one line.
pub(super) fn shown(text: &str) -> String {
    let plain = |c: char| if c.is_control() || c.is_whitespace() { ' ' } else { c };
    let mut shown: String = text.chars().take(MAX_SHOWN).map(plain).collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// How a kind of statement is written.
pub(super) fn verb(kind: StatementKind) -> &'static str {
    match kind {
        StatementKind::Select => "SELECT",
        StatementKind::Insert => "INSERT",
        StatementKind::Update => "UPDATE",
        StatementKind::Delete => "DELETE",
        StatementKind::Merge => "MERGE",
        StatementKind::Truncate => "TRUNCATE",
        StatementKind::Explain => "EXPLAIN",
        StatementKind::Ddl => "CREATE, ALTER and DROP of tables, indexes, views, sequences and types",
    }
}
