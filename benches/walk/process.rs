//! A proxy in a process of its own, and what its CPU time is read with.

use std::future::Future;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Clock ticks a second in `/proc`: fixed in the kernel's interface with user space.
const TICKS_PER_SECOND: f64 = 100.0;

/// A proxy in a process of its own, so that its CPU time is its own.
pub(crate) struct Proxy {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Proxy {
    /// Runs this program again, with `mode` and what is behind it as its arguments.
    pub(crate) fn start(mode: &str, behind: &str) -> Self {
        let program = std::env::current_exe().expect("it runs");
        let mut command = Command::new(program);
        command.args([mode, behind]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it can be run again");
        let mut line = String::new();
        let output = child.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("it says its address");
        Self { child, address: line.trim().parse().expect("an address") }
    }

    /// Runs another program that will listen at `address`.
    #[allow(dead_code, reason = "not every benchmark has one")]
    pub(crate) fn spawn(mut command: Command, address: SocketAddr) -> std::io::Result<Self> {
        Ok(Self { child: command.spawn()?, address })
    }

    /// Waits until it takes connections, for half a minute.
    #[allow(dead_code, reason = "not every benchmark has one")]
    pub(crate) async fn listens(&self) -> bool {
        for _ in 0..300 {
            if tokio::net::TcpStream::connect(self.address).await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        false
    }

    /// Its process.
    #[allow(dead_code, reason = "not every benchmark asks")]
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// User and system time so far, seconds, its children's with it.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        family(self.child.id()).into_iter().map(cpu_seconds).sum()
    }

    /// The most memory that was resident so far, bytes, its children's with it.
    #[allow(dead_code, reason = "not every benchmark asks")]
    pub(crate) fn peak_memory(&self) -> usize {
        family(self.child.id()).into_iter().map(peak_memory).sum()
    }
}

/// A process and its children, and theirs.
fn family(process: u32) -> Vec<u32> {
    let mut found = vec![process];
    let mut next = 0;
    while let Some(process) = found.get(next) {
        let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
        found.extend(
            children.unwrap_or_default().split_whitespace().map(|id| id.parse::<u32>().expect("an id")),
        );
        next += 1;
    }
    found
}

fn cpu_seconds(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs, on Linux");
    // The name, in parentheses, may contain spaces; user and system time are fields 14 and 15.
    let fields = stat.rsplit_once(')').expect("a name").1;
    let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<f64>().expect("ticks"));
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

fn peak_memory(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs, on Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a process has memory");
    let kilobytes: usize =
        line.trim().trim_end_matches(" kB").parse().expect("the kernel counts in kilobytes");
    kilobytes << 10
}

/// What a core of the machine is used for: a proxy that shares its core with the load is measured by
/// its luck.
#[allow(dead_code, reason = "not every benchmark pins")]
#[derive(Clone, Copy)]
pub(crate) enum Core {
    Proxy,
    Load,
}

impl Core {
    /// Moves a process and all its threads there, where the machine has a core for each.
    #[allow(dead_code, reason = "not every benchmark pins")]
    pub(crate) fn take(self, process: u32) {
        let core = match self {
            Self::Proxy => "0",
            Self::Load => "1",
        };
        for process in family(process) {
            let mut pin = Command::new("taskset");
            let pinned =
                pin.args(["-a", "-c", "-p", core, &process.to_string()]).stdout(Stdio::null()).status();
            assert!(pinned.is_ok_and(|status| status.success()), "`taskset` pins processes, on two cores");
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What one side's requests cost, in each round.
pub(crate) struct Costs<T> {
    /// Processor time of a request, µs, sorted.
    pub(crate) cpu: Vec<f64>,
    /// What driving it came to.
    pub(crate) outcomes: Vec<T>,
}

/// Drives each of `sides` with `requests` in each of `rounds`, after a tenth of them to warm up. They
/// take turns at being first: whoever comes second finds another machine.
pub(crate) async fn in_turns<F: Future>(
    sides: &[&Proxy],
    (rounds, requests): (usize, usize),
    drive: impl Fn(usize, usize) -> F,
) -> Vec<Costs<F::Output>> {
    for index in 0..sides.len() {
        drive(index, requests / 10).await;
    }
    let mut costs: Vec<_> = sides.iter().map(|_| Costs { cpu: Vec::new(), outcomes: Vec::new() }).collect();
    for round in 0..rounds {
        for turn in 0..sides.len() {
            let index = (round + turn) % sides.len();
            let before = sides[index].cpu_seconds();
            costs[index].outcomes.push(drive(index, requests).await);
            costs[index].cpu.push((sides[index].cpu_seconds() - before) * 1e6 / requests as f64);
        }
    }
    for costs in &mut costs {
        costs.cpu.sort_by(f64::total_cmp);
    }
    costs
}

/// Prints what one side's requests cost.
#[allow(dead_code, reason = "not every benchmark prints the same")]
pub(crate) fn report<T>(name: &str, costs: &Costs<T>) {
    let (least, most, rounds) = (costs.cpu[0], costs.cpu[costs.cpu.len() - 1], costs.cpu.len());
    let cpu = median(&costs.cpu);
    println!("{name:<24} {cpu:>6.1} µs of CPU a request (median of {rounds}; {least:.1} to {most:.1})");
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

/// An address that nobody listens on at the moment.
#[allow(dead_code, reason = "not every benchmark starts other programs")]
pub(crate) fn free_address() -> SocketAddr {
    let probe = std::net::TcpListener::bind("127.0.0.1:0");
    probe.and_then(|probe| probe.local_addr()).expect("a free port")
}

/// A number from the environment.
pub(crate) fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
