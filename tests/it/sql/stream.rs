//! Rows that are passed on as they come: whole, in order, in little memory, and with an end that
//! tells what they are worth.

use futures_util::TryStreamExt as _;
use innkeeper::error::{Code, Refusal};
use innkeeper::policy::Query;
use innkeeper::sql::Rows;
use innkeeper::tenant::Isolation;
use serde_json::{Value as Json, json};

use super::{MARKS, Scene, write};
use crate::support::gateway::Harness;
use crate::support::postgres::eventually;
use crate::support::raw_client::RawClient;

impl Scene {
    async fn stream(&self, tenant: usize, query: &Query) -> Result<Rows, Refusal> {
        self.database.stream(self.scope(tenant), query, Vec::new()).await
    }

    async fn lines(&self, tenant: usize, query: &Query) -> Result<Vec<Json>, Refusal> {
        let mut lines = String::new();
        let mut rows = self.stream(tenant, query).await?;
        while let Some(piece) = rows.try_next().await? {
            lines.push_str(std::str::from_utf8(&piece).unwrap());
        }
        assert!(lines.is_empty() || lines.ends_with('\n'));
        Ok(lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }
}

#[tokio::test]
async fn rows_come_as_lines_in_their_order_and_each_tenants_own() {
    for isolation in [Isolation::Schema, Isolation::Role, Isolation::Login] {
        let scene = Scene::new(isolation, 2).await;
        for tenant in [0, 1, 2, 0] {
            let lines = scene.lines(tenant, &scene.query(MARKS)).await.unwrap();
            assert_eq!(lines.len(), 20);
            assert_eq!(scene.fixture.foreign_rows(tenant, &Json::Array(lines).to_string()), 0);
        }
        assert_eq!(
            scene.lines(1, &scene.query("select 1 as n where false")).await.unwrap(),
            Vec::<Json>::new()
        );
        let spaced = scene.query("select '{\n\"a\":\r\n 1}'::json as j, E'x\\ny' as t");
        assert_eq!(scene.lines(1, &spaced).await.unwrap(), [json!({ "j": { "a": 1 }, "t": "x\ny" })]);
        assert_eq!(scene.discarded(), 0);
    }
}

#[tokio::test]
async fn any_number_of_rows_passes_in_pieces_of_bounded_size() {
    const ROWS: usize = 300_000;
    let scene = Scene::new(Isolation::Role, 1).await;
    let many =
        scene.query(&format!("select n, repeat('x', n % 100) as filler from generate_series(1, {ROWS}) n"));
    let mut rows = scene.stream(0, &many).await.unwrap();
    let (mut lines, mut largest) = (0, 0);
    while let Some(piece) = rows.try_next().await.unwrap() {
        lines += piece.iter().filter(|byte| **byte == b'\n').count();
        largest = largest.max(piece.len());
    }
    assert_eq!(lines, ROWS);
    assert!(largest < 20 << 10, "a piece of {largest} bytes");
    assert_eq!(scene.value(1, "select count(*) from marks").await, "20");
    assert_eq!(scene.discarded(), 0);
}

#[tokio::test]
async fn an_error_between_rows_is_the_last_that_comes_and_nothing_was_changed() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    let late = scene.query("select 100000 / (50000 - n) as q from generate_series(1, 100000) n");
    let mut rows = scene.stream(0, &late).await.unwrap();
    let refusal = loop {
        match rows.try_next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream came to an end"),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((refusal.code(), refusal.extension()), (Code::QueryFailed, Some(("sqlstate", "22012"))));
    // Before the first row it is an ordinary refusal.
    let early = scene.stream(0, &scene.query("select 1 / 0 as q")).await.err().unwrap();
    assert_eq!(early.code(), Code::QueryFailed, "{early}");
    let doubled = scene.stream(0, &scene.query("select 1 as a, 2 as a")).await.err().unwrap();
    assert!(doubled.cause().unwrap().contains("two columns"), "{doubled}");
    let sneaky = Query { read_only: true, ..scene.query("update marks set note = 'x' returning id") };
    assert_eq!(scene.stream(0, &sneaky).await.err().unwrap().status().as_u16(), 405);
    assert_eq!(scene.value(0, "select count(note) from marks").await, "0");
}

#[tokio::test]
async fn a_change_counts_once_its_last_line_is_there() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    scene
        .postgres
        .admin(
            "CREATE TABLE t_000.log (n int); GRANT ALL ON t_000.log TO PUBLIC; \
             CREATE FUNCTION t_000.refuse() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN \
             RAISE 'no more than this'; END $f$; \
             CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t_000.log DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW WHEN (NEW.n = 7) EXECUTE FUNCTION t_000.refuse()",
        )
        .await;
    let insert = |from: usize, to: usize| {
        write(scene.query(&format!("insert into log select generate_series({from}, {to}) returning n")))
    };
    let count = "select count(*) from log";
    assert_eq!(scene.lines(0, &insert(10, 12)).await.unwrap().len(), 3);
    assert_eq!(scene.value(0, count).await, "3");
    // What is deferred fails at the end: the last line is never seen.
    let mut rows = scene.stream(0, &insert(1, 9)).await;
    if let Ok(rows) = &mut rows {
        while let Ok(Some(piece)) = rows.try_next().await {
            assert!(!String::from_utf8_lossy(&piece).contains("9}"));
        }
    }
    assert_eq!(scene.value(0, count).await, "3");
    // A client that leaves before the end has changed nothing.
    let rows = scene.stream(0, &insert(1000, 200_000)).await.unwrap();
    drop(rows);
    eventually("it ended", || async { scene.postgres.backends().await.len() <= 1 }).await;
    assert_eq!(scene.value(0, count).await, "3");
}

#[tokio::test]
async fn a_scope_that_was_left_between_rows_keeps_the_end_back() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    scene
        .postgres
        .admin(
            "CREATE FUNCTION t_001.escape() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN \
             SET search_path TO t_002; RETURN 1; END $f$",
        )
        .await;
    let sql = "select tenant, case when id::text = '20' then escape() else 0 end as n from marks order by id::text::int";
    for (breaches, query) in [(1, scene.query(sql)), (2, write(scene.query(sql)))] {
        let refusal = scene.lines(1, &query).await.unwrap_err();
        assert_eq!(refusal.code(), Code::IsolationBreach, "{refusal}");
        assert_eq!(scene.breaches(), breaches);
    }
    assert_eq!(scene.lines(2, &scene.query(MARKS)).await.unwrap().len(), 20);
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_query_on_the_server() {
    let scene = Scene::new(Isolation::Role, 1).await;
    // In the select list, a series is counted as it is asked for; in FROM it would be counted out first.
    let endless = scene
        .query("select n, pg_sleep(0.001)::text as s from (select generate_series(1, 100000000) as n) g");
    let active = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                  AND usename <> current_user AND state = 'active'";
    let mut rows = scene.stream(0, &endless).await.unwrap();
    rows.try_next().await.unwrap();
    assert_eq!(scene.postgres.read::<i64>(active).await, 1);
    drop(rows);
    eventually("it ended", || async { scene.postgres.read::<i64>(active).await == 0 }).await;
    assert_eq!(scene.value(1, "select count(*) from marks").await, "20");
}

#[tokio::test]
async fn over_http_a_broken_stream_has_a_last_line_and_no_end() {
    let scene = Scene::new(Isolation::Schema, 2).await;
    let policy = format!(
        "
version: 1
databases: {{ main: {{ url: '{}' }} }}
tenants: {{ list: [ {{ id: acme, schema: t_001 }} ] }}
routes:
  - name: marks
    match: {{ path: /marks }}
    tenant: {{ header: X-Tenant-ID }}
    query: {{ database: main, sql: select tenant from marks }}
  - name: broken
    match: {{ path: /broken }}
    tenant: {{ header: X-Tenant-ID }}
    query: {{ database: main, sql: 'select 30000 / (3000 - n) as q from generate_series(1, 6000) n' }}
",
        scene.postgres.url(&scene.postgres.login())
    );
    let gateway = Harness::new().policy(&policy).start().await;
    let mut client = RawClient::connect(gateway.address()).await;
    let request = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-Tenant-ID: acme\r\nAccept: application/x-ndjson\r\n\r\n")
    };
    client.send(request("/marks")).await;
    let whole = client.response().await.unwrap();
    assert_eq!((whole.status, whole.complete), (200, true), "{whole:?}");
    assert_eq!(whole.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(whole.text(), "{\"tenant\":\"t_001\"}\n".repeat(20));

    client.send(request("/broken")).await;
    let broken = client.response().await.unwrap();
    assert_eq!((broken.status, broken.complete), (200, false));
    let last: Json = serde_json::from_str(broken.text().lines().last().unwrap()).unwrap();
    assert_eq!(last["error"]["type"], "urn:innkeeper:error:query-failed", "{last}");
    assert_eq!(last["error"]["sqlstate"], "22012");
    assert_eq!(last["error"]["request_id"], json!(broken.header("x-request-id")));
}
