//! What a destination holds in the end: records, dead letters, checkpoints; read by clients of their own.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use viaduct_sink::Checkpoint;
use viaduct_testkit::kafka::{self, KafkaMessage};
use viaduct_testkit::nats::{self, StoredMessage};

use super::case::{Broker, Case};
use super::destinations::{lines, unique};
use super::invariants::{Content, Findings, Invariant, Seen};
use super::line::Line;

/// The topic of all checkpoints in Kafka.
const CHECKPOINTS: &str = "_viaduct.checkpoints";

/// A part of a broker that belongs to one scenario. Records are the vendor's own text (`format = "raw"`), so that contents
/// can be compared with the journal.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) broker: Broker,
    /// Reads from here.
    pub(crate) direct: String,
    /// What topics start with; the stream's name.
    pub(crate) name: String,
    /// `bridge.name`, which its checkpoints start with.
    pub(crate) bridge: String,
}

/// A dead letter.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetter {
    /// `viaduct-reason`
    pub(crate) reason: String,
    /// `eventId`, where the entry is an object that has one.
    pub(crate) event_id: Option<String>,
    /// The raw event.
    pub(crate) text: String,
}

/// Everything that stands in a place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holdings {
    /// Published records, in the order of their places.
    pub(crate) records: Vec<Seen>,
    /// Dead letters.
    pub(crate) dead: Vec<DeadLetter>,
    /// The texts of the checkpoints that stand there, by key; on Kafka of each key the last one.
    pub(crate) checkpoints: HashMap<String, Vec<Vec<u8>>>,
}

impl Place {
    pub(crate) fn new(broker: Broker, line: &Line) -> Self {
        let name = unique("F");
        Self { broker, direct: line.direct.clone(), bridge: name.clone(), name }
    }

    /// The name of the sink in the configuration.
    pub(crate) fn sink(&self) -> &'static str {
        match self.broker {
            Broker::Kafka => "lake",
            Broker::Nats => "bus",
        }
    }

    /// `[bridge]`, the sink, its route, and dead letters into the same sink.
    pub(crate) fn configuration(&self, case: Case, line: &Line) -> String {
        let (name, sink) = (&self.name, self.sink());
        format!(
            "[bridge]\nname = \"{}\"\n{}[dead_letter]\nsink = \"{sink}\"\nto = \"{name}.dead-letter\"\n",
            self.bridge,
            self.sink_and_route(case, line)
        )
    }

    /// The sink and its route alone.
    pub(crate) fn sink_and_route(&self, case: Case, line: &Line) -> String {
        let (name, sink) = (&self.name, self.sink());
        let delivery = if case.exactly_once() { "delivery = \"exactly_once\"\n" } else { "" };
        let (kind, to) = match self.broker {
            Broker::Kafka => (
                format!(
                    "type = \"kafka\"\nbootstrap_servers = \"{}\"\ncreate_topics = true\npartitions = 3\n",
                    line.through
                ),
                "{category}",
            ),
            Broker::Nats => (
                format!(
                    "type = \"nats\"\nurl = \"{}\"\nstream = \"{name}\"\ncreate_stream = true\n",
                    line.through
                ),
                "{category}.{name}",
            ),
        };
        format!(
            "[sink.{sink}]\n{kind}{delivery}[[route]]\nmatch = [\"*\"]\nsink = \"{sink}\"\n\
             to = \"{name}.{to}\"\nformat = \"raw\"\n"
        )
    }

    /// Reads it all.
    pub(crate) async fn read(&self) -> Holdings {
        match self.broker {
            Broker::Kafka => self.read_kafka().await,
            Broker::Nats => self.read_nats().await,
        }
    }

    async fn read_kafka(&self) -> Holdings {
        let mut holdings = Holdings::default();
        let topics = kafka::topics(&self.direct).await.expect("the topics can be listed");
        for topic in topics.iter().filter(|topic| topic.starts_with(&format!("{}.", self.name))) {
            for message in kafka::read_topic(&self.direct, topic).await.expect("the topic can be read") {
                holdings.take_kafka(topic, &message);
            }
        }
        if topics.iter().any(|topic| topic == CHECKPOINTS) {
            let messages =
                kafka::read_topic(&self.direct, CHECKPOINTS).await.expect("checkpoints can be read");
            for message in messages {
                let key = String::from_utf8(message.key.expect("checkpoints have keys")).expect("text");
                if key.starts_with(&format!("{}.", self.bridge)) {
                    holdings.checkpoints.insert(key, message.value.into_iter().collect());
                }
            }
        }
        holdings
    }

    async fn read_nats(&self) -> Holdings {
        let mut holdings = Holdings::default();
        // The stream is created with the first connection.
        let Ok(messages) = nats::read_stream(&self.direct, &self.name).await else { return holdings };
        for message in messages {
            holdings.take_nats(&self.name, message);
        }
        holdings
    }
}

impl Holdings {
    fn take_kafka(&mut self, topic: &str, message: &KafkaMessage) {
        let value = message.value.as_deref().expect("no tombstone is ever produced");
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        match message.header("viaduct-reason") {
            Some(reason) => self.dead.push(DeadLetter::new(text(reason), text(value))),
            None => self.records.push(seen(
                format!("{topic}/{}", message.partition),
                topic.to_owned(),
                message.key.as_deref().map(text),
                value,
            )),
        }
    }

    fn take_nats(&mut self, stream: &str, message: StoredMessage) {
        if let Some(key) = message.subject.strip_prefix("_viaduct.checkpoint.") {
            self.checkpoints.entry(key.to_owned()).or_default().push(message.payload.to_vec());
            return;
        }
        match message.header("viaduct-reason") {
            Some(reason) => self.dead.push(DeadLetter::new(
                reason.to_owned(),
                String::from_utf8_lossy(&message.payload).into_owned(),
            )),
            None => self.records.push(seen(
                stream.to_owned(),
                message.subject.clone(),
                message.header("ce-subject").map(str::to_owned),
                &message.payload,
            )),
        }
    }

    /// Takes in the local dead-letter file, the last resort.
    pub(crate) fn take_local(&mut self, folder: &Path) {
        for (_, line) in lines(folder) {
            let reason = line["headers"]["viaduct-reason"].as_str().unwrap_or_default().to_owned();
            self.dead.push(DeadLetter::new(reason, line["event"].to_string()));
        }
    }

    /// The ids in the dead letters.
    pub(crate) fn buried(&self) -> HashSet<String> {
        self.dead.iter().filter_map(|letter| letter.event_id.clone()).collect()
    }

    /// The ids that can be read, dead letters included.
    pub(crate) fn readable(&self) -> HashSet<String> {
        let mut ids = self.buried();
        ids.extend(self.records.iter().map(|seen| seen.event_id.clone()));
        ids
    }

    /// What checkpoints have to be: one per source, readable, bounded, and naming nothing that is not there.
    pub(crate) fn check_checkpoints(&self, sources: usize, remembered: usize) -> Findings {
        let is_page = |key: &&String| key.split(['.', '/']).count() > 3;
        let (pages, checkpoints): (Vec<_>, Vec<_>) = self.checkpoints.keys().partition(is_page);
        let mut findings = Findings::unless(checkpoints.len() == sources, Invariant::Bounded, || {
            format!("{} checkpoints for {sources} sources: {checkpoints:?}", checkpoints.len())
        });
        for key in pages.iter().chain(&checkpoints).filter(|key| self.checkpoints[**key].len() > 1) {
            let text = format!("{} checkpoints stand under {key}", self.checkpoints[*key].len());
            findings.add(Findings::one(Invariant::Bounded, text));
        }
        let mut readable = self.readable();
        // What has no id stands in the checkpoint without one.
        if self.dead.iter().any(|letter| letter.event_id.is_none()) {
            readable.insert(String::new());
        }
        for key in checkpoints {
            let text = self.checkpoints[key].last().map_or(&[][..], Vec::as_slice);
            let page = |number| {
                let (subject, record) = (format!("{key}.{number}"), format!("{key}/{number}"));
                let page = self.checkpoints.get(&subject).or_else(|| self.checkpoints.get(&record))?;
                page.last().cloned().map(bytes::Bytes::from)
            };
            match Checkpoint::decode(text, page) {
                Err(error) => {
                    findings
                        .add(Findings::one(Invariant::NoDuplicates, format!("checkpoint {key}: {error}")));
                }
                Ok(checkpoint) => findings.add(check(key, &checkpoint, &readable, remembered)),
            }
        }
        findings
    }
}

fn check(key: &str, checkpoint: &Checkpoint, readable: &HashSet<String>, remembered: usize) -> Findings {
    let events: HashSet<&str> = checkpoint.events().map(|event| event.event.as_ref()).collect();
    let mut findings = Findings::unless(events.len() <= remembered, Invariant::Bounded, || {
        format!("checkpoint {key} remembers {} events, more than {remembered}", events.len())
    });
    // `<org>.<event id>.<hash>`
    let id = |event: &str| event.split('.').rev().nth(1).unwrap_or_default().to_owned();
    let unknown = events.iter().find(|event| !readable.contains(&id(event)));
    findings.add(Findings::unless(unknown.is_none(), Invariant::NothingLost, || {
        format!("checkpoint {key} says that {unknown:?} is published, and it is not there")
    }));
    findings
}

impl DeadLetter {
    fn new(reason: String, text: String) -> Self {
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let event_id = value["eventId"].as_str().map(str::to_owned);
        Self { reason, event_id, text }
    }
}

fn seen(place: String, destination: String, key: Option<String>, value: &[u8]) -> Seen {
    let value: serde_json::Value = serde_json::from_slice(value).expect("values are JSON");
    let event_id = value["eventId"].as_str().expect("eventId").to_owned();
    Seen { place, destination, key, event_id, content: Content::of(&value) }
}
