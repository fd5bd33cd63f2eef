//! Long work away from the workers that serve requests.

use tokio::task::JoinError;

/// Runs what takes long where no request waits for it. It cannot be cancelled, and need not be; a
/// panic ends there.
#[expect(clippy::disallowed_methods, reason = "compiling and checking files cannot be cancelled")]
pub(super) async fn off_the_workers<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    tokio::task::spawn_blocking(work).await
}
