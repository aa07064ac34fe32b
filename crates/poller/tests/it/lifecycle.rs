//! Starting, stopping, resuming, and the end of a session.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use viaduct_poller::{AckToken, Finished, OnShutdown, Phase};
use viaduct_simulator::{Rate, Settings};

use crate::bench::{
    Kept, Polling, Settle, SharedStore, at_once, settings, simulated, start, until, until_acknowledged,
};

#[tokio::test]
async fn a_stop_in_full_flow_acknowledges_what_is_durable_and_the_next_start_resumes() {
    let simulator = start(Settings { rate: Rate::PerSecond(3000.0), ..simulated(3000) }).await;
    let store = SharedStore::default();
    let mut received = Vec::new();
    for n in 1..=3 {
        let polling = Polling::with(settings(&simulator), store.clone(), None, at_once());
        until("progress", || polling.received() > 300).await;
        polling.stop.cancel();
        until("the end", || polling.status.borrow().phase == Phase::Stopped).await;
        received.extend(polling.ids());
        assert_eq!(polling.counts.get("created start"), usize::from(n == 1));
        assert_eq!(polling.counts.get("SessionResumed"), usize::from(n > 1));
        assert_eq!(polling.end().await.unwrap(), Finished::Stopped { unacknowledged: 0 });
    }
    let polling = Polling::with(settings(&simulator), store, None, at_once());
    until_acknowledged(&simulator, 3000).await;
    received.extend(polling.ids());
    polling.stop().await.unwrap();
    let unique: std::collections::HashSet<_> = received.iter().collect();
    assert_eq!((unique.len(), received.len()), (3000, 3000), "a clean stop makes no duplicate");
    let report = simulator.stop().await;
    assert_eq!(report.sessions_created, 1);
    assert!(report.misbehaviour.is_empty(), "{:?}", report.misbehaviour_cases);
}

#[tokio::test]
async fn the_stream_ends_and_the_last_tokens_are_waited_for() {
    let simulator = start(simulated(30)).await;
    let hoard: Arc<Mutex<Vec<AckToken>>> = Arc::default();
    let tokens = hoard.clone();
    let settle: Settle = Box::new(move |_, token| tokens.lock().unwrap().push(token));
    let polling = Polling::with(settings(&simulator), SharedStore::default(), None, settle);
    until("all handed out", || polling.received() == 30).await;
    polling.stop.cancel();
    until("stopping", || polling.status.borrow().phase == Phase::Stopping).await;
    let mut tokens = std::mem::take(&mut *hoard.lock().unwrap());
    drop(tokens.split_off(20));
    assert_eq!(polling.status.borrow().phase, Phase::Stopping);
    tokens.into_iter().for_each(|token| token.acknowledge(Kept));
    assert_eq!(polling.end().await.unwrap(), Finished::Stopped { unacknowledged: 10 });
    assert_eq!(simulator.stop().await.acknowledged, 20);
}

#[tokio::test]
async fn a_session_is_deleted_where_that_is_asked() {
    let simulator = start(simulated(100)).await;
    let (mut settings, store) = (settings(&simulator), SharedStore::default());
    settings.session.on_shutdown = OnShutdown::Delete;
    let polling = Polling::with(settings.clone(), store.clone(), None, at_once());
    until_acknowledged(&simulator, 100).await;
    polling.stop().await.unwrap();
    let polling = Polling::with(settings, store, None, at_once());
    until("a second session", || polling.counts.get("created start") == 1).await;
    polling.stop().await.unwrap();
    let report = simulator.stop().await;
    assert_eq!((report.sessions_created, report.sessions_deleted), (2, 2));
    assert!(report.misbehaviour.is_empty(), "{:?}", report.misbehaviour_cases);
}

/// Two dead ids in a row: the saved one, and one that dies at once.
#[tokio::test]
async fn a_saved_session_that_died_meanwhile_is_replaced() {
    let simulator = start(simulated(200)).await;
    let store = SharedStore::default();
    let polling = Polling::with(settings(&simulator), store.clone(), None, at_once());
    until("progress", || polling.received() > 0).await;
    polling.stop().await.unwrap();
    simulator.control().expire_all_sessions();
    let polling = Polling::with(settings(&simulator), store, None, at_once());
    until_acknowledged(&simulator, 200).await;
    assert_eq!(polling.counts.get("created expired"), 1);
    polling.stop().await.unwrap();
    let report = simulator.stop().await;
    assert!(report.misbehaviour.is_empty(), "{:?}", report.misbehaviour_cases);
}

#[tokio::test]
async fn an_end_event_deletes_the_session_and_ends_the_source() {
    let simulator = start(simulated(0)).await;
    let control = simulator.control();
    control.emit(120);
    control
        .emit_raw(r#"{"eventId":"end-1","eventType":"engagementCenter.Disconnected","payload":"{}"}"#)
        .unwrap();
    let mut settings = settings(&simulator);
    settings.session.end_events = vec!["engagementCenter.Disconnected".to_owned()];
    let polling = Polling::start(settings);
    until("the end event", || polling.received() >= 1).await;
    assert_eq!(polling.end().await.unwrap(), Finished::Ended);
    let report = simulator.stop().await;
    assert_eq!(report.sessions_deleted, 1);
    assert_eq!(report.unacknowledged, 0);
    assert!(report.misbehaviour.is_empty(), "{:?}", report.misbehaviour_cases);
}

#[tokio::test]
async fn a_vendor_that_is_away_at_the_start_is_waited_for() {
    let simulator = start(simulated(10)).await;
    let mut settings = settings(&simulator);
    let (api_url, addr) = (settings.api_url.clone(), simulator.addr());
    simulator.stop().await;
    settings.api_url = api_url;
    let polling = Polling::start(settings);
    until("a reason", || polling.status.borrow().phase == Phase::BackingOff).await;
    assert!(polling.status.borrow().reason.as_ref().unwrap().contains("no connection"));
    let simulator = start(Settings { listen: addr, ..simulated(10) }).await;
    until_acknowledged(&simulator, 10).await;
    assert!(polling.status.borrow().session_up);
    tokio::time::timeout(Duration::from_secs(10), polling.stop()).await.unwrap().unwrap();
}
