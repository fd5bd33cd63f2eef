//! Restarts: a new process takes over while the old one finishes, and no client notices.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

use crate::support::backend::Backend;
use crate::support::gateway::until;
use crate::support::process::Process;
use crate::support::tls::ask;

struct Scene {
    directory: tempfile::TempDir,
    backend: Backend,
}

impl Scene {
    async fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), backend: Backend::start().await }
    }

    fn policy(&self, server: &str) -> PathBuf {
        let path = self.directory.path().join("policy.yaml");
        let text = format!(
            "
version: 1
server: {{ admin: 127.0.0.1:0, access_log: off, {server} }}
upstreams: {{ app: {{ endpoints: [ 'http://{}' ] }} }}
routes: [ {{ name: all, tenant: none, forward: app }} ]
",
            self.backend.address
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    fn start(&self, policy: &Path) -> Process {
        Process::start(Process::command(), &["serve", "--no-cache", "--policy", policy.to_str().unwrap()])
    }
}

/// A free port. Only a test whose two processes share one needs to know it beforehand.
fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Clients that ask without a pause until they are told to stop, and panic at the first failure.
struct Load {
    over: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start<F: Future<Output = String> + Send>(
        count: usize,
        once: impl Fn() -> F + Clone + Send + Sync + 'static,
    ) -> Self {
        let (over, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |_| {
            let (over, served, once) = (Arc::clone(&over), Arc::clone(&served), once.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let reply = once().await;
                    assert!(reply.starts_with("HTTP/1.1 200"), "{reply:?}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let clients = (0..count).map(client).collect();
        Self { over, served, clients }
    }

    /// Waits for some more requests.
    async fn goes_on(&self) {
        let before = self.served.load(Ordering::Relaxed);
        let failed = || self.clients.iter().any(JoinHandle::is_finished);
        until(|| failed() || self.served.load(Ordering::Relaxed) > before + 50).await;
    }

    async fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
    }
}

async fn get(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    ask(&mut stream, "app.example.com").await.unwrap()
}

#[tokio::test]
async fn a_restart_under_load_fails_no_request() {
    let scene = Scene::new().await;
    let address = free_address();
    let policy = scene.policy(&format!("listen: '{address}', reuse_port: true"));
    let mut serving = scene.start(&policy);
    serving.says("the admin listener listens").await;
    let load = Load::start(4, move || get(address));
    for _ in 0..3 {
        load.goes_on().await;
        let next = scene.start(&policy);
        next.says("the admin listener listens").await;
        serving.signal("TERM");
        assert!(serving.ended().await.success(), "{}", serving.log());
        serving = next;
    }
    load.goes_on().await;
    load.stop().await;
}

#[tokio::test]
async fn a_restart_on_a_unix_socket_fails_no_request() {
    let scene = Scene::new().await;
    let path = scene.directory.path().join("http.sock");
    let policy = scene.policy(&format!("listen: 'unix:{}', reuse_port: true", path.display()));
    let mut serving = scene.start(&policy);
    serving.says("the admin listener listens").await;
    let at = path.clone();
    let load = Load::start(4, move || {
        let at = at.clone();
        async move {
            let mut stream = UnixStream::connect(&at).await.unwrap();
            ask(&mut stream, "app.example.com").await.unwrap()
        }
    });
    for _ in 0..3 {
        load.goes_on().await;
        let next = scene.start(&policy);
        next.says("the admin listener listens").await;
        serving.signal("TERM");
        assert!(serving.ended().await.success(), "{}", serving.log());
        serving = next;
    }
    load.goes_on().await;
    load.stop().await;
    assert!(path.exists());
}

#[tokio::test]
async fn without_reuse_port_a_second_process_does_not_slip_in() {
    let scene = Scene::new().await;
    let address = free_address();
    let policy = scene.policy(&format!("listen: '{address}'"));
    let first = scene.start(&policy);
    first.says("the admin listener listens").await;
    let mut second = scene.start(&policy);
    assert!(!second.ended().await.success());
    assert!(second.log().contains(&format!("cannot listen on {address}")), "{}", second.log());
}

#[tokio::test]
async fn an_idle_connection_gets_its_last_call() {
    let scene = Scene::new().await;
    let mut serving = scene.start(&scene.policy("listen: '127.0.0.1:0'"));
    let address = serving.address("the gateway listens").await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut some = [0; 1024];
    assert!(stream.read(&mut some).await.unwrap() > 0);
    serving.signal("TERM");
    serving.says("draining").await;
    stream.write_all(b"GET /2 HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    let reply = String::from_utf8_lossy(&rest);
    assert!(reply.contains("HTTP/1.1 200") && reply.contains("connection: close"), "{reply}");
    assert!(serving.ended().await.success());
}

/// Python hands sockets over as systemd does: at descriptor 3, before it becomes the program.
const HANDS_OVER: &str = "
import os, socket, sys
unix = sys.argv[1].startswith('/')
listener = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
listener.bind(sys.argv[1] if unix else ('127.0.0.1', int(sys.argv[1])))
listener.listen()
os.dup2(listener.fileno(), 3, inheritable=True)
os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
";

fn handed_over(socket: &str, policy: &Path) -> Process {
    let mut command = Command::new("python3");
    command.args(["-c", HANDS_OVER, socket, env!("CARGO_BIN_EXE_innkeeper")]);
    Process::start(command, &["serve", "--no-cache", "--policy", policy.to_str().unwrap()])
}

#[tokio::test]
async fn sockets_that_systemd_holds_are_served() {
    if Command::new("python3").arg("--version").output().is_err() {
        return eprintln!("skipped: python3 hands the sockets over, and there is none");
    }
    let scene = Scene::new().await;
    let address = free_address();
    let policy = scene.policy(&format!("listen: '{address}'"));
    let process = handed_over(&address.port().to_string(), &policy);
    process.says("the admin listener listens").await;
    assert!(get(address).await.starts_with("HTTP/1.1 200"));

    let path = scene.directory.path().join("held.sock");
    let policy = scene.policy(&format!("listen: 'unix:{}'", path.display()));
    let mut process = handed_over(path.to_str().unwrap(), &policy);
    process.says("the admin listener listens").await;
    let mut stream = UnixStream::connect(&path).await.unwrap();
    assert!(ask(&mut stream, "app.example.com").await.unwrap().starts_with("HTTP/1.1 200"));
    process.signal("TERM");
    assert!(process.ended().await.success());
    assert!(path.exists(), "it is systemd's");

    let policy = scene.policy("listen: '127.0.0.1:0'");
    let mut process = handed_over(&free_address().port().to_string(), &policy);
    assert!(!process.ended().await.success());
    assert!(process.log().contains("add it to `server.listen`"), "{}", process.log());
}

#[tokio::test]
async fn the_service_manager_is_told() {
    let scene = Scene::new().await;
    let policy = scene.policy("listen: '127.0.0.1:0'");
    let path = scene.directory.path().join("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(crate::support::gateway::PATIENCE)).unwrap();
    let mut command = Process::command();
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "100000");
    let mut process = Process::start(command, &["serve", "--no-cache", "--policy", policy.to_str().unwrap()]);
    let hear = |wanted: &str| {
        let mut heard = [0; 256];
        loop {
            let length = manager.recv(&mut heard).unwrap();
            if heard[..length].starts_with(wanted.as_bytes()) {
                return;
            }
        }
    };
    hear("READY=1");
    hear("WATCHDOG=1");
    process.signal("HUP");
    hear("RELOADING=1");
    hear("READY=1");
    process.signal("TERM");
    hear("STOPPING=1");
    assert!(process.ended().await.success());
}
