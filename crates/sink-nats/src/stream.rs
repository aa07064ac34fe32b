//! The stream behind the subjects: created, completed or verified, and described for whoever has to judge it.

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::context::RequestErrorKind;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{Config, Info};
use async_nats::jetstream::{self, ErrorCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use async_nats::jetstream::stream::{DiscardPolicy, RetentionPolicy, StorageType};

use crate::exactly_once::checkpoint;
use crate::settings::{NatsSettings, Storage};
use crate::subject::covers;

/// What a stream promises, as far as it matters to a record in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamReport {
    /// Its name.
    pub name: String,
    /// The version of the server that was asked.
    pub server_version: String,
    /// Whether a record may travel to another server before it is stored: the server is one of a cluster, or the
    /// stream lives somewhere else.
    pub distributed: bool,
    /// The subjects that it holds, wildcards included.
    pub subjects: Vec<String>,
    /// How many servers hold it.
    pub replicas: usize,
    /// Disk or memory.
    pub storage: StorageType,
    /// When messages are removed: by limits, when nobody is interested, or once consumed.
    pub retention: RetentionPolicy,
    /// What happens at a limit: the oldest go, or new ones are refused.
    pub discard: DiscardPolicy,
    /// Largest message in bytes, headers included; `None`: the server's limit alone.
    pub max_message_size: Option<u64>,
    /// Most messages; `None`: no limit.
    pub max_messages: Option<u64>,
    /// Most messages of one subject; `None`: no limit.
    pub max_messages_per_subject: Option<u64>,
    /// Most bytes; `None`: no limit.
    pub max_bytes: Option<u64>,
    /// Oldest message; `None`: no limit.
    pub max_age: Option<Duration>,
    /// How long message ids are remembered.
    pub duplicate_window: Duration,
    /// It never answers a publish: nothing can be confirmed.
    pub no_ack: bool,
    /// It takes nothing more.
    pub sealed: bool,
    /// Atomic batches are allowed (ADR-50).
    pub allow_atomic: bool,
    /// `Nats-Rollup` is allowed.
    pub allow_rollup: bool,
    /// Direct reads are allowed.
    pub allow_direct: bool,
    /// Messages cannot be purged, and therefore not rolled up.
    pub deny_purge: bool,
    /// A subject at its limit refuses new messages.
    pub discard_new_per_subject: bool,
}

impl StreamReport {
    fn new(info: Info, client: &Client) -> Self {
        let server = client.server_info();
        let led_elsewhere = info
            .cluster
            .and_then(|cluster| cluster.leader)
            .is_some_and(|leader| leader != server.server_name);
        let config = info.config;
        Self {
            name: config.name,
            distributed: server.cluster.is_some() || led_elsewhere,
            server_version: server.version,
            subjects: config.subjects,
            replicas: config.num_replicas.max(1),
            storage: config.storage,
            retention: config.retention,
            discard: config.discard,
            max_message_size: limit(config.max_message_size.into()),
            max_messages: limit(config.max_messages),
            max_messages_per_subject: limit(config.max_messages_per_subject),
            max_bytes: limit(config.max_bytes),
            max_age: Some(config.max_age).filter(|age| !age.is_zero()),
            duplicate_window: config.duplicate_window,
            no_ack: config.no_ack,
            sealed: config.sealed,
            allow_atomic: config.allow_atomic_publish,
            allow_rollup: config.allow_rollup,
            allow_direct: config.allow_direct,
            deny_purge: config.deny_purge,
            discard_new_per_subject: config.discard_new_per_subject,
        }
    }

    /// What a stream of these settings will be, in words of the configuration alone.
    #[must_use]
    pub fn to_be_created(settings: &NatsSettings) -> Self {
        let config = config(settings, true);
        Self {
            name: config.name,
            distributed: false,
            server_version: String::new(),
            subjects: config.subjects,
            replicas: config.num_replicas,
            storage: config.storage,
            retention: config.retention,
            discard: config.discard,
            max_message_size: None,
            max_messages: None,
            max_messages_per_subject: None,
            max_bytes: None,
            max_age: None,
            duplicate_window: config.duplicate_window,
            no_ack: false,
            sealed: false,
            allow_atomic: config.allow_atomic_publish,
            allow_rollup: config.allow_rollup,
            allow_direct: config.allow_direct,
            deny_purge: false,
            discard_new_per_subject: false,
        }
    }

    /// Why exactly-once delivery is not possible with this stream and server, with what to do about it.
    pub fn exactly_once_problem(&self) -> Option<String> {
        let name = &self.name;
        if !at_least(&self.server_version, 2, 12) {
            return Some(format!(
                "exactly-once delivery needs atomic batches, which the server {} does not know: use nats-server 2.12 or \
                 later, or delivery = \"at_least_once\"",
                self.server_version
            ));
        }
        let missing: Vec<&str> =
            [(self.allow_atomic, "allow_atomic"), (self.allow_rollup, "allow_rollup_hdrs")]
                .into_iter()
                .filter_map(|(has, word)| (!has).then_some(word))
                .collect();
        if !missing.is_empty() {
            return Some(format!(
                "exactly-once delivery needs {words} on stream {name}: set create_stream = true, edit the stream, or use \
                 delivery = \"at_least_once\"",
                words = missing.join(" and ")
            ));
        }
        if self.deny_purge {
            return Some(format!(
                "stream {name} denies purges (deny_purge), so that checkpoints could not replace each other: exactly-once \
                 delivery needs another stream"
            ));
        }
        if self.discard_new_per_subject && self.max_messages_per_subject == Some(1) {
            return Some(format!(
                "stream {name} refuses a second message of a subject (max_msgs_per_subject = 1, discard new per subject), \
                 so that checkpoints could not replace each other: exactly-once delivery needs another stream"
            ));
        }
        None
    }

    /// How a checkpoint could get lost in it. What it holds would be published again.
    pub fn dangers_to_checkpoints(&self) -> Vec<String> {
        let mut dangers = Vec::new();
        let mut danger = |applies: bool, text: String| {
            if applies {
                dangers.push(text);
            }
        };
        let drops = self.discard == DiscardPolicy::Old;
        danger(
            self.storage == StorageType::Memory,
            "it is kept in memory and gone with the server".to_owned(),
        );
        danger(
            self.retention != RetentionPolicy::Limits,
            "its retention removes messages once they are consumed or nobody is interested".to_owned(),
        );
        if let Some(age) = self.max_age {
            danger(true, format!("messages older than {age:?} are removed (max_age)"));
        }
        if let Some(most) = self.max_messages {
            danger(drops, format!("the oldest messages go above {most} (max_msgs)"));
        }
        if let Some(most) = self.max_bytes {
            danger(drops, format!("the oldest messages go above {most} bytes (max_bytes)"));
        }
        dangers
    }

    /// Why nothing at all can be published, if so.
    pub(crate) fn unfit(&self, settings: &NatsSettings) -> Option<String> {
        let name = &self.name;
        if self.no_ack {
            return Some(format!("stream {name} never acknowledges (no_ack), so nothing can be confirmed"));
        }
        if self.sealed {
            return Some(format!("stream {name} is sealed and takes nothing more"));
        }
        if settings.require_durable
            && let Some(weakness) = self.weaknesses().first()
        {
            return Some(format!("require_durable = true, but {weakness}"));
        }
        let identity = settings.exactly_once.as_ref()?;
        self.exactly_once_problem().or_else(|| {
            let checkpoints = checkpoint::filter(identity);
            (!self.covers(&checkpoints)).then(|| {
                format!(
                    "stream {name} does not hold the subject {checkpoints}, where exactly-once delivery keeps its \
                     checkpoints: add it to the stream's subjects or set create_stream = true"
                )
            })
        })
    }

    /// Whether it holds this subject (wildcards allowed).
    pub fn covers(&self, subject: &str) -> bool {
        self.subjects.iter().any(|own| covers(own, subject))
    }

    /// Whether it may refuse one record and take the next one a moment later, so that records which depend on each
    /// other must not be in flight together.
    pub(crate) fn may_refuse_one(&self) -> bool {
        let limited = self.max_messages.or(self.max_bytes).or(self.max_messages_per_subject).is_some();
        self.distributed || self.replicas > 1 || (self.discard == DiscardPolicy::New && limited)
    }

    /// Why this sink cannot work with it, if so.
    pub(crate) fn problem(&self, settings: &NatsSettings) -> Option<String> {
        if let Some(reason) = self.unfit(settings) {
            return Some(reason);
        }
        let name = &self.name;
        let missing: Vec<&str> =
            settings.subjects.iter().filter(|s| !self.covers(s)).map(String::as_str).collect();
        if missing.is_empty() {
            return None;
        }
        Some(format!("stream {name} does not hold the subjects {}", missing.join(", ")))
    }
}

/// Whether a server's version is this one or a later one. A version that cannot be read is taken for a new one.
pub(crate) fn at_least(version: &str, major: u64, minor: u64) -> bool {
    let mut numbers = version.split(['.', '-']).map(|number| number.parse::<u64>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(one), Some(other)) => (one, other) >= (major, minor),
        _ => true,
    }
}

fn limit(value: i64) -> Option<u64> {
    u64::try_from(value).ok().filter(|limit| *limit > 0)
}

/// Why there is no report about a stream.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum InspectError {
    /// There is no such stream.
    #[error("stream {0} does not exist")]
    Absent(String),
    /// The server said no.
    #[error("{0}")]
    Refused(String),
    /// Nobody answered.
    #[error("{0}")]
    Unreachable(String),
}

/// Describes the stream; creates or completes it first where the settings say so.
pub(crate) async fn ensure(client: &Client, settings: &NatsSettings) -> Result<StreamReport, InspectError> {
    let api = Api { context: jetstream::new(client.clone()), stream: &settings.stream };
    let info = match api.info().await {
        Err(InspectError::Absent(_)) if settings.create_stream => {
            let atomic = client.is_server_compatible(2, 12, 0);
            match api.request("CREATE", &config(settings, atomic)).await {
                // Somebody else was faster: then it is theirs, to be completed.
                Err(Failure::Api(error)) if error.error_code() == ErrorCode::STREAM_NAME_EXIST => {
                    api.info().await?
                }
                created => {
                    let info = created.map_err(|failure| api.explain("create", failure))?;
                    tracing::info!(stream = settings.stream, "stream created");
                    info
                }
            }
        }
        answer => answer?,
    };
    let report = StreamReport::new(info.clone(), client);
    let missing: Vec<&String> = settings.subjects.iter().filter(|subject| !report.covers(subject)).collect();
    let opens = settings.exactly_once.is_some()
        && client.is_server_compatible(2, 12, 0)
        && !(report.allow_atomic && report.allow_rollup);
    if !settings.create_stream || (missing.is_empty() && !opens) {
        return Ok(report);
    }
    let mut config = info.config;
    config.allow_atomic_publish |= opens;
    config.allow_rollup |= opens;
    config.subjects.retain(|own| !missing.iter().any(|new| covers(new, own)));
    config.subjects.extend(missing.into_iter().cloned());
    let info: Info =
        api.request("UPDATE", &config).await.map_err(|failure| api.explain("complete", failure))?;
    tracing::info!(
        stream = settings.stream,
        subjects = ?info.config.subjects,
        allow_atomic = info.config.allow_atomic_publish,
        "the stream was completed"
    );
    Ok(StreamReport::new(info, client))
}

/// Describes the stream and changes nothing.
pub(crate) async fn inspect(client: &Client, stream: &str) -> Result<StreamReport, InspectError> {
    let info = Api { context: jetstream::new(client.clone()), stream }.info().await?;
    Ok(StreamReport::new(info, client))
}

/// A new stream: nothing expires by itself, and what a later exactly-once delivery needs is allowed.
fn config(settings: &NatsSettings, atomic: bool) -> Config {
    Config {
        name: settings.stream.clone(),
        subjects: settings.subjects.clone(),
        num_replicas: settings.replicas,
        storage: match settings.storage {
            Storage::File => StorageType::File,
            Storage::Memory => StorageType::Memory,
        },
        allow_direct: true,
        allow_rollup: true,
        allow_atomic_publish: atomic,
        ..Config::default()
    }
}

/// JetStream's interface for one stream.
struct Api<'a> {
    context: jetstream::Context,
    stream: &'a str,
}

enum Failure {
    Api(jetstream::Error),
    Request(RequestErrorKind),
}

impl Api<'_> {
    async fn info(&self) -> Result<Info, InspectError> {
        self.request("INFO", &()).await.map_err(|failure| self.explain("inspect", failure))
    }

    async fn request<T: DeserializeOwned>(&self, verb: &str, body: &impl Serialize) -> Result<T, Failure> {
        let subject = format!("STREAM.{verb}.{}", self.stream);
        match self.context.request(subject, body).await {
            Ok(Response::Ok(answer)) => Ok(answer),
            Ok(Response::Err { error }) => Err(Failure::Api(error)),
            Err(error) => Err(Failure::Request(error.kind())),
        }
    }

    fn explain(&self, doing: &str, failure: Failure) -> InspectError {
        let stream = self.stream;
        match failure {
            Failure::Api(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                InspectError::Absent(stream.to_owned())
            }
            Failure::Api(error) if error.code() >= 500 => {
                InspectError::Unreachable(format!("cannot {doing} stream {stream}: {error}"))
            }
            Failure::Api(error) => InspectError::Refused(format!("cannot {doing} stream {stream}: {error}")),
            Failure::Request(RequestErrorKind::NoResponders) => InspectError::Unreachable(
                "JetStream does not answer: not enabled for this server or account, or without a leader"
                    .to_owned(),
            ),
            Failure::Request(RequestErrorKind::TimedOut) => InspectError::Unreachable(format!(
                "cannot {doing} stream {stream}: JetStream did not answer in time"
            )),
            Failure::Request(_) => {
                InspectError::Unreachable(format!("cannot {doing} stream {stream}: the connection broke"))
            }
        }
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
