//! Events that cannot be published: dead letters first, then acknowledged; and refusals that end in time, or do not.

use std::time::Duration;

use serde_json::{Value, json};
use viaduct_simulator::{Rate, Settings};
use viaduct_testkit::kafka::{self, KafkaBroker};
use viaduct_testkit::nats::{self, NatsServer};

use crate::kit::bridge::Site;
use crate::kit::destinations::{Stream, Topics, lines, unique};
use crate::kit::vendor::{Vendor, settings};
use crate::kit::wait::until;

fn entry(id: &str, event_type: &str, payload: &str) -> String {
    json!({"kind": "via#engagementCenterEvent", "eventId": id, "correlationId": "c", "eventType": event_type,
           "publishedTime": "2018-01-30T14:04:20.539Z", "schemaVersion": "1", "payload": payload})
    .to_string()
}

/// No events but those that a test gives.
async fn silent_vendor() -> Vendor {
    Vendor::start(Settings { rate: Rate::PerSecond(0.000_1), total: None, ..settings() }).await
}

async fn all_away(vendor: &Vendor, count: u64) {
    until("all are acknowledged or forgotten", Duration::from_secs(60), async || {
        let report = vendor.report();
        report.acknowledged + report.forgotten == count
    })
    .await;
}

/// Unrouted, malformed, without an id, too large: into the local file, the good ones flow.
#[tokio::test(flavor = "multi_thread")]
async fn into_the_local_file() {
    let broker = KafkaBroker::shared();
    let vendor = silent_vendor().await;
    let topic = unique("dead");
    kafka::create_topic(broker.bootstrap(), &topic, 1, &[("max.message.bytes", "20000")]).await.unwrap();
    let sink = format!(
        "[sink.lake]\ntype = \"kafka\"\nbootstrap_servers = \"{}\"\n\
         [[route]]\nmatch = [\"engagementCenter.*\"]\nsink = \"lake\"\nto = \"{topic}\"\n",
        broker.bootstrap()
    );
    let site = Site::new(&[vendor.source(""), sink].concat());
    let bridge = site.start();
    let control = vendor.0.control();
    control.emit_raw(&entry("1-0", "engagementCenter.Idle", r#"{"userId":"a"}"#)).unwrap();
    control.emit_raw(&entry("2-0", "outreach.status", "{}")).unwrap();
    control.emit_raw(r#"{"eventId":"3-0","eventType":7,"payload":"{}"}"#).unwrap();
    control.emit_raw(r#"{"eventType":"engagementCenter.Idle","payload":"{}"}"#).unwrap();
    let large = format!(r#"{{"userId":"{}"}}"#, "x".repeat(30_000));
    control.emit_raw(&entry("5-0", "engagementCenter.Idle", &large)).unwrap();
    control.emit_raw(&entry("6-0", "engagementCenter.Idle", r#"{"userId":"b"}"#)).unwrap();
    all_away(&vendor, 6).await;

    let published: Vec<Value> = kafka::read_topic(broker.bootstrap(), &topic)
        .await
        .unwrap()
        .into_iter()
        .map(|message| serde_json::from_slice(&message.value.unwrap()).unwrap())
        .collect();
    let ids: Vec<&str> = published.iter().map(|value| value["eventId"].as_str().unwrap()).collect();
    assert_eq!(ids, ["1-0", "6-0"]);
    let mut reasons: Vec<(String, Value)> = lines(&site.path("state/dead-letters"))
        .into_iter()
        .map(|(_, line)| {
            (line["headers"]["viaduct-reason"].as_str().unwrap().to_owned(), line["event"]["eventId"].clone())
        })
        .collect();
    reasons.sort_by_key(|(reason, _)| reason.clone());
    let expected = [
        ("malformed", json!("3-0")),
        ("no_id", Value::Null),
        ("too_large", json!("5-0")),
        ("unrouted", json!("2-0")),
    ];
    assert_eq!(reasons, expected.map(|(reason, id)| (reason.to_owned(), id)));
    let (_, metrics) = bridge.get("/metrics").await.unwrap();
    for reason in ["malformed", "no_id", "too_large", "unrouted"] {
        let line = format!("viaduct_events_dead_lettered_total{{source=\"main\",reason=\"{reason}\"}} 1");
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
}

/// Dead letters in a sink: the raw event as the value, the reason in headers.
#[tokio::test(flavor = "multi_thread")]
async fn into_a_sink() {
    let vendor = silent_vendor().await;
    let stream = Stream::new(NatsServer::shared().url());
    let dead = format!("{}.dead-letter", stream.name);
    let topics = Topics::new(KafkaBroker::shared().bootstrap());
    let site = Site::new(
        &[
            vendor.source(""),
            stream.sink("").replace("match = [\"*\"]", "match = [\"messaging.*\"]"),
            topics.sink("").replace("match = [\"*\"]", "match = [\"messaging.*\"]"),
            format!("[dead_letter]\nsink = \"bus\"\nto = \"{dead}\"\n"),
        ]
        .concat(),
    );
    let _bridge = site.start();
    let raw = entry("1-0", "engagementCenter.Idle", r#"{"userId":"a","n":1.0}"#);
    vendor.0.control().emit_raw(&raw).unwrap();
    all_away(&vendor, 1).await;
    let messages = nats::read_stream(&stream.url, &stream.name).await.unwrap();
    let message = messages.iter().find(|message| message.subject == dead).expect("the dead letter is there");
    assert_eq!(message.payload, raw.as_bytes());
    assert_eq!(message.header("viaduct-reason"), Some("unrouted"));
    assert_eq!(message.header("viaduct-source"), Some("main"));
    assert_eq!(message.header("__connect.errors.stage"), Some("ROUTE"));
}

/// A missing topic is retried, told, and recovers by itself; other topics flow meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_created_in_time() {
    let broker = KafkaBroker::shared();
    let vendor = Vendor::start(Settings { total: Some(600), ..settings() }).await;
    let topics = Topics::new(broker.bootstrap());
    for category in ["outreach", "messaging"] {
        kafka::create_topic(broker.bootstrap(), &topics.topic(category), 1, &[]).await.unwrap();
    }
    let sink = topics.sink("").replace("create_topics = true\npartitions = 3", "create_topics = false");
    let site = Site::new(&[vendor.source(""), sink].concat());
    let bridge = site.start();
    let missing = topics.topic("engagementCenter");
    let reason = bridge.not_ready(&format!("topic {missing} does not exist")).await;
    assert!(reason.contains("sink lake"), "{reason}");
    until("the other categories are acknowledged", Duration::from_secs(30), async || {
        let report = vendor.report();
        let others = ["outreach", "messaging"].map(|category| report.categories[category]);
        others.iter().all(|counts| counts.acknowledged == counts.emitted && counts.emitted > 0)
    })
    .await;
    assert_eq!(vendor.report().categories["engagementCenter"].acknowledged, 0);
    let (_, metrics) = bridge.get("/metrics").await.unwrap();
    assert!(metrics.contains("viaduct_sink_up{sink=\"lake\"} 0"), "{metrics}");
    kafka::create_topic(broker.bootstrap(), &missing, 1, &[]).await.unwrap();
    vendor.all_acknowledged(Duration::from_secs(60)).await;
    bridge.ready().await;
    assert_eq!(topics.read().await.len(), 600);
}

/// When `refused_after` is over, the refused records become dead letters.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_never_created() {
    let broker = KafkaBroker::shared();
    let vendor = Vendor::start(Settings { total: Some(100), ..settings() }).await;
    let topics = Topics::new(broker.bootstrap());
    let sink = topics
        .sink("refused_after = \"1s\"")
        .replace("create_topics = true\npartitions = 3", "create_topics = false");
    let site = Site::new(&[vendor.source(""), sink].concat());
    let _bridge = site.start();
    vendor.all_acknowledged(Duration::from_secs(60)).await;
    let buried = lines(&site.path("state/dead-letters"));
    assert_eq!(buried.len(), 100);
    assert!(buried.iter().all(|(_, line)| line["headers"]["viaduct-reason"] == "refused"));
    let intended = buried[0].1["headers"]["viaduct-destination"].as_str().unwrap();
    assert!(intended.starts_with(&topics.prefix), "{intended}");
}
