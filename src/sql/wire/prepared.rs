//! Which texts a connection has prepared, and under which names.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use sqlx::SqlStr;

/// Statements that are kept prepared on each connection. Each costs the server some ten kilobytes a
/// connection; one that fell out is parsed again.
const CAPACITY: usize = 512;

/// What a connection has prepared.
pub(super) struct Prepared {
    statements: HashMap<SqlStr, Statement>,
    /// Sent to be prepared and not yet confirmed, in that order; `None` for what got no name.
    unconfirmed: VecDeque<Option<SqlStr>>,
    /// Counts what was asked for, and so tells what was not asked for longest.
    asked: u64,
}

struct Statement {
    name: Arc<str>,
    last_asked: u64,
}

/// How a text is to be bound.
pub(super) struct Found {
    pub(super) name: Arc<str>,
    /// Whether it must be prepared first.
    pub(super) is_new: bool,
}

impl Prepared {
    pub(super) fn new() -> Self {
        Self { statements: HashMap::new(), unconfirmed: VecDeque::new(), asked: 0 }
    }

    /// What must be closed before one more may be prepared.
    pub(super) fn make_room(&mut self) -> Option<Arc<str>> {
        if self.statements.len() < CAPACITY {
            return None;
        }
        let (text, _) = self.statements.iter().min_by_key(|(_, statement)| statement.last_asked)?;
        let text = text.clone();
        self.statements.remove(text.as_str()).map(|statement| statement.name)
    }

    /// Finds a text, or gives it a name that no other text of this connection ever had.
    pub(super) fn find(&mut self, text: &SqlStr) -> Found {
        self.asked += 1;
        if let Some(statement) = self.statements.get_mut(text.as_str()) {
            statement.last_asked = self.asked;
            return Found { name: Arc::clone(&statement.name), is_new: false };
        }
        let name: Arc<str> = format!("innkeeper_{}", self.asked).into();
        let statement = Statement { name: Arc::clone(&name), last_asked: self.asked };
        self.statements.insert(text.clone(), statement);
        self.unconfirmed.push_back(Some(text.clone()));
        Found { name, is_new: true }
    }

    /// Something is sent to be prepared without a name, which the next such text takes its place of.
    pub(super) fn pass_by(&mut self) {
        self.unconfirmed.push_back(None);
    }

    /// The server prepared the first text that it had not confirmed.
    pub(super) fn confirm(&mut self) {
        self.unconfirmed.pop_front();
    }

    /// The server goes no further: what it has not confirmed is not prepared.
    pub(super) fn give_up(&mut self) {
        for text in self.unconfirmed.drain(..).flatten() {
            self.statements.remove(text.as_str());
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, SqlSafeStr as _};

    use super::*;

    fn text(number: usize) -> SqlStr {
        AssertSqlSafe(format!("SELECT {number}")).into_sql_str()
    }

    #[test]
    fn what_was_not_asked_for_longest_makes_room() {
        let mut prepared = Prepared::new();
        let names: Vec<_> = (0..CAPACITY).map(|number| prepared.find(&text(number)).name).collect();
        let again = prepared.find(&text(0));
        assert_eq!((&again.name, again.is_new), (&names[0], false));
        assert_eq!(prepared.make_room().as_ref(), Some(&names[1]));
        assert!(prepared.make_room().is_none());
        assert!(prepared.find(&text(1)).is_new);
    }

    #[test]
    fn what_the_server_did_not_confirm_is_prepared_again_under_another_name() {
        let mut prepared = Prepared::new();
        prepared.pass_by();
        let (kept, lost) = (prepared.find(&text(0)), prepared.find(&text(1)));
        prepared.confirm();
        prepared.confirm();
        prepared.give_up();
        assert!(!prepared.find(&text(0)).is_new);
        let again = prepared.find(&text(1));
        assert!(again.is_new && again.name != lost.name && again.name != kept.name);
    }
}
