//! The access log's rule with its defaults.

use super::or;
use crate::policy::document::{LogRule, LogSample};
use crate::policy::word::LoggedErrors;
use crate::policy::{AccessLog, LogSampling};

pub(super) fn access_log(written: Option<&LogRule>) -> AccessLog {
    match written {
        None => AccessLog::default(),
        Some(LogRule::Word(word)) => word.value,
        Some(LogRule::Sample(sample)) => sampled(sample).map_or_else(AccessLog::default, AccessLog::Sampled),
    }
}

fn sampled(written: &LogSample) -> Option<LogSampling> {
    Some(LogSampling {
        share: written.sample.get()?.value.0,
        every_error: or(written.errors.as_ref(), LoggedErrors::All) == LoggedErrors::All,
        slow: or(written.slow.as_ref(), LogSampling::DEFAULT_SLOW),
    })
}
