//! What a client asks to be run: statements that passed the guard, as one transaction.

use std::time::Duration;

use super::guard::Vetted;

/// Statements that run as one transaction, and what that transaction may cost.
#[derive(Debug)]
pub struct Batch {
    /// The statements in their order; at least one.
    pub statements: Vec<ClientStatement>,
    /// How the transaction runs.
    pub characteristics: Characteristics,
    /// `statement_timeout` of each statement, in place of the database's.
    pub timeout: Option<Duration>,
    /// The largest answer that is held in memory, bytes.
    pub max_answer: usize,
}

/// A statement and its values.
#[derive(Debug)]
pub struct ClientStatement {
    /// The statement, which passed the guard.
    pub vetted: Vetted,
    /// Its values as text, or NULL. The server finds out what types they have.
    pub parameters: Vec<Option<String>>,
}

/// How a transaction runs. What is not said is as the server has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Characteristics {
    /// What it sees of others.
    pub isolation: Option<IsolationLevel>,
    /// Whether it changes nothing.
    pub read_only: bool,
    /// Whether it waits until nothing can fail it: for `SERIALIZABLE READ ONLY`.
    pub deferrable: bool,
}

/// What a transaction sees of others (manual, chapter 13.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsolationLevel {
    /// As PostgreSQL has it: the same as the next.
    ReadUncommitted,
    /// What was committed before each statement.
    ReadCommitted,
    /// What was committed before the first statement.
    RepeatableRead,
    /// As if one transaction ran after the other.
    Serializable,
}

impl IsolationLevel {
    pub(super) fn as_sql(self) -> &'static str {
        match self {
            Self::ReadUncommitted => "READ UNCOMMITTED",
            Self::ReadCommitted => "READ COMMITTED",
            Self::RepeatableRead => "REPEATABLE READ",
            Self::Serializable => "SERIALIZABLE",
        }
    }
}
