//! A poller without a network, for deterministic tests of what is built on it (feature `simulation`).
//!
//! [`SimulatedPoller`] is what decides in a [`Poller`](crate::Poller): the state machine, the ledger of identities and the
//! hand-out, the very code. The test takes the place of the network and of the clock: it asks what to do
//! ([`SimulatedPoller::next`]), and tells how that ended whenever it likes. v3 only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::client::{AcknowledgeAnswer, GrantedSession};
use crate::crowd::Crowd;
use crate::delivery::{DeliveryStream, Ends};
use crate::event::Entry;
use crate::failure::CallError;
use crate::kernel::Kernel;
use crate::observe::Observer;
use crate::session::{Action, Next};
use crate::settings::SourceSettings;
use crate::store::{SessionId, SessionStore};
use crate::subscriptions::SubscriptionChange;
use crate::tell::Teller;

/// What a poller does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask for a token.
    RefreshToken,
    /// Send this, and tell how it ended; there is at most one such call under way.
    Call(Call),
    /// Send an acknowledgement, beside the other calls; there is at most one under way.
    Acknowledge {
        /// The session that it is sent in.
        session: SessionId,
        /// What is acknowledged.
        ids: Vec<Arc<str>>,
    },
    /// Drop the [`Step::Call`] under way.
    Abort,
    /// It has come to its end.
    Finish,
    /// Nothing until something happens or this time comes.
    Wait(Option<Instant>),
}

/// A request of the session lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// POST session.
    CreateSession,
    /// GET subscriptions.
    ListSubscriptions(SessionId),
    /// POST or PUT a subscription.
    ChangeSubscription(SessionId, SubscriptionChange),
    /// GET events, at most so many.
    Poll(SessionId, u16),
    /// DELETE session.
    DeleteSession(SessionId),
}

/// See the module's documentation.
pub struct SimulatedPoller {
    kernel: Kernel,
    ends: Arc<Ends>,
}

impl SimulatedPoller {
    /// A poller that goes on with the session in `store`, and what it hands out. `jitter` gives numbers between 0 and 1.
    ///
    /// # Errors
    /// The store's.
    pub fn new(
        settings: SourceSettings,
        observer: Arc<dyn Observer>,
        store: Box<dyn SessionStore>,
        jitter: impl FnMut() -> f64 + Send + 'static,
    ) -> std::io::Result<(Self, DeliveryStream)> {
        let settings = Arc::new(settings);
        let teller = Teller::new(&settings, observer, store)?;
        let (deliver, deliveries) = mpsc::unbounded_channel();
        let ends = Arc::new(Ends::default());
        let jitter = Box::new(jitter);
        let crowd = Crowd::default();
        let mut kernel = Kernel::new(settings, teller, crowd, jitter, deliver, ends.clone(), &[]);
        kernel.begin();
        Ok((Self { kernel, ends }, DeliveryStream::new(deliveries)))
    }

    /// Takes in the tokens that were settled, and tells what next. To be called until it says to wait.
    pub fn next(&mut self, now: Instant) -> Step {
        self.kernel.settled(&mut self.ends.take_now(), now);
        self.kernel.took_in();
        loop {
            return match self.kernel.next(now, false) {
                Next::Wait(until) => Step::Wait(until),
                Next::Do(Action::RefreshToken) => Step::RefreshToken,
                Next::Do(Action::CreateSession) => Step::Call(Call::CreateSession),
                Next::Do(Action::ListSubscriptions { session }) => {
                    Step::Call(Call::ListSubscriptions(session))
                }
                Next::Do(Action::ChangeSubscription { session, change }) => {
                    Step::Call(Call::ChangeSubscription(session, change))
                }
                Next::Do(Action::Poll { session, max_events }) => Step::Call(Call::Poll(session, max_events)),
                Next::Do(Action::DeleteSession { session }) => Step::Call(Call::DeleteSession(session)),
                Next::Do(Action::Acknowledge { session }) => match self.kernel.take_batch(now) {
                    Some(ids) => Step::Acknowledge { session, ids },
                    None => continue,
                },
                Next::Do(Action::Abort) => Step::Abort,
                Next::Do(Action::Finish { .. }) => Step::Finish,
            };
        }
    }

    /// The token that was asked for at `sent_at` came, with its lifetime; or it did not.
    pub fn refreshed(&mut self, sent_at: Instant, result: Result<Duration, CallError>, now: Instant) {
        match result {
            Ok(lifetime) => self.kernel.machine.token_refreshed(sent_at, lifetime),
            Err(error) => {
                self.kernel.machine.token_failed(now, &error);
            }
        }
    }

    /// [`Call::CreateSession`] ended.
    pub fn created(&mut self, result: Result<GrantedSession, CallError>, now: Instant) {
        self.kernel.created(result, now);
        self.kernel.took_in();
    }

    /// [`Call::ListSubscriptions`] ended.
    pub fn listed(&mut self, result: Result<Vec<SubscriptionChange>, CallError>, now: Instant) {
        self.kernel.listed(result, now);
        self.kernel.took_in();
    }

    /// [`Call::ChangeSubscription`] ended.
    pub fn changed(&mut self, result: Result<(), CallError>, now: Instant) {
        self.kernel.changed(result, now);
        self.kernel.took_in();
    }

    /// [`Call::Poll`] ended.
    pub fn polled(
        &mut self,
        session: &SessionId,
        result: Result<Vec<Entry>, CallError>,
        took: Duration,
        now: Instant,
    ) {
        match result {
            Ok(entries) => self.kernel.polled(session, entries, None, took, now),
            Err(error) => self.kernel.poll_failed(&error, now),
        }
        self.kernel.took_in();
    }

    /// [`Call::DeleteSession`] ended.
    pub fn deleted(&mut self, result: Result<(), CallError>, now: Instant) {
        self.kernel.machine.deleted(now, result.as_ref().map(|&()| ()));
        self.kernel.took_in();
    }

    /// [`Step::Acknowledge`] ended.
    pub fn acknowledged(
        &mut self,
        session: &SessionId,
        ids: &[Arc<str>],
        result: Result<AcknowledgeAnswer, CallError>,
        now: Instant,
    ) {
        self.kernel.acknowledged(session, ids, result, now);
        self.kernel.took_in();
    }

    /// Polling is over.
    pub fn stop(&mut self) {
        self.kernel.stop();
    }

    /// Entries handed out or awaiting their acknowledgement.
    #[must_use]
    pub fn held(&self) -> usize {
        self.kernel.hand_out.ledger.held()
    }
}

impl std::fmt::Debug for SimulatedPoller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimulatedPoller").field("machine", &self.kernel.machine).finish_non_exhaustive()
    }
}
