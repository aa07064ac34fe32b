//! v2: no acknowledgement, so the spool.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use viaduct_poller::{AckToken, ApiVersion, BuildError, Finished, Parts, Poller, SourceSettings, Spool};
use viaduct_simulator::{Running, Settings};

use crate::bench::{Kept, Polling, Settle, SharedStore, at_once, settings, simulated, start, until};

fn v2(simulator: &Running) -> SourceSettings {
    SourceSettings { api: ApiVersion::V2, ..settings(simulator) }
}

#[tokio::test]
async fn events_flow_and_leave_the_spool() {
    let simulator = start(simulated(2000)).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool.redb");
    let polling =
        Polling::with(v2(&simulator), SharedStore::default(), Some(Spool::open(&path).unwrap()), at_once());
    until("all events", || polling.received() == 2000).await;
    until("all settled", || polling.counts.get("acknowledged") == 2000).await;
    assert_eq!(polling.stop().await.unwrap(), Finished::Stopped { unacknowledged: 0 });
    // A spool that was left behind would be replayed.
    let polling =
        Polling::with(v2(&simulator), SharedStore::default(), Some(Spool::open(&path).unwrap()), at_once());
    until("polls", || polling.counts.get("request events") >= 2).await;
    assert_eq!(polling.received(), 0);
    polling.stop().await.unwrap();
    let report = simulator.stop().await;
    assert!(report.misbehaviour.is_empty(), "{:?}", report.misbehaviour_cases);
    assert_eq!(report.answered("acknowledge", "200"), 0);
}

/// A consumer that gives an event back gets it again, from the disk.
#[tokio::test]
async fn what_is_given_back_comes_again_from_the_spool() {
    let simulator = start(simulated(100)).await;
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(&dir.path().join("spool.redb")).unwrap();
    let given_back: Arc<Mutex<HashSet<String>>> = Arc::default();
    let once = given_back.clone();
    let settle: Settle = Box::new(move |entry, token| {
        let id = entry.identity().id().to_owned();
        if entry.identity().hash().as_u128() % 5 != 0 || !once.lock().unwrap().insert(id) {
            token.acknowledge(Kept);
        }
    });
    let polling = Polling::with(v2(&simulator), SharedStore::default(), Some(spool), settle);
    until("all", || polling.counts.get("acknowledged") == 100).await;
    let again = given_back.lock().unwrap().len();
    assert!(again > 5);
    assert_eq!(polling.received(), 100 + again);
    assert_eq!(polling.stop().await.unwrap(), Finished::Stopped { unacknowledged: 0 });
}

/// What was given back waits on disk too, and counts once.
#[tokio::test]
async fn what_is_given_back_at_the_end_is_told_once() {
    let simulator = start(simulated(100)).await;
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(&dir.path().join("spool.redb")).unwrap();
    let polling = Polling::with(v2(&simulator), SharedStore::default(), Some(spool), Box::new(|_, _| {}));
    until("all", || polling.received() >= 100).await;
    assert_eq!(polling.stop().await.unwrap(), Finished::Stopped { unacknowledged: 100 });
}

/// A full consumer: the session lives, and everything that keep-alive polls bring waits on disk, in order.
#[tokio::test]
async fn a_stalled_consumer_keeps_its_session_and_its_bound() {
    let simulator =
        start(Settings { granted_inactivity: Some(Duration::from_millis(600)), ..simulated(60) }).await;
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(&dir.path().join("spool.redb")).unwrap();
    let mut settings = v2(&simulator);
    (settings.max_in_flight, settings.max_events) = (10, 5);
    let hoard: Arc<Mutex<Vec<AckToken>>> = Arc::default();
    let tokens = hoard.clone();
    let settle: Settle = Box::new(move |_, token| tokens.lock().unwrap().push(token));
    let polling = Polling::with(settings, SharedStore::default(), Some(spool), settle);
    let control = simulator.control();
    until("twelve polls", || control.report().answered("events", "200") >= 12).await;
    assert_eq!(hoard.lock().unwrap().len(), 10);
    assert_eq!(control.report().sessions_expired, 0);
    until("all", || {
        std::mem::take(&mut *hoard.lock().unwrap()).into_iter().for_each(|token| token.acknowledge(Kept));
        polling.counts.get("acknowledged") == 60
    })
    .await;
    crate::bench::assert_vendor_order(&simulator, &polling.ids());
    polling.stop().await.unwrap();
}

/// What nobody had room for when the poller was stopped is told as unacknowledged, and comes with the next start.
#[tokio::test]
async fn what_waits_on_disk_at_the_end_is_told() {
    let simulator =
        start(Settings { granted_inactivity: Some(Duration::from_millis(600)), ..simulated(60) }).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool.redb");
    let mut settings = v2(&simulator);
    (settings.max_in_flight, settings.max_events) = (10, 5);
    let hoard: Arc<Mutex<Vec<AckToken>>> = Arc::default();
    let tokens = hoard.clone();
    let settle: Settle = Box::new(move |_, token| tokens.lock().unwrap().push(token));
    let spool = Spool::open(&path).unwrap();
    let polling = Polling::with(settings.clone(), SharedStore::default(), Some(spool), settle);
    let control = simulator.control();
    until("all are taken from the vendor", || control.report().consumed == 60).await;
    let release = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        std::mem::take(&mut *hoard.lock().unwrap()).into_iter().for_each(|token| token.acknowledge(Kept));
    };
    let (finished, ()) = tokio::join!(polling.stop(), release);
    assert_eq!(finished.unwrap(), Finished::Stopped { unacknowledged: 50 });

    let polling =
        Polling::with(settings, SharedStore::default(), Some(Spool::open(&path).unwrap()), at_once());
    until("the rest", || polling.counts.get("acknowledged") == 50).await;
    assert_eq!(polling.stop().await.unwrap(), Finished::Stopped { unacknowledged: 0 });
}

/// A response that breaks off is gone from the vendor; what came of it flows, the torn rest is reported.
#[tokio::test]
async fn what_came_of_a_cut_response_is_not_lost() {
    let simulator = start(Settings { faults: "events:cut:20%".parse().unwrap(), ..simulated(1000) }).await;
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(&dir.path().join("spool.redb")).unwrap();
    let polling = Polling::with(v2(&simulator), SharedStore::default(), Some(spool), at_once());
    let control = simulator.control();
    until("the end of the queue", || {
        let report = control.report();
        report.emitted == 1000 && report.queued == 0 && report.unacknowledged == 0
    })
    .await;
    let requests = polling.counts.get("request events");
    until("two more polls", || polling.counts.get("request events") >= requests + 2).await;
    let (torn, lost) = {
        let seen = polling.seen.lock().unwrap();
        let torn = seen.malformed.iter().filter(|(_, detail)| detail.contains("cut off")).count();
        let unique: HashSet<_> = seen.entries.iter().collect();
        (torn, 1000 - unique.len())
    };
    assert!(torn > 0 || lost == 0, "{torn} {lost}");
    polling.stop().await.unwrap();
    simulator.stop().await;
}

#[tokio::test]
async fn v2_without_a_spool_is_refused() {
    let simulator = start(simulated(1)).await;
    let parts = Parts {
        store: Box::new(SharedStore::default()),
        observer: Arc::new(viaduct_poller::NoObserver),
        spool: None,
        crowd: viaduct_poller::Crowd::default(),
    };
    assert!(matches!(Poller::new(v2(&simulator), parts), Err(BuildError::SpoolMissing)));
}
