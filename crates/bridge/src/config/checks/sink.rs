//! `[sink.*]`.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use viaduct_sink_kafka::check_properties;

use super::super::checked::{FileOptions, KafkaOptions, RefusedAfter, Sink, SinkKind};
use super::super::field::{Field, Given, Named, Property, TextOrReference};
use super::super::mistake::closest;
use super::super::raw;
use super::super::reader::label;
use super::super::secret::SecretRef;
use super::super::tree::Origin;
use super::{Checks, Section};

/// A sink's name, and the sink where nothing is wrong with it: routes may name it either way.
pub(super) type NamedSink = (String, Option<Sink>);

/// The keys that every sink has.
struct Common<'r> {
    delivery: &'r Field<raw::Delivery>,
    required: &'r Field<bool>,
    refused_after: &'r Field<String>,
    require_durable: &'r Field<bool>,
}

macro_rules! common {
    ($sink:expr) => {
        Common {
            delivery: &$sink.delivery,
            required: &$sink.required,
            refused_after: &$sink.refused_after,
            require_durable: &$sink.require_durable,
        }
    };
}

impl Checks<'_> {
    /// Every sink that the file names, right or wrong.
    pub(super) fn sinks(&mut self, raw: &Field<Named<raw::Sink>>, root: Origin) -> Vec<NamedSink> {
        let (at, named) = match raw {
            Field::Given(given) => (given.at, given.value.0.as_slice()),
            Field::Absent => (root, [].as_slice()),
            Field::Wrong => return Vec::new(),
        };
        if named.is_empty() {
            self.missing(
                at,
                "a sink",
                "add [sink.lake] with type = \"kafka\"; `viaduct init` writes an example",
            );
        }
        let sinks: Vec<_> = named.iter().map(|(name, sink)| (name.clone(), self.sink(name, sink))).collect();
        self.no_sharing(named, &sinks);
        let (count, required) =
            (sinks.len(), sinks.iter().flat_map(|(_, sink)| sink).filter(|sink| !sink.required));
        if count > 0 && required.count() == count {
            let message = "no sink is required: events are acknowledged whether or not they are anywhere";
            self.warn(at, message, "write required = true in at least one sink");
        }
        sinks
    }

    fn sink(&mut self, name: &str, raw: &Field<raw::Sink>) -> Option<Sink> {
        let given = raw.given()?;
        let section = Section::new(label(&format!("sink.{name}")), given.at);
        let mut named = self.name(name, given.at, "a sink");
        if name == "none" {
            self.wrong(
                given.at,
                "a sink cannot be called `none`: routes drop events with that word",
                "rename it",
            );
            named = None;
        }
        let (common, kind) = match &given.value {
            raw::Sink::Kafka(sink) => (common!(sink), self.kafka(sink, &section)),
            raw::Sink::Nats(sink) => (common!(sink), self.nats(sink, &section).map(SinkKind::Nats)),
            raw::Sink::File(sink) => (common!(sink), self.file_sink(sink, &section)),
            raw::Sink::Stdout(sink) => (common!(sink), Some(SinkKind::Stdout)),
        };
        let exactly_once = self.exactly_once(&common, &given.value, &section);
        let refused_after = self.refused_after(common.refused_after, &section);
        let require_durable = self.require_durable(common.require_durable, &given.value, &section);
        let required = common.required.or(true);
        Some(Sink {
            name: named?,
            required: required?,
            refused_after: refused_after?,
            require_durable: require_durable?,
            exactly_once,
            kind: kind?,
        })
    }

    /// Whether a sink delivers exactly once, which needs a destination that stores events and progress in one step.
    fn exactly_once(&mut self, common: &Common<'_>, sink: &raw::Sink, section: &Section) -> bool {
        let delivery = common.delivery.given().map(|given| given.value);
        let exactly_once = delivery == Some(raw::Delivery::ExactlyOnce);
        if exactly_once && matches!(sink, raw::Sink::File(_) | raw::Sink::Stdout(_)) {
            self.wrong(
                common.delivery.at(),
                format!(
                    "delivery = \"exactly_once\" in {} cannot be kept: only kafka and nats store events and progress in one step",
                    section.label
                ),
                "write delivery = \"at_least_once\"",
            );
        }
        exactly_once
    }

    /// Files are durable always, stdout never; brokers are asked, except where what is to be created is known not to be.
    fn require_durable(&mut self, field: &Field<bool>, sink: &raw::Sink, section: &Section) -> Option<bool> {
        let demanded = field.or(false)?;
        let Some(given) = field.given().filter(|given| given.value) else { return Some(demanded) };
        let is_one = |field: &Field<i64>| field.given().is_some_and(|given| given.value == 1);
        let creates = |field: &Field<bool>| field.given().is_some_and(|given| given.value);
        match sink {
            raw::Sink::Kafka(sink) if creates(&sink.create_topics) && is_one(&sink.replication_factor) => {
                let message = format!(
                    "`require_durable` in {} refuses the topics that it would create: replication_factor is 1",
                    section.label
                );
                self.wrong(given.at, message, "write replication_factor = 3");
            }
            raw::Sink::Nats(sink)
                if creates(&sink.create_stream)
                    && (is_one(&sink.replicas) || sink.replicas.given().is_none()) =>
            {
                let message = format!(
                    "`require_durable` in {} refuses the stream that it would create: replicas is 1",
                    section.label
                );
                self.wrong(given.at, message, "write replicas = 3, or create the stream yourself");
            }
            raw::Sink::Kafka(_) | raw::Sink::Nats(_) | raw::Sink::File(_) => {}
            raw::Sink::Stdout(_) => {
                let message = format!("`require_durable` in {}: stdout keeps nothing", section.label);
                self.wrong(given.at, message, "remove it, or use type = \"file\"");
            }
        }
        Some(demanded)
    }

    fn refused_after(&mut self, field: &Field<String>, section: &Section) -> Option<RefusedAfter> {
        if field.given().is_some_and(|given| given.value == "never") {
            return Some(RefusedAfter::Never);
        }
        let second = Duration::from_secs(1);
        let range = second..=7 * 24 * 3600 * second;
        self.duration(field, "refused_after", section, 60 * second, range).map(RefusedAfter::After)
    }

    fn kafka(&mut self, raw: &raw::Kafka, section: &Section) -> Option<SinkKind> {
        let servers = self.text(&raw.bootstrap_servers, "bootstrap_servers", section, "\"localhost:9092\"");
        let servers = servers.filter(|servers| {
            let right = servers.value.split(',').all(|server| is_server(server.trim()));
            if !right {
                let message =
                    format!("`bootstrap_servers` in {} must be host:port, comma-separated", section.label);
                self.wrong(servers.at, message, "write bootstrap_servers = \"kafka-1:9092,kafka-2:9092\"");
            }
            right
        });
        let create_topics = raw.create_topics.or(false);
        let partitions = self.of_created(&raw.partitions, "partitions", create_topics, section, 1..=10_000);
        let replicas =
            self.of_created(&raw.replication_factor, "replication_factor", create_topics, section, 1..=100);
        let danger = &raw.danger_accept_invalid_certificates;
        let accept_invalid_certificates = self.accepts_invalid(danger, "the broker", section);
        let properties = self.properties(&raw.properties, section);
        let verified = accept_invalid_certificates != Some(false)
            || self.verifies_certificates(&raw.properties, section);
        let properties = properties.filter(|_| verified);
        Some(SinkKind::Kafka(KafkaOptions {
            bootstrap_servers: servers?.value.split(',').map(str::trim).collect::<Vec<_>>().join(","),
            properties: properties?,
            accept_invalid_certificates: accept_invalid_certificates?,
            create_topics: create_topics?,
            partitions: partitions?,
            replication_factor: replicas?,
        }))
    }

    /// A number that only matters where topics are created; absent: the broker's default.
    fn of_created(
        &mut self,
        field: &Field<i64>,
        key: &str,
        create: Option<bool>,
        section: &Section,
        range: RangeInclusive<i64>,
    ) -> Option<Option<i32>> {
        let Some(given) = field.given() else { return field.or(0).map(|_| None) };
        if create == Some(false) {
            let message = format!("`{key}` in {} has no effect without create_topics = true", section.label);
            self.warn(given.at, message, "add create_topics = true, or remove it");
        }
        let number = self.number(field, key, section, 3, range)?;
        i32::try_from(number).ok().map(Some)
    }

    fn file_sink(&mut self, raw: &raw::File, section: &Section) -> Option<SinkKind> {
        let dir = self.text(&raw.dir, "dir", section, "\"./events\"").map(|dir| PathBuf::from(&dir.value));
        let rotate = self.size(&raw.rotate_size, "rotate_size", section, 64 << 20, 1 << 10..=1 << 40);
        Some(SinkKind::File(FileOptions { dir: dir?, rotate_bytes: rotate? }))
    }

    /// Two sinks must not write to the same files.
    fn no_sharing(&mut self, named: &[(String, Field<raw::Sink>)], sinks: &[NamedSink]) {
        let mut seen = HashSet::new();
        for ((name, raw), (_, sink)) in named.iter().zip(sinks) {
            let (Some(at), Some(sink)) = (raw.given().map(|given| given.at), sink) else { continue };
            let (place, hint) = match &sink.kind {
                SinkKind::File(file) => (Some(file.dir.clone()), "give each its own dir"),
                SinkKind::Stdout => (None, "keep one of them; several routes may use it"),
                SinkKind::Kafka(_) | SinkKind::Nats(_) => continue,
            };
            if !seen.insert(place) {
                let message =
                    format!("{} writes to the same place as another sink", label(&format!("sink.{name}")));
                self.wrong(at, message, hint);
            }
        }
    }
}

/// `host`, `host:port` or `PROTOCOL://host:port`, without credentials.
fn is_server(server: &str) -> bool {
    let address = server.split_once("://").map_or(server, |(_, address)| address);
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') => (host, port.parse::<u16>().is_ok_and(|port| port > 0)),
        _ => (address, true),
    };
    port && !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "@/,\"'".contains(c))
}

/// The hint for a name that is none of the sinks.
pub(super) fn which_sink(name: &str, sinks: &[NamedSink]) -> String {
    match closest(name, sinks.iter().map(|(name, _)| name.as_str())) {
        Some(near) => format!("did you mean `{near}`?"),
        None if sinks.is_empty() => format!("add [sink.{name}]"),
        None => {
            let names: Vec<_> = sinks.iter().map(|(name, _)| name.as_str()).collect();
            format!("the sinks are {}", names.join(", "))
        }
    }
}

impl Checks<'_> {
    /// librdkafka's properties: secrets or plain values; those that break the guarantee are refused.
    fn properties(
        &mut self,
        raw: &Field<Named<Property>>,
        section: &Section,
    ) -> Option<BTreeMap<String, SecretRef>> {
        let named = raw.or(Named(Vec::new()))?;
        let of = format!("{}.properties]", section.label.trim_end_matches(']'));
        let mut right = true;
        let mut properties = BTreeMap::new();
        for (name, field) in &named.0 {
            let Some(Given { value, at }) = field.given() else {
                right = false;
                continue;
            };
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
                let message = format!("`{}` in {of} is no property of librdkafka", name.escape_debug());
                self.wrong(*at, message, "write it like security.protocol");
                right = false;
                continue;
            }
            let text = match &value.0 {
                TextOrReference::Text(text) => Some(text.as_str()),
                TextOrReference::Reference(_) => None,
            };
            for problem in check_properties([(name.as_str(), text)]) {
                let hint = match name.as_str() {
                    "bootstrap.servers" | "metadata.broker.list" => {
                        format!("use bootstrap_servers in {}", section.label)
                    }
                    _ => "remove it".to_owned(),
                };
                self.wrong(*at, format!("`{name}` in {of} {}", problem.why), hint);
                right = false;
            }
            match self.given_secret(&value.0, *at, &format!("`{name}` in {of}")) {
                Some(secret) => drop(properties.insert(name.clone(), secret)),
                None => right = false,
            }
        }
        right.then_some(properties)
    }
}
