//! One participant: a batch of one source, from what is stored already to a verdict on each record.
//!
//! Order. All records of the batch that can be sent go into one transaction, in order, so there is no order to lose. What
//! cannot be sent is known beforehand (no such topic, not permitted, refused by the topic when it was probed) or found out
//! from a transaction that is aborted, and then the whole is sent again without it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use rdkafka::types::RDKafkaErrorCode as Code;
use tracing::debug;
use viaduct_faults::{Moment, crash_point};
use viaduct_sink::outcome::Position;
use viaduct_sink::{Fatal, Outcome, Receipt, Record};

use super::checkpoints::TOPIC;
use super::fence::write_checkpoint;
use super::ledger::Place;
use super::round::{Round, Seat, Verdict as End};
use super::shard::Shard;
use crate::classify::{Verdict, verdict};
use crate::publish::{Message, hand_over, keep_order, message, size};
use crate::reports::{Delivered, Reports};
use crate::topics::valid_name;

/// What is known of the batch so far.
struct Batch<'a> {
    records: &'a [Record],
    fates: Vec<Option<Outcome>>,
    /// Records that their topic took when it was probed.
    cleared: HashSet<usize>,
    /// Records that were in a refused batch.
    suspects: HashSet<usize>,
    /// A batch was refused as too large.
    too_large: bool,
}

impl<'a> Batch<'a> {
    fn open(&self) -> impl Iterator<Item = (usize, &'a Record)> {
        let fates = self.fates.iter();
        self.records
            .iter()
            .enumerate()
            .zip(fates)
            .filter(|(_, fate)| fate.is_none())
            .map(|(record, _)| record)
    }

    fn settled(&self) -> bool {
        self.fates.iter().all(Option::is_some)
    }

    /// The topics of open records, in order.
    fn topics(&self) -> Vec<Arc<str>> {
        let mut topics: Vec<Arc<str>> = Vec::new();
        for (_, record) in self.open() {
            if !topics.contains(&record.destination) {
                topics.push(Arc::clone(&record.destination));
            }
        }
        topics
    }

    /// Gives all open records of a topic this fate.
    fn refuse(&mut self, topic: &str, no: Verdict, code: Code) {
        let open: Vec<usize> =
            self.open().filter(|(_, record)| *record.destination == *topic).map(|(index, _)| index).collect();
        for index in open {
            self.fates[index] = Some(no.outcome(topic, code));
        }
    }

    fn fail(&mut self, fatal: &Fatal) {
        for fate in &mut self.fates {
            fate.get_or_insert_with(|| Outcome::Fatal(fatal.clone()));
        }
    }
}

impl Shard {
    /// Publishes the records and tells what became of each.
    pub(super) async fn publish(&self, source: &str, records: &[Record]) -> Vec<Outcome> {
        let mut batch = Batch {
            records,
            fates: vec![None; records.len()],
            cleared: HashSet::new(),
            suspects: HashSet::new(),
            too_large: false,
        };
        if let Err(fatal) = self.claimed(source).await {
            batch.fail(&fatal);
        }
        for (index, record) in records.iter().enumerate() {
            if !valid_name(&record.destination) {
                let no = Verdict::InvalidTopic.outcome(&record.destination, Code::InvalidTopic);
                batch.fates[index].get_or_insert(no);
            }
        }
        while !batch.settled() {
            self.recognise(source, &mut batch);
            self.look_up(&mut batch).await;
            if !self.examine(&mut batch).await {
                continue;
            }
            if batch.settled() {
                break;
            }
            match self.enter().await {
                Ok(seat) => self.take_part(source, seat, &mut batch).await,
                Err(fatal) => batch.fail(&fatal),
            }
        }
        let mut outcomes: Vec<Outcome> = batch.fates.into_iter().flatten().collect();
        keep_order(records, &mut outcomes);
        outcomes
    }

    fn recognise(&self, source: &str, batch: &mut Batch<'_>) {
        let mut ledger = self.ledger();
        for (record, fate) in batch.records.iter().zip(&mut batch.fates) {
            if fate.is_none() && ledger.holds(source, record) {
                *fate = Some(held());
            }
        }
    }

    /// Records of topics that are missing or forbidden are not sent.
    async fn look_up(&self, batch: &mut Batch<'_>) {
        for topic in batch.topics() {
            if let Err((no, code)) = self.topics.look(&topic).await {
                batch.refuse(&topic, no, code);
            }
        }
    }

    /// Records that their topic may refuse are tried beforehand, where nobody sees them. `false`: not all have an answer.
    async fn examine(&self, batch: &mut Batch<'_>) -> bool {
        let mut all_answered = true;
        let now = Instant::now();
        if !self.isolation.any(now) && batch.suspects.is_empty() {
            self.probe.rest();
        }
        for topic in batch.topics() {
            let of_topic: Vec<(usize, &Record)> =
                batch.open().filter(|(_, record)| record.destination == topic).collect();
            let largest = || of_topic.iter().map(|(_, record)| size(record)).max().unwrap_or(0);
            let suspicious = self.isolation.applies(&topic, largest, now);
            let tried: Vec<(usize, &Record)> = of_topic
                .into_iter()
                .filter(|(index, _)| {
                    batch.suspects.contains(index) || suspicious && !batch.cleared.contains(index)
                })
                .collect();
            if tried.is_empty() {
                continue;
            }
            let found = self.probe.examine(&topic, &tried, &self.topics).await;
            let now = Instant::now();
            let mut all_taken = true;
            let mut bytes = 0;
            for ((index, record), found) in tried.iter().zip(found) {
                bytes += size(record);
                match found {
                    Some(Ok(())) => {
                        batch.cleared.insert(*index);
                        batch.suspects.remove(index);
                    }
                    Some(Err(code)) => {
                        all_taken = false;
                        let no = verdict(code);
                        batch.suspects.remove(index);
                        let too_large = (no == Verdict::TooLarge).then(|| size(record));
                        self.isolation.prolong(&topic, too_large, now);
                        if no.lets_pass() {
                            batch.fates[*index] = Some(no.outcome(&topic, code));
                        } else {
                            self.topics.forget(&topic);
                            batch.refuse(&topic, no, code);
                        }
                    }
                    // Nobody answered for it: look again.
                    None => (all_taken, all_answered) = (false, false),
                }
            }
            if all_taken && batch.too_large {
                batch.too_large = false;
                self.shrink_batches(bytes);
            }
        }
        all_answered
    }

    /// Hands the open records over, and waits for the end of the transaction.
    async fn take_part(&self, source: &str, seat: Seat, batch: &mut Batch<'_>) {
        let round = Arc::clone(seat.round());
        let count = batch.records.len();
        let reports = round.reports(count + 1);
        let mut messages: Vec<(usize, Message<'_>)> = Vec::with_capacity(count);
        let mut under_way: Vec<usize> = Vec::new();
        let open: Vec<(usize, &Record)> = batch.open().collect();
        for (index, record) in open {
            match self.ledger().reserve(source, record) {
                Place::Held => batch.fates[index] = Some(held()),
                Place::UnderWay => under_way.push(index),
                Place::New => {
                    seat.uses(&record.destination);
                    messages.push((index, message(record, reports.ticket(index))));
                }
            }
        }
        let reserved = !messages.is_empty();
        let mut sent: Vec<usize> = Vec::with_capacity(messages.len());
        if reserved {
            let handed_over = self.hand_over(source, &round, &reports, messages, batch).await;
            let spoiled = handed_over.map(|indices| sent = indices).is_err();
            seat.seal(&reports, spoiled);
        } else {
            seat.leave();
        }
        if !reserved && under_way.is_empty() {
            return;
        }
        match round.verdict().await {
            End::Committed => {
                let delivered = reports.take();
                for index in sent {
                    if let Some(Some(Delivered::At { partition, offset })) = delivered.get(index).copied() {
                        let position = Position::Kafka { partition, offset };
                        batch.fates[index] = Some(Outcome::Confirmed(Receipt::attest(position)));
                    }
                }
                // In the ledger by now, which the next look finds.
            }
            End::Again(cause) => self.learn(source, &reports.take(), cause, batch),
        }
    }

    /// Hands a checkpoint over that names the records, then these. Tells which of them were taken.
    ///
    /// The checkpoint goes first, so that the brokers are told of its partition and those of the records at once.
    ///
    /// # Errors
    /// The transaction has to be aborted.
    async fn hand_over(
        &self,
        source: &str,
        round: &Round,
        reports: &Arc<Reports>,
        messages: Vec<(usize, Message<'_>)>,
        batch: &mut Batch<'_>,
    ) -> Result<Vec<usize>, Code> {
        let mut sent = Vec::with_capacity(messages.len());
        let mut failed = self.write_names(source, round, reports, batch.records.len()).await.err();
        let mut released = false;
        for (index, message) in messages {
            if failed.is_some() {
                message.delivery_opaque.withdraw();
                continue;
            }
            match hand_over(&round.generation, message).await {
                Ok(()) => sent.push(index),
                Err(code) => {
                    let record = &batch.records[index];
                    self.ledger().release(source, record);
                    let no = verdict(code);
                    if no.lets_pass() {
                        released = true;
                        batch.fates[index] = Some(no.outcome(&record.destination, code));
                    } else {
                        // The transaction has failed already, or it does now.
                        debug!(shard = self.number, ?code, "a record cannot be handed over");
                        failed = Some(code);
                    }
                }
            }
            if sent.len() == 1 {
                crash_point(Moment::MidPublish);
            }
        }
        // The checkpoint names a record that is not there; of two in one transaction the later one counts.
        if released && failed.is_none() {
            failed = self.write_names(source, round, reports, batch.records.len()).await.err();
        }
        failed.map_or(Ok(sent), Err)
    }

    /// Hands over a checkpoint of all that the source has in the transaction.
    async fn write_names(
        &self,
        source: &str,
        round: &Round,
        reports: &Arc<Reports>,
        ticket: usize,
    ) -> Result<(), Code> {
        let _sealing = self.sealing.lock().await;
        let proposed = self.ledger().propose(source);
        let Some(texts) = proposed else { return Ok(()) };
        write_checkpoint(&round.generation, &texts, || reports.ticket(ticket)).await
    }

    /// What a failed transaction says about the records and topics of this batch.
    fn learn(
        &self,
        source: &str,
        delivered: &[Option<Delivered>],
        cause: Option<Code>,
        batch: &mut Batch<'_>,
    ) {
        let now = Instant::now();
        let mut explained = false;
        for (index, delivered) in delivered.iter().enumerate() {
            let Some(Delivered::Failed(code)) = *delivered else { continue };
            let no = verdict(code);
            let Some(record) = batch.records.get(index) else {
                if no == Verdict::TooLarge {
                    batch.fail(&Fatal::Broken(format!(
                        "the checkpoint of source {source} is larger than topic {TOPIC} takes: raise its \
                         max.message.bytes, or lower max_in_flight"
                    )));
                }
                continue;
            };
            match no {
                // The brokers name the records of a batch that they refuse for these reasons (KIP-467).
                Verdict::Refused if matches!(code, Code::InvalidRecord | Code::InvalidTimestamp) => {
                    explained = true;
                    batch.fates[index] = Some(no.outcome(&record.destination, code));
                }
                Verdict::Neighbour => explained = true,
                Verdict::TooLarge | Verdict::Refused | Verdict::InvalidTopic => {
                    explained = true;
                    self.isolation.begin(&record.destination, now);
                    batch.suspects.insert(index);
                    batch.too_large |= no == Verdict::TooLarge;
                }
                Verdict::NotPermitted => {
                    explained = true;
                    self.isolation.begin(&record.destination, now);
                    self.topics.forget(&record.destination);
                    batch.suspects.insert(index);
                }
                Verdict::Missing => {
                    explained = true;
                    self.topics.forget(&record.destination);
                }
                Verdict::NotCreated | Verdict::NotDurable | Verdict::ProducerBroken | Verdict::Transient => {}
            }
        }
        // A topic that may not even be added to a transaction: the producer does not tell which one.
        if !explained && cause.is_some_and(|cause| verdict(cause) == Verdict::NotPermitted) {
            for topic in batch.topics() {
                self.isolation.begin(&topic, now);
            }
            batch.cleared.clear();
        }
    }
}

fn held() -> Outcome {
    Outcome::Confirmed(Receipt::attest(Position::Held))
}
