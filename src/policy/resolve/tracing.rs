//! Tracing: its defaults, and headers that can be sent.

use http::{HeaderName, HeaderValue};

use super::or;
use crate::policy::diagnostic::Report;
use crate::policy::leaf::Share;
use crate::policy::{Tracing, document};

/// A name that stands in a trace; longer ones are somebody's mistake.
const MAX_SERVICE_NAME_BYTES: usize = 128;

pub(super) fn tracing(written: Option<&document::Tracing>, report: &mut Report) -> Option<Tracing> {
    let written = written?;
    let endpoint = written.otlp.get()?.value.0.clone();
    let share = or(written.sample.as_ref(), Share(Tracing::DEFAULT_SHARE)).0;
    let service_name = match &written.service_name {
        Some(name) if name.value.trim().is_empty() || name.value.len() > MAX_SERVICE_NAME_BYTES => {
            report.error(name.place, format!("`service_name` must be 1 to {MAX_SERVICE_NAME_BYTES} bytes"));
            return None;
        }
        Some(name) => name.value.clone(),
        None => Tracing::DEFAULT_SERVICE_NAME.to_owned(),
    };
    let mut headers = Vec::new();
    for (key, value) in written.headers.iter().flat_map(|headers| &headers.0) {
        let Ok(name) = key.text.parse::<HeaderName>() else {
            report.error(key.place, format!("`{}` is not a header's name", key.text));
            continue;
        };
        let Some(value) = value else { continue };
        if HeaderValue::from_str(value.value.0.reveal()).is_err() {
            report.error(value.place, format!("the value of `{name}` must be visible ASCII characters"));
            continue;
        }
        headers.push((name, value.value.0.clone()));
    }
    Some(Tracing { endpoint, share, service_name, headers })
}
