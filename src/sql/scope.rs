//! The proof that a statement has a tenant's schema to run in, and a role where one is asked for.

use crate::admitted::Admitted;
use crate::error::{Blame, Code, Refusal};
use crate::policy::{self, DeclaredSchema, Name};
use crate::tenant::{Isolation, RoleName, SchemaName, TenantId};

/// Where a statement runs: the schemas of its search path, the first one its home, and the role.
/// The only ways to one are an admitted tenant and a schema that the policy's author declared.
///
/// A name is not a scope:
/// ```compile_fail,E0308
/// # async fn run(database: innkeeper::sql::Database, query: &innkeeper::policy::Query) {
/// database.run("acme", query, Vec::new()).await;
/// # }
/// ```
/// Neither is a tenant that was found but not admitted:
/// ```compile_fail,E0308
/// # fn scope(tenant: &innkeeper::tenant::Tenant, database: &innkeeper::policy::Database) {
/// innkeeper::sql::Scope::of(tenant, database);
/// # }
/// ```
/// Nobody outside can put one together:
/// ```compile_fail,E0451
/// # fn scope(home: innkeeper::tenant::SchemaName) {
/// innkeeper::sql::Scope { database: "main".into(), home, shared: Vec::new() };
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    tenant: Option<TenantId>,
    database: Name,
    home: SchemaName,
    shared: Vec<SchemaName>,
    identity: Identity,
    /// Connections that its tenant may use at once, where not as many as everyone.
    connections: Option<u32>,
}

/// Whom a statement runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Identity {
    /// The role of the database's URL.
    Own,
    /// A role that the transaction becomes.
    Become(RoleName),
    /// The role that the connection logged in as.
    LoggedIn(RoleName),
}

impl Scope {
    /// The scope of an admitted tenant: its own schema, then the database's shared ones, then
    /// nothing. The stronger of the two isolation levels counts, the database's and the tenant's.
    ///
    /// # Errors
    /// The tenant lives in another database, or has no role where isolation asks for one. Both
    /// are mistakes of whoever wrote the policy or the directory, and nothing runs.
    pub fn of(admitted: &Admitted, database: &policy::Database) -> Result<Self, Refusal> {
        let tenant = admitted.tenant();
        if tenant.database.as_ref().is_some_and(|home| *home != database.name) {
            return Err(misplaced(format!(
                "tenant `{}` lives in database `{}`, and the query was to run in `{}`",
                tenant.id,
                tenant.database.as_deref().unwrap_or_default(),
                database.name
            )));
        }
        let isolation = tenant.isolation.map_or(database.isolation, |level| level.max(database.isolation));
        let role = || {
            tenant.role.clone().ok_or_else(|| {
                misplaced(format!(
                    "tenant `{}` has no role, and its isolation level is `{isolation}`: name its role in the \
                     directory",
                    tenant.id
                ))
            })
        };
        let identity = match isolation {
            Isolation::Schema => Identity::Own,
            Isolation::Role => Identity::Become(role()?),
            Isolation::Login => Identity::LoggedIn(role()?),
        };
        Ok(Self {
            tenant: Some(tenant.id.clone()),
            database: Name::clone(&database.name),
            home: tenant.schema.name().clone(),
            shared: database.shared_schemas.clone(),
            identity,
            connections: tenant.limits.as_ref().and_then(|limits| limits.connections),
        })
    }

    /// The scope of a route without a tenant, which names its schema itself. It has no role: there
    /// is no tenant to keep in, and the statement is the operator's.
    pub fn declared(schema: &DeclaredSchema, database: &policy::Database) -> Self {
        Self {
            tenant: None,
            database: Name::clone(&database.name),
            home: schema.name().clone(),
            shared: database.shared_schemas.clone(),
            identity: Identity::Own,
            connections: None,
        }
    }

    /// Whose it is, unless it is a declared one.
    pub(super) fn tenant(&self) -> Option<&TenantId> {
        self.tenant.as_ref()
    }

    /// Connections that its tenant may use at once, where not as many as everyone.
    pub(super) fn connections(&self) -> Option<u32> {
        self.connections
    }

    /// The database that it is a scope of.
    pub(super) fn database(&self) -> &str {
        &self.database
    }

    /// The schema where names are looked up first.
    pub(super) fn home(&self) -> &SchemaName {
        &self.home
    }

    /// Every schema of the path, in order, each once.
    pub(super) fn path(&self) -> impl Iterator<Item = &SchemaName> {
        std::iter::once(&self.home).chain(self.shared.iter().filter(|schema| **schema != self.home))
    }

    /// The role that the statement runs as, where it is not the one of the database's URL.
    pub(super) fn role(&self) -> Option<&RoleName> {
        match &self.identity {
            Identity::Own => None,
            Identity::Become(role) | Identity::LoggedIn(role) => Some(role),
        }
    }

    /// The role that the transaction must become.
    pub(super) fn becomes(&self) -> Option<&RoleName> {
        match &self.identity {
            Identity::Become(role) => Some(role),
            Identity::Own | Identity::LoggedIn(_) => None,
        }
    }

    /// The role that the connection must have logged in as, where it is not the one of the
    /// database's URL.
    pub(super) fn login(&self) -> Option<&RoleName> {
        match &self.identity {
            Identity::LoggedIn(role) => Some(role),
            Identity::Own | Identity::Become(_) => None,
        }
    }
}

fn misplaced(cause: String) -> Refusal {
    Refusal::new(
        Code::InternalError,
        "this tenant's place in the database is not set up; ask whoever runs the service",
    )
    .blamed_on(Blame::Policy)
    .because(cause)
}
