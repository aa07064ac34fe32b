//! The machine and the ledger together against generated histories of responses, errors, time and shutdown.
//!
//! A little world plays the vendor and the consumer. Each byte of the generated input decides one thing; after every
//! step the rules of the module documentation are checked, and at the end the vendor heals and everything must flow.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::tests::{DELAY, error, policy};
use super::*;
use crate::event::{ContentHash, Identity};
use crate::failure::{CallError, FailureKind};
use crate::ledger::{Ledger, Receipt};
use crate::session::outcomes::Polled;

const MAX_IN_FLIGHT: usize = 12;
const TOKEN_LIFETIME: Duration = Duration::from_secs(600);

struct World {
    machine: Machine,
    ledger: Ledger,
    now: Instant,
    api: ApiVersion,
    // Calls under way.
    lane: Option<Action>,
    acking: Option<(SessionId, Vec<std::sync::Arc<str>>)>,
    refreshing: bool,
    // What the world knows.
    hold_until: Instant,
    token_ends: Instant,
    dead: HashSet<SessionId>,
    sessions: u32,
    created_at: HashMap<SessionId, Instant>,
    subscribed: HashSet<SessionId>,
    delivered_in: HashSet<(SessionId, String)>,
    tokens: Vec<(u64, String)>,
    durable: HashSet<String>,
    lost_answers: HashSet<String>,
    emitted: u32,
    /// Oldest ids that the vendor still holds.
    pending: Vec<String>,
    last_poll: Option<Instant>,
    polls: u32,
    finished: Option<bool>,
    stopping: bool,
}

impl World {
    fn new(declared: usize, from_head: bool, on_shutdown: OnShutdown, api: ApiVersion) -> Self {
        let policy =
            Policy { max_events: 4, max_in_flight: MAX_IN_FLIGHT, declared, on_shutdown, api, ..policy() };
        let now = Instant::now();
        let mut jitter = if from_head { 0.3 } else { 0.9 };
        Self {
            machine: Machine::new(
                policy,
                Box::new(move || {
                    jitter = (jitter * 7.3) % 1.0;
                    jitter
                }),
                None,
            ),
            ledger: Ledger::new(MAX_IN_FLIGHT, api == ApiVersion::V3),
            now,
            api,
            lane: None,
            acking: None,
            refreshing: false,
            hold_until: now,
            token_ends: now,
            dead: HashSet::new(),
            sessions: 0,
            created_at: HashMap::new(),
            subscribed: HashSet::new(),
            delivered_in: HashSet::new(),
            tokens: Vec::new(),
            durable: HashSet::new(),
            lost_answers: HashSet::new(),
            emitted: 0,
            pending: Vec::new(),
            last_poll: None,
            polls: 0,
            finished: None,
            stopping: false,
        }
    }

    fn load(&self) -> Load {
        Load {
            held: self.ledger.held(),
            share: None,
            in_flight: self.ledger.in_flight(),
            ready: self.ledger.ready(),
            oldest_ready: self.ledger.oldest_ready(),
            released: 0,
            ending: false,
            backlog: false,
        }
    }

    /// Asks the machine until it waits, checking every decision. Returns when it wants to be woken.
    fn settle_decisions(&mut self) -> Option<Instant> {
        for _ in 0..100 {
            self.notices();
            let load = self.load();
            match self.machine.next(self.now, &load) {
                Next::Wait(until) => {
                    assert!(
                        until.is_none_or(|until| until > self.now),
                        "a wait that is over is a tight loop"
                    );
                    return until;
                }
                Next::Do(action) => self.start(action, &load),
            }
        }
        panic!("it never waits: {:?}", self.machine);
    }

    fn notices(&mut self) {
        for notice in self.machine.take_notices() {
            match notice {
                Notice::SessionLost { session, .. } => {
                    self.dead.insert(session);
                    self.ledger.end_session();
                }
                Notice::SessionDeleted => self.ledger.end_session(),
                Notice::SessionCreated { .. } => self.ledger.begin_session(),
                _ => {}
            }
        }
    }

    fn start(&mut self, action: Action, load: &Load) {
        let calls = !matches!(action, Action::Abort | Action::Finish { .. });
        if calls {
            assert!(self.now >= self.hold_until, "Retry-After is ignored by {action:?}");
        }
        if calls && action != Action::RefreshToken {
            assert!(self.now < self.token_ends, "a call with a token that has ended");
        }
        match &action {
            Action::CreateSession
            | Action::ListSubscriptions { .. }
            | Action::ChangeSubscription { .. }
            | Action::Poll { .. }
            | Action::DeleteSession { .. } => {
                assert_eq!(self.lane, None, "two calls in the session lane");
            }
            _ => {}
        }
        match &action {
            Action::ListSubscriptions { session }
            | Action::ChangeSubscription { session, .. }
            | Action::Poll { session, .. }
            | Action::Acknowledge { session }
            | Action::DeleteSession { session } => {
                assert!(!self.dead.contains(session), "a dead session is used by {action:?}");
            }
            _ => {}
        }
        match action {
            Action::RefreshToken => {
                assert!(!self.refreshing, "two refreshes");
                self.refreshing = true;
            }
            Action::Poll { ref session, max_events } => {
                assert!(!self.stopping, "a poll after the stop");
                assert!(self.subscribed.contains(session), "a poll before the subscriptions");
                let capacity = self.machine.policy.capacity();
                let keep_alive = max_events == 1
                    && self.last_poll.is_none_or(|at| self.now >= at + DELAY / 2)
                    && self.now >= self.created_at[session] + DELAY / 2;
                assert!(
                    load.held == 0 || load.held + usize::from(max_events) <= capacity || keep_alive,
                    "{max_events} more beside {}",
                    load.held
                );
                (self.last_poll, self.polls) = (Some(self.now), self.polls + 1);
                self.lane = Some(action);
            }
            Action::Acknowledge { session } => {
                assert!(self.acking.is_none(), "two acknowledgements");
                let ids = self.ledger.take_batch(3, self.now);
                for id in ids.iter().map(ToString::to_string) {
                    assert!(self.durable.contains(&id), "{id} is acknowledged before it is durable");
                    assert!(
                        self.delivered_in.contains(&(session.clone(), id.clone())),
                        "{id} is not of {session:?}"
                    );
                }
                if ids.is_empty() {
                    self.machine.acknowledge_skipped();
                } else {
                    self.acking = Some((session, ids));
                }
            }
            Action::Abort => {
                assert!(self.stopping);
                self.lane = None;
            }
            Action::Finish { ended } => {
                assert!(self.stopping && self.tokens.is_empty() && self.ledger.held() == 0);
                self.finished = Some(ended);
            }
            Action::CreateSession
            | Action::ListSubscriptions { .. }
            | Action::ChangeSubscription { .. }
            | Action::DeleteSession { .. } => self.lane = Some(action),
        }
    }

    fn failure(&mut self, choice: u8) -> CallError {
        use FailureKind as K;
        let kinds = [
            K::Server,
            K::Throttled,
            K::Broken,
            K::TimedOut,
            K::Unreadable,
            K::Unauthorized,
            K::Expired,
            K::Forbidden,
        ];
        let kinds = if choice & 0x40 == 0 {
            &kinds[..]
        } else {
            &[K::NotFound, K::Refused, K::TooLarge, K::Unreachable]
        };
        let mut error = error(kinds[usize::from(choice & 7) % kinds.len()]);
        if choice & 0x30 == 0x30 {
            error.retry_after = Some(Duration::from_secs(u64::from(choice & 15)));
        }
        if let Some(wait) = error.retry_after {
            self.hold_until = self.hold_until.max(self.now + wait);
        }
        error
    }

    /// The call of the session lane comes to its end, well or not.
    fn end_lane(&mut self, choice: Option<u8>) {
        let Some(action) = self.lane.take() else { return };
        let failed = choice.map(|choice| self.failure(choice));
        match (action, failed) {
            (Action::CreateSession, None) => {
                self.sessions += 1;
                let id = SessionId::from(format!("s{}", self.sessions).as_str());
                self.created_at.insert(id.clone(), self.now);
                if self.machine.policy.declared == 0 {
                    self.subscribed.insert(id.clone());
                }
                self.machine.session_created(self.now, id, DELAY);
            }
            (Action::CreateSession, Some(error)) => {
                let kind = if error.kind == FailureKind::Expired { FailureKind::Server } else { error.kind };
                self.machine.session_failed(self.now, &CallError { kind, ..error });
            }
            (Action::ListSubscriptions { session }, None) => {
                let changes = if self.subscribed.contains(&session) {
                    vec![]
                } else {
                    (0..self.machine.policy.declared).map(SubscriptionChange::Create).collect()
                };
                self.machine.subscriptions_listed(self.now, changes);
            }
            (Action::ChangeSubscription { session, change }, None) => {
                if change.index().is_some_and(|index| index + 1 == self.machine.policy.declared) {
                    self.subscribed.insert(session);
                }
                self.machine.subscription_changed(self.now);
            }
            (
                Action::ListSubscriptions { session } | Action::ChangeSubscription { session, .. },
                Some(error),
            ) => {
                let forbidden = matches!(error.kind, FailureKind::Forbidden);
                if forbidden || matches!(error.kind, FailureKind::Refused | FailureKind::NotFound) {
                    // What is refused for good need not stand before the first GET.
                    self.subscribed.insert(session.clone());
                }
                if error.kind == FailureKind::Expired {
                    self.dead.insert(session);
                }
                self.machine.subscription_failed(self.now, &error, |index| index.to_string());
            }
            (Action::Poll { session, max_events }, None) => self.deliver(&session, max_events),
            (Action::Poll { session, .. }, Some(error)) => {
                if error.kind == FailureKind::Expired {
                    self.dead.insert(session);
                }
                self.machine.poll_failed(self.now, &error);
            }
            (Action::DeleteSession { .. }, None) => self.machine.deleted(self.now, Ok(())),
            (Action::DeleteSession { .. }, Some(error)) => self.machine.deleted(self.now, Err(&error)),
            (other, _) => panic!("{other:?}"),
        }
    }

    fn deliver(&mut self, session: &SessionId, max_events: u16) {
        let mut fresh = 0;
        let ids: Vec<_> = self.pending.iter().take(max_events.into()).cloned().collect();
        if self.api == ApiVersion::V2 {
            self.pending.drain(..ids.len());
        }
        for id in &ids {
            self.delivered_in.insert((session.clone(), id.clone()));
            let identity = Identity::new(id.as_str(), ContentHash::from_u128(1));
            match self.ledger.receive(&identity, "c", false, self.api == ApiVersion::V2, self.now) {
                Receipt::HandOut(handle) => {
                    fresh += 1;
                    self.tokens.push((handle, id.clone()));
                }
                Receipt::Redelivered | Receipt::NoRoom => {}
            }
        }
        self.machine.polled(self.now, Polled { total: ids.len(), fresh, took: Duration::from_millis(1) });
    }

    fn end_ack(&mut self, choice: Option<u8>) {
        let Some((session, ids)) = self.acking.take() else { return };
        match choice.map(|choice| self.failure(choice)) {
            None => {
                self.ledger.answered(&ids, |_| Some(true), self.now);
                self.forget(&ids);
                self.machine.acknowledged(self.now, true);
            }
            Some(error) => {
                if choice.is_some_and(|choice| choice & 8 != 0) {
                    // Applied, and only the answer is lost.
                    self.forget(&ids);
                    self.lost_answers.extend(ids.iter().map(ToString::to_string));
                }
                if error.kind == FailureKind::Expired {
                    self.dead.insert(session.clone());
                }
                self.machine.acknowledge_failed(self.now, &session, &error);
                self.ledger.not_answered(self.now);
            }
        }
    }

    /// The vendor lets go of acknowledged events.
    fn forget(&mut self, ids: &[std::sync::Arc<str>]) {
        self.pending.retain(|pending| !ids.iter().any(|id| **id == **pending));
    }

    fn end_refresh(&mut self, choice: Option<u8>) {
        if !std::mem::take(&mut self.refreshing) {
            return;
        }
        match choice {
            None => {
                self.token_ends = self.now + TOKEN_LIFETIME;
                self.machine.token_refreshed(self.now, TOKEN_LIFETIME);
            }
            Some(choice) => {
                let error = self.failure(choice & 0x3f);
                self.machine.token_failed(self.now, &error);
            }
        }
    }

    fn settle_token(&mut self, nth: usize, durable: bool) {
        if self.tokens.is_empty() {
            return;
        }
        let (handle, id) = self.tokens.swap_remove(nth % self.tokens.len());
        if durable {
            self.durable.insert(id);
        }
        self.ledger.settle(handle, durable, self.now);
    }

    fn emit(&mut self, count: u8) {
        for _ in 0..count {
            self.emitted += 1;
            self.pending.push(format!("e{}", self.emitted));
        }
    }

    fn step(&mut self, byte: u8, choice: u8) {
        match byte % 16 {
            0..=2 => self.end_lane(None),
            3 => self.end_lane(Some(choice)),
            4 | 5 => self.end_ack(None),
            6 => self.end_ack(Some(choice)),
            7 => self.end_refresh(None),
            8 => self.end_refresh(Some(choice)),
            9 | 10 => self.settle_token(choice.into(), true),
            11 => self.settle_token(choice.into(), choice & 1 == 0),
            12 => self.emit(choice % 7),
            13 => self.now += Duration::from_millis(u64::from(choice)),
            14 => self.now += Duration::from_secs(u64::from(choice)),
            _ if choice >= 0xf8 => {
                self.stopping = true;
                self.machine.stop();
            }
            _ => {
                if let Some(until) = self.settle_decisions() {
                    self.now = until;
                }
            }
        }
        self.settle_decisions();
        assert!(self.ledger.held() <= MAX_IN_FLIGHT || self.api == ApiVersion::V2);
    }

    /// Everything works from now on; the consumer settles all, or (`stalled`) nothing.
    fn heal(&mut self, stalled: bool, until: impl Fn(&Self) -> bool) {
        for _ in 0..4000 {
            if until(self) || self.finished.is_some() {
                return;
            }
            let wake = self.settle_decisions();
            if self.finished.is_some() {
                return;
            }
            let idle = self.lane.is_none() && self.acking.is_none() && !self.refreshing;
            let nothing_to_settle = stalled || self.tokens.is_empty();
            if idle && nothing_to_settle {
                self.now = wake.unwrap_or_else(|| panic!("it waits for nothing: {:?}", self.machine));
            }
            self.end_refresh(None);
            self.end_lane(None);
            self.end_ack(None);
            while !stalled && !self.tokens.is_empty() {
                self.settle_token(0, true);
            }
        }
        panic!("it never came to its end: {:?} {:?}", self.machine, self.load());
    }
}

fn histories() -> impl Strategy<Value = (Vec<(u8, u8)>, usize, bool, bool, bool)> {
    (
        prop::collection::vec(any::<(u8, u8)>(), 0..200),
        0usize..3,
        any::<bool>(),
        any::<bool>(),
        prop::bool::weighted(0.2),
    )
}

fn world(declared: usize, head: bool, delete: bool, v2: bool) -> World {
    let on_shutdown = if delete { OnShutdown::Delete } else { OnShutdown::Keep };
    World::new(declared, head, on_shutdown, if v2 { ApiVersion::V2 } else { ApiVersion::V3 })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// No rule is broken on the way; and when the vendor heals, everything that it holds is acknowledged, or (stopped)
    /// the machine finishes.
    #[test]
    fn every_history_keeps_the_rules_and_heals((steps, declared, head, delete, v2) in histories()) {
        let mut world = world(declared, head, delete, v2);
        for (byte, choice) in steps {
            if world.finished.is_some() {
                return Ok(());
            }
            world.step(byte, choice);
        }
        if world.stopping {
            world.heal(false, |_| false);
            prop_assert_eq!(world.finished, Some(false));
        } else {
            world.emit(9);
            world.heal(false, |world| world.pending.is_empty() && world.tokens.is_empty());
            let polls = world.polls;
            world.heal(false, |world| world.polls > polls + 2);
            world.stopping = true;
            world.machine.stop();
            world.heal(false, |_| false);
            // What a v2 consumer gives back comes again from the spool, which this world has not.
            if !v2 {
                prop_assert_eq!(world.durable.len(), world.emitted as usize);
                prop_assert!(world.ledger.unacknowledged() <= world.lost_answers.len());
            }
        }
    }

    /// A consumer that settles nothing never costs the session.
    #[test]
    fn a_stalled_consumer_is_kept_alive((steps, declared, head, delete, _) in histories()) {
        let mut world = world(declared, head, delete, false);
        for (byte, choice) in steps.into_iter().filter(|(byte, _)| byte % 16 != 15) {
            world.step(byte, choice);
        }
        world.emit(30);
        let start = world.polls;
        world.heal(true, |world| world.polls > start + 2);
        for _ in 0..20 {
            let (polls, at) = (world.polls, world.last_poll.unwrap());
            world.heal(true, |world| world.polls > polls);
            prop_assert!(world.last_poll.unwrap() <= at + DELAY / 2);
        }
    }
}
