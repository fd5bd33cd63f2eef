//! Roles: what the login role and the tenants' roles are, may become, and are set to.

use sqlx::postgres::PgRow;
use sqlx::{Error, Row as _};

use super::examination::Examination;
use super::finding::{Finding, Severity};
use super::subject::{Roll, Subject};
use crate::tenant::Isolation;

/// Predefined roles that reach every table, or the server's files and programs.
const REACH_EVERYTHING: &[&str] = &[
    "pg_execute_server_program",
    "pg_maintain",
    "pg_read_all_data",
    "pg_read_server_files",
    "pg_write_all_data",
    "pg_write_server_files",
];

/// Predefined roles that see or disturb what others do.
const REACH_OTHERS: &[&str] =
    &["pg_checkpoint", "pg_monitor", "pg_read_all_stats", "pg_signal_backend", "pg_stat_scan_tables"];

/// Settings that stand in the way of what Innkeeper sets or relies on, where a role brings its own.
const DISTURBING_SETTINGS: &[&str] = &["role", "row_security", "search_path", "standard_conforming_strings"];

/// What can be told without asking the database.
pub(super) fn of_the_directory(roll: &Roll) -> Vec<Finding> {
    let mut findings = Vec::new();
    for doubled in &roll.doubled {
        let (id, why) = match doubled.what {
            "schema" => (
                "shared-schema",
                "each of them reads and changes the other's rows: give each a schema of its own, and \
                 make the column UNIQUE",
            ),
            _ => (
                "shared-role",
                "what is granted to one of them is granted to the other: give each a role of its own, \
                 and make the column UNIQUE",
            ),
        };
        let what = format!("several tenants have the {} `{}`", doubled.what, doubled.name);
        findings.push(Finding::new(Severity::Leak, id, what).because(why));
    }
    for id in &roll.without_role {
        findings.push(
            Finding::new(
                Severity::Risk,
                "tenant-without-role",
                format!("the tenant `{id}` has no role, and its level asks for one"),
            )
            .because("it is not served: name its role in the directory"),
        );
    }
    if roll.subjects.len() < 2 {
        findings.push(
            Finding::new(Severity::Note, "too-few-tenants", "there are fewer than two tenants to look at")
                .because("without another tenant nothing can be stolen, and nothing was tried"),
        );
    }
    findings
}

/// What a role is, once it exists.
struct Facts {
    is_superuser: bool,
    /// Attributes that no such role needs, as ALTER ROLE takes them away.
    needless: Vec<&'static str>,
    may_create_roles: bool,
    may_log_in: bool,
    connection_limit: i64,
}

async fn facts(look: &mut Examination<'_>, role: &str) -> Result<Option<Facts>, Error> {
    let rows = look.catalogue.rows(
        sqlx::query(
            "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication, rolcanlogin, \
                    rolconnlimit::int8 FROM pg_roles WHERE rolname = $1",
        )
        .bind(role.to_owned()),
    );
    let rows = rows.await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let mut needless = Vec::new();
    for (index, attribute) in
        ["NOBYPASSRLS", "NOCREATEROLE", "NOCREATEDB", "NOREPLICATION"].into_iter().enumerate()
    {
        if row.try_get(index + 1)? {
            needless.push(attribute);
        }
    }
    Ok(Some(Facts {
        is_superuser: row.try_get(0)?,
        needless,
        may_create_roles: row.try_get(2)?,
        may_log_in: row.try_get(5)?,
        connection_limit: row.try_get(6)?,
    }))
}

pub(super) async fn of_the_login(look: &mut Examination<'_>) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    let (name, quoted) = (look.login_name.clone(), look.login.clone());
    let facts = facts(look, &name).await?.expect("the role that is logged in exists");
    if facts.is_superuser {
        let what = format!("the login role {quoted} is a superuser");
        findings.push(
            Finding::new(Severity::Leak, "login-role-is-superuser", what)
                .because(
                    "no grant holds it: one function that goes back to it reads everything, and \
                          the server's files",
                )
                .mended_by([format!("ALTER ROLE {quoted} NOSUPERUSER;")]),
        );
    }
    if !facts.needless.is_empty() {
        let attributes = facts.needless.join(" ");
        findings.push(
            Finding::new(
                Severity::Risk,
                "login-role-is-powerful",
                format!("the login role {quoted} may do more than Innkeeper needs"),
            )
            .because("what goes back to it may use all of that")
            .mended_by([format!("ALTER ROLE {quoted} {attributes};")]),
        );
    }
    let rooms: Vec<String> = look.subjects.iter().map(|subject| subject.schema.as_str().to_owned()).collect();
    let owned =
        look.catalogue.rows(sqlx::query(include_str!("queries/owned.sql")).bind(rooms).bind(name.clone()));
    let owns = !owned.await?.is_empty();
    if look.database.isolation.needs_role() && owns {
        findings.push(
            Finding::new(
                Severity::Risk,
                "login-role-owns",
                format!("the login role {quoted} owns tenants' schemas or tables"),
            )
            .because("an owner needs no grant: what goes back to the login role reads and drops them")
            .mended_by([format!("REASSIGN OWNED BY {quoted} TO CURRENT_USER;")]),
        );
    }
    findings.extend(settings(look, &name, &quoted).await?);
    if findings.is_empty() {
        findings.push(Finding::new(
            Severity::Holds,
            "login-role-is-powerful",
            "the login role is nothing but a way in",
        ));
    }
    Ok(findings)
}

pub(super) async fn of_the_tenants(look: &mut Examination<'_>) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for subject in look.subjects.clone() {
        let Some(role) = &subject.role else { continue };
        let (name, quoted) = (role.as_str().to_owned(), role.quoted().to_string());
        let Some(facts) = facts(look, &name).await? else {
            findings.push(missing(look, &subject, &quoted));
            continue;
        };
        if facts.is_superuser {
            findings.push(
                Finding::new(
                    Severity::Leak,
                    "tenant-is-superuser",
                    format!("the role {quoted} is a superuser"),
                )
                .because("no grant holds it")
                .mended_by([format!("ALTER ROLE {quoted} NOSUPERUSER;")])
                .at([&subject]),
            );
        }
        if !facts.needless.is_empty() {
            // Until PostgreSQL 16 such a role grants itself every other one.
            let severity = if facts.may_create_roles && look.version < 160_000 {
                Severity::Leak
            } else {
                Severity::Risk
            };
            findings.push(
                Finding::new(
                    severity,
                    "tenant-is-powerful",
                    format!("the role {quoted} may do more than a tenant needs"),
                )
                .because(
                    "a tenant that makes roles, or is not held by row security, is on its way to \
                          others",
                )
                .mended_by([format!("ALTER ROLE {quoted} {};", facts.needless.join(" "))])
                .at([&subject]),
            );
        }
        if subject.level == Isolation::Login {
            findings.extend(coming_in(look, &subject, &facts, &quoted));
        }
        if !facts.is_superuser {
            findings.extend(memberships(look, &subject, &name).await?);
        }
        findings.extend(settings(look, &name, &quoted).await?.into_iter().map(|one| one.at([&subject])));
    }
    if findings.is_empty() && look.subjects.iter().any(|subject| subject.role.is_some()) {
        findings.push(Finding::new(
            Severity::Holds,
            "tenant-is-powerful",
            "the tenants' roles are plain, and members of nothing that reaches others",
        ));
    }
    Ok(findings)
}

fn missing(look: &Examination<'_>, subject: &Subject, quoted: &str) -> Finding {
    let mend = match subject.level {
        Isolation::Login => vec![format!("CREATE ROLE {quoted} LOGIN;")],
        _ => vec![format!("CREATE ROLE {quoted} NOLOGIN;"), format!("GRANT {quoted} TO {};", look.login)],
    };
    Finding::new(Severity::Risk, "role-is-missing", format!("there is no role {quoted}"))
        .because("the tenant's requests fail; whoever may make roles could take its place")
        .mended_by(mend)
        .at([subject])
}

fn coming_in(look: &Examination<'_>, subject: &Subject, facts: &Facts, quoted: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !facts.may_log_in {
        findings.push(
            Finding::new(Severity::Risk, "role-cannot-log-in", format!("the role {quoted} cannot log in"))
                .because(
                    "at level `login` the tenant's requests fail; give it the password that the \
                          policy has, too",
                )
                .mended_by([format!("ALTER ROLE {quoted} LOGIN;")])
                .at([subject]),
        );
    }
    let share = i64::from(look.database.pool.tenant_connections);
    if (0..share).contains(&facts.connection_limit) {
        findings.push(
            Finding::new(
                Severity::Risk,
                "tenant-connection-limit",
                format!(
                    "the role {quoted} may log in {} times, and the pool may want {share}",
                    facts.connection_limit
                ),
            )
            .because("under load the tenant's requests fail before its share of the pool is used")
            .mended_by([format!("ALTER ROLE {quoted} CONNECTION LIMIT {share};")])
            .at([subject]),
        );
    }
    findings
}

/// Roles that a tenant's role can become or use, of those that it must not, and the direct grants
/// that lead there.
async fn memberships(
    look: &mut Examination<'_>,
    subject: &Subject,
    name: &str,
) -> Result<Vec<Finding>, Error> {
    let mut forbidden: Vec<String> =
        REACH_EVERYTHING.iter().chain(REACH_OTHERS).map(|role| (*role).to_owned()).collect();
    let others =
        look.subjects.iter().filter(|other| other.id != subject.id).filter_map(|other| other.role.as_ref());
    forbidden.extend(others.map(|role| role.as_str().to_owned()));
    forbidden.push(look.login_name.clone());
    let rows = look
        .catalogue
        .rows(sqlx::query(include_str!("queries/memberships.sql")).bind(name.to_owned()).bind(forbidden));
    let tell = |row: &PgRow| {
        let (reached, quoted): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let (hop, member): (String, String) = (row.try_get(2)?, row.try_get(3)?);
        let severity = if REACH_OTHERS.contains(&reached.as_str()) { Severity::Risk } else { Severity::Leak };
        let means = match (row.try_get(4)?, row.try_get(5)?) {
            (true, true) => "has its rights, and may become it",
            (true, false) => "has its rights",
            (false, true) => "may become it",
            (false, false) => "may grant itself the rest",
        };
        let what = format!("the role {member} is a member of {quoted}, and {means}");
        Ok(Finding::new(severity, "tenant-is-member", what)
            .because("a tenant then does what only that role may do")
            .mended_by([format!("REVOKE {hop} FROM {member};")])
            .at([subject]))
    };
    rows.await?.iter().map(tell).collect()
}

/// Settings of a role's own that disturb.
async fn settings(look: &mut Examination<'_>, name: &str, quoted: &str) -> Result<Vec<Finding>, Error> {
    let rows = look.catalogue.rows(
        sqlx::query(include_str!("queries/settings.sql"))
            .bind(name.to_owned())
            .bind(DISTURBING_SETTINGS.iter().map(|setting| (*setting).to_owned()).collect::<Vec<_>>()),
    );
    let tell = |row: &PgRow| {
        let (setting, is_of_database): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
        let place = if is_of_database {
            format!(" IN DATABASE {}", row.try_get::<String, _>(2)?)
        } else {
            String::new()
        };
        let what = format!("the role {quoted} has a `{setting}` of its own");
        Ok(Finding::new(Severity::Risk, "role-has-settings", what)
            .because(
                "Innkeeper sets it for each transaction; whatever else logs in as that role does \
                      not, and works in another place than it thinks",
            )
            .mended_by([format!("ALTER ROLE {quoted}{place} RESET {setting};")]))
    };
    rows.await?.iter().map(tell).collect()
}
