//! What the service manager is told (`sd_notify(3)`): ready, reloading, stopping, alive. Without one
//! nothing happens.

use std::sync::Arc;

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;

use crate::server::Workers;

/// Requests are served.
pub(super) fn tell_ready() {
    tell(&[NotifyState::Ready]);
}

/// The policy is being read again; [`tell_ready`] follows.
pub(super) fn tell_reloading() {
    // The manager tells by the time which of several reloads this is (`Type=notify-reload`).
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// The drain begins.
pub(super) fn tell_stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says that we live as often as the manager wants to hear it (`WatchdogSec=`), and as long as every
/// worker does something: with one that is stuck we fall silent.
pub(super) async fn keep_alive(workers: Arc<Workers>) {
    let Some(patience) = sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero()) else { return };
    let mut beat = tokio::time::interval(patience / 2);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        workers.pulse().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}
