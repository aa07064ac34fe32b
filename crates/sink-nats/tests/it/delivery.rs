//! Records arrive as they are, in order, each confirmed by its sequence.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use viaduct_sink::outcome::Position;
use viaduct_sink::{Attribute, Header, HeaderName, Outcome, Sink};
use viaduct_sink_nats::NatsSink;
use viaduct_testkit::nats::{NatsServer, read_stream};

use crate::support::*;

#[tokio::test]
async fn a_record_arrives_with_its_headers() {
    let (sink, stream) = sink().await;
    let mut record = record(&format!("{stream}.chat"), Some("4711"), 0);
    record.headers.push(Header { name: HeaderName::CloudEvent(Attribute::Subject), value: "ü 1".into() });
    record.headers.push(Header { name: HeaderName::ContentType, value: "application/json".into() });
    let outcomes = publish(&sink, std::slice::from_ref(&record)).await;
    assert_eq!(sequence(&outcomes[0]), 1);
    let stored = read_stream(NatsServer::shared().url(), &stream).await.unwrap().remove(0);
    assert_eq!((stored.subject.as_str(), &stored.payload), (&*record.destination, &record.value));
    assert_eq!(stored.header("ce-id"), Some("0"));
    assert_eq!(stored.header("ce-subject"), Some("%C3%BC%201"));
    assert_eq!(stored.header("content-type"), Some("application/json"));
    assert_eq!(stored.header("Nats-Msg-Id"), Some("acme.4711.0"));
    assert_eq!(stored.header("Nats-Expected-Stream"), Some(stream.as_str()));
    assert_eq!(health(&sink, true).await, "");
}

#[tokio::test]
async fn many_records_of_many_sources_keep_their_order() {
    let (sink, stream) = sink().await;
    let sink = Arc::new(sink);
    let mut sources = tokio::task::JoinSet::new();
    for source in 0..4 {
        let (sink, stream) = (sink.clone(), stream.clone());
        sources.spawn(async move {
            for batch in 0..5 {
                let records: Vec<_> = (batch * 300..(batch + 1) * 300)
                    .map(|number| {
                        record(&format!("{stream}.s{}", number % 3), Some(&format!("k{source}")), number)
                    })
                    .collect();
                let sequences: Vec<u64> = publish(&*sink, &records).await.iter().map(sequence).collect();
                assert!(sequences.is_sorted());
            }
        });
    }
    sources.join_all().await;
    let stored = read_stream(NatsServer::shared().url(), &stream).await.unwrap();
    let expected: HashMap<String, usize> = (0..4).map(|source| (format!("k{source}"), 1500)).collect();
    assert_eq!(assert_ordered(&stored, &expected), 0);
}

#[tokio::test]
async fn a_message_id_that_the_stream_knows_is_confirmed_and_stored_once() {
    let (sink, stream) = sink().await;
    let records = [record(&format!("{stream}.x"), None, 0)];
    publish(&sink, &records).await;
    let again = publish(&sink, &records).await.remove(0);
    let Outcome::Confirmed(receipt) = again else { panic!("not confirmed: {again:?}") };
    assert_eq!(receipt.position(), Position::Stream { sequence: 1, duplicate: true });
    assert_eq!(read_stream(NatsServer::shared().url(), &stream).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_created_stream_is_durable_and_open_for_atomic_batches() {
    let (sink, stream) = sink().await;
    health(&sink, true).await;
    let report = sink.inspect(PATIENCE).await.unwrap();
    assert_eq!(report.subjects, [format!("{stream}.>")]);
    assert_eq!((report.replicas, report.storage, report.discard), (1, StorageType::File, DiscardPolicy::Old));
    assert_eq!((report.max_age, report.max_messages, report.max_bytes), (None, None, None));
    assert_eq!(report.retention, RetentionPolicy::Limits);
    assert!(report.allow_atomic && report.allow_rollup && report.allow_direct && !report.distributed);
    assert_eq!(report.duplicate_window, Duration::from_secs(120));
}

#[tokio::test]
async fn subjects_are_added_to_a_stream_that_lacks_them() {
    let (url, stream) = (NatsServer::shared().url(), stream_name());
    let subjects = vec![format!("{stream}.old.>"), format!("{stream}.new.special")];
    let config =
        Config { name: stream.clone(), subjects, max_age: Duration::from_secs(3600), ..Config::default() };
    make_stream(url, config).await;
    let mut settings = settings(url, &stream);
    settings.subjects = vec![format!("{stream}.new.>"), format!("{stream}.old.x")];
    let sink = NatsSink::connect(settings).await.unwrap();
    sequence(&publish(&sink, &[record(&format!("{stream}.new.a.b"), None, 0)]).await[0]);
    let report = sink.inspect(PATIENCE).await.unwrap();
    assert_eq!(report.subjects, [format!("{stream}.old.>"), format!("{stream}.new.>")]);
    assert_eq!(report.max_age, Some(Duration::from_secs(3600)), "the rest of the stream is as it was");
}

#[tokio::test]
async fn closing_ends_the_sink_once_and_for_all() {
    let (sink, stream) = sink().await;
    let records = [record(&format!("{stream}.x"), None, 0)];
    publish(&sink, &records).await;
    sink.close().await;
    sink.close().await;
    assert_eq!(refusal(&publish(&sink, &records).await[0]), None);
    assert_eq!(health(&sink, false).await, "closed");
}
