//! Spans, as a collector gets them over OTLP/HTTP, and the `traceparent` of records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use serde_json::Value;
use tokio::net::TcpListener;
use viaduct_simulator::Settings;
use viaduct_testkit::kafka::{self, KafkaBroker};
use viaduct_testkit::nats::{self, NatsServer};

use crate::kit::bridge::Site;
use crate::kit::destinations::{CATEGORIES, Files, Stream, Topics};
use crate::kit::invariants::discreet;
use crate::kit::vendor::{Vendor, settings};

/// What was exported.
#[derive(Debug, Default)]
struct Exported {
    bodies: Vec<Bytes>,
    headers: Vec<HeaderMap>,
}

/// A collector that keeps everything.
#[derive(Debug, Clone, Default)]
struct Collector(Arc<Mutex<Exported>>);

impl Collector {
    /// Starts one; returns it with its address.
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().route("/v1/traces", post(take)).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (collector, address)
    }

    fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        let exported = self.0.lock().unwrap();
        exported.bodies.iter().map(|body| ExportTraceServiceRequest::decode(body.clone()).unwrap()).collect()
    }

    fn spans(&self) -> Vec<Span> {
        let resources = self.requests().into_iter().flat_map(|request| request.resource_spans);
        resources.flat_map(|spans| spans.scope_spans).flat_map(|spans| spans.spans).collect()
    }
}

async fn take(State(Collector(exported)): State<Collector>, headers: HeaderMap, body: Bytes) {
    let mut exported = exported.lock().unwrap();
    exported.bodies.push(body);
    exported.headers.push(headers);
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => text.clone(),
        Some(Any::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    attributes.iter().find(|one| one.key == key).map(|one| text(one.value.as_ref()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `(trace id, span id)` of a `traceparent` that is sampled.
fn parsed(traceparent: &str) -> (String, String) {
    let parts: Vec<&str> = traceparent.split('-').collect();
    let [version, trace, span, flags] = parts[..] else { panic!("{traceparent}") };
    assert_eq!((version, trace.len(), span.len(), flags), ("00", 32, 16, "01"), "{traceparent}");
    (trace.to_owned(), span.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_names_its_batch_and_every_span_stands_in_its_tree() {
    const EVENTS: u64 = 500;
    let (collector, address) = Collector::start().await;
    let vendor = Vendor::start(Settings { total: Some(EVENTS), ..settings() }).await;
    let topics = Topics::new(KafkaBroker::shared().bootstrap());
    let stream = Stream::new(NatsServer::shared().url());
    let structured = Stream::new(NatsServer::shared().url());
    let structured_sink = structured.sink("delivery = \"exactly_once\"").replace("bus", "structured");
    let tracing = format!(
        "format = \"cloudevents\"\n[tracing]\notlp_endpoint = \"{address}\"\n[tracing.headers]\nAuthorization = \"Bearer hunter2-otlp\"\n"
    );
    let configuration =
        [vendor.source("max_events = 50"), topics.sink(""), stream.sink(""), structured_sink, tracing]
            .concat();
    let site = Site::new(&format!("[bridge]\nname = \"tower\"\n{configuration}"));
    let mut bridge = site.start();
    vendor.all_acknowledged(Duration::from_secs(60)).await;
    let (status, took) = bridge.terminate().await;
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(10), "{took:?}");

    let requests = collector.requests();
    for resource in requests.iter().flat_map(|request| &request.resource_spans) {
        let attributes = &resource.resource.as_ref().unwrap().attributes;
        assert_eq!(attribute(attributes, "service.name").as_deref(), Some("viaduct"));
        assert_eq!(attribute(attributes, "viaduct.bridge").as_deref(), Some("tower"));
        assert_eq!(resource.scope_spans[0].scope.as_ref().unwrap().name, "viaduct");
    }
    {
        let exported = collector.0.lock().unwrap();
        assert!(exported.headers.iter().all(|headers| headers["authorization"] == "Bearer hunter2-otlp"));
        for body in &exported.bodies {
            discreet("an export", &String::from_utf8_lossy(body)).none();
        }
    }

    // The tree.
    let spans = collector.spans();
    let by_id: BTreeMap<(Vec<u8>, Vec<u8>), &Span> =
        spans.iter().map(|span| ((span.trace_id.clone(), span.span_id.clone()), span)).collect();
    assert_eq!(by_id.len(), spans.len(), "a span is exported once");
    let operation = |span: &Span| attribute(&span.attributes, "messaging.operation.name").unwrap();
    let number = |span: &Span, key| attribute(&span.attributes, key).unwrap().parse::<u64>().unwrap();
    let (mut batched, mut published) = (0, BTreeMap::<String, u64>::new());
    let mut publishes_of = BTreeMap::<(String, String), BTreeSet<String>>::new();
    for span in &spans {
        assert!(span.status.as_ref().is_none_or(|status| status.code == 0), "{span:?}");
        let parent = by_id.get(&(span.trace_id.clone(), span.parent_span_id.clone()));
        match operation(span).as_str() {
            "poll" => {
                assert_eq!(span.parent_span_id, Vec::<u8>::new());
                assert_eq!(span.kind(), SpanKind::Client);
                assert_eq!(number(span, "http.response.status_code"), 200);
            }
            "process" => {
                let poll = parent.unwrap();
                assert_eq!(operation(poll), "poll");
                assert_eq!(span.kind(), SpanKind::Consumer);
                assert!(number(span, "messaging.batch.message_count") <= 50);
                assert!(poll.start_time_unix_nano <= span.start_time_unix_nano);
                batched += number(span, "messaging.batch.message_count");
            }
            "publish" => {
                let batch = parent.unwrap();
                assert_eq!(operation(batch), "process");
                assert!(batch.start_time_unix_nano <= span.start_time_unix_nano);
                assert!(
                    batch.end_time_unix_nano >= span.end_time_unix_nano,
                    "a batch lasts until all is published"
                );
                let sink = attribute(&span.attributes, "viaduct.sink").unwrap();
                let system = attribute(&span.attributes, "messaging.system").unwrap();
                assert_eq!(system, if sink == "lake" { "kafka" } else { "nats" });
                *published.entry(sink.clone()).or_default() += number(span, "messaging.batch.message_count");
                let links = span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id)));
                let own = (hex(&span.trace_id), hex(&span.parent_span_id));
                for batch in links.chain([own]) {
                    publishes_of.entry(batch).or_default().insert(sink.clone());
                }
            }
            other => panic!("a span for {other}"),
        }
    }
    let report = vendor.report();
    assert_eq!(batched, report.emitted);
    assert_eq!(published.keys().collect::<Vec<_>>(), ["bus", "lake", "structured"]);
    assert!(published.values().all(|count| *count == report.emitted), "{published:?}");
    assert!(spans.len() < 200, "{} spans for {EVENTS} events", spans.len());

    // The records.
    let belongs = |traceparent: &str, sink: &str| {
        let batch = parsed(traceparent);
        assert!(
            publishes_of.get(&batch).is_some_and(|sinks| sinks.contains(sink)),
            "{traceparent} in {sink}"
        );
    };
    let (mut ids, mut on_kafka) = (Vec::new(), 0);
    for category in CATEGORIES {
        for message in kafka::read_topic(&topics.bootstrap, &topics.topic(category)).await.unwrap_or_default()
        {
            let own: Vec<_> = message.headers.iter().filter(|(name, _)| name == "traceparent").collect();
            let [(_, value)] = own[..] else { panic!("{:?}", message.headers) };
            belongs(std::str::from_utf8(value).unwrap(), "lake");
            on_kafka += 1;
            let id = message.headers.iter().find(|(name, _)| name == "ce_id").unwrap();
            ids.push(String::from_utf8(id.1.clone()).unwrap());
        }
    }
    assert_eq!(on_kafka, report.emitted);
    let mut on_nats = 0;
    for message in nats::read_stream(&stream.url, &stream.name).await.unwrap() {
        belongs(message.header("traceparent").unwrap(), "bus");
        on_nats += 1;
    }
    assert_eq!(on_nats, report.emitted);
    let records = nats::read_stream(&structured.url, &structured.name).await.unwrap();
    for message in records.iter().filter(|message| !message.subject.starts_with("_viaduct.")) {
        assert_eq!(message.header("traceparent"), None);
        let value: Value = serde_json::from_slice(&message.payload).unwrap();
        belongs(value["traceparent"].as_str().unwrap(), "structured");
    }
    // Nothing of an event stands in a span, not even its id.
    let exported: String = spans.iter().map(|span| format!("{span:?}")).collect();
    assert!(ids.iter().all(|id| !exported.contains(id.as_str())));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_stay_as_they_are_where_tracing_is_off_or_nothing_is_sampled() {
    let (collector, address) = Collector::start().await;
    let unsampled = format!("[tracing]\notlp_endpoint = \"{address}\"\nsample_ratio = 0\n");
    for tracing in [String::new(), unsampled] {
        let vendor = Vendor::start(Settings { total: Some(50), ..settings() }).await;
        let topics = Topics::new(KafkaBroker::shared().bootstrap());
        let stream = Stream::new(NatsServer::shared().url());
        let site = Site::new(&[vendor.source(""), topics.sink(""), stream.sink(""), tracing].concat());
        let mut bridge = site.start();
        vendor.all_acknowledged(Duration::from_secs(60)).await;
        assert!(bridge.terminate().await.0.success());
        let mut records = 0;
        for category in CATEGORIES {
            for message in
                kafka::read_topic(&topics.bootstrap, &topics.topic(category)).await.unwrap_or_default()
            {
                assert!(message.headers.iter().all(|(name, _)| name != "traceparent"));
                records += 1;
            }
        }
        assert!(records > 0);
        for message in nats::read_stream(&stream.url, &stream.name).await.unwrap() {
            assert_eq!(message.header("traceparent"), None);
        }
    }
    assert_eq!(collector.requests().len(), 0);
}

/// Neither a port where nobody listens nor a collector that never answers is noticed by events or by the shutdown.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_holds_up_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = viaduct_testkit::native::free_port().unwrap();
    for port in [closed, silent.local_addr().unwrap().port()] {
        let vendor = Vendor::start(Settings { total: Some(3_000), ..settings() }).await;
        let folder = tempfile::tempdir().unwrap();
        let files = Files(folder.path().to_owned());
        let tracing = format!("[tracing]\notlp_endpoint = \"http://127.0.0.1:{port}\"\n");
        let site = Site::new(&[vendor.source("max_events = 10"), files.sink(), tracing].concat());
        let mut bridge = site.start();
        vendor.all_acknowledged(Duration::from_secs(60)).await;
        // So that an export is tried while the bridge runs: each five seconds.
        tokio::time::sleep(Duration::from_secs(6)).await;
        let (status, took) = bridge.terminate().await;
        assert!(status.success(), "{status}");
        assert!(took < Duration::from_secs(6), "the end took {took:?}");
        assert_eq!(files.read().len(), 3_000);
        let told = site.log().matches("spans cannot be exported").count();
        assert!(told <= 1, "told {told} times");
        if port == closed {
            assert_eq!(told, 1, "{}", site.log());
        }
    }
}
