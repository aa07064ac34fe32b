//! The main path: every event in every destination, once, in order, acknowledged only after it was readable there.

use std::collections::HashSet;
use std::time::Duration;

use viaduct_simulator::{Rate, Redelivery, Settings};
use viaduct_testkit::kafka::KafkaBroker;
use viaduct_testkit::nats::NatsServer;

use crate::kit::bridge::Site;
use crate::kit::destinations::{Files, Stream, Topics};
use crate::kit::invariants::{Seen, in_order_per_key, no_duplicates, nothing_lost, well_behaved};
use crate::kit::vendor::{Vendor, settings};
use crate::kit::wait::until;

async fn twenty_thousand(redelivery: Redelivery) {
    const EVENTS: u64 = 20_000;
    let vendor = Vendor::start(Settings { redelivery, total: Some(EVENTS), ..settings() }).await;
    let topics = Topics::new(KafkaBroker::shared().bootstrap());
    let stream = Stream::new(NatsServer::shared().url());
    let folder = tempfile::tempdir().unwrap();
    let files = Files(folder.path().to_owned());
    let site = Site::new(&[vendor.source(""), topics.sink(""), stream.sink(""), files.sink()].concat());
    let mut bridge = site.start();
    vendor.all_acknowledged(Duration::from_secs(120)).await;

    let status = bridge.status().await;
    let (code, metrics) = bridge.get("/metrics").await.unwrap();
    assert_eq!(code, 200);
    let (exit, _) = bridge.terminate().await;
    assert_eq!(exit.code(), Some(0), "{}", site.log());

    let journal = vendor.journal();
    assert_eq!((journal.report.emitted, journal.report.acknowledged), (EVENTS, EVENTS));
    well_behaved(&journal.report).none();
    for (what, seen) in
        [("Kafka", topics.read().await), ("NATS", stream.read().await), ("file", files.read())]
    {
        assert_eq!(seen.len(), EVENTS as usize, "{what}");
        nothing_lost(what, &journal, &seen, &HashSet::new()).none();
        no_duplicates(what, &seen).none();
        in_order_per_key(what, &journal, &seen).none();
        assert!(
            seen.iter().filter(|seen| seen.key.is_some()).count() > 10_000,
            "{what}: most events have a key"
        );
    }

    // The bridge's own numbers are those of the journal.
    let source = &status["sources"]["main"];
    assert_eq!((source["received"].as_u64(), source["acknowledged"].as_u64()), (Some(EVENTS), Some(EVENTS)));
    for sink in ["lake", "bus", "archive"] {
        assert_eq!(status["sinks"][sink]["published"], EVENTS, "{sink}");
    }
    for (category, counts) in &journal.report.categories {
        let line = format!(
            "viaduct_events_acknowledged_total{{source=\"main\",category=\"{category}\"}} {}",
            counts.acknowledged
        );
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_events_new_then_pending() {
    twenty_thousand(Redelivery::PerSessionNewThenPending).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_events_from_head() {
    twenty_thousand(Redelivery::FromHead).await;
}

/// I2, seen from outside: while the vendor holds an acknowledgement back, its events are readable everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_acknowledged_is_readable_already() {
    let vendor = Vendor::start(Settings { total: Some(3_000), ..settings() }).await;
    let control = vendor.0.control();
    let topics = Topics::new(KafkaBroker::shared().bootstrap());
    let stream = Stream::new(NatsServer::shared().url());
    let folder = tempfile::tempdir().unwrap();
    let files = Files(folder.path().to_owned());
    let site = Site::new(&[vendor.source(""), topics.sink(""), stream.sink(""), files.sink()].concat());
    control.hold_acknowledgements(true);
    let _bridge = site.start();
    let mut checked = HashSet::new();
    while vendor.report().acknowledged < 3_000 {
        until("an acknowledgement is held, or all are through", Duration::from_secs(30), async || {
            !control.held_acknowledgements().is_empty() || vendor.report().acknowledged == 3_000
        })
        .await;
        let held: HashSet<String> = control.held_acknowledgements().into_iter().flatten().collect();
        for (what, seen) in
            [("Kafka", topics.read().await), ("NATS", stream.read().await), ("file", files.read())]
        {
            let readable: HashSet<&str> = seen.iter().map(|seen: &Seen| seen.event_id.as_str()).collect();
            let early = held.iter().find(|id| !readable.contains(id.as_str()));
            assert_eq!(early, None, "{what}: acknowledged before it was readable");
        }
        control.answer_held_acknowledgements();
        until("what was looked at is let go", Duration::from_secs(30), async || {
            !control.held_acknowledgements().iter().flatten().any(|id| held.contains(id))
        })
        .await;
        checked.extend(held);
    }
    control.hold_acknowledgements(false);
    assert!(
        checked.len() >= 2_900,
        "only {} events were looked at while their acknowledgement was held",
        checked.len()
    );
}

/// A vendor that is slow to make events is polled, not hammered: one long poll per hold.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_vendor_is_long_polled() {
    let hold = Duration::from_millis(500);
    let vendor =
        Vendor::start(Settings { rate: Rate::PerSecond(0.001), total: None, hold, ..settings() }).await;
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(&[vendor.source(""), Files(folder.path().to_owned()).sink()].concat());
    let bridge = site.start();
    bridge.ready().await;
    until("six polls", Duration::from_secs(30), async || vendor.report().answered("events", "200") >= 6)
        .await;
    let before = vendor.report().answered("events", "200");
    let started = std::time::Instant::now();
    until("four more polls", Duration::from_secs(30), async || {
        vendor.report().answered("events", "200") >= before + 4
    })
    .await;
    assert!(started.elapsed() > hold * 3, "four long polls took only {:?}", started.elapsed());
    well_behaved(&vendor.report()).none();
}
