//! The I/O loop around the state machine: starts the calls it asks for, waits for whatever ends first, and tells it.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use viaduct_faults::{Moment, crash_point};

use crate::backoff::Jitter;
use crate::calls::{Acknowledgement, Call, Calls, Outcome, ReadBack, Removed, Response};
use crate::delivery::{Ends, Settled};
use crate::error::{Finished, PollerError};
use crate::failure::CallError;
use crate::kernel::Kernel;
use crate::session::{Action, Next, RefreshFailed};
use crate::spool::Spool;
use crate::status::{Phase, SourceStatus};
use crate::token::{Access, TokenProvider};

/// Rest after the spool could not be read or tidied.
const SPOOL_REST: Duration = Duration::from_secs(1);

/// So few events of a response go their way before more are asked for: one is routed in less time than a request takes to
/// make.
const FEW: usize = 8;

/// The clock of the loop; it stands still in tests that pause tokio's time.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A running poller.
pub(crate) struct Run {
    pub(crate) kernel: Kernel,
    pub(crate) calls: Calls,
    pub(crate) tokens: TokenProvider,
    pub(crate) spool: Option<Arc<Spool>>,
    pub(crate) ends: Arc<Ends>,
    pub(crate) status: watch::Sender<SourceStatus>,
    pub(crate) access: Option<Access>,
    pub(crate) lane: Option<Call<Outcome>>,
    pub(crate) acknowledging: Option<Call<Acknowledgement>>,
    pub(crate) refreshing: Option<(Instant, Call<Result<Access, CallError>>)>,
    pub(crate) reading: Option<Call<ReadBack>>,
    pub(crate) removing: Option<Call<Removed>>,
    /// Spooled responses that are done and still on disk.
    pub(crate) done: Vec<u64>,
    pub(crate) spool_rest: Option<Instant>,
    pub(crate) stopping: bool,
    /// A few events were handed out: whoever has them goes first.
    pub(crate) gives_way: bool,
}

/// Full-jitter randomness.
pub(crate) fn jitter() -> Jitter {
    Box::new(rand::random::<f64>)
}

/// What ended, of all that the loop waits for.
enum Event {
    Settled,
    Lane(Outcome),
    Acknowledged(Acknowledgement),
    Refreshed(Instant, Result<Access, CallError>),
    Read(ReadBack),
    Removed(Removed),
    Stop,
}

/// How long the loop waits for something to end.
#[derive(Debug, Clone, Copy)]
enum Patience {
    /// Not at all: only what has ended already counts.
    None,
    /// Until this time, or for ever.
    Until(Option<Instant>),
}

impl Patience {
    async fn ends(self) {
        match self {
            Self::None => {}
            Self::Until(Some(at)) => tokio::time::sleep_until(at.into()).await,
            Self::Until(None) => pending().await,
        }
    }
}

impl Run {
    /// Boxed, because a future holds what is moved into it several times.
    pub(crate) async fn run(mut self: Box<Self>, stop: CancellationToken) -> Result<Finished, PollerError> {
        self.kernel.begin();
        let mut settled = Vec::new();
        loop {
            if std::mem::take(&mut self.gives_way) {
                tokio::task::yield_now().await;
            }
            // Whatever has come is heard before anything new is said: an answer with a Retry-After, or one that calls the
            // session dead, must count for the very next request of the other lane.
            while let Some(event) = self.next_event(Patience::None, &stop, &mut settled).await {
                self.take_in(event, &mut settled)?;
            }
            let wake = match self.decide() {
                Some(Decided::Finished(ended)) => return self.finish(ended).await,
                Some(Decided::Wake(at)) => Some(at),
                None => None,
            };
            self.publish_status();
            if let Some(event) = self.next_event(Patience::Until(wake), &stop, &mut settled).await {
                self.take_in(event, &mut settled)?;
            }
        }
    }

    fn take_in(&mut self, event: Event, settled: &mut Vec<Settled>) -> Result<(), PollerError> {
        match event {
            Event::Settled => self.kernel.settled(settled, now()),
            Event::Lane(outcome) => self.lane_ended(outcome),
            Event::Acknowledged(acknowledgement) => self.acknowledged(acknowledgement),
            Event::Refreshed(sent_at, result) => self.refreshed(sent_at, result)?,
            Event::Read(read) => self.read_back(read),
            Event::Removed(removed) => self.removed(removed),
            Event::Stop => {
                self.stopping = true;
                self.kernel.stop();
            }
        }
        self.kernel.took_in();
        Ok(())
    }

    /// The first thing that ends; `None` when the patience does. Cancelling a wait loses nothing: calls stay where they
    /// are.
    async fn next_event(
        &mut self,
        patience: Patience,
        stop: &CancellationToken,
        settled: &mut Vec<Settled>,
    ) -> Option<Event> {
        let refreshing = self.refreshing.as_mut();
        let abandoned = self.kernel.hand_out.abandoned();
        let stopping = self.stopping;
        let event = tokio::select! {
            biased;
            () = self.ends.take(settled) => Event::Settled,
            outcome = ended(&mut self.lane) => Event::Lane(outcome),
            acknowledgement = ended(&mut self.acknowledging) => Event::Acknowledged(acknowledgement),
            (sent_at, result) = async {
                match refreshing {
                    Some((sent_at, call)) => (*sent_at, call.await),
                    None => pending().await,
                }
            } => Event::Refreshed(sent_at, result),
            read = ended(&mut self.reading) => Event::Read(read),
            removed = ended(&mut self.removing) => Event::Removed(removed),
            () = stop.cancelled(), if !stopping => Event::Stop,
            () = abandoned, if !stopping => Event::Stop,
            () = patience.ends() => return None,
        };
        match event {
            Event::Lane(_) => self.lane = None,
            Event::Acknowledged(_) => self.acknowledging = None,
            Event::Refreshed(..) => self.refreshing = None,
            Event::Read(_) => self.reading = None,
            Event::Removed(_) => self.removing = None,
            Event::Settled | Event::Stop => {}
        }
        Some(event)
    }

    /// Starts everything that is due.
    fn decide(&mut self) -> Option<Decided> {
        let now = now();
        let mut wake = self.tend_spool(now);
        loop {
            match self.kernel.next(now, self.reading.is_some()) {
                Next::Do(Action::Finish { ended }) => return Some(Decided::Finished(ended)),
                Next::Do(action) => self.start(action, now),
                Next::Wait(until) => {
                    wake = [wake, until].into_iter().flatten().min();
                    return wake.map(Decided::Wake);
                }
            }
        }
    }

    fn start(&mut self, action: Action, now: Instant) {
        if action == Action::RefreshToken {
            let tokens = self.tokens.clone();
            self.refreshing = Some((now, Box::pin(async move { tokens.fetch().await })));
            return;
        }
        if action == Action::Abort {
            self.lane = None;
            return;
        }
        let Some(access) = self.access.clone() else {
            error!(source = %self.kernel.settings.name, "a call without a token was asked for");
            return;
        };
        match action {
            Action::CreateSession => self.lane = Some(self.calls.create(access)),
            Action::ListSubscriptions { session } => self.lane = Some(self.calls.list(access, session)),
            Action::ChangeSubscription { session, change } => {
                self.lane = Some(self.calls.change(access, session, change));
            }
            Action::Poll { session, max_events } => {
                self.lane = Some(self.calls.poll(access, session, max_events));
            }
            Action::DeleteSession { session } => self.lane = Some(self.calls.delete(access, session)),
            Action::Acknowledge { session } => {
                if let Some(ids) = self.kernel.take_batch(now) {
                    crash_point(Moment::BeforeAcknowledge);
                    self.acknowledging = Some(self.calls.acknowledge(access, session, ids));
                }
            }
            Action::RefreshToken | Action::Abort | Action::Finish { .. } => {}
        }
    }

    fn refreshed(&mut self, sent_at: Instant, result: Result<Access, CallError>) -> Result<(), PollerError> {
        match result {
            Ok(access) => {
                self.kernel.machine.token_refreshed(sent_at, access.lifetime());
                self.kernel.teller.token_refreshed(access.lifetime());
                self.access = Some(access);
            }
            Err(error) => {
                if self.kernel.machine.token_failed(now(), &error) == RefreshFailed::RefusedAtStart {
                    return Err(PollerError::CredentialsRefused(error.detail));
                }
            }
        }
        Ok(())
    }

    fn lane_ended(&mut self, outcome: Outcome) {
        let now = now();
        match outcome {
            Outcome::Created(result) => self.kernel.created(result, now),
            Outcome::Listed(result) => self.kernel.listed(result, now),
            Outcome::Changed(result) => self.kernel.changed(result, now),
            Outcome::Polled(Ok(response)) => self.polled(response, now),
            Outcome::Polled(Err(error)) => self.kernel.poll_failed(&error, now),
            Outcome::Deleted(result) => self.kernel.machine.deleted(now, result.as_ref().map(|&()| ())),
        }
    }

    fn polled(&mut self, response: Response, now: Instant) {
        let Response { session, entries, spooled, took } = response;
        if !entries.is_empty() {
            crash_point(Moment::AfterGet);
        }
        self.gives_way = (1..=FEW).contains(&entries.len());
        self.kernel.polled(&session, entries, spooled, took, now);
    }

    fn acknowledged(&mut self, acknowledgement: Acknowledgement) {
        let Acknowledgement { session, ids, result } = acknowledgement;
        if result.is_ok() {
            crash_point(Moment::AfterAcknowledge);
        }
        self.kernel.acknowledged(&session, &ids, result, now());
    }

    /// Reads the next spooled response where there is room, removes what is done. Returns when to look again.
    fn tend_spool(&mut self, now: Instant) -> Option<Instant> {
        let spool = self.spool.clone()?;
        self.done.extend(self.kernel.hand_out.take_done());
        if let Some(rest) = self.spool_rest.filter(|&rest| now < rest) {
            return Some(rest);
        }
        if self.removing.is_none() && !self.done.is_empty() {
            self.removing = Some(self.calls.remove(&spool, std::mem::take(&mut self.done)));
        }
        if self.reading.is_some() {
            return None;
        }
        match self.kernel.hand_out.next_turn(now) {
            Ok(turn) => {
                self.reading = Some(self.calls.read_back(&spool, turn));
                None
            }
            Err(again) => again,
        }
    }

    fn read_back(&mut self, read: ReadBack) {
        match read.result {
            Ok(Some((session, entries))) => {
                self.kernel.hand_out.take_turn(&session, entries, read.turn.number, now());
            }
            Ok(None) => error!(
                source = %self.kernel.settings.name, response = read.turn.number,
                "a spooled response is not readable any more; it stays in the spool"
            ),
            Err(error) => {
                warn!(source = %self.kernel.settings.name, reason = %error, "the spool cannot be read; trying again");
                self.spool_rest = Some(now() + SPOOL_REST);
                self.kernel.hand_out.put_back(read.turn);
            }
        }
    }

    fn removed(&mut self, removed: Removed) {
        match removed.result {
            Ok(()) => self.kernel.hand_out.left(&removed.numbers),
            Err(error) => {
                warn!(source = %self.kernel.settings.name, reason = %error, "the spool cannot be tidied; trying again");
                self.spool_rest = Some(now() + SPOOL_REST);
                self.done.extend(removed.numbers);
            }
        }
    }

    fn publish_status(&mut self) {
        let now = now();
        let status = SourceStatus {
            phase: self.kernel.machine.phase(now),
            session_up: self.kernel.machine.is_up(now),
            session_created_at: self
                .kernel
                .machine
                .session()
                .and_then(|_| self.kernel.teller.session())
                .map(crate::store::SavedSession::created_at),
            granted_inactivity: self.kernel.machine.inactivity_delay(),
            last_poll_at: self.kernel.machine.last_poll_at(),
            token_expires_at: self.kernel.machine.token_expires_at(),
            reason: self.kernel.machine.reason(now).or_else(|| self.kernel.teller.store_trouble.clone()),
            unacknowledged: self.kernel.hand_out.ledger.held(),
            oldest_unacknowledged: self.kernel.hand_out.ledger.oldest_held(),
        };
        self.status.send_if_modified(|published| {
            let changed = *published != status;
            *published = status;
            changed
        });
    }

    async fn finish(mut self: Box<Self>, ended: bool) -> Result<Finished, PollerError> {
        self.kernel.tell();
        self.kernel.teller.finish();
        if let Some(reading) = self.reading.take() {
            self.read_back(reading.await);
        }
        if let Some(removing) = self.removing.take() {
            let removed = removing.await;
            self.removed(removed);
        }
        self.done.extend(self.kernel.hand_out.take_done());
        if let (Some(spool), false) = (&self.spool, self.done.is_empty()) {
            let numbers = std::mem::take(&mut self.done);
            match spool.remove(numbers.clone()).await {
                Ok(()) => self.kernel.hand_out.left(&numbers),
                Err(error) => {
                    warn!(source = %self.kernel.settings.name, reason = %error, "the spool cannot be tidied; a restart publishes some events again");
                }
            }
        }
        let pending = self.calls.spool_pending().await.map_err(|error| {
            PollerError::Spool(format!(
                "a response that the vendor does not hold any more could not be written: {error}"
            ))
        })?;
        // What nobody has been given yet is on disk, and waits for the next start.
        let waiting = self.kernel.hand_out.waiting() + pending.map_or(0, |response| response.entries);
        let unacknowledged = self.kernel.hand_out.ledger.unacknowledged() + waiting;
        self.status.send_modify(|status| {
            *status = SourceStatus { phase: Phase::Stopped, unacknowledged, ..SourceStatus::default() };
        });
        Ok(if ended { Finished::Ended } else { Finished::Stopped { unacknowledged } })
    }
}

enum Decided {
    Finished(bool),
    Wake(Instant),
}

/// Waits for a call under way; for ever, where there is none.
async fn ended<T>(call: &mut Option<Call<T>>) -> T {
    match call {
        Some(call) => call.await,
        None => pending().await,
    }
}
