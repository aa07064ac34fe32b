//! Opens the configured sinks.

use std::path::Path;
use std::sync::Arc;

use viaduct_sink::{Identity, Member, Owner, Sink};
use viaduct_sink_file::{FileSettings, FileSink, StdoutSink};
use viaduct_sink_kafka::{KafkaSettings, KafkaSink};
use viaduct_sink_nats::{self as nats, NatsSettings, NatsSink};

use super::SinkHandle;
use crate::checkpoints::remembered;
use crate::config::{
    self, Config, DeadLetter, FileOptions, KafkaOptions, NatsAuth, NatsOptions, RefusedAfter, SecretRef,
    SinkIndex, SinkKind, Target, Template,
};
use crate::danger;
use crate::exit::{Exit, Failure};
use crate::routing::{Naming, prefix};

/// Which names a sink of this kind allows.
pub(crate) fn naming(kind: &SinkKind) -> Naming {
    match kind {
        SinkKind::Kafka(_) => Naming::Kafka,
        SinkKind::Nats(_) => Naming::Nats,
        SinkKind::File(_) | SinkKind::Stdout => Naming::File,
    }
}

/// Opens a configured sink for the process `owner`. An unreachable system is no error: the sink waits for it.
///
/// # Errors
/// 78 for settings that the sink's client refuses.
pub(crate) async fn open(
    config: &Config,
    index: SinkIndex,
    owner: &Owner,
) -> Result<Arc<SinkHandle>, Failure> {
    let sink = config.sink(index);
    let identity = sink.exactly_once.then(|| identity(config, sink, owner));
    let opened: Arc<dyn Sink> = match &sink.kind {
        SinkKind::Kafka(options) => Arc::new(open_kafka(config, index, options, identity).await?),
        SinkKind::Nats(options) => Arc::new(open_nats(config, index, options, identity).await?),
        SinkKind::File(options) => Arc::new(open_file(&sink.name, options)?),
        SinkKind::Stdout => Arc::new(StdoutSink::new()),
    };
    Ok(SinkHandle::new(&sink.name, sink.required, sink.refused_after, opened))
}

/// Who publishes to an exactly-once sink, and for which sources.
pub(crate) fn identity(config: &Config, sink: &config::Sink, owner: &Owner) -> Identity {
    let members = config.sources.iter().map(|source| Member {
        source: source.name.as_str().into(),
        remember: remembered(source.max_in_flight),
    });
    Identity {
        bridge: config.bridge.name.clone(),
        sink: sink.name.clone(),
        owner: owner.clone(),
        sources: members.collect(),
    }
}

/// The name under which the local dead-letter file shows in metrics and logs.
const LOCAL_DEAD_LETTERS: &str = "local-dead-letters";

/// Opens the local dead-letter file.
///
/// # Errors
/// 78 where it cannot be opened.
pub(crate) fn local_dead_letters(
    directory: &Path,
    refused_after: RefusedAfter,
) -> Result<Arc<SinkHandle>, Failure> {
    let sink =
        FileSink::open(FileSettings::new(directory)).map_err(|error| refused(LOCAL_DEAD_LETTERS, &error))?;
    Ok(SinkHandle::new(LOCAL_DEAD_LETTERS, true, refused_after, Arc::new(sink)))
}

/// A sink whose settings its client refuses.
pub(crate) fn refused(sink: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        Exit::Config,
        format!("sink {sink} cannot be opened: {error}"),
        format!("correct [sink.{sink}]"),
    )
}

fn open_file(name: &str, options: &FileOptions) -> Result<FileSink, Failure> {
    let mut settings = FileSettings::new(&options.dir);
    settings.rotate_bytes = Some(options.rotate_bytes);
    FileSink::open(settings).map_err(|error| refused(name, &error))
}

async fn open_kafka(
    config: &Config,
    index: SinkIndex,
    options: &KafkaOptions,
    identity: Option<Identity>,
) -> Result<KafkaSink, Failure> {
    let name = &config.sink(index).name;
    let settings = kafka_settings(config, index, options, identity)?;
    KafkaSink::connect(settings).await.map_err(|error| refused(name, &error))
}

/// What the sink's client is made of.
///
/// # Errors
/// 78 for a property that cannot be read.
pub(crate) fn kafka_settings(
    config: &Config,
    index: SinkIndex,
    options: &KafkaOptions,
    identity: Option<Identity>,
) -> Result<KafkaSettings, Failure> {
    let sink = config.sink(index);
    let mut settings = KafkaSettings::new(&options.bootstrap_servers);
    settings.client_id = format!("{}.{}", config.bridge.name, sink.name);
    for (key, value) in &options.properties {
        let value = value.read().map_err(|error| refused(&sink.name, &format!("property {key}: {error}")))?;
        settings.properties.insert(key.clone(), value);
    }
    if options.accept_invalid_certificates {
        settings.properties.insert(danger::KAFKA_VERIFICATION.to_owned(), "false".to_owned().into());
    }
    settings.create_topics = options.create_topics;
    settings.partitions = options.partitions;
    settings.replication_factor = options.replication_factor;
    settings.exactly_once = identity;
    settings.shards = config.bridge.shards;
    settings.require_durable = sink.require_durable;
    Ok(settings)
}

async fn open_nats(
    config: &Config,
    index: SinkIndex,
    options: &NatsOptions,
    identity: Option<Identity>,
) -> Result<NatsSink, Failure> {
    let settings = nats_settings(config, index, options, identity);
    NatsSink::connect(settings).await.map_err(|error| refused(&config.sink(index).name, &error))
}

/// What the sink's client is made of.
pub(crate) fn nats_settings(
    config: &Config,
    index: SinkIndex,
    options: &NatsOptions,
    identity: Option<Identity>,
) -> NatsSettings {
    let sink = config.sink(index);
    let urls = options.urls.iter().map(ToString::to_string).collect();
    let mut settings = NatsSettings::new(urls, &options.stream);
    settings.name = format!("{}.{}", config.bridge.name, sink.name);
    settings.auth = match &options.auth {
        NatsAuth::Anonymous => nats::NatsAuth::None,
        NatsAuth::Credentials(text) => nats::NatsAuth::Credentials(nats_secret(text)),
        NatsAuth::Nkey(seed) => nats::NatsAuth::Nkey(nats_secret(seed)),
        NatsAuth::UserPassword { user, password } => {
            nats::NatsAuth::UserPassword { user: user.clone(), password: nats_secret(password) }
        }
        NatsAuth::Token(token) => nats::NatsAuth::Token(nats_secret(token)),
    };
    settings.tls.required = options.tls.required;
    settings.tls.first = options.tls.first;
    settings.tls.authorities = options.tls.ca.clone();
    settings.tls.verifier = options.tls.accept_invalid_certificates.then(danger::accept_any);
    settings.tls.client =
        options.tls.client.as_ref().map(|client| (client.certificate.clone(), client.key.clone()));
    settings.create_stream = options.create_stream;
    settings.replicas = options.replicas;
    settings.exactly_once = identity;
    settings.require_durable = sink.require_durable;
    settings.subjects = subjects(config, index);
    settings
}

/// Read again at every connection, so that a rotated file takes effect.
fn nats_secret(reference: &SecretRef) -> nats::Secret {
    let reference = reference.clone();
    nats::Secret::reading(move || reference.read().map_err(|error| error.to_string()))
}

/// The subjects that a stream has to cover for everything that is routed to this sink.
fn subjects(config: &Config, index: SinkIndex) -> Vec<String> {
    let routes = config.routes.iter().filter_map(|route| match &route.target {
        Target::Sink { sink, to, .. } if *sink == index => Some(to),
        Target::Sink { .. } | Target::Drop => None,
    });
    let dead_letters = match &config.dead_letter {
        DeadLetter::Sink { sink, to } if *sink == index => Some(to),
        DeadLetter::Sink { .. } | DeadLetter::LocalFile => None,
    };
    let mut subjects: Vec<String> = Vec::new();
    for template in routes.chain(dead_letters) {
        for source in &config.sources {
            let subject = covering(template, &source.org_id, &source.name);
            if !subjects.contains(&subject) {
                subjects.push(subject);
            }
        }
    }
    let all = subjects.clone();
    subjects.retain(|subject| !all.iter().any(|other| other != subject && covers(other, subject)));
    subjects
}

/// The narrowest subject that covers whatever the template becomes: its literal tokens up to the first field that an
/// event decides, then `>`.
fn covering(template: &Template, org: &str, source: &str) -> String {
    let (known, is_whole) = prefix(template, Naming::Nats, source, org);
    if is_whole {
        return known;
    }
    let tokens = known.rfind('.').map_or("", |dot| &known[..=dot]);
    format!("{tokens}>")
}

/// Whether the filter `wide` (exact, or ending in `>`) takes every subject of `narrow`.
fn covers(wide: &str, narrow: &str) -> bool {
    wide.strip_suffix('>').is_some_and(|prefix| narrow.starts_with(prefix) && narrow.len() > prefix.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_covers_what_its_templates_can_become() {
        let covering = |text: &str| covering(&Template::parse(text).unwrap(), "acme", "main");
        assert_eq!(covering("via.{org}.{category}.{name}"), "via.acme.>");
        assert_eq!(covering("via.events-{category}.x"), "via.>");
        assert_eq!(covering("via.{source}.all"), "via.main.all");
        assert_eq!(covering("{category}"), ">");
    }

    #[test]
    fn a_wider_subject_makes_a_narrower_one_superfluous() {
        assert!(covers("via.>", "via.acme.>"));
        assert!(covers("via.>", "via.x"));
        assert!(!covers("via.acme.>", "via.>"));
        assert!(!covers("via.x", "via.x"));
    }
}
