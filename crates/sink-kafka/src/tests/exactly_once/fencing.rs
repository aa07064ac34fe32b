//! Two instances of one bridge, and what holds back the checkpoints.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use viaduct_sink::{Fatal, Outcome, Sink};
use viaduct_testkit::kafka::KafkaBroker;
use viaduct_testkit::proxy_kafka::{Api, Fate, KafkaProxy};

use super::{exactly_once, start};
use crate::tests::{PATIENCE, confirm_as, name, publish_as, records, shared, stored, topic, wait_until};

fn fenced(outcomes: &[Outcome]) -> bool {
    outcomes.iter().all(|outcome| matches!(outcome, Outcome::Fatal(Fatal::Fenced(_))))
}

fn confirmed(outcomes: &[Outcome]) {
    let bad = outcomes.iter().find(|outcome| !matches!(outcome, Outcome::Confirmed(_)));
    assert!(bad.is_none(), "{bad:?}");
}

/// The zombie knows of no fencing: its commit has no answer, so it makes a new producer, which fences its heir. What it
/// reads then tells it to stop, and the heir recovers.
#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_that_fences_its_heir_publishes_nothing_and_the_heir_goes_on() {
    let (broker, proxy) = KafkaProxy::with_broker(&[]).await;
    let bootstrap = broker.bootstrap();
    let topic = topic(bootstrap, "zombie", 1, &[]).await;
    let zombie = start(exactly_once(&proxy.bootstrap(), "bridge", &["a"], 1)).await;
    confirm_as(&zombie, "a", &records(&topic, "k", 0..20)).await;
    // It stays before its commit while another instance takes over.
    proxy.nth(Api::EndTxn, 1, Fate::AnswerLost);
    let publishing = tokio::spawn({
        let (zombie, records) = (zombie.clone(), records(&topic, "k", 20..40));
        async move { publish_as(&zombie, "a", &records).await }
    });
    let deadline = std::time::Instant::now() + PATIENCE;
    while proxy.applied() == 0 {
        assert!(std::time::Instant::now() < deadline, "no commit");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let heir = start(exactly_once(bootstrap, "bridge", &["a"], 1)).await;
    let claim = heir.checkpoints().unwrap().claim("a").await.unwrap();
    assert_eq!(claim.remembered, 40, "the zombie's commit took effect before");
    confirm_as(&heir, "a", &records(&topic, "k", 40..60)).await;
    let outcomes = publishing.await.unwrap();
    assert!(fenced(&outcomes), "{outcomes:?}");
    assert!(fenced(&publish_as(&zombie, "a", &records(&topic, "k", 60..80)).await));
    confirm_as(&heir, "a", &records(&topic, "k", 20..40)).await;
    confirm_as(&heir, "a", &records(&topic, "k", 60..80)).await;
    assert_eq!(stored(bootstrap, &topic, Some("k")).await, (0..80).collect::<Vec<_>>());
}

/// The first instance publishes without a pause until it is told that it is fenced. What it has committed until then, the
/// second one knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_in_full_swing_loses_and_doubles_nothing() {
    let bootstrap = shared();
    let topic = topic(bootstrap, "swing", 1, &[]).await;
    let bridge = name("bridge");
    let mut end = 0;
    let mut sink = start(exactly_once(bootstrap, &bridge, &["a"], 1)).await;
    sink.checkpoints().unwrap().claim("a").await.unwrap();
    for _ in 0..3 {
        // What the instance before had under way is offered first, as the vendor would.
        confirm_as(&sink, "a", &records(&topic, "k", 0..end)).await;
        let publishing = tokio::spawn({
            let (sink, topic) = (sink.clone(), topic.clone());
            async move {
                let mut end = end;
                loop {
                    let outcomes = publish_as(&sink, "a", &records(&topic, "k", end..end + 5)).await;
                    end += 5;
                    if fenced(&outcomes) {
                        return end;
                    }
                    confirmed(&outcomes);
                }
            }
        });
        let heir = start(exactly_once(bootstrap, &bridge, &["a"], 1)).await;
        let claim = tokio::time::timeout(PATIENCE, heir.checkpoints().unwrap().claim("a")).await;
        claim.expect("a claim in time").unwrap();
        end = publishing.await.unwrap();
        sink = heir;
    }
    confirm_as(&sink, "a", &records(&topic, "k", 0..end)).await;
    assert_eq!(stored(bootstrap, &topic, Some("k")).await, (0..end).collect::<Vec<_>>());
}

/// Somebody else's open transaction hides what stands behind its first record. A claim that did not wait for its end would
/// take what is hidden for missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_waits_for_the_transactions_of_others() {
    let broker = tokio::task::block_in_place(|| {
        KafkaBroker::start_with(&[("transaction.abort.timed.out.transaction.cleanup.interval.ms", "200")])
    });
    let bootstrap = broker.bootstrap();
    let topic = topic(bootstrap, "hidden", 1, &[]).await;
    let first = start(exactly_once(bootstrap, "bridge", &["a"], 1)).await;
    confirm_as(&first, "a", &records(&topic, "k", 0..20)).await;
    let hanging: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("transactional.id", "another-bridge")
        .create()
        .unwrap();
    let hanging = tokio::task::spawn_blocking(move || {
        hanging.init_transactions(PATIENCE).unwrap();
        hanging.begin_transaction().unwrap();
        hanging
            .send(BaseRecord::<str, str>::to("_viaduct.checkpoints").key("other.lake.x").payload("{}"))
            .ok()
            .unwrap();
        while hanging.in_flight_count() > 0 {
            hanging.poll(Duration::from_millis(10));
        }
        hanging
    });
    let hanging = hanging.await.unwrap();
    confirm_as(&first, "a", &records(&topic, "k", 20..40)).await;
    first.close().await;

    let second = start(exactly_once(bootstrap, "bridge", &["a"], 1)).await;
    let mut health = second.health();
    let told = wait_until(&mut health, "down", |health| health.reason.contains("open transaction")).await;
    assert!(told.reason.contains("_viaduct.checkpoints"), "{}", told.reason);
    tokio::task::spawn_blocking(move || hanging.abort_transaction(PATIENCE).unwrap()).await.unwrap();
    let claim = second.checkpoints().unwrap().claim("a").await.unwrap();
    assert_eq!(claim.remembered, 40);
    wait_until(&mut health, "up", |health| health.up).await;
    confirm_as(&second, "a", &records(&topic, "k", 20..60)).await;
    assert_eq!(stored(bootstrap, &topic, Some("k")).await, (0..60).collect::<Vec<_>>());
}

/// What cannot be understood is not overwritten, and other bridges' checkpoints are none of ours.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_cannot_be_read_stops_the_shard_and_is_kept() {
    let broker = tokio::task::block_in_place(KafkaBroker::start_own);
    let bootstrap = broker.bootstrap();
    let topic = topic(bootstrap, "unreadable", 1, &[]).await;
    let first = start(exactly_once(bootstrap, "bridge", &["a"], 1)).await;
    confirm_as(&first, "a", &records(&topic, "k", 0..5)).await;
    first.close().await;
    for (key, claims) in [("other.lake.a", true), ("bridge.lake.a", false)] {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
        tokio::task::spawn_blocking(move || {
            let text = r#"{"version":7}"#;
            producer.send(BaseRecord::to("_viaduct.checkpoints").key(key).payload(text)).unwrap();
            producer.flush(PATIENCE).unwrap();
        })
        .await
        .unwrap();
        let sink = start(exactly_once(bootstrap, "bridge", &["a"], 1)).await;
        let claim = sink.checkpoints().unwrap().claim("a").await;
        match claim {
            Ok(claim) => assert!(claims && claim.remembered == 5, "{key}: {claim:?}"),
            Err(Fatal::Broken(sentence)) => {
                assert!(
                    !claims && sentence.contains("bridge.lake.a") && sentence.contains("version 7"),
                    "{sentence}"
                );
            }
            Err(fatal) => panic!("{key}: {fatal}"),
        }
        sink.close().await;
    }
}
