//! The demo, through the real binary: what it prints works, it judges itself, and it cleans up.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn innkeeper() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_innkeeper"));
    command.stdin(Stdio::null());
    command
}

#[test]
fn the_check_sees_every_answer_right_while_policy_and_plugin_are_swapped() {
    let output = innkeeper()
        .args(["demo", "--check", "--requests", "400", "--duration", "5m", "--format", "json"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let count = |name: &str| report[name].as_u64().unwrap();
    assert_eq!((count("wrong_tenant"), count("failures")), (0, 0), "{text}");
    assert!(count("requests") >= 400, "{text}");
    for swap in ["policy_swaps", "plugin_swaps", "refused_policies"] {
        assert!(count(swap) > 0, "{text}");
    }
    let kinds = report["kinds"].as_array().unwrap();
    assert!(kinds.iter().all(|kind| kind["requests"].as_u64() > Some(0)), "{text}");
}

#[test]
fn what_the_demo_prints_works_and_an_interrupt_leaves_nothing_behind() {
    let mut demo = Demo::start();
    assert!(demo.curls.len() >= 10, "{:?}", demo.curls);
    for (status, curl) in &demo.curls {
        let answer = send(curl);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{curl}\n{answer}");
        if !status.starts_with('2') {
            assert!(answer.contains("application/problem+json"), "{curl}\n{answer}");
        }
    }
    let forged =
        demo.curls.iter().find(|(_, curl)| curl.contains("acme.demo.test") && curl.contains("globex"));
    let answer = send(&forged.unwrap().1);
    assert!(answer.contains(r#""x-tenant-id":["acme"]"#) && !answer.contains("globex"), "{answer}");

    assert!(Path::new(&demo.policy).is_file(), "{}", demo.policy);
    demo.interrupt();
    assert!(demo.process.wait().unwrap().success());
    assert!(!Path::new(&demo.policy).exists(), "{}", demo.policy);
    assert!(TcpStream::connect(&demo.postgres).is_err(), "PostgreSQL still listens at {}", demo.postgres);
}

/// A demo that runs, and what it printed.
struct Demo {
    process: Child,
    curls: Vec<(String, String)>,
    policy: String,
    postgres: String,
    /// What follows on its standard output, which stays open.
    _records: Box<dyn Iterator<Item = String>>,
}

impl Demo {
    fn start() -> Self {
        let mut process = innkeeper()
            .args(["demo", "--port", "0", "--admin-port", "0", "--log", "error"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut after = |word: &str| -> String {
            let line =
                lines.find(|line| line.starts_with(word)).expect("the demo prints where its parts are");
            line[word.len()..].trim().to_owned()
        };
        let policy = after("policy").split_whitespace().next().unwrap().to_owned();
        let url = after("PostgreSQL");
        let postgres = url.split_once('@').unwrap().1.split('/').next().unwrap().to_owned();
        let mut curls = Vec::new();
        let mut status = None;
        for line in lines.by_ref().take_while(|line| !line.starts_with("Ctrl-C")) {
            if let Some((number, _)) = line.strip_prefix("# ").and_then(|rest| rest.split_once(':')) {
                status = Some(number.to_owned());
            } else if line.starts_with("curl ") {
                curls.push((status.take().expect("a status stands above each request"), line));
            }
        }
        Self { process, curls, policy, postgres, _records: Box::new(lines) }
    }

    fn interrupt(&self) {
        let sent = Command::new("kill").args(["-INT", &self.process.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // A test that failed half-way must not leave a demo running.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Does what a `curl` line of the demo does, as written: its URL and its headers.
fn send(curl: &str) -> String {
    let mut quoted = curl.split('\'').skip(1).step_by(2);
    let url = quoted.next().expect("the URL is quoted").strip_prefix("http://").unwrap();
    let (authority, path) = url.split_once('/').unwrap();
    let mut request = format!("GET /{path} HTTP/1.1\r\nConnection: close\r\n");
    let mut host = authority;
    for header in quoted {
        match header.strip_prefix("Host: ") {
            Some(name) => host = name,
            None => request.push_str(&format!("{header}\r\n")),
        }
    }
    request.push_str(&format!("Host: {host}\r\n\r\n"));
    let mut stream = TcpStream::connect(authority).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
