//! Abandoned publishes, and the end of a sink.

use std::task::Poll;
use std::time::Duration;

use tokio::time::timeout;

use super::Harness;
use super::offer::{Copies, confirm, record, verify};
use crate::{Batch, Record};

/// Dropping a publish abandons its batch and nothing else: what is confirmed afterwards is there, in order, and of the
/// abandoned records nothing but whole ones.
///
/// # Panics
///
/// When the sink breaks the rule.
pub async fn dropped_publish(harness: &dyn Harness) {
    let sink = harness.sink();
    let destination = harness.destination(50).await;
    let mut kept = Vec::new();
    let mut abandoned = Vec::new();
    for round in 0..6 {
        let records: Vec<Record> = (0..200)
            .map(|number| record(&destination, "dropped", "abandoned", Some("k"), round * 200 + number))
            .collect();
        let mut publish = sink.publish(Batch { source: "dropped", records: &records });
        if round % 2 == 0 {
            // Given up right after its first step.
            std::future::poll_fn(|context| {
                let _ = publish.as_mut().poll(context);
                Poll::Ready(())
            })
            .await;
        } else {
            // Given up somewhere on the way, or just done.
            let _ = timeout(Duration::from_micros(500 * round as u64), publish.as_mut()).await;
        }
        drop(publish);
        abandoned.extend(records);

        let next: Vec<Record> = (0..50)
            .map(|number| record(&destination, "dropped", "kept", Some("k"), round * 50 + number))
            .collect();
        confirm(&*sink, "dropped", &next).await;
        kept.extend(next);
    }
    let found = &verify(harness, &kept, Copies::One).await[&destination];
    for observed in found {
        assert!(
            kept.iter().chain(&abandoned).any(|record| record.value == observed.value),
            "abandoned: something that nobody published stands in {destination}: {} bytes",
            observed.value.len()
        );
    }
}

/// Closing flushes, and closing again does nothing.
///
/// # Panics
///
/// When the sink breaks the rule.
pub async fn close(harness: &dyn Harness) {
    let sink = harness.sink();
    let destination = harness.destination(60).await;
    let records: Vec<Record> =
        (0..100).map(|number| record(&destination, "close", "one", Some("k"), number)).collect();
    confirm(&*sink, "close", &records).await;
    for time in ["first", "second"] {
        timeout(Duration::from_secs(30), sink.close())
            .await
            .unwrap_or_else(|_| panic!("close: the {time} close does not return"));
    }
    verify(harness, &records, Copies::One).await;
}
