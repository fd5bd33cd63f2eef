//! Any text as a client's statement: nothing may panic, a verdict does not change, and no statement
//! that is refused passes with white space or a comment around it.
#![no_main]

use std::sync::{Arc, LazyLock};

use innkeeper::admitted::admit;
use innkeeper::policy::{Database, Secret, SqlEndpoint, StatementKind};
use innkeeper::sql::{Guard, Scope};
use innkeeper::tenant::{Tenant, TenantState};
use libfuzzer_sys::fuzz_target;

static DATABASE: LazyLock<Arc<Database>> =
    LazyLock::new(|| Arc::new(Database::new("main", Secret::new("postgres://localhost".to_owned()))));

static GUARD: LazyLock<Guard> = LazyLock::new(|| {
    use StatementKind as K;
    Guard::new(&SqlEndpoint {
        database: Arc::clone(&DATABASE),
        statements: vec![
            K::Select,
            K::Insert,
            K::Update,
            K::Delete,
            K::Merge,
            K::Truncate,
            K::Explain,
            K::Ddl,
        ],
        functions: Vec::new(),
        operators: Vec::new(),
        read_only: false,
        timeout: None,
        max_request: 1 << 20,
        max_response: 1 << 20,
        max_batch: 1,
        origins: Vec::new(),
    })
});

static SCOPE: LazyLock<Scope> = LazyLock::new(|| {
    let tenant = Tenant {
        id: "acme".parse().expect("an id"),
        schema: "acme".parse().expect("a schema"),
        role: None,
        database: None,
        state: TenantState::Active,
        isolation: None,
        limits: None,
    };
    Scope::of(&admit(Arc::new(tenant)).expect("it is active"), &DATABASE).expect("it has a schema")
});

fuzz_target!(|sql: &str| {
    let verdict = GUARD.vet(sql, &SCOPE);
    let again = GUARD.vet(sql, &SCOPE);
    assert_eq!(verdict.as_ref().ok(), again.as_ref().ok());
    if verdict.is_err() {
        for wrapped in [format!(" {sql}"), format!("/**/{sql}\n/**/"), format!("{sql}\n-- \n")] {
            assert!(GUARD.vet(&wrapped, &SCOPE).is_err(), "{sql:?} is refused, {wrapped:?} passes");
        }
    }
});
