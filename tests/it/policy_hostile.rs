//! Policies that were written to do harm, or by nobody at all.

use std::fmt::Write as _;
use std::time::Duration;

use proptest::prelude::*;

use crate::policy::Desk;

/// Far more than any of these takes, far less than expanding a bomb would.
const PATIENCE: Duration = Duration::from_secs(20);

/// Processor time of this thread so far: what else a machine has to do makes it no longer.
fn worked() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap()
}

fn refused_quickly(text: &str) -> String {
    let start = worked();
    let diagnostics = Desk::with(text).diagnostics();
    let took = worked() - start;
    assert!(took < PATIENCE, "took {took:?}");
    assert!(diagnostics.contains("error:"), "accepted");
    // What is said of a huge document is small.
    assert!(diagnostics.len() < 100_000, "{} bytes of diagnostics", diagnostics.len());
    diagnostics
}

#[test]
fn an_alias_bomb_does_not_go_off() {
    let mut bomb = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..12 {
        let previous = format!("*a{}", level - 1);
        let line = vec![previous; 9].join(", ");
        let _ = writeln!(bomb, "a{level}: &a{level} [{line}]");
    }
    insta::assert_snapshot!(refused_quickly(&bomb));
}

#[test]
fn deep_nesting_does_not_exhaust_the_stack() {
    insta::assert_snapshot!(refused_quickly(&format!("version: {}", "[".repeat(100_000))));
    refused_quickly(&format!("version: {}1{}", "{a: ".repeat(5_000), "}".repeat(5_000)));
    let mut blocks = String::from("version: 1\n");
    for level in 0..2_000 {
        let _ = writeln!(blocks, "{}a:", " ".repeat(level));
    }
    refused_quickly(&blocks);
}

#[test]
fn a_huge_file_is_refused_before_it_is_read() {
    let huge = format!("version: 1\n# {}\n", "x".repeat(9 << 20));
    insta::assert_snapshot!(refused_quickly(&huge));
}

#[test]
fn very_many_items_are_refused() {
    refused_quickly(&format!("version: 1\nroutes: [{}]\n", "1,".repeat(310_000)));
}

#[test]
fn an_alias_of_itself_is_refused() {
    refused_quickly("a: &a [ *a ]\n");
    refused_quickly("a: &a { <<: *a }\n");
}

#[test]
fn many_mistakes_stay_readable() {
    let routes = "  - { name: x, tenant: nobody, forward: nowhere, colour: red }\n".repeat(5_000);
    refused_quickly(&format!("version: 1\nroutes:\n{routes}"));
}

#[test]
fn ten_thousand_tenants_are_read_in_good_time() {
    let mut text = String::from("version: 1\ntenants:\n  list:\n");
    for tenant in 0..10_000 {
        let _ = writeln!(text, "    - {{ id: tenant-{tenant}, schema: tenant_{tenant} }}");
    }
    let start = worked();
    let policy = Desk::with(&text).policy();
    assert!(policy.directory.is_some());
    let took = worked() - start;
    assert!(took < PATIENCE, "took {took:?}");
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC*") {
        let _ = Desk::with(&text).diagnostics();
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = Desk::with(&String::from_utf8_lossy(&bytes)).diagnostics();
    }

    /// Pieces of real policies in any order come much further into the parser than noise.
    #[test]
    fn no_shuffled_policy_makes_the_parser_panic(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..40)
    ) {
        let _ = Desk::with(&pieces.concat()).diagnostics();
    }
}

const PIECES: &[&str] = &[
    "version: 1\n",
    "routes:\n",
    "  - name: a\n",
    "    tenant: ",
    "{ header: X }\n",
    "none\n",
    "    forward: a\n",
    "upstreams:\n",
    "  a: { endpoints: [ http://h:1 ] }\n",
    "tenants:\n",
    "  list:\n",
    "    - { id: a, schema: a }\n",
    "    query: { database: a, sql: \"",
    "select $1",
    "\" }\n",
    "databases:\n",
    "  a: { url: ",
    "postgres://a:b@c/d",
    " }\n",
    "${A}",
    "${A:-b}",
    "$${",
    "{tenant}",
    "/t/",
    "&a ",
    "*a",
    "<<: ",
    "[",
    "]",
    "{",
    "}",
    ": ",
    "- ",
    "\n",
    "  ",
    "\"",
    "'",
    "#",
    "|\n",
    ">-\n",
    "~",
    "é",
    "\u{0}",
    "\t",
    "!!str ",
    "--- ",
    "...\n",
    "? ",
    "include: [ policy.yaml ]\n",
    "    match: { path: ",
    "\"/a/{b}\"",
    ", host: \"*.a\" }\n",
    "tests:\n",
    "    expect: { tenant: none }\n",
];
