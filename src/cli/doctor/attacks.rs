//! The attacks: each tenant tries to reach every other, by every way that PostgreSQL knows. Each is
//! one transaction, and is rolled back; no row of a user's table is read into us or changed.

use std::collections::BTreeMap;

use sqlx::{Error, Row as _};

use super::examination::Examination;
use super::finding::{Finding, Severity};
use super::grants;
use super::subject::Subject;
use super::visit::{Attacker, Outcome};
use crate::tenant::{Isolation, SchemaName};

/// The name of what an attacker tries to make; it never comes to be.
const OBJECT: &str = "innkeeper_doctor";

/// A table that is surely there, and that the attacker's role is granted if it is granted any.
struct Canary {
    /// With its schema, quoted.
    qualified: String,
    /// Without.
    plain: String,
    /// Whether its policies hold the attacker.
    is_guarded: bool,
}

/// What was learned, over all pairs of tenants.
#[derive(Default)]
struct Log {
    findings: Vec<Finding>,
    /// What could not be tried, and why.
    unseen: Vec<String>,
    /// Ids of attacks that were refused every time so far, with what it means that they are.
    held: BTreeMap<&'static str, &'static str>,
}

/// Runs them all; besides findings there may be attempts that proved nothing.
pub(super) async fn run(look: &mut Examination<'_>) -> Result<(Vec<Finding>, Vec<String>), Error> {
    let mut log = Log::default();
    let subjects = look.subjects.clone();
    for attacker in &subjects {
        let shared = look.shared();
        let mut hands = match Attacker::enter(look.database, attacker, shared.into_iter()).await {
            Ok(hands) => hands,
            Err(error) => {
                log.findings.push(cannot_enter(look, attacker));
                log.unseen.push(format!("what the tenant `{}` can reach: {error}", attacker.id));
                continue;
            }
        };
        on_its_own(look, &mut hands, attacker, &mut log).await?;
        for victim in subjects.iter().filter(|other| other.id != attacker.id) {
            reach(look, &mut hands, attacker, victim, &mut log).await?;
        }
    }
    let Log { findings, unseen, mut held } = log;
    held.retain(|id, _| findings.iter().all(|found| found.id != *id));
    let held = held.into_iter().map(|(id, what)| Finding::new(Severity::Holds, id, what));
    Ok((findings.into_iter().chain(held).collect(), unseen))
}

fn cannot_enter(look: &Examination<'_>, attacker: &Subject) -> Finding {
    let role = look.quoted_role_of(attacker);
    let (what, mend) = match attacker.level {
        Isolation::Login => ("log in", Vec::new()),
        _ => {
            // Since PostgreSQL 16 a membership may be one that does not let anyone become the role.
            let options = if look.version >= 160_000 { " WITH INHERIT FALSE, SET TRUE" } else { "" };
            ("be taken on by the login role", vec![format!("GRANT {role} TO {}{options};", look.login)])
        }
    };
    Finding::new(Severity::Risk, "tenant-cannot-come-in", format!("the role {role} cannot {what}"))
        .because("the tenant's requests fail; at level `login` look at its password, and at `pg_hba.conf`")
        .mended_by(mend)
        .at([attacker])
}

/// What a tenant can do without aiming at another one.
async fn on_its_own(
    look: &mut Examination<'_>,
    hands: &mut Attacker,
    attacker: &Subject,
    log: &mut Log,
) -> Result<(), Error> {
    let role = look.quoted_role_of(attacker);
    let name = look.role_of(attacker).to_owned();
    if let Some(own) = canary(look, &name, attacker, "SELECT").await? {
        let outcome = hands.attempt(&[read(&own.qualified)]).await;
        if outcome == Outcome::Refused {
            log.findings.push(cannot_read(attacker, &role));
        }
        let shadow = [
            format!("CREATE TEMP TABLE {} ({OBJECT} int)", own.plain),
            format!("SELECT {OBJECT} FROM {}", own.plain),
        ];
        let outcome = hands.attempt(&shadow).await;
        log.judge(outcome, "shadows-a-table", "no temporary table stands before a tenant's own", || {
            let what = format!("a temporary table stands before the table {} of {role}", own.plain);
            Finding::new(Severity::Leak, "shadows-a-table", what)
                .because("what one request left behind, the next one would read")
                .at([attacker])
        });
    }
    places_for_all(look, hands, attacker, log).await?;

    let outcome = hands.attempt(&[format!("CREATE SCHEMA {OBJECT}")]).await;
    let database = &look.database_name;
    log.judge(outcome, "creates-schemas", "no tenant makes schemas", || {
        Finding::new(Severity::Risk, "creates-schemas", format!("{role} may create schemas"))
            .because("it could make the next tenant's schema before its owner does, and own it")
            .mended_by(
                ["PUBLIC", &role].map(|from| format!("REVOKE CREATE ON DATABASE {database} FROM {from};")),
            )
            .at([attacker])
    });
    Ok(())
}

fn cannot_read(attacker: &Subject, role: &str) -> Finding {
    let schema = attacker.schema.quoted();
    let what = format!("the role {role} cannot read its own tables");
    Finding::new(Severity::Risk, "cannot-read-its-own", what)
        .because("the tenant's requests fail; and that it cannot read another's proves little")
        .mended_by([
            format!("GRANT USAGE ON SCHEMA {schema} TO {role};"),
            format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role};"),
        ])
        .at([attacker])
}

/// Schemas in which others would find what a tenant made.
async fn places_for_all(
    look: &mut Examination<'_>,
    hands: &mut Attacker,
    attacker: &Subject,
    log: &mut Log,
) -> Result<(), Error> {
    let role = look.quoted_role_of(attacker);
    let shared = look.database.shared_schemas.clone();
    let is_on_the_path = shared.iter().any(SchemaName::is_public);

    let mend = revoke_create(look, "public", attacker).await?;
    let outcome = hands.attempt(&[format!("CREATE TABLE public.{OBJECT} ()")]).await;
    log.judge(outcome, "creates-in-public", "no tenant makes anything in `public`", || {
        let severity = if is_on_the_path { Severity::Leak } else { Severity::Risk };
        Finding::new(severity, "creates-in-public", format!("{role} may create in the schema public"))
            .because(
                "whoever has `public` on its path calls what a tenant put there, as CVE-2018-1058 \
                      tells",
            )
            .mended_by(mend)
            .at([attacker])
    });
    for schema in shared.iter().filter(|schema| !schema.is_public()) {
        let mend = revoke_create(look, schema.as_str(), attacker).await?;
        let outcome = hands.attempt(&[format!("CREATE TABLE {}.{OBJECT} ()", schema.quoted())]).await;
        log.judge(
            outcome,
            "creates-in-a-shared-schema",
            "no tenant makes anything in a shared schema",
            || {
                let what = format!("{role} may create in the shared schema {}", schema.quoted());
                Finding::new(Severity::Leak, "creates-in-a-shared-schema", what)
                    .because("every tenant looks there, and calls what this one put there")
                    .mended_by(mend)
                    .at([attacker])
            },
        );
    }
    Ok(())
}

/// What one tenant can do to another.
async fn reach(
    look: &mut Examination<'_>,
    hands: &mut Attacker,
    attacker: &Subject,
    victim: &Subject,
    log: &mut Log,
) -> Result<(), Error> {
    let role = look.quoted_role_of(attacker);
    let home = victim.schema.quoted();
    let name = look.role_of(attacker).to_owned();
    // Closing one way closes them all: what lets the attacker in is one list.
    let mend = grants::close(look, &name, victim.schema.as_str()).await?;

    if let Some(table) = canary(look, &name, victim, "SELECT").await? {
        let path = literal(&home.to_string());
        let outcome = hands
            .attempt_any([
                vec![read(&table.qualified)],
                vec![
                    format!("SELECT pg_catalog.set_config('search_path', {path}, true)"),
                    read(&table.plain),
                ],
            ])
            .await;
        // Row security answers "nothing" where a missing right answers "no".
        let is_hidden =
            outcome == Outcome::Done && table.is_guarded && !hands.sees_a_row_of(&table.qualified).await?;
        if is_hidden {
            log.tell(across(only_row_security(&role, &table, victim, &mend), attacker, victim));
        } else {
            log.judge(outcome, "reads-another-tenant", "no tenant reads another's tables", || {
                let what = format!("{role} reads {} of the tenant `{}`", table.qualified, victim.id);
                let found = Finding::new(Severity::Leak, "reads-another-tenant", what)
                    .because("a statement that names the other schema is answered")
                    .mended_by(mend.clone());
                across(found, attacker, victim)
            });
        }
        step_back(look, hands, attacker, victim, log).await?;
    }

    if let Some(table) = canary(look, &name, victim, "INSERT, UPDATE, DELETE, TRUNCATE").await? {
        // EXPLAIN asks for the privileges of the statement, and does not run it.
        let outcome = hands
            .attempt_any([
                vec![format!("EXPLAIN DELETE FROM {}", table.qualified)],
                vec![format!("EXPLAIN INSERT INTO {} DEFAULT VALUES", table.qualified)],
            ])
            .await;
        log.judge(outcome, "changes-another-tenant", "no tenant changes another's tables", || {
            let what = format!("{role} changes {} of the tenant `{}`", table.qualified, victim.id);
            let found = Finding::new(Severity::Leak, "changes-another-tenant", what)
                .because("a statement that names the other schema is carried out")
                .mended_by(mend.clone());
            across(found, attacker, victim)
        });
    }

    let outcome = hands.attempt(&[format!("CREATE TABLE {home}.{OBJECT} ()")]).await;
    log.judge(outcome, "creates-at-another-tenant", "no tenant makes anything in another's schema", || {
        let what = format!("{role} may create in the schema {home} of the tenant `{}`", victim.id);
        let found = Finding::new(Severity::Leak, "creates-at-another-tenant", what)
            .because("the other tenant calls what this one put there")
            .mended_by(mend);
        across(found, attacker, victim)
    });
    become_another(look, hands, attacker, victim, log).await;
    Ok(())
}

fn only_row_security(role: &str, table: &Canary, victim: &Subject, mend: &[String]) -> Finding {
    let what = format!(
        "{role} may read {} of the tenant `{}`, and sees no row of it by its policies alone",
        table.qualified, victim.id
    );
    Finding::new(Severity::Risk, "row-security-alone", what)
        .because(
            "one more policy, one exempt owner, or row security that somebody switches off, and it reads",
        )
        .mended_by(mend.iter().cloned())
}

/// That one tenant reaches another. Level `schema` does not promise otherwise, and to mend it would
/// be to lock the login role out.
fn across(found: Finding, attacker: &Subject, victim: &Subject) -> Finding {
    let found = found.at([attacker, victim]);
    match attacker.level {
        Isolation::Schema => Finding {
            severity: Severity::Note,
            why: "level `schema` keeps names apart, not rows: it is for statements that you wrote; take `role` \
                  or `login` for others",
            mend: Vec::new(),
            ..found
        },
        Isolation::Role | Isolation::Login => found,
    }
}

/// Goes back to the role that the connection logged in as, and reads with it.
async fn step_back(
    look: &mut Examination<'_>,
    hands: &mut Attacker,
    attacker: &Subject,
    victim: &Subject,
    log: &mut Log,
) -> Result<(), Error> {
    if attacker.level != Isolation::Role {
        return Ok(());
    }
    let Some(table) = canary(look, &look.login_name.clone(), victim, "SELECT").await? else {
        return Ok(());
    };
    let outcome = hands.attempt(&["RESET ROLE".to_owned(), read(&table.qualified)]).await;
    let (login_name, login) = (look.login_name.clone(), look.login.clone());
    // The login role must stay a member of tenants' roles; what it must not do is to inherit.
    let mut mend: Vec<String> = Vec::new();
    for statement in grants::close(look, &login_name, victim.schema.as_str()).await? {
        match statement.strip_prefix("REVOKE ").and_then(|rest| rest.split_once(" FROM ")) {
            Some((role, _)) if !role.starts_with("ALL ON ") => mend.push(match look.version {
                160_000.. => format!("GRANT {role} TO {login} WITH INHERIT FALSE;"),
                _ => format!("ALTER ROLE {login} NOINHERIT;"),
            }),
            _ => mend.push(statement),
        }
    }
    log.judge(
        outcome,
        "steps-back-to-the-login-role",
        "the login role itself reads no tenant's tables",
        || {
            let what = format!(
                "`RESET ROLE` gives {login} back, which reads {} of the tenant `{}`",
                table.qualified, victim.id
            );
            Finding::new(Severity::Leak, "steps-back-to-the-login-role", what)
                .because(
                    "a function or trigger that a tenant wrote can do that, and come back before \
                      anyone looks",
                )
                .mended_by(mend)
                .at([attacker, victim])
        },
    );
    Ok(())
}

/// Takes on the other tenant's role.
async fn become_another(
    look: &Examination<'_>,
    hands: &mut Attacker,
    attacker: &Subject,
    victim: &Subject,
    log: &mut Log,
) {
    let (Some(role), Some(theirs)) = (&attacker.role, &victim.role) else { return };
    let name = literal(theirs.as_str());
    let outcome = hands
        .attempt_any([
            vec![format!("SET LOCAL ROLE {}", theirs.quoted())],
            vec![format!("SELECT pg_catalog.set_config('role', {name}, true)")],
            vec![format!("SET LOCAL SESSION AUTHORIZATION {}", theirs.quoted())],
        ])
        .await;
    let (role, theirs) = (role.quoted().to_string(), theirs.quoted().to_string());
    log.judge(outcome, "becomes-another-tenant", "no tenant takes on another's role", || {
        if attacker.level == Isolation::Login {
            return Finding::new(
                Severity::Leak,
                "becomes-another-tenant",
                format!("{role} can become {theirs}"),
            )
            .because("it then is the other tenant")
            .mended_by([format!("REVOKE {theirs} FROM {role};")])
            .at([attacker, victim]);
        }
        let severity = if look.takes_foreign_statements { Severity::Risk } else { Severity::Note };
        let what = format!("code that runs as {role} can take on {theirs}");
        Finding::new(severity, "becomes-another-tenant", what)
            .because(
                "at level `role` the login role must be able to become each tenant, and so can a \
                      function that a tenant wrote; with `isolation: login` it cannot",
            )
            .at([attacker, victim])
    });
}

impl Log {
    /// A property of the level is told once, of all tenants that have it.
    fn tell(&mut self, finding: Finding) {
        let same = |told: &&mut Finding| told.id == finding.id && told.severity == Severity::Note;
        match self.findings.iter_mut().find(same) {
            Some(told) if finding.severity == Severity::Note => {
                for tenant in finding.tenants {
                    if !told.tenants.contains(&tenant) {
                        told.tenants.push(tenant);
                    }
                }
            }
            _ => self.findings.push(finding),
        }
    }

    fn judge(
        &mut self,
        outcome: Outcome,
        id: &'static str,
        holds: &'static str,
        finding: impl FnOnce() -> Finding,
    ) {
        match outcome {
            Outcome::Done => self.tell(finding()),
            Outcome::Refused | Outcome::Absent => {
                self.held.insert(id, holds);
            }
            Outcome::Unclear(why) => self.unseen.push(format!("{id}: {why}")),
        }
    }
}

fn read(table: &str) -> String {
    format!("SELECT FROM {table} LIMIT 1")
}

/// A table of the victim's, one that the catalogue grants to `role` before all others. That it is
/// there is what makes a refusal mean something.
async fn canary(
    look: &mut Examination<'_>,
    role: &str,
    victim: &Subject,
    privileges: &str,
) -> Result<Option<Canary>, Error> {
    let rows = look.catalogue.rows(
        sqlx::query(include_str!("queries/canary.sql"))
            .bind(victim.schema.as_str().to_owned())
            .bind(role.to_owned())
            .bind(privileges.to_owned()),
    );
    let rows = rows.await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(Canary { qualified: row.try_get(0)?, plain: row.try_get(1)?, is_guarded: row.try_get(2)? }))
}

/// The statements that take CREATE on a schema from the attacker, and from whomever it has it of.
async fn revoke_create(
    look: &mut Examination<'_>,
    schema: &str,
    attacker: &Subject,
) -> Result<Vec<String>, Error> {
    let rows = look.catalogue.rows(
        sqlx::query(include_str!("queries/revoke_create.sql"))
            .bind(schema.to_owned())
            .bind(look.role_of(attacker).to_owned()),
    );
    rows.await?.iter().map(|row| row.try_get(0)).collect()
}

/// A string constant that is read the same whatever `standard_conforming_strings` says.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
