//! Producers that break for good, and their successors.

use std::collections::HashSet;

use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use viaduct_sink::{Outcome, Record, Sink};

use super::{confirm, connect, publish, record, records, settle, shared, stored, topic};

/// A sequence that the broker does not expect is the fatal error of an idempotent producer (KIP-360). A healthy broker
/// never says so, hence librdkafka's mock, which can be told to.
#[tokio::test]
async fn a_fatal_error_costs_a_producer_and_no_record() {
    let mock = MockCluster::new(1).unwrap();
    let topic: std::sync::Arc<str> = std::sync::Arc::from("fatal");
    mock.create_topic(&topic, 1, 1).unwrap();
    let bootstrap = mock.bootstrap_servers();
    // Everything in one batch: the mock would take the ones behind the one that it refuses.
    let sink = connect(&bootstrap, &[("linger.ms", "100")]).await;
    confirm(&sink, &records(&topic, "k", 0..100)).await;
    for round in 1..4 {
        let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        mock.request_errors(RDKafkaApiKey::Produce, &[error]);
        let records = records(&topic, "k", round * 100..(round + 1) * 100);
        let outcomes = publish(&sink, &records).await;
        let broken =
            |outcome: &Outcome| matches!(outcome, Outcome::Retry(retry) if retry.reason == "fatal_producer");
        assert!(outcomes.iter().all(broken), "{outcomes:?}");
        assert_eq!(confirm(&sink, &records).await, Vec::<&str>::new(), "the new producer takes them at once");
    }
    assert_eq!(stored(&bootstrap, &topic, Some("k")).await, (0..400).collect::<Vec<_>>());
    sink.close().await;
}

/// The first refused batch ends the producer that all sources share. Those that had nothing to do with it go on with the
/// next one: nothing lost, order kept, and copies only of what was under way.
#[tokio::test(flavor = "multi_thread")]
async fn other_sources_survive_the_end_of_the_producer() {
    let bootstrap = shared();
    let good = topic(bootstrap, "bystander", 3, &[]).await;
    let bad = topic(bootstrap, "poisoned", 1, &[("cleanup.policy", "compact")]).await;
    let sink = connect(bootstrap, &[]).await;
    let mut sources = tokio::task::JoinSet::new();
    for source in 0..4 {
        let (sink, topic) = (sink.clone(), good.clone());
        sources.spawn(async move {
            let mut reasons = HashSet::new();
            for batch in 0..40 {
                let records = records(&topic, &format!("k{source}"), batch * 100..(batch + 1) * 100);
                reasons.extend(confirm(&sink, &records).await);
            }
            reasons
        });
    }
    for round in 0..5 {
        let records: Vec<Record> = (round * 10..(round + 1) * 10)
            .map(|number| record(&bad, if number % 10 == 5 { None } else { Some("k") }, number, 0))
            .collect();
        let (outcomes, _) = settle(&sink, &records).await;
        assert!(matches!(outcomes[5], Outcome::Rejected(_)), "{:?}", outcomes[5]);
    }
    for reasons in sources.join_all().await {
        assert!(reasons.iter().all(|reason| *reason == "fatal_producer"), "{reasons:?}");
    }
    for source in 0..4 {
        let stored = stored(bootstrap, &good, Some(&format!("k{source}"))).await;
        let mut seen = HashSet::new();
        let first: Vec<usize> = stored.iter().copied().filter(|number| seen.insert(*number)).collect();
        assert_eq!(first, (0..4000).collect::<Vec<_>>(), "source {source}");
        assert!(stored.len() < 4000 + 500, "source {source}: {} copies", stored.len() - 4000);
    }
    let good: Vec<usize> = (0..50).filter(|number| number % 10 != 5).collect();
    assert_eq!(super::stored(bootstrap, &bad, Some("k")).await, good);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_sink_says_so() {
    let bootstrap = shared();
    let topic = topic(bootstrap, "closed", 1, &[]).await;
    let sink = connect(bootstrap, &[]).await;
    confirm(&sink, &records(&topic, "k", 0..10)).await;
    sink.close().await;
    let outcomes = publish(&sink, &records(&topic, "k", 10..20)).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Fatal(_))), "{outcomes:?}");
    assert_eq!(sink.health().borrow().reason, "closed");
}
