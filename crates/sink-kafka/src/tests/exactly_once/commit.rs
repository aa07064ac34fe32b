//! Commits of which nobody knows whether they took effect.

use std::time::Duration;

use viaduct_sink::outcome::Position;
use viaduct_sink::{Outcome, Sink};
use viaduct_testkit::proxy_kafka::{Api, Fate, KafkaProxy};

use super::{exactly_once, start};
use crate::tests::{confirm_as, publish_as, records, stored, topic};

/// One batch after the other, each with another misfortune at its commit; every record stands there once, in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_without_an_answer_is_looked_up_and_nothing_is_sent_twice() {
    let (broker, proxy) = KafkaProxy::with_broker(&[]).await;
    let bootstrap = broker.bootstrap();
    let topic = topic(bootstrap, "commit", 1, &[]).await;
    let sink = start(exactly_once(&proxy.bootstrap(), "bridge", &["a"], 1)).await;
    confirm_as(&sink, "a", &records(&topic, "k", 0..20)).await;
    let fates = [
        Fate::AnswerLost,
        Fate::CutAtAnswer,
        Fate::CutAtRequest,
        Fate::AnswerDelayed(Duration::from_secs(12)),
    ];
    for (round, fate) in (1..).zip(fates) {
        proxy.nth(Api::EndTxn, 1, fate);
        let batch = records(&topic, "k", round * 20..(round + 1) * 20);
        let outcomes = publish_as(&sink, "a", &batch).await;
        assert_eq!(proxy.applied(), round, "{fate:?} was met");
        for outcome in &outcomes {
            assert!(matches!(outcome, Outcome::Confirmed(_)), "{fate:?}: {outcome:?}");
        }
        if fate == Fate::AnswerLost {
            let held = |outcome: &Outcome| matches!(outcome, Outcome::Confirmed(receipt) if receipt.position() == Position::Held);
            assert!(outcomes.iter().all(held), "the broker had committed: {outcomes:?}");
        }
    }
    confirm_as(&sink, "a", &records(&topic, "k", 100..120)).await;
    assert_eq!(stored(bootstrap, &topic, Some("k")).await, (0..120).collect::<Vec<_>>());
    sink.close().await;
}

/// The brokers end a transaction that takes too long, and fence its producer. Nobody else is there: it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_timed_out_is_sent_again() {
    let (broker, proxy) =
        KafkaProxy::with_broker(&[("transaction.abort.timed.out.transaction.cleanup.interval.ms", "200")])
            .await;
    let bootstrap = broker.bootstrap();
    let topic = topic(bootstrap, "late", 1, &[]).await;
    let mut settings = exactly_once(&proxy.bootstrap(), "bridge", &["a"], 1);
    for (key, value) in [("transaction.timeout.ms", "1500"), ("socket.timeout.ms", "1000")] {
        settings.properties.insert(key.to_owned(), value.to_owned().into());
    }
    let sink = start(settings).await;
    confirm_as(&sink, "a", &records(&topic, "k", 0..20)).await;
    // The records are there, their answer comes when the transaction is long gone.
    proxy.nth(Api::Produce, 1, Fate::AnswerDelayed(Duration::from_secs(4)));
    confirm_as(&sink, "a", &records(&topic, "k", 20..40)).await;
    assert_eq!(proxy.applied(), 1);
    confirm_as(&sink, "a", &records(&topic, "k", 40..60)).await;
    assert_eq!(stored(bootstrap, &topic, Some("k")).await, (0..60).collect::<Vec<_>>());
}
