//! Records read back from a stream.

use std::sync::Arc;

use async_nats::jetstream::stream::{Config, RetentionPolicy};
use viaduct_sink::{Archive, ArchiveError, Kept, Mark, Names, Numbers};
use viaduct_sink_nats::{NatsArchive, NatsSettings};
use viaduct_testkit::nats::{NatsServer, read_stream};

use crate::support::{make_stream, publish, record, sink, stream_name};

async fn all(archive: &NatsArchive, since_ms: Option<i64>) -> Vec<Kept> {
    let mut reading = archive.read(since_ms).await.unwrap();
    let mut all = Vec::new();
    while let Some(kept) = reading.recv().await {
        all.push(kept.unwrap());
    }
    all
}

fn open(stream: &str, names: Names) -> NatsArchive {
    let settings = NatsSettings::new(vec![NatsServer::shared().url().to_owned()], stream);
    NatsArchive::new(settings, names).unwrap()
}

fn ids(kept: &[Kept]) -> Vec<&str> {
    kept.iter().map(|kept| kept.place.id.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_subject_of_several() {
    let (sink, stream) = sink().await;
    let (dead, other) = (format!("{stream}.dead"), format!("{stream}.dead.more"));
    let archive = open(&stream, Names::One(dead.as_str().into()));
    let records: Vec<_> =
        (0..1000).map(|n| record(if n % 3 == 0 { &dead } else { &other }, None, n)).collect();
    publish(&sink, &records).await;
    let kept = all(&archive, None).await;
    assert_eq!(kept.len(), 334);
    assert_eq!(ids(&kept)[..3], ["1", "4", "7"]);
    assert!(kept[0].header("ce-id").is_some() && kept[0].time_ms.is_some());
    assert_eq!(archive.find("4").await.unwrap().as_ref(), Some(&kept[1]));
    for absent in ["5", "100000"] {
        assert_eq!(archive.find(absent).await.unwrap(), None, "{absent}");
    }
    assert!(archive.knows("4") && !archive.knows("0") && !archive.knows("0:4"));

    archive.prepare().await.unwrap();
    let numbers: Numbers = "1-4,10".parse().unwrap();
    archive.mark(&[Mark { log: dead.as_str().into(), numbers: numbers.clone() }]).await.unwrap();
    let marks = open(&stream, Names::One(dead.as_str().into())).marks().await.unwrap();
    assert_eq!(marks[dead.as_str()], numbers);
    let messages = read_stream(NatsServer::shared().url(), &stream).await.unwrap();
    let mark = messages.last().unwrap();
    assert_eq!((mark.subject.as_str(), mark.header("viaduct-replayed")), (dead.as_str(), Some("1-4,10")));
    assert_eq!(&mark.payload[..], br#"{"replayed":"1-4,10"}"#);
    let now = kept[0].time_ms.unwrap();
    assert_eq!(all(&archive, Some(now)).await.len(), 335);
    assert!(all(&archive, Some(now + 3_600_000)).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn subjects_of_a_template_and_none() {
    let (sink, stream) = sink().await;
    let subject = |end: &str| format!("{stream}.dead-{end}");
    publish(&sink, &[record(&subject("a"), None, 1), record(&subject("b"), None, 2)]).await;
    publish(&sink, &[record(&format!("{stream}.live"), None, 3)]).await;
    let start = format!("{stream}.dead-");
    let matches = {
        let start = start.clone();
        Arc::new(move |name: &str| name.starts_with(&start))
    };
    let archive = open(&stream, Names::Like { prefixes: vec![start], matches });
    assert_eq!(ids(&all(&archive, None).await), ["1", "2"]);
    assert_eq!(archive.find("3").await.unwrap(), None);

    let empty = open(&stream, Names::One(format!("{stream}.nothing").as_str().into()));
    assert!(all(&empty, None).await.is_empty() && empty.marks().await.unwrap().is_empty());
    let no_stream = open("NOSUCHSTREAM", Names::One("x".into()));
    assert!(all(&no_stream, None).await.is_empty());
    let nobody = NatsSettings::new(vec!["nats://127.0.0.1:1".to_owned()], "VIA");
    let nobody = NatsArchive::new(nobody, Names::One("x".into())).unwrap();
    let error = nobody.marks().await.expect_err("nobody is there");
    assert!(matches!(&error, ArchiveError::Unreachable(text) if text.contains("127.0.0.1:1")), "{error}");
}

/// Such a stream removes what somebody has read.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_reading_would_empty_is_left_alone() {
    for retention in [RetentionPolicy::WorkQueue, RetentionPolicy::Interest] {
        let stream = stream_name();
        let config = Config {
            name: stream.clone(),
            subjects: vec![format!("{stream}.>")],
            retention,
            ..Config::default()
        };
        make_stream(NatsServer::shared().url(), config).await;
        let archive = open(&stream, Names::One(format!("{stream}.dead").as_str().into()));
        let error = archive.marks().await.expect_err("it must not be read");
        assert!(
            matches!(&error, ArchiveError::Refused(text) if text.contains("would remove them")),
            "{error}"
        );
    }
}
