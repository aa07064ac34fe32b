//! Events flow: both redelivery models, overlap, expiry in mid-stream.

use std::collections::HashSet;
use std::time::Duration;

use viaduct_poller::{Cause, Finished, Observation};
use viaduct_simulator::{EmptyPoll, Rate, Redelivery, Requeue, Settings};

use crate::bench::{
    Polling, assert_vendor_order, settings, simulated, start, subscription, until, until_acknowledged,
};

async fn flows(redelivery: Redelivery, empty_poll: EmptyPoll) {
    let simulator = start(Settings { redelivery, empty_poll, ..simulated(4000) }).await;
    let polling = Polling::start(settings(&simulator));
    until_acknowledged(&simulator, 4000).await;
    let (ids, counts) = (polling.ids(), polling.counts.clone());
    assert_eq!(polling.stop().await.unwrap(), Finished::Stopped { unacknowledged: 0 });
    assert_vendor_order(&simulator, &ids);
    assert_eq!(ids.len(), 4000);
    assert_eq!((counts.get("received false"), counts.get("acknowledged")), (4000, 4000));
    assert_eq!(counts.get("created start"), 1);
    let report = simulator.stop().await;
    assert!(report.misbehaviour.is_empty(), "{:?}", report.misbehaviour_cases);
}

#[tokio::test]
async fn new_then_pending() {
    flows(Redelivery::PerSessionNewThenPending, EmptyPoll::EmptyList).await;
}

#[tokio::test]
async fn from_the_head() {
    flows(Redelivery::FromHead, EmptyPoll::NoContent).await;
}

/// Polls run ahead of the acknowledgements where the vendor gives fresh events, and do not where it repeats the head.
#[tokio::test]
async fn overlap_is_used_exactly_where_it_helps() {
    for (redelivery, overlaps) in
        [(Redelivery::PerSessionNewThenPending, true), (Redelivery::FromHead, false)]
    {
        let simulator = start(Settings { redelivery, ..simulated(1000) }).await;
        simulator.control().hold_acknowledgements(true);
        let polling = Polling::start(settings(&simulator));
        let control = simulator.control();
        until("an acknowledgement", || !control.held_acknowledgements().is_empty()).await;
        if overlaps {
            // 500 may be held, 64 of them only by keep-alive polls.
            until("a whole capacity", || polling.received() == 400).await;
        } else {
            until("a second poll", || control.report().answered("events", "200") >= 2).await;
            assert_eq!(polling.received(), 50);
        }
        control.hold_acknowledgements(false);
        until_acknowledged(&simulator, 1000).await;
        assert_eq!(polling.ids().len(), 1000);
        polling.stop().await.unwrap();
        assert!(simulator.stop().await.misbehaviour.is_empty());
    }
}

async fn survives_expiry(requeue: Requeue, redelivery: Redelivery) {
    let simulated = Settings { requeue, redelivery, rate: Rate::PerSecond(2000.0), ..simulated(3000) };
    let simulator = start(simulated).await;
    let mut settings = settings(&simulator);
    settings.subscriptions = vec![
        subscription("third party", "engagementCenterThirdParty", &["ScreenPop", "Idle"]),
        subscription("changes", "changeNotification", &["all"]),
    ];
    let polling = Polling::start(settings);
    let control = simulator.control();
    for n in 1..=3 {
        until("progress", || polling.received() > n * 500).await;
        control.expire_all_sessions();
        until("a new session", || polling.counts.get("created expired") >= n).await;
    }
    until("all events", || control.report().waiting == Some(0)).await;
    until("all acknowledged", || {
        let report = control.report();
        report.emitted == 3000 && report.unacknowledged == 0 && report.queued == 0
    })
    .await;
    let (ids, counts) = (polling.ids(), polling.counts.clone());
    // What was durable when its session died is acknowledged by the next one; the wait above saw that.
    polling.stop().await.unwrap();
    let report = control.report();
    assert!(report.misbehaviour.is_empty(), "{:?}", report.misbehaviour_cases);
    let unique: HashSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "an identity was handed out twice");
    if requeue == Requeue::SameId {
        assert_eq!(ids.len(), 3000);
    } else {
        assert!(ids.len() as u64 + report.lost >= 3000, "{} {}", ids.len(), report.lost);
    }
    let lost = Observation::SessionLost { cause: Cause::Expired };
    assert_eq!(counts.get(&format!("{lost:?}")), report.sessions_created as usize - 1);
    for session in &report.sessions {
        let standing = session.subscriptions_at_first_get.as_ref().map_or(2, Vec::len);
        assert_eq!(standing, 2, "a session was polled without its subscriptions");
    }
}

#[tokio::test]
async fn expiry_with_the_same_ids() {
    survives_expiry(Requeue::SameId, Redelivery::PerSessionNewThenPending).await;
}

#[tokio::test]
async fn expiry_from_the_head() {
    survives_expiry(Requeue::SameId, Redelivery::FromHead).await;
}

#[tokio::test]
async fn expiry_with_new_ids() {
    survives_expiry(Requeue::NewId, Redelivery::PerSessionNewThenPending).await;
}

#[tokio::test]
async fn expiry_with_loss_at_the_vendor() {
    survives_expiry(Requeue::Lost, Redelivery::PerSessionNewThenPending).await;
}

/// An idle vendor is polled, not hammered.
#[tokio::test]
async fn an_idle_source_polls_at_the_vendor_s_pace() {
    let simulator = start(Settings { rate: Rate::PerSecond(0.0), ..simulated(1) }).await;
    let polling = Polling::start(settings(&simulator));
    let control = simulator.control();
    until("two polls", || control.report().answered("events", "200") >= 2).await;
    let (before, at) = (control.report().answered("events", "200"), std::time::Instant::now());
    until("four more", || control.report().answered("events", "200") >= before + 4).await;
    assert!(at.elapsed() > Duration::from_millis(800), "the long poll was not used: {:?}", at.elapsed());
    assert!(polling.status.borrow().session_up);
    polling.stop().await.unwrap();
}
