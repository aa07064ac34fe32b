//! What can be seen of the machine from outside: for the status, and for the loop.

use std::time::{Duration, Instant};

use super::{Course, Machine, Notice, Proof};
use crate::status::Phase;
use crate::store::SessionId;

impl Machine {
    /// The session's id, where there is one that is not dead.
    pub(crate) fn session(&self) -> Option<&SessionId> {
        self.session.as_ref().map(|session| &session.id)
    }

    /// The inactivity delay that counts.
    pub(crate) fn inactivity_delay(&self) -> Option<Duration> {
        self.session.as_ref().map(|session| session.inactivity_delay)
    }

    pub(crate) fn last_poll_at(&self) -> Option<Instant> {
        self.last_poll_at
    }

    pub(crate) fn token_expires_at(&self) -> Option<Instant> {
        self.token.expires_at
    }

    /// An end event was acknowledged.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// What there is to tell since the last call.
    pub(crate) fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// The session works as far as is known.
    pub(crate) fn is_up(&self, now: Instant) -> bool {
        let token_lost = self.token.trouble.is_some() && !self.token.usable(now);
        !token_lost
            && self
                .session
                .as_ref()
                .is_some_and(|session| session.subscriptions.applied() && session.proof != Proof::Resumed)
            && self.lane.trouble.is_none()
    }

    pub(crate) fn phase(&self, now: Instant) -> Phase {
        let backing_off = self.lane.job.is_none()
            && self.hold_until.max(self.lane.backoff.until()).is_some_and(|at| now < at);
        match self.course {
            Course::Stopping => Phase::Stopping,
            Course::Finished => Phase::Stopped,
            Course::Running if backing_off || (self.token.trouble.is_some() && !self.token.usable(now)) => {
                Phase::BackingOff
            }
            Course::Running if !self.ever_up => Phase::Starting,
            Course::Running if !self.is_up(now) => Phase::Recreating,
            Course::Running if self.stalled => Phase::Stalled,
            Course::Running => Phase::Polling,
        }
    }

    /// Why it is not up, or what is wrong all the same.
    pub(crate) fn reason(&self, now: Instant) -> Option<String> {
        let token = self.token.trouble.clone().filter(|_| !self.token.usable(now));
        let refused = || self.session.as_ref().and_then(|session| session.subscriptions.refusals());
        token
            .or_else(|| self.lane.trouble.clone())
            .or_else(|| self.acks.trouble.clone())
            .or_else(refused)
            .or_else(|| (!self.is_up(now)).then(|| "the session is being set up".to_owned()))
    }
}
