//! One transaction, shared by the publishes that take part in it.
//!
//! ```text
//!  open ──▶ join: Seat ──▶ records handed over ──▶ seal: checkpoint handed over ──▶ reports ──▶ verdict
//!    │                          │ dropped: spoiled, the transaction is aborted
//!    └── closes to newcomers as soon as the reports of one seat are in, or a failure is
//! ```

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::sync::{Notify, watch};

use crate::producer::Generation;
use crate::reports::Reports;

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Records and checkpoints are readable.
    Committed,
    /// They are not, or it has been found out by now what stands there: look again, and send the rest. The code is what
    /// the producer said of the transaction.
    Again(Option<Code>),
}

/// An open transaction.
pub(super) struct Round {
    pub(super) generation: Arc<Generation>,
    seats: Mutex<Seats>,
    /// Wakes the coordinator.
    changed: Arc<Notify>,
    verdict: watch::Sender<Option<Verdict>>,
}

#[derive(Debug)]
struct Seats {
    open: bool,
    /// How many have joined and not handed over everything yet.
    sending: usize,
    spoiled: bool,
    reports: Vec<Arc<Reports>>,
    topics: HashSet<Arc<str>>,
}

/// How far a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nobody is done yet.
    Filling,
    /// Somebody is done, or it is closed: nobody may join any more, and some are not done yet.
    Draining,
    /// All records are delivered.
    Delivered,
    /// It has to be aborted, and nobody hands anything over any more.
    Spoiled,
}

impl Round {
    pub(super) fn new(generation: Arc<Generation>) -> Self {
        let seats =
            Seats { open: true, sending: 0, spoiled: false, reports: Vec::new(), topics: HashSet::new() };
        Self {
            generation,
            seats: Mutex::new(seats),
            changed: Arc::new(Notify::new()),
            verdict: watch::Sender::new(None),
        }
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes part; `None` where it is too late.
    pub(super) fn join(self: &Arc<Self>) -> Option<Seat> {
        let mut seats = self.seats();
        if !seats.open {
            return None;
        }
        seats.sending += 1;
        drop(seats);
        Some(Seat { round: Arc::clone(self), left: false })
    }

    /// For so many messages of one participant.
    pub(super) fn reports(&self, count: usize) -> Arc<Reports> {
        Reports::waking(count, Arc::clone(&self.changed))
    }

    /// Messages of the coordinator itself; no further ticket of these reports will be made.
    pub(super) fn add(&self, reports: Arc<Reports>) {
        reports.complete();
        self.seats().reports.push(reports);
    }

    /// Nobody may join any more.
    pub(super) fn close(&self) {
        self.seats().open = false;
    }

    /// It has to be aborted.
    pub(super) fn spoil(&self) {
        self.seats().spoiled = true;
        self.changed.notify_one();
    }

    /// The topics that records were handed over to.
    pub(super) fn topics(&self) -> Vec<Arc<str>> {
        self.seats().topics.iter().cloned().collect()
    }

    /// Whether somebody has handed over everything, and waits for what becomes of it.
    pub(super) fn is_awaited(&self) -> bool {
        !self.seats().reports.is_empty()
    }

    /// How far it is. Closes it when somebody is done.
    pub(super) fn stage(&self) -> Stage {
        let mut seats = self.seats();
        if seats.reports.iter().any(|reports| reports.any_failed()) {
            seats.spoiled = true;
        }
        let done = seats.reports.iter().filter(|reports| reports.done()).count();
        if seats.spoiled || done > 0 {
            seats.open = false;
        }
        match &*seats {
            Seats { open: true, .. } => Stage::Filling,
            Seats { spoiled: true, sending: 0, .. } => Stage::Spoiled,
            Seats { spoiled: false, sending: 0, reports, .. } if reports.len() == done => Stage::Delivered,
            _ => Stage::Draining,
        }
    }

    /// The codes of all failures.
    pub(super) fn failures(&self) -> Vec<Code> {
        let seats = self.seats();
        let failed = seats.reports.iter().flat_map(|reports| reports.failed_since(&mut 0));
        failed.map(|(_, code)| code).collect()
    }

    /// Waits until [`Round::stage`] may have another answer. For the coordinator alone.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Tells the participants.
    pub(super) fn end(&self, verdict: Verdict) {
        self.close();
        self.verdict.send_replace(Some(verdict));
    }

    /// What became of it.
    pub(super) async fn verdict(&self) -> Verdict {
        let mut watch = self.verdict.subscribe();
        let verdict = watch.wait_for(Option::is_some).await.ok().and_then(|verdict| *verdict);
        verdict.unwrap_or(Verdict::Again(None))
    }
}

/// The right to hand records over. Dropped without [`Seat::seal`] or [`Seat::leave`] (the publish was abandoned), it spoils
/// the transaction: some records may be in it whose names no checkpoint has.
pub(super) struct Seat {
    round: Arc<Round>,
    left: bool,
}

impl Seat {
    pub(super) fn round(&self) -> &Arc<Round> {
        &self.round
    }

    /// Records to this topic will be handed over.
    pub(super) fn uses(&self, topic: &Arc<str>) {
        let mut seats = self.round.seats();
        if !seats.topics.contains(topic) {
            seats.topics.insert(Arc::clone(topic));
        }
    }

    /// Everything is handed over, the checkpoint too; `spoiled`: something could not be.
    pub(super) fn seal(mut self, reports: &Arc<Reports>, spoiled: bool) {
        self.left = true;
        reports.complete();
        let mut seats = self.round.seats();
        seats.reports.push(Arc::clone(reports));
        seats.sending -= 1;
        seats.spoiled |= spoiled;
        drop(seats);
        self.round.changed.notify_one();
    }

    /// There was nothing to hand over.
    pub(super) fn leave(mut self) {
        self.left = true;
        self.round.seats().sending -= 1;
        self.round.changed.notify_one();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.left {
            let mut seats = self.round.seats();
            seats.sending -= 1;
            seats.spoiled = true;
            drop(seats);
            self.round.changed.notify_one();
        }
    }
}
