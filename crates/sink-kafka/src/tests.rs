//! The sink against a real broker. What it wrote is read by the testkit's own consumer.

mod archive;
mod backpressure;
mod bulk;
mod conformance;
mod exactly_once;
mod invalid;
mod outage;
mod partition;
mod permission;
mod replacement;
mod security;
mod size;
mod topic;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use viaduct_sink::{Batch, Health, HealthWatch, Outcome, Record, RejectReason, Sink};
use viaduct_testkit::kafka::{KafkaBroker, KafkaMessage, create_topic, read_topic};

use crate::{KafkaSettings, KafkaSink};

/// How long anything may take that is not an outage on purpose.
const PATIENCE: Duration = Duration::from_secs(60);

fn shared() -> &'static str {
    KafkaBroker::shared().bootstrap()
}

/// A name that no other test and no earlier run has used: the broker may be one that stays.
fn name(what: &str) -> Arc<str> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let since = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    Arc::from(format!("{what}-{since}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// A topic of that kind.
async fn topic(bootstrap: &str, what: &str, partitions: i32, settings: &[(&str, &str)]) -> Arc<str> {
    let name = name(what);
    create_topic(bootstrap, &name, partitions, settings).await.unwrap();
    name
}

fn settings(bootstrap: &str, properties: &[(&str, &str)]) -> KafkaSettings {
    let mut settings = KafkaSettings::new(bootstrap);
    for (key, value) in properties {
        settings.properties.insert((*key).to_owned(), (*value).to_owned().into());
    }
    settings
}

async fn connect(bootstrap: &str, properties: &[(&str, &str)]) -> Arc<KafkaSink> {
    Arc::new(KafkaSink::connect(settings(bootstrap, properties)).await.unwrap())
}

/// A record whose value is its number, padded to at least `length` bytes that no compression makes small.
fn record(topic: &Arc<str>, key: Option<&str>, number: usize, length: usize) -> Record {
    let mut value = format!("{number} ");
    let mut state = number as u64 + 0x9e37_79b9;
    while value.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        value.push(char::from(b'!' + u8::try_from((state >> 33) % 90).unwrap()));
    }
    Record {
        destination: Arc::clone(topic),
        key: key.map(Arc::from),
        headers: Vec::new(),
        value: Bytes::from(value),
        timestamp_ms: None,
        message_id: Arc::from(number.to_string()),
        event: Arc::from(number.to_string()),
    }
}

fn records(topic: &Arc<str>, key: &str, numbers: std::ops::Range<usize>) -> Vec<Record> {
    numbers.map(|number| record(topic, Some(key), number, 0)).collect()
}

async fn publish(sink: &KafkaSink, records: &[Record]) -> Vec<Outcome> {
    publish_as(sink, "test", records).await
}

async fn publish_as(sink: &KafkaSink, source: &str, records: &[Record]) -> Vec<Outcome> {
    tokio::time::timeout(PATIENCE, sink.publish(Batch { source, records })).await.expect("outcomes in time")
}

/// Offers the records as the bridge does, again those that come back for it. Gives the final outcomes, and the reasons
/// of the retries.
async fn settle(sink: &KafkaSink, records: &[Record]) -> (Vec<Outcome>, Vec<&'static str>) {
    settle_as(sink, "test", records).await
}

async fn settle_as(sink: &KafkaSink, source: &str, records: &[Record]) -> (Vec<Outcome>, Vec<&'static str>) {
    let deadline = Instant::now() + PATIENCE;
    let mut fates: Vec<Option<Outcome>> = vec![None; records.len()];
    let mut open: Vec<usize> = (0..records.len()).collect();
    let mut reasons = Vec::new();
    while !open.is_empty() {
        let offer: Vec<Record> = open.iter().map(|&index| records[index].clone()).collect();
        let mut pause = Duration::ZERO;
        let mut again = Vec::new();
        for (index, outcome) in open.into_iter().zip(publish_as(sink, source, &offer).await) {
            if let Outcome::Retry(retry) = &outcome {
                assert!(Instant::now() < deadline, "still to be retried: {}", retry.detail);
                reasons.push(retry.reason);
                pause = pause.max(retry.after);
                again.push(index);
            }
            fates[index] = Some(outcome);
        }
        open = again;
        tokio::time::sleep(pause).await;
    }
    (fates.into_iter().map(Option::unwrap).collect(), reasons)
}

async fn confirm(sink: &KafkaSink, records: &[Record]) -> Vec<&'static str> {
    confirm_as(sink, "test", records).await
}

async fn confirm_as(sink: &KafkaSink, source: &str, records: &[Record]) -> Vec<&'static str> {
    let (outcomes, reasons) = settle_as(sink, source, records).await;
    for (record, outcome) in records.iter().zip(outcomes) {
        assert!(matches!(outcome, Outcome::Confirmed(_)), "{}: {outcome:?}", record.message_id);
    }
    reasons
}

fn rejected(outcome: &Outcome) -> Option<RejectReason> {
    match outcome {
        Outcome::Rejected(rejection) => Some(rejection.reason),
        _ => None,
    }
}

/// The numbers of the stored records with this key, in the order in which they stand.
fn numbers(stored: &[KafkaMessage], key: Option<&str>) -> Vec<usize> {
    stored
        .iter()
        .filter(|message| message.key.as_deref() == key.map(str::as_bytes))
        .map(|message| {
            let value = String::from_utf8(message.value.clone().unwrap()).unwrap();
            value.split(' ').next().unwrap().parse().unwrap()
        })
        .collect()
}

async fn stored(bootstrap: &str, topic: &str, key: Option<&str>) -> Vec<usize> {
    numbers(&read_topic(bootstrap, topic).await.unwrap(), key)
}

async fn wait_until(health: &mut HealthWatch, what: &str, wanted: impl Fn(&Health) -> bool) -> Health {
    let found = tokio::time::timeout(PATIENCE, health.wait_for(|health| wanted(health)));
    let found = found.await.ok().map(|health| health.unwrap().clone());
    found.unwrap_or_else(|| panic!("the health is never {what}: {:?}", *health.borrow()))
}
