//! Keeps the house in order: imports point down, files stay short, rooms know only what they may.
//!
//! A rule is a row of [`RULES`], with the smallest house that breaks it: a rule that could not fail
//! would not get past `every_rule_can_fail`.

#[path = "tidy/floors.rs"]
mod floors;
#[path = "tidy/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::path::Path;

use floors::{Floors, imports_point_down};
use source::{File, house};

/// Lines of code, without tests, comments and blank lines, past which a file is surely two ideas.
/// The target is 400.
const LONGEST_FILE: usize = 500;

/// Rooms, paths that their code must not name, and why.
const ABSENT: &[(&str, &[&str], &str)] = &[
    // A status is a number in a refusal; a request or a response would be HTTP.
    (
        "src/sql",
        &[
            "http::{",
            "http::header",
            "http::HeaderMap",
            "http::Method",
            "http::Request",
            "http::Response",
            "http::Uri",
            "http_body",
            "http_body_util",
            "hyper",
            "hyper_util",
        ],
        "the SQL room knows no HTTP",
    ),
    (
        "src/policy",
        &["std::fs", "std::net::TcpStream", "tokio", "sqlx", "hyper", "wasmtime"],
        "the policy does no I/O",
    ),
    ("src/plugin", &["sqlx", "hyper"], "a plugin's host reaches neither database nor network"),
    ("src/forward", &["sqlx", "wasmtime"], "forwarding knows neither SQL nor plugins"),
    ("src/directory", &["hyper", "wasmtime"], "the directory knows neither HTTP bodies nor plugins"),
];

struct Rule {
    name: &'static str,
    check: fn(&[File]) -> Vec<String>,
    /// Files of a house that breaks the rule in each way that matters.
    bad: &'static [(&'static str, &'static str)],
    /// All that the rule says of it.
    finds: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule {
        name: "imports point down",
        check: imports_point_down,
        bad: &[
            (
                "src/lib.rs",
                "pub mod lost;\n// Floor 0: names.\npub mod body;\npub mod tenant;\n\
                 // Floor 2: siblings.\npub mod plugin;\npub mod sql;\n// Floor 4: the walk.\npub mod gateway;\n",
            ),
            ("src/body.rs", "use crate::tenant::TenantId;\n"),
            ("src/tenant.rs", "// crate::gateway in a comment is no import\nuse crate::body::Body;\n"),
            ("src/sql/run.rs", "use crate::{\n    tenant,\n    gateway::{Walk, Step},\n};\n"),
            ("src/sql/mod.rs", "use crate::plugin::Host;\nfn f() { super::gateway::walk() }\n"),
            ("src/plugin.rs", "use crate::Gateway;\n#[cfg(test)]\nmod tests { use crate::gateway; }\n"),
            ("src/stray.rs", "//! Nobody declares this file.\n"),
        ],
        finds: &[
            "src/lib.rs:1: `lost` stands on no floor: put it under a `// Floor N` comment",
            "src/sql/run.rs:1: imports floor 4 (`gateway`) from floor 2 (`sql`)",
            "src/sql/mod.rs:1: imports its sibling `plugin`: floor 2 says that they do not know each other",
            "src/sql/mod.rs:2: imports floor 4 (`gateway`) from floor 2 (`sql`)",
            "src/plugin.rs:1: imports `Gateway` from the crate's root, floor 5: name its own module",
            "src/stray.rs:1: `stray` stands on no floor: put it under a `// Floor N` comment",
            "src/lib.rs:1: `body` imports itself in a circle",
            "src/lib.rs:1: `tenant` imports itself in a circle",
        ],
    },
    Rule {
        name: "files stay short",
        check: files_stay_short,
        bad: &[("src/long.rs", LONG), ("tests/it/long.rs", LONG)],
        finds: &["src/long.rs: 501 lines of code, more than 500: it is usually two ideas"],
    },
    Rule {
        name: "files say what they are for",
        check: files_say_what_they_are_for,
        bad: &[("tests/it/some.rs", "use std::fs;\n"), ("src/good.rs", "//! Says it.\n")],
        finds: &["tests/it/some.rs:1: must open with a `//!` sentence that says what the file is for"],
    },
    Rule {
        name: "nothing is left open",
        check: nothing_is_left_open,
        bad: &[
            ("src/open.rs", "fn f() {\n    todo!()\n}\nfn g() { h().unwrap(); }\n"),
            (
                "src/fine.rs",
                "const A: &str = \".unwrap() todo!\";\n#[cfg(test)]\nmod t { fn f() { x.unwrap() } }\n",
            ),
            ("tests/it/fine.rs", "fn f() { x.unwrap() }\n"),
        ],
        finds: &[
            "src/open.rs:2: `todo!` is an open end",
            "src/open.rs:4: `.unwrap()` outside tests: use `?`, or `expect` with the invariant",
        ],
    },
    Rule {
        name: "rooms know only what they may",
        check: rooms_know_only_what_they_may,
        bad: &[
            ("src/sql/run.rs", "use http::StatusCode;\nuse http::Request;\nlet x = hyper::Error;\n"),
            ("src/sql/fine.rs", "let http::RequestLike = my_hyper; // http::Request\n"),
            ("src/policy/load.rs", "\nlet text = std::fs::read_to_string(path)?;\n"),
        ],
        finds: &[
            "src/sql/run.rs:2: says `http::Request`: the SQL room knows no HTTP",
            "src/sql/run.rs:3: says `hyper`: the SQL room knows no HTTP",
            "src/policy/load.rs:2: says `std::fs`: the policy does no I/O",
        ],
    },
    Rule {
        name: "one hand stores a snapshot",
        check: one_hand_stores_a_snapshot,
        bad: &[
            ("src/snapshot/store.rs", "use arc_swap::ArcSwap;\nfn publish(&self) {}\n"),
            ("src/reload.rs", "self.store.publish(next);\n"),
            ("src/gateway.rs", "use arc_swap::ArcSwap;\nself.snapshots.publish(snapshot);\n"),
        ],
        finds: &[
            "src/gateway.rs:1: says `ArcSwap`: what can be swapped is kept in src/snapshot/store.rs",
            "src/gateway.rs:2: says `.publish(`: only the reloader stores a snapshot",
        ],
    },
    Rule {
        name: "texts travel",
        check: texts_travel,
        bad: &[
            ("docs/a.md", concat!("see /wo", "rk/main\n")),
            ("run.sh", concat!("\ncurl https://registry.npm", "js.org/x\n")),
        ],
        finds: &[
            concat!("docs/a.md:1: names `/wo", "rk/`, which no other machine has to have"),
            concat!("run.sh:2: names `registry.npm", "js.org`, which no other machine has to have"),
        ],
    },
    Rule {
        name: "links lead somewhere",
        check: links_lead_somewhere,
        bad: &[
            ("docs/a.md", "[b](b.md) [c](../c.md#part) [d](https://example.com) [e](#here)\n"),
            ("docs/b.md", "see [gone](gone.md) and [up](../../up.md)\n"),
            ("c.md", "[folder](docs)\n"),
            ("src/x.rs", "/// As `docs/b.md` says, and `docs/lost.md` does not.\n"),
        ],
        finds: &[
            "docs/b.md:1: links to `gone.md`, which is not there",
            "docs/b.md:1: links to `../../up.md`, which is not there",
            "src/x.rs:1: links to `docs/lost.md`, which is not there",
        ],
    },
    Rule {
        name: "the map is whole",
        check: the_map_is_whole,
        bad: &[
            ("src/lib.rs", "// Floor 0\npub mod tenant;\npub mod error;\n"),
            (
                "src/error.rs",
                "fn f() { match self { A => (\"tenant-lost\", S::X), B => (\"known\", S::X) } }\n",
            ),
            ("docs/architecture.md", "`tenant` is here\n"),
            ("README.md", "| `known` | 400 |\n"),
        ],
        finds: &[
            "docs/architecture.md: does not name the module `error`",
            "README.md: its error table lacks `tenant-lost`",
        ],
    },
];

/// One line more than a file may have.
const LONG: &str = {
    const TEXT: [u8; 2 * (LONGEST_FILE + 1)] = {
        let mut text = [b';'; 2 * (LONGEST_FILE + 1)];
        let mut line = 0;
        while line <= LONGEST_FILE {
            text[2 * line + 1] = b'\n';
            line += 1;
        }
        text
    };
    match std::str::from_utf8(&TEXT) {
        Ok(text) => text,
        Err(_) => panic!("ASCII is UTF-8"),
    }
};

#[test]
fn the_house_is_tidy() {
    let house = house();
    let findings: Vec<String> = RULES
        .iter()
        .flat_map(|rule| (rule.check)(&house).into_iter().map(|finding| format!("{finding} ({})", rule.name)))
        .collect();
    assert!(findings.is_empty(), "the house is untidy:\n{}", findings.join("\n"));
}

#[test]
fn every_rule_can_fail() {
    for rule in RULES {
        let house: Vec<File> = rule.bad.iter().map(|(path, text)| File::new(path, text)).collect();
        assert!(!rule.finds.is_empty(), "{}", rule.name);
        assert_eq!((rule.check)(&house), rule.finds, "{}", rule.name);
    }
}

fn files_stay_short(house: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in house.iter().filter(|file| file.is_product()) {
        let lines = file.shipped.lines().filter(|line| !line.trim().is_empty()).count();
        if lines > LONGEST_FILE {
            findings.push(format!(
                "{}: {lines} lines of code, more than {LONGEST_FILE}: it is usually two ideas",
                file.path
            ));
        }
    }
    findings
}

fn files_say_what_they_are_for(house: &[File]) -> Vec<String> {
    house
        .iter()
        .filter(|file| file.is_rust() && !file.text.starts_with("//! "))
        .map(|file| {
            format!("{}:1: must open with a `//!` sentence that says what the file is for", file.path)
        })
        .collect()
}

fn nothing_is_left_open(house: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in house.iter().filter(|file| file.is_rust()) {
        for (index, line) in file.code.lines().enumerate() {
            for word in ["todo!", "unimplemented!", "dbg!"] {
                if line.contains(word) {
                    findings.push(format!("{}:{}: `{word}` is an open end", file.path, index + 1));
                }
            }
        }
        let shipped = if file.is_product() { file.shipped.as_str() } else { "" };
        for (index, line) in shipped.lines().enumerate() {
            if line.contains(".unwrap()") {
                findings.push(format!(
                    "{}:{}: `.unwrap()` outside tests: use `?`, or `expect` with the invariant",
                    file.path,
                    index + 1
                ));
            }
        }
    }
    findings
}

fn rooms_know_only_what_they_may(house: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in house.iter().filter(|file| file.is_rust()) {
        for (_, words, why) in ABSENT.iter().filter(|(room, ..)| file.path.starts_with(room)) {
            for (index, line) in file.shipped.lines().enumerate() {
                for word in words.iter().filter(|word| names(line, word)) {
                    findings.push(format!("{}:{}: says `{word}`: {why}", file.path, index + 1));
                }
            }
        }
    }
    findings
}

/// A request keeps its snapshot because nobody can swap what it holds, and nobody but the reloader
/// can put another one in force.
fn one_hand_stores_a_snapshot(house: &[File]) -> Vec<String> {
    let hands = [
        ("ArcSwap", "src/snapshot/store.rs", "what can be swapped is kept in src/snapshot/store.rs"),
        (".publish(", "src/reload", "only the reloader stores a snapshot"),
    ];
    let mut findings = Vec::new();
    for file in house.iter().filter(|file| file.is_product()) {
        for (word, _, why) in hands.iter().filter(|(_, hand, _)| !file.path.starts_with(hand)) {
            for (index, _) in file.shipped.lines().enumerate().filter(|(_, line)| line.contains(word)) {
                findings.push(format!("{}:{}: says `{word}`: {why}", file.path, index + 1));
            }
        }
    }
    findings
}

/// Whether `line` has a path that starts with `path`.
fn names(line: &str, path: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(path).any(|(start, _)| {
        let before = line[..start].chars().next_back().unwrap_or(' ');
        let ends = !path.ends_with(in_word) || !line[start + path.len()..].starts_with(in_word);
        !in_word(before) && before != ':' && ends
    })
}

fn texts_travel(house: &[File]) -> Vec<String> {
    // Written in halves, so that this file does not name them either.
    let places = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("index.cra", "tes.io"),
        concat!("static.cra", "tes.io"),
        concat!("static.rust", "-lang.org"),
        concat!("registry.npm", "js.org"),
        concat!("py", "pi.org"),
        concat!("proxy.gol", "ang.org"),
        concat!("deb.deb", "ian.org"),
    ];
    let mut findings = Vec::new();
    // A lock file is cargo's own text and names its registry as cargo wants it.
    for file in house.iter().filter(|file| !file.path.ends_with("Cargo.lock")) {
        for (index, line) in file.text.lines().enumerate() {
            for place in places.iter().filter(|place| line.contains(**place)) {
                findings.push(format!(
                    "{}:{}: names `{place}`, which no other machine has to have",
                    file.path,
                    index + 1
                ));
            }
        }
    }
    findings
}

fn links_lead_somewhere(house: &[File]) -> Vec<String> {
    let mut known: BTreeSet<String> = BTreeSet::new();
    for file in house {
        known.extend(Path::new(&file.path).ancestors().map(|path| path.to_string_lossy().into_owned()));
    }
    let mut findings = Vec::new();
    for file in house {
        for (index, line) in file.text.lines().enumerate() {
            let lost = if file.path.ends_with(".md") {
                markdown_links(line).filter(|link| !leads(&file.path, link, &known)).collect()
            } else if file.is_rust() && line.trim_start().starts_with("//") {
                // A comment names a document from the root, in backticks.
                line.split('`').filter(|word| word.starts_with("docs/") && !known.contains(*word)).collect()
            } else {
                Vec::new()
            };
            findings.extend(
                lost.iter().map(|link| {
                    format!("{}:{}: links to `{link}`, which is not there", file.path, index + 1)
                }),
            );
        }
    }
    findings
}

/// The targets of the links in a line that lead to a file, without the part that follows `#`.
fn markdown_links(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("](")
        .filter_map(|(start, _)| line[start + 2..].split(')').next())
        .filter_map(|link| link.split('#').next())
        .filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"))
}

fn leads(from: &str, link: &str, known: &BTreeSet<String>) -> bool {
    follow(from, link).is_some_and(|path| known.contains(&path))
}

/// Where a relative link in `from` leads, or `None` where it leaves the repository.
fn follow(from: &str, link: &str) -> Option<String> {
    let mut steps: Vec<&str> = from.split('/').collect();
    steps.pop();
    for step in link.split('/') {
        match step {
            "" | "." => {}
            ".." => drop(steps.pop()?),
            name => steps.push(name),
        }
    }
    Some(steps.join("/"))
}

/// What people read names every module and every error code.
fn the_map_is_whole(house: &[File]) -> Vec<String> {
    let text = |path: &str| house.iter().find(|file| file.path == path).map_or("", |file| file.text.as_str());
    let mut findings = Vec::new();
    for module in Floors::read(house).of.keys() {
        if !text("docs/architecture.md").contains(&format!("`{module}`")) {
            findings.push(format!("docs/architecture.md: does not name the module `{module}`"));
        }
    }
    // A code is a literal beside its status: `"tenant-missing", S::BAD_REQUEST`.
    let parts: Vec<&str> = text("src/error.rs").split('"').collect();
    for pair in parts.windows(2) {
        let is_code = pair[1].trim_start_matches(',').trim_start().starts_with("S::");
        if is_code && !text("README.md").contains(&format!("`{}`", pair[0])) {
            findings.push(format!("README.md: its error table lacks `{}`", pair[0]));
        }
    }
    findings
}
