//! A bridge that runs beside: its session, its transactions, its state and its destinations stay its own.

use std::time::Duration;

use viaduct_testkit::kafka::{self, KafkaBroker};
use viaduct_testkit::nats::NatsServer;

use super::check;
use crate::kit::bridge::Site;
use crate::kit::destinations::{CATEGORIES, Stream, Topics};
use crate::kit::vendor::{Vendor, settings};
use crate::kit::wait::until;

const CHECKS: u64 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_running_bridge_is_not_disturbed() {
    let vendor = Vendor::start(settings()).await;
    let topics = Topics::new(KafkaBroker::shared().bootstrap());
    let stream = Stream::new(NatsServer::shared().url());
    for category in CATEGORIES {
        kafka::create_topic(&topics.bootstrap, &topics.topic(category), 3, &[]).await.unwrap();
    }
    let exactly = "delivery = \"exactly_once\"";
    let bridge = format!("[bridge]\nname = \"{}\"\n", topics.prefix);
    let site = Site::new(
        &[bridge.as_str(), &vendor.source(""), &topics.sink(exactly), &stream.sink(exactly)].concat(),
    );
    let mut bridge = site.start();
    // Events arise until the checks are done.
    let flow = tokio::spawn({
        let control = vendor.0.control();
        async move {
            loop {
                control.emit(20);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    });
    until("events flow", Duration::from_secs(60), async || vendor.report().acknowledged > 20).await;
    let before = vendor.report().sessions.remove(0);
    for _ in 0..CHECKS {
        let acknowledged = vendor.report().acknowledged;
        let found = check(&site, &[]);
        assert_eq!(found.code, 0, "{}\n{:#}", found.said, found.document);
        assert_eq!(found.of("sink lake", "transactional id", &format!("{}.lake.0", topics.prefix)).0, "ok");
        assert!(vendor.report().acknowledged > acknowledged, "nothing flows during a check");
    }
    flow.abort();
    let events = vendor.report().emitted;
    let acknowledged = async || vendor.report().acknowledged == events;
    until("everything is acknowledged", Duration::from_secs(90), acknowledged).await;
    assert!(bridge.is_running());
    bridge.ready().await;
    let (status, _) = bridge.terminate().await;
    assert_eq!(status.code(), Some(0), "{}", site.log());

    let report = vendor.report();
    assert_eq!((report.sessions_created, report.sessions_deleted), (1 + CHECKS, CHECKS));
    assert!(report.misbehaviour.is_empty(), "{:?}", report.misbehaviour_cases);
    for session in &report.sessions {
        let is_own = session.session_id == before.session_id;
        assert_eq!(session.gets > 0, is_own, "a session for trial fetches events: {session:?}");
    }
    // Exactly the events, once each: no record of a check, and nothing again because somebody was fenced.
    assert_eq!(topics.read().await.len() as u64, events);
    assert_eq!(stream.read().await.len() as u64, events);
    let log = site.log();
    for word in ["fenced", "producer broke", "nobody knows"] {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(word)).collect();
        assert!(lines.is_empty(), "{lines:?}");
    }
    assert_eq!(log.matches("session created").count(), 1);
}
