//! Plugins that take long to load: they go on aside, and a reload does not wait for them where another
//! version serves meanwhile.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use tokio::time::Instant;

use super::history::PluginFile;
use crate::plugin::{LoadError, LoadedPlugin};
use crate::policy::{self, Name};

/// How long a reload waits for a plugin: a small one is loaded in a tenth of it.
const PATIENCE: Duration = Duration::from_secs(2);

type Outcome = Result<Arc<LoadedPlugin>, LoadError>;

/// What is being loaded, one version of each plugin: whoever asks for a newer one does not wait for the
/// older, which is thrown away when it is done.
#[derive(Default)]
pub(super) struct Loading {
    under_way: Mutex<HashMap<Name, UnderWay>>,
    /// Whether something that was not waited for has been loaded since.
    is_news: Arc<AtomicBool>,
}

struct UnderWay {
    settings: Arc<policy::Plugin>,
    version: Arc<str>,
    began: Instant,
    outcome: Shared<BoxFuture<'static, Option<Outcome>>>,
}

impl Loading {
    /// What came of loading this version, begun by `load` unless it is under way; `None` where that
    /// takes longer than a reload waits.
    pub(super) async fn wait<F>(
        &self,
        settings: &Arc<policy::Plugin>,
        file: &PluginFile,
        load: impl FnOnce() -> F,
    ) -> Option<Outcome>
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let (outcome, began) = self.begin(settings, file, load);
        let waited = tokio::time::timeout_at(began + PATIENCE, outcome).await;
        let done = waited.ok().map(|outcome| outcome.unwrap_or_else(|| Err(LoadError::interrupted())));
        if done.is_some() {
            self.forget(&settings.name);
        }
        done
    }

    /// Whether something that was not waited for is loaded by now, since this was asked last.
    pub(super) fn take_news(&self) -> bool {
        self.is_news.swap(false, Ordering::Relaxed)
    }

    /// Forgets what is under way of this plugin: its file is in force. A version that nobody waits for
    /// any more must not stay in memory once it is loaded.
    pub(super) fn forget(&self, name: &str) {
        self.lock().remove(name);
    }

    /// Forgets plugins that the policy does not have any more.
    pub(super) fn keep_only(&self, known: impl Fn(&str) -> bool) {
        self.lock().retain(|name, _| known(name));
    }

    fn begin<F>(
        &self,
        settings: &Arc<policy::Plugin>,
        file: &PluginFile,
        load: impl FnOnce() -> F,
    ) -> (Shared<BoxFuture<'static, Option<Outcome>>>, Instant)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut under_way = self.lock();
        let same = |known: &&UnderWay| *known.settings == **settings && known.version == file.version;
        if let Some(known) = under_way.get(&settings.name).filter(same) {
            return (known.outcome.clone(), known.began);
        }
        let (load, is_news) = (load(), Arc::clone(&self.is_news));
        let began = Instant::now();
        let task = tokio::spawn(async move {
            let outcome = load.await;
            is_news.fetch_or(began.elapsed() >= PATIENCE, Ordering::Relaxed);
            outcome
        });
        let outcome = task.map(Result::ok).boxed().shared();
        let (settings, version) = (Arc::clone(settings), Arc::clone(&file.version));
        let name = Arc::clone(&settings.name);
        under_way.insert(name, UnderWay { settings, version, began, outcome: outcome.clone() });
        (outcome, began)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, UnderWay>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::policy::Plugin;

    fn file(byte: u8) -> PluginFile {
        PluginFile::new(vec![byte])
    }

    /// A load that ends, in failure, when it is told to.
    fn told() -> (oneshot::Sender<()>, impl Future<Output = Outcome> + Send + 'static) {
        let (tell, told) = oneshot::channel();
        (tell, async move {
            let _ = told.await;
            Err(LoadError::interrupted())
        })
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_is_not_waited_for_twice_and_is_news_once() {
        let (loading, settings) = (Loading::default(), Arc::new(Plugin::new("slow", "slow.wasm")));
        let (end, load) = told();
        assert!(loading.wait(&settings, &file(1), || load).await.is_none());
        let asked = Instant::now();
        let not_again = || async { panic!("it is under way") };
        assert!(loading.wait(&settings, &file(1), not_again).await.is_none());
        assert_eq!(asked.elapsed(), Duration::ZERO);
        assert!(!loading.take_news());
        end.send(()).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(loading.take_news() && !loading.take_news());
        let not_again = || async { panic!("it is done") };
        assert!(loading.wait(&settings, &file(1), not_again).await.unwrap().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_forgotten_is_freed() {
        let (loading, settings) = (Loading::default(), Arc::new(Plugin::new("slow", "slow.wasm")));
        let forget: [fn(&Loading); 2] =
            [|loading| loading.forget("slow"), |loading| loading.keep_only(|name| name != "slow")];
        for forget in forget {
            let (_never, load) = told();
            assert!(loading.wait(&settings, &file(1), || load).await.is_none());
            forget(&loading);
            assert!(loading.lock().is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_newer_version_does_not_wait_for_an_older() {
        let (loading, settings) = (Loading::default(), Arc::new(Plugin::new("slow", "slow.wasm")));
        let (_never, load) = told();
        assert!(loading.wait(&settings, &file(1), || load).await.is_none());
        let ready = || async { Err(LoadError::interrupted()) };
        assert!(loading.wait(&settings, &file(2), ready).await.is_some());
        let again = || async { Err(LoadError::interrupted()) };
        assert!(loading.wait(&settings, &file(1), again).await.is_some(), "it was given up");
    }
}
