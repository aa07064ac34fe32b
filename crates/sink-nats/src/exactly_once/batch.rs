//! One atomic batch (ADR-50): records, then the checkpoint that names them.
//!
//! ```text
//!  via.chat.x             Nats-Batch-Id: B   Nats-Batch-Sequence: 1    reply ──▶ staged, or "no"
//!  via.chat.y             Nats-Batch-Id: B   Nats-Batch-Sequence: 2
//!  _viaduct.checkpoint.…  Nats-Batch-Id: B   Nats-Batch-Sequence: 3    Nats-Batch-Commit: 1
//!                         Nats-Expected-Last-Subject-Sequence: 41      reply ──▶ PubAck (sequence 44), or "no"
//!                         Nats-Rollup: sub
//! ```
//!
//! The server stores all of it or nothing, and only if the checkpoint that it replaces is the one at sequence 41. So a
//! batch of an instance that was taken over, and a batch that is under way twice, are rejected whole.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, header};
use bytes::Bytes;
use tokio::time::{Instant, sleep_until};
use viaduct_faults::{Mistake, Moment, crash_point, makes};
use viaduct_sink::{Outcome, Proposal, Record, RejectReason, Rejection};

use super::checkpoint;
use super::verdict::{self, Heard, Verdict};
use crate::epoch::{Call, Epoch, Note, SendError};
use crate::message;
use crate::subject;
use crate::supervisor::Shared;

/// Every how many messages the server is asked whether it staged them: a long batch over a slow line is no silence.
const ASK: usize = 128;
/// A server may also have a limit of bytes (a replicated stream keeps an open batch in memory).
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// One message of a batch, without its place in it.
#[derive(Debug)]
enum Outgoing {
    /// Its headers are made when its turn has come: the server works on the ones before meanwhile.
    Record(Record),
    /// A page or a checkpoint.
    Made { subject: Arc<str>, headers: HeaderMap, payload: Bytes },
}

/// A batch under construction, and its place in an epoch.
#[derive(Debug)]
pub(crate) struct AtomicBatch<'a> {
    shared: &'a Shared,
    epoch: &'a Arc<Epoch>,
    call: Call,
    id: String,
    messages: Vec<Outgoing>,
    bytes: usize,
    /// Largest message that server and stream take, headers included.
    largest: usize,
}

/// What became of a record that was to go into a batch.
pub(crate) enum Added {
    /// It is in.
    In,
    /// The batch is large enough without it.
    Enough,
    /// It can never go.
    Rejected(Rejection),
}

impl<'a> AtomicBatch<'a> {
    /// An empty one.
    pub(crate) fn new(shared: &'a Shared, epoch: &'a Arc<Epoch>, largest: Option<u64>) -> Self {
        let call = epoch.register();
        let server = epoch.client().max_payload();
        let largest =
            largest.and_then(|limit| usize::try_from(limit).ok()).map_or(server, |limit| limit.min(server));
        Self { id: call.unique_name(), shared, epoch, call, messages: Vec::new(), bytes: 0, largest }
    }

    /// How many records are in.
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Adds a record, unless it cannot go.
    pub(crate) fn add(&mut self, record: &Record) -> Added {
        let rejected =
            |reason, detail: &str| Added::Rejected(Rejection { reason, detail: detail.to_owned() });
        if let Some(fault) = subject::fault(&record.destination) {
            return rejected(RejectReason::InvalidDestination, fault);
        }
        if record.destination.starts_with(super::checkpoint::ROOT) {
            return rejected(RejectReason::InvalidDestination, "the subject belongs to the checkpoints");
        }
        let Some(own) = message::length_in_batch(record, self.stream()) else {
            return rejected(RejectReason::Refused, "a header's name is not one that NATS can have");
        };
        let size = own + self.place_length() + record.value.len();
        if size > self.largest {
            let detail = format!(
                "{size} bytes are more than the server or the stream takes ({} bytes, headers included)",
                self.largest
            );
            return rejected(RejectReason::TooLarge, &detail);
        }
        if self.bytes + size > MOST_BYTES && !self.messages.is_empty() {
            return Added::Enough;
        }
        self.bytes += size;
        self.messages.push(Outgoing::Record(record.clone()));
        Added::In
    }

    fn stream(&self) -> &'a str {
        &self.shared.checked.settings.stream
    }

    /// What the next message's place in the batch takes on the wire.
    fn place_length(&self) -> usize {
        let sequence = (self.messages.len() + 1).to_string();
        message::line_length(&header::NATS_BATCH_ID, &self.id)
            + message::line_length(&header::NATS_BATCH_SEQUENCE, &sequence)
    }

    /// Subject, headers and payload of the message at `index`.
    fn finished(&self, index: usize, message: Outgoing) -> (Arc<str>, HeaderMap, Bytes) {
        let (subject, mut headers, payload) = match message {
            Outgoing::Record(record) => {
                let headers = message::headers_in_batch(&record, self.stream());
                (record.destination, headers.expect("looked at when it was added"), record.value)
            }
            Outgoing::Made { subject, headers, payload } => (subject, headers, payload),
        };
        headers.insert(header::NATS_BATCH_ID, self.id.as_str());
        headers.insert(header::NATS_BATCH_SEQUENCE, (index + 1).to_string());
        (subject, headers, payload)
    }

    /// Sends it with the checkpoint that is proposed, which replaces the one at `expected`, and waits for its end.
    ///
    /// With `loud` every message is answered, so that the one to blame is named. A claim is the batch without records.
    pub(crate) async fn commit(
        mut self,
        subject: &str,
        proposal: &Proposal,
        expected: u64,
        loud: bool,
    ) -> Verdict {
        let bare = self.messages.is_empty();
        for (page, text) in proposal.pages() {
            let mut headers = HeaderMap::new();
            headers.insert(header::NATS_EXPECTED_STREAM, self.stream());
            headers.insert(header::NATS_ROLLUP, "sub");
            let subject = checkpoint::page_subject(subject, *page).into();
            // A page that is no longer needed becomes an empty message, until its number is used again.
            let payload = text.clone().unwrap_or_default();
            self.messages.push(Outgoing::Made { subject, headers, payload });
        }
        let text = proposal.text().clone();
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_EXPECTED_STREAM, self.stream());
        headers.insert(header::NATS_ROLLUP, "sub");
        headers.insert(header::NATS_BATCH_COMMIT, header::NATS_BATCH_COMMIT_FINAL);
        if bare && makes(Mistake::ReadBeforeFencing) {
            // The mistake: whoever published between reading and claiming is not noticed. It gets time for it.
            tokio::time::sleep(Duration::from_millis(200)).await;
        } else {
            headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
        }
        let size = message::wire_length(&headers) + self.place_length() + text.len();
        if size > self.largest {
            return Verdict::Again(
                "checkpoint_too_large",
                format!(
                    "the checkpoint has {size} bytes, more than the server or the stream takes ({} bytes): raise the \
                     limit or lower max_in_flight",
                    self.largest
                ),
            );
        }
        self.messages.push(Outgoing::Made { subject: subject.into(), headers, payload: text });
        self.send(subject, loud).await
    }

    /// Sends the fence `text`, under no condition. Only for a batch without records.
    pub(crate) async fn fence(mut self, subject: &str, text: Bytes) -> Verdict {
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_EXPECTED_STREAM, self.stream());
        headers.insert(super::checkpoint::FENCE, "1");
        headers.insert(header::NATS_BATCH_COMMIT, header::NATS_BATCH_COMMIT_FINAL);
        self.messages.push(Outgoing::Made { subject: subject.into(), headers, payload: text });
        self.send(subject, false).await
    }

    /// `checkpoint` is the subject of the last message.
    async fn send(mut self, checkpoint: &str, loud: bool) -> Verdict {
        let (shared, epoch) = (self.shared, self.epoch);
        let patience = shared.checked.settings.ack_timeout;
        let last = self.messages.len() - 1;
        let middle = self.messages.len() / 2;
        let mut deadline = pin!(sleep_until(Instant::now() + patience));
        for (index, message) in std::mem::take(&mut self.messages).into_iter().enumerate() {
            let (subject, headers, payload) = self.finished(index, message);
            let call = &self.call;
            let sending = async {
                if index == last {
                    // The commit is the last thing to leave: a batch that is refused at once is not sent to its end.
                    let _ = epoch.client().flush().await;
                    crash_point(Moment::AfterPublish);
                }
                match loud || index == 0 || index == last || index % ASK == 0 {
                    true => call.send(index, &*subject, headers, payload).await,
                    false => call.send_quietly(&*subject, headers, payload).await,
                }
            };
            let sent = tokio::select! {
                biased;
                sent = sending => sent,
                () = epoch.broken() => Err(SendError::Broken),
                () = &mut deadline => return silence(shared, epoch),
            };
            if let Err(error) = sent {
                return self.unsent(&error, index, last);
            }
            if index == middle && index < last {
                crash_point(Moment::MidPublish);
            }
            while let Ok(note) = self.call.notes.try_recv() {
                deadline.as_mut().reset(Instant::now() + patience);
                if let Some(verdict) = self.hear(note, last, checkpoint) {
                    return verdict;
                }
            }
        }
        loop {
            tokio::select! {
                biased;
                note = self.call.notes.recv() => {
                    deadline.as_mut().reset(Instant::now() + patience);
                    let Some(note) = note else { return Verdict::Unknown(epoch.reason()) };
                    if let Some(verdict) = self.hear(note, last, checkpoint) {
                        return verdict;
                    }
                }
                () = epoch.broken() => return Verdict::Unknown(epoch.reason()),
                () = &mut deadline => return silence(shared, epoch),
            }
        }
    }

    /// What it means that the message at `index` did not leave.
    fn unsent(&self, error: &SendError, index: usize, last: usize) -> Verdict {
        let (reason, detail) = match error {
            SendError::Broken => return Verdict::Unknown(self.epoch.reason()),
            SendError::TooLarge => (RejectReason::TooLarge, "larger than the server takes"),
            SendError::Subject => (RejectReason::InvalidDestination, "the subject has whitespace"),
        };
        match index == last {
            true => Verdict::Again("checkpoint_too_large", format!("the checkpoint is {detail}")),
            false => {
                Verdict::Named(index, Outcome::Rejected(Rejection { reason, detail: detail.to_owned() }))
            }
        }
    }

    fn hear(&self, note: Note, last: usize, checkpoint: &str) -> Option<Verdict> {
        match note {
            Note::Answer(index, message) => match verdict::read(&message, index, last, self.stream()) {
                Heard::Staged => None,
                Heard::End(verdict) => {
                    if matches!(verdict, Verdict::Committed(_)) {
                        crash_point(Moment::AfterCommit);
                    }
                    Some(verdict)
                }
            },
            // Without its last message a batch gets no answer at all. A record's subject leaves a gap that is answered.
            Note::Denied(subject) => (*subject == *checkpoint).then(|| Verdict::Denied(checkpoint.into())),
        }
    }
}

fn silence(shared: &Shared, epoch: &Epoch) -> Verdict {
    shared.no_answer(epoch);
    Verdict::Unknown(epoch.reason())
}
