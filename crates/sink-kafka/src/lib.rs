//! Records to Kafka, each confirmed only by its own delivery report under `acks=all`.
//!
//! **Guarantee.** [`viaduct_sink::Outcome::Confirmed`] means that all in-sync replicas of the partition have the record.
//! How durable that is, the topic decides (`min.insync.replicas`, replication factor).
//!
//! **Recovery.** The producer is idempotent and its records never expire: while brokers are away, `publish` waits, and
//! [`Sink::health`] says what for. A producer that breaks for good is replaced by a new one, and what was in flight is
//! offered again, in order.
//!
//! **Order** of records of one key (so of one partition): librdkafka keeps it over its own retries. The first batch that a
//! broker refuses ends the producer before anything later is written, and the topic goes one record at a time for a while
//! (`producer`, `isolation`), so that a record which can never be published is told from its neighbours. Records without a
//! key are spread over the partitions and have no order.
//!
//! **A "no" that somebody can mend** (topic missing, not permitted) is a retry with its refusal; what can never be published
//! (too large, invalid, no topic name) is rejected and holds nothing back.
//!
//! - [`settings`]: what a caller gives, and which properties are fixed
//! - `producer`: the producers and their replacement
//! - `isolation`: which topics go one record at a time
//! - `topics`: topics are known to exist before a record is sent
//! - `publish`: one batch
//! - `reports`: delivery reports, one wake-up per batch
//! - `classify`: what error codes mean
//! - `vitals`: health

mod classify;
mod isolation;
mod producer;
mod publish;
mod reports;
pub mod settings;
#[cfg(test)]
mod tests;
mod tokens;
mod topics;
mod vitals;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio_util::sync::{CancellationToken, DropGuard};
use viaduct_sink::{Batch, Fatal, HealthWatch, Outcome, Sink};

pub use settings::{KafkaSettings, KafkaSettingsError, PropertyProblem, check_properties};

use isolation::Isolation;
use producer::Producers;
use topics::{Creation, Topics};
use vitals::Vitals;

/// How long closing waits for records that are still in flight.
const FLUSH: Duration = Duration::from_secs(5);
/// How often it looks whether they are gone.
const FLUSH_PAUSE: Duration = Duration::from_millis(10);

/// The sink: its producers are shared by all sources.
pub struct KafkaSink {
    producers: Arc<Producers>,
    topics: Arc<Topics>,
    isolation: Isolation,
    vitals: Arc<Vitals>,
    closing: CancellationToken,
    /// Ends the task that looks after the health.
    _closes: DropGuard,
}

impl fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSink").field("health", &*self.vitals.watch().borrow()).finish_non_exhaustive()
    }
}

impl KafkaSink {
    /// Checks the settings and makes the producer. Does not wait for a broker: [`Sink::health`] tells. Needs to be called
    /// in a tokio runtime, which then looks after the health.
    ///
    /// # Errors
    /// Properties that would break the guarantee, or that librdkafka does not know.
    pub async fn connect(settings: KafkaSettings) -> Result<Self, KafkaSettingsError> {
        let config = settings::client_config(&settings)?;
        let tokens = settings::tokens(&settings)?.map(Arc::new);
        if tokens.is_some() && settings.create_topics {
            // The admin client has nothing that would answer librdkafka's request for a token.
            return Err(KafkaSettingsError::NoCreation);
        }
        let create = settings.create_topics.then_some(Creation {
            partitions: settings.partitions,
            replication_factor: settings.replication_factor,
        });
        let vitals = Arc::new(Vitals::new());
        let topics = Arc::new(Topics::new(settings::admin_config(&settings), create, Arc::clone(&vitals)));
        let batch_bytes = settings::batch_bytes(&config);
        // Reads certificates and starts threads.
        let made = tokio::task::spawn_blocking({
            let vitals = Arc::clone(&vitals);
            move || Producers::new(config, batch_bytes, vitals, tokens)
        });
        let producers = made.await.map_err(|stopped| KafkaSettingsError::Client(stopped.to_string()))??;
        let producers = Arc::new(producers);
        let closing = CancellationToken::new();
        let watch = vitals::watch_over(Arc::clone(&producers), Arc::clone(&topics), Arc::clone(&vitals));
        tokio::spawn(closing.clone().run_until_cancelled_owned(watch));
        let isolation = Isolation::default();
        Ok(Self { producers, topics, isolation, vitals, _closes: closing.clone().drop_guard(), closing })
    }
}

#[async_trait]
impl Sink for KafkaSink {
    async fn publish(&self, batch: Batch<'_>) -> Vec<Outcome> {
        if self.closing.is_cancelled() {
            let closed = || Outcome::Fatal(Fatal::Broken("the sink is closed".to_owned()));
            return batch.records.iter().map(|_| closed()).collect();
        }
        self.publish_records(batch.records).await
    }

    fn health(&self) -> HealthWatch {
        self.vitals.watch()
    }

    /// Waits up to five seconds for what abandoned publishes left in flight; what is unconfirmed then is unacknowledged.
    async fn close(&self) {
        self.closing.cancel();
        let deadline = Instant::now() + FLUSH;
        while self.producers.waiting() > 0 && Instant::now() < deadline {
            tokio::time::sleep(FLUSH_PAUSE).await;
        }
        self.producers.close().await;
        self.vitals.down("closed");
    }
}
