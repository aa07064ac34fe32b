//! Topics that are missing, created, deleted.

use std::time::{Duration, Instant};

use viaduct_sink::{Outcome, Refusal, Retry};
use viaduct_testkit::kafka::{KafkaBroker, create_topic, delete_topic, topics};

use super::{confirm, connect, name, publish, records, settings, shared, stored, topic};
use crate::KafkaSink;

fn refusal(outcome: &Outcome) -> Option<Refusal> {
    match outcome {
        Outcome::Retry(Retry { refusal, .. }) => *refusal,
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_refused_soon_and_taken_up_when_it_is_there() {
    let bootstrap = shared();
    let (there, missing) = (topic(bootstrap, "there", 1, &[]).await, name("missing"));
    let sink = connect(bootstrap, &[]).await;
    let mut batch = records(&there, "k", 0..10);
    batch.extend(records(&missing, "k", 0..10));
    batch.extend(records(&there, "k", 10..20));

    let asked = Instant::now();
    let outcomes = publish(&sink, &batch).await;
    assert!(asked.elapsed() < Duration::from_secs(8), "told after {:?}", asked.elapsed());
    for (record, outcome) in batch.iter().zip(&outcomes) {
        if record.destination == missing {
            assert_eq!(refusal(outcome), Some(Refusal::Missing), "{outcome:?}");
        } else {
            assert!(matches!(outcome, Outcome::Confirmed(_)), "a neighbour: {outcome:?}");
        }
    }
    create_topic(bootstrap, &missing, 1, &[]).await.unwrap();
    confirm(&sink, &batch[10..20]).await;
    assert_eq!(stored(bootstrap, &missing, Some("k")).await, (0..10).collect::<Vec<_>>());
    assert_eq!(stored(bootstrap, &there, Some("k")).await, (0..20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_deleted_is_refused_and_taken_up_when_it_is_back() {
    let bootstrap = shared();
    let topic = topic(bootstrap, "deleted", 1, &[]).await;
    let sink = connect(bootstrap, &[]).await;
    confirm(&sink, &records(&topic, "k", 0..10)).await;
    delete_topic(bootstrap, &topic).await.unwrap();
    let deleted = Instant::now();
    loop {
        let outcomes = publish(&sink, &records(&topic, "k", 10..20)).await;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Retry(_))), "{outcomes:?}");
        if outcomes.iter().all(|outcome| refusal(outcome) == Some(Refusal::Missing)) {
            break;
        }
        // What the client knew of the topic may fail in another way first.
        assert!(deleted.elapsed() < Duration::from_secs(8), "{outcomes:?}");
    }
    create_topic(bootstrap, &topic, 1, &[]).await.unwrap();
    confirm(&sink, &records(&topic, "k", 10..20)).await;
    assert_eq!(stored(bootstrap, &topic, Some("k")).await, (10..20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_topic_is_created_unless_asked_for_whatever_the_broker_would_do() {
    let broker =
        tokio::task::block_in_place(|| KafkaBroker::start_with(&[("auto.create.topics.enable", "true")]));
    let bootstrap = broker.bootstrap();
    let missing = name("missing");
    let sink = connect(bootstrap, &[]).await;
    let outcomes = publish(&sink, &records(&missing, "k", 0..3)).await;
    assert_eq!(refusal(&outcomes[0]), Some(Refusal::Missing), "{outcomes:?}");
    let there = topics(bootstrap).await.unwrap();
    assert!(!there.iter().any(|topic| **topic == *missing), "{there:?}");

    let mut creating = settings(bootstrap, &[]);
    (creating.create_topics, creating.partitions, creating.replication_factor) = (true, Some(7), Some(1));
    let sink = KafkaSink::connect(creating.clone()).await.unwrap();
    confirm(&sink, &records(&missing, "k", 0..3)).await;
    assert_eq!(partitions(bootstrap, &missing), 7);
    assert_eq!(stored(bootstrap, &missing, Some("k")).await, [0, 1, 2]);

    creating.replication_factor = Some(3);
    let sink = KafkaSink::connect(creating).await.unwrap();
    let outcomes = publish(&sink, &records(&name("wanting"), "k", 0..1)).await;
    let Outcome::Retry(retry) = &outcomes[0] else {
        panic!("one broker cannot hold three replicas: {outcomes:?}")
    };
    assert_eq!(retry.refusal, Some(Refusal::Missing));
    assert!(retry.detail.contains("cannot be created"), "{}", retry.detail);
}

fn partitions(bootstrap: &str, topic: &str) -> usize {
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    let mut config = rdkafka::ClientConfig::new();
    let consumer: BaseConsumer = config.set("bootstrap.servers", bootstrap).create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), super::PATIENCE).unwrap();
    metadata.topics()[0].partitions().len()
}
