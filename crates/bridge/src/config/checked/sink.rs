//! A sink after every check.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use url::Url;

use crate::config::secret::SecretRef;

/// `[sink.<name>]`: one destination system.
#[derive(Debug, Clone)]
pub(crate) struct Sink {
    /// The table's name; never `none`.
    pub(crate) name: String,
    /// Whether its confirmation is needed before an event is acknowledged.
    pub(crate) required: bool,
    /// How long a refusal is retried.
    pub(crate) refused_after: RefusedAfter,
    /// Nothing is published where it is less durable than the guarantee assumes.
    pub(crate) require_durable: bool,
    /// `delivery = "exactly_once"`: events and checkpoints are stored in one step.
    pub(crate) exactly_once: bool,
    /// The system, with its own settings.
    pub(crate) kind: SinkKind,
}

/// How long a destination's refusal (topic missing, not permitted, no stream) is retried before the refused records
/// become dead letters. Being unreachable is never a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusedAfter {
    /// This long.
    After(Duration),
    /// For ever.
    Never,
}

/// The destination systems.
#[derive(Debug, Clone)]
pub(crate) enum SinkKind {
    /// `type = "kafka"`
    Kafka(KafkaOptions),
    /// `type = "nats"`
    Nats(NatsOptions),
    /// `type = "file"`
    File(FileOptions),
    /// `type = "stdout"`
    Stdout,
}

impl SinkKind {
    /// The word that `type` takes.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Kafka(_) => "kafka",
            Self::Nats(_) => "nats",
            Self::File(_) => "file",
            Self::Stdout => "stdout",
        }
    }
}

/// Settings of a Kafka sink.
#[derive(Debug, Clone)]
pub(crate) struct KafkaOptions {
    /// `host:port,host:port`, as librdkafka takes it.
    pub(crate) bootstrap_servers: String,
    /// librdkafka's properties, none of which breaks the guarantee. Each value may be a secret.
    pub(crate) properties: BTreeMap<String, SecretRef>,
    /// Trust every broker, whoever it is: `properties` switch the verification off then.
    pub(crate) accept_invalid_certificates: bool,
    /// Whether missing topics are created.
    pub(crate) create_topics: bool,
    /// Partitions of a created topic; `None`: the broker's default.
    pub(crate) partitions: Option<i32>,
    /// Replication factor of a created topic; `None`: the broker's default.
    pub(crate) replication_factor: Option<i32>,
}

/// Settings of a NATS JetStream sink.
#[derive(Debug, Clone)]
pub(crate) struct NatsOptions {
    /// The servers; never empty, never with credentials in them (those are in `auth`).
    pub(crate) urls: Vec<Url>,
    /// How the connection proves itself.
    pub(crate) auth: NatsAuth,
    /// `[sink.<name>.tls]`
    pub(crate) tls: NatsTls,
    /// The stream that holds every subject of this sink.
    pub(crate) stream: String,
    /// Whether a missing stream is created; otherwise it is verified.
    pub(crate) create_stream: bool,
    /// Replicas of a created stream, 1..=5.
    pub(crate) replicas: usize,
}

/// How a NATS connection proves itself.
#[derive(Debug, Clone)]
pub(crate) enum NatsAuth {
    /// It does not.
    Anonymous,
    /// The text of a `.creds` file.
    Credentials(SecretRef),
    /// The seed of an nkey.
    Nkey(SecretRef),
    /// User and password.
    UserPassword {
        /// The user.
        user: String,
        /// The password.
        password: SecretRef,
    },
    /// A token.
    Token(SecretRef),
}

impl NatsAuth {
    /// The way of proving, in a person's words.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Anonymous => "none",
            Self::Credentials(_) => "credentials",
            Self::Nkey(_) => "nkey",
            Self::UserPassword { .. } => "user and password",
            Self::Token(_) => "token",
        }
    }
}

/// `[sink.<name>.tls]` of a NATS sink. A `tls://` URL asks for TLS too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NatsTls {
    /// Refuse servers without TLS.
    pub(crate) required: bool,
    /// Start TLS before the server's greeting.
    pub(crate) first: bool,
    /// PEM file of further certificate authorities.
    pub(crate) ca: Option<PathBuf>,
    /// PEM files of the client's certificate and key.
    pub(crate) client: Option<ClientCertificate>,
    /// Trust every server, whoever it is.
    pub(crate) accept_invalid_certificates: bool,
}

/// A client certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    /// PEM file of the certificate chain.
    pub(crate) certificate: PathBuf,
    /// PEM file of the private key.
    pub(crate) key: PathBuf,
}

/// Settings of a file sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileOptions {
    /// Where the files are.
    pub(crate) dir: PathBuf,
    /// A file is rotated before it grows above this many bytes.
    pub(crate) rotate_bytes: u64,
}

/// How sure a sink's delivery is, as `check` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Delivery {
    /// Every event is in the destination before it is acknowledged; some may be there twice.
    AtLeastOnce,
    /// Every event is in the destination before it is acknowledged, and it is there once.
    ExactlyOnce,
    /// `required = false`: an event may be acknowledged without it.
    BestEffort,
}

impl Sink {
    /// What this sink promises.
    pub(crate) const fn delivery(&self) -> Delivery {
        match (self.required, self.exactly_once) {
            (false, _) => Delivery::BestEffort,
            (true, false) => Delivery::AtLeastOnce,
            (true, true) => Delivery::ExactlyOnce,
        }
    }
}
