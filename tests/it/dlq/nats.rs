//! Dead letters in a JetStream stream.

use std::time::Duration;

use viaduct_testkit::nats::{self, NatsServer, StoredMessage};

use super::{changed, dlq, dlq_with, entry, listed, silent_vendor, texts};
use crate::kit::bridge::Site;
use crate::kit::destinations::Stream;
use crate::kit::wait::until;

async fn published(stream: &Stream) -> Vec<StoredMessage> {
    let messages = nats::read_stream(&stream.url, &stream.name).await.unwrap();
    let live = |message: &StoredMessage| message.header("ce-id").is_some();
    messages.into_iter().filter(live).collect()
}

/// Dead letters and events in one exactly-once stream; the bridge runs on.
#[tokio::test(flavor = "multi_thread")]
async fn listed_shown_and_replayed() {
    let vendor = silent_vendor().await;
    let stream = Stream::new(NatsServer::shared().url());
    let dead = format!("{}.dead", stream.name);
    let site = Site::new(
        &[
            format!("[bridge]\nname = \"{}\"\n", stream.name),
            vendor.source(""),
            stream
                .sink("delivery = \"exactly_once\"")
                .replace("match = [\"*\"]", "match = [\"engagementCenter.*\"]"),
            format!("[dead_letter]\nsink = \"bus\"\nto = \"{dead}\"\n"),
        ]
        .concat(),
    );
    let mut bridge = site.start();
    bridge.ready().await;
    dlq(&site, &["replay", "--all"]).is(0, "0 replayed");
    let control = vendor.0.control();
    let raw = entry("2-0", "outreach.status", r#"{"sessionId":"s","n":1.0}"#);
    control.emit_raw(&entry("1-0", "engagementCenter.Idle", r#"{"userId":"a"}"#)).unwrap();
    control.emit_raw(&raw).unwrap();
    control.emit_raw(&entry("3-0", "messaging.Typing", r#"{"userId":"a"}"#)).unwrap();
    let away = async |count: u64| {
        until("all are acknowledged", Duration::from_secs(60), async || {
            vendor.report().acknowledged == count
        })
        .await;
    };
    away(3).await;

    let lines = listed(&site, &[]);
    assert_eq!(texts(&lines, "eventId"), ["2-0", "3-0"]);
    assert_eq!(texts(&lines, "reason"), ["unrouted", "unrouted"]);
    let ids = texts(&lines, "id");
    assert_eq!(dlq(&site, &["show", &ids[0], "--raw"]).out, format!("{raw}\n"));
    assert!(dlq(&site, &["show", &ids[0]]).out.contains(&format!("subject {dead} (sink bus)")));
    assert_eq!(texts(&listed(&site, &["--since", "1h", "--type", "*.Typing"]), "id"), [ids[1].clone()]);
    dlq(&site, &["show", "99999"]).fails(65, "there is no dead letter 99999");
    dlq(&site, &["show", "1"]).fails(65, "there is no dead letter 1 in");

    let fixed = changed(&site, "match = [\"engagementCenter.*\"]", "match = [\"*\"]");
    let replay = |more: &[&str]| dlq_with(fixed.clone(), &[&["replay"], more].concat());
    replay(&["--all", "--dry-run"]).is(0, "2 would be replayed; nothing is published or marked");
    replay(&[&ids[0]]).is(0, "1 replayed");
    replay(&["--all"]).is(0, "1 replayed, 1 already replayed");
    replay(&["--all"]).is(0, "0 replayed, 2 already replayed");
    let subjects = |messages: &[StoredMessage]| -> Vec<String> {
        messages.iter().map(|message| message.subject.replace(&stream.name, "S")).collect()
    };
    let all = published(&stream).await;
    assert_eq!(subjects(&all), ["S.engagementCenter.Idle", "S.outreach.status", "S.messaging.Typing"]);
    // Within the stream's duplicate window the server has that record, and stores no second one.
    replay(&["--again", "--all"]).is(0, "2 replayed");
    assert_eq!(published(&stream).await.len(), 3);
    dlq(&site, &["list", "--replayed"]).is(0, "2 dead letters: 2 unrouted");

    control.emit_raw(&entry("6-0", "engagementCenter.Idle", r#"{"userId":"b"}"#)).unwrap();
    away(4).await;
    assert!(bridge.is_running());
    let (status, _) = bridge.terminate().await;
    assert_eq!(status.code(), Some(0), "{}", site.log());
    assert_eq!(vendor.report().sessions_created, 1);
    assert_eq!(published(&stream).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_there() {
    let vendor = silent_vendor().await;
    let sink = Stream { url: "nats://127.0.0.1:1".to_owned(), name: "NONE".to_owned() }.sink("");
    let site = Site::new(&[vendor.source(""), sink, "[dead_letter]\nsink = \"bus\"\n".to_owned()].concat());
    for args in [&["list"][..], &["show", "1"], &["replay", "--all"]] {
        dlq(&site, args).fails(69, "cannot connect to 127.0.0.1:1");
    }
}
