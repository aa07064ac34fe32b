//! Events prepared ahead, and a simulator far away.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;
use viaduct_simulator::{MisbehaviourKind, Rate, Settings};

use crate::client::{World, ids};

fn saturated(total: u64) -> Settings {
    Settings {
        rate: Rate::Saturated,
        total: Some(total),
        hold: Duration::from_millis(50),
        ..Settings::default()
    }
}

#[tokio::test]
async fn prepared_events_are_events_with_ids_of_their_own() {
    let world = World::new(Settings { payload_bytes: Some(1024), ..saturated(4_500) }).await;
    let session = world.session().await;
    let mut seen = BTreeSet::new();
    loop {
        let events = world.get(&session, 199).await;
        if events.is_empty() {
            break;
        }
        for event in &events {
            let payload: Value = serde_json::from_str(event["payload"].as_str().unwrap()).unwrap();
            assert!(payload.is_object());
            // About this size: the padding's own name is 13 bytes.
            assert!(event["payload"].as_str().unwrap().len() >= 1024 - 13);
            assert!(event["eventType"].as_str().unwrap().contains('.'));
        }
        let (acknowledged, not_found) = world.acknowledge(&session, &ids(&events)).await;
        assert_eq!((acknowledged, not_found), (ids(&events), vec![]));
        seen.extend(ids(&events));
    }
    assert_eq!(seen.len(), 4_500);
    let report = world.report();
    assert_eq!((report.emitted, report.acknowledged, report.unacknowledged), (4_500, 4_500, 0));
    assert!(report.misbehaviour.is_empty());
}

#[tokio::test]
async fn acknowledgements_are_counted_once_and_strangers_are_noticed() {
    let world = World::new(saturated(10)).await;
    let session = world.session().await;
    let given = ids(&world.get(&session, 5).await);
    assert_eq!(world.acknowledge(&session, &given).await, (given.clone(), vec![]));
    assert_eq!(world.acknowledge(&session, &given).await, (vec![], given.clone()));
    let stranger = given[0].replace("0000000000", "0000000007");
    assert_eq!(world.acknowledge(&session, std::slice::from_ref(&stranger)).await, (vec![], vec![stranger]));
    let report = world.report();
    assert_eq!((report.acknowledged, report.acknowledged_again), (5, 5));
    assert_eq!(report.misbehaved(MisbehaviourKind::UnknownAcknowledged), 1);
}

#[tokio::test]
async fn a_pause_stops_them_and_by_hand_they_arise() {
    // Without an end: a pause does not take back what has arisen, and of a total all has.
    let world = World::new(Settings { total: None, ..saturated(0) }).await;
    let session = world.session().await;
    world.simulator.control().pause();
    assert!(world.get(&session, 200).await.is_empty());
    world.simulator.control().emit(3);
    assert_eq!(world.get(&session, 200).await.len(), 3);
    world.simulator.control().resume();
    assert_eq!(world.get(&session, 200).await.len(), 200);
}

#[tokio::test]
async fn a_session_of_v2_gets_them_in_its_shape() {
    let world = World::new(saturated(2_001)).await;
    let session = world.create(2, serde_json::json!([])).await["sessionId"].as_str().unwrap().to_owned();
    let path = "events?maxEvents=200";
    let mut seen = BTreeSet::new();
    while seen.len() < 2_001 {
        let answer = world.in_session(reqwest::Method::GET, 2, path, &session).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        for event in answer["events"].as_array().unwrap() {
            assert!(event.get("eventId").is_none());
            seen.insert(event["id"].as_str().unwrap().to_owned());
        }
    }
}

#[tokio::test]
async fn an_answer_takes_the_round_trip() {
    let world = World::new(Settings { round_trip: Duration::from_millis(60), ..saturated(10) }).await;
    let session = world.session().await;
    let asked = Instant::now();
    assert_eq!(world.get(&session, 5).await.len(), 5);
    assert!(asked.elapsed() >= Duration::from_millis(60));
}
