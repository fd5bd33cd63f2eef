//! `innkeeper check FILE…`: every mistake in every file, for people or as one JSON document.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::policy::{Diagnostics, Policy, Surroundings};

/// Arguments of `innkeeper check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Policy files to check, each by itself.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// How findings are shown.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// How findings are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// With snippets, for people.
    #[default]
    Human,
    /// One JSON document: `{"files": [{"file", "ok", "diagnostics"}]}`.
    Json,
}

/// One file after it was checked.
#[derive(Debug)]
pub struct Checked {
    /// The file.
    pub file: PathBuf,
    /// The policy, where it has no mistake; its inline tests are still to be run.
    pub policy: Option<Policy>,
    /// What was found. Failed tests are added here.
    pub diagnostics: Diagnostics,
}

impl Checked {
    /// Whether the file can be used.
    pub fn is_ok(&self) -> bool {
        !self.diagnostics.has_errors()
    }
}

/// Parses one file.
pub fn check(file: &Path, surroundings: &dyn Surroundings) -> Checked {
    let (policy, diagnostics) = match Policy::parse(file, surroundings) {
        Ok((policy, warnings)) => (Some(policy), warnings.into()),
        Err(diagnostics) => (None, diagnostics),
    };
    Checked { file: file.to_owned(), policy, diagnostics }
}

/// What was found in all files, as text that ends with a line break.
pub fn render(checked: &[Checked], format: Format, colours: bool) -> String {
    match format {
        Format::Human => checked.iter().map(|one| for_people(one, colours)).collect::<Vec<_>>().join("\n"),
        Format::Json => {
            let files = checked
                .iter()
                .map(|one| FileReport {
                    file: one.file.display().to_string(),
                    ok: one.is_ok(),
                    diagnostics: &one.diagnostics,
                })
                .collect();
            let json = serde_json::to_string_pretty(&CheckReport { files });
            json.expect("text and numbers always become JSON") + "\n"
        }
    }
}

#[derive(Serialize)]
struct CheckReport<'a> {
    files: Vec<FileReport<'a>>,
}

#[derive(Serialize)]
struct FileReport<'a> {
    file: String,
    ok: bool,
    diagnostics: &'a Diagnostics,
}

fn for_people(checked: &Checked, colours: bool) -> String {
    let mut text = checked.diagnostics.render(colours);
    if !text.is_empty() {
        text.push('\n');
    }
    let errors = checked.diagnostics.errors();
    let warnings = checked.diagnostics.len() - errors;
    let file = checked.file.display();
    let found = match (errors, warnings) {
        (0, 0) => String::new(),
        (0, _) => format!(", {}", counted(warnings, "warning")),
        (_, 0) => counted(errors, "error"),
        (_, _) => format!("{}, {}", counted(errors, "error"), counted(warnings, "warning")),
    };
    let verdict = match &checked.policy {
        Some(policy) if errors == 0 => format!(
            "ok ({}, {}{found})",
            counted(policy.routes.len(), "route"),
            counted(policy.tests.len(), "test")
        ),
        _ => found,
    };
    text + &format!("{file}: {verdict}\n")
}

fn counted(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    struct OneFile(&'static str);

    impl Surroundings for OneFile {
        fn read(&self, _: &Path) -> io::Result<String> {
            Ok(self.0.to_owned())
        }

        fn variable(&self, _: &str) -> Option<String> {
            None
        }
    }

    const GOOD: &str = "version: 1\nupstreams: { app: { endpoints: [ http://127.0.0.1:9000 ] } }\n\
        routes: [ { name: all, tenant: none, forward: app } ]\n";

    #[test]
    fn a_good_file_is_said_to_be_good() {
        let checked = [check("good.yaml".as_ref(), &OneFile(GOOD))];
        assert!(checked[0].is_ok());
        assert_eq!(render(&checked, Format::Human, false), "good.yaml: ok (1 route, 0 tests)\n");
    }

    #[test]
    fn scripts_read_one_document_for_all_files() {
        let checked = [
            check("good.yaml".as_ref(), &OneFile(GOOD)),
            check("bad.yaml".as_ref(), &OneFile("version: 2\n")),
        ];
        let report: serde_json::Value = serde_json::from_str(&render(&checked, Format::Json, false)).unwrap();
        assert_eq!(report["files"][0]["ok"], true);
        assert_eq!(report["files"][1]["ok"], false);
        let first = &report["files"][1]["diagnostics"][0];
        assert_eq!(first["severity"], "error");
        assert_eq!((first["line"].as_u64(), first["column"].as_u64()), (Some(1), Some(10)));
        assert_eq!(first["file"], "bad.yaml");
    }
}
