//! Records that the destination can never take, among others that it can.

use std::sync::Arc;

use bytes::Bytes;

use super::Harness;
use super::offer::{Copies, record, settle, verify};
use crate::{Outcome, Record, RejectReason};

/// A record that is too large or has no possible destination is rejected with that reason; the records around it are
/// confirmed and keep their order.
///
/// # Panics
///
/// When the sink breaks the rule.
pub async fn rejected_record_holds_nobody_back(harness: &dyn Harness) {
    let destination = harness.destination(40).await;
    if let Some(length) = harness.too_large() {
        let bad = |good: Record| Record { value: Bytes::from(vec![b'x'; length]), ..good };
        check(harness, &destination, "large", RejectReason::TooLarge, bad).await;
    }
    if let Some(invalid) = harness.invalid_destination() {
        let bad = |good: Record| Record { destination: Arc::clone(&invalid), ..good };
        check(harness, &destination, "invalid", RejectReason::InvalidDestination, bad).await;
    }
}

/// Three batches, so that a rejection is also met when it is not the first of its kind.
async fn check(
    harness: &dyn Harness,
    destination: &Arc<str>,
    kind: &str,
    expected: RejectReason,
    spoil: impl Fn(Record) -> Record,
) {
    let sink = harness.sink();
    let mut good = Vec::new();
    for batch in 0..3 {
        let bad_places = [0, 10, 11, 29];
        let records: Vec<Record> = (0..30)
            .map(|place| {
                let record = record(destination, "rejection", kind, Some("k"), batch * 30 + place);
                if bad_places.contains(&place) { spoil(record) } else { record }
            })
            .collect();
        for (place, outcome) in settle(&*sink, "rejection", &records).await.into_iter().enumerate() {
            let name = &records[place].message_id;
            match outcome {
                Outcome::Rejected(rejection) if bad_places.contains(&place) => assert_eq!(
                    rejection.reason, expected,
                    "rejection: {name} was rejected for another reason: {}",
                    rejection.detail
                ),
                Outcome::Confirmed(_) if !bad_places.contains(&place) => good.push(records[place].clone()),
                outcome => panic!("rejection: {name} of a batch with {kind} records in it got {outcome:?}"),
            }
        }
    }
    verify(harness, &good, Copies::OneOrMore).await;
}
