//! The session's state machine: given what happened and the time, what next? No I/O, no clock, no randomness of its own.
//!
//! Recovery story: a call that fails is repeated with backoff, for ever. A session that the vendor calls invalid or
//! expired is dead: its id is never used again, a new one is created, gets the declared subscriptions, and only then is
//! polled. A rejected token is refreshed once and the call repeated once before it counts as a failure.
//!
//! Three lanes, each with at most one call under way:
//!
//! ```text
//! token lane     refresh … refresh …
//! session lane   create → list → create/update subscriptions → GET → GET → …        (never two GETs)
//! ack lane                                                     POST → POST → …      (beside a GET)
//! ```
//!
//! Pace of the GETs. *Serial*: the next GET waits until everything handed out is acknowledged or released. *Overlap*: it
//! runs meanwhile, while there is room for a whole batch. Overlap is kept up as long as the vendor hands out fresh ids to
//! an overlapped GET (90 % of them); where it hands out the same head again, serial it is, with a probe now and then.
//! When neither may poll, a GET with `maxEvents=1` is sent after half of the inactivity delay: the session must not die
//! because a broker is down.
//!
//! [`Machine::next`] decides; `outcomes.rs` takes in what happened.

mod outcomes;
mod reconcile;
mod view;

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use viaduct_faults::{Mistake, makes};

use crate::backoff::{Backoff, Jitter};
use crate::observe::Cause;
use crate::settings::{ApiVersion, OnShutdown, RetrySettings, SourceSettings};
use crate::store::SessionId;
use crate::subscriptions::SubscriptionChange;
pub(crate) use outcomes::{Polled, RefreshFailed};
use reconcile::Subscriptions;

/// Slots of `max_in_flight` that only keep-alive polls may fill.
const RESERVED_FOR_KEEP_ALIVE: usize = 64;
/// Serial polls between two probes of overlap.
const SERIAL_POLLS_PER_PROBE: u32 = 50;
/// How long a not yet full batch of acknowledgements waits for the tokens that are about to be settled.
const ACKNOWLEDGE_LINGER: Duration = Duration::from_millis(2);
/// Most ids in one acknowledgement.
pub(crate) const MAX_ACKNOWLEDGED_PER_CALL: usize = 1000;
/// How long deleting the session is tried at the end.
const DELETE_PATIENCE: Duration = Duration::from_secs(10);
/// Dead session ids that are remembered.
const MAX_DEAD_SESSIONS: usize = 1024;

/// What of the settings decides.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) api: ApiVersion,
    pub(crate) max_events: u16,
    pub(crate) max_in_flight: usize,
    pub(crate) inactivity_delay: Duration,
    pub(crate) poll_timeout: Duration,
    pub(crate) on_shutdown: OnShutdown,
    pub(crate) retry: RetrySettings,
    /// How many subscriptions are declared.
    pub(crate) declared: usize,
    /// Whether those that are not declared are deleted.
    pub(crate) prune: bool,
}

impl Policy {
    pub(crate) fn of(settings: &SourceSettings) -> Self {
        Self {
            api: settings.api,
            max_events: settings.max_events,
            max_in_flight: settings.max_in_flight,
            inactivity_delay: settings.session.inactivity_delay,
            poll_timeout: settings.session.poll_timeout,
            on_shutdown: settings.session.on_shutdown,
            retry: settings.retry,
            declared: if makes(Mistake::NoSubscriptions) { 0 } else { settings.subscriptions.len() },
            prune: settings.prune,
        }
    }

    /// What ordinary polls may fill: `max_in_flight` without the reserve (at most half of it is reserved).
    fn capacity(&self) -> usize {
        self.max_in_flight - RESERVED_FOR_KEEP_ALIVE.min(self.max_in_flight / 2)
    }
}

/// What the ledger holds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    /// Handed out or awaiting an acknowledgement.
    pub(crate) held: usize,
    /// How much ordinary polls may fill beside the other sources of the process, where that is less than alone.
    pub(crate) share: Option<usize>,
    /// Handed out and not settled.
    pub(crate) in_flight: usize,
    /// Ids that may be acknowledged now.
    pub(crate) ready: usize,
    /// Since when the first of them waits.
    pub(crate) oldest_ready: Option<Instant>,
    /// Given back by the consumer; the vendor will deliver them again.
    pub(crate) released: usize,
    /// An event that ends the session is held.
    pub(crate) ending: bool,
    /// Spooled responses wait to be handed out (v2).
    pub(crate) backlog: bool,
}

/// One thing to do. Everything that calls the vendor is exactly one HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    RefreshToken,
    CreateSession,
    ListSubscriptions {
        session: SessionId,
    },
    ChangeSubscription {
        session: SessionId,
        change: SubscriptionChange,
    },
    Poll {
        session: SessionId,
        max_events: u16,
    },
    Acknowledge {
        session: SessionId,
    },
    DeleteSession {
        session: SessionId,
    },
    /// Drop the session lane's call.
    Abort,
    Finish {
        ended: bool,
    },
}

/// What next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    Do(Action),
    /// Nothing until something happens or this time comes.
    Wait(Option<Instant>),
}

/// Something worth telling: the loop turns it into logs, counters, and changes of the ledger and the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    SessionCreated { cause: Cause },
    SessionResumed,
    SessionLost { session: SessionId, cause: Cause },
    SessionDeleted,
    SubscriptionsApplied { created: usize, updated: usize, deleted: usize },
    SubscriptionRefused { detail: String },
    BackingOff { streak: u32, wait: Duration, detail: String },
    Recovered { streak: u32 },
    Serial,
    Overlap,
}

/// A kind of call, its failures, and whether one is under way.
#[derive(Debug)]
struct Lane<J> {
    job: Option<J>,
    /// The token generation that the call under way was sent with.
    generation: u64,
    backoff: Backoff,
    /// A 401 was answered and the call is being repeated with a new token.
    repeated_for_token: bool,
    /// Why the last call failed, until one works.
    trouble: Option<String>,
}

impl<J> Default for Lane<J> {
    fn default() -> Self {
        Self {
            job: None,
            generation: 0,
            backoff: Backoff::default(),
            repeated_for_token: false,
            trouble: None,
        }
    }
}

/// A call of the session lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    Create,
    List,
    Change,
    Poll { overlapped: bool, keep_alive: bool },
    Delete,
}

#[derive(Debug, Default)]
struct Token {
    /// Counts the tokens; 0 before the first.
    generation: u64,
    expires_at: Option<Instant>,
    refresh_at: Option<Instant>,
    /// The vendor answered 401 to it.
    rejected: bool,
    refreshing: bool,
    backoff: Backoff,
    trouble: Option<String>,
}

impl Token {
    fn usable(&self, now: Instant) -> bool {
        !self.rejected && self.expires_at.is_some_and(|at| now < at)
    }
}

/// How far a session is known to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// It was saved by an earlier run.
    Resumed,
    /// The vendor just created it.
    Created,
    /// A GET worked.
    Confirmed,
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    /// The smaller of asked and granted.
    inactivity_delay: Duration,
    /// The last GET was sent, or the session created, at this time; `None` for a resumed one before its first GET.
    touched_at: Option<Instant>,
    proof: Proof,
    /// 400s and 404s in a row that did not say "expired".
    odd_refusals: u32,
    subscriptions: Subscriptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Overlap,
    Serial { polls: u32 },
}

impl Mode {
    /// Serial, with a probe of overlap now and then.
    fn may_overlap(self) -> bool {
        match self {
            Self::Overlap => true,
            Self::Serial { polls } => polls >= SERIAL_POLLS_PER_PROBE,
        }
    }
}

/// Slows down polls that bring nothing new and return at once.
#[derive(Debug, Default)]
struct Pace {
    fruitless: u32,
    until: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    Running,
    Stopping,
    Finished,
}

/// The earliest of the times that something waits for, and whether something waits for a token.
#[derive(Debug, Default)]
struct Waits {
    until: Option<Instant>,
    token: bool,
}

impl Waits {
    fn at(&mut self, at: Instant) {
        self.until = Some(self.until.map_or(at, |until| until.min(at)));
    }
}

/// See the module's documentation.
pub(crate) struct Machine {
    policy: Policy,
    jitter: Jitter,
    token: Token,
    session: Option<Session>,
    next_cause: Cause,
    ever_up: bool,
    dead: HashSet<SessionId>,
    dead_order: VecDeque<SessionId>,
    lane: Lane<Job>,
    acks: Lane<()>,
    /// `Retry-After`: no call before this.
    hold_until: Option<Instant>,
    mode: Mode,
    pace: Pace,
    /// `maxEvents` of ordinary polls; smaller than the setting after a response that was too large.
    max_events: u16,
    /// A GET on a broken connection was repeated at once; not twice in a row.
    repeated_for_connection: bool,
    last_poll_at: Option<Instant>,
    stalled: bool,
    course: Course,
    /// An end event was acknowledged.
    ended: bool,
    delete_by: Option<Instant>,
    delete_done: bool,
    notices: Vec<Notice>,
}

impl Machine {
    /// `resumed` is a session of an earlier run with its granted inactivity delay.
    pub(crate) fn new(policy: Policy, jitter: Jitter, resumed: Option<(SessionId, Duration)>) -> Self {
        let session = resumed.map(|(id, granted)| Session {
            id,
            inactivity_delay: granted.min(policy.inactivity_delay),
            touched_at: None,
            proof: Proof::Resumed,
            odd_refusals: 0,
            subscriptions: Subscriptions::new(&policy),
        });
        Self {
            max_events: policy.max_events,
            policy,
            jitter,
            token: Token::default(),
            session,
            next_cause: Cause::Start,
            ever_up: false,
            dead: HashSet::new(),
            dead_order: VecDeque::new(),
            lane: Lane::default(),
            acks: Lane::default(),
            hold_until: None,
            mode: Mode::Overlap,
            pace: Pace::default(),
            repeated_for_connection: false,
            last_poll_at: None,
            stalled: false,
            course: Course::Running,
            ended: false,
            delete_by: None,
            delete_done: false,
            notices: Vec::new(),
        }
    }

    /// What next. To be called until it says to wait.
    pub(crate) fn next(&mut self, now: Instant, load: &Load) -> Next {
        if self.course == Course::Finished {
            return Next::Wait(None);
        }
        let mut waits = Waits::default();
        let action = self
            .next_acknowledgement(now, load, &mut waits)
            .or_else(|| self.next_in_session(now, load, &mut waits))
            .or_else(|| self.next_refresh(now, &mut waits));
        action.map_or(Next::Wait(waits.until), Next::Do)
    }

    fn next_acknowledgement(&mut self, now: Instant, load: &Load, waits: &mut Waits) -> Option<Action> {
        let session = self.session.as_ref().filter(|_| load.ready > 0 && self.acks.job.is_none())?.id.clone();
        let gathering = load.in_flight > 0 && load.ready < MAX_ACKNOWLEDGED_PER_CALL;
        if let Some(until) = load.oldest_ready.map(|since| since + ACKNOWLEDGE_LINGER)
            && gathering
            && now < until
        {
            waits.at(until);
            return None;
        }
        self.call_is_due(now, self.acks.backoff.until(), waits).then(|| {
            self.acks.job = Some(());
            self.acks.generation = self.token.generation;
            Action::Acknowledge { session }
        })
    }

    fn next_in_session(&mut self, now: Instant, load: &Load, waits: &mut Waits) -> Option<Action> {
        let stopping = self.course == Course::Stopping;
        if let Some(job) = self.lane.job {
            // What a v2 GET returns exists nowhere else, so it may come to its end.
            let spared = matches!(job, Job::Delete)
                || (matches!(job, Job::Poll { .. }) && self.policy.api == ApiVersion::V2);
            if stopping && !spared {
                self.lane.job = None;
                return Some(Action::Abort);
            }
            return None;
        }
        let settled = load.held == 0 && self.acks.job.is_none();
        if stopping || (self.ended && settled && load.released == 0) {
            return if settled { self.next_at_the_end(now, waits) } else { None };
        }
        if self.session.is_none() {
            return self.start(Job::Create, now, waits, |_| Action::CreateSession);
        }
        self.next_subscription_call(now, waits).unwrap_or_else(|| self.next_poll(now, load, waits))
    }

    fn next_at_the_end(&mut self, now: Instant, waits: &mut Waits) -> Option<Action> {
        let wanted = self.ended || self.policy.on_shutdown == OnShutdown::Delete;
        if let Some(session) = &self.session
            && wanted
            && !self.delete_done
        {
            let by = *self.delete_by.get_or_insert(now + DELETE_PATIENCE);
            if now < by {
                let session = session.id.clone();
                waits.at(by);
                return self.start(Job::Delete, now, waits, |_| Action::DeleteSession { session });
            }
        }
        self.course = Course::Finished;
        Some(Action::Finish { ended: self.ended })
    }

    fn next_poll(&mut self, now: Instant, load: &Load, waits: &mut Waits) -> Option<Action> {
        let session = self.session.as_ref()?;
        let capacity = self.policy.capacity();
        let whole = usize::from(self.max_events).min(capacity) as u16;
        let waits_for_end = load.ending || (self.ended && load.held > 0);
        let share = load.share.map_or(capacity, |share| share.min(capacity));
        let room = load.held + usize::from(whole) <= share && self.mode.may_overlap();
        let ordinary = !waits_for_end && !load.backlog && (load.held == 0 || room);
        self.stalled = !ordinary;
        let keep_alive_at = session.touched_at.map_or(now, |at| at + session.inactivity_delay / 2);
        let keep_alive = now >= keep_alive_at;
        if !keep_alive {
            waits.at(keep_alive_at);
        }
        let paced = self.pace.until.filter(|&until| now < until);
        let max_events = match (ordinary, paced) {
            (true, None) => whole,
            (true, Some(_)) if keep_alive => whole,
            (true, Some(until)) => {
                waits.at(until);
                return None;
            }
            (false, _) if keep_alive => 1,
            (false, _) => return None,
        };
        let id = session.id.clone();
        let job = Job::Poll { overlapped: ordinary && load.held > 0, keep_alive: !ordinary };
        self.start(job, now, waits, |machine| {
            machine.last_poll_at = Some(now);
            if let Some(session) = &mut machine.session {
                session.touched_at = Some(now);
            }
            Action::Poll { session: id, max_events }
        })
    }

    fn next_refresh(&mut self, now: Instant, waits: &mut Waits) -> Option<Action> {
        if self.token.refreshing {
            return None;
        }
        let ahead = match self.token.refresh_at {
            Some(at) if self.course == Course::Running && self.token.usable(now) => {
                if now < at {
                    waits.at(at);
                }
                now >= at
            }
            _ => false,
        };
        if !(waits.token || ahead) || !self.is_due(now, self.token.backoff.until(), waits) {
            return None;
        }
        self.token.refreshing = true;
        Some(Action::RefreshToken)
    }

    /// Starts a call of the session lane if it may go out now.
    fn start(
        &mut self,
        job: Job,
        now: Instant,
        waits: &mut Waits,
        action: impl FnOnce(&mut Self) -> Action,
    ) -> Option<Action> {
        self.call_is_due(now, self.lane.backoff.until(), waits).then(|| {
            self.lane.job = Some(job);
            self.lane.generation = self.token.generation;
            action(self)
        })
    }

    fn call_is_due(&self, now: Instant, backoff: Option<Instant>, waits: &mut Waits) -> bool {
        let due = self.is_due(now, backoff, waits);
        if due && !self.token.usable(now) {
            waits.token = true;
        }
        due && self.token.usable(now)
    }

    fn is_due(&self, now: Instant, backoff: Option<Instant>, waits: &mut Waits) -> bool {
        match self.hold_until.max(backoff).filter(|&at| now < at) {
            Some(at) => {
                waits.at(at);
                false
            }
            None => true,
        }
    }
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine")
            .field("session", &self.session)
            .field("lane", &self.lane)
            .field("acks", &self.acks)
            .field("token", &self.token)
            .field("hold_until", &self.hold_until)
            .field("mode", &self.mode)
            .field("course", &self.course)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod histories;
#[cfg(test)]
mod tests;
