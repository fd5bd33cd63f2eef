//! Directories: a list, and a table that is cached, shared, stale, wrong or away.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use innkeeper::cli::demo::cluster::{PrivatePostgres, SUPERUSER};
use innkeeper::decision::{DirectoryUnavailable, FindTenant as _};
use innkeeper::directory::Directory;
use innkeeper::policy::{
    DefaultLimits, DirectorySource, PoolSettings, QualifiedName, Secret, TableDirectory,
};
use innkeeper::telemetry::{Metrics, ResultLabel};
use innkeeper::tenant::{Isolation, RoleName, Tenant, TenantState};

use crate::support::postgres::{TestDatabase, alone, database, eventually, run};

/// Longer than any test: what is cached with it stays.
const LONG: Duration = Duration::from_secs(600);

/// Shorter than any wait: what is cached with it is soon read again.
const SHORT: Duration = Duration::from_millis(20);

const TABLE: &str = "CREATE TABLE public.tenants (id text, schema_name text, role_name text, home text, \
                     state text DEFAULT 'active', level text)";

fn source(postgres: &TestDatabase) -> TableDirectory {
    let mut settings = postgres.settings(Isolation::Schema, 1);
    settings.url = Secret::new(postgres.url(SUPERUSER));
    settings.pool = PoolSettings { acquire_timeout: Duration::from_millis(500), ..settings.pool };
    TableDirectory {
        database: Arc::new(settings),
        table: QualifiedName { schema: Some("public".into()), table: "tenants".into() },
        id: "id".into(),
        schema: "schema_name".into(),
        role: Some("role_name".into()),
        database_column: Some("home".into()),
        databases: vec!["main".into(), "second".into()],
        state: Some("state".into()),
        isolation: Some("level".into()),
        limits: None,
        default_limits: DefaultLimits::default(),
        cache: LONG,
        negative_cache: LONG,
        stale_if_error: Duration::ZERO,
        max_entries: 1_000,
    }
}

struct Scene {
    directory: Directory,
    metrics: Arc<Metrics>,
}

impl Scene {
    fn open(source: TableDirectory) -> Self {
        let metrics = Metrics::new();
        Self { directory: Directory::open(&DirectorySource::Table(source), Arc::clone(&metrics)), metrics }
    }

    async fn find(&self, id: &str) -> Result<Option<Arc<Tenant>>, DirectoryUnavailable> {
        self.directory.find(&id.parse().unwrap()).await
    }

    async fn schema(&self, id: &str) -> Option<String> {
        self.find(id).await.unwrap().map(|tenant| tenant.schema.as_str().to_owned())
    }

    fn count(&self, result: &'static str) -> u64 {
        self.metrics.directory_lookups.get_or_create(&ResultLabel { result }).get()
    }
}

#[tokio::test]
async fn a_row_becomes_a_tenant_with_all_that_it_says() {
    let postgres = database().await;
    postgres
        .admin(&format!(
            "{TABLE}; INSERT INTO tenants VALUES ('acme', 'acme_schema', 'acme_role', 'second', 'suspended', 'role'), \
             ('plain', 'plain', NULL, NULL, 'active', NULL), ('moving', 'moving', NULL, NULL, 'held', 'schema')"
        ))
        .await;
    let scene = Scene::open(source(&postgres));
    let acme = scene.find("acme").await.unwrap().unwrap();
    assert_eq!(acme.schema.as_str(), "acme_schema");
    assert_eq!(acme.role.as_ref().map(RoleName::as_str), Some("acme_role"));
    assert_eq!(acme.database.as_deref(), Some("second"));
    assert_eq!((acme.state, acme.isolation), (TenantState::Suspended, Some(Isolation::Role)));
    let plain = scene.find("plain").await.unwrap().unwrap();
    assert_eq!((&plain.role, &plain.database, plain.isolation), (&None, &None, None));
    assert!(matches!(scene.find("moving").await.unwrap().unwrap().state, TenantState::Held { .. }));
    assert!(scene.find("Acme").await.unwrap().is_none());
    assert!(scene.find("x'--").await.unwrap().is_none());

    postgres.admin("DROP TABLE tenants").await;
    scene.find("acme").await.unwrap().unwrap();
    assert!(scene.find("Acme").await.unwrap().is_none());
    assert_eq!((scene.count("read"), scene.count("fresh"), scene.count("unknown")), (3, 1, 3));
}

#[tokio::test]
async fn ids_of_any_type_are_found_by_their_index() {
    let postgres = database().await;
    for (kind, first, other, no_value) in [
        ("text", "'7'", "7", None),
        ("varchar(40)", "'7'", "7", None),
        ("bigint", "7", "7", Some("seven")),
        (
            "uuid",
            "'123e4567-e89b-12d3-a456-426614174000'",
            "123E4567-E89B-12D3-A456-426614174000",
            Some("seven"),
        ),
    ] {
        let filler = match kind {
            "uuid" => "gen_random_uuid()".to_owned(),
            _ => format!("(n + 100)::{kind}"),
        };
        postgres
            .admin(&format!(
                "DROP TABLE IF EXISTS tenants; CREATE TABLE tenants (id {kind} PRIMARY KEY, schema_name text); \
                 INSERT INTO tenants VALUES ({first}, 'seventh'); \
                 INSERT INTO tenants SELECT {filler}, 'x' FROM generate_series(1, 5000) n; ANALYZE tenants"
            ))
            .await;
        let narrow = TableDirectory {
            role: None,
            database_column: None,
            state: None,
            isolation: None,
            ..source(&postgres)
        };
        let scene = Scene::open(narrow);
        let tenant = scene.find(other).await.unwrap().unwrap_or_else(|| panic!("{kind}"));
        // However the client spelled it, everyone behind us sees the table's own spelling.
        assert_eq!(tenant.id.as_str(), first.trim_matches('\''), "{kind}");
        assert!(scene.find("00000000-0000-0000-0000-000000000001").await.unwrap().is_none(), "{kind}");
        if let Some(no_value) = no_value {
            assert!(scene.find(no_value).await.unwrap().is_none(), "{kind}");
            assert!(scene.find("99999999999999999999999").await.unwrap().is_none(), "{kind}");
        }
        // A session that ends reports what it did.
        drop(scene);
        eventually("the index was used", || async {
            postgres
                .read::<i64>(
                    "SELECT coalesce(max(idx_scan), 0) FROM pg_stat_user_indexes WHERE relname = 'tenants'",
                )
                .await
                > 0
        })
        .await;
    }
}

#[tokio::test]
async fn a_row_that_is_no_tenant_is_never_served() {
    let postgres = database().await;
    postgres
        .admin(&format!(
            "{TABLE}; INSERT INTO tenants VALUES \
             ('no-schema', NULL), ('shared', 'public'), ('catalogue', 'pg_catalog'), ('twin', 'a'), ('twin', 'b'); \
             INSERT INTO tenants VALUES ('lost', 'lost', NULL, 'third', 'active'), ('odd', 'odd', NULL, NULL, 'maybe'), \
             ('unset', 'unset', NULL, NULL, NULL), ('nobody', 'nobody', 'none', NULL, 'active'); \
             INSERT INTO tenants VALUES ('weak', 'weak', NULL, NULL, 'active', 'none')"
        ))
        .await;
    let scene = Scene::open(source(&postgres));
    for (id, column) in [
        ("no-schema", "schema_name"),
        ("shared", "schema_name"),
        ("catalogue", "schema_name"),
        ("twin", "more than one"),
        ("lost", "home"),
        ("odd", "state"),
        ("unset", "state"),
        ("weak", "level"),
        ("nobody", "role_name"),
    ] {
        let DirectoryUnavailable(cause) = scene.find(id).await.unwrap_err();
        assert!(cause.contains(id) && cause.contains(column), "{cause}");
    }
    assert_eq!(scene.count("unavailable"), 9);
}

#[tokio::test]
async fn a_bad_row_is_not_covered_by_an_older_copy_of_it() {
    let postgres = database().await;
    postgres.admin(&format!("{TABLE}; INSERT INTO tenants VALUES ('acme', 'acme')")).await;
    let scene = Scene::open(TableDirectory { cache: SHORT, stale_if_error: LONG, ..source(&postgres) });
    assert_eq!(scene.schema("acme").await.unwrap(), "acme");
    postgres.admin("UPDATE tenants SET schema_name = NULL").await;
    eventually("the bad row is seen", || async { scene.find("acme").await.is_err() }).await;
    postgres.admin("UPDATE tenants SET schema_name = 'moved'").await;
    eventually("the mended row is seen", || async {
        scene.find("acme").await.is_ok_and(|tenant| tenant.unwrap().schema.as_str() == "moved")
    })
    .await;
}

#[tokio::test]
async fn a_missing_table_or_column_is_named_and_found_once_it_is_there() {
    let postgres = database().await;
    let scene = Scene::open(source(&postgres));
    let DirectoryUnavailable(cause) = scene.find("acme").await.unwrap_err();
    assert!(cause.contains("tenants"), "{cause}");
    postgres.admin(&format!("{TABLE}; INSERT INTO tenants VALUES ('acme', 'acme')")).await;
    eventually("the table is read", || async { scene.find("acme").await.is_ok() }).await;
    assert_eq!(scene.schema("acme").await.unwrap(), "acme");
}

/// A view whose every read of a row moves a sequence on, so that reads can be counted.
async fn counting(postgres: &TestDatabase) {
    postgres
        .admin(
            "CREATE TABLE base (id text PRIMARY KEY, schema_name text); INSERT INTO base VALUES ('acme', 'acme'); \
             CREATE SEQUENCE reads; CREATE VIEW tenants AS \
             SELECT id, schema_name, CASE WHEN nextval('reads') > 0 THEN 'active' END AS state FROM base",
        )
        .await;
}

fn counted(postgres: &TestDatabase) -> TableDirectory {
    TableDirectory { role: None, database_column: None, isolation: None, ..source(postgres) }
}

async fn reads(postgres: &TestDatabase) -> i64 {
    postgres.read("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM reads").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_ask_for_one_tenant_at_once_share_one_read() {
    let postgres = database().await;
    counting(&postgres).await;
    let scene = Scene::open(counted(&postgres));
    let found = join_all((0..200).map(|_| scene.schema("acme"))).await;
    assert!(found.iter().all(|schema| schema.as_deref() == Some("acme")));
    assert_eq!(reads(&postgres).await, 1);
}

#[tokio::test]
async fn a_look_up_goes_on_when_the_request_that_started_it_is_gone() {
    let postgres = database().await;
    counting(&postgres).await;
    let scene = Scene::open(counted(&postgres));
    let mut holder = postgres.connect().await;
    run(&mut holder, "BEGIN; LOCK TABLE base").await;
    {
        let mut first = pin!(scene.find("acme"));
        tokio::select! {
            outcome = &mut first => panic!("it ended: {outcome:?}"),
            () = eventually("it waits", || async {
                postgres.read::<i64>("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                                      AND datname = current_database()").await == 1
            }) => {}
        }
    }
    run(&mut holder, "ROLLBACK").await;
    eventually("the read is done", || async { reads(&postgres).await == 1 }).await;
    assert_eq!(scene.schema("acme").await.unwrap(), "acme");
    assert_eq!(reads(&postgres).await, 1);
}

#[tokio::test]
async fn an_outage_is_bridged_by_what_is_known_and_by_nothing_else() {
    let mut server = PrivatePostgres::start().await.unwrap();
    let postgres = alone(&server).await;
    postgres.admin(&format!("{TABLE}; INSERT INTO tenants VALUES ('acme', 'acme'), ('gone', 'gone')")).await;
    let mut settings = (*source(&postgres).database).clone();
    // Over TCP a server that is down is waited for until the time to connect is over.
    settings.url = Secret::new(server.tcp_url("postgres"));
    let scene = Scene::open(TableDirectory {
        database: Arc::new(settings),
        cache: SHORT,
        negative_cache: Duration::ZERO,
        stale_if_error: LONG,
        ..source(&postgres)
    });
    assert_eq!(scene.schema("acme").await.unwrap(), "acme");
    assert_eq!(scene.schema("gone").await.unwrap(), "gone");
    postgres.admin("DELETE FROM tenants WHERE id = 'gone'").await;
    eventually("the deletion is seen", || async { scene.schema("gone").await.is_none() }).await;

    server.stop().await.unwrap();
    eventually("a stale copy serves", || async {
        assert_eq!(scene.schema("acme").await.unwrap(), "acme");
        scene.count("stale") > 0
    })
    .await;
    for id in ["gone", "never-seen"] {
        assert!(scene.find(id).await.is_err(), "{id}");
    }
    // Each would take half a second if each tried to connect; the outage is known by now.
    let refusals = async {
        for n in 0..1_000 {
            assert!(scene.find(&format!("never-seen-{n}")).await.is_err());
        }
    };
    tokio::time::timeout(Duration::from_secs(60), refusals)
        .await
        .expect("an outage costs each request a time-out");

    server.start_again().await.unwrap();
    postgres.admin("UPDATE tenants SET schema_name = 'new'").await;
    eventually("the table is read again", || async { scene.schema("acme").await.unwrap() == "new" }).await;
    assert!(scene.find("never-seen").await.unwrap().is_none());
}

#[tokio::test]
async fn a_stale_copy_serves_no_longer_than_it_may() {
    let mut server = PrivatePostgres::start().await.unwrap();
    let postgres = alone(&server).await;
    postgres.admin(&format!("{TABLE}; INSERT INTO tenants VALUES ('acme', 'acme')")).await;
    let brief =
        TableDirectory { cache: SHORT, stale_if_error: Duration::from_millis(300), ..source(&postgres) };
    let none = TableDirectory { cache: SHORT, ..source(&postgres) };
    for source in [brief, none] {
        let scene = Scene::open(source);
        assert_eq!(scene.schema("acme").await.unwrap(), "acme");
        server.stop().await.unwrap();
        eventually("nothing serves", || async { scene.find("acme").await.is_err() }).await;
        server.start_again().await.unwrap();
    }
}

#[tokio::test]
async fn a_list_knows_whom_it_names() {
    let acme = Arc::new(Tenant {
        id: "acme".parse().unwrap(),
        schema: "acme".parse().unwrap(),
        role: None,
        database: None,
        state: TenantState::Active,
        isolation: None,
        limits: None,
    });
    let source = DirectorySource::List([(acme.id.clone(), Arc::clone(&acme))].into_iter().collect());
    let directory = Directory::open(&source, Metrics::new());
    assert_eq!(directory.find(&acme.id).await.unwrap(), Some(acme));
    assert_eq!(directory.find(&"other".parse().unwrap()).await.unwrap(), None);
}
