//! `innkeeper check FILE…`: every mistake in every file, for people or as one JSON document.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::{OutputFormat, fail, print};
use crate::plugin::{HostSettings, PluginHost};
use crate::policy::{Diagnostic, Diagnostics, Policy, Surroundings};
use crate::snapshot::{BuildError, Builder, Snapshot};
use crate::surroundings::ProcessSurroundings;
use crate::telemetry::Metrics;

/// Arguments of `innkeeper check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Policy files to check, each by itself.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// How findings are shown.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: OutputFormat,
}

/// One file after it was checked.
#[derive(Debug)]
pub struct Checked {
    /// The file.
    pub file: PathBuf,
    /// Routes and tests of a policy that parsed.
    pub size: Option<Size>,
    /// What was found, failed tests among it.
    pub diagnostics: Diagnostics,
}

/// How much there is to a policy.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Its routes.
    pub routes: usize,
    /// Its inline tests.
    pub tests: usize,
}

impl Checked {
    /// Whether the file can be used.
    pub fn is_ok(&self) -> bool {
        !self.diagnostics.has_errors()
    }
}

/// Checks every file as `serve` would before it serves: parsed, its plugins loaded, its tests run.
/// Databases and upstreams are not contacted.
pub async fn run(args: &Args) -> ExitCode {
    let host = match PluginHost::new(HostSettings::default()) {
        Ok(host) => host,
        Err(error) => return fail(error),
    };
    let builder = Builder::new(host, Metrics::new());
    let mut checked = Vec::with_capacity(args.files.len());
    for file in &args.files {
        checked.push(check(file, &ProcessSurroundings, Some(&builder)).await);
    }
    print(&render(&checked, args.format, io::stdout().is_terminal()));
    if checked.iter().all(Checked::is_ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Checks one file; without a builder, only what it says.
pub async fn check(file: &Path, surroundings: &dyn Surroundings, builder: Option<&Builder>) -> Checked {
    let (policy, warnings) = match Policy::parse(file, surroundings) {
        Ok(parsed) => parsed,
        Err(diagnostics) => return Checked { file: file.to_owned(), size: None, diagnostics },
    };
    let size = Some(Size { routes: policy.routes.len(), tests: policy.tests.len() });
    let mut diagnostics: Vec<Diagnostic> = warnings;
    if let Some(builder) = builder {
        match builder.build(policy, None).await {
            Ok(built) => diagnostics.extend(candidates(builder, &built.snapshot).await),
            Err(BuildError(findings)) => diagnostics.extend(findings),
        }
    }
    Checked { file: file.to_owned(), size, diagnostics: diagnostics.into() }
}

/// Warns of candidates that could not be tried. They keep nothing from serving.
async fn candidates(builder: &Builder, snapshot: &Snapshot) -> Vec<Diagnostic> {
    let places = &snapshot.policy().places.plugins;
    let unfit = builder.unfit_candidates(snapshot).await.into_iter();
    unfit
        .map(|(plugin, why)| {
            let at = places.get(&plugin).expect("each plugin has a path").clone();
            Diagnostic::warning(at, format!("the candidate in `shadow` of the plugin `{plugin}` {why}"))
        })
        .collect()
}

/// What was found in all files, as text that ends with a line break.
pub fn render(checked: &[Checked], format: OutputFormat, colours: bool) -> String {
    match format {
        OutputFormat::Human => checked.iter().map(|one| for_people(one, colours)).collect(),
        OutputFormat::Json => {
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
    let verdict = match &checked.size {
        Some(size) if errors == 0 => {
            format!("ok ({}, {}{found})", counted(size.routes, "route"), counted(size.tests, "test"))
        }
        _ => found,
    };
    text + &format!("{file}: {verdict}\n")
}

fn counted(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
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

    #[tokio::test]
    async fn a_good_file_is_said_to_be_good() {
        let checked = [check("good.yaml".as_ref(), &OneFile(GOOD), None).await];
        assert!(checked[0].is_ok());
        assert_eq!(render(&checked, OutputFormat::Human, false), "good.yaml: ok (1 route, 0 tests)\n");
    }

    #[tokio::test]
    async fn scripts_read_one_document_for_all_files() {
        let checked = [
            check("good.yaml".as_ref(), &OneFile(GOOD), None).await,
            check("bad.yaml".as_ref(), &OneFile("version: 2\n"), None).await,
        ];
        let report: serde_json::Value =
            serde_json::from_str(&render(&checked, OutputFormat::Json, false)).unwrap();
        assert_eq!(report["files"][0]["ok"], true);
        assert_eq!(report["files"][1]["ok"], false);
        let first = &report["files"][1]["diagnostics"][0];
        assert_eq!(first["severity"], "error");
        assert_eq!((first["line"].as_u64(), first["column"].as_u64()), (Some(1), Some(10)));
        assert_eq!(first["file"], "bad.yaml");
    }
}
