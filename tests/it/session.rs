//! Sessions that end, vendors that fail, bridges that stop.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use viaduct_simulator::{Rate, Redelivery, Requeue, Settings};
use viaduct_testkit::kafka::KafkaBroker;
use viaduct_testkit::nats::NatsServer;

use crate::kit::bridge::Site;
use crate::kit::destinations::{Stream, Topics};
use crate::kit::invariants::{in_order_per_key, no_duplicates, nothing_lost, repeated, well_behaved};
use crate::kit::vendor::{Vendor, settings};
use crate::kit::wait::until;

const SUBSCRIPTION: &str = r#"
[[source.main.subscription]]
description = "third party events"
catalog_type = "engagementCenterThirdParty"
events = ["ScreenPop", "Idle"]
resource_type = "users"
resource_ids = []
"#;

/// The vendor ends the session in full flow, three times.
async fn expire_in_mid_stream(redelivery: Redelivery, requeue: Requeue) {
    let vendor = Vendor::start(Settings {
        redelivery,
        requeue,
        redelivery_delay: Duration::from_millis(200),
        rate: Rate::PerSecond(2_000.0),
        total: None,
        ..settings()
    })
    .await;
    let topics = Topics::new(KafkaBroker::shared().bootstrap());
    let stream = Stream::new(NatsServer::shared().url());
    let site =
        Site::new(&[vendor.source(""), topics.sink(""), stream.sink(""), SUBSCRIPTION.to_owned()].concat());
    let mut bridge = site.start();
    for session in 1..=3 {
        let before = vendor.report().acknowledged;
        until("events flow", Duration::from_secs(60), async || vendor.report().acknowledged > before + 500)
            .await;
        vendor.0.control().expire_all_sessions();
        until("a new session", Duration::from_secs(60), async || {
            vendor.report().sessions_created == session + 1
        })
        .await;
    }
    let before = vendor.report().acknowledged;
    until("events flow again", Duration::from_secs(60), async || vendor.report().acknowledged > before + 500)
        .await;
    vendor.0.control().pause();
    vendor.all_acknowledged(Duration::from_secs(60)).await;
    let (exit, _) = bridge.terminate().await;
    assert_eq!(exit.code(), Some(0), "{}", site.log());

    let journal = vendor.journal();
    // Covers "the old session id is never used again".
    well_behaved(&journal.report).none();
    assert_eq!(journal.report.sessions.len(), 4);
    for session in &journal.report.sessions {
        let declared = session.subscriptions_at_first_get.as_ref().expect("every session was polled");
        assert_eq!(declared.len(), 1, "the subscription stands before the first GET");
        assert_eq!(declared[0]["description"], "third party events");
    }
    for (what, seen) in [("Kafka", topics.read().await), ("NATS", stream.read().await)] {
        nothing_lost(what, &journal, &seen, &HashSet::new()).none();
        in_order_per_key(what, &journal, &seen).none();
        // A new id makes a new event of it; with the same id nothing is published twice.
        no_duplicates(what, &seen).none();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_events_come_again_under_the_same_id() {
    expire_in_mid_stream(Redelivery::PerSessionNewThenPending, Requeue::SameId).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_events_come_again_from_the_head() {
    expire_in_mid_stream(Redelivery::FromHead, Requeue::SameId).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_events_come_again_under_a_new_id() {
    expire_in_mid_stream(Redelivery::PerSessionNewThenPending, Requeue::NewId).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_events_are_lost_by_the_vendor() {
    expire_in_mid_stream(Redelivery::FromHead, Requeue::Lost).await;
}

/// Faults on 5 % of all calls, of every kind that fits the call.
async fn faults(redelivery: Redelivery, seed: u64) {
    const EVENTS: u64 = 10_000;
    let vendor = Vendor::start(Settings {
        seed,
        redelivery,
        redelivery_delay: Duration::from_millis(100),
        total: Some(EVENTS),
        ..settings()
    })
    .await;
    vendor.0.control().set_faults("*:any:5%".parse().unwrap());
    let topics = Topics::new(KafkaBroker::shared().bootstrap());
    let source = vendor.source("max_events = 5");
    let site = Site::new(&[source, topics.sink(""), SUBSCRIPTION.to_owned()].concat());
    let mut bridge = site.start();
    vendor.all_acknowledged(Duration::from_secs(240)).await;
    vendor.0.control().set_faults("".parse().unwrap());
    let (exit, _) = bridge.terminate().await;
    assert_eq!(exit.code(), Some(0), "{}", site.log());
    let journal = vendor.journal();
    well_behaved(&journal.report).none();
    let made: u64 = journal.report.faults.values().sum();
    assert!(made >= 50, "only {made} faults were made: {:?}", journal.report.faults);
    let buried = crate::kit::destinations::lines(&site.path("state/dead-letters"))
        .into_iter()
        .filter_map(|(_, line)| line["event"]["eventId"].as_str().map(str::to_owned))
        .collect::<HashSet<_>>();
    let seen = topics.read().await;
    nothing_lost("Kafka", &journal, &seen, &buried).none();
    in_order_per_key("Kafka", &journal, &seen).none();
    // Two events may share an id; nothing else stands here twice.
    let shared: HashSet<&str> = journal
        .events
        .iter()
        .filter(|event| event.shares_id)
        .filter_map(|event| event.event_id.as_deref())
        .collect();
    let repeated: Vec<_> = repeated(&seen).into_keys().filter(|(id, _)| !shared.contains(id)).collect();
    assert!(repeated.is_empty(), "{repeated:?}");
    println!("{made} faults: {:?}", journal.report.faults);
}

#[tokio::test(flavor = "multi_thread")]
async fn vendor_faults_new_then_pending() {
    faults(Redelivery::PerSessionNewThenPending, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vendor_faults_from_head() {
    faults(Redelivery::FromHead, 2).await;
}

/// SIGTERM in full flow: drained in under 5 s, and the next start goes on where this one stopped.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_and_the_next_start_resumes() {
    let vendor = Vendor::start(Settings { total: None, ..settings() }).await;
    let topics = Topics::new(KafkaBroker::shared().bootstrap());
    let stream = Stream::new(NatsServer::shared().url());
    let site = Site::new(&[vendor.source(""), topics.sink(""), stream.sink("")].concat());
    let mut acknowledged = 0;
    for _ in 0..3 {
        let mut bridge = site.start();
        until("events flow", Duration::from_secs(60), async || {
            vendor.report().acknowledged > acknowledged + 2_000
        })
        .await;
        let (exit, took) = bridge.terminate().await;
        assert_eq!(exit.code(), Some(0), "{}", site.log());
        assert!(took < Duration::from_secs(5), "{took:?}");
        acknowledged = vendor.report().acknowledged;
    }
    vendor.0.control().pause();
    let mut bridge = site.start();
    vendor.all_acknowledged(Duration::from_secs(60)).await;
    bridge.terminate().await;
    let journal = vendor.journal();
    well_behaved(&journal.report).none();
    assert_eq!(journal.report.sessions_created, 1);
    for (what, seen) in [("Kafka", topics.read().await), ("NATS", stream.read().await)] {
        nothing_lost(what, &journal, &seen, &HashSet::new()).none();
        no_duplicates(what, &seen).none();
        in_order_per_key(what, &journal, &seen).none();
    }
}

/// The first signal waits for the broker that is away; the second one does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    let vendor = Vendor::start(Settings { total: Some(100), ..settings() }).await;
    let nowhere = viaduct_testkit::native::free_port().unwrap();
    let topics = Topics::new(&format!("127.0.0.1:{nowhere}"));
    let site = Site::new(&[vendor.source(""), topics.sink("")].concat());
    let mut bridge = site.start();
    until("events are held", Duration::from_secs(30), async || vendor.report().unacknowledged == 100).await;
    bridge.signal("TERM");
    until("it drains", Duration::from_secs(10), async || site.log().contains("SIGTERM")).await;
    assert!(bridge.is_running());
    let started = Instant::now();
    bridge.signal("INT");
    let exit = bridge.wait(Duration::from_secs(5)).await;
    assert_eq!(exit.code(), Some(75), "{}", site.log());
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(vendor.report().acknowledged, 0);
}

/// `shutdown_timeout` bounds the wait: 75, because events stay unacknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_takes_too_long_is_given_up() {
    let vendor = Vendor::start(Settings { total: Some(100), ..settings() }).await;
    let nowhere = viaduct_testkit::native::free_port().unwrap();
    let topics = Topics::new(&format!("127.0.0.1:{nowhere}"));
    let bridge_table = "[bridge]\nshutdown_timeout = \"1s\"\n".to_owned();
    let site = Site::new(&[bridge_table, vendor.source(""), topics.sink("")].concat());
    let mut bridge = site.start();
    until("events are held", Duration::from_secs(30), async || vendor.report().unacknowledged == 100).await;
    let (exit, took) = bridge.terminate().await;
    assert_eq!(exit.code(), Some(75), "{}", site.log());
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(4), "{took:?}");
}

/// Refused credentials end a start with 77; refused later, they are retried and told.
#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials() {
    let vendor = Vendor::start(Settings {
        client_secret: Some("another".to_owned()),
        rate: Rate::PerSecond(100.0),
        total: None,
        ..settings()
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let files = crate::kit::destinations::Files(folder.path().to_owned());
    let site = Site::new(&[vendor.source(""), files.sink()].concat());
    let mut bridge = site.start();
    let exit = bridge.wait(Duration::from_secs(20)).await;
    assert_eq!(exit.code(), Some(77), "{}", site.log());
    assert!(site.log().contains("hint: check client_id, client_secret"), "{}", site.log());

    let vendor = Vendor::start(Settings { rate: Rate::PerSecond(100.0), total: None, ..settings() }).await;
    let site = Site::new(&[vendor.source(""), files.sink()].concat());
    let mut bridge = site.start();
    bridge.ready().await;
    vendor.0.control().set_faults("token:401:100%".parse().unwrap());
    vendor.0.control().revoke_tokens();
    let reason = bridge.not_ready("source main").await;
    assert!(reason.contains("credentials"), "{reason}");
    assert!(bridge.is_running());
    vendor.0.control().set_faults("".parse().unwrap());
    bridge.ready().await;
    let (exit, _) = bridge.terminate().await;
    assert_eq!(exit.code(), Some(0), "{}", site.log());
}
