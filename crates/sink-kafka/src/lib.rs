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
//! Sources are spread over *shards*, each with producers of its own; a source is always in the same one.
//!
//! - [`settings`]: what a caller gives, and which properties are fixed
//! - `producer`: the producers and their replacement
//! - `isolation`: which topics go one record at a time
//! - `topics`: topics are known to exist before a record is sent
//! - `publish`: one batch
//! - `turnstile`: bulks of several sources, in groups that fit into a request, one after the other
//! - `reports`: delivery reports, one wake-up per batch
//! - `classify`: what error codes mean
//! - `transaction`: the same exactly once
//! - `archive`: records read back, and marks beside them
//! - `vitals`: health
//! - [`durability`]: how durable topics are
//! - [`inspect`]: what a sink would find in a cluster

mod archive;
mod classify;
pub mod durability;
pub mod inspect;
mod isolation;
mod producer;
mod publish;
mod reports;
pub mod settings;
#[cfg(test)]
mod tests;
mod tokens;
mod topics;
mod transaction;
mod turnstile;
mod vitals;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio_util::sync::{CancellationToken, DropGuard};
use viaduct_sink::{BATCH_LIMIT, Batch, Checkpoints, Fatal, HealthWatch, Outcome, Sink, Weakness, shard_of};

pub use archive::KafkaArchive;
pub use durability::{TopicFacts, TopicSettings};
pub use inspect::{ClusterFacts, Inspector, NoCluster, Permission, TopicState};
pub use settings::{KafkaSettings, KafkaSettingsError, PropertyProblem, check_properties};

use durability::Durability;
use isolation::Isolation;
use producer::{Lane, Producers};
use publish::AtLeastOnce;
use topics::{Creation, Topics};
use transaction::Transactions;
use turnstile::Turnstile;
use vitals::Vitals;

/// Where the checkpoints of all bridges of a cluster stand.
pub const CHECKPOINT_TOPIC: &str = "_viaduct.checkpoints";
/// How long closing waits for records that are still in flight.
const FLUSH: Duration = Duration::from_secs(5);
/// How often it looks whether they are gone.
const FLUSH_PAUSE: Duration = Duration::from_millis(10);
/// The most records of one source in a transaction. A transaction takes the same round trips for one record and for all.
const TRANSACTION: usize = 4000;

/// The sink: its producers are shared by all sources of a shard.
pub struct KafkaSink {
    delivery: Arc<Delivery>,
    vitals: Arc<Vitals>,
    topics: Arc<Topics>,
    durability: Arc<Durability>,
    closing: CancellationToken,
    /// Ends the task that looks after the health.
    _closes: DropGuard,
}

/// The guarantee, with what keeps it.
enum Delivery {
    /// By shard.
    AtLeastOnce(Vec<AtLeastOnce>),
    ExactlyOnce {
        transactions: Transactions,
        /// Asks for metadata; publishes nothing.
        asking: Arc<Producers>,
    },
}

impl Delivery {
    /// Records handed over whose fate is not known yet.
    fn waiting(&self) -> usize {
        match self {
            Self::AtLeastOnce(shards) => shards.iter().map(|shard| shard.producers.waiting()).sum(),
            Self::ExactlyOnce { transactions, .. } => transactions.waiting(),
        }
    }
}

impl fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSink").field("health", &*self.vitals.watch().borrow()).finish_non_exhaustive()
    }
}

impl KafkaSink {
    /// Checks the settings and makes the first producers. Does not wait for a broker: [`Sink::health`] tells. Needs to be
    /// called in a tokio runtime, which then looks after the health and the transactions.
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
        let batch_bytes = settings::batch_bytes(&config);
        let producers =
            || Arc::new(Producers::new(config.clone(), batch_bytes, Arc::clone(&vitals), tokens.clone()));
        let first = producers();
        // Transactions have producers of their own; this one looks topics up.
        let lanes: &[Lane] =
            if settings.exactly_once.is_some() { &[Lane::Pipelined] } else { &[Lane::Pipelined, Lane::Bulk] };
        // Reads certificates and starts threads.
        let started = tokio::task::spawn_blocking({
            let first = Arc::clone(&first);
            move || first.start(lanes)
        });
        started.await.map_err(|stopped| KafkaSettingsError::Client(stopped.to_string()))??;
        let admin = settings::admin_config(&settings);
        let durability = Durability::new(admin.clone(), tokens.is_none(), settings.require_durable);
        let (health, judge) = (Arc::clone(&vitals), Arc::clone(&durability));
        let topics = Arc::new(Topics::new(admin, create, health, judge, Arc::clone(&first)));
        let delivery = match &settings.exactly_once {
            None => {
                let further = (1..settings.shards.get()).map(|_| producers());
                let shard = |producers| AtLeastOnce {
                    producers,
                    topics: Arc::clone(&topics),
                    isolation: Isolation::default(),
                    turnstile: Turnstile::new(settings::request_records(&config)),
                };
                let first = Arc::clone(&first);
                Delivery::AtLeastOnce(std::iter::once(first).chain(further).map(shard).collect())
            }
            Some(identity) => {
                settings::check_transactional(&config)?;
                let parts = transaction::Parts {
                    tokens: tokens.clone(),
                    topics: Arc::clone(&topics),
                    vitals: Arc::clone(&vitals),
                    durability: Arc::clone(&durability),
                };
                let transactions = Transactions::start(&settings, identity, &config, parts);
                Delivery::ExactlyOnce { transactions, asking: Arc::clone(&first) }
            }
        };
        let delivery = Arc::new(delivery);
        let closing = CancellationToken::new();
        let waiting = {
            let delivery = Arc::downgrade(&delivery);
            move || delivery.upgrade().map_or(0, |delivery| delivery.waiting())
        };
        let watch = vitals::watch_over(first, waiting, Arc::clone(&topics), Arc::clone(&vitals));
        tokio::spawn(closing.clone().run_until_cancelled_owned(watch));
        let closes = closing.clone().drop_guard();
        Ok(Self { delivery, vitals, topics, durability, _closes: closes, closing })
    }
}

#[async_trait]
impl Sink for KafkaSink {
    async fn publish(&self, batch: Batch<'_>) -> Vec<Outcome> {
        if self.closing.is_cancelled() {
            let closed = || Outcome::Fatal(Fatal::Broken("the sink is closed".to_owned()));
            return batch.records.iter().map(|_| closed()).collect();
        }
        match &*self.delivery {
            Delivery::AtLeastOnce(shards) => {
                let count = u32::try_from(shards.len()).ok().and_then(std::num::NonZeroU32::new);
                let shard = count.map_or(0, |count| shard_of(batch.source, count));
                shards[shard as usize].publish_records(batch.records).await
            }
            Delivery::ExactlyOnce { transactions, .. } => transactions.publish(batch).await,
        }
    }

    fn batch_limit(&self) -> usize {
        match &*self.delivery {
            Delivery::AtLeastOnce(shards) => {
                let bulk = shards.first().and_then(|shard| shard.producers.bulk_records());
                bulk.unwrap_or(BATCH_LIMIT)
            }
            Delivery::ExactlyOnce { .. } => TRANSACTION,
        }
    }

    fn health(&self) -> HealthWatch {
        self.vitals.watch()
    }

    fn checkpoints(&self) -> Option<&dyn Checkpoints> {
        match &*self.delivery {
            Delivery::AtLeastOnce(_) => None,
            Delivery::ExactlyOnce { transactions, .. } => Some(transactions),
        }
    }

    fn weaknesses(&self) -> Vec<Weakness> {
        self.durability.weaknesses()
    }

    async fn assess(&self, destinations: &[String]) -> Vec<Weakness> {
        let checkpoints = matches!(*self.delivery, Delivery::ExactlyOnce { .. }).then_some(CHECKPOINT_TOPIC);
        for topic in destinations.iter().map(String::as_str).chain(checkpoints) {
            self.topics.assess(&topic.into()).await;
        }
        self.weaknesses()
    }

    /// Waits up to five seconds for what is still in flight, and for sessions that are still to be told; what is unconfirmed
    /// then is unacknowledged.
    async fn close(&self) {
        self.closing.cancel();
        match &*self.delivery {
            Delivery::AtLeastOnce(shards) => {
                let deadline = Instant::now() + FLUSH;
                while self.delivery.waiting() > 0 && Instant::now() < deadline {
                    tokio::time::sleep(FLUSH_PAUSE).await;
                }
                for shard in shards {
                    shard.producers.close().await;
                }
            }
            Delivery::ExactlyOnce { transactions, asking } => {
                transactions.close(FLUSH).await;
                asking.close().await;
            }
        }
        self.vitals.down("closed");
    }
}
