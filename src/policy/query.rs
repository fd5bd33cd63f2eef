//! A named query: a statement that the operator wrote, with typed parameters.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::Database;
use crate::tenant::SchemaName;

/// A statement and how a request fills and reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Where it runs, unless the tenant lives elsewhere.
    pub database: Arc<Database>,
    /// The statement.
    pub statement: Statement,
    /// Its parameters: the first is `$1`.
    pub params: Vec<Param>,
    /// What the client gets of its result.
    pub result: ResultShape,
    /// Whether the transaction is READ ONLY, ended by ROLLBACK.
    pub read_only: bool,
    /// `statement_timeout` in place of the database's.
    pub timeout: Option<Duration>,
    /// Where it runs on a route with `tenant: none`; `None` on every other route.
    pub declared_schema: Option<DeclaredSchema>,
}

/// One statement, checked to be a single one with as many placeholders as parameters, free of
/// transaction control. Only the policy parser makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    pub(super) text: Arc<str>,
    pub(super) returns_rows: bool,
    pub(super) modifies: bool,
}

impl Statement {
    /// The statement's text, without a trailing semicolon.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it yields rows: SELECT, VALUES, TABLE, or a change with RETURNING.
    pub fn returns_rows(&self) -> bool {
        self.returns_rows
    }

    /// Whether it is a change (INSERT, UPDATE, DELETE, MERGE), and so cannot stand in FROM.
    pub fn modifies(&self) -> bool {
        self.modifies
    }
}

/// The schema that a `tenant: none` route names for its query: the proof that the policy's author
/// asked for it. Absence of a tenant is never inferred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredSchema(pub(super) SchemaName);

impl DeclaredSchema {
    /// The schema.
    pub fn name(&self) -> &SchemaName {
        &self.0
    }
}

/// One parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// Where its text comes from.
    pub source: ParamSource,
    /// Its type.
    pub kind: ParamType,
    /// What it is where the request does not give it. A parameter with neither a default nor
    /// `nullable` is required.
    pub default: Option<serde_json::Value>,
    /// Whether an absent parameter, or a JSON null, is NULL.
    pub nullable: bool,
    /// Least value, for numbers.
    pub min: Option<f64>,
    /// Greatest value, for numbers.
    pub max: Option<f64>,
    /// Longest text, in characters. Default 65,536.
    pub max_length: usize,
}

/// Where a parameter comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParamSource {
    /// A field of the query string.
    Query(String),
    /// A capture of the route's path.
    Path(String),
    /// A request header.
    Header(HeaderName),
    /// A member of the JSON body: a name, or a JSON pointer (RFC 6901).
    Body(String),
}

/// A parameter's PostgreSQL type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParamType {
    /// `text`
    Text,
    /// `bigint`
    Int,
    /// `double precision`
    Float,
    /// `numeric`, exact
    Numeric,
    /// `boolean`
    Bool,
    /// `uuid`
    Uuid,
    /// `date`
    Date,
    /// `timestamp with time zone`
    Timestamp,
    /// `jsonb`
    Json,
}

/// What the client gets of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ResultShape {
    /// An array with an object a row.
    #[default]
    Rows,
    /// The only row as an object; none is 404, more are an error.
    One,
    /// The only column of the only row; none is 404, more are an error.
    Value,
    /// Nothing: 204.
    None,
}
