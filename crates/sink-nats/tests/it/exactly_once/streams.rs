//! Streams that are not what exactly-once delivery needs.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, StorageType};
use viaduct_sink::Refusal;
use viaduct_testkit::nats::{NatsServer, read_stream};

use super::*;

fn old(stream: &str) -> Config {
    Config { name: stream.to_owned(), subjects: vec![format!("{stream}.>")], ..Config::default() }
}

#[tokio::test]
async fn an_old_stream_is_opened_for_batches_where_it_may_be_changed() {
    let server = NatsServer::start_own();
    let (url, stream) = (server.url(), stream_name());
    make_stream(url, Config { max_age: Duration::from_secs(3_600), ..old(&stream) }).await;
    let sink = connect(process(url, &stream, &["main"])).await;
    settle(&*sink, "main", &records(&stream, "k", 0..20)).await;
    let report = sink.inspect(PATIENCE).await.unwrap();
    assert!(report.allow_atomic && report.allow_rollup);
    assert_eq!(report.max_age, Some(Duration::from_secs(3_600)), "the rest of it is as it was");
    assert_eq!(report.dangers_to_checkpoints().len(), 1, "its age can remove a checkpoint");
    verify(url, &stream, &counts([("k", 20)]), &["main"]).await;
}

#[tokio::test]
async fn an_old_stream_is_refused_with_a_hint_where_it_may_not() {
    let server = NatsServer::start_own();
    let (url, stream) = (server.url(), stream_name());
    make_stream(url, old(&stream)).await;
    let mut settings = process(url, &stream, &["main"]);
    settings.create_stream = false;
    let sink = connect(settings).await;
    down_because(&*sink, "exactly-once delivery needs allow_atomic and allow_rollup_hdrs").await;
    for outcome in publish(&*sink, &records(&stream, "k", 0..20)).await {
        let Outcome::Retry(retry) = outcome else { panic!("not a retry: {outcome:?}") };
        assert_eq!(retry.refusal, Some(Refusal::Missing));
        assert!(retry.detail.contains("create_stream"), "{}", retry.detail);
    }
    assert!(
        read_stream(url, &stream).await.unwrap().is_empty(),
        "nothing is published at least once instead"
    );
    // Somebody mends it.
    let context = async_nats::jetstream::new(async_nats::connect(url).await.unwrap());
    let mut config = Config { allow_atomic_publish: true, allow_rollup: true, ..old(&stream) };
    context.update_stream(config.clone()).await.unwrap();
    down_because(&*sink, "does not hold the subject").await;
    assert_eq!(refusal(&publish(&*sink, &records(&stream, "k", 0..2)).await[0]), Some(Refusal::Missing));
    config.subjects.push(format!("{CHECKPOINTS}>"));
    context.update_stream(config).await.unwrap();
    settle(&*sink, "main", &records(&stream, "k", 0..20)).await;
    assert_eq!(health(&*sink, true).await, "");
    verify(url, &stream, &counts([("k", 20)]), &["main"]).await;
}

#[tokio::test]
async fn a_stream_that_is_closed_for_batches_under_way_is_told_and_recovers() {
    let server = NatsServer::start_own();
    let (url, stream) = (server.url(), stream_name());
    let mut settings = process(url, &stream, &["main"]);
    settle(&*connect(settings.clone()).await, "main", &records(&stream, "k", 0..10)).await;
    settings.create_stream = false;
    settings.exactly_once = Some(identity(&["main"]));
    let sink = connect(settings).await;
    settle(&*sink, "main", &records(&stream, "k", 0..20)).await;
    let context = async_nats::jetstream::new(async_nats::connect(url).await.unwrap());
    let config = context.get_stream(&stream).await.unwrap().cached_info().config.clone();
    context.update_stream(Config { allow_atomic_publish: false, ..config.clone() }).await.unwrap();
    let more = records(&stream, "k", 20..40);
    let outcomes = publish(&*sink, &more).await;
    assert_eq!(refusal(&outcomes[0]), Some(Refusal::Missing));
    down_because(&*sink, "needs allow_atomic").await;
    context.update_stream(config).await.unwrap();
    settle(&*sink, "main", &more).await;
    verify(url, &stream, &counts([("k", 40)]), &["main"]).await;
}

#[tokio::test]
async fn a_stream_that_was_deleted_is_created_again() {
    let server = NatsServer::start_own();
    let (url, stream) = (server.url(), stream_name());
    let sink = connect(process(url, &stream, &["main"])).await;
    settle(&*sink, "main", &records(&stream, "old", 0..10)).await;
    let context = async_nats::jetstream::new(async_nats::connect(url).await.unwrap());
    context.delete_stream(&stream).await.unwrap();
    settle(&*sink, "main", &records(&stream, "k", 0..10)).await;
    verify(url, &stream, &counts([("k", 10)]), &["main"]).await;
}

#[tokio::test]
async fn two_bridges_have_a_stream_each() {
    let server = NatsServer::start_own();
    let url = server.url();
    let mut streams = Vec::new();
    for bridge in ["east", "west"] {
        let stream = stream_name();
        let mut settings = process(url, &stream, &["main"]);
        // The sink's name makes it unique on a server that other tests share.
        let sink = format!("bus-{stream}");
        settings.exactly_once = settings.exactly_once.map(|one| viaduct_sink::Identity {
            bridge: bridge.to_owned(),
            sink,
            ..one
        });
        settle(&*connect(settings).await, "main", &records(&stream, "k", 0..10)).await;
        streams.push(stream);
    }
    for stream in streams {
        assert_eq!(read_stream(url, &stream).await.unwrap().len(), 11);
    }
}

#[tokio::test]
async fn a_stream_in_memory_works_and_is_known_to_be_dangerous() {
    let server = NatsServer::start_own();
    let (url, stream) = (server.url(), stream_name());
    make_stream(url, Config { storage: StorageType::Memory, ..old(&stream) }).await;
    let sink = connect(process(url, &stream, &["main"])).await;
    settle(&*sink, "main", &records(&stream, "k", 0..20)).await;
    let report = sink.inspect(PATIENCE).await.unwrap();
    assert!(report.dangers_to_checkpoints()[0].contains("memory"));
    verify(url, &stream, &counts([("k", 20)]), &["main"]).await;
}
