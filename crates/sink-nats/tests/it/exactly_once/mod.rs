//! Exactly-once delivery on real servers. Each test ends by reading the stream with a client of its own: every record
//! once, in the order of its key, and one checkpoint per source.

mod batches;
mod cluster;
mod faults;
mod ownership;
mod refusals;
mod streams;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use viaduct_sink::outcome::Position;
use viaduct_sink::{Batch, Checkpoint, Outcome, Record, Sink};
use viaduct_sink_nats::{NatsSettings, NatsSink};
use viaduct_testkit::nats::{StoredMessage, read_stream};

use crate::support::*;

pub(crate) const CHECKPOINTS: &str = "_viaduct.checkpoint.viaduct.bus.";

/// The settings of one process that publishes for `sources`.
fn process(url: &str, stream: &str, sources: &[&str]) -> NatsSettings {
    let mut settings = settings(url, stream);
    settings.exactly_once = Some(identity(sources));
    settings
}

async fn connect(settings: NatsSettings) -> Arc<NatsSink> {
    Arc::new(NatsSink::connect(settings).await.unwrap())
}

fn records(subject: &str, key: &str, numbers: std::ops::Range<usize>) -> Vec<Record> {
    numbers.map(|number| record(&format!("{subject}.s{}", number % 3), Some(key), number)).collect()
}

/// The position of a confirmed record.
fn position(outcome: &Outcome) -> Position {
    match outcome {
        Outcome::Confirmed(receipt) => receipt.position(),
        other => panic!("not confirmed: {other:?}"),
    }
}

fn held(outcomes: &[Outcome]) -> usize {
    outcomes.iter().filter(|outcome| position(outcome) == Position::Held).count()
}

/// Offers the records until each is confirmed.
async fn settle(sink: &dyn Sink, source: &str, records: &[Record]) {
    let deadline = std::time::Instant::now() + 3 * PATIENCE;
    let mut open = records.to_vec();
    while !open.is_empty() {
        assert!(std::time::Instant::now() < deadline, "{} records are not confirmed", open.len());
        let offered = sink.publish(Batch { source, records: &open });
        let outcomes = tokio::time::timeout(3 * PATIENCE, offered).await.expect("no outcome in time");
        let mut fates = outcomes.iter();
        open.retain(|_| match fates.next().unwrap() {
            Outcome::Confirmed(_) => false,
            Outcome::Retry(retry) => {
                assert_eq!(retry.refusal, None, "nothing is to be mended: {}", retry.detail);
                true
            }
            other => panic!("neither confirmed nor to be offered again: {other:?}"),
        });
    }
}

/// Reads the stream: each key's records once and in order, and one checkpoint for each source. Gives the checkpoints.
async fn verify(
    url: &str,
    stream: &str,
    expected: &HashMap<String, usize>,
    sources: &[&str],
) -> HashMap<String, Checkpoint> {
    let stored = read_stream(url, stream).await.unwrap();
    verify_messages(stored, expected, sources)
}

fn verify_messages(
    stored: Vec<StoredMessage>,
    expected: &HashMap<String, usize>,
    sources: &[&str],
) -> HashMap<String, Checkpoint> {
    let (checkpoints, events): (Vec<_>, Vec<_>) =
        stored.into_iter().partition(|message| message.subject.starts_with(CHECKPOINTS));
    assert_eq!(assert_ordered(&events, expected), 0, "records stand there twice");
    assert!(events.iter().all(|message| message.header("Nats-Msg-Id").is_none()));
    // `<source>`, or `<source>.<page>`.
    let place = |message: &StoredMessage| message.subject.trim_start_matches(CHECKPOINTS).to_owned();
    let pages: HashMap<String, Bytes> =
        checkpoints.iter().map(|message| (place(message), message.payload.clone())).collect();
    let mut found = HashMap::new();
    for message in checkpoints.iter().filter(|message| !place(message).contains('.')) {
        let source = place(message);
        let page = |page: u32| pages.get(&format!("{source}.{page}")).cloned();
        let checkpoint = Checkpoint::decode(&message.payload, page).unwrap();
        assert!(found.insert(source.clone(), checkpoint).is_none(), "{source} has more than one checkpoint");
    }
    let mut names: Vec<&str> = found.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, sources, "one checkpoint per source");
    found
}

fn counts<const N: usize>(counts: [(&str, usize); N]) -> HashMap<String, usize> {
    counts.into_iter().map(|(key, count)| (key.to_owned(), count)).collect()
}
