//! One batch: handed to librdkafka in order, then every record's delivery report awaited.
//!
//! Order. The idempotent producer keeps the order of what it has accepted, over all its own retries, and stops at the
//! first batch that a broker refuses ([`crate::producer`]). What is left for this file: once a record of a topic was not
//! sent, no later record of that topic is sent in the same call; and a record that was confirmed although an earlier one
//! of its topic and key has to come again (a broker accepts every first batch of a producer that it does not know, so
//! also one behind a refused one) comes again with it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::message::{Header as KafkaHeader, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use rdkafka::types::RDKafkaErrorCode as Code;
use viaduct_faults::{Moment, crash_point};
use viaduct_sink::outcome::Position;
use viaduct_sink::record::HeaderStyle;
use viaduct_sink::{Outcome, Receipt, Record, Refusal};

use crate::classify::{self, Verdict, verdict};
use crate::isolation::Isolation;
use crate::producer::{Generation, Lane, Producers};
use crate::reports::{Delivered, Reports, Ticket};
use crate::topics::{No, Topics, valid_name};
use crate::turnstile::{Share, Turn, Turnstile};

/// How long to wait for room in librdkafka's queue before trying again: from, to.
const FULL_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));
/// A value of so many bytes may make a record that is larger than brokers take, whose limit is 1 MiB where nobody has set
/// another (`message.max.bytes`). It goes one by one, so that its refusal ends no producer.
const SUSPICIOUS: usize = 900_000;
/// So many records at once are a bulk.
const BULK: usize = 64;

/// A shard that delivers at least once: the sources that share its producers.
pub(crate) struct AtLeastOnce {
    pub(crate) producers: Arc<Producers>,
    pub(crate) topics: Arc<Topics>,
    pub(crate) isolation: Isolation,
    pub(crate) turnstile: Turnstile,
}

/// How the records of one topic go in this call.
struct Route {
    generation: Arc<Generation>,
    /// Set where no further record of the topic may be sent.
    stopped: Option<No>,
}

/// The routes of a batch, by topic.
type Routes<'a> = HashMap<&'a str, Route>;

impl AtLeastOnce {
    /// Publishes the records and tells what became of each.
    pub(crate) async fn publish_records(&self, records: &[Record]) -> Vec<Outcome> {
        let turn = self.turn(records).await;
        let mut routes = match self.routes(records).await {
            Ok(routes) => routes,
            Err(detail) => {
                return records.iter().map(|_| classify::without_producer(detail.clone())).collect();
            }
        };
        let reports = Reports::new(records.len());
        let mut failures = 0;
        let mut refused: Vec<Option<No>> = vec![None; records.len()];
        for (index, record) in records.iter().enumerate() {
            // A failure that has come back already means that what follows could overtake what failed.
            for (failed, code) in reports.failed_since(&mut failures) {
                if let Some(route) = routes.get_mut(&*records[failed].destination)
                    && !(route.generation.lane == Lane::OneByOne && verdict(code).lets_pass())
                {
                    route.stopped.get_or_insert((verdict(code), code));
                }
            }
            let no = match routes.get_mut(&*record.destination) {
                None => Some((Verdict::InvalidTopic, Code::InvalidTopic)),
                Some(Route { stopped: Some(no), .. }) => Some(stopped_by(*no)),
                Some(route) => {
                    match hand_over(&route.generation, message(record, reports.ticket(index))).await {
                        Ok(()) => None,
                        Err(code) => {
                            let no = (verdict(code), code);
                            // A record that can never be sent holds nothing back; anything else does.
                            if !no.0.lets_pass() {
                                route.stopped = Some(no);
                            }
                            Some(no)
                        }
                    }
                }
            };
            refused[index] = no;
            if index == 0 {
                crash_point(Moment::MidPublish);
            }
        }
        let delivered = reports.all().await;
        drop(turn);
        // Nothing else makes it final here.
        crash_point(Moment::AfterPublish);
        crash_point(Moment::AfterCommit);
        let mut outcomes = Vec::with_capacity(records.len());
        for ((record, delivered), refused) in records.iter().zip(delivered).zip(refused) {
            outcomes.push(match (delivered, routes.get(&*record.destination)) {
                (Some(Delivered::At { partition, offset }), _) => {
                    Outcome::Confirmed(Receipt::attest(Position::Kafka { partition, offset }))
                }
                (Some(Delivered::Failed(code)), Some(route)) => self.failed(record, code, &route.generation),
                (_, route) => {
                    let (verdict, code) = refused.unwrap_or((Verdict::Transient, Code::Fail));
                    self.unsent(record, verdict, code, route)
                }
            });
        }
        keep_order(records, &mut outcomes);
        forbid_alike(records, &mut outcomes);
        outcomes
    }

    /// Waits for the bulks before this one. A topic that nobody has looked up yet has none.
    async fn turn(&self, records: &[Record]) -> Turn {
        if records.len() < BULK {
            return Turn::default();
        }
        let mut topics: BTreeMap<&str, Share> = BTreeMap::new();
        for same in records.chunk_by(|one, next| one.destination == next.destination) {
            let topic: &str = &same[0].destination;
            if let Some(share) = topics.get_mut(topic) {
                share.records += same.len();
            } else if let Some(partitions) = self.topics.partitions(topic) {
                topics.insert(topic, Share { partitions, records: same.len() });
            }
        }
        self.turnstile.pass(&topics).await
    }

    /// Decides the lane of each topic and looks up those that are not known. Topics with impossible names have no route.
    ///
    /// # Errors
    /// There is no producer.
    async fn routes<'a>(&self, records: &'a [Record]) -> Result<Routes<'a>, String> {
        let now = Instant::now();
        let mut routes: Routes<'a> = HashMap::with_capacity(4);
        let mut last = "";
        for record in records {
            let topic: &str = &record.destination;
            if topic == last || routes.contains_key(topic) || !valid_name(topic) {
                continue;
            }
            last = topic;
            let lane = self.lane(records, topic, now);
            let generation = self.producers.current(lane).await?;
            let stopped = self.topics.standing(&record.destination, &generation).await.err();
            routes.insert(topic, Route { generation, stopped });
        }
        Ok(routes)
    }

    fn lane(&self, records: &[Record], topic: &str, now: Instant) -> Lane {
        let of_topic = || records.iter().filter(|record| &*record.destination == topic);
        let largest = || of_topic().map(size).max().unwrap_or(0);
        if self.isolation.applies(topic, largest, now)
            || of_topic().any(|record| record.value.len() >= SUSPICIOUS)
        {
            return Lane::OneByOne;
        }
        // A producer costs some threads: it goes when nobody needs it any more.
        if !self.isolation.any(now) && self.producers.waiting_on(Lane::OneByOne) == 0 {
            self.producers.retire(Lane::OneByOne);
        }
        if records.len() >= BULK { Lane::Bulk } else { Lane::Pipelined }
    }

    /// A record that librdkafka accepted and then gave back.
    fn failed(&self, record: &Record, code: Code, generation: &Generation) -> Outcome {
        let topic = &record.destination;
        let now = Instant::now();
        match (verdict(code), generation.lane) {
            (Verdict::ProducerBroken, _) => self.broken(record, code, generation),
            (no @ Verdict::Missing, _) => {
                self.topics.forget(topic);
                no.outcome(topic, code)
            }
            (no @ Verdict::NotPermitted, lane) => {
                self.topics.forget(topic);
                if lane != Lane::OneByOne {
                    self.isolation.begin(topic, now);
                } else {
                    self.isolation.prolong(topic, None, now);
                }
                no.outcome(topic, code)
            }
            // librdkafka's own trouble, not an answer of a broker.
            (no @ Verdict::Transient, Lane::Pipelined | Lane::Bulk) if (code as i32) < 0 => {
                no.outcome(topic, code)
            }
            (no, Lane::Pipelined | Lane::Bulk) => {
                self.isolation.begin(topic, now);
                let batch_bytes = self.producers.batch_bytes();
                if no == Verdict::TooLarge && size(record) <= batch_bytes {
                    self.producers.shrink_batches(batch_bytes);
                }
                classify::isolate(topic, code)
            }
            (no, Lane::OneByOne) => {
                self.isolation.prolong(topic, (no == Verdict::TooLarge).then(|| size(record)), now);
                no.outcome(topic, code)
            }
        }
    }

    /// A record that was never handed over.
    fn unsent(&self, record: &Record, no: Verdict, code: Code, route: Option<&Route>) -> Outcome {
        match (no, route) {
            (Verdict::ProducerBroken, Some(route)) => self.broken(record, code, &route.generation),
            (Verdict::Missing | Verdict::NotPermitted, _) => {
                self.topics.forget(&record.destination);
                no.outcome(&record.destination, code)
            }
            _ => no.outcome(&record.destination, code),
        }
    }

    /// The producer broke under the record: for a reason of its own, or because the cluster wants nothing of us.
    fn broken(&self, record: &Record, code: Code, generation: &Generation) -> Outcome {
        let cause = generation.cause().unwrap_or(code);
        let no = if verdict(cause) == Verdict::NotPermitted {
            Verdict::NotPermitted
        } else {
            Verdict::ProducerBroken
        };
        no.outcome(&record.destination, cause)
    }
}

/// What a failure of an earlier record of the topic means for a record that was not sent because of it.
fn stopped_by((no, code): No) -> No {
    match no {
        Verdict::Missing
        | Verdict::NotCreated
        | Verdict::NotPermitted
        | Verdict::NotDurable
        | Verdict::InvalidTopic => (no, code),
        // That was another record: this one comes again.
        Verdict::TooLarge | Verdict::Refused | Verdict::Neighbour => (Verdict::Neighbour, code),
        Verdict::ProducerBroken | Verdict::Transient => (no, code),
    }
}

/// What a topic does not permit, it permits to no record. Those behind the batch that a broker refused only know that its producer
/// ended, which is no refusal and would begin the patience with the topic anew.
fn forbid_alike(records: &[Record], outcomes: &mut [Outcome]) {
    let mut forbidden: HashMap<&str, Outcome> = HashMap::new();
    for (record, outcome) in records.iter().zip(outcomes) {
        let Outcome::Retry(retry) = &*outcome else { continue };
        let topic = &*record.destination;
        if retry.refusal == Some(Refusal::NotPermitted) {
            forbidden.entry(topic).or_insert_with(|| outcome.clone());
        } else if retry.refusal.is_none()
            && let Some(refused) = forbidden.get(topic)
        {
            *outcome = refused.clone();
        }
    }
}

/// Turns a confirmation into a retry where an earlier record of the same topic and key has to come again.
pub(crate) fn keep_order(records: &[Record], outcomes: &mut [Outcome]) {
    let mut waiting: HashSet<(&str, &str)> = HashSet::new();
    for (record, outcome) in records.iter().zip(outcomes) {
        let Some(key) = record.key.as_deref() else { continue };
        match outcome {
            Outcome::Retry(_) => drop(waiting.insert((&record.destination, key))),
            Outcome::Confirmed(_)
                if !waiting.is_empty() && waiting.contains(&(&*record.destination, key)) =>
            {
                *outcome = classify::out_of_turn(&record.destination);
            }
            Outcome::Confirmed(_) | Outcome::Rejected(_) | Outcome::Fatal(_) => {}
        }
    }
}

/// A record as librdkafka takes it, with the place that its report belongs to.
pub(crate) type Message<'a> = BaseRecord<'a, [u8], [u8], Box<Ticket>>;

/// Makes a record's message.
pub(crate) fn message(record: &Record, ticket: Box<Ticket>) -> Message<'_> {
    let mut message = BaseRecord::with_opaque_to(&record.destination, ticket).payload(&record.value[..]);
    if let Some(key) = &record.key {
        message = message.key(key.as_bytes());
    }
    if let Some(timestamp) = record.timestamp_ms {
        message = message.timestamp(timestamp);
    }
    if !record.headers.is_empty() {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for header in &record.headers {
            let key = header.name.spelled(HeaderStyle::Kafka);
            headers = headers.insert(KafkaHeader { key, value: Some(header.value.as_bytes()) });
        }
        message = message.headers(headers);
    }
    message
}

/// Hands one message to librdkafka. A full queue is backpressure: waits for room and goes on with the same message.
pub(crate) async fn hand_over(generation: &Generation, mut message: Message<'_>) -> Result<(), Code> {
    let mut pause = FULL_PAUSE.0;
    loop {
        match generation.producer().send(message) {
            Ok(()) => return Ok(()),
            Err((error, returned)) => match error.rdkafka_error_code() {
                // A broken producer's queue may stay full.
                Some(Code::QueueFull) if !generation.broken() => {
                    message = returned;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(FULL_PAUSE.1);
                }
                code => {
                    returned.delivery_opaque.withdraw();
                    return Err(match code {
                        Some(Code::QueueFull) => Code::Fatal,
                        code => code.unwrap_or(Code::Fail),
                    });
                }
            },
        }
    }
}

/// The size of a record as it stands in a batch, about.
pub(crate) fn size(record: &Record) -> usize {
    let headers: usize = record.headers.iter().map(|header| header.value.len() + 32).sum();
    record.value.len() + record.key.as_ref().map_or(0, |key| key.len()) + headers + 64
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(topic: &str, key: Option<&str>) -> Record {
        Record {
            destination: Arc::from(topic),
            key: key.map(Arc::from),
            headers: Vec::new(),
            value: Bytes::new(),
            timestamp_ms: None,
            message_id: Arc::from(""),
            event: Arc::from(""),
        }
    }

    #[test]
    fn what_one_record_may_not_no_later_one_of_its_topic_may() {
        let forbidden = |topic| Verdict::NotPermitted.outcome(topic, Code::TopicAuthorizationFailed);
        let ended = |topic| Verdict::ProducerBroken.outcome(topic, Code::GaplessGuarantee);
        let missing = || Verdict::Missing.outcome("a", Code::UnknownTopic);
        let confirmed = || Outcome::Confirmed(Receipt::attest(Position::Kafka { partition: 0, offset: 1 }));
        let cases = [
            ("a", ended("a"), ended("a")),
            ("a", forbidden("a"), forbidden("a")),
            ("b", ended("b"), ended("b")),
            ("a", ended("a"), forbidden("a")),
            ("a", missing(), missing()),
            ("a", confirmed(), confirmed()),
            ("a", ended("a"), forbidden("a")),
        ];
        let records = cases.each_ref().map(|(topic, ..)| record(topic, None));
        let mut outcomes = cases.each_ref().map(|(_, outcome, _)| outcome.clone());
        forbid_alike(&records, &mut outcomes);
        for (outcome, (_, _, expected)) in outcomes.iter().zip(&cases) {
            assert_eq!(format!("{outcome:?}"), format!("{expected:?}"));
        }
    }

    #[test]
    fn what_was_written_out_of_turn_comes_again() {
        let confirmed = || Outcome::Confirmed(Receipt::attest(Position::Kafka { partition: 0, offset: 1 }));
        let retry = || classify::isolate("t", Code::InvalidRecord);
        let rejected = || Verdict::TooLarge.outcome("t", Code::MessageSizeTooLarge);
        let cases = [
            (record("t", Some("a")), confirmed(), false),
            (record("t", Some("a")), retry(), false),
            (record("t", Some("a")), confirmed(), true),
            (record("t", Some("a")), rejected(), false),
            (record("t", Some("b")), confirmed(), false),
            (record("t", None), confirmed(), false),
            (record("u", Some("a")), confirmed(), false),
            (record("t", Some("a")), confirmed(), true),
            (record("t", Some("b")), rejected(), false),
            (record("t", Some("b")), confirmed(), false),
        ];
        let records: Vec<Record> = cases.iter().map(|(record, ..)| record.clone()).collect();
        let before: Vec<Outcome> = cases.iter().map(|(_, outcome, _)| outcome.clone()).collect();
        let mut after = before.clone();
        keep_order(&records, &mut after);
        for (place, (_, _, again)) in cases.iter().enumerate() {
            if *again {
                assert_eq!(after[place], classify::out_of_turn("t"), "{place}");
            } else {
                assert_eq!(after[place], before[place], "{place}");
            }
        }
    }
}
