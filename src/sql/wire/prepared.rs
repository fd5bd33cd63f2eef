//! Which texts a connection has prepared, and under which names.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use sqlx::SqlStr;

/// Statements that are kept prepared on each connection. Each costs the server some ten kilobytes a
/// connection; one that fell out is parsed again.
const CAPACITY: usize = 512;

/// Statements of one text, at least: one for each part of the tenants. With as many, dozens of texts fit.
const FEWEST: usize = 16;

/// What a connection has prepared.
///
/// A text is prepared several times, for a part of the tenants each. PostgreSQL reads a prepared
/// statement again, from its names on, wherever the search path is another one than last time
/// (`plancache.c`, `RevalidateCachedQuery`), and so one would do for all of them. But that reading, and
/// the planning behind it, takes as long as running a short statement: a tenant that has one to itself
/// is spared it. The fewer texts a connection sees, the more parts there are.
pub(super) struct Prepared {
    texts: HashMap<SqlStr, HashMap<u64, Statement>>,
    count: usize,
    /// Sent to be prepared and not yet confirmed, in that order; `None` for what got no name.
    unconfirmed: VecDeque<Option<(SqlStr, u64)>>,
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
        Self { texts: HashMap::new(), count: 0, unconfirmed: VecDeque::new(), asked: 0 }
    }

    /// What must be closed before one more may be prepared.
    pub(super) fn make_room(&mut self) -> Option<Arc<str>> {
        if self.count < CAPACITY {
            return None;
        }
        let statements = self
            .texts
            .iter()
            .flat_map(|(text, parts)| parts.iter().map(move |(part, one)| (text, part, one)));
        let (text, part, _) = statements.min_by_key(|(.., statement)| statement.last_asked)?;
        let (text, part) = (text.clone(), *part);
        self.remove(&text, part)
    }

    /// Finds a text as it is prepared for a tenant's part, or gives it a name that nothing else of this
    /// connection ever had.
    pub(super) fn find(&mut self, text: &SqlStr, tenant: u64) -> Found {
        self.asked += 1;
        let texts = self.texts.len() + usize::from(!self.texts.contains_key(text.as_str()));
        // A power of two, so that few tenants change their part when a text comes or goes.
        let parts = 1_u64 << (CAPACITY / texts).max(FEWEST).ilog2();
        let part = tenant % parts;
        if let Some(statement) = self.texts.get_mut(text.as_str()).and_then(|of_text| of_text.get_mut(&part))
        {
            statement.last_asked = self.asked;
            return Found { name: Arc::clone(&statement.name), is_new: false };
        }
        let name: Arc<str> = format!("innkeeper_{}", self.asked).into();
        let statement = Statement { name: Arc::clone(&name), last_asked: self.asked };
        self.texts.entry(text.clone()).or_default().insert(part, statement);
        self.count += 1;
        self.unconfirmed.push_back(Some((text.clone(), part)));
        Found { name, is_new: true }
    }

    fn remove(&mut self, text: &SqlStr, part: u64) -> Option<Arc<str>> {
        let of_text = self.texts.get_mut(text.as_str())?;
        let removed = of_text.remove(&part)?;
        if of_text.is_empty() {
            self.texts.remove(text.as_str());
        }
        self.count -= 1;
        Some(removed.name)
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
        for (text, part) in std::mem::take(&mut self.unconfirmed).into_iter().flatten() {
            self.remove(&text, part);
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
        let names: Vec<_> = (0..CAPACITY).map(|number| prepared.find(&text(number), 0).name).collect();
        let again = prepared.find(&text(0), 0);
        assert_eq!((&again.name, again.is_new), (&names[0], false));
        assert_eq!(prepared.make_room().as_ref(), Some(&names[1]));
        assert!(prepared.make_room().is_none());
        assert!(prepared.find(&text(1), 0).is_new);
    }

    #[test]
    fn tenants_have_statements_to_themselves_where_texts_are_few() {
        let new = |texts: usize, tenants: u64| {
            let mut prepared = Prepared::new();
            let mut new = 0;
            for number in 0..texts {
                prepared.find(&text(number), 0);
            }
            for tenant in 0..tenants {
                new += usize::from(prepared.find(&text(0), tenant).is_new);
            }
            new
        };
        assert_eq!(new(1, 1000), CAPACITY - 1);
        assert_eq!(new(3, 1000), 127);
        assert_eq!(new(100, 1000), FEWEST - 1);
    }

    #[test]
    fn what_the_server_did_not_confirm_is_prepared_again_under_another_name() {
        let mut prepared = Prepared::new();
        prepared.pass_by();
        let (kept, lost) = (prepared.find(&text(0), 0), prepared.find(&text(1), 0));
        prepared.confirm();
        prepared.confirm();
        prepared.give_up();
        assert!(!prepared.find(&text(0), 0).is_new);
        let again = prepared.find(&text(1), 0);
        assert!(again.is_new && again.name != lost.name && again.name != kept.name);
    }
}
