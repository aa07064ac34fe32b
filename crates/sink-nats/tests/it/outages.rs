//! Servers that die, freeze and lose their answers: nothing is lost, and the order stays.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use viaduct_sink::outcome::Position;
use viaduct_sink::{Batch, Outcome, Record, Sink};
use viaduct_sink_nats::NatsSink;
use viaduct_testkit::nats::{NatsServer, read_stream};
use viaduct_testkit::proxy::Proxy;

use crate::support::*;

/// Publishes batches of `size` records, key `k`, one after the other until told to stop; every batch has to be
/// confirmed whole. Counts what is confirmed. Gives the number of records.
async fn flow(
    sink: Arc<NatsSink>,
    key: String,
    size: usize,
    confirmed: Arc<AtomicUsize>,
    stop: Arc<AtomicUsize>,
) -> usize {
    let mut number = 0;
    while stop.load(Ordering::Relaxed) == 0 {
        let records: Vec<Record> =
            (number..number + size).map(|n| record(&format!("VIA.s{}", n % 3), Some(&key), n)).collect();
        let outcomes = sink.publish(Batch { source: &key, records: &records }).await;
        assert!(outcomes.iter().map(sequence).count() == size);
        confirmed.fetch_add(size, Ordering::Relaxed);
        number += size;
    }
    number
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_mid_publish_fifteen_times() {
    let server = NatsServer::start_own();
    let sink = Arc::new(NatsSink::connect(settings(server.url(), "VIA")).await.unwrap());
    let (confirmed, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let flows: Vec<_> = ["k0", "k1"]
        .map(|key| tokio::spawn(flow(sink.clone(), key.into(), 500, confirmed.clone(), stop.clone())))
        .into();
    for round in 0..15 {
        let before = confirmed.load(Ordering::Relaxed);
        eventually("nothing is published", || confirmed.load(Ordering::Relaxed) > before + round * 100).await;
        server.kill();
        down_because(&*sink, "").await;
        server.restart().unwrap();
    }
    stop.store(1, Ordering::Relaxed);
    let mut expected = HashMap::new();
    for (index, flow) in flows.into_iter().enumerate() {
        expected.insert(format!("k{index}"), flow.await.unwrap());
    }
    let stored = read_stream(server.url(), "VIA").await.unwrap();
    assert_eq!(assert_ordered(&stored, &expected), 0, "the server knows the ids of what it stored");
    eventually("old connections stay", || server.connections().unwrap() == 1).await;
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for() {
    let server = NatsServer::start_own();
    server.kill();
    let sink = NatsSink::connect(settings(server.url(), "VIA")).await.unwrap();
    down_because(&sink, "cannot connect").await;
    let records = [record("VIA.x", None, 0)];
    let mut publishing = Box::pin(sink.publish(Batch { source: "main", records: &records }));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut publishing).await.is_err());
    server.restart().unwrap();
    let outcomes = tokio::time::timeout(PATIENCE, publishing).await.unwrap();
    assert_eq!(sequence(&outcomes[0]), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_for_longer_than_an_answer_may_take() {
    let server = NatsServer::start_own();
    let mut settings = settings(server.url(), "VIA");
    settings.ack_timeout = Duration::from_millis(400);
    let sink = Arc::new(NatsSink::connect(settings).await.unwrap());
    let (confirmed, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let flow = tokio::spawn(flow(sink.clone(), "k".into(), 300, confirmed.clone(), stop.clone()));
    for _ in 0..3 {
        let before = confirmed.load(Ordering::Relaxed);
        eventually("nothing is published", || confirmed.load(Ordering::Relaxed) > before + 600).await;
        server.freeze().unwrap();
        let reason = health(&*sink, false).await;
        assert!(reason.contains("without an answer"), "{reason}");
        // Longer than a connection attempt may want to take: several attempts pile up in the frozen server.
        tokio::time::sleep(Duration::from_secs(1)).await;
        server.thaw().unwrap();
        health(&*sink, true).await;
    }
    stop.store(1, Ordering::Relaxed);
    let expected = HashMap::from([("k".to_owned(), flow.await.unwrap())]);
    let stored = read_stream(server.url(), "VIA").await.unwrap();
    assert_eq!(assert_ordered(&stored, &expected), 0);
    eventually("old connections stay", || server.connections().unwrap() == 1).await;
}

async fn proxied(server: &NatsServer) -> (Proxy, NatsSink) {
    let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], server.port()))).await.unwrap();
    let mut settings = settings(&format!("nats://127.0.0.1:{}", proxy.port()), "VIA");
    settings.ack_timeout = Duration::from_millis(500);
    (proxy, NatsSink::connect(settings).await.unwrap())
}

#[tokio::test]
async fn lost_answers_are_asked_for_again_and_stored_once() {
    let server = NatsServer::start_own();
    let (proxy, sink) = proxied(&server).await;
    sequence(&publish(&sink, &[record("VIA.x", Some("k"), 0)]).await[0]);
    proxy.lose_answers();
    let records: Vec<Record> = (1..600).map(|number| record("VIA.x", Some("k"), number)).collect();
    let mut publishing = Box::pin(sink.publish(Batch { source: "main", records: &records }));
    tokio::select! {
        _ = &mut publishing => panic!("confirmed without an answer"),
        () = down_because(&sink, "without an answer") => {}
    }
    assert!(!read_stream(server.url(), "VIA").await.unwrap().is_empty());
    proxy.heal();
    let outcomes = tokio::time::timeout(PATIENCE, publishing).await.unwrap();
    let known = outcomes.iter().filter(|outcome| {
        matches!(outcome, Outcome::Confirmed(receipt)
            if matches!(receipt.position(), Position::Stream { duplicate: true, .. }))
    });
    assert!(known.count() > 0, "the server said that it knows them");
    assert!(outcomes.iter().map(sequence).is_sorted());
    let expected = HashMap::from([("k".to_owned(), 600)]);
    assert_eq!(assert_ordered(&read_stream(server.url(), "VIA").await.unwrap(), &expected), 0);
    assert_eq!(health(&sink, true).await, "");
    eventually("old connections stay", || server.connections().unwrap() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_cost_nothing_but_time() {
    let server = NatsServer::start_own();
    let (proxy, sink) = proxied(&server).await;
    let sink = Arc::new(sink);
    let (confirmed, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let flow = tokio::spawn(flow(sink.clone(), "k".into(), 400, confirmed.clone(), stop.clone()));
    for _ in 0..20 {
        let before = confirmed.load(Ordering::Relaxed);
        eventually("nothing is published", || confirmed.load(Ordering::Relaxed) > before).await;
        proxy.cut();
    }
    stop.store(1, Ordering::Relaxed);
    let expected = HashMap::from([("k".to_owned(), flow.await.unwrap())]);
    assert_eq!(assert_ordered(&read_stream(server.url(), "VIA").await.unwrap(), &expected), 0);
    eventually("old connections stay", || server.connections().unwrap() == 1).await;
}

#[tokio::test]
async fn an_abandoned_batch_leaves_nothing_behind() {
    let server = NatsServer::start_own();
    let (proxy, sink) = proxied(&server).await;
    health(&sink, true).await;
    let records: Vec<Record> = (0..100).map(|number| record("VIA.x", Some("k"), number)).collect();
    proxy.stall();
    let abandoned = tokio::time::timeout(
        Duration::from_millis(100),
        sink.publish(Batch { source: "main", records: &records }),
    );
    assert!(abandoned.await.is_err());
    proxy.heal();
    assert!(publish(&sink, &records).await.iter().map(sequence).is_sorted());
    let expected = HashMap::from([("k".to_owned(), 100)]);
    assert_eq!(assert_ordered(&read_stream(server.url(), "VIA").await.unwrap(), &expected), 0);
    drop(sink);
    eventually("the connection outlives the sink", || server.connections().unwrap() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_of_a_replicated_stream_come_and_go() {
    let cluster = NatsServer::start_cluster(3);
    let mut settings = settings(cluster[0].url(), "VIA");
    settings.replicas = 3;
    settings.ack_timeout = Duration::from_secs(2);
    let sink = Arc::new(NatsSink::connect(settings).await.unwrap());
    health(&*sink, true).await;
    let report = sink.inspect(PATIENCE).await.unwrap();
    assert!(report.distributed && report.replicas == 3);

    let stop = Arc::new(AtomicUsize::new(0));
    let confirmed = Arc::new(AtomicUsize::new(0));
    let flow = tokio::spawn(offer_until_confirmed(sink.clone(), confirmed.clone(), stop.clone()));
    for round in 0..3 {
        let before = confirmed.load(Ordering::Relaxed);
        eventually("nothing is published", || confirmed.load(Ordering::Relaxed) > before + 200).await;
        let node = &cluster[(round + 1) % 3];
        node.kill();
        let before = confirmed.load(Ordering::Relaxed);
        eventually("two of three are not enough", || confirmed.load(Ordering::Relaxed) > before + 200).await;
        node.restart().unwrap();
    }
    // The one that the sink was told of dies too: it knows the others by now.
    cluster[0].kill();
    let before = confirmed.load(Ordering::Relaxed);
    eventually("the other servers are not found", || confirmed.load(Ordering::Relaxed) > before + 200).await;
    stop.store(1, Ordering::Relaxed);
    let count = flow.await.unwrap();
    cluster[0].restart().unwrap();
    let expected = (0..10).map(|key| (format!("k{key}"), count)).collect();
    let stored = read_stream(cluster[1].url(), "VIA").await.unwrap();
    assert_eq!(assert_ordered(&stored, &expected), 0);
}

/// Ten keys, batches of 100; what has to be offered again is, in order. Gives the number of records of each key.
async fn offer_until_confirmed(
    sink: Arc<NatsSink>,
    confirmed: Arc<AtomicUsize>,
    stop: Arc<AtomicUsize>,
) -> usize {
    let mut number = 0;
    while stop.load(Ordering::Relaxed) == 0 {
        let mut records: Vec<Record> = (0..100)
            .map(|n| record(&format!("VIA.s{}", n % 3), Some(&format!("k{}", n % 10)), number + n / 10))
            .collect();
        number += 10;
        while !records.is_empty() {
            let outcomes = sink.publish(Batch { source: "main", records: &records }).await;
            confirmed.fetch_add(
                outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Confirmed(_))).count(),
                Ordering::Relaxed,
            );
            let mut fates = outcomes.iter();
            records.retain(|_| match fates.next().unwrap() {
                Outcome::Confirmed(_) => false,
                Outcome::Retry(retry) => {
                    assert_eq!(retry.refusal, None, "an election is nothing to mend: {}", retry.detail);
                    true
                }
                other => panic!("neither confirmed nor to be offered again: {other:?}"),
            });
        }
    }
    number
}
