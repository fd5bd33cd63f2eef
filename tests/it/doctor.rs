//! The doctor against real databases: a well-kept one holds, every leak that is planted is found,
//! and the SQL that the doctor prints mends it.

use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::process::Command;

use innkeeper::cli::demo::cluster::PrivatePostgres;

use crate::support::postgres::{TestDatabase, alone, database};

/// A database with three tenants, and a policy for it.
struct Practice {
    database: TestDatabase,
    files: tempfile::TempDir,
}

const TENANTS: [&str; 3] = ["acme", "globex", "initech"];

impl Practice {
    /// Tenants as `docs/isolation.md` sets them up at this level.
    async fn well_kept(level: &str) -> Self {
        Self::well_kept_in(database().await, level).await
    }

    async fn well_kept_in(database: TestDatabase, level: &str) -> Self {
        let (name, login) = (database.name.clone(), database.login());
        database.admin("REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
        for tenant in TENANTS {
            let role = format!("{name}_{tenant}");
            let entrance = match level {
                "login" => format!("CREATE ROLE {role} LOGIN"),
                "role" => format!("CREATE ROLE {role} NOLOGIN; GRANT {role} TO {login}"),
                _ => format!(
                    "CREATE ROLE {role} NOLOGIN; GRANT ALL ON SCHEMA {tenant} TO {login}; \
                              GRANT SELECT ON ALL TABLES IN SCHEMA {tenant} TO {login}"
                ),
            };
            database
                .admin(&format!(
                    "CREATE SCHEMA {tenant}; CREATE TABLE {tenant}.orders (id int, item text); \
                     INSERT INTO {tenant}.orders VALUES (1, '{tenant}'); {entrance}; \
                     GRANT USAGE ON SCHEMA {tenant} TO {role}; \
                     GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {tenant} TO {role}"
                ))
                .await;
        }
        let practice = Self { database, files: tempfile::tempdir().unwrap() };
        practice.write_policy(level, &practice.listed());
        practice
    }

    fn listed(&self) -> String {
        let entry = |tenant: &&str| {
            format!("    - {{ id: {tenant}, schema: {tenant}, role: {}_{tenant} }}\n", self.database.name)
        };
        format!("\n  list:\n{}", TENANTS.iter().map(entry).collect::<String>())
    }

    fn write_policy(&self, level: &str, tenants: &str) {
        let url = self.database.url(&self.database.login());
        let policy = format!(
            "version: 1\ndatabases: {{ main: {{ url: '{url}', isolation: {level} }} }}\ntenants: {tenants}\n\
             routes:\n  - name: orders\n    tenant: {{ header: X-Tenant-ID }}\n    \
             query: {{ database: main, sql: select item from orders }}\n"
        );
        std::fs::write(self.files.path().join("policy.yaml"), policy).unwrap();
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_innkeeper"))
            .args(["doctor", "--policy", "policy.yaml"])
            .args(arguments)
            .current_dir(self.files.path())
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap()
    }

    async fn examine(&self, arguments: &[&str]) -> Diagnosis {
        let output = self.run(&[&["--format", "json"], arguments].concat()).await;
        let report = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        Diagnosis { status: output.status.code().unwrap(), report }
    }

    /// Plants a leak, has it found, mends it as told, and sees that it is gone.
    async fn find_and_mend(&self, id: &str, severity: &str, plant: &str) {
        let plant = plant.replace("{db}", &self.database.name).replace("{login}", &self.database.login());
        self.database.admin(&plant).await;
        let ill = self.examine(&[]).await;
        let found = ill.findings(id);
        assert!(found.iter().any(|one| one["severity"] == severity), "{plant}: {:#}", ill.report);
        assert_eq!(ill.status == 1, ill.of_severity("leak").next().is_some(), "{plant}: {:#}", ill.report);
        assert!(!found[0]["why"].as_str().unwrap().is_empty());
        let mut statements: Vec<&str> = Vec::new();
        for one in ill.of_severity("leak").chain(ill.of_severity("risk")) {
            statements.extend(one["mend"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()));
        }
        assert!(!statements.is_empty(), "{plant}: {:#}", ill.report);
        statements.dedup();
        self.database.admin(&statements.join("\n")).await;
        let mended = self.examine(&[]).await;
        mended.is_sound(&format!("{plant}, mended by {statements:#?}"));
    }
}

struct Diagnosis {
    status: i32,
    report: Value,
}

impl Diagnosis {
    fn all(&self) -> impl Iterator<Item = &Value> {
        self.report["databases"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|one| one["findings"].as_array().unwrap())
    }

    fn of_severity(&self, severity: &str) -> impl Iterator<Item = &Value> {
        self.all().filter(move |one| one["severity"] == severity)
    }

    fn findings(&self, id: &str) -> Vec<&Value> {
        self.all().filter(|one| one["id"] == id).collect()
    }

    /// Nothing leaks and nothing is at risk, but what the age of the server may be.
    fn is_sound(&self, after: &str) {
        let wrong: Vec<_> = self
            .of_severity("leak")
            .chain(self.of_severity("risk"))
            .filter(|one| one["id"] != "unsupported-server")
            .collect();
        assert!(wrong.is_empty(), "{after}: {wrong:#?}");
        assert_eq!(self.status, 0, "{after}: {:#}", self.report);
    }
}

#[tokio::test]
async fn a_well_kept_database_holds_at_every_level() {
    for (level, holds) in [
        ("schema", &["creates-in-public", "shadows-a-table", "creates-schemas"][..]),
        (
            "role",
            &[
                "reads-another-tenant",
                "changes-another-tenant",
                "creates-at-another-tenant",
                "steps-back-to-the-login-role",
            ],
        ),
        (
            "login",
            &[
                "reads-another-tenant",
                "changes-another-tenant",
                "creates-at-another-tenant",
                "becomes-another-tenant",
            ],
        ),
    ] {
        let practice = Practice::well_kept(level).await;
        let diagnosis = practice.examine(&[]).await;
        diagnosis.is_sound(level);
        for id in holds {
            let found = diagnosis.findings(id);
            assert_eq!(found.len(), 1, "{level}, {id}: {found:#?}");
            assert_eq!(found[0]["severity"], "holds", "{level}: {found:#?}");
        }
        let examined = &diagnosis.report["databases"][0];
        assert_eq!(examined["isolation"], level);
        assert_eq!(examined["tenants"], json!(TENANTS));
    }
}

#[tokio::test]
async fn what_a_level_cannot_hold_is_said_and_is_no_leak() {
    let schema = Practice::well_kept("schema").await.examine(&[]).await;
    let reads = schema.findings("reads-another-tenant")[0];
    assert_eq!((&reads["severity"], &reads["mend"]), (&json!("note"), &json!([])));
    let role = Practice::well_kept("role").await;
    let name = &role.database.name;
    role.database.admin(&format!("ALTER DATABASE {name} SET log_min_duration_statement TO '250ms'")).await;
    let role = role.examine(&[]).await;
    assert_eq!(role.findings("values-in-the-log").len(), 1);
    let becomes = role.findings("becomes-another-tenant");
    assert_eq!(becomes.len(), 1, "a property of the level is told once: {becomes:#?}");
    assert_eq!((&becomes[0]["severity"], &becomes[0]["tenants"]), (&json!("note"), &json!(TENANTS)));
}

#[tokio::test]
async fn every_leak_between_logins_is_found_and_mended() {
    let practice = Practice::well_kept("login").await;
    for (id, severity, plant) in [
        (
            "reads-another-tenant",
            "leak",
            "GRANT USAGE ON SCHEMA globex TO {db}_acme; GRANT SELECT ON globex.orders TO {db}_acme",
        ),
        (
            "reads-another-tenant",
            "leak",
            "GRANT USAGE ON SCHEMA globex TO PUBLIC; GRANT SELECT ON globex.orders TO PUBLIC",
        ),
        (
            "reads-another-tenant",
            "leak",
            "GRANT USAGE ON SCHEMA globex TO {db}_acme; GRANT SELECT (id) ON globex.orders TO {db}_acme",
        ),
        (
            "reads-another-tenant",
            "leak",
            "CREATE ROLE {db}_group; GRANT USAGE ON SCHEMA globex TO {db}_group; GRANT SELECT ON globex.orders TO {db}_group; GRANT {db}_group TO {db}_acme",
        ),
        (
            "changes-another-tenant",
            "leak",
            "GRANT USAGE ON SCHEMA globex TO {db}_acme; GRANT INSERT ON globex.orders TO {db}_acme",
        ),
        (
            "changes-another-tenant",
            "leak",
            "GRANT USAGE ON SCHEMA globex TO {db}_acme; ALTER TABLE globex.orders OWNER TO {db}_acme",
        ),
        ("creates-at-another-tenant", "leak", "GRANT CREATE ON SCHEMA globex TO {db}_acme"),
        ("creates-at-another-tenant", "leak", "ALTER SCHEMA globex OWNER TO {db}_acme"),
        (
            "enters-another-schema",
            "risk",
            "CREATE SCHEMA archive; GRANT USAGE ON SCHEMA archive TO {db}_acme",
        ),
        ("becomes-another-tenant", "leak", "GRANT {db}_globex TO {db}_acme"),
        ("tenant-is-member", "leak", "GRANT {login} TO {db}_acme"),
        ("tenant-is-member", "leak", "GRANT pg_read_all_data TO {db}_acme"),
        ("tenant-is-member", "leak", "GRANT pg_execute_server_program TO {db}_acme"),
        ("tenant-is-member", "risk", "GRANT pg_signal_backend TO {db}_acme"),
        ("tenant-is-superuser", "leak", "ALTER ROLE {db}_acme SUPERUSER"),
        ("tenant-is-powerful", "risk", "ALTER ROLE {db}_acme CREATEDB BYPASSRLS"),
        ("tenant-connection-limit", "risk", "ALTER ROLE {db}_acme CONNECTION LIMIT 1"),
        ("role-has-settings", "risk", "ALTER ROLE {db}_acme SET search_path TO globex"),
        ("creates-in-public", "risk", "GRANT CREATE ON SCHEMA public TO PUBLIC"),
        ("creates-schemas", "risk", "GRANT CREATE ON DATABASE {db} TO {db}_acme"),
        (
            "default-privileges",
            "leak",
            "ALTER DEFAULT PRIVILEGES IN SCHEMA globex GRANT SELECT ON TABLES TO PUBLIC",
        ),
        (
            "default-privileges",
            "leak",
            "ALTER DEFAULT PRIVILEGES IN SCHEMA globex GRANT SELECT ON TABLES TO {db}_acme",
        ),
        (
            "borrowed-power",
            "risk",
            "CREATE FUNCTION public.peek() RETURNS bigint SECURITY DEFINER LANGUAGE sql AS 'SELECT count(*) FROM globex.orders'",
        ),
        (
            "callers-search-path",
            "leak",
            "CREATE FUNCTION public.peep() RETURNS bigint SECURITY DEFINER LANGUAGE sql AS 'SELECT count(*) FROM globex.orders'; GRANT CREATE ON SCHEMA acme TO {db}_acme",
        ),
        ("leaves-the-database", "leak", "GRANT EXECUTE ON FUNCTION pg_read_file(text) TO {db}_acme"),
        (
            "leaves-the-database",
            "leak",
            "CREATE LANGUAGE wild HANDLER plpgsql_call_handler VALIDATOR plpgsql_validator; CREATE FUNCTION public.wild() RETURNS int LANGUAGE wild AS 'BEGIN RETURN 1; END'",
        ),
        (
            "asks-other-servers",
            "risk",
            "CREATE FOREIGN DATA WRAPPER far; CREATE SERVER elsewhere FOREIGN DATA WRAPPER far; GRANT USAGE ON FOREIGN SERVER elsewhere TO {db}_acme",
        ),
        ("asks-other-servers", "risk", "CREATE USER MAPPING FOR PUBLIC SERVER elsewhere"),
        (
            "row-security-alone",
            "risk",
            "GRANT USAGE ON SCHEMA initech TO {db}_acme; GRANT SELECT ON initech.orders TO {db}_acme; ALTER TABLE initech.orders ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON initech.orders TO {db}_initech USING (true)",
        ),
        (
            "reads-another-tenant",
            "leak",
            "GRANT USAGE ON SCHEMA initech TO {db}_acme; GRANT SELECT ON initech.orders TO {db}_acme; CREATE POLICY all_of_them ON initech.orders USING (true)",
        ),
        ("role-cannot-log-in", "risk", "ALTER ROLE {db}_initech NOLOGIN"),
    ] {
        practice.find_and_mend(id, severity, plant).await;
    }
    let dblink = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'dblink')";
    if practice.database.read(dblink).await {
        practice.find_and_mend("leaves-the-database", "risk", "CREATE EXTENSION dblink").await;
    }
}

#[tokio::test]
async fn a_schema_that_all_tenants_search_is_nobodys_to_write_in() {
    let practice = Practice::well_kept("login").await;
    practice.database.admin("CREATE SCHEMA common; GRANT USAGE ON SCHEMA common TO PUBLIC").await;
    practice.write_policy("login, shared_schemas: [common]", &practice.listed());
    practice
        .find_and_mend("creates-in-a-shared-schema", "leak", "GRANT CREATE ON SCHEMA common TO PUBLIC")
        .await;
}

#[tokio::test]
async fn policies_that_hold_nobody_are_found() {
    let practice = Practice::well_kept("login").await;
    practice
        .database
        .admin(
            "CREATE SCHEMA common; GRANT USAGE ON SCHEMA common TO PUBLIC; CREATE TABLE common.events (tenant text); \
             CREATE POLICY own ON common.events USING (tenant = current_user)",
        )
        .await;
    practice.write_policy("login, shared_schemas: [common]", &practice.listed());
    practice.examine(&[]).await.is_sound("nobody may read what has policies");
    for (id, plant) in [
        ("row-security-is-off", "GRANT SELECT ON common.events TO PUBLIC"),
        ("row-security-is-not-forced", "ALTER TABLE common.events OWNER TO {db}_acme"),
    ] {
        practice.find_and_mend(id, "leak", plant).await;
    }
}

#[tokio::test]
async fn the_rules_of_who_comes_in_are_read_where_they_may_be() {
    let server = PrivatePostgres::start().await.unwrap();
    let practice = Practice::well_kept_in(alone(&server).await, "login").await;
    let rules: String = practice.database.read("SELECT current_setting('hba_file')").await;
    let rules_before = std::fs::read_to_string(&rules).unwrap();
    let lines = "host all all 10.0.0.0/8 trust\nhost all all 0.0.0.0/0 password\nhostssl all all 0.0.0.0/0 password\n";
    std::fs::write(&rules, format!("{rules_before}\n{lines}")).unwrap();
    practice.examine(&[]).await.is_sound("the login may not read the rules");
    let login = practice.database.login();
    practice
        .database
        .admin(&format!(
            "GRANT SELECT ON pg_hba_file_rules TO {login}; GRANT EXECUTE ON FUNCTION pg_hba_file_rules() TO {login}"
        ))
        .await;
    let diagnosis = practice.examine(&[]).await;
    let trusting = rules_before.lines().count() + 2;
    for (id, line) in [("trusted-from-afar", trusting), ("passwords-in-clear", trusting + 1)] {
        let found = diagnosis.findings(id);
        assert_eq!(found.len(), 1, "{:#}", diagnosis.report);
        assert!(found[0]["what"].as_str().unwrap().ends_with(&format!("in line {line}")), "{found:#?}");
    }
}

#[tokio::test]
async fn every_leak_behind_the_login_role_is_found_and_mended() {
    let practice = Practice::well_kept("role").await;
    let version: i32 = practice.database.read("SELECT current_setting('server_version_num')::int").await;
    let inherits = match version {
        160_000.. => "GRANT {db}_globex TO {login} WITH INHERIT TRUE",
        _ => "ALTER ROLE {login} INHERIT",
    };
    for (id, severity, plant) in [
        (
            "steps-back-to-the-login-role",
            "leak",
            "GRANT USAGE ON SCHEMA globex TO {login}; GRANT SELECT ON globex.orders TO {login}",
        ),
        ("steps-back-to-the-login-role", "leak", inherits),
        ("login-role-is-superuser", "leak", "ALTER ROLE {login} SUPERUSER"),
        ("login-role-is-powerful", "risk", "ALTER ROLE {login} CREATEDB"),
        ("login-role-owns", "risk", "ALTER TABLE globex.orders OWNER TO {login}"),
        ("too-few-connections", "risk", "ALTER ROLE {login} CONNECTION LIMIT 5"),
        (
            "reads-another-tenant",
            "leak",
            "GRANT USAGE ON SCHEMA globex TO {db}_acme; GRANT SELECT ON globex.orders TO {db}_acme",
        ),
        ("tenant-cannot-come-in", "risk", "REVOKE {db}_acme FROM {login}"),
        ("cannot-read-its-own", "risk", "REVOKE ALL ON SCHEMA acme FROM {db}_acme"),
        ("schema-is-missing", "risk", "DROP SCHEMA initech CASCADE"),
        (
            "runs-text",
            "risk",
            "CREATE FUNCTION acme.dyn(q text) RETURNS text LANGUAGE plpgsql AS \
             'DECLARE r text; BEGIN EXECUTE q INTO r; RETURN r; END'; \
             CREATE OPERATOR acme.### (RIGHTARG = text, FUNCTION = acme.dyn); \
             CREATE DOMAIN acme.checked AS text CHECK (acme.dyn(VALUE) IS NOT NULL)",
        ),
    ] {
        practice.find_and_mend(id, severity, plant).await;
    }
}

#[tokio::test]
async fn tenants_that_share_a_role_or_a_schema_are_found() {
    let practice = Practice::well_kept("role").await;
    let role = format!("{}_acme", practice.database.name);
    practice.write_policy(
        "role",
        &format!("{{ list: [ {{ id: acme, schema: acme, role: {role} }}, {{ id: globex, schema: globex, role: {role} }} ] }}"),
    );
    let diagnosis = practice.examine(&[]).await;
    assert_eq!((diagnosis.status, diagnosis.findings("shared-role").len()), (1, 1), "{:#}", diagnosis.report);

    practice
        .database
        .admin(&format!(
            "CREATE TABLE public.tenants (id text, home text, role text); GRANT SELECT ON public.tenants TO {}; \
             INSERT INTO public.tenants SELECT 'a' || n, 'home_' || n, '{role}' FROM generate_series(1, 10000) n; \
             INSERT INTO public.tenants VALUES ('twin', 'home_7', NULL)",
            practice.database.login()
        ))
        .await;
    practice
        .write_policy("schema", "{ table: { database: main, name: public.tenants, id: id, schema: home } }");
    let diagnosis = practice.examine(&[]).await;
    assert_eq!(diagnosis.status, 1, "{:#}", diagnosis.report);
    let shared = diagnosis.findings("shared-schema");
    assert_eq!(shared.len(), 1);
    assert!(shared[0]["what"].as_str().unwrap().contains("`home_7`"), "{shared:#?}");
    // A few of ten thousand, or those that were asked for.
    assert_eq!(diagnosis.report["databases"][0]["tenants"].as_array().unwrap().len(), 3);
    let asked = practice.examine(&["--tenant", "a17", "--tenant", "a4"]).await;
    assert_eq!(asked.report["databases"][0]["tenants"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn nothing_stays_of_what_the_doctor_tries() {
    let practice = Practice::well_kept("schema").await;
    practice.database.admin(&format!("GRANT CREATE ON SCHEMA public TO {}", practice.database.login())).await;
    let inventory = "SELECT md5(string_agg(line, E'\\n' ORDER BY line)) FROM ( \
        SELECT oid::regclass::text || coalesce(relacl::text, '') AS line FROM pg_class WHERE relnamespace::regnamespace::text !~ '^pg_' \
        UNION ALL SELECT nspname || coalesce(nspacl::text, '') FROM pg_namespace WHERE nspname !~ '^pg_(temp|toast_temp)' \
        UNION ALL SELECT orders::text FROM acme.orders UNION ALL SELECT orders::text FROM globex.orders) AS lines";
    let before: String = practice.database.read(inventory).await;
    let diagnosis = practice.examine(&[]).await;
    assert!(!diagnosis.findings("creates-in-public").is_empty());
    assert_eq!(practice.database.read::<String>(inventory).await, before);
}

#[tokio::test]
async fn what_cannot_be_looked_at_is_no_all_clear() {
    let practice = Practice::well_kept("role").await;
    for (arguments, message) in [
        (&["--tenant", "nobody"][..], "there is no tenant `nobody`"),
        (&["--database", "other"], "the policy has no database `other`; it has `main`"),
    ] {
        let output = practice.run(arguments).await;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(message), "{said}");
    }
    let policy = "version: 1\ndatabases: { main: { url: 'postgres://nobody@127.0.0.1:1/none' } }\n\
        tenants: { list: [ { id: acme, schema: acme } ] }\n\
        routes: [ { name: all, tenant: { header: X-Tenant-ID }, query: { database: main, sql: select 1 as one } } ]\n";
    std::fs::write(practice.files.path().join("policy.yaml"), policy).unwrap();
    let output = practice.run(&[]).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("database main: not reached"), "{said}");
}

#[tokio::test]
async fn people_read_what_leaks_first_and_how_to_mend_it() {
    let practice = Practice::well_kept("login").await;
    let name = practice.database.name.clone();
    practice
        .database
        .admin(&format!(
            "GRANT USAGE ON SCHEMA globex TO {name}_acme; GRANT SELECT ON globex.orders TO {name}_acme"
        ))
        .await;
    let output = practice.run(&["--format", "text"]).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let leak = said.find("LEAK    reads-another-tenant").unwrap_or_else(|| panic!("{said}"));
    let holds = said.find("holds   becomes-another-tenant").unwrap_or_else(|| panic!("{said}"));
    assert!(leak < holds, "{said}");
    assert!(
        said.contains(&format!("mend  REVOKE ALL ON ALL TABLES IN SCHEMA globex FROM {name}_acme;")),
        "{said}"
    );
}
