//! Topics: made, deleted and listed by clients of the test's own.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::metadata::Metadata;

/// How long the broker may take for one request of a test.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Makes a topic with one replica and `settings` such as `("max.message.bytes", "2000")`, and waits until each of its
/// partitions has a leader.
pub async fn create_topic(
    bootstrap: &str,
    topic: &str,
    partitions: i32,
    settings: &[(&str, &str)],
) -> Result<()> {
    create_replicated_topic(bootstrap, topic, partitions, 1, settings).await
}

/// The same with `replicas`.
pub async fn create_replicated_topic(
    bootstrap: &str,
    topic: &str,
    partitions: i32,
    replicas: i32,
    settings: &[(&str, &str)],
) -> Result<()> {
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(replicas));
    for (name, value) in settings {
        new = new.set(name, value);
    }
    let results = admin(bootstrap)?.create_topics([&new], &options()).await?;
    for result in results {
        result.map_err(|(name, code)| anyhow::anyhow!("cannot create topic {name}: {code}"))?;
    }
    wait_until(bootstrap, format!("topic {topic} has no leader for each of its partitions"), {
        let topic = topic.to_owned();
        move |metadata| {
            metadata.topics().iter().any(|found| {
                found.name() == topic
                    && found.partitions().len() == usize::try_from(partitions).unwrap_or(0)
                    && found.partitions().iter().all(|partition| partition.leader() >= 0)
            })
        }
    })
    .await
}

/// Deletes a topic and waits until nobody sees it any more.
pub async fn delete_topic(bootstrap: &str, topic: &str) -> Result<()> {
    let results = admin(bootstrap)?.delete_topics(&[topic], &options()).await?;
    for result in results {
        result.map_err(|(name, code)| anyhow::anyhow!("cannot delete topic {name}: {code}"))?;
    }
    wait_until(bootstrap, format!("topic {topic} does not go away"), {
        let topic = topic.to_owned();
        move |metadata| metadata.topics().iter().all(|found| found.name() != topic)
    })
    .await
}

/// The names of all topics, internal ones too, sorted.
pub async fn topics(bootstrap: &str) -> Result<Vec<String>> {
    let bootstrap = bootstrap.to_owned();
    tokio::task::spawn_blocking(move || {
        let metadata = consumer(&bootstrap)?.fetch_metadata(None, PATIENCE)?;
        let mut names: Vec<String> = metadata.topics().iter().map(|topic| topic.name().to_owned()).collect();
        names.sort();
        Ok(names)
    })
    .await?
}

/// Whether a broker answers within `patience` and knows of at least so many, itself included. Blocks.
pub(super) fn answers(bootstrap: &str, brokers: usize, patience: Duration) -> Result<()> {
    let metadata = consumer(bootstrap)?.fetch_metadata(None, patience)?;
    let registered = metadata.brokers().len();
    ensure!(registered >= brokers, "{registered} of {brokers} brokers have registered");
    Ok(())
}

/// The id of the broker that leads a partition. Blocks.
pub(super) fn leader(bootstrap: &str, topic: &str, partition: i32) -> Result<i32> {
    let metadata = consumer(bootstrap)?.fetch_metadata(Some(topic), PATIENCE)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let found = found.and_then(|topic| topic.partitions().iter().find(|one| one.id() == partition));
    Ok(found.with_context(|| format!("there is no partition {partition} of {topic}"))?.leader())
}

/// Whether every partition of every topic has all its replicas in sync. Blocks.
pub(super) fn in_sync(bootstrap: &str) -> Result<bool> {
    let metadata = consumer(bootstrap)?.fetch_metadata(None, PATIENCE)?;
    let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
    Ok(partitions
        .all(|partition| partition.leader() >= 0 && partition.isr().len() == partition.replicas().len()))
}

/// A consumer that commits nothing, belongs to no group that matters and creates no topics.
pub(super) fn consumer(bootstrap: &str) -> Result<BaseConsumer> {
    Ok(settings(bootstrap)
        .set("group.id", "viaduct-testkit")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("allow.auto.create.topics", "false")
        .set("fetch.message.max.bytes", "67108864")
        .set("fetch.max.bytes", "67108864")
        .set("receive.message.max.bytes", "100000000")
        .create()?)
}

/// What all clients of the tests have in common.
pub(super) fn settings(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("client.id", "viaduct-testkit")
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "200")
        .set("log_level", "2");
    config
}

fn admin(bootstrap: &str) -> Result<AdminClient<DefaultClientContext>> {
    Ok(settings(bootstrap).create()?)
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

/// Waits until the brokers' metadata, asked for anew each time, satisfies `wanted`.
async fn wait_until(
    bootstrap: &str,
    otherwise: String,
    wanted: impl Fn(&Metadata) -> bool + Send + 'static,
) -> Result<()> {
    let bootstrap = bootstrap.to_owned();
    tokio::task::spawn_blocking(move || {
        let consumer = consumer(&bootstrap)?;
        let deadline = Instant::now() + PATIENCE;
        while !wanted(&consumer.fetch_metadata(None, PATIENCE)?) {
            ensure!(Instant::now() < deadline, "{otherwise}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    })
    .await
    .context("the thread that waits for metadata")?
}
