//! Making records whose values name them, and offering them the way the bridge does.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Harness, Observed};
use crate::{Batch, Outcome, Record, Sink};

/// How long a destination that is not broken may take to settle what it was offered.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// A record whose value says which check, source, key and number it is, as one line of JSON.
pub(super) fn record(
    destination: &Arc<str>,
    check: &str,
    source: &str,
    key: Option<&str>,
    number: usize,
) -> Record {
    let name = format!("{check}.{source}.{}.{number}", key.unwrap_or("-"));
    Record {
        destination: Arc::clone(destination),
        key: key.map(Arc::from),
        headers: Vec::new(),
        value: Bytes::from(format!(
            r#"{{"check":"{check}","source":"{source}","key":"{}","number":{number}}}"#,
            key.unwrap_or("-")
        )),
        timestamp_ms: Some(1_700_000_000_000),
        message_id: Arc::from(&*name),
        event: Arc::from(name),
    }
}

/// One call of the sink, with the rules that hold for every call.
pub(super) async fn publish(sink: &dyn Sink, source: &str, records: &[Record]) -> Vec<Outcome> {
    let outcomes = sink.publish(Batch { source, records }).await;
    assert_eq!(
        outcomes.len(),
        records.len(),
        "one outcome per record: {} records got {} outcomes",
        records.len(),
        outcomes.len()
    );
    let mut waiting = HashSet::new();
    for (record, outcome) in records.iter().zip(&outcomes) {
        let Some(key) = &record.key else { continue };
        match outcome {
            Outcome::Retry(_) => {
                waiting.insert((&record.destination, key));
            }
            Outcome::Confirmed(_) => assert!(
                !waiting.contains(&(&record.destination, key)),
                "order: {} was confirmed behind a record of the same destination and key that has to be retried",
                record.message_id
            ),
            Outcome::Rejected(_) | Outcome::Fatal(_) => {}
        }
    }
    outcomes
}

/// Offers the records, and again those that come back for it, until the fate of each is known.
pub(super) async fn settle(sink: &dyn Sink, source: &str, records: &[Record]) -> Vec<Outcome> {
    let deadline = Instant::now() + PATIENCE;
    let mut fates: Vec<Option<Outcome>> = vec![None; records.len()];
    let mut open: Vec<usize> = (0..records.len()).collect();
    while !open.is_empty() {
        let offer: Vec<Record> = open.iter().map(|&index| records[index].clone()).collect();
        let outcomes = timeout_at(deadline, publish(sink, source, &offer)).await.unwrap_or_else(|_| {
            panic!("{} records of {source} have no outcome after {PATIENCE:?}", offer.len())
        });
        let mut pause = Duration::ZERO;
        let mut again = Vec::new();
        for (index, outcome) in open.into_iter().zip(outcomes) {
            if let Outcome::Retry(retry) = &outcome {
                assert!(
                    Instant::now() < deadline,
                    "still to be retried after {PATIENCE:?}: {}",
                    retry.detail
                );
                pause = pause.max(retry.after);
                again.push(index);
            }
            fates[index] = Some(outcome);
        }
        open = again;
        if !open.is_empty() {
            sleep(pause).await;
        }
    }
    fates.into_iter().map(|fate| fate.expect("every index was offered at least once")).collect()
}

/// Offers records that have nothing wrong: each has to be confirmed.
pub(super) async fn confirm(sink: &dyn Sink, source: &str, records: &[Record]) {
    for (record, outcome) in records.iter().zip(settle(sink, source, records).await) {
        assert!(
            matches!(outcome, Outcome::Confirmed(_)),
            "{} was not confirmed: {outcome:?}",
            record.message_id
        );
    }
}

/// Whether a record may stand in the destination more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copies {
    /// Exactly one copy: nothing went wrong on the way.
    One,
    /// At least one: it was offered again or was under way when the destination went.
    OneOrMore,
}

/// Reads every destination of `records` and checks that each stands there and that the first copies of one key stand
/// in the order of `records`. Returns what was read, by destination.
pub(super) async fn verify(
    harness: &dyn Harness,
    records: &[Record],
    copies: Copies,
) -> HashMap<Arc<str>, Vec<Observed>> {
    let mut read = HashMap::new();
    for record in records {
        if !read.contains_key(&record.destination) {
            read.insert(Arc::clone(&record.destination), harness.read(&record.destination).await);
        }
    }
    for (destination, found) in &read {
        let mut first: HashMap<&[u8], usize> = HashMap::new();
        let mut count: HashMap<&[u8], usize> = HashMap::new();
        for (place, observed) in found.iter().enumerate() {
            first.entry(&observed.value).or_insert(place);
            *count.entry(&observed.value).or_default() += 1;
        }
        let mut last: HashMap<&str, (usize, &str)> = HashMap::new();
        for record in records.iter().filter(|record| record.destination == *destination) {
            let name: &str = &record.message_id;
            let Some(&place) = first.get(&*record.value) else {
                panic!("lost: {name} was confirmed and does not stand in {destination}");
            };
            let copies_found = count[&*record.value];
            assert!(
                copies == Copies::OneOrMore || copies_found == 1,
                "twice: {name} stands {copies_found} times in {destination}"
            );
            let Some(key) = record.key.as_deref() else { continue };
            if let Some((before, earlier)) = last.insert(key, (place, name)) {
                assert!(before < place, "order: {name} stands before {earlier} in {destination}, key {key}");
            }
        }
    }
    read
}
