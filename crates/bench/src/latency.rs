//! From the moment at which the vendor has an event until a consumer has read its record, at 1,000 events per second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::{self, consumer::DeliverPolicy, consumer::push::OrderedConfig};
use futures_util::StreamExt as _;
use rdkafka::consumer::Consumer as _;
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::brokers::{Broker, consumer};
use crate::job::Target;
use crate::paced;
use crate::scene::{self, Binaries, Case, Contender};

const RATE: u64 = 1_000;
/// The first events are not counted: connections and caches warm up.
const WARM_UP: u64 = 1_000;

/// Microseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

/// When each event was released, by number, in nanoseconds since `start`; 0 is not yet.
struct Clock {
    start: Instant,
    released: Vec<AtomicU64>,
}

impl Clock {
    fn new(events: u64) -> Arc<Self> {
        let released = (0..events).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { start: Instant::now(), released })
    }

    fn release(&self, number: u64) {
        self.released[number as usize].store(self.start.elapsed().as_nanos() as u64, Ordering::Release);
    }

    fn since(&self, number: u64) -> Option<f64> {
        let released = self.released.get(number as usize)?.load(Ordering::Acquire);
        Some((self.start.elapsed().as_nanos() as u64).saturating_sub(released) as f64 / 1_000.0)
    }
}

/// Measures one contender; the limit is the broker's client alone, fed at the same pace.
pub(crate) async fn run(
    contender: Contender,
    case: &Case,
    binaries: &Binaries,
    broker: &Broker,
) -> Result<Latency> {
    let events = (case.seconds * RATE as f64) as u64 + WARM_UP;
    let vendor = scene::vendor(case).await?;
    let control = vendor.control();
    let target = broker.target().await?;
    let folder = TempDir::new()?;
    let clock = Clock::new(events);
    let mut process = None;
    let emit: Box<dyn Fn(u64) + Send> = if contender.is_limit() {
        let numbers = paced::start(contender, &scene::address(&vendor), &target).await?;
        Box::new(move |number| {
            // Nobody takes it where the limit has failed, which it tells itself.
            let _ = numbers.send(number);
        })
    } else {
        control.pause();
        let started = scene::contender(contender, case, binaries, &vendor, &target, &folder)?;
        scene::everybody_waits(&vendor, case, process.insert(started)).await?;
        Box::new(move |_| control.emit(1))
    };
    tokio::time::sleep(Duration::from_millis(500)).await;

    let ready = Arc::new(AtomicBool::new(false));
    let reading = read(&target, clock.clone(), ready.clone()).await?;
    while !ready.load(Ordering::Acquire) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // A thread of its own: the runtime's timers know milliseconds only.
    let pacer = std::thread::spawn({
        let clock = clock.clone();
        move || {
            pace(events, |number| {
                clock.release(number);
                emit(number);
            })
        }
    });
    let measured =
        tokio::time::timeout(Duration::from_secs(60) + Duration::from_secs_f64(case.seconds), reading)
            .await
            .context("not every record came")???;
    let _ = pacer.join();
    if let Some(mut process) = process {
        process.check()?;
    }
    broker.discard(&target).await?;
    Ok(percentiles(measured))
}

/// Calls `each` for every number at its time; where the machine was late, as soon as it can.
fn pace(events: u64, mut each: impl FnMut(u64)) {
    let start = Instant::now();
    for number in 0..events {
        let due = start + Duration::from_micros(number * 1_000_000 / RATE);
        let now = Instant::now();
        if now < due {
            std::thread::sleep(due - now);
        }
        each(number);
    }
}

type Reading = tokio::task::JoinHandle<Result<Vec<f64>>>;

/// Reads until every event was seen once; returns the latencies of those that count.
async fn read(target: &Target, clock: Arc<Clock>, ready: Arc<AtomicBool>) -> Result<Reading> {
    let mut seen = Seen { clock, latencies: Vec::new(), first: 0 };
    Ok(match target.clone() {
        Target::Kafka { bootstrap, topic } => tokio::task::spawn_blocking(move || {
            let consumer = consumer(&bootstrap)?;
            let mut partitions = TopicPartitionList::new();
            partitions.add_partition_offset(&topic, 0, Offset::Beginning)?;
            consumer.assign(&partitions)?;
            // The first fetch is under way before the first event is there.
            let _ = consumer.poll(Duration::from_secs(2));
            ready.store(true, Ordering::Release);
            while !seen.all() {
                let Some(message) = consumer.poll(Duration::from_secs(30)) else { continue };
                let message = message?;
                let headers = message.headers().context("no headers")?;
                let id = headers.iter().find(|header| header.key == "ce_id").and_then(|header| header.value);
                seen.record(id.context("no ce_id")?)?;
            }
            Ok(seen.latencies)
        }),
        Target::Nats { url, stream, subject } => {
            let context = jetstream::new(async_nats::connect(&url).await?);
            let stream = context.get_stream(&stream).await?;
            let settings = OrderedConfig {
                deliver_subject: format!("_INBOX.bench.{}", std::process::id()),
                deliver_policy: DeliverPolicy::All,
                filter_subject: subject,
                ..Default::default()
            };
            let mut messages = stream.create_consumer(settings).await?.messages().await?;
            ready.store(true, Ordering::Release);
            tokio::spawn(async move {
                while !seen.all() {
                    let message = messages.next().await.context("the consumer ended")??;
                    let headers = message.headers.as_ref().context("no headers")?;
                    seen.record(headers.get("ce-id").context("no ce-id")?.as_str().as_bytes())?;
                }
                Ok(seen.latencies)
            })
        }
    })
}

struct Seen {
    clock: Arc<Clock>,
    latencies: Vec<f64>,
    first: u64,
}

impl Seen {
    fn all(&self) -> bool {
        self.first + self.latencies.len() as u64 >= self.clock.released.len() as u64
    }

    /// The record of the event of this id was read now. Its number is the end of the id.
    fn record(&mut self, id: &[u8]) -> Result<()> {
        let id = std::str::from_utf8(id)?;
        let number: u64 = id.rsplit('-').next().unwrap_or_default().parse()?;
        ensure!(number == self.first + self.latencies.len() as u64, "{id} is out of its turn");
        if number < WARM_UP {
            self.first += 1;
        } else {
            self.latencies.extend(self.clock.since(number));
        }
        Ok(())
    }
}

fn percentiles(mut latencies: Vec<f64>) -> Latency {
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| latencies[((latencies.len() as f64 * share) as usize).min(latencies.len() - 1)];
    Latency { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
}
