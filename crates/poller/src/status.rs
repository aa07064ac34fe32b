//! What a poller is doing, for people and for readiness checks.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

/// The state of one source at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceStatus {
    /// What it is doing.
    pub phase: Phase,
    /// The session answered its last GET, and has its subscriptions.
    pub session_up: bool,
    /// When the session was created, by this machine's clock.
    pub session_created_at: Option<SystemTime>,
    /// The inactivity delay that counts: the smaller of asked and granted.
    pub granted_inactivity: Option<Duration>,
    /// When the last GET /events was sent.
    pub last_poll_at: Option<Instant>,
    /// When the access token ends.
    pub token_expires_at: Option<Instant>,
    /// Why the session is not up; or, while it is, what is wrong all the same (a refused subscription). A sentence.
    pub reason: Option<String>,
    /// Events handed out and not acknowledged.
    pub unacknowledged: usize,
    /// When the oldest of them was handed out.
    pub oldest_unacknowledged: Option<Instant>,
}

/// What a poller is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Phase {
    /// It has not polled yet.
    #[default]
    Starting,
    /// It polls.
    Polling,
    /// What it handed out must be settled first; it only keeps the session alive.
    Stalled,
    /// A call failed, and it waits before the next.
    BackingOff,
    /// The session is gone and a new one is being made.
    Recreating,
    /// It was asked to stop and waits for what it handed out.
    Stopping,
    /// It is over.
    Stopped,
}

impl Phase {
    /// In words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Polling => "polling",
            Self::Stalled => "stalled",
            Self::BackingOff => "backing off",
            Self::Recreating => "recreating",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
