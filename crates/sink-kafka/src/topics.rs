//! Topics: known to exist before a record is sent to them.
//!
//! librdkafka would queue records for an unknown topic and fail them after a time-out, and its idea of "unknown" or "not
//! permitted" can be minutes old. So a topic is looked up once before its first record, and again after the broker said
//! no. An answer is a fact (exists, missing, not permitted); no answer is an outage, which is waited for.
//!
//! Brokers with `auto.create.topics.enable` would create a topic for whoever asks for it. Nobody asks here: all clients
//! have `allow.auto.create.topics=false`, and only `create_topics` creates, with the partitions and replicas configured.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::KafkaError;
use rdkafka::producer::Producer as _;
use rdkafka::types::RDKafkaErrorCode as Code;
use tracing::{debug, info};

use crate::classify::{Verdict, verdict};
use crate::durability::{Durability, TopicFacts, admin, retire};
use crate::producer::{Generation, Lane, Producers};
use crate::vitals::Vitals;

/// How long one request may take.
const LOOKUP: Duration = Duration::from_secs(5);
/// The wait between lookups while no broker answers, or a new topic has no leader yet.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a created topic may take to be seen before it is created again.
const APPEARANCE: Duration = Duration::from_secs(10);

/// Why records may not be sent to a topic.
pub(crate) type No = (Verdict, Code);

/// What is known about topics.
pub(crate) struct Topics {
    config: ClientConfig,
    create: Option<Creation>,
    /// With the partitions that they had when they were looked up.
    known: Mutex<HashMap<Arc<str>, usize>>,
    /// One lookup at a time: a hundred sources need not ask the same while the brokers are away.
    looking: tokio::sync::Mutex<()>,
    vitals: Arc<Vitals>,
    durability: Arc<Durability>,
    /// Whose producer asks.
    producers: Arc<Producers>,
}

/// How missing topics are created.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Creation {
    pub(crate) partitions: Option<i32>,
    pub(crate) replication_factor: Option<i32>,
}

impl Topics {
    /// Nothing is known yet. `create`: missing topics are created.
    pub(crate) fn new(
        config: ClientConfig,
        create: Option<Creation>,
        vitals: Arc<Vitals>,
        durability: Arc<Durability>,
        producers: Arc<Producers>,
    ) -> Self {
        let (known, looking) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { config, create, known, looking, vitals, durability, producers }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Some topic that exists.
    pub(crate) fn any(&self) -> Option<Arc<str>> {
        self.known().keys().next().cloned()
    }

    /// How many partitions the topic has, where it is known.
    pub(crate) fn partitions(&self, topic: &str) -> Option<usize> {
        self.known().get(topic).copied()
    }

    /// The topic is gone, or not ours to write to: look it up again before the next record.
    pub(crate) fn forget(&self, topic: &str) {
        self.known().remove(topic);
    }

    /// The same as [`Topics::standing`], for who has no producer at hand.
    pub(crate) async fn look(&self, topic: &Arc<str>) -> Result<(), No> {
        if self.known().contains_key(topic) {
            return Ok(());
        }
        loop {
            match self.producers.current(Lane::Pipelined).await {
                Ok(generation) => return self.standing(topic, &generation).await,
                Err(detail) => {
                    debug!(%topic, detail, "nobody to ask for metadata");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Whether records may be sent to the topic. Looks it up if it is not known, and waits while no broker answers.
    pub(crate) async fn standing(&self, topic: &Arc<str>, generation: &Arc<Generation>) -> Result<(), No> {
        if self.known().contains_key(topic) {
            return Ok(());
        }
        let _looking = self.looking.lock().await;
        if self.known().contains_key(topic) {
            return Ok(());
        }
        let partitions = self.look_up(topic, generation).await?;
        self.known().insert(Arc::clone(topic), partitions);
        Ok(())
    }

    /// Waits until the topic is there, or may not be; tells how many partitions it has.
    async fn look_up(&self, topic: &Arc<str>, generation: &Arc<Generation>) -> Result<usize, No> {
        let mut created: Option<Instant> = None;
        loop {
            let answer = self.ask(topic, generation).await;
            if !matches!(answer, Answer::Silence(_)) {
                self.vitals.up();
            }
            match answer {
                Answer::Exists(facts) => {
                    let partitions = facts.partitions;
                    return self.judged(facts).await.map(|()| partitions);
                }
                Answer::No(code) if verdict(code) == Verdict::Missing && self.create.is_some() => {
                    if created.is_none_or(|created| created.elapsed() > APPEARANCE) {
                        self.create(topic).await?;
                        created = Some(Instant::now());
                    }
                }
                Answer::No(code) => return Err((verdict(code), code)),
                Answer::NotYet => {}
                Answer::Silence(error) => {
                    debug!(%topic, error, "no metadata of the topic yet");
                    self.vitals.down(self.vitals.unreachable());
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A topic that exists is judged once; only where that is demanded, records wait for it.
    async fn judged(&self, facts: TopicFacts) -> Result<(), No> {
        let durability = Arc::clone(&self.durability);
        if !durability.demanded {
            tokio::spawn(async move { durability.judge(facts).await });
            return Ok(());
        }
        match durability.judge(facts).await.is_empty() {
            true => Ok(()),
            false => Err((Verdict::NotDurable, Code::PolicyViolation)),
        }
    }

    /// Judges the topic where it exists. Waits while no broker answers.
    pub(crate) async fn assess(&self, topic: &Arc<str>) {
        loop {
            if let Ok(generation) = self.producers.current(Lane::Pipelined).await {
                match self.ask(topic, &generation).await {
                    Answer::Exists(facts) => {
                        self.vitals.up();
                        self.durability.judge(facts).await;
                        return;
                    }
                    Answer::No(_) => return self.vitals.up(),
                    Answer::NotYet => {}
                    Answer::Silence(error) => {
                        debug!(%topic, error, "no metadata of the topic yet");
                        self.vitals.down(self.vitals.unreachable());
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn ask(&self, topic: &Arc<str>, generation: &Arc<Generation>) -> Answer {
        let (generation, name) = (Arc::clone(generation), Arc::clone(topic));
        let asked = tokio::task::spawn_blocking(move || {
            let metadata = generation.producer().client().fetch_metadata(Some(&name), LOOKUP)?;
            let topic = metadata.topics().iter().find(|topic| *topic.name() == *name);
            Ok::<_, KafkaError>(topic.map(|topic| (topic.error().map(Code::from), TopicFacts::of(topic))))
        });
        match asked.await {
            Ok(Ok(Some((None, facts)))) if facts.partitions > 0 => Answer::Exists(facts),
            Ok(Ok(Some((Some(code), _)))) if is_final(code) => Answer::No(code),
            Ok(Ok(_)) => Answer::NotYet,
            Ok(Err(error)) => match error.rdkafka_error_code() {
                Some(code) if is_final(code) => Answer::No(code),
                _ => Answer::Silence(error.to_string()),
            },
            Err(stopped) => Answer::Silence(stopped.to_string()),
        }
    }

    /// Creates the topic; `Ok` where it may be worth looking whether it is there now.
    async fn create(&self, topic: &str) -> Result<(), No> {
        let Some(creation) = self.create else { return Ok(()) };
        let admin = match admin(&self.config).await {
            Ok(admin) => admin,
            Err(error) => {
                debug!(error, "no admin client can be made");
                return Ok(());
            }
        };
        // -1 asks for the brokers' default (KIP-464).
        let replication = TopicReplication::Fixed(creation.replication_factor.unwrap_or(-1));
        let new = NewTopic::new(topic, creation.partitions.unwrap_or(-1), replication);
        let options = AdminOptions::new().request_timeout(Some(LOOKUP)).operation_timeout(Some(LOOKUP));
        let results = admin.create_topics([&new], &options).await;
        retire(admin);
        match results.map(|results| results.into_iter().next()) {
            Ok(Some(Ok(_))) => info!(topic, "topic created"),
            Ok(Some(Err((_, Code::TopicAlreadyExists))) | None) => {}
            Ok(Some(Err((_, code)))) => match verdict(code) {
                refused @ (Verdict::NotPermitted | Verdict::InvalidTopic) => return Err((refused, code)),
                _ if is_final(code) => return Err((Verdict::NotCreated, code)),
                _ => debug!(topic, ?code, "the topic could not be created yet"),
            },
            Err(error) => debug!(topic, %error, "the topic could not be created yet"),
        }
        Ok(())
    }
}

enum Answer {
    Exists(TopicFacts),
    No(Code),
    NotYet,
    Silence(String),
}

/// Answers that time alone does not change.
fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::InvalidTopic
            | Code::PolicyViolation
            | Code::InvalidReplicationFactor
            | Code::InvalidPartitions
    )
}

/// Whether Kafka allows a topic of this name (`org.apache.kafka.common.internals.Topic`).
pub(crate) fn valid_name(topic: &str) -> bool {
    (1..=249).contains(&topic.len())
        && topic != "."
        && topic != ".."
        && topic.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_kafka_allows() {
        for name in ["a", "via.engagementCenter", "__x-Y.9", &"x".repeat(249)] {
            assert!(valid_name(name), "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "ä", "a\0b", &"x".repeat(250)] {
            assert!(!valid_name(name), "{name}");
        }
    }
}
