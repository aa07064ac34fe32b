//! A replay that is killed, as often as not: everything arrives, and what arrives twice was in flight.

use std::collections::HashMap;
use std::process::Stdio;
use std::time::Duration;

use viaduct_simulator::Settings;
use viaduct_testkit::kafka::KafkaBroker;
use viaduct_testkit::nats::NatsServer;

use super::{changed, dlq, dlq_with, listed};
use crate::kit::bridge::{Site, viaduct};
use crate::kit::destinations::{Stream, Topics};
use crate::kit::invariants::Seen;
use crate::kit::vendor::{Vendor, settings};
use crate::kit::wait::until;

/// So many dead letters.
const LETTERS: usize = 6000;
/// The most that are published before they are marked.
const IN_FLIGHT: usize = 500;

/// Where a replay dies: within a batch, behind it, before its mark, behind that.
const DEATHS: [&str; 5] = [
    "crash:mid_publish:1",
    "crash:after_publish:2",
    "crash:after_commit:3",
    "crash:before_acknowledge:2",
    "crash:after_acknowledge:2",
];

enum Place {
    Kafka(Topics),
    Nats(Stream),
}

impl Place {
    /// What was published, dead letters and marks left out.
    async fn published(&self) -> Vec<Seen> {
        let is_live = |seen: &Seen| !seen.destination.ends_with(".dead");
        match self {
            Self::Kafka(topics) => {
                // Dead letters stand in a topic of another prefix.
                topics.read().await
            }
            Self::Nats(stream) => {
                let messages = viaduct_testkit::nats::read_stream(&stream.url, &stream.name).await.unwrap();
                let live = messages.iter().filter(|message| message.header("ce-id").is_some());
                live.map(|message| Seen {
                    place: stream.name.clone(),
                    destination: message.subject.clone(),
                    key: None,
                    event_id: message.header("ce-id").unwrap().to_owned(),
                    content: None,
                })
                .filter(is_live)
                .collect()
            }
        }
    }
}

async fn survives(place: Place, sink: &str, dead: &str) {
    let vendor = Vendor::start(Settings { total: Some(LETTERS as u64), ..settings() }).await;
    let name = if matches!(place, Place::Kafka(_)) { "lake" } else { "bus" };
    let site = Site::new(
        &[
            vendor.source(""),
            sink.replace("match = [\"*\"]", "match = [\"none.*\"]"),
            format!("[dead_letter]\nsink = \"{name}\"\nto = \"{dead}\"\n"),
        ]
        .concat(),
    );
    let mut bridge = site.start();
    vendor.all_acknowledged(Duration::from_secs(60)).await;
    bridge.terminate().await;
    assert_eq!(listed(&site, &[]).len(), LETTERS);

    let fixed = changed(&site, "match = [\"none.*\"]", "match = [\"*\"]");
    let start = |faults: &str| {
        viaduct()
            .args(["dlq", "replay", "--all", "-c"])
            .arg(&fixed)
            .env("VIADUCT_FAULTS", faults)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    for faults in DEATHS {
        let mut replay = start(faults);
        let status = tokio::task::block_in_place(|| replay.wait().unwrap());
        assert!(!status.success() && status.code().is_none(), "{faults}: it did not die: {status}");
    }
    // And from outside, wherever it is.
    let before = place.published().await.len();
    let mut replay = start("");
    until("something more is published", Duration::from_secs(60), async || {
        replay.try_wait().unwrap().is_some() || place.published().await.len() > before
    })
    .await;
    let _ = replay.kill();
    replay.wait().unwrap();
    let (kills, before) = (DEATHS.len() + 1, place.published().await.len());
    let said = dlq_with(fixed.clone(), &["replay", "--all"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    dlq_with(fixed, &["replay", "--all"]).is(0, &format!("0 replayed, {LETTERS} already replayed"));
    dlq(&site, &["list", "--replayed", "--reason", "unrouted"])
        .is(0, &format!("{LETTERS} dead letters: {LETTERS} unrouted"));
    let mut copies: HashMap<String, usize> = HashMap::new();
    let published = place.published().await;
    for seen in &published {
        *copies.entry(seen.event_id.clone()).or_default() += 1;
    }
    assert_eq!(copies.len(), LETTERS, "some are lost");
    let more = published.len() - LETTERS;
    assert!(more <= kills * IN_FLIGHT, "{more} copies after {kills} kills");
    eprintln!("{name}: {kills} kills, {before} published before the last replay, {more} copies");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_on_kafka() {
    let topics = Topics::new(KafkaBroker::shared().bootstrap());
    let (sink, dead) = (topics.sink("delivery = \"exactly_once\""), format!("dead-{}", topics.prefix));
    survives(Place::Kafka(topics), &sink, &dead).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_on_nats() {
    let stream = Stream::new(NatsServer::shared().url());
    let (sink, dead) = (stream.sink(""), format!("{}.dead", stream.name));
    survives(Place::Nats(stream), &sink, &dead).await;
}
