//! One batch, until the fate of each of its records is known.

use std::pin::pin;
use std::sync::Arc;

use async_nats::{HeaderMap, Subject};
use tokio::time::{Instant, sleep_until};
use viaduct_faults::{Moment, crash_point};
use viaduct_sink::{Fatal, Outcome, Record, Refusal, RejectReason, Rejection};

use crate::answer::{self, Answer};
use crate::epoch::{Call, Epoch, Note, SendError};
use crate::message;
use crate::schedule::Schedule;
use crate::stream::InspectError;
use crate::subject;
use crate::supervisor::Shared;

/// How many answers are taken at once.
const ANSWERS: usize = 256;

/// Publishes `records`, over as many epochs as it takes.
pub(crate) async fn publish(shared: &Shared, records: &[Record]) -> Vec<Outcome> {
    let mut batch = BatchState {
        records,
        begun: std::time::Instant::now(),
        stream: &shared.checked.settings.stream,
        schedule: Schedule::new(records),
        fates: vec![None; records.len()],
        behind: vec![None; records.len()],
        unheard: Vec::new(),
    };
    let mut current = shared.current.subscribe();
    loop {
        let epoch = tokio::select! {
            biased;
            () = shared.closing.cancelled() => {
                return batch.give_up(|| answer::retry("closed", "the sink was closed".to_owned()));
            }
            epoch = current.wait_for(|epoch| epoch.as_ref().is_some_and(|epoch| !epoch.is_broken())) => match epoch {
                Ok(epoch) => epoch.clone(),
                Err(_) => return batch.give_up(|| Outcome::Fatal(Fatal::Broken("the sink is gone".to_owned()))),
            }
        };
        let Some(epoch) = epoch else { continue };
        if let Some(refused) = shared.too_weak() {
            return batch.give_up(|| refused.clone());
        }
        batch.schedule.rewind(shared.gated());
        let finished = tokio::select! {
            biased;
            finished = round(shared, &epoch, &mut batch) => finished,
            () = shared.closing.cancelled() => false,
        };
        if finished {
            batch.explain_unheard(shared, &epoch).await;
            return batch.report(shared).await;
        }
    }
}

/// Sends and listens until everything is settled (`true`) or the epoch is over (`false`).
async fn round(shared: &Shared, epoch: &Arc<Epoch>, batch: &mut BatchState<'_>) -> bool {
    let settings = &shared.checked.settings;
    let mut call = epoch.register();
    let mut notes = Vec::with_capacity(ANSWERS);
    let mut deadline = pin!(sleep_until(Instant::now() + settings.ack_timeout));
    let middle = batch.records.len() / 2;
    loop {
        while batch.schedule.in_flight() < settings.window {
            let Some(index) = batch.schedule.next() else { break };
            let Some(headers) = batch.prepare(index) else { continue };
            let sent = tokio::select! {
                biased;
                sent = call.send(index, batch.subject(index), headers, batch.records[index].value.clone()) => sent,
                () = epoch.broken() => Err(SendError::Broken),
                () = &mut deadline => {
                    shared.no_answer(epoch);
                    Err(SendError::Broken)
                }
            };
            match sent {
                Ok(()) if index == middle => crash_point(Moment::MidPublish),
                Ok(()) => {}
                Err(SendError::TooLarge) => batch.reject(index, RejectReason::TooLarge, too_large(epoch)),
                Err(SendError::Subject) => {
                    batch.reject(
                        index,
                        RejectReason::InvalidDestination,
                        "the subject has whitespace".to_owned(),
                    );
                }
                Err(SendError::Broken) => {
                    batch.hear_the_rest(&mut call);
                    return false;
                }
            }
        }
        if batch.schedule.in_flight() == 0 {
            crash_point(Moment::AfterCommit);
            return true;
        }
        if batch.schedule.in_flight() < settings.window {
            crash_point(Moment::AfterPublish);
        }
        tokio::select! {
            biased;
            count = call.notes.recv_many(&mut notes, ANSWERS) => {
                if count > 0 {
                    deadline.as_mut().reset(Instant::now() + settings.ack_timeout);
                }
                for note in notes.drain(..) {
                    batch.hear(note);
                }
            }
            () = epoch.broken() => {
                batch.hear_the_rest(&mut call);
                return false;
            }
            () = &mut deadline => {
                shared.no_answer(epoch);
                return false;
            }
        }
    }
}

fn too_large(epoch: &Epoch) -> String {
    format!("larger than the server takes ({} bytes, headers included)", epoch.client().max_payload())
}

/// The records of a batch and what is known of them.
struct BatchState<'a> {
    records: &'a [Record],
    /// When the batch began: what was seen of the stream earlier explains nothing about it.
    begun: std::time::Instant,
    stream: &'a str,
    schedule: Schedule,
    fates: Vec<Option<Outcome>>,
    /// For a record in flight: the earlier record of its lane that has to be offered again.
    behind: Vec<Option<usize>>,
    /// Records on whose subject nobody listened.
    unheard: Vec<usize>,
}

impl BatchState<'_> {
    /// The headers of the record at `index`; `None` where it was rejected instead.
    fn prepare(&mut self, index: usize) -> Option<HeaderMap> {
        let record = &self.records[index];
        if let Some(fault) = subject::fault(&record.destination) {
            self.reject(index, RejectReason::InvalidDestination, fault.to_owned());
            return None;
        }
        let headers = message::headers(record, self.stream);
        if headers.is_none() {
            self.reject(
                index,
                RejectReason::Refused,
                "a header's name is not one that NATS can have".to_owned(),
            );
        }
        headers
    }

    fn subject(&self, index: usize) -> Subject {
        self.records[index].destination.as_ref().into()
    }

    fn reject(&mut self, index: usize, reason: RejectReason, detail: String) {
        self.schedule.settle(index);
        self.fates[index] = Some(Outcome::Rejected(Rejection { reason, detail }));
    }

    fn hear(&mut self, note: Note) {
        match note {
            // A late answer to a record whose fate is known already.
            Note::Answer(index, _) if !self.schedule.is_in_flight(index) => {}
            Note::Answer(index, message) => match answer::read(&message) {
                Answer::Fate(fate) => self.learn(index, fate),
                Answer::NoResponders => {
                    self.unheard.push(index);
                    self.learn(
                        index,
                        answer::retry("no_responders", "nobody listens on the subject".to_owned()),
                    );
                }
            },
            Note::Denied(subject) => {
                let denied: Vec<usize> = self
                    .schedule
                    .all_in_flight()
                    .filter(|index| *self.records[*index].destination == *subject)
                    .collect();
                for index in denied {
                    let detail = format!("the server does not permit to publish to {subject}");
                    self.learn(index, answer::refused("not_permitted", Refusal::NotPermitted, detail));
                }
            }
        }
    }

    /// Takes what arrived before the epoch ended: the less is sent again, the fewer duplicates.
    fn hear_the_rest(&mut self, call: &mut Call) {
        while let Ok(note) = call.notes.try_recv() {
            self.hear(note);
        }
    }

    fn learn(&mut self, index: usize, fate: Outcome) {
        let fate = match (fate, self.behind[index]) {
            // Stored, but before an earlier record of the same subject that has yet to be stored: it is offered again
            // behind that one.
            (Outcome::Confirmed(_), Some(before)) if self.same_subject(index, before) => held(),
            (fate, _) => fate,
        };
        if matches!(fate, Outcome::Retry(_) | Outcome::Fatal(_)) {
            let behind = self.schedule.hold(index);
            for flying in behind.flying {
                self.behind[flying].get_or_insert(index);
            }
            for waiting in behind.held {
                self.fates[waiting] = Some(held());
            }
        } else {
            self.schedule.settle(index);
        }
        self.fates[index] = Some(fate);
    }

    fn same_subject(&self, one: usize, other: usize) -> bool {
        self.records[one].destination == self.records[other].destination
    }

    /// Nobody listened on some subjects: because no stream has them, which somebody has to mend, or for a moment only.
    async fn explain_unheard(&mut self, shared: &Shared, epoch: &Epoch) {
        if self.unheard.is_empty() {
            return;
        }
        let known = shared.look(epoch, self.begun).await;
        for index in std::mem::take(&mut self.unheard) {
            let subject = &self.records[index].destination;
            let detail = match &known {
                Ok(report) if report.covers(subject) => continue,
                Ok(report) => {
                    format!("no stream has the subject {subject}; stream {} has others", report.name)
                }
                Err(InspectError::Absent(stream)) => format!("stream {stream} does not exist"),
                Err(InspectError::Refused(reason)) => {
                    format!("no stream has the subject {subject} ({reason})")
                }
                Err(InspectError::Unreachable(_)) => continue,
            };
            self.fates[index] = Some(answer::refused("no_stream", Refusal::Missing, detail));
        }
    }

    async fn report(self, shared: &Shared) -> Vec<Outcome> {
        let fates = self.give_up(held);
        let mut well = true;
        for fate in &fates {
            if let Outcome::Retry(retry) = fate {
                well = false;
                if retry.refusal == Some(Refusal::Full) {
                    shared.health.down(retry.detail.clone());
                }
            }
        }
        match well {
            true => shared.all_well().await,
            false => shared.refused(),
        }
        fates
    }

    /// The fates as they are known now, `unknown` for the others.
    fn give_up(self, unknown: impl Fn() -> Outcome) -> Vec<Outcome> {
        self.fates.into_iter().map(|fate| fate.unwrap_or_else(&unknown)).collect()
    }
}

/// An earlier record of the lane comes first.
pub(crate) fn held() -> Outcome {
    answer::retry(
        "behind_retry",
        "an earlier record of the same key or subject has to be offered again first".to_owned(),
    )
}
