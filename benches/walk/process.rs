//! A proxy in a process of its own, and what its CPU time is read with.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// Clock ticks a second in `/proc`: fixed in the kernel's interface with user space.
const TICKS_PER_SECOND: f64 = 100.0;

/// A proxy in a process of its own, so that its CPU time is its own.
pub(crate) struct Proxy {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Proxy {
    /// Runs this program again, with `mode` and the upstream's address as its arguments.
    pub(crate) fn start(mode: &str, upstream: SocketAddr) -> Self {
        let program = std::env::current_exe().expect("it runs");
        let mut command = Command::new(program);
        command.args([mode, &upstream.to_string()]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it can be run again");
        let mut line = String::new();
        let output = child.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("it says its address");
        Self { child, address: line.trim().parse().expect("an address") }
    }

    /// User and system time so far, seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("Linux");
        // The name, in parentheses, may contain spaces; user and system time are fields 14 and 15.
        let fields = stat.rsplit_once(')').expect("a name").1;
        let ticks =
            fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<f64>().expect("ticks"));
        ticks.sum::<f64>() / TICKS_PER_SECOND
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The middle of values that are sorted.
pub(crate) fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

/// A runtime as the gateway has it.
pub(crate) fn runtime(workers: usize) -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Tells the parent where we listen.
pub(crate) fn say(address: SocketAddr) {
    println!("{address}");
    std::io::stdout().flush().expect("somebody listens");
}

/// A number from the environment.
pub(crate) fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
