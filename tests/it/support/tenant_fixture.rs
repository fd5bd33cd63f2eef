//! Many tenants whose every row carries its tenant's mark, and a checker that counts foreign rows.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use innkeeper::admitted::{Admitted, admit};
use innkeeper::policy::{self, Policy, Query, Surroundings, Target};
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
    /// gateway's login may use all, and become each of the roles, which may also log in.
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
                 CREATE ROLE {role} LOGIN; GRANT {role} TO {login}; \
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
                limits: None,
            }));
        }
        database.admin(&setup).await;
        Self { tenants }
    }

    /// Lists the tenants in `public.tenants`, as a directory reads them.
    pub(crate) async fn list_in_table(&self, database: &TestDatabase) {
        let mut setup = format!(
            "CREATE TABLE public.tenants (id text PRIMARY KEY, schema_name text, role_name text); \
             GRANT SELECT ON public.tenants TO {};",
            database.login()
        );
        for tenant in &self.tenants {
            let role = tenant.role.as_ref().map_or("", |role| role.as_str());
            setup.push_str(&format!(
                "INSERT INTO public.tenants VALUES ('{}', '{}', '{role}');",
                tenant.id,
                tenant.schema.as_str()
            ));
        }
        database.admin(&setup).await;
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

/// A query without parameters, as a policy has it.
pub(crate) fn query(database: &Arc<policy::Database>, sql: &str) -> Query {
    query_with(database, sql, &[])
}

/// A query with required parameters of these types, as a policy has it. Only the policy's parser
/// makes statements, so that it is asked for one.
pub(crate) fn query_with(database: &Arc<policy::Database>, sql: &str, params: &[&str]) -> Query {
    let params: Vec<_> =
        params.iter().map(|kind| serde_json::json!({ "query": "value", "type": kind })).collect();
    let document = serde_json::json!({
        "version": 1,
        "databases": { "main": { "url": "postgres://localhost/main" } },
        "routes": [{
            "name": "query", "match": { "path": "/" }, "tenant": "none",
            "query": { "database": "main", "schema": "public", "sql": sql, "params": params },
        }],
    });
    let (policy, _) = Policy::parse(Path::new("policy.yaml"), &OneFile(document.to_string()))
        .unwrap_or_else(|mistakes| panic!("{sql}: {mistakes:?}"));
    let Target::Query(query) = &policy.routes[0].target else { panic!("a query route") };
    Query { database: Arc::clone(database), declared_schema: None, ..Query::clone(query) }
}

struct OneFile(String);

impl Surroundings for OneFile {
    fn read(&self, _: &Path) -> io::Result<String> {
        Ok(self.0.clone())
    }

    fn variable(&self, _: &str) -> Option<String> {
        None
    }
}
