//! The operator's page says what there is: every metric and every call of the admin listener.

use std::collections::BTreeSet;

use innkeeper::telemetry::Metrics;

const PAGE: &str = include_str!("../../docs/operations.md");

/// Where metrics are registered.
const SOURCES: [&str; 2] =
    [include_str!("../../src/telemetry.rs"), include_str!("../../src/telemetry/tenants.rs")];

/// A metric without what its kind and unit add to its name.
fn base(name: &str) -> &str {
    let name = name.strip_prefix("innkeeper_").unwrap_or(name);
    let name = name.strip_suffix("_total").unwrap_or(name);
    ["_seconds", "_bytes"].iter().find_map(|unit| name.strip_suffix(unit)).unwrap_or(name)
}

#[test]
fn the_page_lists_exactly_the_metrics_that_are_registered() {
    let mut registered = BTreeSet::new();
    for source in SOURCES {
        for call in ["registry.register(", "registry.register_with_unit(", "encode_descriptor("] {
            for (start, _) in source.match_indices(call) {
                let arguments = source[start + call.len()..].trim_start();
                if let Some(name) = arguments.strip_prefix('"').and_then(|rest| rest.split('"').next()) {
                    registered.insert(name);
                }
            }
        }
    }
    // Their names are in a table of the source.
    registered.extend(["tenant_received", "tenant_sent"]);
    let listed: BTreeSet<&str> = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("| `innkeeper_")?.split('`').next())
        .map(base)
        .collect();
    assert_eq!(listed, registered);
    assert!(registered.len() > 20, "{registered:?}");
}

#[test]
fn names_on_the_page_are_those_that_are_exposed() {
    let metrics = Metrics::new();
    for line in metrics.expose().lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        assert!(PAGE.contains(&format!("| `{name}` |")), "{name}");
    }
}
