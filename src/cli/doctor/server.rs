//! The server as such: its age, its limits, how one reaches it, what it writes down.

use sqlx::{Error, Row as _};

use super::examination::Examination;
use super::finding::{Finding, Severity};
use crate::tenant::Isolation;

/// Major versions and the day of their last fix (postgresql.org, "Versioning Policy").
const LAST_FIXES: &[(i32, &str)] = &[
    (13, "2025-11-13"),
    (14, "2026-11-12"),
    (15, "2027-11-11"),
    (16, "2028-11-09"),
    (17, "2029-11-08"),
    (18, "2030-11-14"),
];

pub(super) async fn examine(look: &mut Examination<'_>) -> Result<Vec<Finding>, Error> {
    let rows = look.catalogue.rows(sqlx::query(include_str!("queries/server.sql")));
    let rows = rows.await?;
    let facts = rows.first().expect("a SELECT without FROM has one row");
    let mut findings = vec![version(look.version, facts.try_get("today")?)];
    findings.push(connections(
        look,
        facts.try_get("connections")?,
        [
            ("ALTER ROLE", look.login.clone(), facts.try_get("of_login")?),
            ("ALTER DATABASE", look.database_name.clone(), facts.try_get("of_database")?),
        ],
    ));
    let encrypted: bool = facts.try_get("encrypted")?;
    findings.push(if facts.try_get("remote")? && !encrypted {
        Finding::new(Severity::Risk, "connection-in-clear", "the connection to the server is not encrypted")
            .because(
                "who can listen on the way reads every tenant's rows, and may change them; write \
                      `sslmode=verify-full` into the database's url",
            )
    } else {
        Finding::new(
            Severity::Holds,
            "connection-in-clear",
            "the connection is encrypted, or stays on \
                                                              this machine",
        )
    });
    if facts.try_get("listens_afar")? && !facts.try_get::<bool, _>("offers_tls")? {
        findings.push(
            Finding::new(
                Severity::Risk,
                "server-without-tls",
                "the server takes connections of other machines, and offers no TLS",
            )
            .because("whatever comes from there, also of other applications, can be read on the way")
            .mended_by([
                "ALTER SYSTEM SET ssl = on; -- with `server.crt` and `server.key` in the data directory"
                    .to_owned(),
                "SELECT pg_reload_conf();".to_owned(),
            ]),
        );
    }
    if facts.try_get::<&str, _>("encryption")? == "md5" {
        findings.push(
            Finding::new(Severity::Risk, "md5-passwords", "new passwords are stored as MD5")
                .because("such a hash is as good as the password to whoever sees it")
                .mended_by([
                    "ALTER SYSTEM SET password_encryption = 'scram-sha-256';".to_owned(),
                    "SELECT pg_reload_conf();".to_owned(),
                ]),
        );
    }
    if facts.try_get("large_objects")? {
        findings.push(
            Finding::new(Severity::Leak, "large-objects-are-everybodys", "`lo_compat_privileges` is on")
                .because("every role reads and changes every large object, whoever made it")
                .mended_by([
                    "ALTER SYSTEM SET lo_compat_privileges = off;".to_owned(),
                    "SELECT pg_reload_conf();".to_owned(),
                ]),
        );
    }
    if facts.try_get("logs")? {
        findings.push(
            Finding::new(
                Severity::Note,
                "values-in-the-log",
                "the server's log holds statements with their values",
            )
            .because("it then holds tenants' data: keep it as you keep the database"),
        );
    }
    if !facts.try_get("watches_clients")? {
        findings.push(
            Finding::new(
                Severity::Note,
                "abandoned-queries",
                "the server cannot tell that a client has gone",
            )
            .because(
                "a cancelled request's query runs on until `statement_timeout`; PostgreSQL 14 and later \
                 can",
            ),
        );
    }
    if facts.try_get("shows_rules")? {
        findings.extend(trusted_from_afar(look).await?);
    }
    Ok(findings)
}

fn version(version: i32, today: &str) -> Finding {
    let major = version / 10_000;
    let (oldest, _) = LAST_FIXES[0];
    let last_fix = LAST_FIXES.iter().find(|(known, _)| *known == major).map(|(_, day)| *day);
    // Days are written so that their order as text is their order in time.
    let is_over = major < oldest || last_fix.is_some_and(|day| day < today);
    if is_over {
        Finding::new(Severity::Risk, "unsupported-server", format!("PostgreSQL {major} gets no more fixes"))
            .because("holes that are found from now on stay open: upgrade to a supported major version")
    } else {
        Finding::new(
            Severity::Holds,
            "unsupported-server",
            format!("PostgreSQL {major} is still mended; keep to its newest minor version"),
        )
    }
}

/// What the policy may open at once, against what the server gives.
fn connections(look: &Examination<'_>, server: i64, limits: [(&str, String, i64); 2]) -> Finding {
    const ID: &str = "too-few-connections";
    const WHY: &str =
        "under load requests will be refused with `database-unavailable` before the pool is full";
    let wanted = look.wanted_connections;
    let mut lacking = Vec::new();
    let mut mend = Vec::new();
    if wanted > server {
        lacking.push(format!("the server gives {server}"));
        mend.push(format!("ALTER SYSTEM SET max_connections = {}; -- needs a restart", wanted + 20));
    }
    let here = i64::from(look.database.pool.max_connections);
    for (statement, name, limit) in limits {
        // At level `login` tenants come in as themselves.
        let counts = statement == "ALTER DATABASE" || look.database.isolation != Isolation::Login;
        if counts && (0..here).contains(&limit) {
            lacking.push(format!("{name} is limited to {limit}"));
            mend.push(format!("{statement} {name} CONNECTION LIMIT -1;"));
        }
    }
    if lacking.is_empty() {
        return Finding::new(
            Severity::Holds,
            ID,
            format!("the server has room for the {wanted} connections of this policy"),
        );
    }
    let what =
        format!("the policy may open {wanted} connections to this server, but {}", lacking.join(" and "));
    Finding::new(Severity::Risk, ID, what).because(WHY).mended_by(mend)
}

/// What `pg_hba.conf` lets in from other machines, where the login may read it.
async fn trusted_from_afar(look: &mut Examination<'_>) -> Result<Vec<Finding>, Error> {
    let rows = look.catalogue.rows(sqlx::query(include_str!("queries/trusted_from_afar.sql")));
    let (mut trusting, mut in_clear) = (Vec::new(), Vec::new());
    for row in rows.await? {
        let line = row.try_get::<i32, _>(0)?.to_string();
        if row.try_get(1)? { trusting.push(line) } else { in_clear.push(line) }
    }
    let mut findings = Vec::new();
    if !trusting.is_empty() {
        let lines = trusting.join(", ");
        let what = format!("`pg_hba.conf` lets other machines in without a password, in line {lines}");
        findings.push(
            Finding::new(Severity::Risk, "trusted-from-afar", what).because(
                "whoever reaches the port is whichever role it names: ask for `scram-sha-256` there",
            ),
        );
    }
    if !in_clear.is_empty() {
        let lines = in_clear.join(", ");
        let what = format!("`pg_hba.conf` takes passwords in clear from other machines, in line {lines}");
        findings.push(Finding::new(Severity::Risk, "passwords-in-clear", what).because(
            "who can listen on the way logs in as that role: ask for `scram-sha-256`, over `hostssl`",
        ));
    }
    Ok(findings)
}
