//! Order, and one outcome per record.

use crate::{Outcome, Record};

use super::Harness;
use super::offer::{Copies, confirm, publish, record, verify};

const KEYS: [Option<&str>; 5] = [Some("k1"), Some("k2"), Some("ключ-3"), Some("4"), None];

/// As many outcomes as records, in batches of several sizes.
///
/// # Panics
///
/// When the sink breaks the rule.
pub async fn one_outcome_per_record(harness: &dyn Harness) {
    let sink = harness.sink();
    let destinations = [harness.destination(0).await, harness.destination(1).await];
    let mut all = Vec::new();
    for size in [1, 2, 7, 300] {
        let records: Vec<Record> = (0..size)
            .map(|number| {
                record(
                    &destinations[number % 2],
                    "outcomes",
                    &format!("s{size}"),
                    KEYS[number % KEYS.len()],
                    number,
                )
            })
            .collect();
        let outcomes = publish(&*sink, "outcomes", &records).await;
        let again: Vec<Record> = records
            .iter()
            .zip(&outcomes)
            .filter(|(_, outcome)| matches!(outcome, Outcome::Retry(_)))
            .map(|(record, _)| record.clone())
            .collect();
        confirm(&*sink, "outcomes", &again).await;
        all.extend(records);
    }
    verify(harness, &all, Copies::One).await;
}

/// Records of one source and key stand in the order of publishing, over batches and in each destination; nothing is
/// lost and nothing stands twice.
///
/// # Panics
///
/// When the sink breaks the rule.
pub async fn order_per_key(harness: &dyn Harness) {
    let sink = harness.sink();
    let mut destinations = Vec::new();
    for n in 10..13 {
        destinations.push(harness.destination(n).await);
    }
    let mut all = Vec::new();
    for batch in 0..6 {
        let records: Vec<Record> = (0..200)
            .map(|place| {
                let number = batch * 200 + place;
                record(&destinations[number % 3], "order", "one", KEYS[(number / 3) % KEYS.len()], number)
            })
            .collect();
        confirm(&*sink, "order", &records).await;
        all.extend(records);
    }
    verify(harness, &all, Copies::One).await;
}

/// Sources that publish into the same destination at the same time keep their own order each.
///
/// # Panics
///
/// When the sink breaks the rule.
pub async fn concurrent_sources(harness: &dyn Harness) {
    let destination = harness.destination(20).await;
    let batches = |source: usize| -> Vec<Vec<Record>> {
        let source = format!("s{source}");
        let key = format!("key-of-{source}");
        (0..5)
            .map(|batch| {
                let numbers = batch * 40..(batch + 1) * 40;
                numbers
                    .map(|number| record(&destination, "concurrent", &source, Some(&key), number))
                    .collect()
            })
            .collect()
    };
    let mut sources = tokio::task::JoinSet::new();
    for source in 0..8 {
        let (sink, batches) = (harness.sink(), batches(source));
        sources.spawn(async move {
            for batch in batches {
                confirm(&*sink, &format!("concurrent-{source}"), &batch).await;
            }
        });
    }
    while let Some(ended) = sources.join_next().await {
        if let Err(failure) = ended {
            std::panic::resume_unwind(failure.into_panic());
        }
    }
    let all: Vec<Record> = (0..8).flat_map(|source| batches(source).into_iter().flatten()).collect();
    verify(harness, &all, Copies::One).await;
}
