//! The endpoint for statements that clients write, as written.

use std::time::Duration;

use crate::policy::StatementKind;
use crate::policy::decode::{Located, NonEmpty, Required, record};
use crate::policy::leaf::{Origin, Size};

record! {
    /// An endpoint that runs statements which clients write, over the protocol of Neon's
    /// serverless driver.
    Sql is "`sql`";
    /// The database that they run in, unless the tenant lives elsewhere; not at level `schema`.
    database: Required<Located<String>>,
    /// What they may be. Default: `select`, `insert`, `update`, `delete`.
    statements: Option<NonEmpty<Located<StatementKind>>>,
    /// Functions that they may call besides PostgreSQL's own harmless ones.
    functions: Option<Vec<Located<String>>>,
    /// Operators that they may use besides PostgreSQL's own and those of widely used extensions.
    operators: Option<Vec<Located<String>>>,
    /// Whether every transaction is READ ONLY. Default false.
    read_only: Option<Located<bool>>,
    /// How long a statement may run, in place of the database's `statement_timeout`.
    timeout: Option<Located<Duration>>,
    /// The largest request. Default 10MiB.
    max_request: Option<Located<Size>>,
    /// The largest answer that is not streamed. Default 10MiB.
    max_response: Option<Located<Size>>,
    /// Statements in one batch. Default 100.
    max_batch: Option<Located<u32>>,
    /// Web origins whose scripts may read answers. Default: none.
    origins: Option<Vec<Located<Origin>>>,
}
