//! Many tenants whose every row carries its tenant's mark, and a checker that counts foreign rows.

use std::future::Future;
use std::sync::Arc;

use futures_util::future::join_all;
use innkeeper::admitted::{Admitted, admit};
use innkeeper::policy::{self, Param, ParamSource, ParamType, Query, ResultShape, Statement};
use innkeeper::tenant::{Tenant, TenantState};

use super::postgres::TestDatabase;

/// Rows of each tenant's `marks`.
pub(crate) const ROWS: usize = 20;

/// Tenants with a schema, a role and rows of their own.
pub(crate) struct TenantFixture {
    pub(crate) tenants: Vec<Arc<Tenant>>,
}

impl TenantFixture {
    /// Makes `count` tenants. Each schema has `marks (id, tenant, note)`; the type of `id` differs
    /// from one tenant to the next. Each tenant's role may use its own schema and no other; the
    /// gateway's login may use all, and become each of the roles.
    pub(crate) async fn create(database: &TestDatabase, count: usize) -> Self {
        let login = database.login();
        let mut setup = String::new();
        let mut tenants = Vec::new();
        for index in 0..count {
            let schema = format!("t_{index:03}");
            let role = format!("{}_{schema}", database.name);
            let id_type = ["integer", "bigint", "text", "numeric"][index % 4];
            setup.push_str(&format!(
                "CREATE SCHEMA {schema}; \
                 CREATE TABLE {schema}.marks (id {id_type} PRIMARY KEY, tenant text NOT NULL, note text); \
                 INSERT INTO {schema}.marks SELECT n::text::{id_type}, '{schema}' FROM generate_series(1, {ROWS}) n; \
                 CREATE ROLE {role} NOLOGIN; GRANT {role} TO {login}; \
                 GRANT USAGE ON SCHEMA {schema} TO {login}, {role}; \
                 GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {login}, {role};"
            ));
            tenants.push(Arc::new(Tenant {
                id: schema.parse().unwrap(),
                schema: schema.parse().unwrap(),
                role: Some(role.parse().unwrap()),
                database: None,
                state: TenantState::Active,
                isolation: None,
            }));
        }
        database.admin(&setup).await;
        Self { tenants }
    }

    pub(crate) fn admitted(&self, index: usize) -> Admitted {
        admit(Arc::clone(&self.tenants[index % self.tenants.len()])).unwrap()
    }

    /// Rows in `json` that do not belong to the tenant at `index`. The answer must be an array of
    /// rows with their marks: an answer that shows none proves nothing, and is an error here.
    pub(crate) fn foreign_rows(&self, index: usize, json: &str) -> usize {
        let own = self.tenants[index % self.tenants.len()].schema.as_str();
        let rows: Vec<serde_json::Value> = serde_json::from_str(json).expect("a JSON array");
        assert!(!rows.is_empty(), "an answer without rows proves nothing");
        rows.iter().filter(|row| row["tenant"].as_str().expect("a marked row") != own).count()
    }
}

impl TenantFixture {
    /// Has each of `tenants` read its rows through `read`, all at once, and counts the rows that
    /// were another's. `None` is a refusal, which shows no rows.
    pub(crate) async fn count_foreign_rows<F>(
        &self,
        tenants: impl IntoIterator<Item = usize>,
        read: impl Fn(usize) -> F,
    ) -> usize
    where
        F: Future<Output = Option<String>>,
    {
        let reads = tenants.into_iter().map(|tenant| {
            let answer = read(tenant);
            async move { answer.await.map_or(0, |json| self.foreign_rows(tenant, &json)) }
        });
        join_all(reads).await.into_iter().sum()
    }
}

/// A query as a policy would have it.
pub(crate) fn query(database: &Arc<policy::Database>, sql: &str) -> Query {
    let upper = sql.to_uppercase();
    let modifies = ["INSERT", "UPDATE", "DELETE"].iter().any(|verb| upper.starts_with(verb));
    let reads = ["SELECT", "VALUES", "TABLE", "WITH"].iter().any(|verb| upper.starts_with(verb));
    let returns_rows = reads || upper.contains("RETURNING");
    Query {
        database: Arc::clone(database),
        statement: Statement::assumed(sql, returns_rows, modifies),
        params: Vec::new(),
        result: if returns_rows { ResultShape::Rows } else { ResultShape::None },
        read_only: reads,
        timeout: None,
        declared_schema: None,
    }
}

/// A required parameter of this type.
pub(crate) fn param(kind: ParamType) -> Param {
    Param {
        source: ParamSource::Query("value".into()),
        kind,
        default: None,
        nullable: false,
        min: None,
        max: None,
        max_length: 65_536,
    }
}
