//! Records read back from their topics, and marks of those that were replayed.
//!
//! **Reading.** `read_committed`, from the beginning up to the last stable offset as it was when the reading began. No
//! group is joined and nothing is committed. Partitions are merged by timestamp, so that what died earlier comes earlier;
//! between equal timestamps of two partitions there is no order.
//!
//! **Ids.** `<partition>:<offset>`, with `<topic>:` before it where there is more than one topic.
//!
//! **Marks** are records in the partition of what they mark, so that a mark is never removed by age before its record: the
//! header `viaduct-replayed` lists offsets, the value repeats it as JSON. Each has a key of its own, so that it survives in
//! a compacted topic too.

mod merge;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::sync::{OnceCell, mpsc};
use viaduct_sink::archive::{MARK, READ_AHEAD, marks_among};
use viaduct_sink::{Archive, ArchiveError, Kept, Mark, Marks, Names, Place, Reading};

use crate::classify::{Verdict, verdict};
use crate::producer::Context;
use crate::settings::{self, KafkaSettings, KafkaSettingsError};
use crate::tokens::Tokens;
use crate::vitals::Vitals;

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(10);
/// How long a mark may take.
const MARKING: &str = "30000";

/// The records of some topics.
pub struct KafkaArchive {
    reader: Arc<Reader>,
    writing: ClientConfig,
    marks: OnceCell<FutureProducer<Context>>,
}

/// A topic with its partitions.
type Topic = (Arc<str>, Vec<i32>);

/// What reading needs, on the threads that do it.
struct Reader {
    config: ClientConfig,
    tokens: Option<Arc<Tokens>>,
    vitals: Arc<Vitals>,
    names: Names,
}

impl std::fmt::Debug for KafkaArchive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaArchive").field("names", &self.reader.names).finish_non_exhaustive()
    }
}

impl KafkaArchive {
    /// The topics of these names in the cluster that the settings are about. Connects to nobody yet. Needs to be called in a
    /// tokio runtime.
    ///
    /// # Errors
    /// Properties that cannot be used.
    pub fn new(settings: &KafkaSettings, names: Names) -> Result<Self, KafkaSettingsError> {
        let mut writing = settings::client_config(settings)?;
        writing.set("message.timeout.ms", MARKING);
        let mut config = settings::admin_config(settings);
        config
            // No group is joined; librdkafka reads nothing without a name.
            .set("group.id", "viaduct-dlq")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("queued.max.messages.kbytes", "8192")
            .set("fetch.wait.max.ms", "50")
            .set("fetch.error.backoff.ms", "20")
            .set("topic.metadata.refresh.fast.interval.ms", "50")
            .set("retry.backoff.ms", "20");
        let tokens = settings::tokens(settings)?.map(Arc::new);
        let reader = Reader { config, tokens, vitals: Arc::new(Vitals::new()), names };
        Ok(Self { reader: Arc::new(reader), writing, marks: OnceCell::new() })
    }

    /// Reads on a thread of its own, because librdkafka's consumer blocks.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Reader) -> Result<T, ArchiveError> + Send + 'static,
    ) -> Result<T, ArchiveError> {
        let reader = Arc::clone(&self.reader);
        let done = tokio::task::spawn_blocking(move || work(&reader)).await;
        done.map_err(|stopped| ArchiveError::Refused(format!("reading broke: {stopped}")))?
    }

    async fn producer(&self) -> Result<&FutureProducer<Context>, ArchiveError> {
        let make = async || {
            let (config, reader) = (self.writing.clone(), Arc::clone(&self.reader));
            let made = tokio::task::spawn_blocking(move || {
                FutureProducer::from_config_and_context(&config, reader.context())
            });
            let refused =
                |detail: String| ArchiveError::Refused(format!("no producer can be made: {detail}"));
            made.await
                .map_err(|stopped| refused(stopped.to_string()))?
                .map_err(|error: KafkaError| refused(error.to_string()))
        };
        self.marks.get_or_try_init(make).await
    }

    async fn write(&self, mark: &Mark) -> Result<(), ArchiveError> {
        let Some((topic, partition)) = split_log(&mark.log) else { return Ok(()) };
        let first = mark.numbers.first().unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let (numbers, key) = (mark.numbers.to_string(), format!("{MARK}.{partition}.{first}.{now}"));
        let value = serde_json::json!({ "replayed": format!("{partition}:{numbers}") }).to_string();
        let headers = OwnedHeaders::new().insert(Header { key: MARK, value: Some(&numbers) });
        let record = FutureRecord::to(topic).partition(partition).key(&key).payload(&value).headers(headers);
        match self.producer().await?.send(record, REQUEST).await {
            Ok(_) => Ok(()),
            Err((error, _)) => {
                let what = format!("the mark of what was replayed cannot be written to topic {topic}");
                Err(self.reader.explain(&what, &error))
            }
        }
    }
}

impl Reader {
    fn context(&self) -> Context {
        Context::new(Arc::clone(&self.vitals), self.tokens.clone())
    }

    fn consumer(&self) -> Result<BaseConsumer<Context>, ArchiveError> {
        BaseConsumer::from_config_and_context(&self.config, self.context())
            .map_err(|error| ArchiveError::Refused(format!("no consumer can be made: {error}")))
    }

    /// What an error means.
    fn explain(&self, what: &str, error: &KafkaError) -> ArchiveError {
        match error.rdkafka_error_code() {
            Some(code) if verdict(code) != Verdict::Transient => {
                ArchiveError::Refused(format!("{what}: {code}"))
            }
            Some(Code::GroupAuthorizationFailed) => ArchiveError::Refused(format!("{what}: {error}")),
            _ => ArchiveError::Unreachable(format!("{what}: {}", self.vitals.unreachable())),
        }
    }

    /// The topics that there are, each with its partitions.
    fn topics(&self, consumer: &BaseConsumer<Context>) -> Result<Vec<Topic>, ArchiveError> {
        let asked = match &self.names {
            Names::One(name) => Some(&**name),
            Names::Like { .. } => None,
        };
        let cannot = "the topics of the dead letters cannot be looked up";
        // Events like refused credentials are served by polling alone.
        let _ = consumer.poll(Duration::ZERO);
        let metadata = consumer.fetch_metadata(asked, REQUEST).map_err(|error| {
            let _ = consumer.poll(Duration::ZERO);
            self.explain(cannot, &error)
        })?;
        let mut topics = Vec::new();
        for topic in metadata.topics().iter().filter(|topic| self.names.matches(topic.name())) {
            match topic.error().map(Code::from) {
                None => {}
                Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => continue,
                Some(code) => {
                    return Err(ArchiveError::Refused(format!(
                        "topic {} cannot be read: {code}",
                        topic.name()
                    )));
                }
            }
            let partitions = topic.partitions().iter().map(|partition| partition.id()).collect();
            topics.push((topic.name().into(), partitions));
        }
        topics.sort();
        Ok(topics)
    }

    /// First offset, and the one behind the last that can be read.
    fn ends(
        &self,
        consumer: &BaseConsumer<Context>,
        topic: &str,
        partition: i32,
    ) -> Result<(i64, i64), ArchiveError> {
        // A read_committed client is given the last stable offset.
        consumer.fetch_watermarks(topic, partition, REQUEST).map_err(|error| {
            self.explain(&format!("the end of topic {topic}, partition {partition}, is not known"), &error)
        })
    }

    fn kept(&self, message: &BorrowedMessage<'_>) -> Kept {
        let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
        let id = match &self.names {
            Names::One(_) => format!("{partition}:{offset}"),
            Names::Like { .. } => format!("{topic}:{partition}:{offset}"),
        };
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect()
        });
        let log = format!("{topic}/{partition}").into();
        Kept {
            place: Place { id, log, number: u64::try_from(offset).unwrap_or_default() },
            time_ms: message.timestamp().to_millis(),
            headers,
            value: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
        }
    }

    /// Topic, partition and offset of an id.
    fn parse(&self, id: &str) -> Option<(Arc<str>, i32, i64)> {
        let (before, offset) = id.rsplit_once(':')?;
        let offset = offset.parse().ok().filter(|offset| *offset >= 0)?;
        let (topic, partition) = match (before.rsplit_once(':'), &self.names) {
            (Some((topic, partition)), names) if names.matches(topic) => (Arc::from(topic), partition),
            (None, Names::One(topic)) => (Arc::clone(topic), before),
            _ => return None,
        };
        Some((topic, partition.parse().ok().filter(|partition| *partition >= 0)?, offset))
    }
}

/// Topic and partition of a log.
fn split_log(log: &str) -> Option<(&str, i32)> {
    let (topic, partition) = log.rsplit_once('/')?;
    Some((topic, partition.parse().ok()?))
}

#[async_trait]
impl Archive for KafkaArchive {
    async fn marks(&self) -> Result<Marks, ArchiveError> {
        marks_among(self.read(None).await?).await
    }

    async fn read(&self, since_ms: Option<i64>) -> Result<Reading, ArchiveError> {
        let merge = self.blocking(move |reader| merge::Merge::begin(reader, since_ms)).await?;
        let (send, reading) = mpsc::channel(READ_AHEAD);
        let reader = Arc::clone(&self.reader);
        tokio::task::spawn_blocking(move || {
            let mut merge = merge;
            if let Err(error) = merge.run(&reader, |kept| send.blocking_send(Ok(kept)).is_ok()) {
                // Nobody listens any more: then nobody wants to hear of it.
                let _ = send.blocking_send(Err(error));
            }
        });
        Ok(reading)
    }

    fn knows(&self, id: &str) -> bool {
        self.reader.parse(id).is_some()
    }

    async fn find(&self, id: &str) -> Result<Option<Kept>, ArchiveError> {
        let Some((topic, partition, offset)) = self.reader.parse(id) else { return Ok(None) };
        self.blocking(move |reader| merge::find(reader, &topic, partition, offset)).await
    }

    async fn prepare(&self) -> Result<(), ArchiveError> {
        self.producer().await.map(drop)
    }

    async fn mark(&self, marks: &[Mark]) -> Result<(), ArchiveError> {
        for mark in marks {
            self.write(mark).await?;
        }
        Ok(())
    }
}
