//! The tutorial as it stands, in every language: its commands are run, and what they build serves in
//! a gateway, and is swapped there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::plugins::root;
use crate::support::backend::Backend;
use crate::support::gateway::{Harness, TestGateway};

const TUTORIAL: &str = include_str!("../../docs/plugin-tutorial.md");

/// Longer than it takes to compile a whole Python on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(1800);

/// A gateway that knows nothing of the plugin yet.
const BEFORE: &str = "
version: 1
upstreams: { app: { endpoints: [ 'http://BACKEND' ] } }
tenants: { list: [ { id: acme, schema: tenant_acme }, { id: globex, schema: tenant_globex } ] }
routes: [ { name: app, match: { path: / }, tenant: { header: X-Tenant-ID }, forward: app } ]
";

#[tokio::test]
async fn rust() {
    // The step that builds the example from source has what this needs.
    if asked_for() || std::env::var_os("INNKEEPER_BUILD_GUESTS").is_some() {
        from_nothing_to_a_running_gateway("Rust", "src/lib.rs").await;
    }
}

#[tokio::test]
async fn c() {
    if asked_for() {
        from_nothing_to_a_running_gateway("C", "plugin.c").await;
    }
}

#[tokio::test]
async fn javascript() {
    if asked_for() {
        from_nothing_to_a_running_gateway("JavaScript", "plugin.js").await;
    }
}

#[tokio::test]
async fn python() {
    if asked_for() {
        from_nothing_to_a_running_gateway("Python", "plugin.py").await;
    }
}

/// What is committed is proven against its source, and what is too large to commit is built.
#[tokio::test]
async fn every_example_decides_its_cases() {
    if !asked_for() {
        return;
    }
    for (example, prepare) in [
        ("customer-number", "python3 -m venv .venv && .venv/bin/pip install --quiet ziglang"),
        ("by-region", "true"),
        ("by-email-domain", "python3 -m venv .venv && .venv/bin/pip install --quiet -r requirements.txt"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let project = directory.path().join(example);
        std::fs::create_dir(&project).unwrap();
        for file in root().join("plugins").join(example).read_dir().unwrap() {
            let file = file.unwrap().path();
            if file.is_file() {
                std::fs::copy(&file, project.join(file.file_name().unwrap())).unwrap();
            }
        }
        let script =
            format!("{prepare}\ninnkeeper plugin build\ninnkeeper plugin test {example}.wasm CASES.yaml");
        shell(&project, &script).await;
    }
}

#[tokio::test]
async fn the_committed_example_in_c_decides_its_cases() {
    shell(root(), "innkeeper plugin test plugins/customer-number.wasm plugins/customer-number/CASES.yaml")
        .await;
}

#[expect(clippy::print_stderr, reason = "who reads the tests' output wants to know what was not tested")]
fn asked_for() -> bool {
    let asked = std::env::var_os("INNKEEPER_LANGUAGES").is_some();
    if !asked {
        eprintln!("skipped: set INNKEEPER_LANGUAGES=1 to build plugins in every language");
    }
    asked
}

async fn from_nothing_to_a_running_gateway(language: &str, source: &str) {
    let directory = tempfile::tempdir().unwrap();
    shell(directory.path(), commands(language)).await;
    let project = directory.path().join("api-keys");

    let backend = Backend::start().await;
    let address = backend.address.to_string();
    let gateway = Harness::new().policy(&BEFORE.replace("BACKEND", &address)).start().await;
    assert_eq!(gateway.get("/").header("x-api-key", "k-123").send().await.code(), "tenant-missing");

    let policy = std::fs::read_to_string(project.join("policy.yaml")).unwrap();
    drop_in(&gateway, &project);
    gateway.write_policy(&policy.replace("127.0.0.1:9000", &address));
    until_generation(&gateway, 2).await;
    let reply = gateway.get("/").header("x-api-key", "k-123").send().await;
    assert_eq!(reply.json()["headers"]["x-tenant-id"][0], "acme", "{}", reply.text());
    let reply = gateway.get("/").header("x-api-key", "guessed").send().await;
    assert_eq!((reply.status(), reply.code().as_str()), (401, "denied"));
    assert_eq!(reply.json()["detail"], "this API key is not known");

    let rule = project.join(source);
    let text = std::fs::read_to_string(&rule).unwrap();
    std::fs::write(&rule, text.replace("this API key is not known", "no such key")).unwrap();
    shell(&project, "innkeeper plugin build").await;
    drop_in(&gateway, &project);
    until_generation(&gateway, 3).await;
    let reply = gateway.get("/").header("x-api-key", "guessed").send().await;
    assert_eq!(reply.json()["detail"], "no such key");
}

/// The commands that the tutorial gives for a language.
fn commands(language: &str) -> &'static str {
    let section =
        TUTORIAL.split("\n## ").find_map(|section| section.strip_prefix(language)?.strip_prefix('\n'));
    let block =
        section.and_then(|section| section.split("```sh\n").nth(1)).expect("the tutorial has the language");
    block.split("```").next().unwrap()
}

fn drop_in(gateway: &TestGateway, project: &Path) {
    gateway.replace_file("api-keys.wasm", std::fs::read(project.join("api-keys.wasm")).unwrap());
}

async fn until_generation(gateway: &TestGateway, generation: u64) {
    let waiting = async {
        while gateway.sidecar.reloader.store().load().generation() < generation {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the plugin comes into force");
}

/// Runs a script, with the `innkeeper` of this build found first.
async fn shell(directory: &Path, script: &str) {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_innkeeper"));
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command.args(["-euc", script]).current_dir(directory).env("PATH", path);
    let output = command.kill_on_drop(true).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{said}");
}
