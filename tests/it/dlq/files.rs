//! Dead letters in files.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use viaduct_testkit::kafka::{self, KafkaBroker};

use super::{changed, dlq, dlq_with, entry, listed, silent_vendor, texts};
use crate::kit::bridge::{Site, viaduct};
use crate::kit::destinations::{Files, lines, unique};
use crate::kit::vendor::Vendor;
use crate::kit::wait::until;

async fn away(vendor: &Vendor, count: u64) {
    until("all are acknowledged", Duration::from_secs(60), async || vendor.report().acknowledged == count)
        .await;
}

/// The local file, which the bridge goes on writing to; masked once, and with the same key as ever.
#[tokio::test(flavor = "multi_thread")]
async fn the_local_file_and_masks() {
    let vendor = silent_vendor().await;
    let name = unique("dlq");
    let bootstrap = KafkaBroker::shared().bootstrap();
    let route = "[[route]]\nmatch = [\"messaging.*\"]\nsink = \"lake\"\n";
    let site = Site::new(
        &[
            vendor.source(""),
            format!("[sink.lake]\ntype = \"kafka\"\nbootstrap_servers = \"{bootstrap}\"\ncreate_topics = true\n{route}"),
            "[mask]\nfields = { customerName = \"hash\", phone = \"last4\" }\nhash_key = \"hunter2-hunter2-hunter2\"\n"
                .to_owned(),
        ]
        .concat(),
    );
    let mut bridge = site.start();
    let control = vendor.0.control();
    let payload = r#"{"sessionId":"s","customerName":"Frost","phone":"6035551212"}"#;
    control.emit_raw(&entry("1-0", "outreach.status", payload)).unwrap();
    away(&vendor, 1).await;
    let line = listed(&site, &["--since", "1h"]).remove(0);
    assert_eq!(line["id"], "local:1");
    let shown = dlq(&site, &["show", "local:1"]).out;
    assert!(shown.contains("masked        yes") && shown.contains("***1212"), "{shown}");
    assert!(!shown.contains("Frost") && !shown.contains("603555"), "{shown}");

    let to = format!("[[route]]\nmatch = [\"*\"]\nsink = \"lake\"\nto = \"{name}\"\n");
    let fixed = changed(&site, route, &to);
    dlq_with(fixed.clone(), &["replay", "--all"]).is(0, "1 replayed");
    dlq_with(fixed.clone(), &["replay", "--all"]).is(0, "0 replayed, 1 already replayed");
    // The bridge has the file still, and a replay that needs it says so instead of waiting.
    control.emit_raw(&entry("2-0", "outreach.status", payload)).unwrap();
    away(&vendor, 2).await;
    assert_eq!(texts(&listed(&site, &[]), "id"), ["local:2"]);
    let missing = changed(&site, "create_topics = true", "create_topics = false");
    let text = std::fs::read_to_string(&missing).unwrap().replace(route, &to.replace(&name, "no-such-topic"));
    std::fs::write(&missing, text).unwrap();
    dlq_with(missing, &["replay", "--all"])
        .is(65, "0 replayed, 1 left as they were (refused 1), 1 already replayed");
    bridge.terminate().await;

    // A new event through today's configuration has the same values.
    std::fs::write(site.config(), std::fs::read_to_string(site.config()).unwrap().replace(route, &to))
        .unwrap();
    let _bridge = site.start();
    control.emit_raw(&entry("3-0", "outreach.status", payload)).unwrap();
    away(&vendor, 3).await;
    let values: Vec<Value> = kafka::read_topic(bootstrap, &name)
        .await
        .unwrap()
        .into_iter()
        .map(|message| serde_json::from_slice(&message.value.unwrap()).unwrap())
        .collect();
    assert_eq!(values.len(), 2);
    assert_eq!(values[0]["payload"], values[1]["payload"]);
    assert_eq!(values[0]["payload"]["phone"], "***1212");
}

/// A file sink whose dead letters rotate, and a replay into files.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_rotate() {
    let vendor = silent_vendor().await;
    let folder = tempfile::tempdir().unwrap();
    let files = Files(folder.path().to_owned());
    let sink = files.sink().replace("match = [\"*\"]", "match = [\"messaging.*\"]");
    let sink = sink.replacen("type = \"file\"\n", "type = \"file\"\nrotate_size = \"2KiB\"\n", 1);
    let name = if sink.contains("[sink.archive]") { "archive" } else { panic!("{sink}") };
    let site = Site::new(
        &[vendor.source(""), sink, format!("[dead_letter]\nsink = \"{name}\"\nto = \"dead-{{source}}\"\n")]
            .concat(),
    );
    let mut bridge = site.start();
    for number in 0..20 {
        vendor.0.control().emit_raw(&entry(&format!("{number}-0"), "outreach.status", "{}")).unwrap();
    }
    away(&vendor, 20).await;
    let before = listed(&site, &[]);
    let ids: Vec<String> = (0..20).map(|number| format!("{number}-0")).collect();
    assert_eq!(texts(&before, "eventId"), ids);
    assert_eq!(before[0]["id"], "dead-main.000001:1");
    assert!(folder.path().join("dead-main.000002.jsonl").exists(), "the files did rotate");
    let last = before[19]["id"].as_str().unwrap();
    let raw = dlq(&site, &["show", last, "--raw"]).out;
    assert!(raw.contains("\"19-0\""), "{raw}");
    bridge.terminate().await;

    let fixed = changed(&site, "match = [\"messaging.*\"]", "match = [\"*\"]");
    dlq_with(fixed.clone(), &["replay", "--all", "--limit", "5"]).is(0, "5 replayed");
    dlq_with(fixed.clone(), &["replay", last]).is(0, "1 replayed");
    dlq_with(fixed.clone(), &["replay", "--all"]).is(0, "14 replayed, 6 already replayed");
    dlq_with(fixed.clone(), &["replay", "--all"]).is(0, "0 replayed, 20 already replayed");
    let mut published: Vec<String> = lines(folder.path())
        .into_iter()
        .filter(|(file, _)| file.starts_with("outreach"))
        .map(|(_, line)| line["eventId"].as_str().unwrap().to_owned())
        .collect();
    published.sort_by_key(|id| id.split('-').next().unwrap().parse::<u32>().unwrap());
    assert_eq!(published, ids);
    assert_eq!(listed(&site, &["--replayed"]).len(), 20);
}

/// What an earlier version of the configuration left: another API, another source, no JSON.
#[tokio::test(flavor = "multi_thread")]
async fn events_of_other_times() {
    let vendor = silent_vendor().await;
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(&[vendor.source(""), Files(folder.path().to_owned()).sink()].concat());
    let dir = site.path("state/dead-letters");
    std::fs::create_dir_all(&dir).unwrap();
    let line = |source: &str, event: &str| {
        let headers = format!(r#"{{"viaduct-reason":"unrouted","viaduct-source":"{source}"}}"#);
        format!("{{\"headers\":{headers},\"event\":{event}}}\n")
    };
    let text = [
        line("main", r#"{"id":"1-0","type":"outreach.status","payload":"{\"n\":1}"}"#),
        line("gone", r#"{"eventId":"2-0","eventType":"outreach.status"}"#),
        line("main", r#""{\"eventId\":""#),
    ];
    std::fs::write(dir.join("dead-letters.jsonl"), text.concat()).unwrap();
    let dry = dlq(&site, &["replay", "--all", "--dry-run"]);
    dry.is(65, "1 would be replayed, 2 cannot be replayed; nothing is published or marked");
    assert!(
        dry.out.contains(r#"{"eventId":"1-0","eventType":"outreach.status","payload":{"n":1}}"#),
        "{}",
        dry.out
    );
    let said = dlq(&site, &["replay", "--all"]);
    said.is(65, "1 replayed, 2 left as they were (cannot be replayed 2)");
    assert!(said.err.contains("there is no source \"gone\" in the configuration"), "{}", said.err);
    assert_eq!(lines(folder.path())[0].1["eventId"], "1-0");
    assert_eq!(texts(&listed(&site, &[]), "id"), ["local:2", "local:3"]);
    // Without a time they are neither young nor old.
    assert!(listed(&site, &["--since", "1h"]).is_empty());
}

/// A signal ends a replay behind a batch: what is published is marked, to the letter.
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_stops_a_replay_in_good_order() {
    const LETTERS: usize = 60_000;
    let vendor = silent_vendor().await;
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(&[vendor.source(""), Files(folder.path().to_owned()).sink()].concat());
    let dir = site.path("state/dead-letters");
    std::fs::create_dir_all(&dir).unwrap();
    let letters: String = (0..LETTERS)
        .map(|number| {
            let event =
                format!(r#"{{"eventId":"{number}-0","eventType":"outreach.status","payload":"{{}}"}}"#);
            let headers = r#"{"viaduct-reason":"unrouted","viaduct-source":"main"}"#;
            format!("{{\"headers\":{headers},\"event\":{event}}}\n")
        })
        .collect();
    std::fs::write(dir.join("dead-letters.jsonl"), letters).unwrap();
    let replay = viaduct()
        .args(["dlq", "replay", "--all", "-c"])
        .arg(site.config())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("the replay has begun", Duration::from_secs(30), async || !lines(folder.path()).is_empty()).await;
    assert!(Command::new("kill").args(["-INT", &replay.id().to_string()]).status().unwrap().success());
    let output = tokio::task::spawn_blocking(move || replay.wait_with_output().unwrap()).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(75), "{said}");
    assert!(said.contains("stopped by a signal"), "{said}");
    let published = lines(folder.path()).len();
    assert!(published < LETTERS, "it had ended before the signal");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{published} replayed\n"));
    dlq(&site, &["replay", "--all"])
        .is(0, &format!("{} replayed, {published} already replayed", LETTERS - published));
    assert_eq!(lines(folder.path()).len(), LETTERS);
}
