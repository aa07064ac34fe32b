//! Records that a topic refuses, among others that it takes.

use viaduct_sink::{Outcome, RejectReason};

use super::{exactly_once, start};
use crate::tests::{name, record, rejected, settle_as, shared, stored, topic};

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_is_rejected_and_its_neighbours_are_not() {
    let bootstrap = shared();
    let topic = topic(bootstrap, "large", 1, &[("max.message.bytes", "20000")]).await;
    let sink = start(exactly_once(bootstrap, &name("bridge"), &["a"], 1)).await;
    for batch in 0..3 {
        let is_large = |number: usize| [3, 50, 51, 99].contains(&(number % 100));
        let numbers = batch * 100..(batch + 1) * 100;
        let records: Vec<_> = numbers
            .clone()
            .map(|number| record(&topic, Some("k"), number, if is_large(number) { 25_000 } else { 100 }))
            .collect();
        let (outcomes, _) = settle_as(&sink, "a", &records).await;
        for (number, outcome) in numbers.zip(&outcomes) {
            if is_large(number) {
                assert_eq!(rejected(outcome), Some(RejectReason::TooLarge), "{number}: {outcome:?}");
            } else {
                assert!(matches!(outcome, Outcome::Confirmed(_)), "{number}: {outcome:?}");
            }
        }
    }
    let good: Vec<usize> = (0..300).filter(|number| ![3, 50, 51, 99].contains(&(number % 100))).collect();
    assert_eq!(stored(bootstrap, &topic, Some("k")).await, good);
}
