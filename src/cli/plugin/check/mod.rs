//! `innkeeper plugin check`: what a file is, what it asks for, what it costs, and whether it can serve.

mod measure;
mod report;
mod surface;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use self::measure::{Cost, Measured, measure};
pub use self::report::Report;
use self::report::bytes;
pub use self::surface::{Import, Surface};
use super::settings::SettingsArgs;
use crate::cli::{OutputFormat, fail, print, progress};
use crate::plugin::{HostSettings, LoadError, LoadErrorClass, PluginHost, version_of};
use crate::policy::{Instances, Plugin, PluginLimits};

/// A larger file takes long enough to compile that silence would look like a hang.
const LARGE_BYTES: usize = 1 << 20;

/// A fresh call above this costs a request more than the rest of its walk.
const SLOW: Duration = Duration::from_millis(1);

/// Show what a component is, what it asks for and what it costs; exit 1 when it cannot serve.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckArgs {
    /// The component
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// How to run it
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// How the report is shown
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: OutputFormat,
}

/// Runs the command.
pub async fn run(args: &CheckArgs) -> ExitCode {
    match check(args).await {
        Ok(report) => {
            print(&report.render(args.format));
            if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => fail(error),
    }
}

/// Reads, loads and asks a plugin.
///
/// # Errors
/// What keeps it from being looked at: the file or the policy cannot be read.
pub async fn check(args: &CheckArgs) -> Result<Report, String> {
    let wasm =
        super::read_component(&args.file).map_err(|error| format!("{}: {error}", args.file.display()))?;
    let settings = args.settings.settings(&args.file)?;
    let host = PluginHost::new(HostSettings::default()).map_err(|error| error.to_string())?;
    let mut report = Report {
        file: args.file.display().to_string(),
        ok: true,
        size: wasm.len(),
        sha256: version_of(&wasm),
        surface: Surface::read(&wasm).ok(),
        measured: None,
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    if wasm.len() > LARGE_BYTES {
        progress(format_args!("compiling {} ({})", report.file, bytes(wasm.len())));
    }
    match measure(&host, &settings, &wasm).await {
        Ok(measured) => {
            report.warnings = warnings(&measured, &settings, &args.settings);
            report.measured = Some(measured);
        }
        Err(error) => report.refuse(&error, &args.settings),
    }
    Ok(report)
}

impl Report {
    /// A refusal of a configuration that nobody wrote says nothing of the plugin.
    fn refuse(&mut self, error: &LoadError, given: &SettingsArgs) {
        if error.class == LoadErrorClass::ConfigureFailed && !given.say_how_to_configure() {
            self.warnings.push(format!(
                "it cannot be tried without a configuration ({}): give one with --config, or with --policy and \
                 --plugin",
                error.message
            ));
        } else {
            self.ok = false;
            self.problems.push(error.to_string());
        }
    }
}

fn warnings(measured: &Measured, settings: &Plugin, given: &SettingsArgs) -> Vec<String> {
    let mut warnings = Vec::new();
    let default = PluginLimits::default();
    if given.policy.is_none() && measured.memory_configured > default.memory {
        warnings.push(format!(
            "it takes more memory than the default limit of {}: write `limits: {{ memory: … }}` in the policy",
            bytes(default.memory)
        ));
    }
    let used = match settings.instances {
        Instances::PerRequest => &measured.fresh,
        Instances::Reused => &measured.reused,
    };
    match used {
        Cost::Failed { failure } => warnings.push(format!("it fails on a usual request: {failure}")),
        Cost::Median { median_us, .. } => {
            let limit = settings.limits.time;
            if *median_us > limit.as_micros() {
                warnings.push(format!(
                    "a call takes longer than its limit of {limit:?}: write `limits: {{ time: … }}` in the policy"
                ));
            }
            if *median_us > SLOW.as_micros() && settings.instances == Instances::PerRequest {
                warnings.push(
                    "a fresh instance is slow to start: write `instances: reused` in the policy, if a request \
                     may see what an earlier one left behind"
                        .into(),
                );
            }
        }
    }
    warnings
}
