//! The correct service in Python, where a Python that can run it is named.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::load::{self, Ask};
use crate::process::{Proxy, setting};

/// How many times as many requests a second as the service we must serve.
const BUDGET: f64 = 15.0;

/// Prints both sides' requests a second.
pub(crate) async fn compare(url: &str, ours: &Proxy) {
    let Some(service) = Service::start(url).await else {
        println!("FastAPI, SQLAlchemy      not measured: set QUERY_PYTHON");
        return;
    };
    let requests = setting("QUERY_REQUESTS", 20_000);
    let ask = Ask::of("/buildings");
    load::drive(service.address, ask, requests / 100).await;
    let theirs = load::drive(service.address, ask, requests / 10).await.rate();
    let ours = load::drive(ours.address, ask, requests).await.rate();
    println!("{:<24} {theirs:>6.0} requests a second, innkeeper {ours:.0}", "FastAPI, SQLAlchemy");
    println!("{:<24} {:>6.1} (budget {BUDGET})", "ratio", ours / theirs);
}

/// The service, ended when dropped.
struct Service {
    child: Child,
    address: SocketAddr,
}

impl Service {
    /// Starts it on the server behind `url`; `None` where `QUERY_PYTHON` is not set.
    async fn start(url: &str) -> Option<Self> {
        let python = std::env::var_os("QUERY_PYTHON")?;
        let address =
            TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a free port");
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/fastapi");
        let child = Command::new(python)
            .args(["-m", "uvicorn", "--log-level", "warning", "--no-access-log", "--host", "127.0.0.1"])
            .args(["--port", &address.port().to_string(), "correct:app"])
            .current_dir(directory)
            .env("DATABASE_URL", url)
            .stdout(Stdio::null())
            .spawn()
            .expect("QUERY_PYTHON runs");
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(Self { child, address })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
