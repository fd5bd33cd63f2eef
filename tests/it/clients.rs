//! The clients that the sql target is made for, unmodified from npm and PyPI, as several tenants at once.

mod fastapi;

use std::path::Path;
use std::process::Output;

use tokio::process::Command;

use crate::sql_target::Scene;

#[tokio::test]
async fn neons_driver_and_drizzle_work_unmodified() {
    if !is_wanted() {
        return;
    }
    let scene = Scene::new("login").await;
    let tables = ["acme", "globex"].map(|tenant| {
        format!("ALTER TABLE {tenant}.notes ADD price numeric, ADD large int8, ADD doc jsonb;")
    });
    scene.postgres.admin(&tables.concat()).await;

    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let directory = tempfile::tempdir().unwrap();
    for file in ["package.json", "package-lock.json", "clients.mjs"] {
        std::fs::copy(source.join(file), directory.path().join(file)).unwrap();
    }
    run(directory.path(), "npm", &["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).await;
    let gateway = format!("http://{}", scene.gateway.address());
    run(directory.path(), "node", &["clients.mjs", &gateway]).await;
    assert_eq!(scene.breaches(), 0);
}

/// Node, Python and their packages are not on every machine; `.ci/run clients` has them.
fn is_wanted() -> bool {
    std::env::var_os("INNKEEPER_CLIENTS").is_some()
}

async fn output_of(directory: &Path, program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}

async fn run(directory: &Path, program: &str, arguments: &[&str]) {
    let output = output_of(directory, program, arguments).await;
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&text));
}
