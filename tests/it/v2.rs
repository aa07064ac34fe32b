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
    // What the vendor has given out may still be on its way to the bridge: what can be read is what counts.
    until("everything is published", Duration::from_secs(60), async || {
        vendor.report().consumed == events && {
            let seen = topics.read().await;
            let ids: HashSet<_> = seen.iter().map(|record| &record.event_id).collect();
            ids.len() as u64 == events
        }
    })
    .await;
    until("all of it is settled", Duration::from_secs(60), async || {
        bridge.status().await["sources"]["main"]["unacknowledged"] == 0
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

/// From v2 to v3, as docs/migration-v2-to-v3.md has it: what waits in the spool keeps v3 from starting, is published by a
/// start without a vendor, and then the v3 session goes on with the rest.
#[tokio::test(flavor = "multi_thread")]
async fn leaving_v2() {
    let vendor =
        Vendor::start(Settings { rate: Rate::PerSecond(500.0), total: Some(1_500), ..settings() }).await;
    let topics = Topics::new(KafkaBroker::shared().bootstrap());
    let away = topics.sink("").replace(KafkaBroker::shared().bootstrap(), "127.0.0.1:1");
    let site = Site::new(
        &[vendor.source("api = \"v2\""), away, "[bridge]\nshutdown_timeout = \"1s\"\n".into()].concat(),
    );
    let change = |from: &str, to: &str| {
        let text = std::fs::read_to_string(site.config()).unwrap();
        assert!(text.contains(from), "{from}");
        std::fs::write(site.config(), text.replace(from, to)).unwrap();
    };
    let mut bridge = site.start();
    until("events are spooled", Duration::from_secs(60), async || vendor.report().consumed > 300).await;
    assert_eq!(bridge.terminate().await.0.code(), Some(75), "{}", site.log());
    let spooled = vendor.report().consumed;
    change("127.0.0.1:1\"", &format!("{}\"", KafkaBroker::shared().bootstrap()));

    change("api = \"v2\"", "api = \"v3\"");
    let refused = site.start().wait(Duration::from_secs(30)).await;
    assert_eq!(refused.code(), Some(78), "{}", site.log());
    let message = format!("{spooled} events of v2 wait in ");
    assert!(site.log().contains(&message), "{message}\n{}", site.log());

    change("api = \"v3\"", "api = \"v2\"");
    change(vendor.0.token_url().as_str(), "http://127.0.0.1:9/");
    let mut bridge = site.start();
    until("the spool is published", Duration::from_secs(60), async || {
        topics.read().await.len() as u64 == spooled
            && bridge.status().await["sources"]["main"]["unacknowledged"] == 0
    })
    .await;
    assert_eq!(bridge.terminate().await.0.code(), Some(0), "{}", site.log());

    change("api = \"v2\"", "api = \"v3\"");
    change("http://127.0.0.1:9/", vendor.0.token_url().as_str());
    let mut bridge = site.start();
    until("the rest is published", Duration::from_secs(60), async || {
        let report = vendor.report();
        report.consumed == spooled && report.acknowledged == 1_500 - spooled
    })
    .await;
    assert_eq!(bridge.terminate().await.0.code(), Some(0), "{}", site.log());
    let seen = topics.read().await;
    let ids: HashSet<_> = seen.iter().map(|record| &record.event_id).collect();
    assert_eq!((seen.len(), ids.len()), (1_500, 1_500));
}
