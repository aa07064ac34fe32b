//! A stream of three replicas.

use std::time::Duration;

use viaduct_testkit::nats::NatsServer;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_step_down_and_die_under_load() {
    let cluster = NatsServer::start_cluster(3);
    let mut settings = process(cluster[0].url(), "VIA", &["a", "b"]);
    settings.urls = cluster.iter().map(|server| server.url().to_owned()).collect();
    settings.replicas = 3;
    settings.ack_timeout = Duration::from_secs(2);
    let sink = connect(settings).await;
    health(&*sink, true).await;
    let report = sink.inspect(PATIENCE).await.unwrap();
    assert!(report.distributed && report.replicas == 3);

    let load = super::faults::Load::start(&sink, &["a", "b"], 300);
    let client = async_nats::connect(cluster[0].url()).await.unwrap();
    for _ in 0..8 {
        load.goes_on(600).await;
        // Whether this one is heard does not matter: some are.
        let _ = client.request("$JS.API.STREAM.LEADER.STEPDOWN.VIA", "".into()).await;
    }
    for node in &cluster {
        load.goes_on(600).await;
        node.kill();
        load.goes_on(600).await;
        node.restart().unwrap();
    }
    let expected = load.finish().await;
    verify(cluster[1].url(), "VIA", &expected, &["a", "b"]).await;
}
