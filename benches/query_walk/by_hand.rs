//! What we measure against: a bare hyper server that does the same transaction with sqlx, as a careful
//! programmer writes it.

use std::convert::Infallible;
use std::str::FromStr as _;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _};
use tokio::net::TcpListener;

use crate::process::say;
use crate::scene::{CHANGE, CONNECTIONS, READ, ROWS, TENANTS, tenant};

/// Serves for ever.
pub(crate) async fn serve(url: &str) {
    let options = PgConnectOptions::from_str(url).expect("the scene's URL").disable_statement_logging();
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .test_before_acquire(false)
        .acquire_timeout(std::time::Duration::from_secs(60))
        .connect_lazy_with(options);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    say(listener.local_addr().expect("it is bound"));
    let tenants: &'static [String] = (0..TENANTS).map(tenant).collect::<Vec<_>>().leak();
    loop {
        let (stream, _) = listener.accept().await.expect("a connection can be accepted");
        stream.set_nodelay(true).expect("a socket has this option");
        let pool = pool.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let pool = pool.clone();
            async move {
                let named = request.headers().get("x-tenant-id").and_then(|value| value.to_str().ok());
                let tenant = tenants.iter().find(|tenant| Some(tenant.as_str()) == named);
                let json = query(&pool, tenant.expect("the load names a tenant"), request.uri().path()).await;
                let mut response = Response::new(Full::new(Bytes::from(json)));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Ok::<_, Infallible>(response)
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// Begin and narrow in one message, the statement, commit.
async fn query(pool: &PgPool, tenant: &str, path: &str) -> String {
    let (access, statement) = match path {
        "/buildings" => ("READ ONLY", format!("FROM ({READ}) t")),
        _ => ("READ WRITE", format!("FROM changed t")),
    };
    let begin = format!(
        "BEGIN {access}; SET LOCAL search_path TO {tenant}, pg_temp; SET LOCAL ROLE {tenant}; \
         SET LOCAL statement_timeout TO 30000; SET LOCAL idle_in_transaction_session_timeout TO 10000"
    );
    let with = if path == "/buildings" { String::new() } else { format!("WITH changed AS ({CHANGE}) ") };
    // The comment keeps sqlx's statement cache apart for each tenant.
    let statement = format!("/* {tenant} */ {with}SELECT coalesce(json_agg(t), '[]')::text {statement}");
    let mut transaction = pool.begin_with(AssertSqlSafe(begin)).await.expect("a transaction");
    let json: String = sqlx::query_scalar(AssertSqlSafe(statement))
        .bind(i64::try_from(ROWS).expect("a small number"))
        .fetch_one(&mut *transaction)
        .await
        .expect("the statement is sound");
    transaction.commit().await.expect("nothing stands against it");
    json
}
