//! Finds the records that a topic refuses. A broker takes or refuses a batch as a whole, and a refusal ends the transaction
//! of everybody in it.
//!
//! So suspects are tried by a producer of their own, one record in a batch, in transactions that are always aborted: each
//! record gets its own answer, nobody ever reads it, and nobody else waits. Its transactional id is the shard's with
//! `.probe` behind it; who fences it ends a probe and nothing else. It goes when it is not needed any more.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::sync::{Mutex, Notify};
use tokio::time::timeout;
use tracing::debug;
use viaduct_sink::Record;

use super::fence::{abort, begin, init, is_retriable, state, words};
use crate::classify::{Verdict, verdict};
use crate::producer::{Context, Generation, Lane};
use crate::publish::{hand_over, message, size};
use crate::reports::{Delivered, Reports};
use crate::tokens::Tokens;
use crate::topics::Topics;
use crate::vitals::Vitals;

/// How long the answers of one try may take.
const ANSWERS: Duration = Duration::from_secs(10);
/// How long an abort may take before the producer is given up.
const ABORT: Duration = Duration::from_secs(10);
/// The wait before the next try where there is no producer.
const PAUSE: Duration = Duration::from_millis(200);

/// What a topic says to a record: it takes it, or why not; `None`: nobody knows.
pub(super) type Answer = Option<Result<(), Code>>;

/// The producer that tries suspects.
pub(super) struct Probe {
    transactional_id: String,
    config: ClientConfig,
    tokens: Option<Arc<Tokens>>,
    vitals: Arc<Vitals>,
    producer: Mutex<Option<Arc<Generation>>>,
}

impl Probe {
    pub(super) fn new(
        transactional_id: String,
        config: ClientConfig,
        tokens: Option<Arc<Tokens>>,
        vitals: Arc<Vitals>,
    ) -> Self {
        Self { transactional_id, config, tokens, vitals, producer: Mutex::default() }
    }

    /// Tries records of one topic. Every answer is about its record alone.
    pub(super) async fn examine(
        &self,
        topic: &str,
        records: &[(usize, &Record)],
        topics: &Topics,
    ) -> Vec<Answer> {
        let mut producer = self.producer.lock().await;
        let mut answers: Vec<Answer> = vec![None; records.len()];
        while answers.iter().any(Option::is_none) {
            let generation = match producer.take().filter(|generation| !generation.broken()) {
                Some(generation) => generation,
                None => match self.make().await {
                    Ok(generation) => generation,
                    Err(reason) => {
                        debug!(reason, "no producer to probe with");
                        tokio::time::sleep(PAUSE).await;
                        break;
                    }
                },
            };
            let before = answers.iter().flatten().count();
            let kept = try_once(&generation, records, &mut answers).await;
            if kept {
                *producer = Some(generation);
            }
            if answers.iter().flatten().count() == before {
                // It may be gone.
                topics.forget(topic);
                break;
            }
        }
        answers
    }

    async fn make(&self) -> Result<Arc<Generation>, String> {
        let mut config = self.config.clone();
        config.set("transactional.id", &self.transactional_id).set("batch.num.messages", "1");
        let context = Context::new(Arc::clone(&self.vitals), self.tokens.clone());
        let made =
            tokio::task::spawn_blocking(move || Generation::start(&config, Lane::OneByOne, 0, context));
        let made = made.await.map_err(|stopped| stopped.to_string())?.map_err(|error| error.to_string())?;
        let generation = Arc::new(made);
        let deadline = Instant::now() + ANSWERS;
        loop {
            match init(&generation).await {
                Ok(()) => return Ok(generation),
                Err(error) if is_retriable(&error) && Instant::now() < deadline => {}
                Err(error) => return Err(words(&error)),
            }
        }
    }

    /// Lets the producer go, unless it is at work.
    pub(super) fn rest(&self) {
        if let Ok(mut producer) = self.producer.try_lock() {
            producer.take();
        }
    }

    /// Lets the producer go.
    pub(super) async fn retire(&self) {
        self.producer.lock().await.take();
    }
}

/// One transaction with all records that have no answer yet; never committed. Tells whether the producer can be used again.
async fn try_once(
    generation: &Arc<Generation>,
    records: &[(usize, &Record)],
    answers: &mut [Answer],
) -> bool {
    if begin(generation).await.is_err() {
        return false;
    }
    let changed = Arc::new(Notify::new());
    let reports = Reports::waking(records.len(), Arc::clone(&changed));
    let mut unsent = Vec::new();
    // The largest first: where size is the trouble, the first answers tell of all.
    let mut places: Vec<usize> = (0..records.len()).filter(|place| answers[*place].is_none()).collect();
    places.sort_by_key(|place| Reverse(size(records[*place].1)));
    for place in places {
        let record = records[place].1;
        match hand_over(generation, message(record, reports.ticket(place))).await {
            Ok(()) => {}
            Err(code) if verdict(code).lets_pass() => unsent.push((place, code)),
            Err(_) => break,
        }
    }
    reports.complete();
    // After a failure the rest waits for the abort.
    let answered = timeout(ANSWERS, async {
        while !reports.done() && !reports.any_failed() {
            changed.notified().await;
        }
    });
    let answered = answered.await.is_ok();
    let cause = state(generation).await;
    let usable = abort(generation, ABORT).await.is_ok() && answered;
    for (place, delivered) in reports.take().into_iter().enumerate() {
        match delivered {
            Some(Delivered::At { .. }) => answers[place] = Some(Ok(())),
            Some(Delivered::Failed(code)) if speaks(code) => answers[place] = Some(Err(code)),
            _ => {}
        }
    }
    for (place, code) in unsent {
        answers[place] = Some(Err(code));
    }
    // The topic may not even be added to a transaction.
    if let Some(cause) = cause.filter(|cause| verdict(*cause) == Verdict::NotPermitted) {
        for answer in answers.iter_mut() {
            answer.get_or_insert(Err(cause));
        }
    }
    usable
}

/// Whether the code is an answer about the record or its topic.
fn speaks(code: Code) -> bool {
    match verdict(code) {
        Verdict::TooLarge | Verdict::Refused | Verdict::InvalidTopic | Verdict::NotPermitted => true,
        Verdict::Missing => true,
        Verdict::NotCreated
        | Verdict::NotDurable
        | Verdict::Neighbour
        | Verdict::ProducerBroken
        | Verdict::Transient => false,
    }
}
