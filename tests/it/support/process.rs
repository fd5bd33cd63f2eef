//! The `innkeeper` program as a process of its own, ended with the test.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use super::gateway::until;

/// A running `innkeeper serve`.
pub(crate) struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Process {
    /// Starts it with these arguments, as `command` has prepared it.
    pub(crate) fn start(mut command: Command, arguments: &[&str]) -> Self {
        command.args(arguments).env("RUST_BACKTRACE", "0").stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::default();
        gather(child.stdout.take().unwrap(), &log);
        gather(child.stderr.take().unwrap(), &log);
        Self { child, log }
    }

    pub(crate) fn command() -> Command {
        Command::new(env!("CARGO_BIN_EXE_innkeeper"))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the log says this.
    pub(crate) async fn says(&self, text: &str) {
        until(|| self.log().contains(text)).await;
    }

    /// The address that follows `before` in the log, once it is there.
    pub(crate) async fn address(&self, before: &str) -> SocketAddr {
        let found = || {
            let log = self.log();
            let line = log.lines().find(|line| line.contains(before))?;
            let address = line.split("address=").nth(1)?.split_whitespace().next()?;
            address.parse().ok()
        };
        until(|| found().is_some()).await;
        found().unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until(|| {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gather(output: impl Read + Send + 'static, log: &Arc<Mutex<String>>) {
    let log = Arc::clone(log);
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let mut log = log.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
}
