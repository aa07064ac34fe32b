//! Brokers that go away: the session stays alive, nothing is acknowledged, and everything arrives by itself afterwards.

use std::collections::HashSet;
use std::time::Duration;

use viaduct_simulator::{Rate, Redelivery, Settings};
use viaduct_testkit::kafka::KafkaBroker;
use viaduct_testkit::nats::NatsServer;

use crate::kit::bridge::{Bridge, Site};
use crate::kit::destinations::{Files, Stream, Topics};
use crate::kit::invariants::{in_order_per_key, no_duplicates, nothing_lost, well_behaved};
use crate::kit::vendor::{Vendor, settings};
use crate::kit::wait::until;

/// The vendor drops a session after this long without a poll: a shortened clock.
const INACTIVITY: Duration = Duration::from_secs(2);

fn vendor_settings(redelivery: Redelivery) -> Settings {
    Settings {
        redelivery,
        redelivery_delay: Duration::from_millis(500),
        rate: Rate::PerSecond(200.0),
        total: None,
        granted_inactivity: Some(INACTIVITY),
        ..settings()
    }
}

/// Watches an outage of more than three inactivity delays that has begun already.
async fn sit_out(vendor: &Vendor, bridge: &Bridge, sink: &str) {
    let reason = bridge.not_ready(sink).await;
    assert!(reason.contains("[-]"), "{reason}");
    // What was confirmed before the outage may still be on its way to the vendor.
    let mut acknowledged = vendor.report().acknowledged;
    until("acknowledgements have come to rest", Duration::from_secs(10), async || {
        let before = std::mem::replace(&mut acknowledged, vendor.report().acknowledged);
        tokio::time::sleep(Duration::from_millis(300)).await;
        before == vendor.report().acknowledged
    })
    .await;
    let before = vendor.report();
    let gets = before.sessions.last().map_or(0, |session| session.gets);
    let over = tokio::time::Instant::now() + INACTIVITY * 7 / 2;
    until("the outage is long enough", Duration::from_secs(60), async || tokio::time::Instant::now() > over)
        .await;
    let after = vendor.report();
    assert_eq!(after.acknowledged, before.acknowledged, "nothing is acknowledged during the outage");
    assert_eq!((after.sessions_created, after.sessions_expired), (1, 0), "the session lives");
    let polls = after.sessions.last().map_or(0, |session| session.gets) - gets;
    assert!(polls >= 3, "only {polls} polls kept the session alive");
}

async fn kafka(redelivery: Redelivery) {
    let broker = KafkaBroker::start_own();
    let vendor = Vendor::start(vendor_settings(redelivery)).await;
    let topics = Topics::new(broker.bootstrap());
    let folder = tempfile::tempdir().unwrap();
    let files = Files(folder.path().to_owned());
    // Small, so that the outage fills it and keep-alive polls take over.
    let source = vendor.source("max_events = 50\nmax_in_flight = 300");
    let site = Site::new(&[source, topics.sink(""), files.sink()].concat());
    let mut bridge = site.start();
    until("events flow", Duration::from_secs(60), async || vendor.report().acknowledged > 100).await;
    broker.stop().unwrap();
    sit_out(&vendor, &bridge, "sink lake").await;
    broker.restart().unwrap();
    bridge.ready().await;
    vendor.0.control().pause();
    vendor.all_acknowledged(Duration::from_secs(60)).await;
    let (exit, _) = bridge.terminate().await;
    assert_eq!(exit.code(), Some(0), "{}", site.log());
    let journal = vendor.journal();
    well_behaved(&journal.report).none();
    for (what, seen) in [("Kafka", topics.read().await), ("file", files.read())] {
        nothing_lost(what, &journal, &seen, &HashSet::new()).none();
        // The idempotent producer survives the outage, and the sink that was up is never offered an event twice.
        no_duplicates(what, &seen).none();
        in_order_per_key(what, &journal, &seen).none();
    }
}

async fn nats(redelivery: Redelivery) {
    let server = NatsServer::start_own();
    let vendor = Vendor::start(vendor_settings(redelivery)).await;
    let stream = Stream::new(server.url());
    let source = vendor.source("max_events = 50\nmax_in_flight = 300");
    let site = Site::new(&[source, stream.sink("")].concat());
    let mut bridge = site.start();
    until("events flow", Duration::from_secs(60), async || vendor.report().acknowledged > 100).await;
    server.kill();
    sit_out(&vendor, &bridge, "sink bus").await;
    server.restart().unwrap();
    bridge.ready().await;
    vendor.0.control().pause();
    vendor.all_acknowledged(Duration::from_secs(60)).await;
    let (exit, _) = bridge.terminate().await;
    assert_eq!(exit.code(), Some(0), "{}", site.log());
    let journal = vendor.journal();
    well_behaved(&journal.report).none();
    let seen = stream.read().await;
    nothing_lost("NATS", &journal, &seen, &HashSet::new()).none();
    // The outage is shorter than the stream's duplicate window, so Nats-Msg-Id removes what was stored unanswered.
    no_duplicates("NATS", &seen).none();
    in_order_per_key("NATS", &journal, &seen).none();
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_is_away_longer_than_the_inactivity_delay_new_then_pending() {
    kafka(Redelivery::PerSessionNewThenPending).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_is_away_longer_than_the_inactivity_delay_from_head() {
    kafka(Redelivery::FromHead).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_is_away_longer_than_the_inactivity_delay_new_then_pending() {
    nats(Redelivery::PerSessionNewThenPending).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_is_away_longer_than_the_inactivity_delay_from_head() {
    nats(Redelivery::FromHead).await;
}

/// An unlimited vendor and no broker at all: what is held stays bounded.
#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_bounded_while_the_broker_is_away() {
    let settings =
        Settings { rate: Rate::Unlimited, total: None, granted_inactivity: Some(INACTIVITY), ..settings() };
    let vendor = Vendor::start(settings).await;
    let nowhere = viaduct_testkit::native::free_port().unwrap();
    let topics = Topics::new(&format!("127.0.0.1:{nowhere}"));
    let site = Site::new(&[vendor.source(""), topics.sink("")].concat());
    let bridge = site.start();
    bridge.not_ready("sink lake").await;
    let mut most = 0;
    let over = tokio::time::Instant::now() + Duration::from_secs(15);
    until("a while has passed", Duration::from_secs(60), async || {
        most = most.max(bridge.resident_kib());
        tokio::time::Instant::now() > over
    })
    .await;
    let held = bridge.status().await["sources"]["main"]["unacknowledged"].as_u64().unwrap();
    assert!((1_000..=2_000).contains(&held), "{held} events are held");
    assert!(most < 64 * 1024, "{most} KiB resident");
    let report = vendor.report();
    assert_eq!((report.acknowledged, report.sessions_expired), (0, 0));
    println!("{held} events held, at most {most} KiB resident");
}

/// A best-effort sink that is away holds nothing back, and does not keep the bridge from being ready or from stopping.
#[tokio::test(flavor = "multi_thread")]
async fn a_best_effort_sink_holds_nothing_back() {
    let vendor = Vendor::start(Settings { total: Some(3_000), ..settings() }).await;
    let nowhere = viaduct_testkit::native::free_port().unwrap();
    let topics = Topics::new(&format!("127.0.0.1:{nowhere}"));
    let folder = tempfile::tempdir().unwrap();
    let files = Files(folder.path().to_owned());
    let site = Site::new(&[vendor.source(""), topics.sink("required = false"), files.sink()].concat());
    let mut bridge = site.start();
    vendor.all_acknowledged(Duration::from_secs(60)).await;
    bridge.ready().await;
    let (_, metrics) = bridge.get("/metrics").await.unwrap();
    let dropped = "viaduct_events_best_effort_dropped_total{source=\"main\",sink=\"lake\"} 1000";
    assert!(metrics.contains(dropped), "its lane takes max_in_flight = 2000 of 3000 events: {metrics}");
    let (exit, took) = bridge.terminate().await;
    assert_eq!(exit.code(), Some(0), "{}", site.log());
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!(files.read().len(), 3_000);
}
