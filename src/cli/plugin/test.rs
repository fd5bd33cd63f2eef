//! `innkeeper plugin test`: runs cases against a plugin, and shows what it decides differently.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::SettingsArgs;
use crate::cli::{OutputFormat, fail, print, progress};
use crate::plugin::{HostSettings, LoadedPlugin, PluginHost, Replayed};
use crate::policy::{Case, Cases, Diagnostics, Difference, Instances, Plugin};
use crate::surroundings::ProcessSurroundings;

/// Time for one case. A test is about what a plugin decides, not about how fast this machine is.
const TIME: Duration = Duration::from_secs(5);

/// A larger file takes long enough to compile that silence would look like a hang.
const LARGE_BYTES: usize = 1 << 20;

/// Run cases against a plugin, and show what it decides differently.
#[derive(Debug, Clone, clap::Args)]
pub struct TestArgs {
    /// The component
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Files of cases, written by hand or by `innkeeper plugin record`
    #[arg(required = true, value_name = "CASES")]
    pub cases: Vec<PathBuf>,
    /// How it is run; a configuration given here stands in place of the one in the cases
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// Rewrite the expectations that do not hold to what the plugin decides now, and show what changed;
    /// all else in the files stays, but for comments within an expectation that is rewritten
    #[arg(long)]
    pub bless: bool,
    /// How the result is shown
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: OutputFormat,
}

/// What came of all cases.
#[derive(Debug)]
pub struct Tested {
    file: PathBuf,
    version: Arc<str>,
    cases: Vec<Ran>,
}

/// What came of one case.
#[derive(Debug)]
struct Ran {
    file: PathBuf,
    case: Case,
    replayed: Replayed,
    /// Whether its expectation was rewritten.
    blessed: bool,
}

impl Ran {
    fn failed(&self) -> bool {
        !self.replayed.agrees() && !self.blessed
    }
}

impl Tested {
    /// Whether the plugin decided every case as expected, or as is expected from now on.
    pub fn is_ok(&self) -> bool {
        self.failed() == 0
    }

    fn failed(&self) -> usize {
        self.cases.iter().filter(|ran| ran.failed()).count()
    }

    /// The result as text that ends with a line break.
    pub fn render(&self, format: OutputFormat) -> String {
        match format {
            OutputFormat::Human => self.to_text(),
            OutputFormat::Json => format!("{:#}\n", self.to_json()),
        }
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        for ran in self.cases.iter().filter(|ran| !ran.replayed.agrees()) {
            let verdict = if ran.blessed { "BLESSED" } else { "FAILED" };
            let line = ran.case.at.as_ref().map_or(1, |at| at.line);
            let _ = writeln!(text, "{verdict} {} ({}:{line})", ran.case.name, ran.file.display());
            describe(&ran.replayed, &mut text);
            text.push('\n');
        }
        let version = self.version.get(..12).unwrap_or(&self.version);
        let all = self.cases.len();
        let cases = if all == 1 { "case" } else { "cases" };
        let _ = write!(text, "{} (version {version}): {all} {cases}", self.file.display());
        match self.cases.iter().filter(|ran| ran.blessed).count() {
            0 => {}
            1 => text.push_str(", 1 expectation rewritten"),
            more => {
                let _ = write!(text, ", {more} expectations rewritten");
            }
        }
        let _ = match self.failed() {
            0 if self.cases.iter().any(|ran| ran.blessed) => writeln!(text),
            0 => writeln!(text, ", all as expected"),
            failed => writeln!(text, ", {failed} not as expected"),
        };
        text
    }

    fn to_json(&self) -> Value {
        let cases = self.cases.iter().map(|Ran { file, case, replayed, blessed }| {
            json!({
                "file": file.display().to_string(),
                "line": case.at.as_ref().map(|at| at.line),
                "name": case.name,
                "ok": replayed.agrees(),
                "blessed": blessed,
                "expected": case.expected.to_json(),
                "got": replayed.answer.to_json(),
                "differences": replayed.differences,
                "failure": replayed.failure.as_ref().map(ToString::to_string),
                "read": read(replayed),
                "unanswered": replayed.unanswered.as_ref().map(ToString::to_string),
            })
        });
        json!({
            "file": self.file.display().to_string(),
            "version": self.version,
            "ok": self.is_ok(),
            "cases": cases.collect::<Vec<_>>(),
        })
    }
}

/// Runs the command.
pub async fn run(args: &TestArgs) -> ExitCode {
    match test(args).await {
        Ok(tested) => {
            print(&tested.render(args.format));
            if tested.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => fail(error),
    }
}

/// Runs every case of every file, and rewrites expectations where that was asked for.
///
/// # Errors
/// What keeps the cases from being run: a file that cannot be read, or a plugin that cannot be
/// loaded; or their expectations from being rewritten.
pub async fn test(args: &TestArgs) -> Result<Tested, String> {
    let files = read_cases(&args.cases)?;
    let wasm =
        super::read_component(&args.file).map_err(|error| format!("{}: {error}", args.file.display()))?;
    let host = PluginHost::new(HostSettings::default()).map_err(|error| error.to_string())?;
    let settings = settings(args)?;
    if wasm.len() > LARGE_BYTES {
        progress(format_args!("compiling {} ({} MiB)", args.file.display(), wasm.len() >> 20));
    }
    let mut tested = Tested { file: args.file.clone(), version: "".into(), cases: Vec::new() };
    let mut rewritten = Vec::new();
    for Written { path, text, cases } in files {
        let plugin = load(&host, args, &settings, &cases, &wasm).await?;
        tested.version = Arc::clone(plugin.version());
        let mut blessed = BTreeMap::new();
        for case in &cases.cases {
            let replayed = plugin.replay(case).await;
            // What it decides on a look-up that has no answer is no decision.
            let bless = args.bless && !replayed.agrees() && replayed.unanswered.is_none();
            if bless {
                blessed.insert(case.name.as_str(), replayed.expectation(case));
            }
            tested.cases.push(Ran { file: path.clone(), case: case.clone(), replayed, blessed: bless });
        }
        if !blessed.is_empty() {
            let text =
                cases.rewrite(&text, &blessed).map_err(|error| format!("{}: {error}", path.display()))?;
            rewritten.push((path, text));
        }
    }
    // Only now: where one file cannot be rewritten, or the plugin not be run, none is touched.
    for (path, text) in rewritten {
        write(&path, &text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(tested)
}

/// A file of cases, and what it says.
struct Written {
    path: PathBuf,
    text: String,
    cases: Cases,
}

fn read_cases(paths: &[PathBuf]) -> Result<Vec<Written>, String> {
    let mut read = Vec::with_capacity(paths.len());
    let mut findings = Diagnostics::default();
    for path in paths {
        match Cases::parse(path, &ProcessSurroundings) {
            Ok((text, cases)) => read.push(Written { path: path.clone(), text, cases }),
            Err(diagnostics) => findings.extend(diagnostics),
        }
    }
    if findings.is_empty() { Ok(read) } else { Err(format!("the cases cannot be used\n{findings}")) }
}

/// Where the file is a link, what it leads to is rewritten.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    super::replace(&std::fs::canonicalize(path)?, text.as_bytes())
}

fn settings(args: &TestArgs) -> Result<Plugin, String> {
    let mut settings = args.settings.settings(&args.file)?;
    settings.limits.time = settings.limits.time.max(TIME);
    // A case is answered by itself, whatever another one left behind.
    settings.instances = Instances::PerRequest;
    // The file at hand is not the one that the policy trusts yet.
    settings.sha256 = None;
    settings.signature = None;
    Ok(settings)
}

async fn load(
    host: &Arc<PluginHost>,
    args: &TestArgs,
    settings: &Plugin,
    cases: &Cases,
    wasm: &[u8],
) -> Result<LoadedPlugin, String> {
    let mut settings = settings.clone();
    if let Some(config) = cases.config.as_ref().filter(|_| args.settings.config.is_none()) {
        settings.config = config.to_string();
    }
    if !cases.kv.is_empty() {
        settings.kv = cases.kv.clone();
    }
    host.load(Arc::new(settings), wasm)
        .await
        .map_err(|error| format!("{} cannot be run: {error}", args.file.display()))
}

fn describe(replayed: &Replayed, text: &mut String) {
    let mut lines: Vec<(String, String)> = Vec::new();
    if let Some(tenant) = &replayed.unanswered {
        lines.push((
            "directory".into(),
            format!(
                "nothing is said of {tenant:?}: add `{tenant}: {{ schema: … }}` to the case's `directory`, or \
                 `{tenant}: null` where there is no such tenant"
            ),
        ));
    } else {
        lines.extend(replayed.differences.iter().map(|one| (one.field.clone(), compared(one))));
        lines.extend(replayed.failure.iter().map(|failure| ("because".into(), failure.to_string())));
    }
    let read = read(replayed);
    lines.push(("it read".into(), if read.is_empty() { "nothing".into() } else { read.join(", ") }));
    let width = lines.iter().map(|(label, _)| label.chars().count()).max().unwrap_or_default();
    for (label, content) in lines {
        let _ = writeln!(text, "  {label:width$}  {content}");
    }
}

fn compared(difference: &Difference) -> String {
    let shown =
        |text: &Option<String>| text.as_ref().map_or("nothing".to_owned(), |text| format!("`{text}`"));
    format!("expected {}, got {}", shown(&difference.expected), shown(&difference.got))
}

fn read(replayed: &Replayed) -> Vec<String> {
    let tenants = replayed.reads.tenants.keys().map(|id| format!("directory {id}"));
    replayed.reads.parts.iter().map(ToString::to_string).chain(tenants).collect()
}
