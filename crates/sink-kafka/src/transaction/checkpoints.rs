//! The topic of the checkpoints: it is there, and it is read to its end.
//!
//! What is read is what other instances may have written until they were fenced. The end is therefore the high watermark
//! as it is *after* fencing, and every transaction before it has to be decided: `read_committed` consumers see nothing
//! behind the last stable offset, which any open transaction (of another bridge, too) holds back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use viaduct_sink::Checkpoint;

use super::ledger::page_of;
use crate::durability::{self, Durability, TopicFacts, retire};
use crate::producer::Context;
use crate::tokens::Tokens;
use crate::vitals::Vitals;

pub(super) use crate::CHECKPOINT_TOPIC as TOPIC;

/// How the topic is created. It holds a few live records among many superseded ones and is read whole at every start, so it
/// is compacted eagerly.
const CONFIGURATION: [(&str, &str); 6] = [
    ("cleanup.policy", "compact"),
    ("segment.bytes", "16777216"),
    ("segment.ms", "600000"),
    ("min.cleanable.dirty.ratio", "0.1"),
    ("max.compaction.lag.ms", "1800000"),
    ("max.message.bytes", "16777216"),
];
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(5);
/// How long reading may go without anything new.
const SILENCE: Duration = Duration::from_secs(20);
/// How often it is looked whether open transactions have ended.
const LOOK: Duration = Duration::from_millis(50);
/// How long open transactions are waited for before health tells.
const UNNOTICED: Duration = Duration::from_secs(2);

/// Why there are no checkpoints.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Look again; the sentence tells what is wrong meanwhile.
    Passing(String),
    /// A checkpoint of ours that cannot be trusted.
    Unreadable(String),
}

/// Reads the topic.
pub(super) struct Checkpoints {
    pub(super) config: ClientConfig,
    pub(super) tokens: Option<Arc<Tokens>>,
    pub(super) vitals: Arc<Vitals>,
    pub(super) durability: Arc<Durability>,
    pub(super) replication_factor: Option<i32>,
    pub(super) closing: CancellationToken,
    checked: AtomicBool,
}

impl Checkpoints {
    pub(super) fn new(
        config: ClientConfig,
        tokens: Option<Arc<Tokens>>,
        vitals: Arc<Vitals>,
        durability: Arc<Durability>,
        replication_factor: Option<i32>,
        closing: CancellationToken,
    ) -> Self {
        Self {
            config,
            tokens,
            vitals,
            durability,
            replication_factor,
            closing,
            checked: AtomicBool::new(false),
        }
    }

    /// Reads the last checkpoint of each of `keys`; `shard` is whose health tells.
    pub(super) async fn read(
        self: &Arc<Self>,
        keys: HashSet<Arc<str>>,
        shard: u32,
    ) -> Result<HashMap<Arc<str>, Checkpoint>, Trouble> {
        self.stand().await?;
        let this = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || this.read_blocking(&keys, shard)).await;
        read.map_err(|stopped| Trouble::Passing(stopped.to_string()))?
    }

    fn consumer(&self, isolation: &str) -> Result<BaseConsumer<Context>, KafkaError> {
        let mut config = self.config.clone();
        config
            // No group is joined and nothing is committed; librdkafka reads nothing without a name.
            .set("group.id", "viaduct-checkpoints")
            .set("enable.auto.commit", "false")
            .set("isolation.level", isolation)
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            // The end is told when a fetch brings nothing.
            .set("fetch.wait.max.ms", "10");
        BaseConsumer::from_config_and_context(
            &config,
            Context::new(Arc::clone(&self.vitals), self.tokens.clone()),
        )
    }

    fn read_blocking(
        &self,
        keys: &HashSet<Arc<str>>,
        shard: u32,
    ) -> Result<HashMap<Arc<str>, Checkpoint>, Trouble> {
        let passing = |error: KafkaError| {
            Trouble::Passing(format!("the checkpoints in {TOPIC} cannot be read: {error}"))
        };
        let all = self.consumer("read_uncommitted").map_err(passing)?;
        let metadata = all.fetch_metadata(Some(TOPIC), REQUEST).map_err(passing)?;
        let partitions = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
        let mut ends = Vec::with_capacity(partitions.len());
        for partition in partitions {
            ends.push((
                partition.id(),
                all.fetch_watermarks(TOPIC, partition.id(), REQUEST).map_err(passing)?,
            ));
        }
        drop(all);
        let committed = self.consumer("read_committed").map_err(passing)?;
        let mut wanted = TopicPartitionList::new();
        let mut open = HashSet::new();
        for (partition, (low, high)) in ends {
            self.stable(&committed, partition, high, shard)?;
            if high > low {
                wanted.add_partition_offset(TOPIC, partition, Offset::Beginning).map_err(passing)?;
                open.insert(partition);
            }
        }
        committed.assign(&wanted).map_err(passing)?;
        let mut last: HashMap<Arc<str>, Option<Bytes>> = HashMap::new();
        let mut pages: HashMap<(Arc<str>, u32), Option<Bytes>> = HashMap::new();
        let mut heard = Instant::now();
        while !open.is_empty() {
            if self.closing.is_cancelled() {
                return Err(Trouble::Passing("closed".to_owned()));
            }
            match committed.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let key = message.key().and_then(|key| std::str::from_utf8(key).ok());
                    let text = || message.payload().map(Bytes::copy_from_slice);
                    if let Some(own) = key.and_then(|key| keys.get(key)) {
                        last.insert(Arc::clone(own), text());
                    } else if let Some((own, page)) = key.and_then(page_of)
                        && let Some(own) = keys.get(own)
                    {
                        pages.insert((Arc::clone(own), page), text());
                    }
                }
                // Nothing is missing before it: the last stable offset was behind the end already.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    heard = Instant::now();
                    open.remove(&partition);
                }
                Some(Err(error)) => debug!(%error, "reading the checkpoints"),
                None => {}
            }
            if heard.elapsed() > SILENCE {
                return Err(Trouble::Passing(format!(
                    "the checkpoints in {TOPIC} cannot be read: no broker answers"
                )));
            }
        }
        let mut read = HashMap::with_capacity(last.len());
        for (key, text) in last {
            let Some(text) = text else { continue };
            let page = |page| pages.get(&(Arc::clone(&key), page)).cloned().flatten();
            let checkpoint = Checkpoint::decode(&text, page).map_err(|error| {
                Trouble::Unreadable(format!(
                    "the checkpoint {key} in topic {TOPIC} cannot be read: {error}; run the version that wrote it, \
                     or delete it (a tombstone), after which what was published last may be published again"
                ))
            })?;
            read.insert(key, checkpoint);
        }
        Ok(read)
    }

    /// Waits until every transaction before `end` is decided.
    fn stable(
        &self,
        committed: &BaseConsumer<Context>,
        partition: i32,
        end: i64,
        shard: u32,
    ) -> Result<(), Trouble> {
        let start = Instant::now();
        loop {
            // A read_committed client is given the last stable offset.
            let stable = match committed.fetch_watermarks(TOPIC, partition, REQUEST) {
                Ok((_, stable)) => stable,
                Err(error) => {
                    return Err(Trouble::Passing(format!(
                        "the checkpoints in {TOPIC} cannot be read: {error}"
                    )));
                }
            };
            if stable >= end {
                return Ok(());
            }
            if self.closing.is_cancelled() {
                return Err(Trouble::Passing("closed".to_owned()));
            }
            if start.elapsed() > UNNOTICED {
                self.vitals.hold_up(
                    shard,
                    format!(
                        "an open transaction holds back {TOPIC} partition {partition} at offset {stable}: \
                         waiting for its end or its time-out (kafka-transactions.sh find-hanging tells whose it is)"
                    ),
                );
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The topic is there; it is created where it is missing.
    async fn stand(self: &Arc<Self>) -> Result<(), Trouble> {
        if self.checked.load(Ordering::Acquire) {
            return Ok(());
        }
        let this = Arc::clone(self);
        let found = tokio::task::spawn_blocking(move || this.find()).await;
        let Some(facts) = found.map_err(|stopped| Trouble::Passing(stopped.to_string()))?? else {
            self.create().await?;
            return Err(Trouble::Passing(format!("topic {TOPIC} is being created")));
        };
        if let Some(weakness) = self.durability.judge(facts).await.first()
            && self.durability.demanded
        {
            return Err(Trouble::Passing(format!("require_durable = true, but {weakness}")));
        }
        if !self.checked.swap(true, Ordering::AcqRel) {
            self.warn_unless_compacted().await;
        }
        Ok(())
    }

    fn find(&self) -> Result<Option<TopicFacts>, Trouble> {
        let passing = |error: &dyn std::fmt::Display| {
            Trouble::Passing(format!("topic {TOPIC} cannot be looked up: {error}"))
        };
        let consumer = self.consumer("read_uncommitted").map_err(|error| passing(&error))?;
        let metadata = consumer.fetch_metadata(Some(TOPIC), REQUEST).map_err(|error| passing(&error))?;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == TOPIC) else {
            return Ok(None);
        };
        match topic.error().map(Code::from) {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Ok(None),
            Some(code) => Err(passing(&code)),
            None if topic.partitions().iter().any(|partition| partition.leader() < 0) => {
                Err(passing(&"a partition has no leader"))
            }
            None => Ok(Some(TopicFacts::of(topic)).filter(|facts| facts.partitions > 0)),
        }
    }

    async fn create(&self) -> Result<(), Trouble> {
        let by_hand = |why: &dyn std::fmt::Display| {
            Trouble::Passing(format!(
                "topic {TOPIC} does not exist and cannot be created: {why}; create it with cleanup.policy=compact"
            ))
        };
        if self.tokens.is_some() {
            return Err(by_hand(&"this client cannot create topics with OAUTHBEARER"));
        }
        let admin = durability::admin(&self.config).await.map_err(|error| by_hand(&error))?;
        let replication = TopicReplication::Fixed(self.replication_factor.unwrap_or(-1));
        let mut new = NewTopic::new(TOPIC, 1, replication);
        for (name, value) in CONFIGURATION {
            new = new.set(name, value);
        }
        let options = AdminOptions::new().request_timeout(Some(REQUEST)).operation_timeout(Some(REQUEST));
        let results = admin.create_topics([&new], &options).await;
        retire(admin);
        match results.map(|results| results.into_iter().next()) {
            Ok(Some(Ok(_))) => info!("topic {TOPIC} created"),
            Ok(Some(Err((_, Code::TopicAlreadyExists))) | None) => {}
            Ok(Some(Err((_, code)))) => return Err(by_hand(&code)),
            Err(error) => return Err(by_hand(&error)),
        }
        Ok(())
    }

    /// Without compaction the topic grows for ever, and with a retention time it forgets.
    async fn warn_unless_compacted(&self) {
        if self.tokens.is_some() {
            return;
        }
        let Ok(admin) = durability::admin(&self.config).await else { return };
        let settings = durability::settings_of(&admin, &[TOPIC]).await.pop().and_then(Result::ok);
        retire(admin);
        let policy = settings.and_then(|settings| settings.cleanup_policy);
        if let Some(policy) = policy
            && policy != "compact"
        {
            warn!(
                policy,
                "topic {TOPIC} should have cleanup.policy=compact: otherwise it grows, or forgets what was published"
            );
        }
    }
}
