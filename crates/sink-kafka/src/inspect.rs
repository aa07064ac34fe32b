//! Asks a cluster what a sink would find there, and changes nothing: no topic is created, no record is stored, and nobody
//! who publishes is fenced.
//!
//! Two questions have no request of their own in this client, so they are asked in ways that end in a refusal or in
//! nothing:
//!
//! - *May records be written?* One record is sent that is larger than the topic takes. A broker looks at the permission
//!   first and then refuses the size.
//! - *May the transactional id be used?* An id with `.check` behind it is initialised. Nobody publishes under it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::classify::{Verdict, verdict};
use crate::durability::{self, TopicFacts};
use crate::producer::{Context, Generation, Lane};
use crate::publish::hand_over;
use crate::reports::{Delivered, Reports};
use crate::settings::{self, KafkaSettings, KafkaSettingsError};
use crate::tokens::Tokens;
use crate::vitals::Vitals;

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(5);
/// How long the answer to a record or to a transactional id may take.
const ANSWER: Duration = Duration::from_secs(15);
/// The wait between two attempts.
const PAUSE: Duration = Duration::from_millis(200);
/// By how much a record is larger than its topic takes.
const EXCESS: usize = 64 * 1024;
/// The largest topic limit that a record is made for.
const LARGEST_LIMIT: usize = 32 << 20;
/// Asked for to hear from the cluster; every answer will do, "unknown" too.
const ANY_TOPIC: &str = "__consumer_offsets";
/// The key of the record that no topic takes.
const KEY: &str = "viaduct-check";

/// Looks into a cluster with the settings of a sink.
pub struct Inspector {
    settings: KafkaSettings,
    config: ClientConfig,
    tokens: Option<Arc<Tokens>>,
    vitals: Arc<Vitals>,
    asking: Arc<Generation>,
    /// Missing where the connection uses OAuth tokens, which an admin client cannot get.
    admin: Option<AdminClient<DefaultClientContext>>,
}

impl std::fmt::Debug for Inspector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inspector").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A cluster that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterFacts {
    /// Its id, where it has one.
    pub id: Option<String>,
    /// Its brokers, as `host:port`.
    pub brokers: Vec<String>,
}

/// Why a cluster does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoCluster {
    /// Whether it answers and refuses the credentials.
    pub refuses_credentials: bool,
    /// A sentence for a person.
    pub reason: String,
}

/// Whether a topic exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicState {
    /// It does.
    Exists(TopicFacts),
    /// It does not.
    Missing,
    /// The credentials may not even see it, or it can have no such name.
    Refused(String),
    /// No answer.
    Unknown(String),
}

/// Whether the cluster permits something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permission {
    /// It does.
    Granted,
    /// It does not, in its own words.
    Denied(String),
    /// It cannot be known, and why.
    Unknown(String),
}

impl Inspector {
    /// Makes the clients. Does not wait for a broker. To be called in a tokio runtime.
    ///
    /// # Errors
    /// Properties that would break the guarantee, or that librdkafka does not take.
    pub async fn new(settings: KafkaSettings) -> Result<Self, KafkaSettingsError> {
        let config = settings::client_config(&settings)?;
        if settings.exactly_once.is_some() {
            settings::check_transactional(&config)?;
        }
        let tokens = settings::tokens(&settings)?.map(Arc::new);
        let vitals = Arc::new(Vitals::new());
        let asking = start(&config, &vitals, tokens.as_ref()).await?;
        let admin = match &tokens {
            Some(_) => None,
            None => {
                let made = durability::admin(&settings::admin_config(&settings)).await;
                Some(made.map_err(KafkaSettingsError::Client)?)
            }
        };
        Ok(Self { settings, config, tokens, vitals, asking, admin })
    }

    /// Waits up to `patience` for the cluster to answer.
    ///
    /// # Errors
    /// It does not, or it refuses the credentials.
    pub async fn cluster(&self, patience: Duration) -> Result<ClusterFacts, NoCluster> {
        let deadline = Instant::now() + patience;
        loop {
            let asked = self.blocking(|generation| {
                let client = generation.producer().client();
                let metadata = client.fetch_metadata(Some(ANY_TOPIC), Duration::from_secs(2))?;
                let brokers = metadata.brokers().iter();
                let brokers = brokers.map(|broker| format!("{}:{}", broker.host(), broker.port())).collect();
                Ok::<_, KafkaError>(ClusterFacts { id: client.fetch_cluster_id(REQUEST), brokers })
            });
            if let Ok(Ok(facts)) = asked.await {
                return Ok(facts);
            }
            let reason = self.vitals.unreachable();
            let refuses_credentials = self.vitals.refuses_credentials();
            if refuses_credentials || Instant::now() > deadline {
                return Err(NoCluster { refuses_credentials, reason });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Looks a topic up, with its settings where they may be read.
    pub async fn topic(&self, name: &str) -> TopicState {
        let topic = name.to_owned();
        let asked = self.blocking(move |generation| {
            let metadata = generation.producer().client().fetch_metadata(Some(&topic), REQUEST)?;
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            Ok::<_, KafkaError>(found.map(|found| (found.error().map(Code::from), TopicFacts::of(found))))
        });
        let code = match asked.await {
            Ok(Ok(Some((None, facts)))) if facts.partitions > 0 => {
                return TopicState::Exists(TopicFacts { settings: self.settings_of(name).await, ..facts });
            }
            Ok(Ok(Some((Some(code), _)))) => code,
            Ok(Ok(_)) => return TopicState::Missing,
            Ok(Err(error)) => match error.rdkafka_error_code() {
                Some(code) => code,
                None => return TopicState::Unknown(error.to_string()),
            },
            Err(stopped) => return TopicState::Unknown(stopped),
        };
        match verdict(code) {
            Verdict::Missing => TopicState::Missing,
            Verdict::NotPermitted | Verdict::InvalidTopic => TopicState::Refused(code.to_string()),
            _ => TopicState::Unknown(code.to_string()),
        }
    }

    async fn settings_of(&self, topic: &str) -> Result<durability::TopicSettings, String> {
        match &self.admin {
            Some(admin) => {
                let answer = durability::settings_of(admin, &[topic]).await.pop();
                answer.unwrap_or_else(|| Err("no answer".to_owned()))
            }
            None => Err("connections with OAUTHBEARER cannot ask for settings".to_owned()),
        }
    }

    /// Whether a missing topic could be created with the settings of the sink. The brokers only validate it.
    pub async fn may_create(&self, topic: &str) -> Permission {
        let Some(admin) = &self.admin else {
            return Permission::Denied(
                "topics cannot be created over connections with OAUTHBEARER".to_owned(),
            );
        };
        let replication = TopicReplication::Fixed(self.settings.replication_factor.unwrap_or(-1));
        let new = NewTopic::new(topic, self.settings.partitions.unwrap_or(-1), replication);
        let options = AdminOptions::new()
            .request_timeout(Some(REQUEST))
            .operation_timeout(Some(REQUEST))
            .validate_only(true);
        match admin.create_topics([&new], &options).await.map(|answers| answers.into_iter().next()) {
            Ok(Some(Ok(_) | Err((_, Code::TopicAlreadyExists)))) => Permission::Granted,
            Ok(Some(Err((_, code)))) if is_silence(code) => Permission::Unknown(code.to_string()),
            Ok(Some(Err((_, code)))) => Permission::Denied(code.to_string()),
            Ok(None) => Permission::Unknown("no answer".to_owned()),
            Err(error) => Permission::Unknown(error.to_string()),
        }
    }

    /// Whether records may be written to the topic, asked with a record that it is certain to refuse.
    pub async fn may_write(&self, topic: &TopicFacts) -> Permission {
        let limit = match &topic.settings {
            Ok(settings) => settings.max_message_bytes,
            Err(reason) => return Permission::Unknown(format!("max.message.bytes cannot be read: {reason}")),
        };
        let Some(limit) = limit.filter(|limit| *limit <= LARGEST_LIMIT) else {
            return Permission::Unknown(
                "the topic takes records too large to ask with one that it refuses".to_owned(),
            );
        };
        let mut config = self.config.clone();
        // Not idempotent: nothing of it is to be remembered. Not compressed: the size counts.
        config
            .set("enable.idempotence", "false")
            .set("compression.type", "none")
            .set("message.max.bytes", (limit + 2 * EXCESS).to_string())
            .set("queue.buffering.max.kbytes", (2 * LARGEST_LIMIT / 1024).to_string())
            .set("message.timeout.ms", ANSWER.as_millis().to_string())
            .set("retries", "0");
        config.remove("compression.codec");
        let generation = match start(&config, &self.vitals, self.tokens.as_ref()).await {
            Ok(generation) => generation,
            Err(error) => return Permission::Unknown(error.to_string()),
        };
        let reports = Reports::new(1);
        let value = vec![b'0'; limit + EXCESS];
        let record = BaseRecord::with_opaque_to(&topic.name, reports.ticket(0))
            .key(KEY.as_bytes())
            .payload(&value[..]);
        let sent = hand_over(&generation, record).await;
        reports.complete();
        let code = match sent {
            Err(code) => code,
            Ok(()) => {
                let answered = tokio::time::timeout(ANSWER + REQUEST, async {
                    while !reports.done() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                });
                if answered.await.is_err() {
                    return Permission::Unknown("no answer".to_owned());
                }
                match reports.take().pop().flatten() {
                    Some(Delivered::Failed(code)) => code,
                    // A broker that does not keep its own limit.
                    Some(Delivered::At { partition, offset }) => {
                        return Permission::Unknown(format!(
                            "the broker stored a record above its max.message.bytes (partition {partition}, offset \
                             {offset}, key {KEY})"
                        ));
                    }
                    None => return Permission::Unknown("no answer".to_owned()),
                }
            }
        };
        match verdict(code) {
            Verdict::TooLarge | Verdict::Refused => Permission::Granted,
            Verdict::NotPermitted => Permission::Denied(code.to_string()),
            _ => Permission::Unknown(code.to_string()),
        }
    }

    /// Whether the topic may be read: its end is asked for.
    pub async fn may_read(&self, topic: &str) -> Permission {
        let mut config = settings::admin_config(&self.settings);
        config
            // No group is joined; librdkafka reads nothing without a name.
            .set("group.id", "viaduct-check")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true");
        let context = Context::new(Arc::clone(&self.vitals), self.tokens.clone());
        let topic = topic.to_owned();
        let read = tokio::task::spawn_blocking(move || -> Result<Permission, KafkaError> {
            let consumer = BaseConsumer::from_config_and_context(&config, context)?;
            let mut end = TopicPartitionList::new();
            end.add_partition_offset(&topic, 0, Offset::End)?;
            consumer.assign(&end)?;
            let deadline = Instant::now() + ANSWER;
            while Instant::now() < deadline {
                match consumer.poll(PAUSE) {
                    Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return Ok(Permission::Granted),
                    Some(Err(error))
                        if error.rdkafka_error_code().map(verdict) == Some(Verdict::NotPermitted) =>
                    {
                        return Ok(Permission::Denied(error.to_string()));
                    }
                    Some(Err(_)) | None => {}
                }
            }
            Ok(Permission::Unknown("no answer".to_owned()))
        });
        match read.await {
            Ok(Ok(permission)) => permission,
            Ok(Err(error)) => Permission::Unknown(error.to_string()),
            Err(stopped) => Permission::Unknown(stopped.to_string()),
        }
    }

    /// Whether an id of this beginning may be used for transactions: initialises `<id>.check`, which fences nobody.
    pub async fn may_transact(&self, id: &str) -> Permission {
        let mut config = self.config.clone();
        config.remove("message.timeout.ms");
        config.set("transactional.id", format!("{id}.check"));
        let generation = match start(&config, &self.vitals, self.tokens.as_ref()).await {
            Ok(generation) => generation,
            Err(error) => return Permission::Unknown(error.to_string()),
        };
        let started =
            tokio::task::spawn_blocking(move || generation.producer().init_transactions(ANSWER)).await;
        match started {
            Ok(Ok(())) => Permission::Granted,
            Ok(Err(error)) => match error.rdkafka_error_code() {
                Some(
                    code @ (Code::TransactionalIdAuthorizationFailed | Code::ClusterAuthorizationFailed),
                ) => Permission::Denied(code.to_string()),
                _ => Permission::Unknown(error.to_string()),
            },
            Err(stopped) => Permission::Unknown(stopped.to_string()),
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Generation) -> T + Send + 'static,
    ) -> Result<T, String> {
        let generation = Arc::clone(&self.asking);
        tokio::task::spawn_blocking(move || ask(&generation)).await.map_err(|stopped| stopped.to_string())
    }
}

impl Drop for Inspector {
    fn drop(&mut self) {
        if let Some(admin) = self.admin.take() {
            durability::retire(admin);
        }
    }
}

/// A code that is librdkafka's own, or that says nothing about the request.
fn is_silence(code: Code) -> bool {
    (code as i32) < 0 || matches!(code, Code::RequestTimedOut | Code::NotController)
}

async fn start(
    config: &ClientConfig,
    vitals: &Arc<Vitals>,
    tokens: Option<&Arc<Tokens>>,
) -> Result<Arc<Generation>, KafkaSettingsError> {
    let config = config.clone();
    let context = Context::new(Arc::clone(vitals), tokens.cloned());
    let made = tokio::task::spawn_blocking(move || Generation::start(&config, Lane::OneByOne, 0, context));
    Ok(Arc::new(made.await.map_err(|stopped| KafkaSettingsError::Client(stopped.to_string()))??))
}
