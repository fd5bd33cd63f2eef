//! The texts that run a query in a scope, written once and kept for the requests that follow.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::SqlStr;

use super::Scope;
use super::text::{self, Form};
use crate::policy::{ParamType, Query, Statement};

/// Queries of tenants whose texts are kept, in each of two halves. Each takes some three kilobytes.
const CAPACITY: usize = 1024;

/// What is sent for one query in one scope.
#[derive(Debug)]
pub(super) struct Texts {
    /// What opens the transaction and narrows it.
    pub(super) opening: Vec<SqlStr>,
    pub(super) statement: SqlStr,
    /// Tells tenants apart, by the schema where names are looked up first.
    pub(super) tenant: u64,
    /// Columns of the statement's rows.
    pub(super) columns: usize,
    /// What ends the transaction in the same exchange: that of a read whose result is one row.
    pub(super) ending: &'static [SqlStr],
    /// What ends a change, and the reading of a stream.
    pub(super) end: SqlStr,
    /// Where in it the scope is asserted.
    pub(super) asserts_at: usize,
}

/// Keeps the texts that were used lately. What was not used while the newer half filled up is
/// forgotten with the older one: a bound without the upkeep of an order.
pub(super) struct TextCache {
    hasher: RandomState,
    halves: Mutex<Halves>,
}

#[derive(Default)]
struct Halves {
    newer: HashMap<u64, Entry>,
    older: HashMap<u64, Entry>,
}

struct Entry {
    asked: Asked,
    texts: Arc<Texts>,
}

/// All that the texts depend on.
struct Asked {
    scope: Scope,
    statement: Statement,
    params: Box<[ParamType]>,
    form: Form,
    read_only: bool,
    timeout: Option<Duration>,
}

impl TextCache {
    pub(super) fn new() -> Self {
        Self { hasher: RandomState::new(), halves: Mutex::default() }
    }

    /// The texts of `query` in `scope`.
    pub(super) fn of(&self, scope: &Scope, query: &Query, form: Form) -> Arc<Texts> {
        let key = self.key(scope, query, form);
        if let Some(texts) = self.lock(|halves| halves.find(key, scope, query, form)) {
            return texts;
        }
        let texts = Arc::new(Texts::write(scope, query, form));
        let entry = Entry { asked: Asked::of(scope, query, form), texts: Arc::clone(&texts) };
        self.lock(|halves| halves.keep(key, entry));
        texts
    }

    /// Two queries may share a key, and then take turns: what is found is compared in full.
    fn key(&self, scope: &Scope, query: &Query, form: Form) -> u64 {
        let asked = (scope.home(), scope.role(), query.statement.text(), form, query.read_only);
        self.hasher.hash_one(asked)
    }

    fn lock<T>(&self, work: impl FnOnce(&mut Halves) -> T) -> T {
        work(&mut self.halves.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Halves {
    fn find(&mut self, key: u64, scope: &Scope, query: &Query, form: Form) -> Option<Arc<Texts>> {
        let fits = |entry: &&Entry| entry.asked.is(scope, query, form);
        if let Some(entry) = self.newer.get(&key).filter(fits) {
            return Some(Arc::clone(&entry.texts));
        }
        let entry = self.older.remove(&key).filter(|entry| fits(&entry))?;
        let texts = Arc::clone(&entry.texts);
        self.keep(key, entry);
        Some(texts)
    }

    fn keep(&mut self, key: u64, entry: Entry) {
        if self.newer.len() >= CAPACITY {
            self.older = mem::take(&mut self.newer);
        }
        self.newer.insert(key, entry);
    }
}

impl Texts {
    fn write(scope: &Scope, query: &Query, form: Form) -> Self {
        let kinds = query.params.iter().map(|param| param.kind);
        let end = if query.read_only { text::end_of_stream } else { text::commit };
        Self {
            opening: text::opening(text::begin(query.read_only), scope, query.timeout),
            statement: text::statement(&query.statement, kinds, form, query.read_only),
            tenant: text::tenant(scope.home()),
            columns: text::columns(form, query.read_only),
            ending: text::ending(form, query),
            end: end(scope),
            asserts_at: text::assertion_position(query.read_only),
        }
    }
}

impl Asked {
    fn of(scope: &Scope, query: &Query, form: Form) -> Self {
        Self {
            scope: scope.clone(),
            statement: query.statement.clone(),
            params: query.params.iter().map(|param| param.kind).collect(),
            form,
            read_only: query.read_only,
            timeout: query.timeout,
        }
    }

    fn is(&self, scope: &Scope, query: &Query, form: Form) -> bool {
        self.form == form
            && self.read_only == query.read_only
            && self.timeout == query.timeout
            && self.scope == *scope
            && self.statement == query.statement
            && self.params.iter().copied().eq(query.params.iter().map(|param| param.kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admitted::admit;
    use crate::policy::{Database, Policy, ResultShape, Secret, Target};
    use crate::tenant::{Tenant, TenantState};

    fn query(database: &Arc<Database>, param: &serde_json::Value) -> Query {
        let document = serde_json::json!({
            "version": 1,
            "databases": { "main": { "url": "postgres://localhost/main" } },
            "routes": [{
                "name": "query", "match": { "path": "/" }, "tenant": "none",
                "query": { "database": "main", "schema": "lobby", "sql": "select $1 as a", "params": [param] },
            }],
        });
        let (policy, _) = Policy::parse("policy.yaml".as_ref(), &OneFile(document.to_string())).unwrap();
        let Target::Query(query) = &policy.routes[0].target else { panic!("a query route") };
        Query { database: Arc::clone(database), declared_schema: None, ..Query::clone(query) }
    }

    struct OneFile(String);

    impl crate::policy::Surroundings for OneFile {
        fn read(&self, _: &std::path::Path) -> std::io::Result<String> {
            Ok(self.0.clone())
        }

        fn variable(&self, _: &str) -> Option<String> {
            None
        }
    }

    fn scope(database: &Database, number: usize) -> Scope {
        let name = format!("t_{number}");
        let tenant = Tenant {
            id: name.parse().unwrap(),
            schema: name.parse().unwrap(),
            role: None,
            database: None,
            state: TenantState::Active,
            isolation: None,
            limits: None,
        };
        Scope::of(&admit(Arc::new(tenant)).unwrap(), database).unwrap()
    }

    #[test]
    fn what_is_kept_is_what_would_be_written_and_no_more_than_the_bound() {
        let database = Arc::new(Database::new("main", Secret::new("postgres://localhost/main".into())));
        let text = query(&database, &serde_json::json!({ "query": "a" }));
        let uuid = query(&database, &serde_json::json!({ "query": "a", "type": "uuid" }));
        let queries = [
            Query { read_only: true, ..text.clone() },
            Query { timeout: Some(Duration::from_secs(1)), ..text.clone() },
            Query { timeout: Some(Duration::from_secs(2)), ..text.clone() },
            uuid,
            text,
        ];
        let forms = [Form::Streamed, Form::Whole(ResultShape::Rows), Form::Whole(ResultShape::One)];
        let cache = TextCache::new();
        for number in (0..5).chain(0..CAPACITY) {
            let scope = scope(&database, number);
            for query in &queries {
                for form in forms {
                    let (kept, written) = (cache.of(&scope, query, form), Texts::write(&scope, query, form));
                    assert_eq!(
                        (&kept.opening, &kept.statement, &kept.end),
                        (&written.opening, &written.statement, &written.end)
                    );
                }
            }
        }
        cache.lock(|halves| assert!(halves.newer.len() <= CAPACITY && halves.older.len() <= CAPACITY));
    }

    #[test]
    fn what_is_asked_for_again_is_not_written_again() {
        let database = Arc::new(Database::new("main", Secret::new("postgres://localhost/main".into())));
        let query = query(&database, &serde_json::json!({ "query": "a" }));
        let cache = TextCache::new();
        let first = cache.of(&scope(&database, 0), &query, Form::Streamed);
        for number in 0..CAPACITY * 3 {
            let again = cache.of(&scope(&database, 0), &query, Form::Streamed);
            assert!(Arc::ptr_eq(&first, &again));
            cache.of(&scope(&database, number), &query, Form::Streamed);
        }
    }
}
