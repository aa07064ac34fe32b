//! What a batch holds, and how many there are.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::value::RawValue;
use viaduct_sink::outcome::Position;
use viaduct_sink::{Outcome, Sink};
use viaduct_testkit::nats::{NatsOptions, NatsServer, read_stream};

use super::*;

#[tokio::test]
async fn records_and_their_checkpoint_are_one_batch() {
    let server = NatsServer::start_own();
    let (url, stream) = (server.url(), stream_name());
    let sink = connect(process(url, &stream, &["main"])).await;
    let outcomes = publish(&*sink, &records(&stream, "k", 0..5)).await;
    assert_eq!(outcomes.iter().map(sequence).collect::<Vec<_>>(), [2, 3, 4, 5, 6], "behind the claim");
    let stored = read_stream(url, &stream).await.unwrap();
    let batch = stored[0].header("Nats-Batch-Id").unwrap();
    assert!(stored.iter().all(|message| message.header("Nats-Batch-Id") == Some(batch)), "one batch");
    let last = stored.last().unwrap();
    assert_eq!(last.subject, format!("{CHECKPOINTS}main"));
    assert_eq!((last.sequence, last.header("Nats-Batch-Commit")), (7, Some("1")));
    assert_eq!(stored[0].header("Nats-Expected-Stream"), Some(stream.as_str()));
    let report = sink.inspect(PATIENCE).await.unwrap();
    assert_eq!(report.subjects, [format!("{stream}.>"), format!("{CHECKPOINTS}>")]);
    assert_eq!(report.exactly_once_problem(), None);
    assert!(report.dangers_to_checkpoints().is_empty());
    let checkpoint = &verify(url, &stream, &counts([("k", 5)]), &["main"]).await["main"];
    assert_eq!(checkpoint.events().count(), 5);
}

#[tokio::test]
async fn more_than_a_batch_takes_is_split_in_order() {
    let server = NatsServer::start_own();
    let (url, stream) = (server.url(), stream_name());
    let sink = connect(process(url, &stream, &["main"])).await;
    let outcomes = publish(&*sink, &records(&stream, "k", 0..3_500)).await;
    assert!(outcomes.iter().map(sequence).is_sorted());
    // 999 records and a checkpoint each, none of which stays but the last; the claim is the first message.
    assert_eq!(sequence(&outcomes[3_499]), 1 + 3_500 + 3);
    let checkpoint = &verify(url, &stream, &counts([("k", 3_500)]), &["main"]).await["main"];
    assert_eq!(checkpoint.events().count(), 3_500);
    assert_eq!(checkpoint.revision, 5, "a claim and four batches");
}

#[tokio::test]
async fn a_smaller_limit_of_the_server_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        format!("jetstream {{ store_dir: {:?}, limits {{ batch {{ max_msgs: 100 }} }} }}\n", dir.path());
    let server = NatsServer::start_with(NatsOptions { config });
    let sink = connect(process(server.url(), "VIA", &["main"])).await;
    settle(&*sink, "main", &records("VIA", "k", 0..350)).await;
    settle(&*sink, "main", &records("VIA", "k", 350..700)).await;
    verify(server.url(), "VIA", &counts([("k", 700)]), &["main"]).await;
    let stored = read_stream(server.url(), "VIA").await.unwrap();
    let mut sizes: HashMap<&str, usize> = HashMap::new();
    for message in &stored {
        *sizes.entry(message.header("Nats-Batch-Id").unwrap()).or_default() += 1;
    }
    assert!(sizes.values().all(|size| *size <= 100), "{sizes:?}");
    assert!(sizes.len() <= 9, "no smaller than needed: {sizes:?}");
}

#[tokio::test]
async fn large_records_make_smaller_batches() {
    let server = NatsServer::start_own();
    let (url, stream) = (server.url(), stream_name());
    let sink = connect(process(url, &stream, &["main"])).await;
    let mut all = records(&stream, "k", 0..24);
    for (number, record) in all.iter_mut().enumerate() {
        let text = format!("{{\"key\":\"k\",\"number\":{number},\"fill\":\"{}\"}}", "x".repeat(900_000));
        record.value = text.into();
    }
    settle(&*sink, "main", &all).await;
    let checkpoint = &verify(url, &stream, &counts([("k", 24)]), &["main"]).await["main"];
    assert_eq!(checkpoint.revision, 4, "a claim and three batches of nine, nine and six");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sources_at_a_time() {
    let server = NatsServer::start_own();
    let (url, stream) = (server.url(), stream_name());
    let names: Vec<String> = (0..60).map(|source| format!("s{source:02}")).collect();
    let sources: Vec<&str> = names.iter().map(String::as_str).collect();
    let sink = connect(process(url, &stream, &sources)).await;
    let mut work = tokio::task::JoinSet::new();
    for source in names.clone() {
        let (sink, stream) = (sink.clone(), stream.clone());
        work.spawn(async move {
            for batch in 0..3 {
                settle(&*sink, &source, &records(&stream, &source, batch * 50..(batch + 1) * 50)).await;
            }
        });
    }
    work.join_all().await;
    let expected = names.iter().map(|source| (source.clone(), 150)).collect();
    verify(url, &stream, &expected, &sources).await;
}

#[tokio::test]
async fn what_waits_meanwhile_shares_a_batch() {
    let server = NatsServer::start_own();
    let (url, stream) = (server.url(), stream_name());
    let sink = connect(process(url, &stream, &["main"])).await;
    // The claim is under way while both arrive.
    let (events, letters) = (records(&stream, "k", 0..10), records(&stream, "l", 0..10));
    let (one, other) = tokio::join!(publish(&*sink, &events), publish(&*sink, &letters));
    assert_eq!(sequence(&one[0]) + 10, sequence(&other[0]), "nothing stands between them");
    let checkpoint = &verify(url, &stream, &counts([("k", 10), ("l", 10)]), &["main"]).await["main"];
    assert_eq!((checkpoint.revision, checkpoint.events().count()), (2, 20), "a claim and one batch");
}

#[tokio::test]
async fn a_record_that_is_offered_twice_at_a_time_stands_there_once() {
    let server = NatsServer::start_own();
    let (url, stream) = (server.url(), stream_name());
    let sink = connect(process(url, &stream, &["main"])).await;
    let once = records(&stream, "k", 0..4);
    let twice = [once.clone(), once.clone()].concat();
    let outcomes = publish(&*sink, &twice).await;
    assert_eq!(held(&outcomes), 4);
    assert!(matches!(position(&outcomes[0]), Position::Stream { duplicate: false, .. }));
    verify(url, &stream, &counts([("k", 4)]), &["main"]).await;
}

#[tokio::test]
async fn a_session_is_written_without_records_and_with_the_claim() {
    let server = NatsServer::start_own();
    let (url, stream) = (server.url(), stream_name());
    let session = |id: usize| Some(RawValue::from_string(format!("{{\"session_id\":\"s-{id}\"}}")).unwrap());
    let sink = connect(process(url, &stream, &["main"])).await;
    let checkpoints = sink.checkpoints().unwrap();
    // Before anybody has claimed.
    checkpoints.session("main", session(1));
    checkpoints.claim("main").await.unwrap();
    written(url, &stream, "s-1").await;
    checkpoints.session("main", session(2));
    written(url, &stream, "s-2").await;
}

/// Waits until the checkpoint names the session.
async fn written(url: &str, stream: &str, session: &str) {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let stored = read_stream(url, stream).await.unwrap();
        if stored.iter().any(|message| String::from_utf8_lossy(&message.payload).contains(session)) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "session {session} is not written");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_source_that_is_not_configured_is_told() {
    let sink = connect(process(NatsServer::start_own().url(), &stream_name(), &["main"])).await;
    assert!(sink.checkpoints().unwrap().claim("other").await.is_err());
    let batch = [record("VIA.x", None, 0)];
    let outcome = sink.publish(Batch { source: "other", records: &batch }).await.remove(0);
    assert!(matches!(outcome, Outcome::Fatal(_)), "{outcome:?}");
}
