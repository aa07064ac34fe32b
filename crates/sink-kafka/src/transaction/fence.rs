//! New producers: fence, read, then claim or recover. In that order, or what an instance before still had on its way
//! would be missing in what is read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseRecord, Producer as _};
use tracing::{debug, info, warn};
use viaduct_faults::{Mistake, makes};
use viaduct_sink::Fatal;

use super::checkpoints::{TOPIC, Trouble};
use super::round::{Round, Stage};
use super::shard::{Shard, Turns};
use crate::producer::{Context, Generation, Lane, wait_for_bulk};
use crate::publish::hand_over;
use crate::reports::Ticket;

/// How long one call that fences may block. It is called again until it succeeds.
const STEP: Duration = Duration::from_secs(1);
/// How long one call that aborts may block.
const ABORT_STEP: Duration = Duration::from_millis(100);
/// How long fencing may take before health tells.
const UNNOTICED: Duration = Duration::from_secs(3);
/// The waits between attempts: from, to.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How often it is looked whether another owner has claimed, after being fenced, before fencing in turn.
const LOOKS: u32 = 5;
/// The wait between two looks.
const LOOK: Duration = Duration::from_millis(300);
/// How long the claim's commit may take.
const COMMIT: Duration = Duration::from_secs(10);

/// Why there are no producers yet.
enum Setback {
    /// Try again; the sentence tells what is wrong meanwhile.
    Passing(String),
    /// There never will be one.
    Ended(Fatal),
}

impl From<Trouble> for Setback {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Passing(reason) => Self::Passing(reason),
            Trouble::Unreadable(sentence) => Self::Ended(Fatal::Broken(sentence)),
        }
    }
}

/// What the producers before came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// There were none: the sources are to be claimed.
    Nothing,
    /// Something whose end is not known.
    Unknown,
    /// One broke for good. Most likely somebody fenced it: another instance, or the brokers, because a transaction took too
    /// long.
    Fenced,
}

impl Shard {
    /// Makes producers that may publish. Tries for as long as it takes.
    ///
    /// # Errors
    /// Another instance has taken over, or a checkpoint of ours cannot be trusted.
    pub(super) async fn establish(&self, before: Before) -> Result<Turns, Fatal> {
        let mut pause = PAUSE.0;
        loop {
            match self.attempt(before).await {
                Ok(producers) => {
                    self.vitals.release(self.number);
                    return Ok(producers);
                }
                Err(Setback::Ended(fatal)) => return Err(fatal),
                Err(Setback::Passing(reason)) => {
                    debug!(shard = self.number, reason, "no transactional producers yet");
                    self.set_producers(None);
                    if pause > PAUSE.0 {
                        self.vitals.hold_up(self.number, reason);
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
    }

    async fn attempt(&self, before: Before) -> Result<Turns, Setback> {
        if before == Before::Fenced {
            self.look_for_the_heir().await?;
        }
        let mut early = None;
        if makes(Mistake::ReadBeforeFencing) {
            early = Some(self.read().await?);
            // The mistake shows when the other instance commits in between: it gets time for it.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let [first, second] = &self.transactional_ids;
        let producers = [
            self.make(first).await.map_err(Setback::Passing)?,
            self.make(second).await.map_err(Setback::Passing)?,
        ];
        self.set_producers(Some(producers.clone()));
        // Both, before anything is read: what was under way may have been under way with either.
        for (producer, id) in producers.iter().zip(&self.transactional_ids) {
            self.fence(producer, id).await.map_err(Setback::Passing)?;
        }
        let read = match early {
            Some(early) => early,
            None => self.read().await?,
        };
        if before == Before::Nothing {
            self.ledger().claim(read);
        } else if makes(Mistake::AssumeNotCommitted) {
            self.ledger().forget_round();
        } else if let Err(usurped) = self.ledger().recover(read)
            && !makes(Mistake::IgnoreOwner)
        {
            return Err(Setback::Ended(Fatal::Fenced(usurped.to_string())));
        }
        // With the producer that was fenced first: see "Two ids" in the module above.
        self.write_claim(&producers[0]).await.map_err(Setback::Passing)?;
        if before == Before::Nothing {
            info!(shard = self.number, transactional_id = first, "sources claimed");
        }
        Ok(producers)
    }

    async fn read(&self) -> Result<std::collections::HashMap<Arc<str>, viaduct_sink::Checkpoint>, Trouble> {
        let keys = self.ledger().keys();
        self.checkpoints.read(keys, self.number).await
    }

    /// Somebody fenced us. Fencing in turn at once would end its claim, so it gets time to write it.
    async fn look_for_the_heir(&self) -> Result<(), Setback> {
        for look in 0..LOOKS {
            if look > 0 {
                tokio::time::sleep(LOOK).await;
            }
            let read = self.read().await?;
            if let Some(owner) = self.ledger().usurper(&read)
                && !makes(Mistake::IgnoreOwner)
            {
                return Err(Setback::Ended(Fatal::Fenced(format!("instance {owner} has taken over"))));
            }
        }
        Ok(())
    }

    /// A producer that has not fenced anybody yet.
    async fn make(&self, transactional_id: &str) -> Result<Arc<Generation>, String> {
        let mut config = self.config.clone();
        config.set("transactional.id", transactional_id).set("batch.size", self.batch_bytes().to_string());
        // It waits for its records anyway, and without this wait librdkafka's thread spins (see `producer`).
        wait_for_bulk(&mut config);
        let context = Context::new(Arc::clone(&self.vitals), self.tokens.clone());
        let number = u64::from(self.number);
        let made =
            tokio::task::spawn_blocking(move || Generation::start(&config, Lane::Pipelined, number, context));
        let made = made.await.map_err(|stopped| stopped.to_string())?;
        made.map(Arc::new).map_err(|error| format!("no Kafka producer can be made: {error}"))
    }

    /// Ends the transactions of all producers before with the same transactional id.
    async fn fence(&self, generation: &Arc<Generation>, id: &str) -> Result<(), String> {
        let start = Instant::now();
        loop {
            match init(generation).await {
                Ok(()) => return Ok(()),
                Err(error) if is_retriable(&error) && !generation.broken() => {
                    if start.elapsed() > UNNOTICED {
                        self.vitals.hold_up(
                            self.number,
                            format!("the coordinator of transactional id {id} does not answer"),
                        );
                    }
                }
                Err(error) => {
                    return Err(format!("the transactional id {id} cannot be used: {}", words(&error)));
                }
            }
        }
    }

    /// Writes the first checkpoints of these producers, all in one transaction.
    async fn write_claim(&self, generation: &Arc<Generation>) -> Result<(), String> {
        begin(generation).await.map_err(|error| words(&error))?;
        let round = Round::new(Arc::clone(generation));
        round.close();
        let names = self.ledger().names();
        self.write_checkpoints(&round, &names).await.map_err(not_written)?;
        loop {
            match round.stage() {
                Stage::Delivered => break,
                Stage::Spoiled => {
                    let cause = state(generation).await;
                    let codes = round.failures();
                    let code = codes.into_iter().find(|code| (*code as i32) > 0).or(cause);
                    return Err(not_written(code.unwrap_or(Code::Fail)));
                }
                Stage::Filling | Stage::Draining => round.changed().await,
            }
        }
        match commit(generation, COMMIT).await {
            Ok(()) => {
                self.ledger().commit();
                Ok(())
            }
            Err(error) => Err(format!("the claim cannot be committed: {}", words(&error))),
        }
    }

    /// Hands over a checkpoint for each of the sources.
    pub(super) async fn write_checkpoints(&self, round: &Round, sources: &[Arc<str>]) -> Result<(), Code> {
        let reports = round.reports(sources.len());
        let mut result = Ok(());
        for (index, source) in sources.iter().enumerate() {
            let _sealing = self.sealing.lock().await;
            let Some(texts) = self.ledger().propose(source) else { continue };
            result = write_checkpoint(&round.generation, &texts, || reports.ticket(index)).await;
            if result.is_err() {
                break;
            }
        }
        round.add(reports);
        result
    }
}

/// Hands a checkpoint and its pages over.
pub(super) async fn write_checkpoint(
    generation: &Generation,
    texts: &[(Arc<str>, Option<Bytes>)],
    ticket: impl Fn() -> Box<Ticket>,
) -> Result<(), Code> {
    for (key, text) in texts {
        let message = BaseRecord::with_opaque_to(TOPIC, ticket()).key(key.as_bytes());
        match text {
            Some(text) => hand_over(generation, message.payload(&**text)).await?,
            // A tombstone: compaction removes the page.
            None => hand_over(generation, message).await?,
        }
    }
    Ok(())
}

pub(super) fn not_written(code: Code) -> String {
    format!("no checkpoint can be written to topic {TOPIC}: {code}")
}

/// Runs a call of the producer that blocks.
async fn blocking(
    generation: &Arc<Generation>,
    call: impl FnOnce(&Generation) -> Result<(), KafkaError> + Send + 'static,
) -> Result<(), KafkaError> {
    let generation = Arc::clone(generation);
    let called = tokio::task::spawn_blocking(move || call(&generation)).await;
    called.unwrap_or_else(|stopped| {
        warn!(%stopped, "a call of librdkafka did not end");
        Err(KafkaError::Global(Code::Fail))
    })
}

/// Fences, for [`STEP`] at most.
pub(super) async fn init(generation: &Arc<Generation>) -> Result<(), KafkaError> {
    blocking(generation, |generation| generation.producer().init_transactions(STEP)).await
}

/// Begins a transaction. No broker is asked.
pub(super) async fn begin(generation: &Arc<Generation>) -> Result<(), KafkaError> {
    blocking(generation, |generation| generation.producer().begin_transaction()).await
}

/// How long a commit waits for what is delivered to leave librdkafka's count of messages, and how often it looks.
const SETTLING: (Duration, Duration) = (Duration::from_millis(20), Duration::from_micros(50));

/// Commits. Any error but one means that nobody knows.
///
/// A report is heard a moment before its message leaves the count, and a commit that finds one there sleeps for 100 ms.
pub(super) async fn commit(generation: &Arc<Generation>, patience: Duration) -> Result<(), KafkaError> {
    blocking(generation, move |generation| {
        let producer = generation.producer();
        let deadline = Instant::now() + SETTLING.0;
        while producer.in_flight_count() > 0 && Instant::now() < deadline {
            std::thread::sleep(SETTLING.1);
        }
        producer.commit_transaction(patience)
    })
    .await
}

/// Aborts, in steps: each one drops what has come back into the queue (batches that were on their way behind a refused one
/// are queued again), for which a single call would wait in vain.
pub(super) async fn abort(generation: &Arc<Generation>, patience: Duration) -> Result<(), KafkaError> {
    let deadline = Instant::now() + patience;
    loop {
        let aborted =
            blocking(generation, |generation| generation.producer().abort_transaction(ABORT_STEP)).await;
        match aborted {
            Err(error) if is_retriable(&error) && Instant::now() < deadline => {}
            aborted => return aborted,
        }
    }
}

/// Why the transaction under way has failed, where it has. (No call tells but one that a failed transaction refuses.)
pub(super) async fn state(generation: &Arc<Generation>) -> Option<Code> {
    let code = begin(generation).await.err()?.rdkafka_error_code()?;
    (code != Code::State).then_some(code)
}

/// Whether calling again may help.
pub(super) fn is_retriable(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.is_retriable() && !error.is_fatal())
}

/// librdkafka's words.
pub(super) fn words(error: &KafkaError) -> String {
    match error {
        KafkaError::Transaction(error) => error.string(),
        error => error.to_string(),
    }
}
