//! The limit: the broker's own client, fed from memory with the same records, as fast as it goes.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use async_nats::HeaderMap;
use async_nats::jetstream;
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;

use crate::floor::{self, Session};
use crate::job::{Job, Kind, Target, VendorAddress};

/// Different records that are sent in turn.
const RECORDS: usize = 2_000;
/// Publishes under way, where the client has no window of its own.
const WINDOW: usize = 200;

/// A record as it is kept in memory.
pub(crate) struct Kept {
    pub(crate) key: Option<String>,
    pub(crate) headers: Vec<(floor::Name, String)>,
    pub(crate) value: Bytes,
}

/// Fetches records, says that it is ready, waits to be told to go, publishes for a while, says how many it has published.
pub(crate) async fn run(job: &Job) -> Result<()> {
    let records = fetch(&job.vendor, RECORDS).await?;
    let target = job.target.clone();
    let time = Duration::from_secs_f64(job.seconds);
    let published = match (job.kind, &target) {
        (Kind::LimitInBatches, Target::Nats { url, subject, .. }) => {
            let client = async_nats::connect(url).await?;
            go()?;
            in_batches(&client, subject, &records, job.batch, time).await?
        }
        (Kind::LimitInTransactions, Target::Nats { .. }) => bail!("NATS has no transactions"),
        (_, Target::Nats { url, subject, .. }) => {
            let context = jetstream::new(async_nats::connect(url).await?);
            go()?;
            one_by_one(&context, subject, &records, time).await?
        }
        (Kind::LimitInBatches, Target::Kafka { .. }) => bail!("Kafka has no such batches"),
        (Kind::LimitInTransactions, Target::Kafka { bootstrap, topic }) => {
            let turns = Turns::connect(bootstrap)?;
            go()?;
            turns.publish(topic, &records, job.batch, time)?
        }
        (_, Target::Kafka { bootstrap, topic }) => {
            let producer = Kafka::connect(bootstrap)?;
            go()?;
            producer.publish(topic, &records, time)?
        }
    };
    println!("{published}");
    // The CPU time of a process that has ended is not to be had any more.
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// At least `count` records of the vendor's events.
pub(crate) async fn fetch(vendor: &VendorAddress, count: usize) -> Result<Vec<Kept>> {
    let session = Session::create(vendor).await?;
    let mut kept = Vec::with_capacity(count);
    while kept.len() < count {
        let body = session.get(200).await?;
        kept.extend(floor::records(&body)?.into_iter().map(|record| Kept {
            key: record.key,
            headers: record.headers.into_iter().map(|(name, value)| (name, value.into_owned())).collect(),
            value: record.value.into(),
        }));
    }
    Ok(kept)
}

fn go() -> Result<()> {
    println!("ready");
    std::io::stdout().flush()?;
    std::io::stdin().read_line(&mut String::new()).map(drop).context("nobody says go")
}

struct Counting(Arc<AtomicU64>);

impl ClientContext for Counting {}

impl ProducerContext for Counting {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        assert!(result.is_ok(), "a record was not taken");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The threaded producer.
pub(crate) struct Kafka {
    producer: ThreadedProducer<Counting>,
    delivered: Arc<AtomicU64>,
}

impl Kafka {
    pub(crate) fn connect(bootstrap: &str) -> Result<Self> {
        Self::with(bootstrap, |_| {})
    }

    pub(crate) fn with(bootstrap: &str, more: impl FnOnce(&mut ClientConfig)) -> Result<Self> {
        let delivered = Arc::new(AtomicU64::new(0));
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", bootstrap)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "1");
        more(&mut config);
        Ok(Self { producer: config.create_with_context(Counting(delivered.clone()))?, delivered })
    }

    fn publish(&self, topic: &str, records: &[Kept], time: Duration) -> Result<u64> {
        let end = Instant::now() + time;
        let mut sent = 0;
        while Instant::now() < end {
            for record in records {
                self.send(topic, record)?;
            }
            sent += records.len() as u64;
        }
        self.producer.flush(Duration::from_secs(30))?;
        ensure!(self.delivered.load(Ordering::Relaxed) == sent, "some records were not taken");
        Ok(sent)
    }

    /// Waits until all are delivered. rdkafka's own `flush` would look every 100 ms beside a thread that serves the reports.
    pub(crate) fn settled(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.producer.in_flight_count() > 0 {
            ensure!(Instant::now() < deadline, "the broker takes nothing");
            std::thread::sleep(Duration::from_micros(50));
        }
        Ok(())
    }

    /// From its beginning to its commit.
    pub(crate) fn transaction<'a>(
        &self,
        topic: &str,
        records: impl IntoIterator<Item = &'a Kept>,
    ) -> Result<()> {
        self.producer.begin_transaction()?;
        for record in records {
            self.send(topic, record)?;
        }
        self.settled()?;
        Ok(self.producer.commit_transaction(Duration::from_secs(30))?)
    }

    pub(crate) fn send(&self, topic: &str, record: &Kept) -> Result<()> {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for ((name, _), value) in &record.headers {
            headers = headers.insert(Header { key: name, value: Some(value) });
        }
        let mut message = BaseRecord::to(topic).payload(&record.value[..]).headers(headers);
        message.key = record.key.as_ref();
        loop {
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                    message = returned;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
}

/// Two transactional producers that take turns: the coordinator writes the markers of one while the other has begun.
pub(crate) struct Turns([Kafka; 2]);

impl Turns {
    pub(crate) fn connect(bootstrap: &str) -> Result<Self> {
        let connect = |id: &str| {
            let kafka = Kafka::with(bootstrap, |config| {
                config.set("transactional.id", format!("limit-{}-{id}", std::process::id()));
            })?;
            kafka.producer.init_transactions(Duration::from_secs(30))?;
            Ok::<_, anyhow::Error>(kafka)
        };
        Ok(Self([connect("first")?, connect("second")?]))
    }

    /// Transactions of `size` records, one behind the other: a record of the next one must not stand before those of this.
    fn publish(&self, topic: &str, records: &[Kept], size: usize, time: Duration) -> Result<u64> {
        let end = Instant::now() + time;
        let mut records = records.iter().cycle();
        let mut sent = 0;
        for kafka in self.each() {
            if Instant::now() >= end {
                break;
            }
            kafka.transaction(topic, records.by_ref().take(size))?;
            sent += size as u64;
        }
        Ok(sent)
    }

    /// The producers in turn, without an end.
    pub(crate) fn each(&self) -> impl Iterator<Item = &Kafka> {
        self.0.iter().cycle()
    }
}

/// A record's headers, as NATS has them.
pub(crate) fn nats_headers(record: &Kept) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for ((_, name), value) in &record.headers {
        headers.insert(*name, value.as_str());
    }
    headers
}

async fn one_by_one(
    context: &jetstream::Context,
    subject: &str,
    records: &[Kept],
    time: Duration,
) -> Result<u64> {
    let end = Instant::now() + time;
    let mut sent = 0u64;
    let mut acks = FuturesUnordered::new();
    'time: loop {
        for record in records {
            if acks.len() >= WINDOW {
                acks.next().await.transpose()?;
                if Instant::now() >= end {
                    break 'time;
                }
            }
            let mut headers = nats_headers(record);
            headers.insert("Nats-Msg-Id", format!("acme.{sent}.0123456789abcdef"));
            let ack = context.publish_with_headers(subject.to_owned(), headers, record.value.clone()).await?;
            acks.push(ack.into_future());
            sent += 1;
        }
    }
    while acks.next().await.transpose()?.is_some() {}
    Ok(sent)
}

/// JetStream's atomic batches (ADR-50), one behind the other.
async fn in_batches(
    client: &async_nats::Client,
    subject: &str,
    records: &[Kept],
    batch: usize,
    time: Duration,
) -> Result<u64> {
    let end = Instant::now() + time;
    let mut batches = 0u64;
    loop {
        for records in records.chunks_exact(batch) {
            if Instant::now() >= end {
                return Ok(batches * batch as u64);
            }
            batches += 1;
            in_batch(client, subject, &format!("limit-{batches}"), records).await?;
        }
    }
}

/// All of these or none, under this id.
pub(crate) async fn in_batch(
    client: &async_nats::Client,
    subject: &str,
    id: &str,
    records: &[Kept],
) -> Result<()> {
    for (sequence, record) in (1..).zip(records) {
        let mut headers = nats_headers(record);
        headers.insert("Nats-Batch-Id", id);
        headers.insert("Nats-Batch-Sequence", sequence.to_string());
        let value = record.value.clone();
        if sequence < records.len() {
            client.publish_with_headers(subject.to_owned(), headers, value).await?;
        } else {
            headers.insert("Nats-Batch-Commit", "1");
            let answer = client.request_with_headers(subject.to_owned(), headers, value).await?;
            let answer: serde_json::Value = serde_json::from_slice(&answer.payload)?;
            ensure!(answer["count"] == records.len(), "the batch was not taken: {answer}");
        }
    }
    Ok(())
}
