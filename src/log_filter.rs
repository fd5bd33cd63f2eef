//! What is logged, changed while running: for a while, after which it is as it was.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio_util::task::AbortOnDropHandle;
use tracing_subscriber::EnvFilter;

/// The filter of the process's log.
pub struct LogFilter {
    usual: String,
    apply: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>,
    changed: Mutex<Option<Changed>>,
}

/// A filter that holds for a while.
struct Changed {
    filter: String,
    until: SystemTime,
    _reverting: AbortOnDropHandle<()>,
}

/// The filter in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// What is logged, in the words of `--log`.
    pub filter: String,
    /// Until when, where it is not the usual one.
    pub until: Option<SystemTime>,
    /// What is logged otherwise.
    pub usual: String,
}

impl LogFilter {
    /// The filter that the process was started with, and what puts another in force.
    pub fn new(
        usual: String,
        apply: impl Fn(EnvFilter) -> Result<(), String> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { usual, apply: Box::new(apply), changed: Mutex::new(None) })
    }

    /// What is in force.
    pub fn in_force(&self) -> InForce {
        let changed = self.changed();
        InForce {
            filter: changed.as_ref().map_or(&self.usual, |changed| &changed.filter).clone(),
            until: changed.as_ref().map(|changed| changed.until),
            usual: self.usual.clone(),
        }
    }

    /// Puts a filter in force for a while. Must be called within the runtime.
    ///
    /// # Errors
    /// A filter that cannot be read; the one in force stays.
    pub fn change(self: &Arc<Self>, filter: &str, time: Duration) -> Result<(), String> {
        let read = read(filter)?;
        // Held to the end: a timer that runs out now must not take this change for its own.
        let mut changed = self.changed();
        (self.apply)(read)?;
        let this = Arc::downgrade(self);
        let reverting = tokio::spawn(async move {
            tokio::time::sleep(time).await;
            if let Some(this) = this.upgrade() {
                this.revert();
            }
        });
        *changed = Some(Changed {
            filter: filter.to_owned(),
            until: SystemTime::now() + time,
            _reverting: AbortOnDropHandle::new(reverting),
        });
        Ok(())
    }

    /// Puts the usual filter in force.
    pub fn revert(&self) {
        let mut changed = self.changed();
        if changed.is_none() {
            return;
        }
        let usual = read(&self.usual).expect("the process started with it");
        match (self.apply)(usual) {
            Ok(()) => tracing::info!(filter = self.usual, "the log's filter is the usual one again"),
            Err(error) => tracing::warn!(error, "the log's filter cannot be changed back"),
        }
        *changed = None;
    }

    fn changed(&self) -> MutexGuard<'_, Option<Changed>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a filter such as `info` or `warn,innkeeper::plugin=debug`.
///
/// # Errors
/// The part that is wrong, and what is wrong with it.
pub fn read(filter: &str) -> Result<EnvFilter, String> {
    // Blanks around a part would be taken for letters of its target.
    let parts: Vec<&str> = filter.split(',').map(str::trim).collect();
    for part in &parts {
        let wrong = |what: String| format!("`{part}` is no log filter: {what}");
        EnvFilter::try_new(part).map_err(|error| wrong(error.to_string()))?;
        if part.ends_with('=') {
            return Err(wrong(format!("a level follows the `=`: {}", LEVELS.join(", "))));
        }
        if let Some(level) = misspelt(part) {
            return Err(wrong(format!("did you mean `{level}`? the target of that name is `{part}=trace`")));
        }
    }
    let filter = parts.join(",");
    EnvFilter::try_new(&filter).map_err(|error| format!("`{filter}` is no log filter: {error}"))
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The level that a word was meant for. A word that is none is a target, of which everything is logged, and
/// nothing else: `warning` would silence the log.
fn misspelt(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    let resembles = |level: &str| {
        word != level && (word.starts_with(level) || strsim::damerau_levenshtein(&word, level) == 1)
    };
    let known = LEVELS.contains(&word.as_str()) || !word.chars().all(|c| c.is_ascii_alphabetic());
    LEVELS.into_iter().find(|level| !known && resembles(level))
}

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogFilter").field("usual", &self.usual).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A filter, and what was put in force.
    fn filter() -> (Arc<LogFilter>, Arc<Mutex<Vec<String>>>) {
        let applied = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&applied);
        let filter = LogFilter::new("info".into(), move |filter| {
            told.lock().unwrap().push(filter.to_string());
            Ok(())
        });
        (filter, applied)
    }

    async fn until(condition: impl Fn() -> bool) {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_change_ends_when_its_time_is_over() {
        let (filter, applied) = filter();
        filter.change("debug", Duration::from_millis(20)).unwrap();
        until(|| filter.in_force().until.is_none()).await;
        assert_eq!(filter.in_force(), InForce { filter: "info".into(), until: None, usual: "info".into() });
        assert_eq!(*applied.lock().unwrap(), ["debug", "info"]);
    }

    #[tokio::test]
    async fn a_later_change_has_its_own_time() {
        let (filter, applied) = filter();
        filter.change("debug", Duration::from_millis(20)).unwrap();
        filter.change("trace", Duration::from_secs(3600)).unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(filter.in_force().filter, "trace", "the first one's time is over, and means nothing");
        filter.revert();
        filter.revert();
        assert_eq!(*applied.lock().unwrap(), ["debug", "trace", "info"]);
    }

    #[tokio::test]
    async fn what_is_no_filter_changes_nothing() {
        let (filter, applied) = filter();
        let error = filter.change("innkeeper=loud", Duration::from_secs(1)).unwrap_err();
        assert!(error.starts_with("`innkeeper=loud` is no log filter"), "{error}");
        assert!(applied.lock().unwrap().is_empty());
    }

    #[test]
    fn the_part_that_is_wrong_is_named() {
        for (filter, part, why) in [
            ("info,bogus=x", "bogus=x", "expected one of"),
            ("bogus=x,info", "bogus=x", "expected one of"),
            ("info, innkeeper=", "innkeeper=", "off, error, warn, info, debug, trace"),
            ("warning", "warning", "did you mean `warn`?"),
            ("innkeeper=debug,Debgu", "Debgu", "did you mean `debug`?"),
            ("[span=info", "[span=info", "invalid filter directive"),
        ] {
            let error = read(filter).unwrap_err();
            assert!(error.starts_with(&format!("`{part}` is no log filter: ")), "{error}");
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn levels_and_targets_are_filters() {
        for (filter, read_as) in [
            ("INFO", "info"),
            ("3", "info"),
            ("info,,", "info"),
            ("warn, innkeeper::plugin=debug", "innkeeper::plugin=debug,warn"),
            ("off,hyper,innkeeper", "innkeeper=trace,hyper=trace,off"),
            ("warning=trace", "warning=trace"),
            ("info,[request{tenant}]=debug", "[request{tenant}]=debug,info"),
        ] {
            let mut parts: Vec<String> =
                read(filter).unwrap().to_string().split(',').map(Into::into).collect();
            let mut wanted: Vec<&str> = read_as.split(',').collect();
            parts.sort();
            wanted.sort_unstable();
            assert_eq!(parts, wanted, "{filter}");
        }
    }
}
