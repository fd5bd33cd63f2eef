//! Remembers statements that passed, so that one which is sent again and again is read once.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use crate::policy::StatementKind;

/// How many statements are remembered. An application has some hundreds of texts, with parameters
/// for what differs.
const MAX_STATEMENTS: usize = 512;

/// The longest statement that is remembered, bytes. With [`MAX_STATEMENTS`] it bounds a route's
/// memory to 2 MiB.
const MAX_BYTES: usize = 4 << 10;

/// Statements that passed for every tenant alike, because they name no schema.
#[derive(Debug, Default)]
pub(super) struct Memory(RwLock<HashMap<Box<str>, StatementKind>>);

impl Memory {
    /// What `sql` does, if it is remembered.
    pub(super) fn recall(&self, sql: &str) -> Option<StatementKind> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(sql).copied()
    }

    /// Remembers that `sql` passed. Whoever fills the memory with texts that never come again only
    /// makes it forget.
    pub(super) fn keep(&self, sql: &str, kind: StatementKind) {
        if sql.len() > MAX_BYTES {
            return;
        }
        let mut passed = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if passed.len() >= MAX_STATEMENTS {
            passed.clear();
        }
        passed.insert(sql.into(), kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_holds_more_than_its_bound() {
        let memory = Memory::default();
        for n in 0..3 * MAX_STATEMENTS {
            let sql = format!("SELECT {n}");
            memory.keep(&sql, StatementKind::Select);
            assert_eq!(memory.recall(&sql), Some(StatementKind::Select));
            assert!(memory.0.read().expect("not poisoned").len() <= MAX_STATEMENTS);
        }
        let long = " ".repeat(MAX_BYTES + 1);
        memory.keep(&long, StatementKind::Select);
        assert_eq!(memory.recall(&long), None);
    }
}
