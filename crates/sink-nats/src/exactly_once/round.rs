//! One round: everything that publishes of a source asked for at one time, in as few batches as possible.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use viaduct_sink::outcome::Position;
use viaduct_sink::{Outcome, Receipt, Record, Refusal};

use super::batch::{Added, AtomicBatch};
use super::bisect::Bisect;
use super::lanes::Lanes;
use super::source::{Request, Source};
use super::standing::{Obstacle, Standing, denied, not_atomic};
use super::verdict::Verdict;
use crate::answer;
use crate::epoch::Epoch;
use crate::publish::held;
use crate::stream::{InspectError, StreamReport};
use crate::subject;

/// So many times in a row a batch may come to nothing before the records go back to whoever offered them.
const VAIN: u32 = 8;

/// The records of a round and what is known of them.
struct Round {
    /// Who waits for the fates, and of how many records each, in order.
    replies: Vec<(oneshot::Sender<Vec<Outcome>>, usize)>,
    records: Vec<Record>,
    fates: Vec<Option<Outcome>>,
    /// The records without a fate, in order.
    queue: VecDeque<usize>,
    lanes: Lanes,
    bisect: Bisect,
    /// Have every message answered, to learn which one is to blame.
    loud: bool,
    begun: Instant,
    /// Batches that came to nothing, one after the other.
    vain: u32,
}

impl Round {
    fn new(requests: Vec<Request>) -> Self {
        let mut records = Vec::new();
        let mut replies = Vec::with_capacity(requests.len());
        for request in requests {
            replies.push((request.reply, request.records.len()));
            records.extend(request.records);
        }
        Self {
            fates: vec![None; records.len()],
            queue: (0..records.len()).collect(),
            records,
            replies,
            lanes: Lanes::default(),
            bisect: Bisect::default(),
            loud: false,
            begun: Instant::now(),
            vain: 0,
        }
    }

    fn settle(&mut self, index: usize, fate: Outcome) {
        if matches!(fate, Outcome::Retry(_)) {
            self.lanes.hold(&self.records[index]);
        }
        self.fates[index] = Some(fate);
    }

    /// The record at the head of the queue has its fate.
    fn settle_next(&mut self, fate: Outcome) {
        if let Some(index) = self.queue.pop_front() {
            self.settle(index, fate);
        }
    }

    /// So have all that are left.
    fn settle_rest(&mut self, fate: &Outcome) {
        while !self.queue.is_empty() {
            self.settle_next(fate.clone());
        }
    }

    /// Puts records of a batch that was not stored back to the head of the queue.
    fn put_back(&mut self, taken: &[usize]) {
        for index in taken.iter().rev() {
            self.queue.push_front(*index);
        }
    }

    /// Tells everybody.
    fn report(self) {
        let mut fates = self.fates.into_iter().map(|fate| fate.unwrap_or_else(held));
        for (reply, count) in self.replies {
            let own = fates.by_ref().take(count).collect();
            // Whoever offered them may have gone.
            let _ = reply.send(own);
        }
    }
}

impl Source {
    /// Publishes what the requests ask for, over as many batches and connections as it takes. Also where nobody waits
    /// for it any more: whatever is offered after an abandoned publish stands behind it, as if it had been waited for.
    pub(crate) async fn publish(&mut self, requests: Vec<Request>) {
        let mut round = Round::new(requests);
        while !round.queue.is_empty() {
            if let Standing::Lost(fatal) = &self.standing {
                round.fates.fill(Some(Outcome::Fatal(fatal.clone())));
                return round.report();
            }
            let epoch = self.connected().await;
            match self.pass(&epoch, &mut round).await {
                Ok(()) | Err(Obstacle::Lost) => {}
                Err(Obstacle::Refused(fate)) => round.settle_rest(&fate),
                Err(Obstacle::Away(..)) if epoch.is_broken() => {}
                Err(Obstacle::Away(reason, detail)) => {
                    round.vain += 1;
                    if round.vain > VAIN {
                        round.settle_rest(&answer::retry(reason, detail));
                    } else {
                        tokio::time::sleep(pause(round.vain)).await;
                    }
                }
            }
        }
        self.tell_health(&round).await;
        round.report();
    }

    async fn tell_health(&self, round: &Round) {
        let retries = || {
            round.fates.iter().filter_map(|fate| match fate {
                Some(Outcome::Retry(retry)) => Some(retry),
                _ => None,
            })
        };
        if let Some(full) = retries().find(|retry| retry.refusal == Some(Refusal::Full)) {
            self.shared.health.down(full.detail.clone());
        }
        match retries().next() {
            None => self.shared.all_well().await,
            Some(_) => self.shared.refused(),
        }
    }

    /// One batch.
    async fn pass(&mut self, epoch: &Arc<Epoch>, round: &mut Round) -> Result<(), Obstacle> {
        let report = self.own(epoch).await?;
        let shared = self.shared.clone();
        // It is never closed.
        let _permit = shared.batches.acquire().await.ok();
        let mut batch = AtomicBatch::new(&shared, epoch, report.max_message_size);
        let taken = self.fill(&mut batch, epoch, &report, round).await;
        if taken.is_empty() {
            return Ok(());
        }
        let records = taken.iter().map(|index| &round.records[*index]);
        let verdict = self.commit(batch, records, round.loud).await;
        if let Verdict::Committed(sequence) = verdict {
            // The checkpoint is the last of the batch's messages, which stand one behind the other.
            let first = sequence.saturating_sub(taken.len() as u64);
            for (sequence, index) in (first..).zip(&taken) {
                let position = Position::Stream { sequence, duplicate: false };
                round.settle(*index, Outcome::Confirmed(Receipt::attest(position)));
            }
            round.bisect.stored(taken.len());
            (round.loud, round.vain) = (false, 0);
            return Ok(());
        }
        round.put_back(&taken);
        self.decide(epoch, round, &taken, verdict).await
    }

    /// Moves records from the head of the queue into the batch, until it is large enough.
    async fn fill(
        &mut self,
        batch: &mut AtomicBatch<'_>,
        epoch: &Arc<Epoch>,
        report: &StreamReport,
        round: &mut Round,
    ) -> Vec<usize> {
        let limit = self.shared.batch_limit.load(std::sync::atomic::Ordering::Relaxed);
        let size = round.bisect.size(limit.saturating_sub(1).max(1));
        let mut taken = Vec::new();
        let mut names = HashSet::new();
        while let Some(&index) = round.queue.front()
            && batch.len() < size
        {
            let record = &round.records[index];
            let Standing::Owner(owned) = &mut self.standing else { break };
            if owned.progress.recognise(record) {
                round.settle_next(Outcome::Confirmed(Receipt::attest(Position::Held)));
                continue;
            }
            // The same record twice: once the first one is stored, the second one is known.
            if names.contains(&record.message_id) {
                break;
            }
            if let Some(fate) = round.lanes.fate(record) {
                round.settle_next(fate);
                continue;
            }
            let destination = record.destination.clone();
            if let Some(why) = self.refusal(epoch, report, round.begun, &destination).await {
                round.lanes.refuse(destination, why);
                continue;
            }
            match batch.add(record) {
                Added::In => {
                    names.insert(record.message_id.clone());
                    taken.push(index);
                    round.queue.pop_front();
                }
                Added::Enough => break,
                Added::Rejected(rejection) => round.settle_next(Outcome::Rejected(rejection)),
            }
        }
        taken
    }

    /// Why nothing can be published to a subject now, as far as it is known beforehand.
    async fn refusal(
        &self,
        epoch: &Epoch,
        report: &StreamReport,
        since: Instant,
        destination: &str,
    ) -> Option<Outcome> {
        if epoch.denied_since(destination, since) {
            return Some(denied(destination));
        }
        if report.covers(destination) || subject::fault(destination).is_some() {
            return None;
        }
        // It may have been added since the stream was looked at.
        match self.shared.look(epoch, since).await {
            Ok(report) if !report.covers(destination) => {
                let detail =
                    format!("no stream has the subject {destination}; stream {} has others", report.name);
                Some(answer::refused("no_stream", Refusal::Missing, detail))
            }
            Err(InspectError::Absent(stream)) => {
                let detail = format!("stream {stream} does not exist");
                Some(answer::refused("no_stream", Refusal::Missing, detail))
            }
            Ok(_) | Err(InspectError::Refused(_) | InspectError::Unreachable(_)) => None,
        }
    }

    /// What follows from a batch that was not confirmed. Its records are in the queue again, and the checkpoint is read
    /// before anything else is published.
    async fn decide(
        &mut self,
        epoch: &Arc<Epoch>,
        round: &mut Round,
        taken: &[usize],
        verdict: Verdict,
    ) -> Result<(), Obstacle> {
        match verdict {
            Verdict::Committed(_) => Ok(()),
            Verdict::Unknown(detail) => Err(Obstacle::Away("unknown", detail)),
            Verdict::Again(reason, detail) => Err(Obstacle::Away(reason, detail)),
            Verdict::Moved => {
                round.vain += 1;
                match round.vain > VAIN {
                    true => Err(Obstacle::Away("contended", "the checkpoint keeps changing".to_owned())),
                    false => Ok(()),
                }
            }
            Verdict::Incomplete if !round.loud => {
                round.loud = true;
                Ok(())
            }
            Verdict::Incomplete => {
                Err(Obstacle::Away("incomplete", "the server lost a part of a batch".to_owned()))
            }
            Verdict::TooMany(limit) => {
                let sent = taken.len() + 1;
                let limit = limit.filter(|limit| *limit < sent).unwrap_or(sent / 2).max(2);
                self.shared.batch_limit.fetch_min(limit, std::sync::atomic::Ordering::Relaxed);
                match sent > limit {
                    true => Ok(()),
                    false => {
                        Err(Obstacle::Away("batch_limit", "the server takes no batches of two".to_owned()))
                    }
                }
            }
            Verdict::Unfit(detail) => {
                self.look_again(epoch).await;
                Err(Obstacle::Away("unfit", detail))
            }
            Verdict::Named(at, fate) => {
                self.blame(round, taken, at, fate);
                // What is larger than the stream takes now shows beforehand from now on.
                let _ = self.shared.look(epoch, round.begun).await;
                Ok(())
            }
            Verdict::Unheard(_) => {
                self.look_again(epoch).await;
                Err(Obstacle::Away("no_responders", "nobody listens on the subject".to_owned()))
            }
            Verdict::Denied(subject) => Err(Obstacle::Refused(denied(&subject))),
            Verdict::Culprit(fate) => {
                if round.bisect.rejected(taken.len()) {
                    self.blame(round, taken, 0, fate);
                }
                Ok(())
            }
            Verdict::Full(fate) => {
                round.settle_rest(&fate);
                Ok(())
            }
            Verdict::NotAtomic => Err(self.lose(not_atomic())),
        }
    }

    /// The record at this place of the batch is out.
    fn blame(&self, round: &mut Round, taken: &[usize], at: usize, fate: Outcome) {
        if let Some(index) = taken.get(at).copied() {
            round.queue.retain(|other| *other != index);
            round.settle(index, fate);
        }
    }
}

/// From 20 ms to a second.
fn pause(vain: u32) -> Duration {
    Duration::from_millis(20 << vain.min(6)).min(Duration::from_secs(1))
}
