//! How a file at hand is to be run: as a policy says, or with every default.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::plugin::HostSettings;
use crate::policy::{Plugin, Policy};
use crate::surroundings::ProcessSurroundings;

/// A policy, whose part a configuration is, has at most as many.
const MAX_CONFIG_BYTES: u64 = 8 << 20;

/// Where a command takes a plugin's settings from.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SettingsArgs {
    /// What the plugin is configured with: JSON, or @FILE
    #[arg(long, value_name = "JSON", value_parser = parse_config)]
    pub config: Option<Value>,
    /// Take configuration, table, limits and capabilities from this policy
    #[arg(long, value_name = "POLICY", requires = "plugin")]
    pub policy: Option<PathBuf>,
    /// The plugin's name in the policy
    #[arg(long, value_name = "NAME", requires = "policy")]
    pub plugin: Option<String>,
}

impl SettingsArgs {
    /// The settings for `file`; where no policy is named, every default and all the memory that a
    /// host gives, because whether the plugin fits into less is for its policy to say.
    ///
    /// # Errors
    /// When the policy cannot be used, or has no such plugin.
    pub fn settings(&self, file: &Path) -> Result<Plugin, String> {
        let mut settings = match (&self.policy, &self.plugin) {
            (Some(policy), Some(name)) => from_policy(policy, name)?,
            _ => {
                let name = file.file_stem().unwrap_or_default().to_string_lossy();
                let mut settings = Plugin::new(&*name, file);
                settings.limits.memory = HostSettings::default().memory_max;
                settings
            }
        };
        if let Some(config) = &self.config {
            settings.config = config.to_string();
        }
        Ok(settings)
    }

    /// Whether somebody said how the plugin is configured.
    pub fn say_how_to_configure(&self) -> bool {
        self.config.is_some() || self.policy.is_some()
    }
}

fn from_policy(path: &Path, name: &str) -> Result<Plugin, String> {
    let (policy, _) = Policy::parse(path, &ProcessSurroundings).map_err(|error| error.to_string())?;
    if let Some(written) = policy.plugins.get(name) {
        return Ok(Plugin::clone(written));
    }
    let known: Vec<String> = policy.plugins.keys().map(|name| format!("`{name}`")).collect();
    let known = if known.is_empty() { "none".into() } else { known.join(", ") };
    Err(format!("{} has no plugin `{name}`; it has {known}", path.display()))
}

fn parse_config(text: &str) -> Result<Value, String> {
    let json = match text.strip_prefix('@') {
        Some(path) => {
            super::read_text(path.as_ref(), MAX_CONFIG_BYTES).map_err(|error| format!("{path}: {error}"))?
        }
        None => text.to_owned(),
    };
    serde_json::from_str(&json).map_err(|error| format!("it is not JSON: {error}"))
}
