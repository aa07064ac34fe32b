//! What really stands in a topic, read by a client of its own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::topics::{PATIENCE, consumer, settings};

/// One message of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaMessage {
    /// Its partition.
    pub partition: i32,
    /// Its offset in the partition.
    pub offset: i64,
    /// Its key; `None`: a null key.
    pub key: Option<Vec<u8>>,
    /// Its headers in the order in which they were written; a null value reads as an empty one.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Its value; `None`: a null value, which is a tombstone on a compacted topic.
    pub value: Option<Vec<u8>>,
    /// Its timestamp in milliseconds since the Unix epoch; `None` where the broker holds none.
    pub timestamp_ms: Option<i64>,
}

impl KafkaMessage {
    /// The value of the first header of that name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_slice())
    }
}

/// How long a reader waits for the end of transactions. A broker answers a commit before it has written the markers that
/// make it visible, which it does some milliseconds later.
const MARKERS: Duration = Duration::from_secs(3);

/// Reads everything that a `read_committed` consumer can see in `topic` now, from the beginning up to the high watermarks
/// at the call, ordered by partition and offset. A missing topic is empty. Where a transaction stays open, it reads
/// up to its first message.
pub async fn read_topic(bootstrap: &str, topic: &str) -> Result<Vec<KafkaMessage>> {
    let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
    tokio::task::spawn_blocking(move || {
        read(&bootstrap, &topic).with_context(|| format!("the reader of topic {topic} at {bootstrap}"))
    })
    .await?
}

fn read(bootstrap: &str, topic: &str) -> Result<Vec<KafkaMessage>> {
    let consumer = consumer(bootstrap)?;
    let mut open = BTreeMap::new();
    let undecided: BaseConsumer = settings(bootstrap).set("isolation.level", "read_uncommitted").create()?;
    let markers = Instant::now() + MARKERS;
    for partition in partitions(&consumer, topic)? {
        let (low, high) = undecided.fetch_watermarks(topic, partition, PATIENCE)?;
        let mut stable = consumer.fetch_watermarks(topic, partition, PATIENCE)?.1;
        while stable < high && Instant::now() < markers {
            std::thread::sleep(Duration::from_millis(2));
            stable = consumer.fetch_watermarks(topic, partition, PATIENCE)?.1;
        }
        if stable > low {
            open.insert(partition, stable);
        }
    }
    let ends = open.clone();
    let mut wanted = TopicPartitionList::new();
    for partition in open.keys() {
        wanted.add_partition_offset(topic, *partition, Offset::Beginning)?;
    }
    consumer.assign(&wanted)?;

    let mut found = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while !open.is_empty() {
        ensure!(Instant::now() < deadline, "the ends {open:?} are not reached in time");
        match consumer.poll(Duration::from_millis(200)) {
            None => {}
            Some(Ok(message)) => {
                let (partition, offset) = (message.partition(), message.offset());
                let end = ends.get(&partition).copied().unwrap_or(0);
                if offset < end {
                    found.push(copy(&message));
                }
                if offset + 1 >= end {
                    open.remove(&partition);
                }
            }
            // The last offsets of a partition may be markers of transactions, which no consumer is given.
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(
                    RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::AllBrokersDown
                    | RDKafkaErrorCode::OperationTimedOut,
                ) => {}
                _ => return Err(error.into()),
            },
        }
    }
    found.sort_by_key(|message| (message.partition, message.offset));
    Ok(found)
}

/// The topic's partitions; none where there is no such topic.
fn partitions(consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // All topics at once: asking for one by name makes librdkafka wait for a topic that does not exist.
        let metadata = consumer.fetch_metadata(None, PATIENCE)?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Ok(Vec::new());
        };
        let led = found.partitions().iter().all(|partition| partition.leader() >= 0);
        if led && !found.partitions().is_empty() {
            return Ok(found.partitions().iter().map(|partition| partition.id()).collect());
        }
        if Instant::now() > deadline {
            bail!("a partition has no leader");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn copy(message: &BorrowedMessage<'_>) -> KafkaMessage {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
            .collect()
    });
    KafkaMessage {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        headers,
        value: message.payload().map(<[u8]>::to_vec),
        timestamp_ms: message.timestamp().to_millis(),
    }
}
