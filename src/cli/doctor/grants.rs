//! Grants: which ways the catalogue leaves open, and the statements that close them.

use sqlx::postgres::PgRow;
use sqlx::{Error, Row as _};

use super::examination::Examination;
use super::finding::{Finding, Severity};
use super::subject::Subject;

/// Functions of PostgreSQL's own that reach the server's files; by default superusers' alone.
const FILE_FUNCTIONS: &[&str] =
    &["lo_export", "lo_import", "pg_ls_dir", "pg_read_binary_file", "pg_read_file", "pg_stat_file"];

/// Extensions whose functions open connections or files from inside the server.
const REACHING_EXTENSIONS: &[&str] =
    &["adminpack", "dblink", "file_fdw", "plperlu", "plpython3u", "postgres_fdw"];

pub(super) async fn examine(look: &mut Examination<'_>) -> Result<Vec<Finding>, Error> {
    let mut findings = missing_schemas(look).await?;
    findings.extend(default_privileges(look).await?);
    for subject in look.subjects.clone() {
        if subject.role.is_none() {
            continue;
        }
        findings.extend(other_schemas(look, &subject).await?);
        findings.extend(borrowed_powers(look, &subject).await?);
        findings.extend(ways_out(look, &subject).await?);
    }
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
    let rows = look.catalogue.rows(
        sqlx::query(
            "WITH who AS (SELECT oid, rolsuper, quote_ident(rolname) AS name FROM pg_roles WHERE rolname = $1), \
                  place AS (SELECT oid, nspowner, nspacl, quote_ident(nspname) AS name FROM pg_namespace WHERE nspname = $2), \
                  entries AS ( \
                    SELECT aclexplode(nspacl) AS entry, nspowner AS owner FROM place \
                    UNION ALL SELECT aclexplode(relacl), relowner FROM pg_class WHERE relnamespace = (SELECT oid FROM place) \
                    UNION ALL SELECT aclexplode(attacl), relowner FROM pg_attribute JOIN pg_class c ON c.oid = attrelid \
                              WHERE attacl IS NOT NULL AND relnamespace = (SELECT oid FROM place)), \
                  grantees AS ( \
                    SELECT DISTINCT (entry).grantee AS oid FROM entries WHERE (entry).grantee <> owner \
                    UNION SELECT relowner FROM pg_class WHERE relnamespace = (SELECT oid FROM place) \
                    UNION SELECT nspowner FROM place \
                    UNION SELECT oid FROM pg_roles WHERE rolname IN ('pg_read_all_data', 'pg_write_all_data')), \
                  hops AS ( \
                    SELECT DISTINCT quote_ident(hop.rolname) AS name FROM who \
                    JOIN pg_auth_members m ON m.member = who.oid JOIN pg_roles hop ON hop.oid = m.roleid \
                    JOIN grantees g ON g.oid <> 0 AND g.oid <> who.oid AND pg_has_role(hop.oid, g.oid, 'MEMBER') \
                    WHERE NOT who.rolsuper) \
             SELECT statement FROM ( \
               SELECT 0, format('ALTER ROLE %s NOSUPERUSER;', who.name) FROM who WHERE rolsuper \
               UNION ALL SELECT 1, format('REVOKE %s FROM %s;', hops.name, who.name) FROM hops, who \
               UNION ALL SELECT 2, format('ALTER SCHEMA %s OWNER TO CURRENT_USER;', place.name) FROM place, who WHERE nspowner = who.oid \
               UNION ALL (SELECT 3, format('ALTER TABLE %s.%I OWNER TO CURRENT_USER;', place.name, relname) \
                 FROM pg_class, place, who WHERE relnamespace = place.oid AND relowner = who.oid AND relkind IN ('r', 'p', 'v', 'm', 'f') \
                 ORDER BY relname LIMIT 50) \
               UNION ALL SELECT 4, format(revoke, kind, place.name, grantee.name) \
                 FROM place, \
                      (SELECT 'PUBLIC' AS name FROM grantees WHERE oid = 0 \
                       UNION ALL SELECT who.name FROM who JOIN grantees USING (oid)) AS grantee, \
                      (VALUES ('TABLES IN SCHEMA', 'REVOKE ALL ON ALL %s %s FROM %s;'), \
                              ('SEQUENCES IN SCHEMA', 'REVOKE ALL ON ALL %s %s FROM %s;'), \
                              ('SCHEMA', 'REVOKE ALL ON %s %s FROM %s;')) AS kinds (kind, revoke) \
             ) AS ways (step, statement) ORDER BY step",
        )
        .bind(role.to_owned())
        .bind(schema.to_owned()),
    );
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
    let rows = look.catalogue.rows(
        sqlx::query(
            "SELECT DISTINCT quote_ident(pg_get_userbyid(defaclrole)), quote_ident(nspname), \
                    CASE defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' ELSE 'SCHEMAS' END, \
                    coalesce(quote_ident(grantee.rolname), 'PUBLIC') \
             FROM pg_default_acl d CROSS JOIN aclexplode(defaclacl) AS entry \
             LEFT JOIN pg_namespace n ON n.oid = defaclnamespace LEFT JOIN pg_roles grantee ON grantee.oid = entry.grantee \
             WHERE defaclobjtype IN ('r', 'S', 'n') AND (defaclnamespace = 0 OR nspname = ANY ($1)) \
               AND (entry.grantee = 0 OR EXISTS (SELECT FROM unnest($1, $2) AS tenant (home, role) \
                    WHERE tenant.role = grantee.rolname AND tenant.home IS DISTINCT FROM nspname)) \
             LIMIT 20",
        )
        .bind(schemas)
        .bind(roles),
    );
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
        .because("the next migration opens what is closed today; what was made so far is looked at by itself")
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
    let rows = look.catalogue.rows(
        sqlx::query(
            "SELECT nspname::text, quote_ident(nspname) FROM pg_namespace, pg_roles \
             WHERE rolname = $1 AND NOT rolsuper AND nspname <> ALL ($2) AND nspname NOT LIKE 'pg\\_%' \
               AND has_schema_privilege($1, pg_namespace.oid, 'USAGE, CREATE') LIMIT 3",
        )
        .bind(role.clone())
        .bind(usual),
    );
    let mut findings = Vec::new();
    for row in rows.await? {
        let (schema, quoted): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let what = format!("the role {} may use the schema {quoted}", look.quoted_role_of(subject));
        findings.push(
            Finding::new(Severity::Risk, "enters-another-schema", what)
                .because("one careless GRANT on a table there, and the tenant reads it; a schema for all belongs into `shared_schemas`")
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
        sqlx::query(
            "SELECT p.oid::regprocedure::text, quote_ident(owner.rolname), \
                    coalesce(array_to_string(proconfig, ','), '') LIKE '%search_path=%', \
                    has_function_privilege('public', p.oid, 'EXECUTE') \
             FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace JOIN pg_roles owner ON owner.oid = proowner \
             WHERE prosecdef AND nspname NOT IN ('pg_catalog', 'information_schema') AND owner.rolname <> $1 \
               AND has_schema_privilege($1, n.oid, 'USAGE') AND has_function_privilege($1, p.oid, 'EXECUTE') \
               AND (owner.rolsuper OR EXISTS (SELECT FROM pg_namespace other WHERE nspname = ANY ($2) \
                                              AND has_schema_privilege(owner.oid, other.oid, 'USAGE'))) \
             ORDER BY 1 LIMIT 5",
        )
        .bind(look.role_of(subject).to_owned())
        .bind(others),
    );
    let tell = |row: &PgRow| {
        let (function, owner): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let (is_pinned, for_all): (bool, bool) = (row.try_get(2)?, row.try_get(3)?);
        let path = if is_pinned { "" } else { ", on the caller's search path" };
        let grantee = if for_all { "PUBLIC" } else { role.as_str() };
        Ok(Finding::new(Severity::Risk, "borrowed-power", format!("{role} may call {function}, which runs as {owner}{path}"))
            .because("it does for a tenant what the tenant may not do itself: read it, pin its `search_path`, or take it away")
            .mended_by([format!("REVOKE EXECUTE ON ROUTINE {function} FROM {grantee};")])
            .at([subject]))
    };
    rows.await?.iter().map(tell).collect()
}

/// Ways out of the database as such: files, programs, other servers.
async fn ways_out(look: &mut Examination<'_>, subject: &Subject) -> Result<Vec<Finding>, Error> {
    let role = look.quoted_role_of(subject);
    let rows = look.catalogue.rows(
        sqlx::query(
            "SELECT coalesce(extname, 'PostgreSQL'), string_agg(p.oid::regprocedure::text, ', ' ORDER BY p.oid), \
                    has_function_privilege('public', p.oid, 'EXECUTE') AS for_all \
             FROM pg_roles, pg_proc p \
             LEFT JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e' \
                                  AND d.refclassid = 'pg_extension'::regclass \
             LEFT JOIN pg_extension e ON e.oid = d.refobjid \
             WHERE rolname = $1 AND NOT rolsuper AND has_function_privilege($1, p.oid, 'EXECUTE') \
               AND (extname = ANY ($3) OR (pronamespace = 'pg_catalog'::regnamespace AND proname = ANY ($2))) \
             GROUP BY 1, 3",
        )
        .bind(look.role_of(subject).to_owned())
        .bind(FILE_FUNCTIONS.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        .bind(REACHING_EXTENSIONS.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()),
    );
    let tell = |row: &PgRow| {
        let (source, functions): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let grantee = if row.try_get(2)? { "PUBLIC" } else { role.as_str() };
        Ok(Finding::new(
            Severity::Leak,
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
