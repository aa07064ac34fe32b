//! How durable a topic is: the facts, what they mean, and what was found so far of the topics of a sink.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::metadata::MetadataTopic;
use tracing::{debug, warn};
use viaduct_sink::Weakness;

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(5);

/// What a topic is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicFacts {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: usize,
    /// How many brokers have each partition; the smallest number, where partitions differ.
    pub replication_factor: usize,
    /// How many of them have all its records now; the smallest number, where partitions differ.
    pub in_sync_replicas: usize,
    /// How many partitions have no leader: nothing can be written there at the moment.
    pub without_leader: usize,
    /// Its settings, or why they cannot be read.
    pub settings: Result<TopicSettings, String>,
}

/// Settings of a topic, the broker's defaults included. `None`: the broker does not tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicSettings {
    /// `min.insync.replicas`: how many copies a record has before it is confirmed.
    pub min_insync_replicas: Option<usize>,
    /// `max.message.bytes`: the largest batch of records.
    pub max_message_bytes: Option<usize>,
    /// `cleanup.policy`.
    pub cleanup_policy: Option<String>,
    /// `retention.ms`; negative: for ever.
    pub retention_ms: Option<i64>,
    /// `unclean.leader.election.enable`: a broker that lacks records may become the leader.
    pub unclean_leader_election: Option<bool>,
}

impl TopicSettings {
    fn of(resource: &ConfigResource) -> Self {
        let text = |name: &str| resource.get(name).and_then(|entry| entry.value.clone());
        Self {
            min_insync_replicas: text("min.insync.replicas").and_then(|value| value.parse().ok()),
            max_message_bytes: text("max.message.bytes").and_then(|value| value.parse().ok()),
            cleanup_policy: text("cleanup.policy"),
            retention_ms: text("retention.ms").and_then(|value| value.parse().ok()),
            unclean_leader_election: text("unclean.leader.election.enable")
                .and_then(|value| value.parse().ok()),
        }
    }

    /// Whether only the last record of each key stays.
    #[must_use]
    pub fn is_compacted(&self) -> bool {
        self.cleanup_policy
            .as_deref()
            .is_some_and(|policy| policy.split(',').any(|one| one.trim() == "compact"))
    }
}

impl TopicFacts {
    /// Without settings.
    pub(crate) fn of(topic: &MetadataTopic) -> Self {
        let partitions = topic.partitions();
        Self {
            name: topic.name().to_owned(),
            partitions: partitions.len(),
            replication_factor: partitions.iter().map(|one| one.replicas().len()).min().unwrap_or(0),
            in_sync_replicas: partitions.iter().map(|one| one.isr().len()).min().unwrap_or(0),
            without_leader: partitions.iter().filter(|partition| partition.leader() < 0).count(),
            settings: Err("nobody has asked for them".to_owned()),
        }
    }

    /// Where it is less durable than the guarantee assumes, as far as is known.
    #[must_use]
    pub fn weaknesses(&self) -> Vec<Weakness> {
        let mut weaknesses = Vec::new();
        let mut add = |setting, value: String, consequence| {
            let destination = format!("topic {}", self.name);
            weaknesses.push(Weakness { destination, setting, value, consequence });
        };
        if self.replication_factor == 1 {
            add("replication factor", "1".to_owned(), "one lost disk loses confirmed records");
        }
        let Ok(settings) = &self.settings else { return weaknesses };
        if self.replication_factor > 1 && settings.min_insync_replicas == Some(1) {
            let consequence = "a record counts as confirmed while only one broker has it";
            add("min.insync.replicas", "1".to_owned(), consequence);
        }
        if self.replication_factor > 1 && settings.unclean_leader_election == Some(true) {
            let consequence = "a broker that lacks confirmed records may become the leader";
            add("unclean.leader.election.enable", "true".to_owned(), consequence);
        }
        weaknesses
    }
}

/// Asks the brokers for the settings of topics that exist, one answer for each.
pub(crate) async fn settings_of(
    admin: &AdminClient<DefaultClientContext>,
    topics: &[&str],
) -> Vec<Result<TopicSettings, String>> {
    let options = AdminOptions::new().request_timeout(Some(REQUEST));
    let resources: Vec<ResourceSpecifier<'_>> =
        topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    match admin.describe_configs(&resources, &options).await {
        Ok(answers) if answers.len() == topics.len() => answers
            .into_iter()
            .map(|answer| {
                answer.map(|resource| TopicSettings::of(&resource)).map_err(|code| code.to_string())
            })
            .collect(),
        Ok(_) => topics.iter().map(|_| Err("the brokers left some out".to_owned())).collect(),
        Err(error) => topics.iter().map(|_| Err(error.to_string())).collect(),
    }
}

/// Makes a client for such questions.
///
/// # Errors
/// librdkafka's words.
pub(crate) async fn admin(config: &ClientConfig) -> Result<AdminClient<DefaultClientContext>, String> {
    let config = config.clone();
    let made = tokio::task::spawn_blocking(move || config.create::<AdminClient<DefaultClientContext>>());
    made.await.map_err(|stopped| stopped.to_string())?.map_err(|error| error.to_string())
}

/// Lets go of an admin client: dropping one waits for its threads.
pub(crate) fn retire(admin: AdminClient<DefaultClientContext>) {
    drop(tokio::task::spawn_blocking(move || drop(admin)));
}

/// What was found of the topics that a sink has met.
#[derive(Debug)]
pub(crate) struct Durability {
    config: ClientConfig,
    /// Whether settings can be asked for: not over connections with OAuth tokens.
    asks: bool,
    /// Whether nothing may be published to a weak topic.
    pub(crate) demanded: bool,
    found: Mutex<BTreeMap<String, Vec<Weakness>>>,
}

impl Durability {
    /// Nothing is known yet. `config`: that of an admin client.
    pub(crate) fn new(config: ClientConfig, asks: bool, demanded: bool) -> Arc<Self> {
        Arc::new(Self { config, asks, demanded, found: Mutex::default() })
    }

    fn found(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Weakness>>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that was found.
    pub(crate) fn weaknesses(&self) -> Vec<Weakness> {
        self.found().values().flatten().cloned().collect()
    }

    /// Judges a topic that exists, and says once what it lacks.
    pub(crate) async fn judge(&self, mut topic: TopicFacts) -> Vec<Weakness> {
        // With one replica the settings change nothing any more.
        if topic.replication_factor > 1 && self.asks {
            topic.settings = self.settings(&topic.name).await;
            if let Err(reason) = &topic.settings {
                if self.demanded {
                    warn!(topic = topic.name, reason, "the topic's min.insync.replicas cannot be read");
                } else {
                    debug!(topic = topic.name, reason, "the topic's settings cannot be read");
                }
            }
        }
        let weaknesses = topic.weaknesses();
        let before = self.found().insert(topic.name, weaknesses.clone());
        if before.as_ref() != Some(&weaknesses) {
            for weakness in &weaknesses {
                weakness.tell();
            }
        }
        weaknesses
    }

    async fn settings(&self, topic: &str) -> Result<TopicSettings, String> {
        let admin = admin(&self.config).await?;
        let answer = settings_of(&admin, &[topic]).await.pop();
        retire(admin);
        answer.unwrap_or_else(|| Err("no answer".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(replication_factor: usize, settings: TopicSettings) -> TopicFacts {
        TopicFacts {
            name: "via.chat".to_owned(),
            partitions: 3,
            replication_factor,
            in_sync_replicas: replication_factor,
            without_leader: 0,
            settings: Ok(settings),
        }
    }

    fn told(topic: &TopicFacts) -> Vec<String> {
        topic.weaknesses().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_weakness_is_told_with_its_setting() {
        let one = TopicSettings { min_insync_replicas: Some(1), ..TopicSettings::default() };
        assert_eq!(
            told(&topic(1, one.clone())),
            ["topic via.chat has replication factor 1: one lost disk loses confirmed records"]
        );
        assert_eq!(
            told(&topic(3, TopicSettings { unclean_leader_election: Some(true), ..one })),
            [
                "topic via.chat has min.insync.replicas 1: a record counts as confirmed while only one broker has it",
                "topic via.chat has unclean.leader.election.enable true: a broker that lacks confirmed records may \
                 become the leader",
            ]
        );
        let two = TopicSettings { min_insync_replicas: Some(2), ..TopicSettings::default() };
        assert_eq!(told(&topic(3, two)), [""; 0]);
        assert_eq!(told(&topic(3, TopicSettings::default())), [""; 0], "what is not known is no weakness");
    }

    #[test]
    fn a_policy_may_be_two() {
        let with = |policy: &str| TopicSettings {
            cleanup_policy: Some(policy.to_owned()),
            ..TopicSettings::default()
        };
        assert!(with("compact").is_compacted() && with("delete, compact").is_compacted());
        assert!(!with("delete").is_compacted() && !TopicSettings::default().is_compacted());
    }
}
