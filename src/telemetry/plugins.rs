//! What is counted of one plugin's calls.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::routes::Series;
use super::{Durations, Metrics, PluginLabels};

/// What a plugin that does its work answers. A failure is counted too, but its series are looked up
/// each time: it costs much more than that.
const USUAL: [&str; 3] = ["place", "next", "deny"];

/// A plugin's series.
pub struct PluginMetrics {
    plugin: Arc<str>,
    calls: Family<PluginLabels, Counter>,
    duration: Durations<PluginLabels>,
    usual: [(Series<PluginLabels, Counter>, Series<PluginLabels, Histogram>); USUAL.len()],
}

impl PluginMetrics {
    /// Those of the plugin of this name.
    pub fn new(metrics: &Metrics, plugin: &Arc<str>) -> Self {
        let (calls, duration) = (metrics.plugin_calls.clone(), metrics.plugin_duration.clone());
        let usual = USUAL.map(|outcome| {
            let labels = PluginLabels { plugin: Arc::clone(plugin), outcome };
            (Series::new(calls.clone(), labels.clone()), Series::new(duration.clone(), labels))
        });
        Self { plugin: Arc::clone(plugin), calls, duration, usual }
    }

    /// Counts a call and its time.
    pub fn called(&self, outcome: &'static str, took: Duration) {
        if let Some(index) = USUAL.iter().position(|usual| *usual == outcome) {
            let (calls, duration) = &self.usual[index];
            calls.get().inc();
            duration.get().observe(took.as_secs_f64());
        } else {
            let labels = PluginLabels { plugin: Arc::clone(&self.plugin), outcome };
            self.calls.get_or_create(&labels).inc();
            self.duration.get_or_create(&labels).observe(took.as_secs_f64());
        }
    }
}

impl std::fmt::Debug for PluginMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PluginMetrics").field("plugin", &self.plugin).finish_non_exhaustive()
    }
}
