//! The example of a legacy backend, as its README has it: FastAPI and SQLAlchemy with a race, and the
//! same application with its statements run by Innkeeper.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use innkeeper::cli::demo::cluster::PrivatePostgres;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};
use tokio::net::TcpStream;

use super::{is_wanted, output_of, run};
use crate::support::gateway::Harness;
use crate::support::postgres::{TestDatabase, alone};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/fastapi");

/// How long all of it may take, the packages' download included.
const PATIENCE: Duration = Duration::from_secs(600);

/// How often the racy application is put under load at most. Its first answers are wrong as a rule.
const ATTEMPTS: usize = 10;

/// The role that Innkeeper logs in as.
const LOGIN: &str = "gateway";

const RIGHT: &str = "400 answered with the tenant's own rows";
const WRONG: &str = "ANSWERED WITH ANOTHER TENANT'S ROWS";

#[tokio::test]
async fn the_race_of_the_example_shows_and_is_gone_behind_innkeeper() {
    if !is_wanted() {
        return;
    }
    tokio::time::timeout(PATIENCE, race()).await.expect("it ends in time");
}

async fn race() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    for file in std::fs::read_dir(EXAMPLE).unwrap().map(|file| file.unwrap().path()) {
        std::fs::copy(&file, directory.join(file.file_name().unwrap())).unwrap();
    }
    run(directory, "python3", &["-m", "venv", "venv"]).await;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"];
    run(directory, "venv/bin/python", &pip).await;
    let server = PrivatePostgres::start().await.unwrap();
    set_up(&alone(&server).await).await;

    let racy =
        Application::start(directory, "app:app", &for_sqlalchemy(&server.url("postgres", "legacy"))).await;
    let mut seen = String::new();
    for _ in 0..ATTEMPTS {
        seen = load(directory, racy.address).await;
        if seen.contains(WRONG) {
            break;
        }
    }
    assert!(seen.contains(WRONG), "{seen}");
    drop(racy);

    let [outside, inside, backend] = free_addresses();
    let policy = std::fs::read_to_string(directory.join("policy.yaml"))
        .unwrap()
        .replace("127.0.0.1:8080", &outside.to_string())
        .replace("127.0.0.1:8081", &inside.to_string())
        .replace("127.0.0.1:9000", &backend.to_string())
        .replace(
            "postgres://innkeeper:innkeeper@127.0.0.1:5432/legacy",
            &server.url("postgres", "innkeeper"),
        );
    let gateway = Harness::new().policy(&policy).try_start_at(vec![]).await.unwrap();
    let database = format!("innkeeper://{inside}/sql");
    let _fixed = Application::start_at(directory, backend, "fixed:app", &database).await;
    let seen = load(directory, gateway.address()).await;
    assert!(seen.trim() == RIGHT, "{seen}");
}

/// What psql would do with `setup.sql`: its last query makes statements, which `\gexec` runs. The
/// superuser of a private server has the name that the example has for Innkeeper's role.
async fn set_up(database: &TestDatabase) {
    let setup = std::fs::read_to_string(Path::new(EXAMPLE).join("setup.sql"))
        .unwrap()
        .replace("ROLE innkeeper ", &format!("ROLE {LOGIN} "))
        .replace("TO innkeeper;", &format!("TO {LOGIN};"));
    let (statements, query) = setup.split_once("\nSELECT").expect("the query of the tenants");
    database.admin(statements).await;
    let query = format!("SELECT{}", query.replace("\\gexec", ""));
    let made = database.connect().await.fetch_all(AssertSqlSafe(query)).await.unwrap();
    for statements in made {
        database.admin(statements.get(0)).await;
    }
}

/// Calls the application as three tenants at once; what the load says of it.
async fn load(directory: &Path, address: SocketAddr) -> String {
    let url = format!("http://{address}");
    let arguments = ["load.py", &url, "--requests", "400", "--clients", "20"];
    let output = output_of(directory, "venv/bin/python", &arguments).await;
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// A running uvicorn, ended when dropped.
struct Application {
    child: Child,
    address: SocketAddr,
}

impl Application {
    async fn start(directory: &Path, module: &str, database: &str) -> Self {
        let [address] = free_addresses();
        Self::start_at(directory, address, module, database).await
    }

    async fn start_at(directory: &Path, address: SocketAddr, module: &str, database: &str) -> Self {
        let child = Command::new(directory.join("venv/bin/python"))
            .args(["-m", "uvicorn", "--log-level", "critical", "--host", "127.0.0.1"])
            .args(["--port", &address.port().to_string(), module])
            .current_dir(directory)
            .env("DATABASE_URL", database)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut application = Self { child, address };
        while TcpStream::connect(address).await.is_err() {
            assert!(application.child.try_wait().unwrap().is_none(), "the application ended");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        application
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Addresses on loopback that nobody listened at a moment ago.
fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let ports = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    ports.map(|port| port.local_addr().unwrap())
}

/// The URL of a private server's socket, as SQLAlchemy writes it.
fn for_sqlalchemy(url: &str) -> String {
    let url = url::Url::parse(url).unwrap();
    let (user, host, port) = (url.username(), url.host_str().unwrap(), url.port().unwrap());
    format!("postgresql+asyncpg://{user}@{}?host={host}&port={port}", url.path())
}
