//! Records that are too large, and topics that take less than a batch holds.

use viaduct_sink::{Outcome, Record, RejectReason};
use viaduct_testkit::kafka::create_topic;

use super::{confirm, connect, name, publish, record, records, rejected, settle, shared, stored, topic};

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_larger_than_the_topic_takes_is_no_reason_to_reject_its_records() {
    let bootstrap = shared();
    let topic = topic(bootstrap, "narrow", 1, &[("max.message.bytes", "30000")]).await;
    let sink = connect(bootstrap, &[]).await;
    // Two sources share producer and partition, so also batches.
    let run = |key: &'static str| {
        let (sink, topic) = (sink.clone(), topic.clone());
        async move {
            for batch in 0..4 {
                let records: Vec<Record> = (batch * 500..(batch + 1) * 500)
                    .map(|number| record(&topic, Some(key), number, 900))
                    .collect();
                confirm(&sink, &records).await;
            }
        }
    };
    tokio::join!(run("a"), run("b"));
    for key in ["a", "b"] {
        assert_eq!(stored(bootstrap, &topic, Some(key)).await, (0..2000).collect::<Vec<_>>(), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_large_records_are_rejected_whoever_they_travel_with() {
    let bootstrap = shared();
    let topic = topic(bootstrap, "limited", 1, &[("max.message.bytes", "20000")]).await;
    // Small batches, so that some are under way behind the one that is refused.
    let sink = connect(bootstrap, &[("batch.num.messages", "5")]).await;
    let is_large = |number: usize| number % 50 == 13;
    let run = |key: &'static str, large: bool| {
        let (sink, topic) = (sink.clone(), topic.clone());
        async move {
            for batch in 0..4 {
                let numbers = batch * 200..(batch + 1) * 200;
                let length = |number| if large && is_large(number) { 25_000 } else { 100 };
                let records: Vec<Record> =
                    numbers.clone().map(|number| record(&topic, Some(key), number, length(number))).collect();
                let (outcomes, _) = settle(&sink, &records).await;
                for (number, outcome) in numbers.zip(&outcomes) {
                    if length(number) == 100 {
                        assert!(matches!(outcome, Outcome::Confirmed(_)), "{key} {number}: {outcome:?}");
                    } else {
                        assert_eq!(
                            rejected(outcome),
                            Some(RejectReason::TooLarge),
                            "{key} {number}: {outcome:?}"
                        );
                    }
                }
            }
        }
    };
    tokio::join!(run("mixed", true), run("small", false));
    let good: Vec<usize> = (0..800).filter(|&number| !is_large(number)).collect();
    assert_eq!(stored(bootstrap, &topic, Some("mixed")).await, good);
    assert_eq!(stored(bootstrap, &topic, Some("small")).await, (0..800).collect::<Vec<_>>());
}

/// What is larger than brokers take by default is told apart at once: its neighbours need no second try.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_a_megabyte_troubles_no_other() {
    let bootstrap = shared();
    let topic = topic(bootstrap, "usual", 1, &[]).await;
    let sink = connect(bootstrap, &[]).await;
    let length = |number| if number == 2 { 1_200_000 } else { 100 };
    let records: Vec<Record> =
        (0..100).map(|number| record(&topic, Some("k"), number, length(number))).collect();
    let outcomes = publish(&sink, &records).await;
    for (number, outcome) in outcomes.iter().enumerate() {
        if number == 2 {
            assert_eq!(rejected(outcome), Some(RejectReason::TooLarge), "{outcome:?}");
        } else {
            assert!(matches!(outcome, Outcome::Confirmed(_)), "{number}: {outcome:?}");
        }
    }
    let good: Vec<usize> = (0..100).filter(|&number| number != 2).collect();
    assert_eq!(stored(bootstrap, &topic, Some("k")).await, good);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_decides_what_is_too_large() {
    let bootstrap = shared();
    let large = name("wide");
    create_topic(bootstrap, &large, 1, &[("max.message.bytes", "20000000")]).await.unwrap();
    let usual = topic(bootstrap, "usual", 1, &[]).await;
    let sink = connect(bootstrap, &[]).await;
    let value = 10_000_000;
    let offered = [record(&large, Some("k"), 0, value), record(&usual, Some("k"), 0, value)];
    let (outcomes, _) = settle(&sink, &offered).await;
    assert!(matches!(outcomes[0], Outcome::Confirmed(_)), "{:?}", outcomes[0]);
    assert_eq!(rejected(&outcomes[1]), Some(RejectReason::TooLarge));
    // Larger than the client's whole queue: it must not wait for room for ever.
    let (outcomes, _) = settle(&sink, &[record(&large, Some("k"), 1, 70_000_000)]).await;
    assert_eq!(rejected(&outcomes[0]), Some(RejectReason::TooLarge));
    confirm(&sink, &records(&large, "k", 2..3)).await;
    assert_eq!(stored(bootstrap, &large, Some("k")).await, [0, 2]);
}
