//! Two instances, and checkpoints that others touch.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use viaduct_sink::{Fatal, Sink};
use viaduct_testkit::nats::NatsServer;
use viaduct_testkit::proxy::Proxy;

use super::*;

fn fenced(outcomes: &[Outcome]) {
    for outcome in outcomes {
        assert!(matches!(outcome, Outcome::Fatal(Fatal::Fenced(_))), "not fenced: {outcome:?}");
    }
}

/// The batch of an instance that another one has taken over from arrives late: it is rejected whole, and the instance
/// stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_batch_of_a_usurped_instance_is_rejected_whole() {
    let server = NatsServer::start_own();
    let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], server.port()))).await.unwrap();
    let mut settings = process(&format!("nats://127.0.0.1:{}", proxy.port()), "VIA", &["main"]);
    settings.ack_timeout = 3 * PATIENCE;
    let zombie = connect(settings).await;
    settle(&*zombie, "main", &records("VIA", "k", 0..50)).await;
    proxy.stall();
    let all = records("VIA", "k", 50..300);
    let late = tokio::spawn({
        let (zombie, all) = (zombie.clone(), all.clone());
        async move { publish(&*zombie, &all).await }
    });
    // The zombie has sent it all when its checkpoint counts as unknown; here it is enough that the heir goes first.
    let heir = connect(process(server.url(), "VIA", &["main"])).await;
    let claim = heir.checkpoints().unwrap().claim("main").await.unwrap();
    assert_eq!(claim.remembered, 50);
    settle(&*heir, "main", &all[..100]).await;
    proxy.heal();
    fenced(&late.await.unwrap());
    fenced(&publish(&*zombie, &records("VIA", "zombie", 0..10)).await);
    settle(&*heir, "main", &all).await;
    verify(server.url(), "VIA", &counts([("k", 300)]), &["main"]).await;
}

/// The server is frozen with a batch in its buffers while another instance starts. Thawed, it stores the batch or does
/// not; the heir knows which.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_frozen_over_a_takeover() {
    let server = NatsServer::start_own();
    let settings = |timeout| {
        let mut settings = process(server.url(), "VIA", &["main"]);
        settings.ack_timeout = timeout;
        settings
    };
    let mut holder = connect(settings(Duration::from_millis(500))).await;
    settle(&*holder, "main", &records("VIA", "k", 0..20)).await;
    for round in 1..6 {
        let batch = records("VIA", "k", round * 20..(round + 1) * 20);
        server.freeze().unwrap();
        let frozen = tokio::spawn({
            let (holder, batch) = (holder.clone(), batch.clone());
            async move { holder.publish(Batch { source: "main", records: &batch }).await }
        });
        down_because(&*holder, "without an answer").await;
        let heir = connect(settings(Duration::from_millis(500))).await;
        server.thaw().unwrap();
        settle(&*heir, "main", &batch).await;
        // It publishes before the heir claims, or never again.
        let _ = tokio::time::timeout(3 * PATIENCE, frozen).await.expect("no outcome").unwrap();
        settle(&*heir, "main", &batch).await;
        fenced(&publish(&*holder, &records("VIA", "zombie", 0..10)).await);
        holder.close().await;
        holder = heir;
    }
    verify(server.url(), "VIA", &counts([("k", 120)]), &["main"]).await;
}

#[tokio::test]
async fn instances_that_claim_at_the_same_time_end_with_one() {
    let server = NatsServer::start_own();
    let (url, stream) = (server.url(), stream_name());
    let mut instances = Vec::new();
    for _ in 0..6 {
        instances.push(connect(process(url, &stream, &["main"])).await);
    }
    let mut work = tokio::task::JoinSet::new();
    for (number, sink) in instances.iter().cloned().enumerate() {
        let stream = stream.clone();
        work.spawn(async move {
            sink.checkpoints().unwrap().claim("main").await.unwrap();
            (number, publish(&*sink, &records(&stream, &format!("k{number}"), 0..20)).await)
        });
    }
    let mut expected = HashMap::new();
    for (number, outcomes) in work.join_all().await {
        match &outcomes[0] {
            Outcome::Confirmed(_) => {
                assert_eq!(held(&outcomes), 0);
                expected.insert(format!("k{number}"), 20);
            }
            _ => fenced(&outcomes),
        }
    }
    // All of those that published did so before the last one claimed; that one is still there.
    let mut alive = 0;
    for sink in &instances {
        let outcomes = publish(&**sink, &records(&stream, "last", 0..5)).await;
        alive += usize::from(matches!(outcomes[0], Outcome::Confirmed(_)));
    }
    assert_eq!(alive, 1, "one instance is left");
    expected.insert("last".to_owned(), 5);
    verify(url, &stream, &expected, &["main"]).await;
}

#[tokio::test]
async fn a_purged_checkpoint_is_written_again() {
    let server = NatsServer::start_own();
    let (url, stream) = (server.url(), stream_name());
    let sink = connect(process(url, &stream, &["main"])).await;
    settle(&*sink, "main", &records(&stream, "k", 0..30)).await;
    let client = async_nats::connect(url).await.unwrap();
    let handle = async_nats::jetstream::new(client).get_stream(&stream).await.unwrap();
    handle.purge().filter(format!("{CHECKPOINTS}main")).await.unwrap();
    let outcomes = publish(&*sink, &records(&stream, "k", 20..60)).await;
    assert_eq!(held(&outcomes), 10, "this process still knows them");
    let checkpoint = &verify(url, &stream, &counts([("k", 60)]), &["main"]).await["main"];
    assert_eq!(checkpoint.events().count(), 60, "and so does the next one");
}

#[tokio::test]
async fn a_checkpoint_that_is_none_ends_the_source_with_a_sentence() {
    let server = NatsServer::start_own();
    let (url, stream) = (server.url(), stream_name());
    let sink = connect(process(url, &stream, &["main", "other"])).await;
    health(&*sink, true).await;
    let client = async_nats::connect(url).await.unwrap();
    let context = async_nats::jetstream::new(client);
    for (text, says) in [("{\"version\":9}", "it has version 9"), ("hunter2", "it is not a checkpoint")] {
        context.publish(format!("{CHECKPOINTS}main"), text.into()).await.unwrap().await.unwrap();
        let sink = connect(process(url, &stream, &["main", "other"])).await;
        let claim = sink.checkpoints().unwrap().claim("main").await;
        let Err(Fatal::Broken(sentence)) = claim else { panic!("it was believed: {claim:?}") };
        assert!(sentence.contains(says) && sentence.contains("remove it"), "{sentence}");
        assert!(!sentence.contains("hunter2"), "{sentence}");
        let outcomes = publish(&*sink, &records(&stream, "k", 0..3)).await;
        assert!(matches!(outcomes[0], Outcome::Fatal(Fatal::Broken(_))), "{outcomes:?}");
        settle(&*sink, "other", &records(&stream, "k", 0..3)).await;
        settle(&*sink, "other", &records(&stream, "k", 0..3)).await;
    }
}

/// One instance after the other takes over while the one before publishes without a pause. What the one before has
/// stored at that moment, the heir knows, whenever it was stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takeovers_under_load() {
    let server = NatsServer::start_own();
    let known = Arc::new(AtomicUsize::new(0));
    let mut holder = connect(process(server.url(), "VIA", &["main"])).await;
    for _ in 0..6 {
        let before = known.load(Ordering::Relaxed);
        let load = tokio::spawn(offer_from(holder.clone(), known.clone()));
        eventually("nothing is published", || known.load(Ordering::Relaxed) >= before + 460).await;
        // A slow line: much is stored between the heir's reading and its claim.
        let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], server.port()))).await.unwrap();
        let heir = connect(process(&format!("nats://127.0.0.1:{}", proxy.port()), "VIA", &["main"])).await;
        health(&*heir, true).await;
        tokio::select! {
            claim = heir.checkpoints().unwrap().claim("main") => drop(claim.unwrap()),
            () = hold_up(&proxy) => {}
        }
        proxy.heal();
        load.await.unwrap();
        heir.close().await;
        // The vendor delivers again what it has not seen acknowledged.
        known.store(known.load(Ordering::Relaxed).saturating_sub(400), Ordering::Relaxed);
        holder = connect(process(server.url(), "VIA", &["main"])).await;
    }
    let first = known.load(Ordering::Relaxed);
    settle(&*holder, "main", &records("VIA", "k", first..first + 500)).await;
    verify(server.url(), "VIA", &counts([("k", first + 500)]), &["main"]).await;
}

/// Lets something pass every few milliseconds only.
async fn hold_up(proxy: &Proxy) {
    loop {
        proxy.stall();
        tokio::time::sleep(Duration::from_millis(10)).await;
        proxy.heal();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Offers batches of 20, from the first record that is not known to be confirmed, until the instance is fenced.
async fn offer_from(sink: Arc<NatsSink>, known: Arc<AtomicUsize>) {
    loop {
        let first = known.load(Ordering::Relaxed);
        let outcomes = publish(&*sink, &records("VIA", "k", first..first + 20)).await;
        match &outcomes[0] {
            Outcome::Confirmed(_) => {
                assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Confirmed(_))));
                known.store(first + 20, Ordering::Relaxed);
            }
            _ => return fenced(&outcomes),
        }
    }
}

/// An instance put up its fence and died. The next one finds what stands before it, and the one before stops.
#[tokio::test]
async fn a_fence_without_a_claim_hides_nothing() {
    let server = NatsServer::start_own();
    let (url, stream) = (server.url(), stream_name());
    let holder = connect(process(url, &stream, &["main"])).await;
    settle(&*holder, "main", &records(&stream, "k", 0..30)).await;
    let context = async_nats::jetstream::new(async_nats::connect(url).await.unwrap());
    for owner in ["aa", "bb"] {
        let text = format!(r#"{{"version":1,"owner":"{owner}","revision":1,"session":null,"records":[]}}"#);
        let headers = async_nats::HeaderMap::from_iter([(
            async_nats::HeaderName::from_static("Viaduct-Fence"),
            async_nats::HeaderValue::from("1"),
        )]);
        let subject = format!("{CHECKPOINTS}main");
        context.publish_with_headers(subject, headers, text.into()).await.unwrap().await.unwrap();
    }
    fenced(&publish(&*holder, &records(&stream, "zombie", 0..10)).await);
    let heir = connect(process(url, &stream, &["main"])).await;
    assert_eq!(heir.checkpoints().unwrap().claim("main").await.unwrap().remembered, 30);
    settle(&*heir, "main", &records(&stream, "k", 0..60)).await;
    verify(url, &stream, &counts([("k", 60)]), &["main"]).await;
}
