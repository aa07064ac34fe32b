//! Records that a topic refuses, among others that it takes.

use viaduct_sink::{Outcome, RejectReason};

use super::{exactly_once, start};
use crate::tests::{
    confirm_as, name, publish_as, record, records, rejected, settle_as, shared, stored, topic,
};

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

/// Records without a key are refused by a compacted topic, one by one and by name; others of the same transaction are redone.
#[tokio::test(flavor = "multi_thread")]
async fn the_poison_of_one_source_fails_no_other() {
    let bootstrap = shared();
    let poisoned = topic(bootstrap, "compacted", 1, &[("cleanup.policy", "compact")]).await;
    let good = topic(bootstrap, "bystander", 3, &[]).await;
    let sink = start(exactly_once(bootstrap, &name("bridge"), &["a", "b"], 1)).await;
    let bystander = tokio::spawn({
        let (sink, good) = (sink.clone(), good.clone());
        async move {
            for batch in 0..10 {
                let reasons =
                    confirm_as(&sink, "b", &records(&good, "b", batch * 10..(batch + 1) * 10)).await;
                assert!(reasons.is_empty(), "{reasons:?}");
            }
        }
    });
    for batch in 0..3 {
        let is_bad = |number: usize| number % 10 == 5;
        let numbers = batch * 20..(batch + 1) * 20;
        let key = |number| if is_bad(number) { None } else { Some("k") };
        let records: Vec<_> =
            numbers.clone().map(|number| record(&poisoned, key(number), number, 0)).collect();
        for (number, outcome) in numbers.zip(publish_as(&sink, "a", &records).await) {
            if is_bad(number) {
                assert_eq!(rejected(&outcome), Some(RejectReason::Refused), "{number}: {outcome:?}");
            } else {
                assert!(matches!(outcome, Outcome::Confirmed(_)), "{number}: {outcome:?}");
            }
        }
    }
    bystander.await.unwrap();
    let wanted: Vec<usize> = (0..60).filter(|number| number % 10 != 5).collect();
    assert_eq!(stored(bootstrap, &poisoned, Some("k")).await, wanted);
    assert_eq!(stored(bootstrap, &good, Some("b")).await, (0..100).collect::<Vec<_>>());
}
