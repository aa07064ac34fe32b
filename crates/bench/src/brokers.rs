//! The real brokers, and how much can be read from them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::jetstream;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use viaduct_testkit::kafka::{self, KafkaBroker};
use viaduct_testkit::nats::NatsServer;

use crate::job::Target;

/// A broker of either kind.
#[derive(Debug)]
pub(crate) enum Broker {
    Kafka(KafkaBroker),
    Nats(NatsServer),
}

/// The kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum System {
    Kafka,
    Nats,
}

impl System {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Nats => "nats",
        }
    }
}

impl Broker {
    /// Starts one, alone, as it would run in earnest.
    pub(crate) fn start(system: System) -> Self {
        match system {
            System::Kafka => Self::Kafka(KafkaBroker::start_for_load()),
            System::Nats => Self::Nats(NatsServer::start_own()),
        }
    }

    pub(crate) fn system(&self) -> System {
        match self {
            Self::Kafka(_) => System::Kafka,
            Self::Nats(_) => System::Nats,
        }
    }

    /// A new topic with one partition, or a new stream with one replica on disk.
    pub(crate) async fn target(&self) -> Result<Target> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        match self {
            Self::Kafka(broker) => {
                let bootstrap = broker.bootstrap().to_owned();
                let topic = format!("bench-{number}");
                kafka::create_topic(&bootstrap, &topic, 1, &[]).await?;
                Ok(Target::Kafka { bootstrap, topic })
            }
            Self::Nats(server) => {
                let (url, stream) = (server.url().to_owned(), format!("BENCH{number}"));
                let context = jetstream::new(async_nats::connect(&url).await?);
                let settings = jetstream::stream::Config {
                    name: stream.clone(),
                    subjects: vec![format!("bench.{number}.>"), "_viaduct.checkpoint.>".to_owned()],
                    allow_direct: true,
                    allow_rollup: true,
                    allow_atomic_publish: true,
                    ..Default::default()
                };
                context.create_stream(settings).await?;
                Ok(Target::Nats { url, stream, subject: format!("bench.{number}.events") })
            }
        }
    }

    /// Deletes a topic or stream: the next run finds the disk and the caches as this one did.
    pub(crate) async fn discard(&self, target: &Target) -> Result<()> {
        match target {
            Target::Kafka { bootstrap, topic } => kafka::delete_topic(bootstrap, topic).await,
            Target::Nats { url, stream, .. } => {
                let context = jetstream::new(async_nats::connect(url).await?);
                context.delete_stream(stream).await.context("the stream cannot be deleted").map(drop)
            }
        }
    }
}

/// Counts what can be read of a topic or a stream, transaction markers and checkpoints among it.
pub(crate) enum Readable {
    Kafka { consumer: BaseConsumer, topic: String },
    Nats { context: jetstream::Context, stream: String },
}

impl Readable {
    pub(crate) async fn of(target: &Target) -> Result<Self> {
        Ok(match target {
            Target::Kafka { bootstrap, topic } => {
                let consumer = consumer(bootstrap)?;
                Self::Kafka { consumer, topic: topic.clone() }
            }
            Target::Nats { url, stream, .. } => {
                let context = jetstream::new(async_nats::connect(url).await?);
                Self::Nats { context, stream: stream.clone() }
            }
        })
    }

    /// The end, as a `read_committed` consumer sees it.
    pub(crate) async fn end(&self) -> Result<u64> {
        match self {
            Self::Kafka { consumer, topic } => {
                let (_, end) = tokio::task::block_in_place(|| {
                    consumer.fetch_watermarks(topic, 0, Duration::from_secs(10))
                })?;
                Ok(u64::try_from(end)?)
            }
            Self::Nats { context, stream } => {
                Ok(context.get_stream(stream).await?.cached_info().state.last_sequence)
            }
        }
    }
}

/// A `read_committed` consumer that commits nothing.
pub(crate) fn consumer(bootstrap: &str) -> Result<BaseConsumer> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "viaduct-bench")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("allow.auto.create.topics", "false")
        .create()?)
}
