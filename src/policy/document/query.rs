//! A named query as written.

use std::time::Duration;

use crate::policy::decode::{Located, Required, record};
use crate::policy::json::Json;
use crate::policy::{ParamType, ResultShape};
use crate::tenant::SchemaName;
use http::HeaderName;

record! {
    /// A statement that the operator wrote, with typed parameters.
    Query is "`query`";
    /// The database that it runs in, unless the tenant lives elsewhere.
    database: Required<Located<String>>,
    /// The statement: one SELECT, VALUES, TABLE, WITH, INSERT, UPDATE, DELETE or MERGE.
    sql: Required<Located<String>>,
    /// Its parameters: the first is `$1`.
    params: Option<Vec<Param>>,
    /// What the client gets: `rows` (default), `one`, `value` or `none`.
    result: Option<Located<ResultShape>>,
    /// Whether the transaction is READ ONLY. Default: whether the statement only reads.
    read_only: Option<Located<bool>>,
    /// How long it may run, in place of the database's `statement_timeout`.
    timeout: Option<Located<Duration>>,
    /// The schema that it runs in, on a route with `tenant: none` only.
    schema: Option<Located<SchemaName>>,
}

record! {
    /// One parameter: exactly one of `query`, `path`, `header` and `body` says where it comes from.
    Param is "a parameter";
    /// A field of the query string.
    query: Option<Located<String>>,
    /// A capture of the route's path.
    path: Option<Located<String>>,
    /// A request header.
    header: Option<Located<HeaderName>>,
    /// A member of the JSON body: its name, or a JSON pointer such as `/address/city`.
    body: Option<Located<String>>,
    /// Its type. Default `text`.
    r#type: Option<Located<ParamType>>,
    /// What it is where the request does not give it.
    default: Option<Json>,
    /// Whether it may be absent, and then is NULL.
    nullable: Option<Located<bool>>,
    /// Least number.
    min: Option<Located<f64>>,
    /// Greatest number.
    max: Option<Located<f64>>,
    /// Longest text, in characters. Default 65536.
    max_length: Option<Located<usize>>,
}
