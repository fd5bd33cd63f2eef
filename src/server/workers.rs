//! The threads that serve connections, each with a runtime of its own.
//!
//! A connection stays with the worker that it was given to, and so does what its requests ask of
//! upstreams: no request wakes another thread, and none waits until one is awake. Tasks that any
//! thread may take over cost a forwarded request a quarter more (docs/performance.md).

use std::future::Future;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{self, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Threads that serve connections. They end when it is dropped, and what they have not finished with
/// them.
pub struct Workers {
    workers: Vec<Worker>,
    _end: DropGuard,
}

struct Worker {
    runtime: Handle,
    /// Connections that it has now.
    connections: Arc<AtomicUsize>,
}

/// A connection's place with its worker.
struct Seat(Arc<AtomicUsize>);

impl Workers {
    /// Starts `count` workers. With none, connections are served on the runtime that accepts them.
    ///
    /// # Errors
    /// The system gives us no more threads or descriptors.
    pub fn start(count: usize) -> io::Result<Self> {
        let end = CancellationToken::new();
        // Made first: where one does not start, those before it end.
        let all_end = end.clone().drop_guard();
        let workers: io::Result<_> = (0..count).map(|number| Worker::start(number, end.clone())).collect();
        Ok(Self { workers: workers?, _end: all_end })
    }

    /// As many workers as this process may use processors.
    pub fn default_count() -> usize {
        thread::available_parallelism().map_or(1, NonZeroUsize::get)
    }

    /// Returns once each worker has run something; never, where one is stuck.
    pub async fn pulse(&self) {
        for worker in &self.workers {
            // One that has ended is not stuck.
            let _ = worker.runtime.spawn(async {}).await;
        }
    }

    /// Gives a connection to the worker that has fewest.
    pub(super) fn spawn(&self, tasks: &TaskTracker, connection: impl Future<Output = ()> + Send + 'static) {
        let load = |worker: &&Worker| worker.connections.load(Ordering::Relaxed);
        let Some(worker) = self.workers.iter().min_by_key(load) else {
            tasks.spawn(connection);
            return;
        };
        let seat = Seat::take(&worker.connections);
        let seated = async move {
            connection.await;
            drop(seat);
        };
        tasks.spawn_on(seated, &worker.runtime);
    }
}

impl Worker {
    fn start(number: usize, end: CancellationToken) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || runtime.block_on(end.cancelled()))?;
        Ok(Self { runtime: handle, connections: Arc::default() })
    }
}

impl Seat {
    fn take(connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(connections))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn connections_go_to_the_worker_that_has_fewest_and_stay_there() {
        let workers = Workers::start(3).unwrap();
        let (tasks, end, seen) =
            (TaskTracker::new(), CancellationToken::new(), Arc::<Mutex<Vec<_>>>::default());
        let connection = |end: &CancellationToken| {
            let (end, seen) = (end.clone(), Arc::clone(&seen));
            async move {
                let before = thread::current().id();
                end.cancelled().await;
                tokio::time::sleep(Duration::from_millis(1)).await;
                assert_eq!(thread::current().id(), before);
                seen.lock().unwrap().push(before);
            }
        };
        (0..9).for_each(|_| workers.spawn(&tasks, connection(&end)));
        assert!(workers.workers.iter().all(|worker| worker.connections.load(Ordering::Relaxed) == 3));
        tasks.close();
        end.cancel();
        tasks.wait().await;
        let mut threads = HashMap::new();
        seen.lock().unwrap().iter().for_each(|thread| *threads.entry(*thread).or_insert(0) += 1);
        assert!(threads.len() == 3 && threads.values().all(|connections| *connections == 3), "{threads:?}");
        assert!(!threads.contains_key(&thread::current().id()));
        assert!(workers.workers.iter().all(|worker| worker.connections.load(Ordering::Relaxed) == 0));
    }

    #[tokio::test]
    async fn a_worker_that_is_stuck_has_no_pulse() {
        let (workers, tasks) = (Workers::start(2).unwrap(), TaskTracker::new());
        workers.pulse().await;
        let (release, stuck) = std::sync::mpsc::channel::<()>();
        workers.spawn(&tasks, async move { assert!(stuck.recv().is_err()) });
        let stopped = tokio::time::timeout(Duration::from_millis(50), workers.pulse()).await;
        assert!(stopped.is_err());
        drop(release);
        workers.pulse().await;
    }

    #[tokio::test]
    async fn without_workers_connections_stay_where_they_were_accepted() {
        let (workers, tasks) = (Workers::start(0).unwrap(), TaskTracker::new());
        let here = thread::current().id();
        workers.spawn(&tasks, async move { assert_eq!(thread::current().id(), here) });
        tasks.close();
        tasks.wait().await;
    }
}
