//! What happened, and what it changes.

use std::time::{Duration, Instant};

use super::{Course, Job, Machine, Mode, Notice, Pace, Proof, Session, Subscriptions};
use crate::failure::{CallError, FailureKind};
use crate::observe::Cause;
use crate::store::SessionId;

/// Refusals of a session in a row, other than "expired", after which it is given up.
const MAX_ODD_REFUSALS: u32 = 3;
/// First and longest wait between polls that return at once with nothing new.
const FRUITLESS_WAIT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Share of the token's life after which it is refreshed.
const REFRESH_AT: f64 = 0.8;
/// A token is never taken to live shorter than this, so that a nonsensical lifetime causes no storm of refreshes.
const MIN_TOKEN_LIFETIME: Duration = Duration::from_secs(1);

/// What a GET brought.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Polled {
    /// Entries in the response.
    pub(crate) total: usize,
    /// Those that were not known.
    pub(crate) fresh: usize,
    /// From sending to the end of the answer.
    pub(crate) took: Duration,
}

/// A refresh that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefreshFailed {
    /// It is tried again.
    Retry,
    /// There never was a token, and the answer was "no".
    RefusedAtStart,
}

impl Machine {
    /// A new token; `sent_at` is when it was asked for.
    pub(crate) fn token_refreshed(&mut self, sent_at: Instant, lifetime: Duration) {
        let lifetime = lifetime.max(MIN_TOKEN_LIFETIME);
        let token = &mut self.token;
        token.generation += 1;
        token.expires_at = Some(sent_at + lifetime);
        token.refresh_at = Some(sent_at + lifetime.mul_f64(REFRESH_AT));
        token.rejected = false;
        token.refreshing = false;
        token.backoff.reset();
        token.trouble = None;
    }

    /// The token endpoint gave none.
    pub(crate) fn token_failed(&mut self, now: Instant, error: &CallError) -> RefreshFailed {
        self.hold(now, error);
        self.token.refreshing = false;
        let refused = matches!(error.kind, FailureKind::Credentials | FailureKind::Secret);
        if refused && self.token.generation == 0 {
            return RefreshFailed::RefusedAtStart;
        }
        self.token.backoff.failed(now, &self.policy.retry, &mut self.jitter);
        self.token.trouble = Some(error.to_string());
        self.tell_backing_off(now, self.token.backoff, error);
        RefreshFailed::Retry
    }

    /// POST session worked.
    pub(crate) fn session_created(&mut self, now: Instant, id: SessionId, granted: Duration) {
        self.lane.job = None;
        if self.dead.contains(&id) {
            let error = CallError {
                operation: crate::observe::Operation::SessionCreate,
                kind: FailureKind::Unreadable,
                retry_after: None,
                detail: "the vendor gave a session id again that it had called expired".to_owned(),
            };
            self.lane_failed(now, &error);
            return;
        }
        self.lane_worked();
        self.session = Some(Session {
            id,
            inactivity_delay: granted.min(self.policy.inactivity_delay),
            touched_at: Some(now),
            proof: Proof::Created,
            odd_refusals: 0,
            subscriptions: Subscriptions::new(&self.policy),
        });
        self.ever_up = true;
        self.mode = Mode::Overlap;
        self.pace = Pace::default();
        self.notices.push(Notice::SessionCreated { cause: self.next_cause });
    }

    /// POST session failed.
    pub(crate) fn session_failed(&mut self, now: Instant, error: &CallError) {
        self.lane.job = None;
        self.lane_failed(now, error);
    }

    /// A GET was answered.
    pub(crate) fn polled(&mut self, now: Instant, polled: Polled) {
        let Some(Job::Poll { overlapped, keep_alive }) = self.lane.job.take() else { return };
        let streak = self.lane.backoff.streak();
        self.lane_worked();
        self.lane.backoff.reset();
        if streak > 0 {
            self.notices.push(Notice::Recovered { streak });
        }
        self.repeated_for_connection = false;
        self.max_events = self.max_events.saturating_mul(2).min(self.policy.max_events);
        self.ever_up = true;
        if let Some(session) = &mut self.session {
            if session.proof == Proof::Resumed {
                self.notices.push(Notice::SessionResumed);
            }
            session.proof = Proof::Confirmed;
            session.odd_refusals = 0;
        }
        self.set_pace(now, &polled);
        if !keep_alive && polled.total > 0 {
            self.set_mode(overlapped, &polled);
        }
    }

    fn set_mode(&mut self, overlapped: bool, polled: &Polled) {
        let before = self.mode;
        let mostly_fresh = polled.fresh * 10 >= polled.total * 9;
        self.mode = match self.mode {
            _ if overlapped && mostly_fresh => Mode::Overlap,
            _ if overlapped => Mode::Serial { polls: 0 },
            Mode::Serial { polls } => Mode::Serial { polls: polls.saturating_add(1) },
            Mode::Overlap => Mode::Overlap,
        };
        match (before, self.mode) {
            (Mode::Overlap, Mode::Serial { .. }) => self.notices.push(Notice::Serial),
            (Mode::Serial { .. }, Mode::Overlap) => self.notices.push(Notice::Overlap),
            _ => {}
        }
    }

    /// A poll that returns at once with nothing new (the vendor does not hold it, or repeats what cannot be
    /// acknowledged) must not become a tight loop.
    fn set_pace(&mut self, now: Instant, polled: &Polled) {
        let at_once = polled.took < self.policy.poll_timeout / 4;
        if polled.fresh > 0 || !at_once {
            self.pace = Pace::default();
            return;
        }
        let (first, longest) = FRUITLESS_WAIT;
        let wait = first.saturating_mul(1 << self.pace.fruitless.min(10)).min(longest);
        self.pace.fruitless = self.pace.fruitless.saturating_add(1);
        self.pace.until = Some(now + wait);
    }

    /// A GET failed.
    pub(crate) fn poll_failed(&mut self, now: Instant, error: &CallError) {
        self.lane.job = None;
        match error.kind {
            FailureKind::Expired => return self.lose_session(now, Cause::Expired, error),
            FailureKind::NotFound | FailureKind::Refused => {
                let odd = self.session.as_mut().map_or(0, |session| {
                    session.odd_refusals += 1;
                    session.odd_refusals
                });
                if odd >= MAX_ODD_REFUSALS {
                    return self.lose_session(now, Cause::Lost, error);
                }
            }
            // A keep-alive connection that the other side had closed: repeated at once, once.
            FailureKind::Broken if !self.repeated_for_connection => {
                self.repeated_for_connection = true;
                return self.hold(now, error);
            }
            FailureKind::TooLarge => self.max_events = (self.max_events / 2).max(1),
            _ => {}
        }
        self.lane_failed(now, error);
    }

    /// The acknowledgement was answered; `progressed` when the answer spoke of at least one id of the batch.
    pub(crate) fn acknowledged(&mut self, now: Instant, progressed: bool) {
        self.acks.job = None;
        self.acks.repeated_for_token = false;
        self.acks.trouble = None;
        if progressed {
            self.acks.backoff.reset();
        } else {
            self.acks.backoff.failed(now, &self.policy.retry, &mut self.jitter);
        }
    }

    /// There was nothing to acknowledge after all.
    pub(crate) fn acknowledge_skipped(&mut self) {
        self.acks.job = None;
    }

    /// The acknowledgement of `session` failed; it is repeated, which is safe.
    pub(crate) fn acknowledge_failed(&mut self, now: Instant, session: &SessionId, error: &CallError) {
        self.acks.job = None;
        if error.kind == FailureKind::Expired {
            if self.session() == Some(session) {
                self.lose_session(now, Cause::Expired, error);
            } else {
                self.hold(now, error);
            }
            return;
        }
        self.hold(now, error);
        if error.kind == FailureKind::Unauthorized {
            self.token.rejected |= self.acks.generation == self.token.generation;
            if !self.acks.repeated_for_token {
                self.acks.repeated_for_token = true;
                return;
            }
            self.acks.repeated_for_token = false;
        }
        self.acks.backoff.failed(now, &self.policy.retry, &mut self.jitter);
        self.acks.trouble = Some(error.to_string());
        self.tell_backing_off(now, self.acks.backoff, error);
    }

    /// DELETE session was answered or failed.
    pub(crate) fn deleted(&mut self, now: Instant, result: Result<(), &CallError>) {
        self.lane.job = None;
        if let Err(error) = result {
            self.hold(now, error);
        }
        let gone = match result {
            Ok(()) => true,
            Err(error) => matches!(error.kind, FailureKind::Expired | FailureKind::NotFound),
        };
        if gone {
            self.delete_done = true;
            if let Some(session) = self.session.take() {
                self.bury(session.id);
            }
            self.notices.push(Notice::SessionDeleted);
        } else if let Err(error) = result {
            self.lane_failed(now, error);
        }
    }

    /// An end event was acknowledged: once everything before it is, the session is deleted.
    pub(crate) fn end_event_acknowledged(&mut self) {
        self.ended = true;
    }

    /// Polling is over.
    pub(crate) fn stop(&mut self) {
        if self.course == Course::Running {
            self.course = Course::Stopping;
        }
    }

    /// A call of the session lane worked. The streak stays until a GET works: sessions that can be created and never
    /// polled must not be created in a tight loop.
    pub(super) fn lane_worked(&mut self) {
        self.lane.repeated_for_token = false;
        self.lane.trouble = None;
    }

    pub(super) fn lane_failed(&mut self, now: Instant, error: &CallError) {
        self.hold(now, error);
        if error.kind == FailureKind::Unauthorized {
            self.token.rejected |= self.lane.generation == self.token.generation;
            if !self.lane.repeated_for_token {
                self.lane.repeated_for_token = true;
                return;
            }
            self.lane.repeated_for_token = false;
        }
        self.lane.backoff.failed(now, &self.policy.retry, &mut self.jitter);
        self.lane.trouble = Some(error.to_string());
        self.tell_backing_off(now, self.lane.backoff, error);
    }

    /// The session is dead. One that never answered a GET counts as a failure, another is replaced at once.
    pub(super) fn lose_session(&mut self, now: Instant, cause: Cause, error: &CallError) {
        self.hold(now, error);
        let Some(session) = self.session.take() else { return };
        self.acks.backoff.reset();
        self.acks.trouble = None;
        self.lane.repeated_for_token = false;
        self.next_cause = cause;
        if session.proof == Proof::Created || cause == Cause::Lost {
            self.lane.backoff.failed(now, &self.policy.retry, &mut self.jitter);
        }
        self.lane.trouble = Some(error.to_string());
        self.bury(session.id.clone());
        self.notices.push(Notice::SessionLost { session: session.id, cause });
    }

    fn bury(&mut self, id: SessionId) {
        if self.dead.insert(id.clone()) {
            self.dead_order.push_back(id);
        }
        if self.dead_order.len() > super::MAX_DEAD_SESSIONS
            && let Some(oldest) = self.dead_order.pop_front()
        {
            self.dead.remove(&oldest);
        }
    }

    pub(super) fn hold(&mut self, now: Instant, error: &CallError) {
        if let Some(wait) = error.retry_after {
            self.hold_until = self.hold_until.max(Some(now + wait));
        }
    }

    fn tell_backing_off(&mut self, now: Instant, backoff: crate::backoff::Backoff, error: &CallError) {
        let until = self.hold_until.max(backoff.until());
        self.notices.push(Notice::BackingOff {
            streak: backoff.streak(),
            wait: until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now)),
            detail: error.to_string(),
        });
    }
}
