//! The files of a new project, carried by this binary.

use super::name::ProjectName;
use crate::cli::plugin::contract;
use crate::cli::plugin::language::Language;

/// The SDK for Rust, below `vendor`: somebody who has the binary alone can build with it.
const SDK: [(&str, &str); 5] = [
    ("Cargo.toml", include_str!("../../../../plugins/sdk/Cargo.toml")),
    ("src/decision.rs", include_str!("../../../../plugins/sdk/src/decision.rs")),
    ("src/lib.rs", include_str!("../../../../plugins/sdk/src/lib.rs")),
    ("src/request.rs", include_str!("../../../../plugins/sdk/src/request.rs")),
    ("src/table.rs", include_str!("../../../../plugins/sdk/src/table.rs")),
];

/// Files that a project has in every language.
const COMMON: [(&str, &str); 3] = [
    ("CASES.yaml", include_str!("../templates/CASES.yaml")),
    ("README.md", include_str!("../templates/README.md")),
    ("policy.yaml", include_str!("../templates/policy.yaml")),
];

/// Keys and their tenants, as the examples have them.
const KEYS: &str = "{ k-123: acme, k-456: globex }";

/// Every file with its path in the project.
pub(super) fn files(name: &ProjectName, language: Language) -> Vec<(String, String)> {
    let own: &[(&str, &str)] = match language {
        Language::Rust => &[
            ("Cargo.toml", include_str!("../templates/rust/Cargo.toml")),
            ("src/lib.rs", include_str!("../templates/rust/lib.rs")),
        ],
        Language::C => &[("plugin.c", include_str!("../templates/c/plugin.c"))],
        Language::Js => &[
            ("package.json", include_str!("../templates/js/package.json")),
            ("plugin.js", include_str!("../templates/js/plugin.js")),
        ],
        Language::Python => &[
            ("plugin.py", include_str!("../templates/python/plugin.py")),
            ("requirements.txt", include_str!("../templates/python/requirements.txt")),
        ],
    };
    let filled = |(path, text): &(&str, &str)| ((*path).to_owned(), fill(text, name, language));
    let mut files: Vec<(String, String)> = own.iter().chain(&COMMON).map(filled).collect();
    files.push((".gitignore".into(), ignored(language).into()));
    files.push((format!("{}/{}", contract::DIRECTORY, contract::FILE), contract::TEXT.into()));
    if language == Language::Rust {
        let vendored =
            |(path, text): &(&str, &str)| (format!("vendor/innkeeper-plugin/{path}"), (*text).to_owned());
        files.extend(SDK.iter().map(vendored));
    }
    files
}

/// What must be there before the first build, as a command.
pub(super) fn preparation(language: Language) -> Option<&'static str> {
    match language {
        Language::Rust => Some("rustup target add wasm32-unknown-unknown"),
        Language::C => Some("python3 -m venv .venv && .venv/bin/pip install ziglang"),
        Language::Js => None,
        Language::Python => Some("python3 -m venv .venv && .venv/bin/pip install -r requirements.txt"),
    }
}

fn fill(template: &str, name: &ProjectName, language: Language) -> String {
    template
        .replace("{{name}}", name.as_str())
        .replace("{{settings}}", &settings(language))
        .replace("{{table}}", &table(language))
        .replace("{{source}}", source(language))
        .replace("{{prepare}}", &prepare(language))
        .replace("{{files}}", described(language))
}

/// The plugin's part of the policy.
fn settings(language: Language) -> String {
    let table = table(language);
    match language {
        Language::Rust => format!("    {table}"),
        Language::C => format!("    {table}\n    capabilities: [kv]"),
        // A whole engine starts with each instance, and has to fit.
        Language::Js | Language::Python => {
            format!("    {table}\n    limits: {{ time: 250ms, memory: 64MiB }}\n    instances: reused")
        }
    }
}

/// C has no JSON to read `config` with, and looks keys up.
fn table(language: Language) -> String {
    match language {
        Language::C => format!("kv: {KEYS}"),
        _ => format!("config: {{ keys: {KEYS} }}"),
    }
}

fn source(language: Language) -> &'static str {
    match language {
        Language::Rust => "src/lib.rs",
        Language::C => "plugin.c",
        Language::Js => "plugin.js",
        Language::Python => "plugin.py",
    }
}

/// How the README leads to the first build.
fn prepare(language: Language) -> String {
    let needs = match language {
        Language::Rust => "Rust with a target for WebAssembly",
        Language::C => "a C compiler for WebAssembly, of which this is the smallest",
        Language::Js => {
            return "Building needs Node.js 20 or later; packages are installed by it.\n\n".into();
        }
        Language::Python => "componentize-py",
    };
    let command = preparation(language).unwrap_or_default();
    format!("Building needs {needs}:\n\n```sh\n{command}\n```\n\n")
}

fn described(language: Language) -> &'static str {
    match language {
        Language::Rust => {
            "| `src/lib.rs` | the rule, and its tests: `cargo test` needs no WebAssembly |\n\
             | `vendor/innkeeper-plugin` | the SDK; `cargo doc --open` explains it |\n"
        }
        Language::C => {
            "| `plugin.c` | the rule |\n\
             | `bindings` | the contract in C, written by each build; include `policy.h` |\n"
        }
        Language::Js => {
            "| `plugin.js` | the rule |\n\
             | `package.json` | what builds it |\n"
        }
        Language::Python => {
            "| `plugin.py` | the rule |\n\
             | `requirements.txt` | what builds it |\n"
        }
    }
}

fn ignored(language: Language) -> &'static str {
    match language {
        Language::Rust => "/target\n*.wasm\n*.wasm.sha256\n",
        Language::C => "/.venv\n/bindings\n*.wasm\n*.wasm.sha256\n",
        Language::Js => "/node_modules\n*.wasm\n*.wasm.sha256\n",
        Language::Python => "/.venv\n__pycache__\n*.wasm\n*.wasm.sha256\n",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_sdk_is_carried_whole() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/sdk/src");
        let mut there: Vec<String> = sources
            .read_dir()
            .unwrap()
            .map(|entry| format!("src/{}", entry.unwrap().file_name().to_string_lossy()))
            .collect();
        there.sort();
        let carried: Vec<&str> =
            SDK.iter().map(|(path, _)| *path).filter(|path| path.starts_with("src")).collect();
        assert_eq!(carried, there);
        assert!(!SDK[0].1.contains("workspace"), "the SDK's manifest stands alone");
    }
}
