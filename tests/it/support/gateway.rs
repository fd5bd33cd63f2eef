//! A whole sidecar in the test's own process, and a client whose calls read as prose.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use innkeeper::gateway::{AccessLog, LogFormat};
use innkeeper::sidecar::{Settings, Sidecar, StartError};
use serde_json::Value;

/// Longer than anything takes; only a hang reaches it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Files that a sidecar is started on.
pub struct Harness {
    directory: tempfile::TempDir,
    policy: PathBuf,
    workers: usize,
}

impl Harness {
    /// An empty policy directory.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy.yaml");
        Self { directory, policy, workers: 0 }
    }

    /// Serves connections on so many threads of their own, and not on the test's: what one client does may
    /// then overtake what another did before.
    pub fn workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }

    /// Writes the policy.
    pub fn policy(self, text: &str) -> Self {
        std::fs::write(&self.policy, text).unwrap();
        self
    }

    /// Writes another file beside it.
    pub fn file(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.directory.path().join(name), bytes).unwrap();
        self
    }

    /// Starts the sidecar.
    pub async fn start(self) -> TestGateway {
        self.try_start().await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts the sidecar, if its policy lets it.
    pub async fn try_start(self) -> Result<TestGateway, StartError> {
        self.try_start_at(vec![([127, 0, 0, 1], 0).into()]).await
    }

    /// Starts the sidecar, if its policy lets it and these addresses are free; none means those of
    /// the policy.
    pub async fn try_start_at(self, listen: Vec<SocketAddr>) -> Result<TestGateway, StartError> {
        let lines = Lines::default();
        let loopback: SocketAddr = ([127, 0, 0, 1], 0).into();
        let listen = listen.into_iter().map(Into::into).collect();
        let settings = Settings {
            policy: self.policy.clone(),
            listen,
            admin: Some(loopback.into()),
            cache: None,
            workers: self.workers,
        };
        let sidecar = Sidecar::start(settings, AccessLog::new(LogFormat::Json, lines.clone())).await?;
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(TestGateway { sidecar, client, lines, files: self })
    }
}

/// A running sidecar and a client of it.
pub struct TestGateway {
    pub sidecar: Sidecar,
    client: Client<HttpConnector, Full<Bytes>>,
    lines: Lines,
    files: Harness,
}

impl TestGateway {
    pub fn address(&self) -> SocketAddr {
        self.sidecar.addresses[0]
    }

    /// The same sidecar at another of its listeners.
    pub fn get_at(&self, listener: usize, path: &str) -> Call<'_> {
        let url = format!("http://{}{path}", self.sidecar.addresses[listener]);
        Call { url, ..self.get(path) }
    }

    pub fn get(&self, path: &str) -> Call<'_> {
        self.call(Method::GET, path)
    }

    pub fn post(&self, path: &str) -> Call<'_> {
        self.call(Method::POST, path)
    }

    pub fn call(&self, method: Method, path: &str) -> Call<'_> {
        Call {
            gateway: self,
            method,
            url: format!("http://{}{path}", self.address()),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// A call of the admin listener.
    pub fn admin(&self, path: &str) -> Call<'_> {
        let url = format!("http://{}{path}", self.sidecar.admin_address);
        Call { gateway: self, method: Method::GET, url, headers: HeaderMap::new(), body: Bytes::new() }
    }

    pub fn path_of(&self, file: &str) -> PathBuf {
        self.files.directory.path().join(file)
    }

    /// Replaces the policy as a careful tool does: written beside, renamed over.
    pub fn write_policy(&self, text: &str) {
        self.replace_file("policy.yaml", text);
    }

    pub fn replace_file(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let aside = self.path_of(&format!(".{name}.new"));
        std::fs::write(&aside, bytes).unwrap();
        std::fs::rename(aside, self.path_of(name)).unwrap();
    }

    /// Waits until the files' current content is in force or was rejected.
    pub async fn until_generation(&self, generation: u64) {
        until(|| self.sidecar.reloader.store().load().generation() >= generation).await;
    }

    /// The access records so far.
    pub fn lines_so_far(&self) -> Vec<Value> {
        self.lines.parsed()
    }

    /// The access records so far that satisfy `wanted`; waits for the first.
    pub async fn records(&self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let matching =
            || -> Vec<Value> { self.lines.parsed().into_iter().filter(|line| wanted(line)).collect() };
        until(|| !matching().is_empty()).await;
        matching()
    }
}

/// Waits for a condition that another task brings about.
pub async fn until(mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the condition comes about");
}

/// A request that is being put together.
pub struct Call<'g> {
    gateway: &'g TestGateway,
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Call<'_> {
    pub fn tenant(self, id: &str) -> Self {
        self.header("x-tenant-id", id)
    }

    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    pub fn host(mut self, host: &str) -> Self {
        self.headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().unwrap();
        self.headers.append(name, HeaderValue::from_str(value).unwrap());
        self
    }

    pub fn json(mut self, body: &Value) -> Self {
        self.body = body.to_string().into();
        self.header("content-type", "application/json")
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends it and reads the whole response; panics if there is none.
    pub async fn send(self) -> Reply {
        self.try_send().await.unwrap_or_else(|error| panic!("no response: {error}"))
    }

    /// Sends it and reads the whole response.
    pub async fn try_send(self) -> Result<Reply, String> {
        let mut request = Request::new(Full::new(self.body));
        *request.method_mut() = self.method;
        *request.uri_mut() = self.url.parse().unwrap();
        *request.headers_mut() = self.headers;
        let sending = async {
            let response =
                self.gateway.client.request(request).await.map_err(|error| format!("{error:?}"))?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| format!("{error:?}"))?.to_bytes();
            Ok(Reply { status: parts.status, headers: parts.headers, body })
        };
        tokio::time::timeout(PATIENCE, sending).await.map_err(|_| "no response in time".to_owned())?
    }
}

/// A response, read to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The code of a problem document (RFC 9457).
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text());
        let problem = self.json();
        assert_eq!(problem["status"], self.status());
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"));
        let kind = problem["type"].as_str().unwrap();
        kind.strip_prefix("urn:innkeeper:error:").unwrap().to_owned()
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn parsed(&self) -> Vec<Value> {
        let bytes = self.0.lock().unwrap();
        let text = std::str::from_utf8(&bytes).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
