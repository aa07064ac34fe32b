//! A Kafka sink: servers, cluster, transactional id, and every topic that the routes can produce.

use std::time::Duration;

use viaduct_poller::connect;
use viaduct_sink_kafka::{
    CHECKPOINT_TOPIC, Inspector, KafkaSettings, Permission, TopicFacts, TopicSettings, TopicState,
};

use super::progress::Progress;
use super::report::{Check, Section};
use super::{SHORT_RETENTION, USUAL_RECORD, weakness};
use crate::config::{Config, Sink, SinkIndex, duration_text};
use crate::exit::{Exit, Failure};
use crate::sinks::{self, Destination, Destinations};

/// How long the cluster may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where Kafka listens unless an address says otherwise.
const PORT: u16 = 9092;

/// Tries everything that the sink needs.
///
/// # Errors
/// 78 for settings that the sink's client refuses.
pub(super) async fn check(
    config: &Config,
    index: SinkIndex,
    settings: KafkaSettings,
    section: &mut Section,
    progress: &Progress,
) -> Result<(), Failure> {
    let sink = config.sink(index);
    if !servers(section, &settings.bootstrap_servers, &sink.name).await {
        section.add(Check::unverified("topics", "not tried: no broker can be reached", "").bearing());
        return Ok(());
    }
    let create = settings.create_topics;
    let replication = settings.replication_factor;
    let id =
        settings.exactly_once.as_ref().map(|identity| format!("{}.{}.0", identity.bridge, identity.sink));
    let inspector = Inspector::new(settings).await.map_err(|error| sinks::refused(&sink.name, &error))?;
    match inspector.cluster(PATIENCE).await {
        Ok(cluster) => {
            let brokers = match cluster.brokers.len() {
                1 => "1 broker".to_owned(),
                count => format!("{count} brokers"),
            };
            let id = cluster.id.map(|id| format!(", cluster {id}")).unwrap_or_default();
            section.add(Check::ok("cluster", brokers + &id).bearing());
        }
        Err(no) => {
            let (exit, hint) = match no.refuses_credentials {
                true => (Exit::NoPerm, format!("check sasl.* and ssl.* in [sink.{}.properties]", sink.name)),
                false => (
                    Exit::Unavailable,
                    format!(
                        "check bootstrap_servers and security.protocol of [sink.{}], and the brokers' advertised.listeners",
                        sink.name
                    ),
                ),
            };
            section.add(Check::fail("cluster", exit, no.reason, hint));
            section.add(Check::unverified("topics", "not tried: the cluster cannot be used", "").bearing());
            return Ok(());
        }
    }
    let topics = Topics { inspector: &inspector, sink, create, replication };
    if let Some(id) = id {
        progress.now(&format!("sink {}: transactional id", sink.name));
        section.add(transactional_id(&id, inspector.may_transact(&id).await));
        progress.now(&format!("sink {}: topic {CHECKPOINT_TOPIC}", sink.name));
        topics.checkpoints(section).await;
    }
    let destinations = Destinations::of(config, index);
    for destination in &destinations.known {
        progress.now(&format!("sink {}: topic {}", sink.name, destination.name));
        topics.destination(section, destination).await;
    }
    for open in destinations.open {
        let detail = "an event decides the name of the topic: it is looked up when it is first needed";
        let hint = "check that such topics exist, or that create_topics = true may create them";
        section.add(Check::unverified("topic", detail, hint).of(open).bearing());
    }
    Ok(())
}

/// Whether something listens at each of the addresses, and at any.
async fn servers(section: &mut Section, servers: &str, sink: &str) -> bool {
    let mut checks = Vec::new();
    for server in servers.split(',') {
        let address = server.split_once("://").map_or(server, |(_, address)| address);
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().unwrap_or(PORT)),
            None => (address, PORT),
        };
        let reached = match connect::lookup(host.trim_matches(['[', ']']), port).await {
            Ok(addresses) => connect::reach(&addresses).await.map(drop),
            Err(why) => Err(why),
        };
        checks.push((server, reached));
    }
    let any = checks.iter().any(|(_, reached)| reached.is_ok());
    for (server, reached) in checks {
        let hint = format!("check bootstrap_servers in [sink.{sink}], and whether the broker runs");
        let check = match reached {
            Ok(()) => Check::ok("server", "something listens there"),
            Err(why) if any => Check::warn("server", why.to_string(), hint),
            Err(why) => Check::fail("server", Exit::Unavailable, why.to_string(), hint),
        };
        section.add(check.of(server));
    }
    any
}

fn transactional_id(id: &str, permission: Permission) -> Check {
    let check = match permission {
        Permission::Granted => Check::ok("transactional id", format!("permitted (tried with {id}.check)")),
        Permission::Denied(code) => Check::unverified(
            "transactional id",
            format!(
                "the brokers do not permit {id}.check ({code}); the bridge's own id is not tried, that would fence it"
            ),
            format!("permit Describe and Write for ids with the prefix {id}: {id}.probe is needed too"),
        ),
        Permission::Unknown(why) => Check::unverified("transactional id", why, "try again"),
    };
    check.of(id).bearing()
}

/// Looks at topics, for one sink.
struct Topics<'a> {
    inspector: &'a Inspector,
    sink: &'a Sink,
    /// Whether the sink creates missing ones, and with how many replicas.
    create: bool,
    replication: Option<i32>,
}

impl Topics<'_> {
    async fn destination(&self, section: &mut Section, destination: &Destination) {
        let name = destination.name.as_str();
        let missing = format!(
            "create it (with replication factor 3, min.insync.replicas 2), or write create_topics = true in [sink.{}]",
            self.sink.name
        );
        let Some(facts) = self.standing(section, name, self.create, &missing).await else { return };
        self.common(section, &facts).await;
        if let Ok(settings) = &facts.settings {
            for check in records(settings, destination) {
                section.add(check.of(name));
            }
        }
    }

    /// The topic that says what is published already. The sink always creates it where it is missing.
    async fn checkpoints(&self, section: &mut Section) {
        let missing = "create it with cleanup.policy=compact, or permit this user to create it";
        let Some(facts) = self.standing(section, CHECKPOINT_TOPIC, true, missing).await else { return };
        self.common(section, &facts).await;
        let read = match self.inspector.may_read(CHECKPOINT_TOPIC).await {
            Permission::Granted => Check::ok("read permission", "granted"),
            Permission::Denied(code) => {
                Check::fail("read permission", Exit::NoPerm, code, "permit this user to read the topic")
            }
            Permission::Unknown(why) => Check::unverified("read permission", why, "try again"),
        };
        section.add(read.of(CHECKPOINT_TOPIC).bearing());
        let Ok(settings) = &facts.settings else { return };
        let cleanup = match settings.cleanup_policy.as_deref() {
            Some("compact") => Check::ok("cleanup policy", "compact"),
            Some(policy) => Check::warn(
                "cleanup policy",
                format!("{policy}: the topic grows, or forgets what was published"),
                "set cleanup.policy=compact",
            ),
            None => Check::unverified("cleanup policy", "the brokers do not tell", "it has to be compact"),
        };
        section.add(cleanup.of(CHECKPOINT_TOPIC).bearing());
    }

    /// Whether the topic exists, or may be created; its facts where it exists.
    async fn standing(
        &self,
        section: &mut Section,
        name: &str,
        create: bool,
        hint: &str,
    ) -> Option<TopicFacts> {
        let (check, facts) = match self.inspector.topic(name).await {
            TopicState::Exists(facts) if facts.without_leader > 0 => {
                let detail =
                    format!("{} of {} partitions have no leader", facts.without_leader, facts.partitions);
                let hint = "wait for the brokers that have it, or start them";
                (Check::fail("topic", Exit::Unavailable, detail, hint), Some(facts))
            }
            TopicState::Exists(facts) => {
                let partitions = match facts.partitions {
                    1 => "1 partition".to_owned(),
                    count => format!("{count} partitions"),
                };
                (Check::ok("topic", format!("exists, {partitions}")), Some(facts))
            }
            TopicState::Missing if create => (self.creation(name, hint).await, None),
            TopicState::Missing => (Check::fail("topic", Exit::Config, "does not exist", hint), None),
            TopicState::Refused(code) => {
                let hint = "permit this user to describe the topic and to write to it";
                (Check::fail("topic", Exit::NoPerm, code, hint), None)
            }
            TopicState::Unknown(why) => (Check::unverified("topic", why, "try again"), None),
        };
        section.add(check.of(name).bearing());
        if facts.is_none() && create {
            self.created_later(section, name);
        }
        facts
    }

    async fn creation(&self, name: &str, hint: &str) -> Check {
        match self.inspector.may_create(name).await {
            Permission::Granted => Check::ok("topic", "does not exist yet, and may be created"),
            Permission::Denied(code) => {
                let detail = format!("does not exist, and cannot be created: {code}");
                Check::fail("topic", Exit::Config, detail, hint)
            }
            Permission::Unknown(why) => {
                Check::unverified("topic", format!("does not exist; whether it may be created: {why}"), hint)
            }
        }
    }

    /// How durable a topic will be that does not exist yet.
    fn created_later(&self, section: &mut Section, name: &str) {
        if self.replication == Some(1) {
            let facts = TopicFacts {
                name: name.to_owned(),
                partitions: 1,
                replication_factor: 1,
                in_sync_replicas: 1,
                without_leader: 0,
                settings: Err(String::new()),
            };
            for found in facts.weaknesses() {
                section.add(weakness(self.sink, name, &found, "write replication_factor = 3"));
            }
            return;
        }
        let detail = "the brokers decide min.insync.replicas when it is created";
        let hint = "create it beforehand, or check again when the bridge has run";
        section.add(Check::unverified("durability", detail, hint).of(name).bearing());
    }

    /// Durability and the permission to write.
    async fn common(&self, section: &mut Section, facts: &TopicFacts) {
        let name = facts.name.as_str();
        let weaknesses = facts.weaknesses();
        for found in &weaknesses {
            let hint = match found.setting {
                "replication factor" => {
                    "raise it to 3 (kafka-reassign-partitions.sh), with min.insync.replicas 2"
                }
                "min.insync.replicas" => "set min.insync.replicas to 2 (kafka-configs.sh)",
                _ => "set unclean.leader.election.enable to false (kafka-configs.sh)",
            };
            section.add(weakness(self.sink, name, found, hint));
        }
        if weaknesses.is_empty() {
            section.add(durability(facts).of(name).bearing());
        }
        let write = match self.inspector.may_write(facts).await {
            Permission::Granted => Check::ok("write permission", "granted"),
            Permission::Denied(code) => {
                Check::fail("write permission", Exit::NoPerm, code, "permit this user to write to the topic")
            }
            Permission::Unknown(why) => Check::unverified(
                "write permission",
                why,
                "permit this user to describe the topic's configuration",
            ),
        };
        section.add(write.of(name).bearing());
    }
}

/// Of a topic without a known weakness.
fn durability(facts: &TopicFacts) -> Check {
    let copies = format!("replication factor {}", facts.replication_factor);
    let settings = match &facts.settings {
        Ok(settings) => settings,
        Err(why) => {
            let detail = format!("{copies}; min.insync.replicas cannot be read: {why}");
            let hint = "permit this user to describe the topic's configuration";
            return Check::unverified("durability", detail, hint);
        }
    };
    match settings.min_insync_replicas {
        Some(least) if least > facts.replication_factor => Check::fail(
            "durability",
            Exit::Config,
            format!("{copies}, but min.insync.replicas {least}: nothing can ever be written"),
            "lower min.insync.replicas, or raise the replication factor",
        ),
        Some(least) if least > facts.in_sync_replicas => Check::fail(
            "durability",
            Exit::Unavailable,
            format!(
                "{copies}, min.insync.replicas {least}, but only {} in sync: nothing can be written now",
                facts.in_sync_replicas
            ),
            "start the brokers that are away, and wait until they have caught up",
        ),
        Some(least) => Check::ok("durability", format!("{copies}, min.insync.replicas {least}")),
        None => Check::unverified(
            "durability",
            format!("{copies}; the brokers do not tell min.insync.replicas"),
            "",
        ),
    }
}

/// What the topic's settings do to records.
fn records(settings: &TopicSettings, destination: &Destination) -> Vec<Check> {
    let mut checks = Vec::new();
    let policy = settings.cleanup_policy.as_deref().unwrap_or("unknown");
    checks.push(if !settings.is_compacted() {
        Check::ok("cleanup policy", policy)
    } else if destination.keyless {
        Check::fail(
            "cleanup policy",
            Exit::Config,
            format!("{policy}: a compacted topic refuses records without a key, and a route gives none"),
            "give the route a key, or set cleanup.policy=delete",
        )
        .bearing()
    } else {
        let what = if destination.dead_letters { "dead letters" } else { "events" };
        Check::warn(
            "cleanup policy",
            format!("{policy}: of {what} with the same key only the last one stays; those without a key are refused"),
            "set cleanup.policy=delete, unless this is meant",
        )
    });
    if let Some(time) = settings.retention_ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis)
        && time < SHORT_RETENTION
        && policy.contains("delete")
    {
        let detail = format!("records are removed after {}", duration_text(time));
        checks.push(Check::warn(
            "retention",
            detail,
            "raise retention.ms above the longest outage of a consumer",
        ));
    }
    if let Some(most) = settings.max_message_bytes.map(|most| most as u64) {
        checks.push(match most < USUAL_RECORD {
            true => Check::warn(
                "record size",
                format!("the topic takes at most {most} bytes: larger events become dead letters"),
                "raise max.message.bytes",
            ),
            false => Check::ok("record size", format!("up to {most} bytes")),
        });
    }
    checks
}
