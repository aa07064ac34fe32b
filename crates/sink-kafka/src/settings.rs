//! Settings, and the librdkafka configuration that the guarantee rests on.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use viaduct_sink::Identity;

use crate::tokens::{self, Tokens};

/// What a Kafka sink is made of.
#[derive(Clone)]
pub struct KafkaSettings {
    /// `client.id`, as the brokers see it.
    pub client_id: String,
    /// `host:port,host:port`.
    pub bootstrap_servers: String,
    /// librdkafka's properties. Each value may be a secret, so none is ever shown.
    pub properties: BTreeMap<String, SecretString>,
    /// Create a topic that does not exist. Otherwise records for it are refused.
    pub create_topics: bool,
    /// Partitions of created topics; `None`: the brokers' default.
    pub partitions: Option<i32>,
    /// Replication factor of created topics; `None`: the brokers' default.
    pub replication_factor: Option<i32>,
    /// Publish to no topic that is less durable than the guarantee assumes.
    pub require_durable: bool,
    /// Deliver exactly once, as this bridge and instance; `None`: at least once.
    pub exactly_once: Option<Identity>,
    /// Over how many producers the sources are spread, each source always to the same one.
    pub shards: NonZeroU32,
}

impl KafkaSettings {
    /// No further properties, topics are not created, at least once, one shard.
    pub fn new(bootstrap_servers: impl Into<String>) -> Self {
        Self {
            client_id: "viaduct".to_owned(),
            bootstrap_servers: bootstrap_servers.into(),
            properties: BTreeMap::new(),
            create_topics: false,
            partitions: None,
            replication_factor: None,
            require_durable: false,
            exactly_once: None,
            shards: NonZeroU32::MIN,
        }
    }
}

impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSettings")
            .field("client_id", &self.client_id)
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("properties", &self.properties.keys())
            .finish_non_exhaustive()
    }
}

/// Why settings cannot be used. Never contains a property's value.
#[derive(Debug, Error)]
pub enum KafkaSettingsError {
    /// Properties that would break the guarantee.
    #[error("{}", list(.0))]
    Properties(Vec<PropertyProblem>),
    /// librdkafka does not know a property, or not this value of it.
    #[error("librdkafka refuses the property {key}: {detail}")]
    Refused {
        /// The property.
        key: String,
        /// librdkafka's words.
        detail: String,
    },
    /// Topics cannot be created over connections that use OAuth tokens.
    #[error("create_topics does not work with OAUTHBEARER: create the topics beforehand")]
    NoCreation,
    /// librdkafka cannot make a producer of these settings.
    #[error("librdkafka cannot make a producer of these properties: {0}")]
    Client(String),
}

fn list(problems: &[PropertyProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A property that may not be set, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PropertyProblem {
    /// The property.
    pub key: String,
    /// Why it may not be set, as it goes on behind the property's name. Never contains its value.
    pub why: Cow<'static, str>,
}

impl fmt::Display for PropertyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.why)
    }
}

const DURABILITY: &str = "is fixed: a record counts as durable only with acks=all";
const IDEMPOTENCE: &str = "is fixed: without the idempotent producer, retries reorder and duplicate records";
const IN_FLIGHT: &str = "must be 1 to 5: with more, the idempotent producer cannot keep the order";
const PATIENCE: &str = "is fixed: a record never expires by itself, an outage is waited for";
const OWN: &str = "has a key of its own in this configuration";
const FENCING: &str = "is Viaduct's own: it names the owner that is fenced";
const PARTITIONER: &str =
    "is fixed to murmur2_random, so that every client finds a key in the same partition";
const REPORTS: &str = "is fixed: every record needs its delivery report";
const GAPLESS: &str = "is fixed: the order behind a refused record rests on it";
const FIFO: &str = "must be fifo: records of one key keep their order";
const CREATION: &str = "must be false: a topic is created with create_topics = true, or by an operator";
const LINGER: &str = "must be at most 1000 ms: acknowledgements to the source wait for it";
const QUEUE: &str = "must be at least 16384 (16 MiB): a record larger than the queue would wait for ever";
const MOCK: &str = "is for tests: an in-memory cluster holds nothing durably";
const METHOD: &str = "must be oidc: there is no other way to get tokens";
const TOKENS: &str = "is needed for OAUTHBEARER";

/// What is wrong with these properties: those that would break the guarantee, and those that librdkafka does not know or
/// not with this value. A property without a value is one whose value is not known yet (a secret kept elsewhere).
pub fn check_properties<'a>(
    properties: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
) -> Vec<PropertyProblem> {
    let properties: Vec<(&str, Option<&str>)> = properties.into_iter().collect();
    let mut problems: Vec<PropertyProblem> = properties
        .iter()
        .filter_map(|&(key, value)| {
            let why = breaks_the_guarantee(key, value).map(Cow::from).or_else(|| unknown(key, value))?;
            Some(PropertyProblem { key: key.to_owned(), why })
        })
        .collect();
    if properties.iter().any(|(key, value)| asks_for_tokens(key, *value)) {
        let missing = tokens::NEEDED.iter().filter(|needed| properties.iter().all(|(key, _)| key != *needed));
        problems.extend(missing.map(|key| PropertyProblem { key: (*key).to_owned(), why: TOKENS.into() }));
    }
    problems
}

/// Whether the property makes the brokers ask for OAuth tokens.
fn asks_for_tokens(key: &str, value: Option<&str>) -> bool {
    matches!(key, "sasl.mechanism" | "sasl.mechanisms")
        && value.is_some_and(|value| value.eq_ignore_ascii_case("OAUTHBEARER"))
}

/// What fetches OAuth tokens, where these properties ask for it.
///
/// # Errors
/// No HTTP client can be made.
pub(crate) fn tokens(settings: &KafkaSettings) -> Result<Option<Tokens>, KafkaSettingsError> {
    let mut properties = settings.properties.iter();
    let asked = properties.any(|(key, value)| asks_for_tokens(key, Some(value.expose_secret())));
    asked.then(|| Tokens::new(&settings.properties)).transpose()
}

fn breaks_the_guarantee(key: &str, value: Option<&str>) -> Option<&'static str> {
    let is = |allowed: &[&str]| {
        value.is_some_and(|value| allowed.iter().any(|one| one.eq_ignore_ascii_case(value)))
    };
    let number = || value.and_then(|value| value.trim().parse::<f64>().ok());
    // A number that is no number is librdkafka's to refuse.
    let below = |least: f64| number().is_some_and(|number| number < least);
    let above = |most: f64| number().is_some_and(|number| number > most);
    match key {
        "acks" | "request.required.acks" => (!is(&["all", "-1"])).then_some(DURABILITY),
        "enable.idempotence" => (!is(&["true"])).then_some(IDEMPOTENCE),
        "max.in.flight" | "max.in.flight.requests.per.connection" => {
            (!number().is_some_and(|number| (1.0..=5.0).contains(&number))).then_some(IN_FLIGHT)
        }
        "message.timeout.ms" | "delivery.timeout.ms" | "retries" | "message.send.max.retries" => {
            Some(PATIENCE)
        }
        "transactional.id" => Some(FENCING),
        "partitioner" | "partitioner_cb" => (!is(&["murmur2_random"])).then_some(PARTITIONER),
        "delivery.report.only.error" | "dr_cb" | "dr_msg_cb" => Some(REPORTS),
        "bootstrap.servers" | "metadata.broker.list" => Some(OWN),
        "enable.gapless.guarantee" => Some(GAPLESS),
        "queuing.strategy" => (!is(&["fifo"])).then_some(FIFO),
        "allow.auto.create.topics" => (!is(&["false"])).then_some(CREATION),
        "linger.ms" | "queue.buffering.max.ms" => above(1000.0).then_some(LINGER),
        "queue.buffering.max.kbytes" => below(16_384.0).then_some(QUEUE),
        tokens::METHOD => (value.is_some() && !is(&["oidc"])).then_some(METHOD),
        key if key.starts_with("test.mock.") => Some(MOCK),
        _ => None,
    }
}

/// Asks librdkafka about one property.
fn unknown(key: &str, value: Option<&str>) -> Option<Cow<'static, str>> {
    const NO_SUCH: &str = "No such configuration property";
    if tokens::OURS.contains(&key) {
        return None;
    }
    let mut config = ClientConfig::new();
    config.set(key, value.unwrap_or_default());
    match KafkaSettingsError::from(config.create_native_config().err()?) {
        KafkaSettingsError::Refused { detail, .. } if detail.starts_with(NO_SUCH) => {
            Some("is not a property that librdkafka knows".into())
        }
        // Without a value only its existence can be checked.
        KafkaSettingsError::Refused { .. } if value.is_none() => None,
        error => Some(format!("is refused by librdkafka: {error}").into()),
    }
}

/// The size in bytes above which librdkafka starts a new batch, unless `batch.size` says otherwise.
const BATCH_BYTES: usize = 1_000_000;
/// About as many records as go into one request of that size, where an event's payload has 1 KiB and its record 1.6: three
/// full responses of the vendor.
const BULK_RECORDS: usize = 600;
/// The memory for records on their way, in KiB.
const QUEUE_KBYTES: usize = 65_536;
/// What the queue has to have room for beside one record.
const SLACK: usize = 64 * 1024;

/// Builds the configuration that all producers share: ours first, then the user's, then what may not be changed.
pub(crate) fn client_config(settings: &KafkaSettings) -> Result<ClientConfig, KafkaSettingsError> {
    let values: Vec<(&str, &str)> =
        settings.properties.iter().map(|(key, value)| (key.as_str(), value.expose_secret())).collect();
    let problems = check_properties(values.iter().map(|(key, value)| (*key, Some(*value))));
    if !problems.is_empty() {
        return Err(KafkaSettingsError::Properties(problems));
    }
    let mut config = ClientConfig::new();
    config
        .set("client.id", &settings.client_id)
        // A batch waits for itself: the records are there already when they are handed over.
        .set("linger.ms", "0")
        .set("queue.buffering.max.kbytes", QUEUE_KBYTES.to_string())
        // An outage ends when the broker is back, not ten seconds (the default) later.
        .set("reconnect.backoff.max.ms", "1000")
        .set("topic.metadata.propagation.max.ms", "3000")
        // Idle connections are closed by brokers every few minutes; that is no news.
        .set("log.connection.close", "false");
    for (key, value) in values {
        if !tokens::OURS.contains(&key) {
            config.set(key, value);
        }
    }
    // Above what brokers take, so that the broker decides what is too large, not this client; yet below the queue, or
    // such a record would wait for room for ever.
    let queue = number(&config, &["queue.buffering.max.kbytes"]).unwrap_or(QUEUE_KBYTES) * 1024;
    let largest = number(&config, &["message.max.bytes"]).unwrap_or(usize::MAX);
    config
        .set("message.max.bytes", largest.min(queue - SLACK).min(1_000_000_000).to_string())
        .set("bootstrap.servers", &settings.bootstrap_servers)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", "0")
        .set("partitioner", "murmur2_random")
        .set("allow.auto.create.topics", "false");
    config.set_log_level(log_level(&config));
    Ok(config)
}

/// Whether librdkafka takes the configuration for a transactional producer (`transaction.timeout.ms` has to fit other
/// time-outs).
///
/// # Errors
/// It does not.
pub(crate) fn check_transactional(config: &ClientConfig) -> Result<(), KafkaSettingsError> {
    let mut config = config.clone();
    config.remove("message.timeout.ms");
    config.set("transactional.id", "viaduct");
    config.set_log_level(RDKafkaLogLevel::Emerg);
    let _made: BaseProducer = config.create()?;
    Ok(())
}

/// How many records go together at once, where the configuration does not tell (`batch.num.messages`).
pub(crate) fn bulk_records(config: &ClientConfig) -> Option<usize> {
    config.get("batch.num.messages").is_none().then_some(BULK_RECORDS)
}

/// How many records go into one request of many.
pub(crate) fn request_records(config: &ClientConfig) -> usize {
    number(config, &["batch.num.messages"]).unwrap_or(BULK_RECORDS)
}

/// The size of a batch in bytes to begin with.
pub(crate) fn batch_bytes(config: &ClientConfig) -> usize {
    number(config, &["batch.size"]).unwrap_or(BATCH_BYTES)
}

fn number(config: &ClientConfig, keys: &[&str]) -> Option<usize> {
    keys.iter().find_map(|key| config.get(key)?.trim().parse().ok())
}

/// `debug` properties are of no use without debug lines.
fn log_level(config: &ClientConfig) -> RDKafkaLogLevel {
    if config.get("debug").is_some() { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info }
}

/// Properties that only a producer has; an admin client warns about them.
const PRODUCER_ONLY: [&str; 13] = [
    "linger.ms",
    "queue.buffering.max.ms",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "batch.size",
    "batch.num.messages",
    "compression.type",
    "compression.codec",
    "compression.level",
    "enable.idempotence",
    "acks",
    "request.required.acks",
    "message.max.bytes",
];

/// The configuration of the client that creates topics: where and as whom, nothing about producing.
pub(crate) fn admin_config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("client.id", &settings.client_id);
    for (key, value) in &settings.properties {
        if !PRODUCER_ONLY.contains(&key.as_str()) && !tokens::OURS.contains(&key.as_str()) {
            config.set(key, value.expose_secret());
        }
    }
    config.set("bootstrap.servers", &settings.bootstrap_servers).set("allow.auto.create.topics", "false");
    config.set_log_level(RDKafkaLogLevel::Emerg);
    config
}

impl From<KafkaError> for KafkaSettingsError {
    fn from(error: KafkaError) -> Self {
        match error {
            // The value, which the error carries too, may be a secret.
            KafkaError::ClientConfig(_, detail, key, value) => {
                let detail = if value.is_empty() { detail } else { detail.replace(&value, "…") };
                Self::Refused { key, detail }
            }
            other => Self::Client(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(key: &str, value: Option<&str>) -> Option<String> {
        check_properties([(key, value)]).pop().map(|problem| problem.to_string())
    }

    #[test]
    fn what_breaks_the_guarantee_is_refused() {
        for (key, value) in [
            ("acks", "1"),
            ("acks", "0"),
            ("request.required.acks", "0"),
            ("enable.idempotence", "false"),
            ("max.in.flight.requests.per.connection", "6"),
            ("max.in.flight", "0"),
            ("max.in.flight", "many"),
            ("message.timeout.ms", "30000"),
            ("delivery.timeout.ms", "30000"),
            ("retries", "0"),
            ("message.send.max.retries", "3"),
            ("transactional.id", "x"),
            ("partitioner", "random"),
            ("delivery.report.only.error", "true"),
            ("dr_msg_cb", "x"),
            ("bootstrap.servers", "x:1"),
            ("metadata.broker.list", "x:1"),
            ("enable.gapless.guarantee", "false"),
            ("queuing.strategy", "lifo"),
            ("allow.auto.create.topics", "true"),
            ("linger.ms", "60000"),
            ("queue.buffering.max.kbytes", "100"),
            ("test.mock.num.brokers", "3"),
            ("sasl.oauthbearer.method", "default"),
        ] {
            let problem = problem(key, Some(value)).unwrap_or_else(|| panic!("{key}={value} passes"));
            assert!(problem.starts_with(key) && !problem.contains("librdkafka:"), "{problem}");
        }
        assert!(problem("acks", None).is_some(), "nobody knows what it will be");
    }

    #[test]
    fn oauthbearer_needs_what_its_tokens_are_fetched_with() {
        let mut properties =
            vec![("sasl.mechanism", Some("OAUTHBEARER")), ("sasl.oauthbearer.method", Some("oidc"))];
        let keys = |properties: &[(&'static str, Option<&'static str>)]| -> Vec<String> {
            check_properties(properties.iter().copied()).into_iter().map(|problem| problem.key).collect()
        };
        assert_eq!(
            keys(&properties),
            [
                "sasl.oauthbearer.client.id",
                "sasl.oauthbearer.client.secret",
                "sasl.oauthbearer.token.endpoint.url"
            ]
        );
        properties.extend([
            ("sasl.oauthbearer.client.id", Some("me")),
            ("sasl.oauthbearer.client.secret", None),
            ("sasl.oauthbearer.token.endpoint.url", Some("https://id.example/token")),
        ]);
        assert_eq!(keys(&properties), Vec::<String>::new());
    }

    /// librdkafka refuses to make a client of a mechanism that it was built without.
    #[test]
    fn tls_and_sasl_are_built_in() {
        for (protocol, mechanism) in
            [("SASL_SSL", "PLAIN"), ("SASL_SSL", "SCRAM-SHA-256"), ("SASL_PLAINTEXT", "SCRAM-SHA-512")]
        {
            let mut settings = KafkaSettings::new("localhost:1");
            for (key, value) in [
                ("security.protocol", protocol),
                ("sasl.mechanism", mechanism),
                ("sasl.username", "user"),
                ("sasl.password", "password"),
            ] {
                settings.properties.insert(key.to_owned(), value.to_owned().into());
            }
            let config = client_config(&settings).unwrap();
            let made: Result<rdkafka::producer::BaseProducer, _> = config.create();
            assert!(made.is_ok(), "{protocol} {mechanism}: {:?}", made.err());
        }
    }

    #[test]
    fn what_does_not_is_allowed() {
        for (key, value) in [
            ("acks", "all"),
            ("acks", "-1"),
            ("enable.idempotence", "true"),
            ("max.in.flight", "5"),
            ("partitioner", "murmur2_random"),
            ("allow.auto.create.topics", "false"),
            ("compression.type", "zstd"),
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.oauthbearer.method", "oidc"),
            ("sasl.password", "x"),
            ("linger.ms", "0.5"),
            ("queue.buffering.max.kbytes", "32768"),
            ("client.rack", "a"),
            ("debug", "broker"),
        ] {
            assert_eq!(problem(key, Some(value)), None, "{key}={value}");
        }
        assert_eq!(problem("sasl.password", None), None);
        assert_eq!(problem("compression.type", None), None, "the value is not known yet");
    }

    #[test]
    fn all_problems_are_told_and_none_shows_a_value() {
        let mut settings = KafkaSettings::new("localhost:1");
        for (key, value) in [
            ("security.protocol", "hunter2"),
            ("sasl.pasword", "hunter2"),
            ("acks", "hunter2"),
            ("linger.ms", "hunter2"),
        ] {
            settings.properties.insert(key.to_owned(), value.to_owned().into());
        }
        assert!(!format!("{settings:?}").contains("hunter2"), "{settings:?}");
        let error = client_config(&settings).expect_err("all four are wrong");
        let text = format!("{error} {error:?}");
        assert!(!text.contains("hunter2"), "{text}");
        for key in settings.properties.keys() {
            assert!(error.to_string().contains(key), "{key} is missing in: {error}");
        }
        assert!(
            error.to_string().contains("sasl.pasword is not a property that librdkafka knows"),
            "{error}"
        );
    }

    #[test]
    fn the_client_takes_what_fits_into_its_queue() {
        let largest = |properties: &[(&str, &str)]| -> String {
            let mut settings = KafkaSettings::new("localhost:1");
            for (key, value) in properties {
                settings.properties.insert((*key).to_owned(), (*value).to_owned().into());
            }
            client_config(&settings).unwrap().get("message.max.bytes").unwrap().to_owned()
        };
        assert_eq!(largest(&[]), "67043328");
        assert_eq!(largest(&[("queue.buffering.max.kbytes", "16384")]), "16711680");
        assert_eq!(largest(&[("message.max.bytes", "2000000")]), "2000000");
    }
}
