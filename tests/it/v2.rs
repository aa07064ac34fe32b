//! `api = "v2"`: nothing can be acknowledged, so every response is on disk before anything of it is published.

use std::collections::HashSet;
use std::time::Duration;

use viaduct_simulator::{Rate, Settings};
use viaduct_testkit::kafka::KafkaBroker;

use crate::kit::bridge::Site;
use crate::kit::destinations::Topics;
use crate::kit::invariants::{in_order_per_key, nothing_lost, repeated, well_behaved};
use crate::kit::vendor::{Vendor, settings};
use crate::kit::wait::until;

/// Runs until everything is published; returns how many records stand there more than once.
async fn everything_is_published(vendor: &Vendor, site: &Site, topics: &Topics, events: u64) -> usize {
    let mut bridge = site.start();
    until("everything is published", Duration::from_secs(60), async || {
        vendor.report().consumed == events && bridge.status().await["sources"]["main"]["unacknowledged"] == 0
    })
    .await;
    let (exit, _) = bridge.terminate().await;
    assert_eq!(exit.code(), Some(0), "{}", site.log());
    let journal = vendor.journal();
    well_behaved(&journal.report).none();
    let mut seen = topics.read().await;
    nothing_lost("Kafka", &journal, &seen, &HashSet::new()).none();
    // A spooled response of which only a part was published is replayed whole: what stands here again stands behind its
    // first appearance, whose order counts.
    let duplicates: usize = repeated(&seen).values().map(|count| count - 1).sum();
    let mut known = HashSet::new();
    seen.retain(|record| known.insert(record.event_id.clone()));
    in_order_per_key("Kafka", &journal, &seen).none();
    assert_eq!(seen.len() as u64, events);
    duplicates
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_path() {
    let vendor = Vendor::start(Settings { total: Some(5_000), ..settings() }).await;
    let topics = Topics::new(KafkaBroker::shared().bootstrap());
    let site = Site::new(&[vendor.source("api = \"v2\""), topics.sink("")].concat());
    assert_eq!(everything_is_published(&vendor, &site, &topics, 5_000).await, 0);
}

/// kill -9 while the broker is away: what the vendor has given out is on disk, and is replayed first.
#[tokio::test(flavor = "multi_thread")]
async fn the_spool_survives_a_kill() {
    let broker = KafkaBroker::start_own();
    let vendor =
        Vendor::start(Settings { rate: Rate::PerSecond(500.0), total: Some(1_500), ..settings() }).await;
    let topics = Topics::new(broker.bootstrap());
    let source = vendor.source("api = \"v2\"\nmax_events = 50");
    let site = Site::new(&[source, topics.sink("")].concat());
    let mut bridge = site.start();
    until("events flow", Duration::from_secs(60), async || vendor.report().consumed > 200).await;
    broker.stop().unwrap();
    let before = vendor.report().consumed;
    until("more is spooled", Duration::from_secs(60), async || vendor.report().consumed >= before + 300)
        .await;
    // A kill between a response's arrival and its fsync is the one loss that nobody can prevent: pause until the last
    // response has been taken in, then kill.
    vendor.0.control().pause();
    until("the last response is taken in", Duration::from_secs(30), async || {
        let report = vendor.report();
        let held = bridge.status().await["sources"]["main"]["unacknowledged"].as_u64().unwrap();
        report.queued == 0 && report.waiting.unwrap_or(0) == 0 && held >= 300
    })
    .await;
    let spooled = bridge.status().await;
    bridge.kill();
    assert!(spooled["sources"]["main"]["unacknowledged"].as_u64().unwrap() >= 300);
    broker.restart().unwrap();
    vendor.0.control().resume();
    let duplicates = everything_is_published(&vendor, &site, &topics, 1_500).await;
    assert!(duplicates <= 200, "{duplicates} duplicates: more than what was under way");
}
