//! Whether a destination can be reached: told by the sink, read by `/readyz`, `/status`, metrics and logs.

use std::time::Instant;

use tokio::sync::watch;

/// The state of a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether it can take records now.
    pub up: bool,
    /// Since when it is so.
    pub since: Instant,
    /// Why it is down, in a sentence for a person; empty while up. Never a secret.
    pub reason: String,
}

/// Reads a sink's health and waits for its changes.
pub type HealthWatch = watch::Receiver<Health>;

/// The sink's end: it reports changes, repeats are swallowed.
#[derive(Debug)]
pub struct HealthReporter(watch::Sender<Health>);

impl HealthReporter {
    /// Starts as down with a reason such as "connecting".
    pub fn new(reason: impl Into<String>) -> Self {
        Self(watch::Sender::new(Health { up: false, since: Instant::now(), reason: reason.into() }))
    }

    /// The destination answers.
    pub fn up(&self) {
        self.0.send_if_modified(|health| {
            let changed = !health.up;
            if changed {
                *health = Health { up: true, since: Instant::now(), reason: String::new() };
            }
            changed
        });
    }

    /// The destination does not answer, or says no. `since` stays where it was while only the reason changes.
    pub fn down(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.0.send_if_modified(|health| {
            let changed = health.up || health.reason != reason;
            if health.up {
                health.since = Instant::now();
            }
            health.up = false;
            health.reason = reason;
            changed
        });
    }

    /// A reader.
    pub fn watch(&self) -> HealthWatch {
        self.0.subscribe()
    }
}
