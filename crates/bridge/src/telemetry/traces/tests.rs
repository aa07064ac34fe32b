//! What is exported, without a collector.

use opentelemetry::trace::SpanId;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::SpanData;
use viaduct_poller::FailureKind;
use viaduct_sink::outcome::Position;
use viaduct_sink::{Receipt, RejectReason, Rejection};

use super::*;
use crate::config::{LoadInput, load};

#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl opentelemetry_sdk::trace::SpanExporter for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

impl Kept {
    fn take(&self) -> Vec<SpanData> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn config() -> Config {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("viaduct.toml");
    let text = "[source.main]\napi_url = \"https://acme.example:8443\"\norg_id = \"acme\"\n[source.main.auth]\n\
        token_url = \"https://acme.example/token\"\nclient_id = \"hunter2\"\nclient_secret = \"hunter2\"\napi_key = \"hunter2\"\n\
        [sink.lake]\ntype = \"kafka\"\nbootstrap_servers = \"localhost:9092\"\n\
        [tracing]\notlp_endpoint = \"http://localhost:4318\"\n";
    std::fs::write(&file, text).unwrap();
    load(LoadInput { file: Some(file), ..LoadInput::default() }).unwrap().config
}

fn traces(sample_ratio: f64) -> (Traces, Kept) {
    let kept = Kept::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(kept.clone())
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sample_ratio))))
        .build();
    (Traces::new(provider, &config()), kept)
}

fn poll(traces: &Traces, number: u64, entries: usize) {
    let took = Duration::from_millis(250);
    let request = Observation::Request { operation: Operation::Events, status: Some(200), took };
    traces.observe("main", &request);
    traces.observe("main", &Observation::Polled { number, entries });
}

fn record(destination: &str) -> Record {
    Record {
        destination: destination.into(),
        key: Some("canary-key".into()),
        headers: Vec::new(),
        value: "canary-value".into(),
        timestamp_ms: None,
        message_id: "canary-id".into(),
        event: "canary-id".into(),
    }
}

fn confirmed() -> Outcome {
    Outcome::Confirmed(Receipt::attest(Position::Kafka { partition: 0, offset: 7 }))
}

/// Its attributes, one a line.
fn attributes(span: &SpanData) -> String {
    let mut lines: Vec<String> =
        span.attributes.iter().map(|one| format!("{} = {}\n", one.key, one.value)).collect();
    lines.sort();
    lines.concat()
}

#[test]
fn a_publish_stands_under_its_batch_and_that_under_its_poll() {
    let (traces, kept) = traces(1.0);
    poll(&traces, 1, 3);
    let batch = traces.batch("main", Some(1), 2).unwrap();
    let records = [record("via.chat"), record("via.chat")];
    let publish = traces.publish("main", "lake", &records, [Some(&batch), Some(&batch)].into_iter()).unwrap();
    publish.end(&[confirmed(), confirmed()]);
    let traceparent = batch.traceparent().clone();
    drop(batch);

    let spans = kept.take();
    let [poll, publish, batch] = &spans[..] else { panic!("{spans:?}") };
    let names = [poll, batch, publish].map(|span| (&*span.name, span.span_kind.clone()));
    let kinds = [SpanKind::Client, SpanKind::Consumer, SpanKind::Client];
    assert_eq!(names.clone().map(|(name, _)| name), ["poll main", "process main", "publish via.chat"]);
    assert_eq!(names.map(|(_, kind)| kind), kinds);
    assert_eq!(poll.parent_span_id, SpanId::INVALID);
    assert_eq!(batch.parent_span_id, poll.span_context.span_id());
    assert_eq!(publish.parent_span_id, batch.span_context.span_id());
    let ids = [poll, batch, publish].map(|span| span.span_context.trace_id());
    assert_eq!(ids, [ids[0]; 3]);
    assert_eq!(*traceparent, format!("00-{}-{}-01", ids[0], batch.span_context.span_id()));
    assert!(poll.end_time.duration_since(poll.start_time).unwrap() >= Duration::from_millis(250));
    assert!(spans.iter().all(|span| span.status == Status::Unset && span.links.is_empty()));
    insta::assert_snapshot!(attributes(poll), @"
    http.request.method = GET
    http.response.status_code = 200
    messaging.batch.message_count = 3
    messaging.destination.name = main
    messaging.operation.name = poll
    messaging.operation.type = receive
    messaging.system = alvaria
    server.address = acme.example
    server.port = 8443
    viaduct.source = main
    ");
    insta::assert_snapshot!(attributes(batch), @"
    messaging.batch.message_count = 2
    messaging.destination.name = main
    messaging.operation.name = process
    messaging.operation.type = process
    messaging.system = alvaria
    viaduct.source = main
    ");
    insta::assert_snapshot!(attributes(publish), @"
    messaging.batch.message_count = 2
    messaging.destination.name = via.chat
    messaging.operation.name = publish
    messaging.operation.type = send
    messaging.system = kafka
    viaduct.confirmed = 2
    viaduct.sink = lake
    viaduct.source = main
    ");
}

#[test]
fn a_publish_of_several_batches_is_linked_to_the_others() {
    let (traces, kept) = traces(1.0);
    poll(&traces, 1, 1);
    poll(&traces, 2, 1);
    // In another order than they came.
    let second = traces.batch("main", Some(2), 1).unwrap();
    let first = traces.batch("main", Some(1), 1).unwrap();
    let records = [record("a"), record("b"), record("a")];
    let batches = [Some(&first), Some(&second), Some(&first)].into_iter();
    let publish = traces.publish("main", "lake", &records, batches).unwrap();
    let refused = Rejection { reason: RejectReason::TooLarge, detail: "canary-detail".into() };
    publish.end(&[confirmed(), Outcome::Rejected(refused), confirmed()]);
    let span = kept.take().pop().unwrap();
    assert_eq!(span.name, "publish lake");
    assert_eq!(span.parent_span_id, first.context.span_id());
    let links: Vec<SpanContext> = span.links.iter().map(|link| link.span_context.clone()).collect();
    assert_eq!(links, std::slice::from_ref(&second.context));
    assert_eq!(span.status, Status::error("1 of 3 records not published"));
    insta::assert_snapshot!(attributes(&span), @r#"
    error.type = too_large
    messaging.batch.message_count = 3
    messaging.operation.name = publish
    messaging.operation.type = send
    messaging.system = kafka
    viaduct.confirmed = 2
    viaduct.destinations = ["a","b"]
    viaduct.sink = lake
    viaduct.source = main
    "#);
}

#[test]
fn a_poll_that_failed_is_an_error_by_itself() {
    let (traces, kept) = traces(1.0);
    let took = Duration::from_secs(1);
    for (status, kind) in [
        (Some(503), FailureKind::Server),
        (None, FailureKind::TimedOut),
        (Some(200), FailureKind::Unreadable),
    ] {
        traces.observe("main", &Observation::Request { operation: Operation::Events, status, took });
        traces.observe("main", &Observation::PollFailed { kind });
        let span = kept.take().pop().unwrap();
        assert_eq!(span.status, Status::error(kind.as_str()));
        let error = status
            .filter(|&status| status >= 300)
            .map_or(kind.as_str().to_owned(), |status| status.to_string());
        assert!(attributes(&span).contains(&format!("error.type = {error}\n")), "{}", attributes(&span));
    }
    // What was never sent is no poll.
    traces.observe("main", &Observation::PollFailed { kind: FailureKind::Secret });
    assert!(kept.take().is_empty());
}

#[test]
fn what_is_not_sampled_leaves_nothing() {
    let (traces, kept) = traces(0.0);
    poll(&traces, 1, 1);
    assert!(traces.batch("main", Some(1), 1).is_none());
    assert!(traces.batch("main", None, 1).is_none());
    assert!(traces.publish("main", "lake", &[record("a")], [None].into_iter()).is_none());
    assert!(kept.take().is_empty());
}

#[test]
fn what_came_from_the_spool_is_a_trace_of_its_own() {
    let (traces, kept) = traces(1.0);
    poll(&traces, 1, 1);
    drop(traces.batch("main", None, 1).unwrap());
    let spans = kept.take();
    assert_eq!(spans[1].parent_span_id, SpanId::INVALID);
    assert_ne!(spans[0].span_context.trace_id(), spans[1].span_context.trace_id());
}

#[test]
fn polls_that_nobody_asks_for_are_forgotten() {
    let (traces, _) = traces(1.0);
    for number in 1..=1_000 {
        poll(&traces, number, 1);
    }
    let answered = traces.sources["main"].polls.lock().unwrap().answered.len();
    assert_eq!(answered, POLLS_KEPT);
    assert!(traces.batch("main", Some(1), 1).is_none());
    assert!(traces.batch("main", Some(1_000), 1).is_some());
    assert!(traces.batch("main", Some(1_000), 1).is_none(), "one batch per poll");
}
