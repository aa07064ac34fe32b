//! What a poller decides, without the calls it makes: the state machine, the hand-out, and what is told of them. No I/O
//! beside the session store, no clock.
//!
//! The loop ([`crate::run`]) starts the calls that [`Kernel::next`] asks for and reports how they end. The simulation does the
//! same without a network.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::backoff::Jitter;
use crate::client::{AcknowledgeAnswer, GrantedSession};
use crate::crowd::{Crowd, Place};
use crate::delivery::{Deliveries, Ends, Settled};
use crate::event::Entry;
use crate::failure::CallError;
use crate::handout::HandOut;
use crate::session::{Load, MAX_ACKNOWLEDGED_PER_CALL, Machine, Next, Policy, Polled};
use crate::settings::SourceSettings;
use crate::spool::Waiting;
use crate::store::SessionId;
use crate::subscriptions::SubscriptionChange;
use crate::tell::Teller;

/// See the module's documentation.
pub(crate) struct Kernel {
    pub(crate) settings: Arc<SourceSettings>,
    pub(crate) machine: Machine,
    pub(crate) hand_out: HandOut,
    pub(crate) teller: Teller,
    place: Place,
}

impl Kernel {
    /// Of a poller with this session to resume (in `teller`) and these responses in its spool.
    pub(crate) fn new(
        settings: Arc<SourceSettings>,
        teller: Teller,
        crowd: Crowd,
        jitter: Jitter,
        deliveries: mpsc::UnboundedSender<Box<Deliveries>>,
        ends: Arc<Ends>,
        spooled: &[Waiting],
    ) -> Self {
        let resumed = teller.session().map(|saved| (saved.session_id.clone(), saved.inactivity_delay()));
        Self {
            machine: Machine::new(Policy::of(&settings), jitter, resumed),
            hand_out: HandOut::new(&settings, teller.observer.clone(), deliveries, ends, spooled),
            teller,
            place: Place::new(crowd, settings.max_events, settings.max_in_flight),
            settings,
        }
    }

    /// To be called once, before anything else.
    pub(crate) fn begin(&mut self) {
        if self.machine.session().is_some() {
            self.hand_out.ledger.begin_session();
        }
    }

    /// What next. `reading`: a spooled response is being read back.
    pub(crate) fn next(&mut self, now: Instant, reading: bool) -> Next {
        self.tell();
        let ledger = &self.hand_out.ledger;
        let load = Load {
            held: ledger.held(),
            share: self.place.share(ledger.held()),
            in_flight: ledger.in_flight(),
            ready: ledger.ready(),
            oldest_ready: ledger.oldest_ready(),
            released: if self.machine.is_ended() { ledger.released() } else { 0 },
            ending: ledger.ending(),
            backlog: self.hand_out.has_turns() || reading,
        };
        self.machine.next(now, &load)
    }

    /// Turns what the machine has to tell into logs, counters, and changes of the ledger and the store.
    pub(crate) fn tell(&mut self) {
        for notice in self.machine.take_notices() {
            self.teller.tell(notice, &mut self.hand_out.ledger);
        }
    }

    /// After anything that was taken in: an end event may be done, and the ledger has to know of a lost or created session
    /// before the next answer is looked at.
    pub(crate) fn took_in(&mut self) {
        if self.hand_out.take_end_event() {
            self.machine.end_event_acknowledged();
        }
        self.tell();
    }

    /// The ids of an acknowledgement that the machine asked for; `None` where there are none after all.
    pub(crate) fn take_batch(&mut self, now: Instant) -> Option<Vec<Arc<str>>> {
        let ids = self.hand_out.ledger.take_batch(MAX_ACKNOWLEDGED_PER_CALL, now);
        if ids.is_empty() {
            self.machine.acknowledge_skipped();
            return None;
        }
        Some(ids)
    }

    /// Tokens came to their ends; takes them all out of `settled`.
    pub(crate) fn settled(&mut self, settled: &mut Vec<Settled>, now: Instant) {
        self.hand_out.settle(settled, now);
    }

    /// Polling is over.
    pub(crate) fn stop(&mut self) {
        self.hand_out.close();
        self.machine.stop();
    }

    /// POST session ended.
    pub(crate) fn created(&mut self, result: Result<GrantedSession, CallError>, now: Instant) {
        match result {
            Ok(granted) => {
                self.teller.granted(&granted);
                self.machine.session_created(now, granted.id, granted.inactivity_delay);
            }
            Err(error) => self.machine.session_failed(now, &error),
        }
    }

    /// GET subscriptions ended.
    pub(crate) fn listed(&mut self, result: Result<Vec<SubscriptionChange>, CallError>, now: Instant) {
        match result {
            Ok(changes) => self.machine.subscriptions_listed(now, changes),
            Err(error) => self.subscription_failed(&error, now),
        }
    }

    /// A change of a subscription ended.
    pub(crate) fn changed(&mut self, result: Result<(), CallError>, now: Instant) {
        match result {
            Ok(()) => self.machine.subscription_changed(now),
            Err(error) => self.subscription_failed(&error, now),
        }
    }

    fn subscription_failed(&mut self, error: &CallError, now: Instant) {
        let declared = &self.settings.subscriptions;
        let describe = |index: usize| {
            declared.get(index).map_or_else(String::new, |one| format!("{:?}", one.description))
        };
        self.machine.subscription_failed(now, error, describe);
    }

    /// A GET was answered.
    pub(crate) fn polled(
        &mut self,
        session: &SessionId,
        entries: Vec<Entry>,
        spooled: Option<Waiting>,
        took: Duration,
        now: Instant,
    ) {
        let taken = self.hand_out.take(session, entries, spooled, now);
        self.machine.polled(now, Polled { total: taken.total, fresh: taken.fresh, took });
    }

    /// A GET was not answered, or not readably.
    pub(crate) fn poll_failed(&mut self, error: &CallError, now: Instant) {
        self.hand_out.poll_failed(error.kind);
        self.machine.poll_failed(now, error);
    }

    /// An acknowledgement ended.
    pub(crate) fn acknowledged(
        &mut self,
        session: &SessionId,
        ids: &[Arc<str>],
        result: Result<AcknowledgeAnswer, CallError>,
        now: Instant,
    ) {
        match result {
            Ok(answer) => {
                let progressed = ids.iter().any(|id| answer.verdict(id).is_some());
                self.machine.acknowledged(now, progressed);
                self.hand_out.acknowledged(ids, |id| answer.verdict(id), now);
            }
            Err(error) => {
                self.hand_out.ledger.not_answered(now);
                self.machine.acknowledge_failed(now, session, &error);
            }
        }
    }
}
