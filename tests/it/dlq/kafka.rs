//! Dead letters in a Kafka topic.

use std::time::Duration;

use serde_json::{Value, json};
use viaduct_testkit::kafka::{self, KafkaBroker, KafkaMessage};

use super::{changed, dlq, dlq_with, entry, listed, silent_vendor, texts};
use crate::kit::bridge::Site;
use crate::kit::destinations::unique;
use crate::kit::vendor::Vendor;
use crate::kit::wait::until;

async fn away(vendor: &Vendor, count: u64) {
    until("all are acknowledged or forgotten", Duration::from_secs(60), async || {
        let report = vendor.report();
        report.acknowledged + report.forgotten == count
    })
    .await;
}

async fn read(topic: &str) -> Vec<KafkaMessage> {
    kafka::read_topic(KafkaBroker::shared().bootstrap(), topic).await.unwrap()
}

async fn ids(topic: &str) -> Vec<String> {
    let value = |message: KafkaMessage| -> Value { serde_json::from_slice(&message.value.unwrap()).unwrap() };
    read(topic)
        .await
        .into_iter()
        .map(|message| value(message)["eventId"].as_str().unwrap().to_owned())
        .collect()
}

/// From the first list to the last mark, beside an exactly-once bridge that must not notice.
#[tokio::test(flavor = "multi_thread")]
async fn listed_shown_and_replayed() {
    let bootstrap = KafkaBroker::shared().bootstrap();
    let (vendor, name) = (silent_vendor().await, unique("dlq"));
    let (small, dead) = (format!("{name}.engagementCenter"), format!("{name}.dead"));
    kafka::create_topic(bootstrap, &small, 1, &[("max.message.bytes", "20000")]).await.unwrap();
    let route = format!("[[route]]\nmatch = [\"engagementCenter.*\"]\nsink = \"lake\"\nto = \"{small}\"\n");
    let site = Site::new(
        &[
            format!("[bridge]\nname = \"{name}\"\n"),
            vendor.source(""),
            format!(
                "[sink.lake]\ntype = \"kafka\"\nbootstrap_servers = \"{bootstrap}\"\ncreate_topics = true\n\
                 partitions = 3\ndelivery = \"exactly_once\"\n"
            ),
            route.clone(),
            format!("[dead_letter]\nsink = \"lake\"\nto = \"{dead}\"\n"),
        ]
        .concat(),
    );
    dlq(&site, &["list"]).is(
        0,
        &format!(
            "no dead letters in topic {dead} (sink lake) and {}",
            site.path("state/dead-letters/dead-letters.jsonl").display()
        ),
    );
    dlq(&site, &["replay", "--all"]).is(0, "0 replayed");

    let mut bridge = site.start();
    bridge.ready().await;
    let control = vendor.0.control();
    let unrouted = entry("2-0", "outreach.status", r#"{"sessionId":"s","n":1.0}"#);
    let large = entry("5-0", "engagementCenter.Idle", &format!(r#"{{"userId":"{}"}}"#, "x".repeat(30_000)));
    control.emit_raw(&entry("1-0", "engagementCenter.Idle", r#"{"userId":"a"}"#)).unwrap();
    control.emit_raw(&unrouted).unwrap();
    control.emit_raw(r#"{"eventId":"3-0","eventType":7,"payload":"{}"}"#).unwrap();
    control.emit_raw(r#"{"eventType":"engagementCenter.Idle","payload":"{}"}"#).unwrap();
    control.emit_raw(&large).unwrap();
    away(&vendor, 5).await;

    let lines = listed(&site, &[]);
    let mut reasons = texts(&lines, "reason");
    reasons.sort();
    assert_eq!(reasons, ["malformed", "no_id", "too_large", "unrouted"]);
    let of = |reason: &str| lines.iter().find(|line| line["reason"] == reason).unwrap();
    let line = of("unrouted");
    assert_eq!(
        (&line["eventType"], &line["eventId"], &line["source"], &line["destination"], &line["replayed"]),
        (&json!("outreach.status"), &json!("2-0"), &json!("main"), &Value::Null, &json!(false))
    );
    assert_eq!(of("too_large")["destination"], small.as_str());
    let found = |filter: &[&str]| texts(&listed(&site, filter), "eventId");
    assert_eq!(found(&["--reason", "unrouted"]), ["2-0"]);
    assert_eq!(found(&["--type", "outreach.*"]), ["2-0"]);
    assert_eq!(found(&["--since", "1h"]).len(), 4);
    assert!(found(&["--until", "1h"]).is_empty() && found(&["--source", "other"]).is_empty());
    assert_eq!(found(&["--limit", "2"]).len(), 2);
    dlq(&site, &["list"]).is(0, "4 dead letters: 1 malformed, 1 no_id, 1 too_large, 1 unrouted");

    let id = line["id"].as_str().unwrap();
    let shown = dlq(&site, &["show", id]).out;
    for part in
        ["unrouted: no route matched", "outreach.status", "\n    \"n\": 1.0\n", &format!("topic {dead}")]
    {
        assert!(shown.contains(part), "{part:?} is not in {shown}");
    }
    assert_eq!(dlq(&site, &["show", id, "--raw"]).out, format!("{unrouted}\n"));
    dlq(&site, &["show", "local"])
        .fails(64, "ids look like 0:17 (partition and offset) or local:17 (a line)");
    dlq(&site, &["show", "0:99999"]).fails(65, &format!("there is no dead letter 0:99999 in topic {dead}"));
    dlq(&site, &["replay"]).fails(64, "which dead letters are to be replayed is not said");
    dlq(&site, &["replay", "--limit", "1"]).fails(64, "or --all");
    dlq(&site, &["list", "--reason", "unroutet"]).fails(64, "unrouted");

    // Nothing has changed: what failed fails again, and stays what it is.
    let before = read(&dead).await;
    let said = dlq(&site, &["replay", "--all"]);
    said.is(65, "0 replayed, 4 left as they were (cannot be replayed 2, too_large 1, unrouted 1)");
    assert!(said.err.contains("4 of 4 dead letters could not be replayed"), "{}", said.err);
    assert!(
        said.err.contains(&format!("{id} (2-0 outreach.status) stays, unrouted: no route")),
        "{}",
        said.err
    );
    assert_eq!(read(&dead).await, before);

    let both = format!(
        "[[route]]\nmatch = [\"engagementCenter.*\"]\nsink = \"lake\"\nto = \"{name}.large\"\n\
         [[route]]\nmatch = [\"outreach.*\"]\nsink = \"lake\"\nto = \"{name}.{{category}}\"\n"
    );
    let fixed = changed(&site, &route, &both);
    let replay = |more: &[&str]| dlq_with(fixed.clone(), &[&["replay"], more].concat());
    let dry = replay(&["--all", "--dry-run"]);
    dry.is(65, "2 would be replayed, 2 cannot be replayed; nothing is published or marked");
    assert!(
        dry.out.contains(&format!("main 2-0 outreach.status\n  -> lake {name}.outreach\n")),
        "{}",
        dry.out
    );
    assert_eq!(read(&dead).await, before);

    replay(&["--reason", "unrouted"]).is(0, "1 replayed");
    assert_eq!(ids(&format!("{name}.outreach")).await, ["2-0"]);
    let message = &read(&format!("{name}.outreach")).await[0];
    assert_eq!(message.header("ce_id"), Some(&b"2-0"[..]));
    assert_eq!(message.timestamp_ms, Some(1_517_321_060_539));
    let some = "1 replayed, 2 left as they were (cannot be replayed 2), 1 already replayed";
    replay(&["--all"]).is(65, some);
    assert_eq!(ids(&format!("{name}.large")).await, ["5-0"]);
    replay(&["--type", "*.Idle", "--reason", "too_large"]).is(0, "0 replayed, 1 already replayed");
    replay(&[id]).is(0, "0 replayed, 1 already replayed");
    assert_eq!(ids(&format!("{name}.outreach")).await, ["2-0"]);
    replay(&["--again", id]).is(0, "1 replayed");
    assert_eq!(ids(&format!("{name}.outreach")).await, ["2-0", "2-0"]);
    replay(&[id, "0:99999"]).fails(65, "not found: 1 of the ids");

    dlq(&site, &["list"]).is(0, "2 dead letters: 1 malformed, 1 no_id");
    dlq(&site, &["list", "--replayed"]).is(0, "2 dead letters: 1 too_large, 1 unrouted");
    dlq(&site, &["list", "--all"]).is(0, "4 dead letters: 1 malformed, 1 no_id, 1 too_large, 1 unrouted");
    assert!(dlq(&site, &["show", id]).out.contains("replayed      yes"));

    // The bridge goes on in its session, owner of its transactions.
    control.emit_raw(&entry("6-0", "engagementCenter.Idle", r#"{"userId":"b"}"#)).unwrap();
    away(&vendor, 6).await;
    assert_eq!(ids(&small).await, ["1-0", "6-0"]);
    assert!(bridge.is_running());
    assert_eq!(vendor.report().sessions_created, 1);
    let (status, _) = bridge.terminate().await;
    assert_eq!(status.code(), Some(0), "{}", site.log());
    assert!(!site.log().contains("fenced"), "{}", site.log());
}

/// A replay that fails in another way makes one new dead letter of the old one, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn what_fails_in_another_way_is_a_new_dead_letter() {
    let bootstrap = KafkaBroker::shared().bootstrap();
    let (vendor, name) = (silent_vendor().await, unique("dlq"));
    let dead = format!("{name}.dead");
    kafka::create_topic(bootstrap, &dead, 2, &[]).await.unwrap();
    let route = "[[route]]\nmatch = [\"messaging.*\"]\nsink = \"lake\"\n";
    let site = Site::new(
        &[
            vendor.source(""),
            format!("[sink.lake]\ntype = \"kafka\"\nbootstrap_servers = \"{bootstrap}\"\n{route}"),
            format!("[dead_letter]\nsink = \"lake\"\nto = \"{dead}\"\n"),
        ]
        .concat(),
    );
    let mut bridge = site.start();
    vendor.0.control().emit_raw(&entry("1-0", "outreach.status", "{}")).unwrap();
    away(&vendor, 1).await;
    bridge.terminate().await;
    let missing = format!("{name}.missing");
    let fixed =
        changed(&site, route, &format!("[[route]]\nmatch = [\"*\"]\nsink = \"lake\"\nto = \"{missing}\"\n"));

    let replay = |more: &[&str]| dlq_with(fixed.clone(), &[&["replay", "--all"], more].concat());
    let said = replay(&[]);
    said.is(65, "0 replayed, 1 dead-lettered again (refused 1)");
    assert!(said.err.contains(&format!("topic {missing} does not exist")), "{}", said.err);
    let lines = listed(&site, &[]);
    assert_eq!(
        (texts(&lines, "reason"), texts(&lines, "destination")),
        (vec!["refused".into()], vec![missing.clone()])
    );
    assert_eq!(texts(&listed(&site, &["--replayed"]), "reason"), ["unrouted"]);
    replay(&[]).is(65, "0 replayed, 1 left as they were (refused 1), 1 already replayed");
    assert_eq!(listed(&site, &["--all"]).len(), 2);
    kafka::create_topic(bootstrap, &missing, 1, &[]).await.unwrap();
    replay(&[]).is(0, "1 replayed, 1 already replayed");
    assert_eq!(ids(&missing).await, ["1-0"]);
}

/// Topics of a template, the local file beside them, and brokers that are not there.
#[tokio::test(flavor = "multi_thread")]
async fn several_places() {
    let bootstrap = KafkaBroker::shared().bootstrap();
    let (vendor, name) = (silent_vendor().await, unique("dlq"));
    // What the dead letters' own topic does not take stands in the local file.
    kafka::create_topic(bootstrap, &format!("{name}.dead.messaging"), 1, &[("max.message.bytes", "5000")])
        .await
        .unwrap();
    let site = Site::new(
        &[
            vendor.source(""),
            format!(
                "[sink.lake]\ntype = \"kafka\"\nbootstrap_servers = \"{bootstrap}\"\ncreate_topics = true\n\
                 [[route]]\nmatch = [\"none.*\"]\nsink = \"lake\"\n"
            ),
            format!("[dead_letter]\nsink = \"lake\"\nto = \"{name}.dead.{{category}}\"\n"),
        ]
        .concat(),
    );
    let bridge = site.start();
    let control = vendor.0.control();
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(10_000));
    control.emit_raw(&entry("1-0", "outreach.status", "{}")).unwrap();
    control.emit_raw(&entry("2-0", "messaging.Typing", "{}")).unwrap();
    control.emit_raw(&entry("3-0", "messaging.Typing", &large)).unwrap();
    away(&vendor, 3).await;
    let lines = listed(&site, &[]);
    let mut ids_of = texts(&lines, "id");
    ids_of.sort();
    assert_eq!(
        ids_of,
        [format!("{name}.dead.messaging:0:0"), format!("{name}.dead.outreach:0:0"), "local:1".into()]
    );
    assert_eq!(lines.last().unwrap()["eventId"], "3-0");

    let fixed = changed(&site, "none.*", "*");
    let fixed_text = std::fs::read_to_string(&fixed).unwrap();
    let to = format!("sink = \"lake\"\nto = \"{name}.live\"\n");
    std::fs::write(&fixed, fixed_text.replacen("sink = \"lake\"\n", &to, 1)).unwrap();
    dlq_with(fixed.clone(), &["replay", "local:1", &ids_of[0]]).is(0, "2 replayed");
    dlq_with(fixed.clone(), &["replay", "--all"]).is(0, "1 replayed, 2 already replayed");
    let mut published = ids(&format!("{name}.live")).await;
    published.sort();
    assert_eq!(published, ["1-0", "2-0", "3-0"]);
    drop(bridge);

    let nobody = changed(&site, bootstrap, "127.0.0.1:1");
    dlq_with(nobody, &["list"]).fails(69, "127.0.0.1:1");
}
