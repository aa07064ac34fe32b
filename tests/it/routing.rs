//! Several sources, several sinks, and what the routes make of an event.

use std::time::Duration;

use serde_json::{Value, json};
use viaduct_simulator::{Rate, Settings};
use viaduct_testkit::kafka::{self, KafkaBroker};
use viaduct_testkit::nats::{self, NatsServer};

use crate::kit::bridge::Site;
use crate::kit::destinations::unique;
use crate::kit::vendor::{Vendor, settings};
use crate::kit::wait::until;

const RAW: &str = r#"{"kind":"via#engagementCenterEvent", "eventId":"1-0","correlationId":"c-1","eventType":"engagementCenter.Idle","publishedTime":"2018-01-30T14:04:20.539Z","schemaVersion":1,"payload":"{\"userId\":\"u-1\", \"ehubSessionId\":215,\"payload\":{\"interactionId\":0,\"interactionIdRev\":\"0\",\"n\":1.0,\"big\":12345678901234567890}}","unknown":[1.50]}"#;

fn message(id: &str, event_type: &str, payload: &Value) -> String {
    json!({"kind": "via#messagingEvent", "eventId": id, "correlationId": "c", "eventType": event_type,
           "publishedTime": "2018-01-30T14:04:20.539Z", "schemaVersion": "1", "payload": payload.to_string()})
    .to_string()
}

async fn silent_vendor() -> Vendor {
    Vendor::start(Settings { rate: Rate::PerSecond(0.000_1), total: None, ..settings() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sources_fan_out_to_two_sinks() {
    let (first, second) = (silent_vendor().await, silent_vendor().await);
    let broker = KafkaBroker::shared();
    let server = NatsServer::shared();
    let name = unique("route");
    let configuration = format!(
        r#"
[sink.lake]
type = "kafka"
bootstrap_servers = "{}"
create_topics = true

[sink.bus]
type = "nats"
url = "{}"
stream = "{name}"
create_stream = true

[[route]]
match = ["engagementCenter.*"]
sink = "lake"
to = "{name}.{{source}}.raw"
format = "raw"
key = []

[[route]]                   # the first match of a sink wins: not for engagementCenter
match = ["*"]
sink = "lake"
to = "{name}.all"

[[route]]
match = ["*.Idle", "messaging.EntitySendText"]
sink = "bus"
to = "{name}.{{category}}.{{name}}.{{userId:plain}}"
key = ["ehubSessionId", "userId"]

[[route]]
match = ["outreach.*"]
sink = "none"
"#,
        broker.bootstrap(),
        server.url()
    );
    let second_source = second.source("").replace("[source.main", "[source.other");
    // `outreach.*` matches `*` too: it is published, "none" only allows to drop what matches nothing else.
    let site = Site::new(&[first.source(""), second_source, configuration].concat());
    let bridge = site.start();
    first.0.control().emit_raw(RAW).unwrap();
    second.0.control().emit_raw(RAW).unwrap();
    let text =
        json!({"userId": "99 b7.x", "ehubSessionId": 14, "payload": {"interactionId": 151, "text": "é\n"}});
    second.0.control().emit_raw(&message("2-0", "messaging.EntitySendText", &text)).unwrap();
    second.0.control().emit_raw(&message("3-0", "outreach.status", &json!({"sessionId": "s-1"}))).unwrap();
    until("all is acknowledged", Duration::from_secs(60), async || {
        first.report().acknowledged == 1 && second.report().acknowledged == 3
    })
    .await;

    // Raw: byte for byte, no key, a topic per source.
    for source in ["main", "other"] {
        let records = kafka::read_topic(broker.bootstrap(), &format!("{name}.{source}.raw")).await.unwrap();
        assert_eq!(records.len(), 1, "{source}");
        assert_eq!(records[0].value.as_deref(), Some(RAW.as_bytes()));
        assert_eq!(records[0].key, None);
        // publishedTime
        assert_eq!(records[0].timestamp_ms, Some(1_517_321_060_539));
        let header =
            |name: &str| records[0].header(name).map(|value| String::from_utf8(value.to_vec()).unwrap());
        for (name, value) in [
            ("ce_specversion", "1.0"),
            ("ce_id", "1-0"),
            ("ce_source", "via://acme"),
            ("ce_type", "com.alvaria.engagementCenter.Idle"),
            ("ce_time", "2018-01-30T14:04:20.539Z"),
            ("ce_correlationid", "c-1"),
            ("ce_schemaversion", "1"),
            ("content-type", "application/json"),
        ] {
            assert_eq!(header(name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(header("ce_subject"), None);
    }

    // The rest: unwrapped, under the default key chain.
    let mut rest: Vec<(String, Value)> = kafka::read_topic(broker.bootstrap(), &format!("{name}.all"))
        .await
        .unwrap()
        .into_iter()
        .map(|record| {
            let key = String::from_utf8(record.key.unwrap()).unwrap();
            (key, serde_json::from_slice(&record.value.unwrap()).unwrap())
        })
        .collect();
    rest.sort_by_key(|(key, _)| key.clone());
    assert_eq!(rest.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["151", "s-1"]);
    assert_eq!(rest[0].1["payload"]["payload"]["text"], "é\n");

    // NATS: subjects from payload fields, their characters made fit, and a key chain of the route's own.
    let mut messages = nats::read_stream(server.url(), &name).await.unwrap();
    messages.sort_by(|one, other| one.subject.cmp(&other.subject));
    let subjects: Vec<&str> = messages.iter().map(|message| message.subject.as_str()).collect();
    let idle = format!("{name}.engagementCenter.Idle.u-1");
    // Both sources have the same organisation and the same event: the second one is a duplicate by its Nats-Msg-Id.
    assert_eq!(subjects, [idle.as_str(), &format!("{name}.messaging.EntitySendText.99_b7_x")]);
    assert_eq!(messages[0].header("ce-subject"), Some("215"));
    assert_eq!(messages[1].header("ce-subject"), Some("14"));
    assert_eq!(messages[0].header("ce-type"), Some("com.alvaria.engagementCenter.Idle"));
    assert!(messages[0].header("Nats-Msg-Id").unwrap().starts_with("acme.1-0."));
    assert_eq!(messages[0].header("Nats-Expected-Stream"), Some(name.as_str()));
    // Unwrapped: the payload's text in place of the string, everything else untouched, number text included.
    let payload = r#"{"userId":"u-1", "ehubSessionId":215,"payload":{"interactionId":0,"interactionIdRev":"0","n":1.0,"big":12345678901234567890}}"#;
    let string = serde_json::to_string(payload).unwrap();
    assert_eq!(String::from_utf8(messages[0].payload.to_vec()).unwrap(), RAW.replace(&string, payload));
    drop(bridge);
}
