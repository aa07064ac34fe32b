//! Brokers that go in the middle of a transaction, topics that go, and closing meanwhile.

use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use viaduct_sink::{Batch, Outcome, Refusal, Retry, Sink};
use viaduct_testkit::kafka::{KafkaBroker, create_topic, delete_topic, read_topic};

use super::{exactly_once, start};
use crate::tests::{PATIENCE, confirm_as, name, publish_as, records, shared, stored, topic};

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_again_and_again_loses_and_doubles_nothing() {
    let broker = tokio::task::block_in_place(KafkaBroker::start_own);
    let bootstrap = broker.bootstrap().to_owned();
    let topic = topic(&bootstrap, "killed", 3, &[]).await;
    let sink = start(exactly_once(&bootstrap, "bridge", &["a", "b"], 1)).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let (told, mut count) = tokio::sync::watch::channel(0_usize);
    let mut lanes = tokio::task::JoinSet::new();
    for source in ["a", "b"] {
        let (sink, topic, stopped, told) = (sink.clone(), topic.clone(), stopped.clone(), told.clone());
        lanes.spawn(async move {
            let mut number = 0;
            while !*stopped.borrow() {
                let records = records(&topic, source, number..number + 20);
                let batch = Batch { source, records: &records };
                let outcomes = sink.publish(batch).await;
                let bad = outcomes.iter().find(|outcome| !matches!(outcome, Outcome::Confirmed(_)));
                assert!(bad.is_none(), "an outage is not an outcome: {bad:?}");
                number += 20;
                told.send_modify(|count| *count += 1);
            }
            (source, number)
        });
    }
    for round in 0..3 {
        let goal = *count.borrow() + 5 + round;
        tokio::time::timeout(PATIENCE, count.wait_for(|count| *count >= goal))
            .await
            .expect("the sources go on by themselves")
            .unwrap();
        tokio::task::block_in_place(|| {
            broker.kill().unwrap();
            broker.restart().unwrap();
        });
    }
    let goal = *count.borrow() + 5;
    tokio::time::timeout(PATIENCE, count.wait_for(|count| *count >= goal)).await.unwrap().unwrap();
    stop.send_replace(true);
    for (source, number) in lanes.join_all().await {
        assert_eq!(
            stored(&bootstrap, &topic, Some(source)).await,
            (0..number).collect::<Vec<_>>(),
            "{source}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_deleted_is_refused_and_holds_no_other_source_up() {
    let bootstrap = shared();
    let (gone, there) = (topic(bootstrap, "gone", 1, &[]).await, topic(bootstrap, "stays", 1, &[]).await);
    let sink = start(exactly_once(bootstrap, &name("bridge"), &["a", "b"], 1)).await;
    confirm_as(&sink, "a", &records(&gone, "k", 0..10)).await;
    delete_topic(bootstrap, &gone).await.unwrap();
    let mut batch = records(&gone, "k", 10..20);
    batch.extend(records(&there, "a", 20..30));
    let neighbour = tokio::spawn({
        let (sink, records) = (sink.clone(), records(&there, "b", 0..10));
        async move { confirm_as(&sink, "b", &records).await }
    });
    let outcomes = publish_as(&sink, "a", &batch).await;
    for (record, outcome) in batch.iter().zip(&outcomes) {
        if record.destination == gone {
            let Outcome::Retry(Retry { refusal, .. }) = outcome else { panic!("{outcome:?}") };
            assert_eq!(*refusal, Some(Refusal::Missing));
        } else {
            assert!(matches!(outcome, Outcome::Confirmed(_)), "{outcome:?}");
        }
    }
    neighbour.await.unwrap();
    create_topic(bootstrap, &gone, 1, &[]).await.unwrap();
    confirm_as(&sink, "a", &batch).await;
    assert_eq!(stored(bootstrap, &gone, Some("k")).await, (10..20).collect::<Vec<_>>());
    assert_eq!(stored(bootstrap, &there, Some("a")).await, (20..30).collect::<Vec<_>>());
    assert_eq!(stored(bootstrap, &there, Some("b")).await, (0..10).collect::<Vec<_>>());
}

/// Nobody else takes part in the transaction, and nothing else happens that could end it.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_deleted_is_found_out_by_a_source_alone() {
    let bootstrap = shared();
    let gone = topic(bootstrap, "alone", 1, &[]).await;
    let sink = start(exactly_once(bootstrap, &name("bridge"), &["a"], 1)).await;
    // Twice, so that both producers know the topic: one that does not asks for it, and is told.
    confirm_as(&sink, "a", &records(&gone, "k", 0..5)).await;
    confirm_as(&sink, "a", &records(&gone, "k", 5..10)).await;
    delete_topic(bootstrap, &gone).await.unwrap();
    let batch = records(&gone, "k", 10..20);
    let outcomes = publish_as(&sink, "a", &batch).await;
    for outcome in &outcomes {
        let Outcome::Retry(Retry { refusal, .. }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(*refusal, Some(Refusal::Missing));
    }
    create_topic(bootstrap, &gone, 1, &[]).await.unwrap();
    confirm_as(&sink, "a", &batch).await;
    assert_eq!(stored(bootstrap, &gone, Some("k")).await, (10..20).collect::<Vec<_>>());
}

/// A session is told without any record, soon and not only at the end; closing waits for no broker.
#[tokio::test(flavor = "multi_thread")]
async fn closing_is_quick_whether_a_broker_is_there_or_not() {
    let broker = tokio::task::block_in_place(KafkaBroker::start_own);
    let bootstrap = broker.bootstrap();
    let sink = start(exactly_once(bootstrap, "bridge", &["a"], 1)).await;
    let session = |text: &str| Some(RawValue::from_string(text.to_owned()).unwrap());
    sink.checkpoints().unwrap().claim("a").await.unwrap();
    sink.checkpoints().unwrap().session("a", session(r#"{"id":1}"#));
    // It is written without anything else happening.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let all = read_topic(bootstrap, "_viaduct.checkpoints").await.unwrap();
        let last = all.last().and_then(|message| message.value.clone()).unwrap_or_default();
        if String::from_utf8_lossy(&last).contains(r#""session":{"id":1}"#) {
            break;
        }
        assert!(Instant::now() < deadline, "the session is not written");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::task::block_in_place(|| broker.signal("STOP")).unwrap();
    sink.checkpoints().unwrap().session("a", session(r#"{"id":2}"#));
    let start = Instant::now();
    sink.close().await;
    assert!(start.elapsed() < Duration::from_secs(7), "closing took {:?}", start.elapsed());
    broker.signal("CONT").unwrap();
}
