//! The policy's table in a native test.

use std::cell::RefCell;
use std::collections::BTreeMap;

thread_local! {
    static TABLE: RefCell<BTreeMap<String, String>> = const { RefCell::new(BTreeMap::new()) };
}

/// What [`kv`](crate::kv) reads on this thread, for as long as it lives.
///
/// ```
/// use innkeeper_plugin::{Table, kv};
/// let table = Table::new([("plan/acme", "gold")]);
/// assert_eq!(kv("plan/acme").as_deref(), Some("gold"));
/// drop(table);
/// assert_eq!(kv("plan/acme"), None);
/// ```
#[derive(Debug)]
pub struct Table(());

impl Table {
    /// Fills the table.
    #[must_use]
    pub fn new<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let entries = entries.into_iter().map(|(key, text)| (key.to_owned(), text.to_owned())).collect();
        TABLE.set(entries);
        Self(())
    }

    pub(crate) fn look_up(key: &str) -> Option<String> {
        TABLE.with_borrow(|table| table.get(key).cloned())
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        TABLE.take();
    }
}
