//! Policies as their authors write them: what is accepted, and what is said of mistakes.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use innkeeper::policy::{DirectorySource, Policy, Surroundings, Target};
use innkeeper::surroundings::ProcessSurroundings;

/// Files and variables that exist only here.
#[derive(Default)]
pub(crate) struct Desk {
    files: HashMap<String, String>,
    variables: HashMap<String, String>,
}

impl Desk {
    pub(crate) fn with(policy: &str) -> Self {
        Self::default().file("policy.yaml", policy)
    }

    pub(crate) fn file(mut self, name: &str, text: &str) -> Self {
        self.files.insert(name.into(), text.into());
        self
    }

    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    pub(crate) fn policy(&self) -> Policy {
        match Policy::parse("policy.yaml".as_ref(), self) {
            Ok((policy, _)) => policy,
            Err(diagnostics) => panic!("{diagnostics}"),
        }
    }

    /// Everything that is said about the policy.
    pub(crate) fn diagnostics(&self) -> String {
        match Policy::parse("policy.yaml".as_ref(), self) {
            Ok((_, warnings)) => warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
            Err(diagnostics) => diagnostics.to_string(),
        }
    }
}

impl Surroundings for Desk {
    fn read(&self, path: &Path) -> io::Result<String> {
        let name = path.to_string_lossy();
        self.files.get(name.as_ref()).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }
}

/// A policy that is right but for what is put into it.
fn with_routes(routes: &str) -> Desk {
    Desk::with(&format!(
        "version: 1\n\
         databases:\n  main: {{ url: postgres://db/app }}\n\
         tenants:\n  list: [ {{ id: acme, schema: acme }} ]\n\
         upstreams:\n  app: {{ endpoints: [ http://127.0.0.1:9000 ] }}\n\
         routes:\n{routes}"
    ))
}

#[test]
fn every_example_is_right_with_nothing_set() {
    let mut seen = 0;
    for entry in std::fs::read_dir("policies").unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|name| name == "tenants.yaml") {
            continue;
        }
        struct Bare;
        impl Surroundings for Bare {
            fn read(&self, path: &Path) -> io::Result<String> {
                ProcessSurroundings.read(path)
            }
            fn variable(&self, _: &str) -> Option<String> {
                None
            }
        }
        let (policy, warnings) =
            Policy::parse(&path, &Bare).unwrap_or_else(|mistakes| panic!("{}:\n{mistakes}", path.display()));
        assert!(warnings.is_empty(), "{}: {warnings:?}", path.display());
        assert!(!policy.tests.is_empty(), "{} has no tests", path.display());
        seen += 1;
    }
    assert!(seen >= 5, "only {seen} examples");
}

#[test]
fn every_example_passes_its_own_tests() {
    let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_innkeeper"));
    let examples = std::fs::read_dir("policies").unwrap().map(|entry| entry.unwrap().path());
    let examples = examples.filter(|path| path.file_name().is_some_and(|name| name != "tenants.yaml"));
    let output = check.arg("check").args(examples).env_clear().output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn every_example_fits_the_published_schema() {
    let validator = jsonschema::validator_for(&Policy::schema()).unwrap();
    for entry in std::fs::read_dir("policies").unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|name| name == "tenants.yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let document: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        let mistakes: Vec<String> = validator
            .iter_errors(&document)
            .map(|error| format!("{} at {}", error, error.instance_path))
            .collect();
        assert!(mistakes.is_empty(), "{}: {mistakes:#?}", path.display());
    }
}

#[test]
fn the_schema_refuses_what_the_parser_refuses() {
    let validator = jsonschema::validator_for(&Policy::schema()).unwrap();
    let base = || serde_json::json!({ "version": 1, "routes": [ { "name": "a", "tenant": "none", "forward": "app" } ] });
    assert!(validator.is_valid(&base()));
    for (pointer, key, value) in [
        ("", "upstrems", serde_json::json!({})),
        ("", "version", serde_json::json!(2)),
        ("/routes/0", "tenant", serde_json::json!("nobody")),
        ("/routes/0", "query", serde_json::json!({ "database": "main" })),
        ("/routes/0", "sql", serde_json::json!({})),
    ] {
        let mut document = base();
        document.pointer_mut(pointer).unwrap()[key] = value;
        assert!(!validator.is_valid(&document), "{document}");
    }
}

#[test]
fn one_mistake() {
    insta::assert_snapshot!(with_routes("  - { name: all, tenant: none, forward: ap }\n").diagnostics());
}

#[test]
fn many_mistakes_at_once() {
    insta::assert_snapshot!(Desk::with(include_str!("fixtures/many-mistakes.yaml")).diagnostics());
}

#[test]
fn queries_with_mistakes() {
    insta::assert_snapshot!(Desk::with(include_str!("fixtures/query-mistakes.yaml")).diagnostics());
}

#[test]
fn a_function_that_reaches_beyond_its_tenant_cannot_be_listed() {
    let text = "version: 1\n\
        databases: { main: { url: 'postgres://db/app', isolation: role } }\n\
        tenants: { list: [ { id: acme, schema: acme, role: acme } ] }\n\
        routes:\n\
        \x20 - name: sql\n\
        \x20   match: { path: /sql }\n\
        \x20   tenant: { header: X-Tenant-ID }\n\
        \x20   sql: { database: main, functions: [ similarity, dblink_exec ] }\n";
    let told = Desk::with(text).diagnostics();
    assert!(told.contains("no client may call `dblink_exec`"), "{told}");
    assert!(told.contains("policy.yaml:8:") && !told.contains("`similarity`"), "{told}");
    let told = Desk::with(&text.replace("dblink_exec", "currval, setseed")).diagnostics();
    assert!(told.contains("may call `currval`") && told.contains("may call `setseed`"), "{told}");
    let operators = "operators: [ '<##>', 'acme.##', '--' ]";
    let told = Desk::with(&text.replace("functions: [ similarity, dblink_exec ]", operators)).diagnostics();
    assert!(
        told.contains("got `acme.##`") && told.contains("got `--`") && !told.contains("`<##>`"),
        "{told}"
    );
}

#[test]
fn a_misspelt_key_is_recognised() {
    let text = "version: 1\nupstrems:\n  app: { endpoints: [ http://127.0.0.1:9000 ] }\n";
    insta::assert_snapshot!(Desk::with(text).diagnostics());
}

#[test]
fn yaml_syntax_errors_have_a_place_and_a_way_out() {
    let flow = with_routes("  - { name: a, match: { path: /items/{id} }, tenant: none, forward: app }\n");
    let tab = Desk::with("version: 1\nserver:\n\tlisten: 127.0.0.1:1\n");
    let open = Desk::with("version: 1\nroutes: [ { name: \"a }\n");
    let at = Desk::with("version: 1\nserver:\n  listen: @home\n");
    let all = [flow, tab, open, at].map(|desk| desk.diagnostics()).join("\n");
    insta::assert_snapshot!(all);
}

#[test]
fn a_variable_that_is_not_set_is_named() {
    let text =
        "version: 1\ndatabases:\n  main:\n    url: postgres://${DB_USER}:${DB_PASSWORD}@db/${DB_NAME:-app}\n";
    insta::assert_snapshot!(Desk::with(text).variable("DB_USER", "app").diagnostics());
}

#[test]
fn what_the_environment_gave_is_never_shown() {
    let text = "version: 1\n\
        server: { listen: \"${SECRET}\", timeouts: { drain: \"${SECRET}\" } }\n\
        databases:\n  main: { url: \"${SECRET}\", isolation: \"${SECRET}\", pool: { max_connections: \"${SECRET}\" } }\n\
        tenants:\n  list:\n    - { id: \"${SECRET} \", schema: \"pg_${SECRET}\" }\n    - { id: \"a\", schema: \"b\", database: \"${SECRET}\" }\n\
        routes:\n  - name: a\n    match: { host: \"${SECRET}!\", path: \"${SECRET}\" }\n    tenant: { plugin: \"${SECRET}\" }\n    forward: \"${SECRET}\"\n";
    let shown = Desk::with(text).variable("SECRET", "hunter2").diagnostics();
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.matches("error:").count() >= 10, "{shown}");
    insta::assert_snapshot!(shown);
}

#[test]
fn no_part_of_a_variable_is_quoted() {
    let desk = with_routes(
        "  - name: a\n    match: { path: \"/x/${PATH_PART}\" }\n    tenant: none\n    schema: public\n    query: { database: main, sql: \"${SQL}\" }\n",
    );
    let shown = desk.variable("PATH_PART", "{hunter2").variable("SQL", "hunter2 1").diagnostics();
    assert!(!shown.to_lowercase().contains("hunter2"), "{shown}");
    assert_eq!(shown.matches("error:").count(), 2, "{shown}");
    let missing =
        Desk::with("version: 1\ninclude: [ \"${PART}\" ]\n").variable("PART", "hunter2").diagnostics();
    assert!(!missing.contains("hunter2"), "{missing}");
}

#[test]
fn passwords_in_the_policy_are_masked() {
    let text = "version: 1\ndatabases:\n\
        \x20 one: { url: mysql://app:hunter2@db/app }\n\
        \x20 two: { url: postgres//app:hunter2@db/app, pol: { } }\n\
        \x20 three: { url: \"postgres://app:hunter2@db/app\", pol: { } }\n\
        \x20 four: { url: \"${NOT_SET:-postgres://app:hunter2@db/app}\", pol: { } }\n\
        upstreams:\n  app: { endpoints: [ \"http://app:hunter2@host:1\" ] }\n";
    let shown = Desk::with(text).diagnostics();
    assert!(!shown.contains("hunter2"), "{shown}");
    insta::assert_snapshot!(shown);
}

#[test]
fn a_secret_that_is_no_text_is_not_shown_either() {
    for text in [
        "version: 1\nserver: { ticket_key: [ hunter2 ] }\n",
        "version: 1\nserver: { ticket_key: { hunter2: hunter2 } }\n",
        "version: 1\nupstreams:\n  app: { endpoints: [ \"http://app:hunter2@[::1\" ] }\n",
    ] {
        let shown = Desk::with(text).diagnostics();
        assert!(shown.contains("error") && !shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn a_terminal_is_safe_from_what_a_policy_names() {
    let text = "version: 1\n\"\\e[31m\\u202Ekey\": 1\n";
    let shown = Desk::with(text).diagnostics();
    assert!(shown.contains("key") && !shown.contains(['\u{1b}', '\u{202e}']), "{shown}");
}

#[test]
fn no_debug_output_reveals_a_url() {
    let text = "version: 1\ndatabases:\n  main: { url: \"postgres://app:hunter2@db/app\" }\n";
    let policy = Desk::with(text).policy();
    assert!(!format!("{policy:?}").contains("hunter2"));
    assert_eq!(policy.databases["main"].url.reveal(), "postgres://app:hunter2@db/app");
}

#[test]
fn tenants_that_would_meet_are_refused() {
    insta::assert_snapshot!(Desk::with(include_str!("fixtures/tenant-mistakes.yaml")).diagnostics());
}

#[test]
fn routes_that_can_never_match_are_refused() {
    let routes = "  - { name: all, match: { path: /api }, tenant: none, forward: app }\n\
        \x20 - { name: reads, match: { path: /api/users, methods: [ GET ] }, tenant: none, forward: app }\n\
        \x20 - { name: other, match: { path: /apis }, tenant: none, forward: app }\n\
        \x20 - { name: host, match: { host: \"*.example.com\" }, tenant: none, forward: app }\n\
        \x20 - { name: one, match: { host: a.example.com, path: /x }, tenant: none, forward: app }\n";
    insta::assert_snapshot!(with_routes(routes).diagnostics());
}

#[test]
fn a_tenant_rule_is_never_left_out() {
    let routes = "  - { name: a, match: { path: /a }, forward: app }\n\
        \x20 - { name: b, match: { path: /b }, tenant: , forward: app }\n\
        \x20 - { name: c, match: { path: /c }, tenant: [ { header: X } ], forward: app }\n\
        \x20 - { name: d, match: { path: /d }, tenant: { first: [] }, forward: app }\n\
        \x20 - { name: e, match: { path: /e }, tenant: { header: X, cookie: y }, forward: app }\n\
        \x20 - { name: f, match: { path: /f }, tenant: { jwt: { claim: tenant } }, forward: app }\n\
        \x20 - { name: g, match: { path: /g }, tenant: { frist: [ { header: X } ] }, forward: app }\n\
        \x20 - { name: h, match: { path: /h }, tenant: default, forward: app }\n";
    insta::assert_snapshot!(with_routes(routes).diagnostics());
}

#[test]
fn includes_merge_and_append() {
    let desk = Desk::with(
        "version: 1\ninclude: [ parts/upstreams.yaml, parts/routes.yaml ]\n\
         routes: [ { name: first, match: { path: /a }, tenant: none, forward: app } ]\n",
    )
    .file("parts/upstreams.yaml", "upstreams: { app: { endpoints: [ http://127.0.0.1:9000 ] } }\n")
    .file(
        "parts/routes.yaml",
        "version: 1\nplugins: { keys: { path: keys.wasm } }\ntenants: { file: tenants.yaml }\n\
         routes: [ { name: second, tenant: { plugin: keys }, forward: app } ]\n",
    )
    .file("parts/tenants.yaml", "tenants:\n  - { id: acme, schema: acme }\n");
    let policy = desk.policy();
    let names: Vec<&str> = policy.routes.iter().map(|route| route.name.as_ref()).collect();
    assert_eq!(names, ["first", "second"]);
    assert_eq!(policy.plugins["keys"].path, Path::new("parts/keys.wasm"));
    let Some(DirectorySource::List(tenants)) = &policy.directory else { panic!("{:?}", policy.directory) };
    assert_eq!(tenants.len(), 1);
    let files: Vec<_> = policy.files.iter().map(|file| file.to_str().unwrap()).collect();
    assert_eq!(files, ["policy.yaml", "parts/upstreams.yaml", "parts/routes.yaml", "parts/tenants.yaml"]);
}

#[test]
fn includes_with_mistakes() {
    let circle = Desk::with("version: 1\ninclude: [ a.yaml, nowhere.yaml ]\nserver: {}\n")
        .file("a.yaml", "include: [ ./policy.yaml ]\nserver: {}\nupstreams: { x: { endpoint: [] } }\n");
    insta::assert_snapshot!(circle.diagnostics());
}

#[test]
fn a_missing_file_and_an_empty_one() {
    let all = [Desk::default().diagnostics(), Desk::with("# nothing\n").diagnostics()].join("\n");
    insta::assert_snapshot!(all);
}

#[test]
fn the_hash_changes_with_files_and_variables() {
    let text = "version: 1\ndatabases:\n  main: { url: \"postgres://db/${NAME:-app}\" }\n";
    let plain = Desk::with(text).policy().hash;
    assert_eq!(plain, Desk::with(text).variable("OTHER", "x").policy().hash);
    assert_ne!(plain, Desk::with(text).variable("NAME", "app").policy().hash);
    assert_ne!(plain, Desk::with(text).variable("NAME", "b").policy().hash);
    assert_ne!(plain, Desk::with(&format!("{text}# a comment\n")).policy().hash);
    assert_eq!(plain.len(), 64);
}

#[test]
fn anchors_and_merge_keys_are_understood() {
    let text = "version: 1\ndatabases:\n  a: &a { url: postgres://a/a, statement_timeout: 7s }\n  b: { <<: *a, url: postgres://b/b }\n";
    let policy = Desk::with(text).policy();
    assert_eq!(policy.databases["b"].url.reveal(), "postgres://b/b");
    assert_eq!(policy.databases["b"].statement_timeout, std::time::Duration::from_secs(7));
}

#[test]
fn values_keep_their_spelling() {
    let text = "version: 1\ntenants:\n  list: [ { id: 007, schema: 1_000 }, { id: 0x10, schema: no } ]\n\
        plugins:\n  p: { path: p.wasm, config: { a: 007, b: 1.5, c: on, d: true, e: ~, f: \"1\", g: ${N} } }\n";
    let text = text.replace("${N}", "\"${N}\"");
    let policy = Desk::with(&text).variable("N", "12").policy();
    let Some(DirectorySource::List(tenants)) = &policy.directory else { panic!() };
    let names: Vec<_> = tenants.values().map(|tenant| (tenant.id.as_str(), tenant.schema.as_str())).collect();
    assert_eq!(names, [("007", "1_000"), ("0x10", "no")]);
    let config: serde_json::Value = serde_json::from_str(&policy.plugins["p"].config).unwrap();
    assert_eq!(
        config,
        serde_json::json!({ "a": 7, "b": 1.5, "c": "on", "d": true, "e": null, "f": "1", "g": "12" })
    );
}

#[test]
fn a_query_knows_what_its_statement_does() {
    let query = |sql: &str, rest: &str| {
        let route = format!(
            "  - name: q\n    match: {{ path: /q }}\n    tenant: {{ header: X }}\n    query: {{ database: main, sql: \"{sql}\"{rest} }}\n"
        );
        let policy = with_routes(&route).policy();
        match &policy.routes[0].target {
            Target::Query(query) => query.as_ref().clone(),
            Target::Forward(_) | Target::Sql(_) => panic!("a query was written"),
        }
    };
    assert!(query("select 1;", "").read_only);
    assert!(!query("select 1 for update", "").read_only);
    assert!(!query("select f()", ", read_only: false").read_only);
    let change = query("delete from t where id = $1", ", params: [ { query: id, type: uuid } ]");
    assert!(!change.read_only && change.statement.modifies() && !change.statement.returns_rows());
    assert_eq!(query("select 1 ; ", "").statement.text(), "select 1");
}
