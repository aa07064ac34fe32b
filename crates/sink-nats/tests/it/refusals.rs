//! What the server says no to: mendable, or never to be.

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use bytes::Bytes;
use viaduct_sink::{Outcome, Refusal, RejectReason, Sink};
use viaduct_sink_nats::NatsSink;
use viaduct_testkit::nats::{NatsOptions, NatsServer, read_stream};

use crate::support::*;

fn rejection(outcome: &Outcome) -> RejectReason {
    match outcome {
        Outcome::Rejected(rejection) => rejection.reason,
        other => panic!("not rejected: {other:?}"),
    }
}

#[tokio::test]
async fn what_is_no_subject_is_rejected_and_holds_nothing_back() {
    let (sink, stream) = sink().await;
    let subjects = ["a..b", "", "a b", "a.*", "a.>", "$JS.API.STREAM.LIST", "a.\u{1}"];
    let mut records: Vec<_> =
        subjects.iter().enumerate().map(|(n, subject)| record(subject, Some("k"), n)).collect();
    records.push(record(&format!("{stream}.x"), Some("k"), 0));
    let outcomes = publish(&sink, &records).await;
    for outcome in &outcomes[..subjects.len()] {
        assert_eq!(rejection(outcome), RejectReason::InvalidDestination);
    }
    sequence(&outcomes[subjects.len()]);
}

#[tokio::test]
async fn what_is_larger_than_the_server_or_the_stream_takes_is_rejected() {
    let server = NatsServer::start_with(NatsOptions { config: "max_payload: 2000\n".into() });
    let config = Config {
        name: "VIA".into(),
        subjects: vec!["VIA.small".into()],
        max_message_size: 400,
        ..Config::default()
    };
    make_stream(server.url(), config).await;
    let sink = NatsSink::connect(settings(server.url(), "VIA")).await.unwrap();
    let sized = |number, size| {
        let mut record = record("VIA.small", Some("k"), number);
        record.value = Bytes::from(vec![b'1'; size]);
        record
    };
    let outcomes = publish(&sink, &[sized(0, 10), sized(1, 500), sized(2, 3000), sized(3, 10)]).await;
    assert!(sequence(&outcomes[0]) < sequence(&outcomes[3]));
    assert_eq!(rejection(&outcomes[1]), RejectReason::TooLarge);
    assert_eq!(rejection(&outcomes[2]), RejectReason::TooLarge);
    assert_eq!(server.connections().unwrap(), 1, "the connection was not lost over it");
}

#[tokio::test]
async fn a_subject_without_a_stream_is_refused_until_there_is_one() {
    let server = NatsServer::shared();
    let stream = stream_name();
    let mut settings = settings(server.url(), &stream);
    settings.create_stream = false;
    let sink = NatsSink::connect(settings).await.unwrap();
    down_because(&sink, "does not exist").await;
    let records =
        [record(&format!("{stream}.x"), Some("k"), 0), record(&format!("{stream}.y"), Some("k"), 1)];
    let outcomes = publish(&sink, &records).await;
    assert_eq!(refusal(&outcomes[0]), Some(Refusal::Missing));
    assert_eq!(refusal(&outcomes[1]), None, "held back behind the first of its key");
    let subjects = vec![format!("{stream}.>")];
    make_stream(server.url(), Config { name: stream.clone(), subjects, ..Config::default() }).await;
    assert_eq!(health(&sink, true).await, "");
    let sequences: Vec<u64> = publish(&sink, &records).await.iter().map(sequence).collect();
    assert_eq!(sequences, [1, 2]);
}

#[tokio::test]
async fn a_subject_that_the_stream_does_not_hold_is_refused_alone() {
    let (sink, stream) = sink().await;
    let elsewhere = format!("{}-elsewhere", stream);
    let records = [
        record(&format!("{stream}.x"), Some("a"), 0),
        record(&format!("{elsewhere}.x"), Some("b"), 0),
        record(&format!("{stream}.y"), Some("c"), 0),
    ];
    let outcomes = publish(&sink, &records).await;
    assert!(sequence(&outcomes[0]) < sequence(&outcomes[2]));
    let Outcome::Retry(retry) = &outcomes[1] else { panic!("not a retry: {:?}", outcomes[1]) };
    assert_eq!(retry.refusal, Some(Refusal::Missing));
    assert!(retry.detail.contains(&elsewhere), "{}", retry.detail);
    // Another stream takes it: that is not the one it is meant for.
    let subjects = vec![format!("{elsewhere}.>")];
    make_stream(
        NatsServer::shared().url(),
        Config { name: elsewhere.clone(), subjects, ..Config::default() },
    )
    .await;
    let outcomes = publish(&sink, &records[1..2]).await;
    assert_eq!(refusal(&outcomes[0]), Some(Refusal::Missing));
    assert!(read_stream(NatsServer::shared().url(), &elsewhere).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_stream_that_was_deleted_is_created_again() {
    let (sink, stream) = sink().await;
    let records = [record(&format!("{stream}.x"), None, 0)];
    publish(&sink, &records).await;
    let client = async_nats::connect(NatsServer::shared().url()).await.unwrap();
    async_nats::jetstream::new(client).delete_stream(&stream).await.unwrap();
    assert_eq!(refusal(&publish(&sink, &records).await[0]), None);
    assert_eq!(sequence(&publish(&sink, &records).await[0]), 1);
}

#[tokio::test]
async fn a_full_stream_refuses_the_rest_in_order_and_recovers() {
    let (url, stream) = (NatsServer::shared().url(), stream_name());
    let config = Config {
        name: stream.clone(),
        subjects: vec![format!("{stream}.>")],
        max_messages: 5,
        discard: DiscardPolicy::New,
        ..Config::default()
    };
    make_stream(url, config).await;
    let sink = NatsSink::connect(settings(url, &stream)).await.unwrap();
    let records: Vec<_> = (0..9).map(|number| record(&format!("{stream}.x"), Some("k"), number)).collect();
    let outcomes = publish(&sink, &records).await;
    assert_eq!(outcomes[..5].iter().map(sequence).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(refusal(&outcomes[5]), Some(Refusal::Full));
    assert!(outcomes[6..].iter().all(|outcome| refusal(outcome).is_none()), "held back behind the first");
    down_because(&sink, "maximum messages exceeded").await;
    let client = async_nats::connect(url).await.unwrap();
    async_nats::jetstream::new(client).get_stream(&stream).await.unwrap().purge().await.unwrap();
    let sequences: Vec<u64> = publish(&sink, &records[5..]).await.iter().map(sequence).collect();
    assert_eq!(sequences, [6, 7, 8, 9]);
    assert_eq!(health(&sink, true).await, "");
}

#[tokio::test]
async fn a_stream_that_cannot_work_is_told_with_its_reason() {
    let url = NatsServer::shared().url();
    let (silent, narrow) = (stream_name(), stream_name());
    let config = |name: &String, subject: &str, no_ack| Config {
        name: name.clone(),
        subjects: vec![format!("{name}.{subject}")],
        no_ack,
        ..Config::default()
    };
    make_stream(url, config(&silent, ">", true)).await;
    make_stream(url, config(&narrow, "one", false)).await;
    let sink = NatsSink::connect(settings(url, &silent)).await.unwrap();
    down_because(&sink, "never acknowledges").await;
    let mut verified = settings(url, &narrow);
    verified.create_stream = false;
    let sink = NatsSink::connect(verified).await.unwrap();
    down_because(&sink, "does not hold the subjects").await;
    assert!(sink.inspect(PATIENCE).await.unwrap().covers(&format!("{narrow}.one")));
    sequence(&publish(&sink, &[record(&format!("{narrow}.one"), None, 0)]).await[0]);
    assert!(!sink.health().borrow().up, "it takes some subjects, and still not all of them");
}
