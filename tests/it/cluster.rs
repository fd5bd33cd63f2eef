//! The private PostgreSQL: it serves, comes back with its data, and leaves nothing behind.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use innkeeper::cli::demo::cluster::{PrivatePostgres, SUPERUSER};
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::support::postgres::eventually;

fn is_running(process: &str) -> bool {
    Command::new("kill").args(["-0", process]).stderr(Stdio::null()).status().unwrap().success()
}

fn server_process(directory: &Path) -> String {
    let status = std::fs::read_to_string(directory.join("data/postmaster.pid")).unwrap();
    status.lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn a_server_keeps_its_data_over_a_restart_and_goes_when_dropped() {
    let mut server = PrivatePostgres::start().await.unwrap();
    let mut connection = PgConnection::connect(&server.url("postgres", SUPERUSER)).await.unwrap();
    connection.execute("CREATE TABLE kept AS SELECT 7 AS n").await.unwrap();

    server.restart().await.unwrap();
    assert!(connection.execute("SELECT 1").await.is_err());
    let mut connection = PgConnection::connect(&server.tcp_url("postgres")).await.unwrap();
    let kept: i32 = sqlx::query_scalar("SELECT n FROM kept").fetch_one(&mut connection).await.unwrap();
    assert_eq!(kept, 7);

    let (directory, process) = (server.directory().to_owned(), server_process(server.directory()));
    drop(server);
    assert!(!is_running(&process));
    assert!(!directory.exists());
}

#[tokio::test]
async fn a_crashed_server_comes_back() {
    let mut server = PrivatePostgres::start().await.unwrap();
    server.crash().await.unwrap();
    assert!(PgConnection::connect(&server.url("postgres", SUPERUSER)).await.is_err());
    server.start_again().await.unwrap();
    PgConnection::connect(&server.url("postgres", SUPERUSER)).await.unwrap();
}

#[tokio::test]
async fn tcp_asks_for_the_password() {
    let server = PrivatePostgres::start().await.unwrap();
    let guessed = format!("postgres://{SUPERUSER}:guess@127.0.0.1:{}/postgres", server.port());
    let refused = PgConnection::connect(&guessed).await.unwrap_err();
    assert_eq!(
        refused.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref(),
        Some("28P01")
    );
}

/// Not a test by itself: the process that the test below kills.
#[tokio::test]
#[ignore = "waits to be killed by `a_killed_process_leaves_nothing_behind`"]
async fn hold_a_server_until_killed() {
    let server = PrivatePostgres::start().await.unwrap();
    println!("\nholding {}", server.directory().display());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_process_leaves_nothing_behind() {
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cluster::hold_a_server_until_killed", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    let directory = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("holding ").map(PathBuf::from))
        .expect("the holder names its directory");
    let process = server_process(&directory);
    assert!(is_running(&process));

    holder.kill().unwrap();
    holder.wait().unwrap();
    eventually("the directory is gone", || async { !directory.exists() }).await;
    assert!(!is_running(&process));
}
