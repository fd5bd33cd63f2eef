//! One database, looked at from every side.

use sqlx::{Error, Row as _};

use super::finding::{Examined, Finding, Severity};
use super::subject::{Roll, Subject};
use super::visit::Catalogue;
use super::{attacks, grants, roles, server};
use crate::policy::{Database, Name};

/// What every check needs.
pub(super) struct Examination<'a> {
    pub(super) catalogue: Catalogue,
    pub(super) database: &'a Database,
    pub(super) subjects: Vec<Subject>,
    /// The role of the URL, as the catalogue has it.
    pub(super) login_name: String,
    /// The same, quoted.
    pub(super) login: String,
    /// The server's name of the database, quoted.
    pub(super) database_name: String,
    /// The server's version, as `150004` for 15.4.
    pub(super) version: i32,
    /// Connections that the policy may open at this server, over all its databases there.
    pub(super) wanted_connections: i64,
    /// Whether statements that clients write run here.
    pub(super) takes_foreign_statements: bool,
}

/// Looks at one database. What cannot be looked at is said, and the rest is looked at all the same.
pub(super) async fn examine(
    database: &Database,
    roll: Roll,
    wanted_connections: i64,
    takes_foreign_statements: bool,
) -> Examined {
    let mut examined = Examined {
        database: Name::clone(&database.name),
        isolation: database.isolation,
        server: None,
        tenants: roll.subjects.iter().map(|tenant| tenant.id.to_string()).collect(),
        findings: roles::of_the_directory(&roll),
        unseen: Vec::new(),
    };
    let mut look = match open(database, roll, wanted_connections, takes_foreign_statements).await {
        Ok((look, version)) => {
            examined.server = Some(format!("PostgreSQL {version}"));
            look
        }
        Err(error) => {
            examined.unseen.push(format!("the server cannot be asked: {error}"));
            return examined;
        }
    };
    let mut add = |what: &str, found: Result<Vec<Finding>, Error>| match found {
        Ok(findings) => examined.findings.extend(findings),
        Err(error) => examined.unseen.push(format!("{what}: {error}")),
    };
    add("the server's settings", server::examine(&mut look).await);
    add("the login role", roles::of_the_login(&mut look).await);
    add("the tenants' roles", roles::of_the_tenants(&mut look).await);
    add("the grants", grants::examine(&mut look).await);
    match attacks::run(&mut look).await {
        Ok((findings, unseen)) => {
            add("the attacks", Ok(findings));
            examined.unseen.extend(unseen);
        }
        Err(error) => add("the attacks", Err(error)),
    }
    examined.findings.push(
        Finding::new(Severity::Note, "names-are-visible", "every role can read the catalogue")
            .because("PostgreSQL shows the names of all schemas, tables and roles to everyone: put nothing secret into a name"),
    );
    examined.findings.sort_by_key(|found| found.severity);
    examined
}

async fn open(
    database: &Database,
    roll: Roll,
    wanted_connections: i64,
    takes_foreign_statements: bool,
) -> Result<(Examination<'_>, String), Error> {
    let mut catalogue = Catalogue::open(database).await?;
    let rows = catalogue.rows(sqlx::query(
        "SELECT current_user::text, quote_ident(current_user), quote_ident(current_database()), \
                current_setting('server_version_num')::int, current_setting('server_version')",
    ));
    let rows = rows.await?;
    let own = rows.first().expect("a SELECT without FROM has one row");
    let look = Examination {
        database,
        subjects: roll.subjects,
        login_name: own.try_get(0)?,
        login: own.try_get(1)?,
        database_name: own.try_get(2)?,
        version: own.try_get(3)?,
        wanted_connections,
        takes_foreign_statements,
        catalogue,
    };
    Ok((look, own.try_get(4)?))
}

impl Examination<'_> {
    /// The role that a tenant's statements run as, as the catalogue has it.
    pub(super) fn role_of<'s>(&'s self, subject: &'s Subject) -> &'s str {
        subject.role.as_ref().map_or(&self.login_name, |role| role.as_str())
    }

    /// The same, quoted.
    pub(super) fn quoted_role_of(&self, subject: &Subject) -> String {
        subject.role.as_ref().map_or_else(|| self.login.clone(), |role| role.quoted().to_string())
    }

    /// The database's shared schemas, quoted.
    pub(super) fn shared(&self) -> Vec<String> {
        self.database.shared_schemas.iter().map(|schema| schema.quoted().to_string()).collect()
    }
}
