//! Records, sinks and streams of these tests, and waiting for things to become true.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::Config;
use bytes::Bytes;
use viaduct_sink::outcome::Position;
use viaduct_sink::{
    Attribute, Batch, Header, HeaderName, Identity, Member, Outcome, Owner, Record, Refusal, Sink,
};
use viaduct_sink_nats::{NatsSettings, NatsSink};
use viaduct_testkit::nats::{NatsServer, StoredMessage};

/// How long these tests wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A stream's name that no other test of this run or of an earlier one has.
pub(crate) fn stream_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    format!("T{now}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A record number `number` of a key. The value tells both.
pub(crate) fn record(subject: &str, key: Option<&str>, number: usize) -> Record {
    let key_text = key.unwrap_or("none");
    Record {
        destination: subject.into(),
        key: key.map(Into::into),
        headers: vec![Header {
            name: HeaderName::CloudEvent(Attribute::Id),
            value: number.to_string().into(),
        }],
        value: Bytes::from(format!("{{\"key\":\"{key_text}\",\"number\":{number}}}")),
        timestamp_ms: None,
        message_id: format!("acme.{key_text}.{number}").into(),
        event: format!("acme.{key_text}.{number}").into(),
    }
}

/// A stream of its own on a server, and the sink's settings for it.
pub(crate) fn settings(url: &str, stream: &str) -> NatsSettings {
    let mut settings = NatsSettings::new(vec![url.to_owned()], stream);
    settings.create_stream = true;
    settings.subjects = vec![format!("{stream}.>")];
    settings
}

/// A process with exactly-once delivery, an owner of its own.
pub(crate) fn identity(sources: &[&str]) -> Identity {
    Identity {
        bridge: "viaduct".to_owned(),
        sink: "bus".to_owned(),
        owner: Owner::random(),
        sources: sources.iter().map(|source| Member { source: (*source).into(), remember: 20_000 }).collect(),
    }
}

/// A sink with a stream of its own on the shared server.
pub(crate) async fn sink() -> (NatsSink, String) {
    let stream = stream_name();
    let sink = NatsSink::connect(settings(NatsServer::shared().url(), &stream)).await.unwrap();
    (sink, stream)
}

/// Makes a stream behind the sink's back.
pub(crate) async fn make_stream(url: &str, config: Config) {
    let client = async_nats::connect(url).await.unwrap();
    async_nats::jetstream::new(client).create_stream(config).await.unwrap();
}

/// Publishes with a deadline.
pub(crate) async fn publish(sink: &dyn Sink, records: &[Record]) -> Vec<Outcome> {
    let outcomes = tokio::time::timeout(PATIENCE, sink.publish(Batch { source: "main", records })).await;
    let outcomes = outcomes.expect("the batch is not settled in time");
    assert_eq!(outcomes.len(), records.len());
    outcomes
}

/// The stream sequence of a confirmed record.
pub(crate) fn sequence(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Confirmed(receipt) => match receipt.position() {
            Position::Stream { sequence, .. } => sequence,
            other => panic!("not a stream's position: {other:?}"),
        },
        other => panic!("not confirmed: {other:?}"),
    }
}

/// The refusal of a record that is to be offered again.
pub(crate) fn refusal(outcome: &Outcome) -> Option<Refusal> {
    match outcome {
        Outcome::Retry(retry) => retry.refusal,
        other => panic!("not a retry: {other:?}"),
    }
}

/// Waits until the health is up or down and gives its reason.
pub(crate) async fn health(sink: &dyn Sink, up: bool) -> String {
    let mut health = sink.health();
    let state = tokio::time::timeout(PATIENCE, health.wait_for(|state| state.up == up)).await;
    state.expect("the health does not change").unwrap().reason.clone()
}

/// Waits until the reason of being down contains `text`.
pub(crate) async fn down_because(sink: &dyn Sink, text: &str) {
    let mut health = sink.health();
    let wait = health.wait_for(|state| !state.up && state.reason.contains(text));
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        panic!("not down because of {text:?} but {:?}", sink.health().borrow());
    }
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Checks that every record is there, and that the first appearances of each key's records stand in order. Gives the
/// number of records that stand there more than once.
pub(crate) fn assert_ordered(messages: &[StoredMessage], expected: &HashMap<String, usize>) -> usize {
    let mut seen = HashSet::new();
    let mut next: HashMap<String, usize> = HashMap::new();
    let mut duplicates = 0;
    for message in messages {
        let value: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
        let key = value["key"].as_str().unwrap().to_owned();
        let number = usize::try_from(value["number"].as_u64().unwrap()).unwrap();
        if !seen.insert((key.clone(), number)) {
            duplicates += 1;
            continue;
        }
        let next = next.entry(key.clone()).or_insert(0);
        assert_eq!(number, *next, "key {key} is out of order at sequence {}", message.sequence);
        *next += 1;
    }
    assert_eq!(&next, expected, "records are missing");
    duplicates
}
