//! Grants: which ways the catalogue leaves open, and the statements that close them.

use sqlx::postgres::PgRow;
use sqlx::{Error, Row as _};

use super::examination::Examination;
use super::finding::{Finding, Severity};
use super::subject::Subject;
use crate::tenant::Isolation;

/// Functions of PostgreSQL's own that reach the server's files; by default superusers' alone.
const FILE_FUNCTIONS: &[&str] =
    &["lo_export", "lo_import", "pg_ls_dir", "pg_read_binary_file", "pg_read_file", "pg_stat_file"];

/// Extensions whose functions open connections or files from inside the server, or run statements in
/// other sessions.
const REACHING_EXTENSIONS: &[&str] = &["adminpack", "dblink", "http", "pg_background", "pg_cron", "pg_net"];

pub(super) async fn examine(look: &mut Examination<'_>) -> Result<Vec<Finding>, Error> {
    let mut findings = missing_schemas(look).await?;
    findings.extend(default_privileges(look).await?);
    for subject in look.subjects.clone() {
        if subject.role.is_none() {
            continue;
        }
        findings.extend(other_schemas(look, &subject).await?);
        findings.extend(borrowed_powers(look, &subject).await?);
        if subject.level == Isolation::Role {
            findings.extend(run_text(look, &subject).await?);
        }
        findings.extend(ways_out(look, &subject).await?);
        findings.extend(other_servers(look, &subject).await?);
    }
    findings.extend(row_security(look).await?);
    if findings.is_empty() {
        findings.push(Finding::new(Severity::Holds, "grants", "no grant leads out of a tenant's schema"));
    }
    Ok(findings)
}

/// The statements that take from `role` what lets it into `schema`: grants to it, to everyone, to
/// roles that it is a member of, and ownership.
pub(super) async fn close(
    look: &mut Examination<'_>,
    role: &str,
    schema: &str,
) -> Result<Vec<String>, Error> {
    let rows = look
        .catalogue
        .rows(sqlx::query(include_str!("queries/ways_in.sql")).bind(role.to_owned()).bind(schema.to_owned()));
    rows.await?.iter().map(|row| row.try_get(0)).collect()
}

async fn missing_schemas(look: &mut Examination<'_>) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for subject in look.subjects.clone() {
        let found = look.catalogue.rows(
            sqlx::query("SELECT FROM pg_namespace WHERE nspname = $1")
                .bind(subject.schema.as_str().to_owned()),
        );
        if found.await?.is_empty() {
            let (schema, role) = (subject.schema.quoted().to_string(), look.quoted_role_of(&subject));
            findings.push(
                Finding::new(Severity::Risk, "schema-is-missing", format!("there is no schema {schema}"))
                    .because("the tenant's requests fail; whoever may make schemas could take its place")
                    .mended_by([
                        format!("CREATE SCHEMA {schema};"),
                        format!("GRANT USAGE ON SCHEMA {schema} TO {role};"),
                    ])
                    .at([&subject]),
            );
        }
    }
    Ok(findings)
}

/// Tables that are yet to be made, and are granted to everyone or to another tenant already.
async fn default_privileges(look: &mut Examination<'_>) -> Result<Vec<Finding>, Error> {
    let (schemas, roles): (Vec<_>, Vec<_>) = look
        .subjects
        .iter()
        .map(|one| (one.schema.as_str().to_owned(), one.role.as_ref().map(|role| role.as_str().to_owned())))
        .unzip();
    let rows = look
        .catalogue
        .rows(sqlx::query(include_str!("queries/default_privileges.sql")).bind(schemas).bind(roles));
    let tell = |row: &PgRow| {
        let (maker, schema): (String, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
        let (kind, grantee): (String, String) = (row.try_get(2)?, row.try_get(3)?);
        let place = schema.map(|schema| format!(" IN SCHEMA {schema}")).unwrap_or_default();
        Ok(Finding::new(
            Severity::Leak,
            "default-privileges",
            format!(
                "{} that {maker} makes{} will be granted to {grantee}",
                kind.to_lowercase(),
                place.to_lowercase()
            ),
        )
        .because(
            "the next migration opens what is closed today; what was made so far is looked at by \
                  itself",
        )
        .mended_by([format!(
            "ALTER DEFAULT PRIVILEGES FOR ROLE {maker}{place} REVOKE ALL ON {kind} FROM {grantee};"
        )]))
    };
    rows.await?.iter().map(tell).collect()
}

/// Schemas that a tenant's role may enter, besides its own, the shared ones and `public`.
async fn other_schemas(look: &mut Examination<'_>, subject: &Subject) -> Result<Vec<Finding>, Error> {
    let role = look.role_of(subject).to_owned();
    let mut usual: Vec<String> =
        look.database.shared_schemas.iter().map(|schema| schema.as_str().to_owned()).collect();
    usual.extend([subject.schema.as_str().to_owned(), "public".to_owned(), "information_schema".to_owned()]);
    let rows = look
        .catalogue
        .rows(sqlx::query(include_str!("queries/other_schemas.sql")).bind(role.clone()).bind(usual));
    let mut findings = Vec::new();
    for row in rows.await? {
        let (schema, quoted): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let what = format!("the role {} may use the schema {quoted}", look.quoted_role_of(subject));
        findings.push(
            Finding::new(Severity::Risk, "enters-another-schema", what)
                .because(
                    "one careless GRANT on a table there, and the tenant reads it; a schema for \
                          all belongs into `shared_schemas`",
                )
                .mended_by(close(look, &role, &schema).await?)
                .at([subject]),
        );
    }
    Ok(findings)
}

/// Functions that run as somebody stronger than the tenant that may call them.
async fn borrowed_powers(look: &mut Examination<'_>, subject: &Subject) -> Result<Vec<Finding>, Error> {
    let others: Vec<String> = look
        .subjects
        .iter()
        .filter(|other| other.schema != subject.schema)
        .map(|other| other.schema.as_str().to_owned())
        .collect();
    let role = look.quoted_role_of(subject);
    let rows = look.catalogue.rows(
        sqlx::query(include_str!("queries/borrowed_powers.sql"))
            .bind(look.role_of(subject).to_owned())
            .bind(others)
            .bind(subject.schema.as_str().to_owned()),
    );
    let mut findings = Vec::new();
    for row in rows.await? {
        let (function, owner): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let (is_pinned, for_all): (bool, bool) = (row.try_get(2)?, row.try_get(3)?);
        let (home, makes_names): (String, bool) = (row.try_get(4)?, row.try_get(5)?);
        if !is_pinned {
            let severity = if makes_names { Severity::Leak } else { Severity::Risk };
            let what = format!("{function} runs as {owner} on the search path of {role}, who may call it");
            findings.push(
                Finding::new(severity, "callers-search-path", what)
                    .because(
                        "whoever makes a table, function or operator in front of the one that it means has it \
                         do anything as its owner",
                    )
                    .mended_by([format!(
                        "ALTER ROUTINE {function} SET search_path TO pg_catalog, {home}, pg_temp;"
                    )])
                    .at([subject]),
            );
        }
        let grantee = if for_all { "PUBLIC" } else { role.as_str() };
        findings.push(
            Finding::new(
                Severity::Risk,
                "borrowed-power",
                format!("{role} may call {function}, which runs as {owner}"),
            )
            .because("it does for a tenant what the tenant may not do itself: read it, or take it away")
            .mended_by([format!("REVOKE EXECUTE ON ROUTINE {function} FROM {grantee};")])
            .at([subject]),
        );
    }
    Ok(findings)
}

/// Functions that run text as SQL, where such text can change the role.
async fn run_text(look: &mut Examination<'_>, subject: &Subject) -> Result<Vec<Finding>, Error> {
    let role = look.quoted_role_of(subject);
    let rows = look
        .catalogue
        .rows(sqlx::query(include_str!("queries/runs_text.sql")).bind(look.role_of(subject).to_owned()));
    let takes_foreign_statements = look.takes_foreign_statements;
    let tell = |row: &PgRow| {
        let (function, language): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let (for_all, spellings): (bool, String) = (row.try_get(2)?, row.try_get(3)?);
        // A function by its name must be on a route's list. These spellings name none.
        let slips_by = takes_foreign_statements && !spellings.is_empty();
        let how = if spellings.is_empty() { String::new() } else { format!(", also as {spellings}") };
        let grantee = if for_all { "PUBLIC" } else { role.as_str() };
        Ok(Finding::new(
            if slips_by { Severity::Leak } else { Severity::Risk },
            "runs-text",
            format!("{role} may call {function}, whose {language} code can run text as SQL{how}"),
        )
        .because(
            "at level `role` such text can become any role that the login role may become: take the right \
             away, or give the database `isolation: login` in the policy, where it cannot",
        )
        .mended_by([format!("REVOKE EXECUTE ON ROUTINE {function} FROM {grantee};")])
        .at([subject]))
    };
    rows.await?.iter().map(tell).collect()
}

/// Ways out of the database as such: files, programs, other servers.
async fn ways_out(look: &mut Examination<'_>, subject: &Subject) -> Result<Vec<Finding>, Error> {
    let role = look.quoted_role_of(subject);
    let rows = look.catalogue.rows(
        sqlx::query(include_str!("queries/ways_out.sql"))
            .bind(look.role_of(subject).to_owned())
            .bind(FILE_FUNCTIONS.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
            .bind(REACHING_EXTENSIONS.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()),
    );
    let tell = |row: &PgRow| {
        let (source, functions): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let grantee = if row.try_get(2)? { "PUBLIC" } else { role.as_str() };
        // Another server still asks who comes.
        let severity = if row.try_get(3)? { Severity::Leak } else { Severity::Risk };
        Ok(Finding::new(
            severity,
            "leaves-the-database",
            format!("{role} may call functions of {source} that reach files or other servers"),
        )
        .because(
            "no scope of a transaction holds what such a function does: it may come back as somebody else",
        )
        .mended_by([format!("REVOKE EXECUTE ON FUNCTION {functions} FROM {grantee};")])
        .at([subject]))
    };
    rows.await?.iter().map(tell).collect()
}

/// Other servers that PostgreSQL itself asks for the tenant.
async fn other_servers(look: &mut Examination<'_>, subject: &Subject) -> Result<Vec<Finding>, Error> {
    let role = look.role_of(subject).to_owned();
    let rows = look.catalogue.rows(sqlx::query(include_str!("queries/other_servers.sql")).bind(role));
    let tell = |row: &PgRow| {
        Ok(Finding::new(Severity::Risk, "asks-other-servers", row.try_get::<String, _>(0)?)
            .because(
                "what stands behind is read as whoever the mapping says, whichever tenant asks: it is \
                 outside of what holds here",
            )
            .mended_by([row.try_get(1)?])
            .at([subject]))
    };
    rows.await?.iter().map(tell).collect()
}

/// Tables for all tenants whose policies are written, and hold nobody.
async fn row_security(look: &mut Examination<'_>) -> Result<Vec<Finding>, Error> {
    let mut schemas: Vec<String> =
        look.database.shared_schemas.iter().map(|schema| schema.as_str().to_owned()).collect();
    schemas.push("public".to_owned());
    let mut findings: Vec<Finding> = Vec::new();
    for subject in look.subjects.clone() {
        let role = look.role_of(&subject).to_owned();
        let rows = look
            .catalogue
            .rows(sqlx::query(include_str!("queries/row_security.sql")).bind(role).bind(schemas.clone()));
        for row in rows.await? {
            let (table, is_on): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
            let role = look.quoted_role_of(&subject);
            let (id, what, mend) = if is_on {
                let what = format!("the policies of {table} do not hold {role}, who owns it");
                ("row-security-is-not-forced", what, format!("ALTER TABLE {table} FORCE ROW LEVEL SECURITY;"))
            } else {
                let what = format!("{table} has policies, and its row security is off");
                ("row-security-is-off", what, format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;"))
            };
            match findings.iter_mut().find(|told| told.what == what) {
                Some(told) => told.tenants.push(subject.id.to_string()),
                None => findings.push(
                    Finding::new(Severity::Leak, id, what)
                        .because("every tenant sees the rows of all, and whoever wrote the policies thinks otherwise")
                        .mended_by([mend])
                        .at([&subject]),
                ),
            }
        }
    }
    Ok(findings)
}
