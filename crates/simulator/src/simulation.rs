//! The state of a simulation, and the lock around it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::conduct::{Conduct, Told};
use crate::fault::{FaultPlan, Operation};
use crate::fault_picker::FaultPicker;
use crate::organisation::{Inbox, Organisation};
use crate::report::Report;
use crate::session::{End, Sessions};
use crate::settings::Settings;
use crate::tokens::Tokens;

/// A running simulation.
pub(crate) struct Simulation {
    pub(crate) settings: Settings,
    core: Mutex<Core>,
    /// Wakes the GET /events that wait: something may be there for them, or their session has ended.
    pub(crate) wake: Notify,
    /// Whether acknowledge requests are held back.
    pub(crate) hold: watch::Sender<Hold>,
    pub(crate) shutdown: CancellationToken,
}

/// Whether acknowledge requests are held back, and how often they were let go: a release and a new hold in quick
/// succession still let go what was held before.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hold {
    pub(crate) on: bool,
    pub(crate) releases: u64,
}

/// What the lock protects.
pub(crate) struct Core {
    pub(crate) organisation: Organisation,
    pub(crate) sessions: Sessions,
    pub(crate) tokens: Tokens,
    pub(crate) picker: FaultPicker,
    pub(crate) plan: FaultPlan,
    pub(crate) conduct: Conduct,
    pub(crate) acknowledged_again: u64,
    pub(crate) acknowledge_not_found: u64,
    /// Acknowledge requests held back: their ids, by serial number.
    pub(crate) held: BTreeMap<u64, Vec<String>>,
    requests: BTreeMap<(String, String), u64>,
    faults: BTreeMap<String, u64>,
    serial: u64,
}

impl fmt::Debug for Simulation {
    /// Without tokens and events.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Simulation {
    pub(crate) fn new(settings: Settings) -> Arc<Self> {
        let now = Instant::now();
        let core = Core {
            organisation: Organisation::new(&settings, now, clock::now_ms()),
            sessions: Sessions::default(),
            tokens: Tokens::default(),
            picker: FaultPicker::new(settings.faults.clone(), settings.seed),
            plan: settings.faults.clone(),
            conduct: Conduct::new(now),
            acknowledged_again: 0,
            acknowledge_not_found: 0,
            held: BTreeMap::new(),
            requests: BTreeMap::new(),
            faults: BTreeMap::new(),
            serial: 0,
        };
        Arc::new(Self {
            settings,
            core: Mutex::new(core),
            wake: Notify::new(),
            hold: watch::Sender::new(Hold::default()),
            shutdown: CancellationToken::new(),
        })
    }

    /// The state, with the sessions ended whose time is up.
    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        let inboxes = core.sessions.sweep(Instant::now());
        if !inboxes.is_empty() {
            core.take_back(inboxes);
            self.wake.notify_waiters();
        }
        core
    }

    pub(crate) fn report(&self) -> Report {
        let core = self.core();
        let mut report = Report {
            org: self.settings.org.clone(),
            seed: self.settings.seed,
            waiting: core.organisation.emission.waiting(Instant::now()),
            acknowledged_again: core.acknowledged_again,
            acknowledge_not_found: core.acknowledge_not_found,
            held_acknowledgements: core.held.len() as u64,
            faults: core.faults.clone(),
            tokens_issued: core.tokens.issued,
            sessions_created: core.sessions.created(),
            sessions_expired: core.sessions.expired,
            sessions_deleted: core.sessions.deleted,
            sessions: core.sessions.reports(),
            misbehaviour: core.conduct.counts(),
            misbehaviour_cases: core.conduct.cases(),
            ..Report::default()
        };
        for ((operation, status), count) in &core.requests {
            report.requests.entry(operation.clone()).or_default().insert(status.clone(), *count);
        }
        core.organisation.journal.summarise(&mut report);
        if let Some(stock) = &core.organisation.stock {
            stock.summarise(&mut report);
        }
        report
    }
}

impl Core {
    pub(crate) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(crate) fn count_request(&mut self, operation: &str, status: &str) {
        *self.requests.entry((operation.to_owned(), status.to_owned())).or_default() += 1;
    }

    pub(crate) fn count_fault(&mut self, operation: Operation, fault: &str) {
        *self.faults.entry(format!("{operation}:{fault}")).or_default() += 1;
    }

    pub(crate) fn set_faults(&mut self, plan: FaultPlan) {
        self.picker.replace(plan.clone());
        self.plan = plan;
    }

    pub(crate) fn take_back(&mut self, inboxes: Vec<Inbox>) {
        // The backlog is filled from the front.
        for inbox in inboxes.into_iter().rev() {
            self.organisation.take_back(inbox);
        }
    }

    /// Ends a session, if it is alive.
    pub(crate) fn end_session(&mut self, id: &str, how: End) {
        if let Some(inbox) = self.sessions.end(id, how) {
            self.organisation.take_back(inbox);
        }
    }

    /// The client is told that a session id is not alive; notes it if it was told before.
    pub(crate) fn refuse_session(&mut self, id: &str, operation: Operation, connection: u64, now: Instant) {
        if self.sessions.told(id).is_some_and(|told| told.is_known_to(connection, now)) {
            let kind = crate::report::MisbehaviourKind::DeadSessionUsed;
            self.conduct.note(kind, operation, format!("session {id:?}"), now);
        }
        self.sessions.tell(id, Told::new(now, connection));
    }
}
