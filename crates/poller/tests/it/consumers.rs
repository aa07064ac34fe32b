//! Consumers that are slow, forgetful, or gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use viaduct_poller::{AckToken, Finished, Phase};
use viaduct_simulator::{Rate, Redelivery, Settings};

use crate::bench::{
    Kept, Polling, Settle, SharedStore, settings, simulated, start, until, until_acknowledged,
};

/// Keeps every token until told otherwise.
fn hoarder() -> (Settle, Arc<Mutex<Vec<AckToken>>>) {
    let hoard = Arc::new(Mutex::new(Vec::new()));
    let tokens = hoard.clone();
    (Box::new(move |_, token| tokens.lock().unwrap().push(token)), hoard)
}

/// A destination that is away for longer than the inactivity delay costs neither the session nor an event, and nothing
/// is acknowledged meanwhile.
#[tokio::test]
async fn a_stalled_consumer_keeps_its_session() {
    for redelivery in [Redelivery::PerSessionNewThenPending, Redelivery::FromHead] {
        let inactivity = Duration::from_secs(2);
        let simulator = start(Settings {
            granted_inactivity: Some(inactivity),
            rate: Rate::Unlimited,
            redelivery,
            ..simulated(5000)
        })
        .await;
        let mut settings = settings(&simulator);
        settings.max_in_flight = 300;
        let (settle, hoard) = hoarder();
        let polling = Polling::with(settings, SharedStore::default(), None, settle);
        let control = simulator.control();
        until("a stall", || polling.status.borrow().phase == Phase::Stalled).await;
        let stalled = Instant::now();
        until("three delays", || stalled.elapsed() > inactivity * 3).await;
        let report = control.report();
        assert_eq!((report.acknowledged, report.sessions_expired, report.sessions_created), (0, 0, 1));
        assert!(hoard.lock().unwrap().len() <= 300);
        assert!(polling.status.borrow().session_up);
        // Healed: everything flows. The last ones first, order is no matter.
        let deadline = Instant::now() + Duration::from_secs(30);
        while control.report().acknowledged < 5000 {
            assert!(Instant::now() < deadline);
            let tokens = std::mem::take(&mut *hoard.lock().unwrap());
            tokens.into_iter().rev().for_each(|token| token.acknowledge(Kept));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(polling.received(), 5000);
        assert_eq!(polling.stop().await.unwrap(), Finished::Stopped { unacknowledged: 0 });
        let report = simulator.stop().await;
        assert!(report.misbehaviour.is_empty(), "{:?}", report.misbehaviour_cases);
    }
}

/// Even the slots that are kept for keep-alive polls run out; the session lives on, and what does not fit stays at the
/// vendor.
#[tokio::test]
async fn a_full_poller_still_keeps_its_session_and_no_more_than_it_may() {
    let simulator =
        start(Settings { granted_inactivity: Some(Duration::from_millis(600)), ..simulated(500) }).await;
    let mut settings = settings(&simulator);
    (settings.max_in_flight, settings.max_events) = (4, 2);
    let (settle, hoard) = hoarder();
    let polling = Polling::with(settings, SharedStore::default(), None, settle);
    let control = simulator.control();
    until("eight polls", || control.report().answered("events", "200") >= 8).await;
    assert_eq!(hoard.lock().unwrap().len(), 4);
    assert_eq!(control.report().sessions_expired, 0);
    assert_eq!(polling.status.borrow().unacknowledged, 4);
    until("everything", || {
        let tokens = std::mem::take(&mut *hoard.lock().unwrap());
        tokens.into_iter().for_each(|token| token.acknowledge(Kept));
        control.report().acknowledged == 500
    })
    .await;
    polling.stop().await.unwrap();
    assert!(simulator.stop().await.misbehaviour.is_empty());
}

/// A token that is dropped brings its event again; nothing is acknowledged for it.
#[tokio::test]
async fn dropped_tokens_bring_their_events_again() {
    for redelivery in [Redelivery::PerSessionNewThenPending, Redelivery::FromHead] {
        let simulator = start(Settings { redelivery, ..simulated(600) }).await;
        let attempts: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        let tried = attempts.clone();
        let settle: Settle = Box::new(move |entry, token| {
            let id = entry.identity().id().to_owned();
            let mut tried = tried.lock().unwrap();
            let attempt = tried.entry(id).or_default();
            *attempt += 1;
            if *attempt > 1 || entry.identity().hash().as_u128() % 10 != 0 {
                token.acknowledge(Kept);
            }
        });
        let polling = Polling::with(settings(&simulator), SharedStore::default(), None, settle);
        until_acknowledged(&simulator, 600).await;
        let again = attempts.lock().unwrap().values().filter(|&&attempts| attempts == 2).count();
        assert!(again > 20, "{again}");
        assert!(attempts.lock().unwrap().values().all(|&attempts| attempts <= 2));
        assert_eq!(polling.stop().await.unwrap(), Finished::Stopped { unacknowledged: 0 });
        assert!(simulator.stop().await.misbehaviour.is_empty());
    }
}

#[tokio::test]
async fn a_stream_that_is_dropped_stops_its_poller() {
    let simulator = start(simulated(100)).await;
    let parts = viaduct_poller::Parts {
        store: Box::new(SharedStore::default()),
        observer: Arc::new(viaduct_poller::NoObserver),
        spool: None,
        crowd: viaduct_poller::Crowd::default(),
    };
    let (poller, stream) = viaduct_poller::Poller::new(settings(&simulator), parts).unwrap();
    drop(stream);
    let run = poller.run(tokio_util::sync::CancellationToken::new());
    let ended = tokio::time::timeout(crate::bench::DEADLINE, run).await.expect("it ends");
    assert!(matches!(ended, Ok(Finished::Stopped { .. })));
    assert_eq!(simulator.stop().await.acknowledged, 0);
}
