//! Redelivery, expiry, and what survives a lost session.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use viaduct_simulator::{Redelivery, Requeue, Settings};

use crate::client::{World, endless, eventually, ids, quiet};

fn from_head() -> Settings {
    Settings { redelivery: Redelivery::FromHead, ..endless() }
}

#[tokio::test]
async fn new_events_come_before_pending_ones() {
    let settings = Settings { redelivery_delay: Duration::from_millis(50), total: Some(6), ..endless() };
    let world = World::new(settings).await;
    let session = world.session().await;
    let (first, second) = (world.get(&session, 4).await, world.get(&session, 4).await);
    assert_eq!((first.len(), second.len()), (4, 2));
    world.acknowledge(&session, &ids(&first[1..3])).await;
    // Nothing new is left: what is unacknowledged comes again, in order, and word for word.
    let mut again = Vec::new();
    while again.len() < 4 {
        again.extend(world.get(&session, 3).await);
    }
    assert_eq!(again, [&first[..1], &first[3..], &second[..]].concat());
    assert_eq!(world.report().redelivered, 4);
    // And something new is there before that comes a third time.
    world.simulator.control().emit(1);
    let new = world.get(&session, 1).await;
    assert!(!ids(&again).contains(&ids(&new)[0]));
}

#[tokio::test]
async fn pending_events_wait_for_the_redelivery_delay() {
    let settings = Settings { redelivery_delay: Duration::from_secs(3600), total: Some(3), ..endless() };
    let world = World::new(settings).await;
    let session = world.session().await;
    assert_eq!(world.get(&session, 200).await.len(), 3);
    assert_eq!(world.get(&session, 200).await.len(), 0);
}

#[tokio::test]
async fn the_head_comes_again_until_it_is_acknowledged() {
    let world = World::new(from_head()).await;
    let session = world.session().await;
    let head = world.get(&session, 5).await;
    assert_eq!(world.get(&session, 5).await, head);
    let longer = world.get(&session, 7).await;
    assert_eq!(longer[..5], head[..]);
    let (acknowledged, not_found) = world.acknowledge(&session, &ids(&head[..3])).await;
    assert_eq!((acknowledged, not_found), (ids(&head[..3]), vec![]));
    let next = world.get(&session, 5).await;
    assert_eq!(next[..4], longer[3..]);
    let report = world.report();
    assert_eq!((report.delivered, report.redelivered, report.unacknowledged), (8, 14, 5));
}

#[tokio::test]
async fn acknowledging_twice_is_answered_as_not_found() {
    let world = World::new(endless()).await;
    let session = world.session().await;
    let given = ids(&world.get(&session, 2).await);
    assert_eq!(world.acknowledge(&session, &given[..1]).await.0, given[..1]);
    let (acknowledged, not_found) = world.acknowledge(&session, &given).await;
    assert_eq!((&acknowledged[..], &not_found[..]), (&given[1..], &given[..1]));
    let report = world.report();
    assert_eq!((report.acknowledged_again, report.acknowledge_not_found), (1, 1));
    assert!(report.misbehaviour.is_empty(), "a retry is no misbehaviour");
    for wrong in [json!({"events": []}), json!({"events": [{"id": "1"}]}), json!([])] {
        let request = world.in_session(Method::POST, 3, "acknowledge", &session).json(&wrong);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn unacknowledged_events_move_to_the_next_session_under_the_same_id() {
    for settings in [endless(), from_head()] {
        let world = World::new(Settings { requeue: Requeue::SameId, ..settings }).await;
        let session = world.session().await;
        let given = world.get(&session, 10).await;
        world.acknowledge(&session, &ids(&given[..4])).await;
        world.simulator.control().expire_all_sessions();
        assert_eq!(world.report().queued, 6);
        let session = world.session().await;
        // An id that this session was not given yet is not found, but it is not unknown either.
        assert_eq!(world.acknowledge(&session, &ids(&given[4..5])).await.1, ids(&given[4..5]));
        let again = world.get(&session, 10).await;
        assert_eq!(again[..6], given[4..]);
        assert_eq!(world.acknowledge(&session, &ids(&again)).await.0.len(), 10);
        let report = world.report();
        assert_eq!((report.emitted, report.acknowledged, report.redelivered), (14, 14, 6));
        assert!(report.misbehaviour.is_empty());
    }
}

#[tokio::test]
async fn unacknowledged_events_move_to_the_next_session_under_new_ids() {
    let world = World::new(Settings { requeue: Requeue::NewId, ..endless() }).await;
    let session = world.session().await;
    let given = world.get(&session, 10).await;
    world.acknowledge(&session, &ids(&given[..4])).await;
    world.in_session(Method::DELETE, 3, "session", &session).send().await.unwrap();
    let session = world.session().await;
    let again = world.get(&session, 6).await;
    for (old, new) in given[4..].iter().zip(&again) {
        assert_ne!(old["eventId"], new["eventId"]);
        for same in ["kind", "correlationId", "eventType", "publishedTime", "schemaVersion", "payload"] {
            assert_eq!(old[same], new[same]);
        }
    }
    world.acknowledge(&session, &ids(&again)).await;
    let report = world.report();
    assert_eq!((report.emitted, report.acknowledged, report.replaced, report.redelivered), (10, 10, 6, 6));
    let journal = world.simulator.control().events(0, 100);
    let old = &journal[4];
    assert_eq!(old.state, "replaced");
    let new = &journal[old.replaced_by.unwrap() as usize];
    assert_eq!((new.replaces, new.state.as_str()), (Some(4), "acknowledged"));
    assert_eq!(new.payload_hash, old.payload_hash);
}

#[tokio::test]
async fn unacknowledged_events_can_be_lost() {
    let world = World::new(Settings { requeue: Requeue::Lost, ..endless() }).await;
    let session = world.session().await;
    let given = world.get(&session, 10).await;
    world.acknowledge(&session, &ids(&given[..4])).await;
    world.simulator.control().expire_all_sessions();
    let session = world.session().await;
    let next = ids(&world.get(&session, 10).await);
    assert!(ids(&given).iter().all(|id| !next.contains(id)));
    let report = world.report();
    assert_eq!((report.lost, report.acknowledged), (6, 4));
    let journal = world.simulator.control().events(0, 10);
    assert_eq!(journal.iter().filter(|row| row.state == "lost").count(), 6);
}

#[tokio::test]
async fn a_session_without_polls_expires() {
    let settings = Settings { granted_inactivity: Some(Duration::from_millis(400)), ..quiet() };
    let world = World::new(settings).await;
    let created = world.create(3, json!({"inactivityDelay": 120, "requireAcknowledgement": true})).await;
    assert_eq!(created["inactivityDelay"], 1, "whole seconds, rounded up");
    let session = created["sessionId"].as_str().unwrap();
    world.simulator.control().emit(2);
    // Polls keep it alive, for longer than the delay; a poll waits a quarter of the delay.
    for _ in 0..6 {
        world.get(session, 1).await;
    }
    assert_eq!(world.report().sessions_expired, 0);
    // Nothing but polls does.
    eventually("the session expired", || world.report().sessions_expired == 1).await;
    let response = world.try_get(session, 1).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(response.json::<Value>().await.unwrap()["message"], "Invalid or expired session");
    assert_eq!(world.report().sessions[0].state, "expired");
    assert_eq!(world.report().queued, 2);
}

#[tokio::test]
async fn a_poll_hears_at_once_that_its_session_ended() {
    let world = World::new(Settings { hold: Duration::from_secs(10), ..quiet() }).await;
    let session = world.session().await;
    let expire = async {
        eventually("a poll", || world.report().sessions[0].gets == 1).await;
        world.simulator.control().expire_all_sessions();
    };
    let (response, ()) = tokio::join!(world.try_get(&session, 1), expire);
    assert_eq!(response.unwrap().status(), StatusCode::BAD_REQUEST);
}
