//! Servers that die, freeze and lose their answers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use viaduct_testkit::nats::NatsServer;
use viaduct_testkit::proxy::Proxy;

use super::*;

/// Sources that publish batch after batch until they are told to stop.
pub(super) struct Load {
    confirmed: Arc<AtomicUsize>,
    stop: Arc<AtomicUsize>,
    flows: Vec<(String, tokio::task::JoinHandle<usize>)>,
}

impl Load {
    pub(super) fn start(sink: &Arc<NatsSink>, sources: &[&str], size: usize) -> Self {
        let (confirmed, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let flows = sources.iter().map(|source| {
            let (sink, source) = (sink.clone(), (*source).to_owned());
            let flow = flow(sink, source.clone(), size, confirmed.clone(), stop.clone());
            (source, tokio::spawn(flow))
        });
        let flows = flows.collect();
        Self { confirmed, stop, flows }
    }

    /// Waits until so many more records are confirmed.
    pub(super) async fn goes_on(&self, more: usize) {
        let goal = self.confirmed.load(Ordering::Relaxed) + more;
        eventually("nothing is published", || self.confirmed.load(Ordering::Relaxed) >= goal).await;
    }

    /// Ends it; gives how many records each source has published.
    pub(super) async fn finish(self) -> HashMap<String, usize> {
        self.stop.store(1, Ordering::Relaxed);
        let mut counts = HashMap::new();
        for (source, flow) in self.flows {
            counts.insert(source, flow.await.unwrap());
        }
        counts
    }
}

async fn flow(
    sink: Arc<NatsSink>,
    source: String,
    size: usize,
    confirmed: Arc<AtomicUsize>,
    stop: Arc<AtomicUsize>,
) -> usize {
    let mut number = 0;
    while stop.load(Ordering::Relaxed) == 0 {
        settle(&*sink, &source, &records("VIA", &source, number..number + size)).await;
        number += size;
        confirmed.fetch_add(size, Ordering::Relaxed);
    }
    number
}

async fn proxied(server: &NatsServer) -> (Proxy, Arc<NatsSink>) {
    let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], server.port()))).await.unwrap();
    let mut settings = process(&format!("nats://127.0.0.1:{}", proxy.port()), "VIA", &["a", "b", "main"]);
    settings.ack_timeout = Duration::from_millis(500);
    (proxy, connect(settings).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_mid_batch_thirty_times() {
    let server = NatsServer::start_own();
    let sink = connect(process(server.url(), "VIA", &["a", "b"])).await;
    let load = Load::start(&sink, &["a", "b"], 700);
    for round in 0..30_u8 {
        load.goes_on(700 + 70 * usize::from(round % 7)).await;
        // Somewhere in the batch that follows.
        tokio::time::sleep(Duration::from_millis(u64::from(round * 3 % 20))).await;
        server.kill();
        server.restart().unwrap();
    }
    let expected = load.finish().await;
    verify(server.url(), "VIA", &expected, &["a", "b"]).await;
    eventually("old connections stay", || server.connections().unwrap() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_cut_in_mid_batch() {
    let server = NatsServer::start_own();
    let (proxy, sink) = proxied(&server).await;
    let load = Load::start(&sink, &["a", "b"], 900);
    for round in 0..40 {
        load.goes_on(900).await;
        tokio::time::sleep(Duration::from_millis(round % 12)).await;
        proxy.cut();
    }
    let expected = load.finish().await;
    verify(server.url(), "VIA", &expected, &["a", "b"]).await;
}

/// The commit's answer is lost: the batch is found in the checkpoint, and nothing is published again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committed_batch_whose_answer_is_lost_is_recognised() {
    let server = NatsServer::start_own();
    let (proxy, sink) = proxied(&server).await;
    for round in 0..5 {
        let batch = records("VIA", "k", round * 400..(round + 1) * 400);
        settle(&*sink, "main", &batch[..100]).await;
        proxy.lose_answers();
        let publishing = tokio::spawn({
            let (sink, batch) = (sink.clone(), batch[100..].to_vec());
            async move { publish(&*sink, &batch).await }
        });
        down_because(&*sink, "without an answer").await;
        proxy.heal();
        let outcomes = publishing.await.unwrap();
        assert_eq!(held(&outcomes), 300, "the batch was stored, and its answer lost");
    }
    verify(server.url(), "VIA", &counts([("k", 2_000)]), &["main"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_lost_under_load() {
    let server = NatsServer::start_own();
    let (proxy, sink) = proxied(&server).await;
    let load = Load::start(&sink, &["a", "b"], 300);
    for _ in 0..6 {
        load.goes_on(600).await;
        proxy.lose_answers();
        down_because(&*sink, "").await;
        proxy.heal();
    }
    let expected = load.finish().await;
    verify(server.url(), "VIA", &expected, &["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_for_longer_than_an_answer_may_take() {
    let server = NatsServer::start_own();
    let mut settings = process(server.url(), "VIA", &["a", "b"]);
    settings.ack_timeout = Duration::from_millis(400);
    let sink = connect(settings).await;
    let load = Load::start(&sink, &["a", "b"], 300);
    for _ in 0..4 {
        load.goes_on(600).await;
        server.freeze().unwrap();
        down_because(&*sink, "").await;
        // Longer than the server waits for the rest of a batch is not needed: it is told of the broken connection.
        server.thaw().unwrap();
    }
    let expected = load.finish().await;
    verify(server.url(), "VIA", &expected, &["a", "b"]).await;
}

/// The next process goes on where this one was killed, in the middle of whatever it was doing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_ends_in_mid_batch_is_succeeded() {
    let server = NatsServer::start_own();
    let all = records("VIA", "k", 0..2_500);
    for round in 0..15 {
        let sink = connect(process(server.url(), "VIA", &["main"])).await;
        sink.checkpoints().unwrap().claim("main").await.unwrap();
        let publishing = sink.publish(Batch { source: "main", records: &all });
        let _ = tokio::time::timeout(Duration::from_millis(1 + round * 2), publishing).await;
        drop(sink);
    }
    let sink = connect(process(server.url(), "VIA", &["main"])).await;
    settle(&*sink, "main", &all).await;
    let checkpoint = &verify(server.url(), "VIA", &counts([("k", 2_500)]), &["main"]).await["main"];
    assert_eq!(checkpoint.events().count(), 2_500);
}
