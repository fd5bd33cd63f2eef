//! `innkeeper plugin record`: has a running gateway record what a plugin decides, and keeps the cases.

use std::error::Error as _;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::cli::serve::stop_signal;
use crate::cli::{fail, print};

/// How often it is asked how far the recording is.
const PAUSE: Duration = Duration::from_millis(300);

/// A recording ends at a mebibyte of cases; its head is small.
const MAX_ANSWER_BYTES: usize = 2 << 20;

/// Record what a plugin decides on live traffic, as cases for `innkeeper plugin test`.
#[derive(Debug, Clone, clap::Args)]
pub struct RecordArgs {
    /// The plugin's name in the policy that is served
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The gateway's admin listener
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    pub admin: String,
    /// Different cases to record
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub count: usize,
    /// Record the values of this header or query field, though its name says that they are secret;
    /// `claims` for the claims of a token; repeatable
    #[arg(long, value_name = "HEADER")]
    pub keep: Vec<String>,
    /// File to write [default: NAME-cases.yaml]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Why nothing was recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file to write is there already.
    #[error("{} is there already: name another file with `--output`", .0.display())]
    Exists(PathBuf),
    /// The gateway cannot be reached.
    #[error("no gateway answers at {admin}: {cause}; `--admin` names its admin listener")]
    Unreachable {
        /// Where it was looked for.
        admin: String,
        /// What went wrong.
        cause: String,
    },
    /// The gateway refuses.
    #[error("{0}")]
    Refused(String),
    /// No request came that could be made a case of.
    #[error("nothing was recorded: no request asked the plugin `{0}`")]
    Nothing(String),
    /// The file cannot be written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// What was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The file with the cases.
    pub path: PathBuf,
    /// How many there are, as in `12/100`.
    pub cases: String,
    /// Why it ended.
    pub state: String,
}

/// Runs the command; a signal to stop ends the recording with what there is.
pub async fn run(args: &RecordArgs) -> ExitCode {
    match record(args, stop_signal()).await {
        Ok(Recorded { path, cases, state }) => {
            print(&format!("{}: {cases} cases, {state}", path.display()));
            ExitCode::SUCCESS
        }
        Err(error) => fail(error),
    }
}

/// Records until the gateway has enough, or until `stop`, and writes the file.
///
/// # Errors
/// When the gateway cannot be reached or refuses, nothing comes, or the file cannot be written.
pub async fn record(args: &RecordArgs, stop: impl Future<Output = ()>) -> Result<Recorded, RecordError> {
    let path = args.output.clone().unwrap_or_else(|| format!("{}-cases.yaml", args.name).into());
    if path.exists() {
        return Err(RecordError::Exists(path));
    }
    let gateway = Gateway::new(args);
    let keep = utf8_percent_encode(&args.keep.join(","), NON_ALPHANUMERIC).to_string();
    gateway.call(Method::POST, &format!("?count={}&keep={keep}", args.count)).await?;
    let progress = Progress::new();
    let mut stop = std::pin::pin!(stop);
    let answer = loop {
        let stopped = tokio::select! {
            () = tokio::time::sleep(PAUSE) => false,
            () = stop.as_mut() => true,
        };
        let answer = gateway.call(Method::GET, "").await?;
        progress.show(&answer.cases);
        if stopped || answer.state != "recording" {
            break answer;
        }
    };
    progress.end();
    gateway.call(Method::DELETE, "").await?;
    if answer.cases.starts_with("0/") {
        return Err(RecordError::Nothing(args.name.clone()));
    }
    write_new(&path, &answer.text)?;
    let state = if answer.state == "recording" { "stopped".into() } else { answer.state };
    Ok(Recorded { path, cases: answer.cases, state })
}

/// Another program may have written the file in the meantime: it is not ours to replace.
fn write_new(path: &Path, text: &str) -> Result<(), RecordError> {
    let written = std::fs::File::create_new(path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
    written.map_err(|source| RecordError::File { path: path.to_owned(), source })
}

/// The recording of one plugin on a gateway's admin listener.
struct Gateway {
    client: Client<HttpConnector, Empty<Bytes>>,
    admin: String,
    path: String,
}

struct Answer {
    state: String,
    cases: String,
    text: String,
}

impl Gateway {
    fn new(args: &RecordArgs) -> Self {
        let admin = args.admin.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let name = utf8_percent_encode(&args.name, NON_ALPHANUMERIC);
        let path = format!("/plugins/{name}/recording");
        Self { client: Client::builder(TokioExecutor::new()).build_http(), admin, path }
    }

    async fn call(&self, method: Method, query: &str) -> Result<Answer, RecordError> {
        let unreachable = |cause: String| RecordError::Unreachable { admin: self.admin.clone(), cause };
        let uri: Uri = format!("http://{}{}{query}", self.admin, self.path)
            .parse()
            .map_err(|error| unreachable(format!("{error}")))?;
        let mut request = Request::new(Empty::new());
        (*request.method_mut(), *request.uri_mut()) = (method, uri);
        let response = self.client.request(request).await.map_err(|error| {
            unreachable(error.source().map_or_else(|| error.to_string(), ToString::to_string))
        })?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| unreachable(error.to_string()))?.to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        if !parts.status.is_success() {
            let problem: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let detail = problem["detail"].as_str().unwrap_or(text.trim());
            return Err(RecordError::Refused(detail.to_owned()));
        }
        Ok(Answer {
            state: value(&parts.headers, "x-recording-state"),
            cases: value(&parts.headers, "x-recording-cases"),
            text,
        })
    }
}

fn value(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
}

/// One line that is written over and over, where somebody is watching.
struct Progress {
    watched: bool,
}

#[expect(clippy::print_stderr, reason = "the progress of a command")]
impl Progress {
    fn new() -> Self {
        let watched = std::io::stderr().is_terminal();
        eprintln!("recording; Ctrl-C ends it with what there is");
        Self { watched }
    }

    fn show(&self, cases: &str) {
        if self.watched {
            eprint!("\r{cases} cases ");
        }
    }

    fn end(&self) {
        if self.watched {
            eprintln!();
        }
    }
}
