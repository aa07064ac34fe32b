//! What a service manager is told (sd_notify(3)): ready, reloading, stopping, alive, and how it is in a sentence.
//!
//! Without a service manager that asked for it (`NOTIFY_SOCKET`), nothing of this does anything.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use crate::admin::status::Status;
use crate::telemetry::Telemetry;

/// How often the sentence is told where no watchdog asks for more.
const STATUS_EACH: Duration = Duration::from_secs(10);

/// Tells the service manager that the bridge lives, until it is dropped.
#[derive(Debug)]
pub(crate) struct Service {
    pulse: AbortHandle,
}

impl Service {
    /// The bridge runs: it polls, or waits for what it needs.
    ///
    /// The pulse comes from the same runtime that carries the events, and takes the locks that they take: when those hang,
    /// it stops, and the watchdog restarts the process.
    pub(crate) fn ready(telemetry: Arc<Telemetry>) -> Self {
        tell(&[NotifyState::Ready]);
        let each = sd_notify::watchdog_enabled().map_or(STATUS_EACH, |limit| limit / 3);
        let pulse = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(each);
            loop {
                ticks.tick().await;
                let sentence = Status::of(&telemetry).verdict.sentence;
                tell(&[NotifyState::Watchdog, NotifyState::Status(&sentence)]);
            }
        });
        Self { pulse: pulse.abort_handle() }
    }

    /// The configuration is about to be read again.
    pub(crate) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => debug!(%error, "the clock for the service manager cannot be read"),
        }
    }

    /// It was read, or refused: the bridge runs on either way.
    pub(crate) fn reloaded(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// The bridge drains.
    pub(crate) fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.pulse.abort();
    }
}

fn tell(state: &[NotifyState<'_>]) {
    let told: io::Result<()> = sd_notify::notify(state);
    if let Err(error) = told {
        warn!(%error, "the service manager cannot be told");
    }
}
