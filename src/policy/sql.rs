//! An endpoint that runs statements which clients write.

use std::sync::Arc;
use std::time::Duration;

use super::Database;

/// What such statements may be, and what they and their answers may cost.
#[derive(Debug, Clone, PartialEq)]
pub struct SqlEndpoint {
    /// Where they run, unless the tenant lives elsewhere. Its level is not `schema`.
    pub database: Arc<Database>,
    /// What they may be.
    pub statements: Vec<StatementKind>,
    /// Functions that they may call besides PostgreSQL's own harmless ones, as PostgreSQL folds
    /// their names.
    pub functions: Vec<String>,
    /// Operators that they may use besides PostgreSQL's own and those of widely used extensions.
    pub operators: Vec<String>,
    /// Whether every transaction is READ ONLY.
    pub read_only: bool,
    /// `statement_timeout` in place of the database's.
    pub timeout: Option<Duration>,
    /// The largest request body, bytes. Default 10 MiB, as Neon's proxy has it.
    pub max_request: usize,
    /// The largest answer that is built in memory, bytes. Default 10 MiB.
    pub max_response: usize,
    /// Statements in one batch. Default 100.
    pub max_batch: usize,
    /// Web origins whose scripts may read answers (`https://app.example.com`), in lower case.
    pub origins: Vec<String>,
}

impl SqlEndpoint {
    /// The largest request or answer where none is given, bytes.
    pub(super) const MAX_BYTES: usize = 10 << 20;
    /// Statements in one batch where nothing is given.
    pub(super) const MAX_BATCH: u32 = 100;
    /// What statements may be where nothing is given.
    pub(super) const STATEMENTS: [StatementKind; 4] =
        [StatementKind::Select, StatementKind::Insert, StatementKind::Update, StatementKind::Delete];
}

/// What a statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StatementKind {
    /// SELECT, VALUES and TABLE, with or without WITH.
    Select,
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// MERGE.
    Merge,
    /// TRUNCATE.
    Truncate,
    /// EXPLAIN of a statement that is itself allowed.
    Explain,
    /// CREATE, ALTER and DROP of what lives in the tenant's own schema: tables, indexes, views,
    /// sequences, types.
    Ddl,
}
