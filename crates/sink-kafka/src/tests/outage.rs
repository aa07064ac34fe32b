//! Brokers that are away, frozen, or confirm nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use viaduct_sink::{Batch, Outcome, Sink};
use viaduct_testkit::kafka::KafkaBroker;

use super::{PATIENCE, confirm, connect, name, records, stored, topic, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_for_longer_than_twenty_seconds_loses_doubles_and_disorders_nothing() {
    let broker = tokio::task::block_in_place(KafkaBroker::start_own);
    let bootstrap = broker.bootstrap().to_owned();
    let topic = topic(&bootstrap, "outage", 3, &[]).await;
    let sink = connect(&bootstrap, &[]).await;
    let enough = Arc::new(AtomicBool::new(false));
    let sources: Vec<_> = (0..3)
        .map(|source| {
            let (sink, topic, enough) = (sink.clone(), topic.clone(), enough.clone());
            tokio::spawn(async move {
                let key = format!("k{source}");
                let mut count = 0;
                while !enough.load(Ordering::Relaxed) {
                    let records = records(&topic, &key, count..count + 50);
                    let outcomes = sink.publish(Batch { source: &key, records: &records }).await;
                    let bad = outcomes.iter().find(|outcome| !matches!(outcome, Outcome::Confirmed(_)));
                    assert!(bad.is_none(), "an outage is not an outcome: {bad:?}");
                    count += 50;
                }
                count
            })
        })
        .collect();
    let mut health = sink.health();
    wait_until(&mut health, "up", |health| health.up).await;

    tokio::task::block_in_place(|| broker.kill()).unwrap();
    let killed = Instant::now();
    let down = wait_until(&mut health, "down", |health| !health.up).await;
    assert!(killed.elapsed() < Duration::from_secs(10), "noticed after {:?}", killed.elapsed());
    assert!(down.reason.contains("no Kafka broker answers"), "{}", down.reason);
    // The outage itself: nothing is waited for here but its length.
    tokio::time::sleep(Duration::from_secs(22).saturating_sub(killed.elapsed())).await;
    assert!(!health.borrow().up);
    tokio::task::block_in_place(|| broker.restart()).unwrap();
    let back = Instant::now();
    wait_until(&mut health, "up again", |health| health.up).await;
    assert!(back.elapsed() < Duration::from_secs(10), "up after {:?}", back.elapsed());
    enough.store(true, Ordering::Relaxed);
    for (source, ended) in sources.into_iter().enumerate() {
        let count = tokio::time::timeout(PATIENCE, ended).await.expect("it catches up").unwrap();
        let stored = stored(&bootstrap, &topic, Some(&format!("k{source}"))).await;
        assert_eq!(stored, (0..count).collect::<Vec<_>>(), "source {source}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_there_yet_is_waited_for_and_is_no_refusal() {
    let broker = tokio::task::block_in_place(KafkaBroker::start_own);
    let bootstrap = broker.bootstrap().to_owned();
    let topic = topic(&bootstrap, "late", 1, &[]).await;
    tokio::task::block_in_place(|| broker.stop()).unwrap();
    let sink = connect(&bootstrap, &[]).await;
    let mut publishing = tokio::spawn({
        let (sink, records) = (sink.clone(), records(&topic, "k", 0..100));
        async move { sink.publish(Batch { source: "late", records: &records }).await }
    });
    let mut health = sink.health();
    wait_until(&mut health, "down with a reason", |health| health.reason.contains("no Kafka broker answers"))
        .await;
    // Longer than librdkafka takes to call a topic unknown.
    assert!(
        tokio::time::timeout(Duration::from_secs(6), &mut publishing).await.is_err(),
        "an answer without a broker"
    );
    tokio::task::block_in_place(|| broker.restart()).unwrap();
    let outcomes = tokio::time::timeout(PATIENCE, publishing).await.expect("it starts by itself").unwrap();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Confirmed(_))), "{outcomes:?}");
    assert_eq!(stored(&bootstrap, &topic, Some("k")).await, (0..100).collect::<Vec<_>>());

    // Frozen with its connections open: only silence tells.
    broker.signal("STOP").unwrap();
    wait_until(&mut health, "down while the broker is frozen", |health| !health.up).await;
    broker.signal("CONT").unwrap();
    wait_until(&mut health, "up when it is thawed", |health| health.up).await;
}

/// One broker alone never lacks replicas (it asks for no more in sync than there are), hence librdkafka's mock, which can
/// be told to say so.
#[tokio::test]
async fn brokers_that_answer_but_confirm_nothing_are_down() {
    let mock = MockCluster::new(1).unwrap();
    let topic = name("starving");
    mock.create_topic(&topic, 1, 1).unwrap();
    let sink = connect(&mock.bootstrap_servers(), &[]).await;
    let mut health = sink.health();
    wait_until(&mut health, "up", |health| health.up).await;
    mock.request_errors(
        RDKafkaApiKey::Produce,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 1000],
    );
    let publishing = tokio::spawn({
        let (sink, records) = (sink.clone(), records(&topic, "k", 0..100));
        async move { confirm(&sink, &records).await }
    });
    wait_until(&mut health, "down for want of replicas", |health| health.reason.contains("in-sync replicas"))
        .await;
    assert!(!publishing.is_finished());
    mock.clear_request_errors(RDKafkaApiKey::Produce);
    let reasons = tokio::time::timeout(PATIENCE, publishing).await.expect("it goes on by itself").unwrap();
    assert_eq!(reasons, Vec::<&str>::new());
    wait_until(&mut health, "up again", |health| health.up).await;
    assert_eq!(stored(&mock.bootstrap_servers(), &topic, Some("k")).await, (0..100).collect::<Vec<_>>());
}
