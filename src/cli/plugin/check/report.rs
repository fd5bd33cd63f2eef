//! What `plugin check` found, for people or as one JSON document.

use std::fmt::Write as _;

use serde::Serialize;

use super::measure::{Cost, Measured};
use super::surface::Surface;
use crate::cli::OutputFormat;

/// Everything that was found of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The file.
    pub file: String,
    /// Whether it can serve.
    pub ok: bool,
    /// Its size, bytes.
    pub size: usize,
    /// Its SHA-256 in lower-case hex.
    pub sha256: String,
    /// Its imports and exports, where they can be read.
    pub surface: Option<Surface>,
    /// What it costs, where it can be loaded.
    pub measured: Option<Measured>,
    /// What keeps it from serving.
    pub problems: Vec<String>,
    /// What to look at.
    pub warnings: Vec<String>,
}

impl Report {
    /// The report as text that ends with a line break.
    pub fn render(&self, format: OutputFormat) -> String {
        match format {
            OutputFormat::Human => self.to_text(),
            OutputFormat::Json => {
                serde_json::to_string_pretty(self).expect("text and numbers always become JSON") + "\n"
            }
        }
    }

    fn to_text(&self) -> String {
        let mut text = Table::default();
        text.row("file", format!("{} ({})", self.file, bytes(self.size)));
        text.row("sha256", &self.sha256);
        if let Some(surface) = &self.surface {
            describe_surface(surface, &mut text);
        }
        if let Some(measured) = &self.measured {
            describe_cost(measured, &mut text);
        }
        for warning in &self.warnings {
            text.row("warning", warning);
        }
        for problem in &self.problems {
            text.row("error", problem);
        }
        let verdict = match (self.ok, &self.measured) {
            (false, _) => "it cannot serve",
            (true, Some(_)) => "it can serve",
            (true, None) => "nothing speaks against it, but it was not tried",
        };
        text.row("verdict", verdict);
        text.0
    }
}

fn describe_surface(surface: &Surface, text: &mut Table) {
    let built_for = surface.built_for.as_deref().unwrap_or("no version that it names");
    text.row("contract", format!("built for {built_for}; this innkeeper serves {}", surface.served));
    if surface.imports.is_empty() {
        text.row("imports", "nothing");
    }
    for import in &surface.imports {
        let needs = match (import.refused, import.capability) {
            (true, _) => " (no plugin gets it)".to_owned(),
            (false, Some(capability)) => format!(" (capability `{capability}`)"),
            (false, None) => String::new(),
        };
        text.row("imports", format!("{}{needs}", import.name));
    }
    for export in &surface.exports {
        text.row("exports", export);
    }
    if surface.differences.is_empty() {
        text.row("differs", "in nothing from the contract");
    }
    for difference in &surface.differences {
        text.row("differs", difference);
    }
}

fn describe_cost(measured: &Measured, text: &mut Table) {
    let work =
        if measured.not_copied.is_none() { "compile, configure and copy" } else { "compile and configure" };
    text.row("load", format!("{} to {work} it", micros(measured.load_us)));
    text.row(
        "memory",
        format!(
            "{} at start, {} once configured",
            bytes(measured.memory_at_start),
            bytes(measured.memory_configured)
        ),
    );
    match &measured.not_copied {
        None => text.row("copy", "fresh instances start from its configured memory"),
        Some(why) => text.row("copy", format!("fresh instances are configured again: {why}")),
    }
    text.row(
        "runs",
        match (measured.one_module, measured.renewed) {
            (true, true) => "as one core module, made as new for each request",
            (true, false) => "as one core module, made for each request",
            (false, _) => "as a component: calls cost more",
        },
    );
    text.row("fresh", cost(&measured.fresh));
    text.row("reused", cost(&measured.reused));
}

fn cost(cost: &Cost) -> String {
    match cost {
        Cost::Median { median_us, calls } => {
            format!("{} a call (median of {calls}, measured here and now)", micros(*median_us))
        }
        Cost::Failed { .. } => "a call failed".into(),
    }
}

/// Lines with a label each.
#[derive(Default)]
struct Table(String);

impl Table {
    fn row(&mut self, label: &str, content: impl AsRef<str>) {
        let _ = writeln!(self.0, "{label:9} {}", content.as_ref());
    }
}

/// Bytes as people read them.
pub(super) fn bytes(number: usize) -> String {
    match number {
        0..1024 => format!("{number} B"),
        1024..0x10_0000 => format!("{:.1} KiB", tenths(number, 1024)),
        _ => format!("{:.1} MiB", tenths(number, 1 << 20)),
    }
}

fn micros(number: u128) -> String {
    match number {
        0..10_000 => format!("{number} µs"),
        10_000..10_000_000 => format!("{} ms", number / 1000),
        _ => format!("{} s", number / 1_000_000),
    }
}

#[expect(clippy::cast_precision_loss, reason = "one digit after the point is shown")]
fn tenths(number: usize, unit: usize) -> f64 {
    number as f64 / unit as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(18_432), "18.0 KiB");
        assert_eq!(bytes(12_049_048), "11.5 MiB");
        assert_eq!(micros(14), "14 µs");
        assert_eq!(micros(126_000), "126 ms");
        assert_eq!(micros(35_000_000), "35 s");
    }
}
