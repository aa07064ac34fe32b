//! v2 and a process that dies: the spool holds what the vendor does not any more.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use viaduct_poller::{AckToken, ApiVersion, SourceSettings, Spool, SpoolError};

use crate::bench::{Kept, Polling, Settle, SharedStore, at_once, settings, simulated, start, until};

/// Events that arise in each round, and how many of those at hand become durable in it.
const ARISE: u64 = 120;
const SETTLED: usize = 70;

/// The file of a poller that died; its last write may still be coming to its end.
async fn reopened(path: &Path) -> Spool {
    let mut spool = None;
    until("the spool is free", || match Spool::open(path) {
        Ok(opened) => {
            spool = Some(opened);
            true
        }
        Err(SpoolError::InUse(_)) => false,
        Err(error) => panic!("{error}"),
    })
    .await;
    spool.unwrap()
}

fn ids(spool: &Spool) -> Vec<String> {
    spool.entries(ApiVersion::V2).iter().map(|entry| entry.identity().id().to_owned()).collect()
}

/// Killed again and again with events in hand: each start replays the spool first, in order, and no event is lost. No
/// response is on its way at the moment of the kill, because that loss nobody can prevent.
#[tokio::test]
async fn a_killed_poller_replays_its_spool_first_and_loses_nothing() {
    let simulator = start(simulated(0)).await;
    let control = simulator.control();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool.redb");
    let settings = SourceSettings { api: ApiVersion::V2, max_in_flight: 2000, ..settings(&simulator) };
    let mut durable: HashSet<String> = HashSet::new();
    for round in 1..=5 {
        let spool = reopened(&path).await;
        let left = ids(&spool);
        assert!(round == 1 || left.len() >= ARISE as usize - SETTLED, "{round}: {}", left.len());
        let hoard: Arc<Mutex<Vec<(String, AckToken)>>> = Arc::default();
        let tokens = hoard.clone();
        let settle: Settle = Box::new(move |entry, token| {
            tokens.lock().unwrap().push((entry.identity().id().to_owned(), token));
        });
        let polling = Polling::with(settings.clone(), SharedStore::default(), Some(spool), settle);
        until("the replay", || polling.received() == left.len()).await;
        assert_eq!(polling.ids(), left, "the spool comes first and in order");
        // The GET that the killed poller left at the vendor is over when two of this one are.
        until("two polls", || polling.counts.get("request events") >= 2).await;
        control.emit(ARISE);
        until("the new ones", || polling.received() == left.len() + ARISE as usize).await;
        let polls = polling.counts.get("request events");
        until("an empty poll", || polling.counts.get("request events") > polls).await;
        let mut tokens = std::mem::take(&mut *hoard.lock().unwrap());
        let unsettled = tokens.split_off(SETTLED);
        for (id, token) in tokens {
            durable.insert(id);
            token.acknowledge(Kept);
        }
        until("them to be settled", || polling.counts.get("acknowledged") == SETTLED).await;
        polling.kill().await;
        drop(unsettled);
    }
    let polling = Polling::with(settings, SharedStore::default(), Some(reopened(&path).await), at_once());
    until("everything", || {
        let received: HashSet<_> = polling.ids().into_iter().collect();
        received.union(&durable).count() as u64 == 5 * ARISE
    })
    .await;
    let received = polling.received();
    until("all settled", || polling.counts.get("acknowledged") == received).await;
    polling.stop().await.unwrap();
    assert!(ids(&reopened(&path).await).is_empty());
    assert!(simulator.stop().await.misbehaviour.is_empty());
}
