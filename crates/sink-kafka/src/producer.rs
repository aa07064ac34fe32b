//! The producers and their replacement. Everything that owns a librdkafka producer is here.
//!
//! There are three lanes. Few records at once go through the **pipelined** one, which sends what it has as soon as it has
//! something. Many at once go through the **bulk** one, so that they make one request: while one of a partition is under way
//! and records wait behind it, librdkafka's thread spins, because it counts the records under way where it should count the
//! requests (`rd_kafka_toppar_producer_serve`), finds no room for a second one, and does not sleep either. So this lane waits
//! a moment for all records of a bulk to be there, has it leave at once when it is as large as a bulk may be, and what would
//! wait behind it waits at the [`crate::turnstile`].
//!
//! A broker takes or refuses a batch as a whole, so one record that is too large or invalid makes its neighbours fail with
//! it, and later batches of the same partition must not be written before these come again. `enable.gapless.guarantee` sees
//! to that on both lanes: the producer stops for good ("fatal error"), what it held fails, and a new one takes its place.
//! The topic then goes through the **one by one** lane for a while ([`crate::isolation`]), where a batch holds one record, so
//! that the broker's answer is about that record and a refusal concerns nobody else.
//!
//! An idempotent producer can also break by itself (a broker lost track of it, KIP-360). That is the same event and has
//! the same cure. It is replaced once, however many publishes notice.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, NoCustomPartitioner, Producer as _, ProducerContext, PurgeConfig};
use rdkafka::types::RDKafkaErrorCode as Code;
use tracing::{debug, info, warn};

use crate::reports::{Delivered, Ticket};
use crate::settings;
use crate::tokens::Tokens;
use crate::vitals::Vitals;

/// How long the serving thread listens to librdkafka before it looks around, while records are under way.
const POLL: Duration = Duration::from_millis(50);
/// The same while none are. What is left of a wait goes to librdkafka in whole milliseconds (rdkafka 0.39), so the last one
/// is spent spinning: 2 % of a core with the wait above.
const IDLE_POLL: Duration = Duration::from_secs(2);
/// How long a broken producer waits for the answers to what is on its way to a broker, before it calls them lost.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// Batches are not made smaller than this.
const SMALLEST_BATCH: usize = 16 * 1024;

/// How long the records of a bulk wait for each other, in milliseconds, where the configuration does not ask for longer.
const BULK_LINGER_MS: f64 = 2.0;

/// How records travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// What is there goes at once; the first refused batch ends the producer.
    Pipelined,
    /// The same, but records wait for others for [`BULK_LINGER_MS`].
    Bulk,
    /// One record in a batch; a refused record ends nothing.
    OneByOne,
}

impl Lane {
    const ALL: [Self; 3] = [Self::Pipelined, Self::Bulk, Self::OneByOne];
}

/// Owns the current producer of each lane.
pub(crate) struct Producers {
    config: ClientConfig,
    vitals: Arc<Vitals>,
    tokens: Option<Arc<Tokens>>,
    lanes: [Mutex<Option<Arc<Generation>>>; 3],
    /// Held while a producer is made.
    making: tokio::sync::Mutex<()>,
    made: AtomicU64,
    batch_bytes: AtomicUsize,
    closed: AtomicBool,
}

impl Producers {
    /// Without any producer yet.
    pub(crate) fn new(
        config: ClientConfig,
        batch_bytes: usize,
        vitals: Arc<Vitals>,
        tokens: Option<Arc<Tokens>>,
    ) -> Self {
        Self {
            config,
            vitals,
            tokens,
            lanes: Default::default(),
            making: tokio::sync::Mutex::default(),
            made: AtomicU64::new(0),
            batch_bytes: AtomicUsize::new(batch_bytes),
            closed: AtomicBool::new(false),
        }
    }

    /// Makes the producers of `lanes`. Does not wait for a broker, but blocks for some milliseconds.
    ///
    /// The first records should find them ready: an idempotent producer that has no connection yet when it asks for its id asks
    /// again after 500 ms (librdkafka 2.12, `rd_kafka_idemp_pid_timer_restart`), and takes records that long, but sends none.
    pub(crate) fn start(&self, lanes: &[Lane]) -> Result<(), KafkaError> {
        for &lane in lanes {
            let first = self.make(lane)?;
            *self.lane(lane) = Some(first);
        }
        Ok(())
    }

    fn lane(&self, lane: Lane) -> MutexGuard<'_, Option<Arc<Generation>>> {
        let lane = match lane {
            Lane::Pipelined => &self.lanes[0],
            Lane::Bulk => &self.lanes[1],
            Lane::OneByOne => &self.lanes[2],
        };
        lane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn usable(&self, lane: Lane) -> Option<Arc<Generation>> {
        self.lane(lane).as_ref().filter(|generation| !generation.broken()).cloned()
    }

    /// The producer to use now; a new one where there is none yet or the last one broke.
    ///
    /// # Errors
    /// None can be made, though the first could: the process is out of threads or files, or the sink is closed.
    pub(crate) async fn current(self: &Arc<Self>, lane: Lane) -> Result<Arc<Generation>, String> {
        if let Some(usable) = self.usable(lane) {
            return Ok(usable);
        }
        let _making = self.making.lock().await;
        if let Some(usable) = self.usable(lane) {
            return Ok(usable);
        }
        if self.closed.load(Ordering::Acquire) {
            return Err("the sink is closed".to_owned());
        }
        let producers = Arc::clone(self);
        let made = tokio::task::spawn_blocking(move || producers.make(lane)).await;
        let made = made.map_err(|stopped| stopped.to_string())?.map_err(|error| {
            let detail = format!("no Kafka producer can be made: {error}");
            warn!("{detail}");
            detail
        })?;
        // A close that came meanwhile has to find it.
        *self.lane(lane) = Some(Arc::clone(&made));
        Ok(made)
    }

    fn make(&self, lane: Lane) -> Result<Arc<Generation>, KafkaError> {
        let mut config = self.config.clone();
        match lane {
            Lane::Pipelined | Lane::Bulk => {
                config.set("enable.gapless.guarantee", "true");
                config.set("batch.size", self.batch_bytes.load(Ordering::Relaxed).to_string());
            }
            Lane::OneByOne => {
                config.set("batch.num.messages", "1");
            }
        }
        if lane == Lane::Bulk {
            wait_for_bulk(&mut config);
            if let Some(records) = self.bulk_records() {
                config.set("batch.num.messages", records.to_string());
            }
        }
        let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        let context = Context::new(Arc::clone(&self.vitals), self.tokens.clone());
        Generation::start(&config, lane, number, context).map(Arc::new)
    }

    /// A bulk of so many records leaves at once.
    pub(crate) fn bulk_records(&self) -> Option<usize> {
        settings::bulk_records(&self.config)
    }

    /// How many bytes of records go into one batch at most.
    pub(crate) fn batch_bytes(&self) -> usize {
        self.batch_bytes.load(Ordering::Relaxed)
    }

    /// A topic takes less than the pipelined lane's batches hold: the next producer makes smaller ones.
    pub(crate) fn shrink_batches(&self, refused: usize) {
        let smaller = (refused / 2).max(SMALLEST_BATCH);
        if self.batch_bytes.fetch_min(smaller, Ordering::Relaxed) > smaller {
            info!(bytes = smaller, "a topic takes less than a batch of records: batches get smaller");
        }
    }

    /// Records handed over whose fate is not known yet, on all lanes.
    pub(crate) fn waiting(&self) -> usize {
        Lane::ALL.map(|lane| self.waiting_on(lane)).iter().sum()
    }

    /// The same on one lane.
    pub(crate) fn waiting_on(&self, lane: Lane) -> usize {
        let count = self.lane(lane).as_ref().map_or(0, |generation| generation.producer().in_flight_count());
        usize::try_from(count).unwrap_or_default()
    }

    /// Lets go of a lane's producer, which ends when the last publish that uses it does.
    pub(crate) fn retire(&self, lane: Lane) {
        self.lane(lane).take();
    }

    /// No producer is made any more, and those that are there end.
    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let _making = self.making.lock().await;
        Lane::ALL.into_iter().for_each(|lane| self.retire(lane));
    }
}

/// Lets records wait for others, for [`BULK_LINGER_MS`] at least.
pub(crate) fn wait_for_bulk(config: &mut ClientConfig) {
    let linger = config.get("linger.ms").and_then(|linger| linger.parse::<f64>().ok());
    if linger.is_none_or(|linger| linger < BULK_LINGER_MS) {
        config.set("linger.ms", BULK_LINGER_MS.to_string());
    }
}

/// One producer from its first record to its last, with the thread that serves its reports.
pub(crate) struct Generation {
    pub(crate) lane: Lane,
    /// Taken out only when it ends.
    producer: Option<Arc<BaseProducer<Context>>>,
    ended: Arc<AtomicBool>,
}

impl Generation {
    /// Makes a producer. Does not wait for a broker, but blocks for some milliseconds.
    pub(crate) fn start(
        config: &ClientConfig,
        lane: Lane,
        number: u64,
        context: Context,
    ) -> Result<Self, KafkaError> {
        let producer = Arc::new(BaseProducer::from_config_and_context(config, context)?);
        let ended = Arc::new(AtomicBool::new(false));
        std::thread::Builder::new()
            .name(format!("kafka-reports-{number}"))
            .spawn({
                let (producer, ended) = (Arc::clone(&producer), Arc::clone(&ended));
                move || serve(&producer, lane, &ended)
            })
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        debug!(number, ?lane, "a Kafka producer starts");
        Ok(Self { lane, producer: Some(producer), ended })
    }

    /// The producer itself.
    pub(crate) fn producer(&self) -> &BaseProducer<Context> {
        self.producer.as_ref().expect("it is taken out only by Drop")
    }

    /// Whether it takes no further record.
    pub(crate) fn broken(&self) -> bool {
        self.cause().is_some()
    }

    /// The error that broke it.
    pub(crate) fn cause(&self) -> Option<Code> {
        self.producer().client().fatal_error().map(|(code, _)| code)
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        // The thread has to be the last one to hold it: destroying a producer waits for librdkafka's threads.
        drop(self.producer.take());
        self.ended.store(true, Ordering::Release);
    }
}

/// Serves delivery reports and events until the generation ends, then destroys the producer.
fn serve(producer: &Arc<BaseProducer<Context>>, lane: Lane, ended: &AtomicBool) {
    let mut broken: Option<Instant> = None;
    while !ended.load(Ordering::Acquire) {
        producer.poll(if producer.in_flight_count() > 0 { POLL } else { IDLE_POLL });
        let Some((code, reason)) = producer.client().fatal_error() else { continue };
        let broken = *broken.get_or_insert_with(|| {
            match code {
                Code::GaplessGuarantee => info!(?lane, "a batch was refused: {reason}"),
                code => warn!(?lane, ?code, "the Kafka producer broke and is replaced: {reason}"),
            }
            Instant::now()
        });
        // A broken producer keeps what it has queued; only a purge gives it back. What is on its way to a broker may
        // still be confirmed, which saves a duplicate; what is not goes back into the queue.
        let lost = if broken.elapsed() > LAST_ANSWERS {
            PurgeConfig::default().inflight()
        } else {
            PurgeConfig::default()
        };
        producer.purge(lost.queue().non_blocking());
    }
}

/// Where librdkafka reports to.
pub(crate) struct Context {
    vitals: Arc<Vitals>,
    tokens: Option<Arc<Tokens>>,
}

impl Context {
    pub(crate) fn new(vitals: Arc<Vitals>, tokens: Option<Arc<Tokens>>) -> Self {
        Self { vitals, tokens }
    }
}

impl ConsumerContext for Context {}

impl ClientContext for Context {
    /// Asked for only where the mechanism is OAUTHBEARER.
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    /// Called on the thread that serves the producer's reports, ahead of a token's end; after an error, again in ten
    /// seconds.
    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        let tokens = self.tokens.as_ref().ok_or("no way to fetch tokens is configured")?;
        tokens.fetch().map_err(|reason| {
            warn!(reason, "no OAuth token for Kafka");
            self.vitals.refused(format!("no OAuth token for Kafka: {reason}"));
            reason.into()
        })
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                warn!(facility, "librdkafka: {message}");
            }
            // Unreachable brokers are logged again and again at these levels; health tells about them once.
            RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning
            | RDKafkaLogLevel::Notice
            | RDKafkaLogLevel::Info
            | RDKafkaLogLevel::Debug => debug!(facility, "librdkafka: {message}"),
        }
    }

    fn stats_raw(&self, _: &[u8]) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.vitals.error(&error, reason);
    }
}

impl ProducerContext<NoCustomPartitioner> for Context {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        ticket.report(match result {
            Ok(message) => {
                self.vitals.confirmed();
                Delivered::At { partition: message.partition(), offset: message.offset() }
            }
            Err((error, _)) => Delivered::Failed(error.rdkafka_error_code().unwrap_or(Code::Fail)),
        });
    }
}
