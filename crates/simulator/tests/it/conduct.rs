//! What a client does wrong is caught, and what it does right is not.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::json;
use viaduct_simulator::{MisbehaviourKind, Settings};

use crate::client::{World, endless, eventually, quiet, token};

const GRACE: Duration = Duration::from_millis(110);

#[tokio::test]
async fn concurrent_polls_of_one_session() {
    let world = World::new(Settings { hold: Duration::from_millis(500), ..quiet() }).await;
    let (one, other) = (world.session().await, world.session().await);
    // Of different sessions: nothing wrong.
    tokio::join!(world.get(&one, 1), world.get(&other, 1));
    assert_eq!(world.report().misbehaviour, Default::default());
    tokio::join!(world.get(&one, 1), world.get(&one, 1));
    let report = world.report();
    assert_eq!(report.misbehaved(MisbehaviourKind::ConcurrentGets), 1);
    assert!(report.misbehaviour_cases[0].detail.contains(&one));
}

#[tokio::test]
async fn a_poll_that_was_given_up_is_not_concurrent_with_the_next() {
    let world = World::new(Settings { hold: Duration::from_millis(500), ..quiet() }).await;
    let session = world.session().await;
    let given_up = tokio::time::timeout(Duration::from_millis(100), world.get(&session, 1)).await;
    assert!(given_up.is_err());
    world.get(&session, 1).await;
    eventually("the poll given up is noticed", || world.report().answered("events", "gone") == 1).await;
    assert_eq!(world.report().misbehaviour, Default::default());
}

#[tokio::test]
async fn a_dead_session_id_used_again() {
    let world = World::new(quiet()).await;
    let session = world.session().await;
    world.simulator.control().expire_all_sessions();
    // Not knowing is no offence.
    assert_eq!(world.try_get(&session, 1).await.unwrap().status(), StatusCode::BAD_REQUEST);
    assert_eq!(world.report().misbehaviour, Default::default());
    // Knowing is: on the same connection at once, on another one after a moment.
    assert_eq!(world.try_get(&session, 1).await.unwrap().status(), StatusCode::BAD_REQUEST);
    tokio::time::sleep(GRACE).await;
    world.in_session(Method::DELETE, 3, "session", &session).send().await.unwrap();
    assert_eq!(world.report().misbehaved(MisbehaviourKind::DeadSessionUsed), 2);
}

#[tokio::test]
async fn an_acknowledgement_of_what_was_never_given() {
    let world = World::new(endless()).await;
    let session = world.session().await;
    world.get(&session, 1).await;
    for unknown in ["1519073278252-1", "1519073278252-00", "0-0", "made up"] {
        let (_, not_found) = world.acknowledge(&session, &[unknown.to_owned()]).await;
        assert_eq!(not_found, [unknown]);
    }
    assert_eq!(world.report().misbehaved(MisbehaviourKind::UnknownAcknowledged), 4);
}

#[tokio::test]
async fn an_acknowledgement_where_none_is_asked_for() {
    let world = World::new(endless()).await;
    let session = world.create(3, json!({})).await["sessionId"].as_str().unwrap().to_owned();
    let given = crate::client::ids(&world.get(&session, 1).await);
    let response = world.try_acknowledge(&session, &given).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(world.report().misbehaved(MisbehaviourKind::AcknowledgeNotEnabled), 1);
}

#[tokio::test]
async fn versions_in_combination() {
    let world = World::new(endless()).await;
    let v3 = world.session().await;
    let v2 = world.create(2, json!([])).await["sessionId"].as_str().unwrap().to_owned();
    for (version, session) in [(2, &v3), (3, &v2)] {
        let response = world.in_session(Method::GET, version, "events", session).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    }
    let acknowledged = world.try_acknowledge(&v2, &["1519073278252-0".to_owned()]).await.unwrap();
    assert_eq!(acknowledged.status(), StatusCode::BAD_REQUEST);
    assert_eq!(world.report().misbehaved(MisbehaviourKind::VersionsMixed), 3);
    // Subscriptions exist under v2 paths only: a v3 session that uses them mixes nothing.
    let list = world.in_session(Method::GET, 2, "subscriptions", &v3).send().await.unwrap();
    assert_eq!(list.status(), StatusCode::OK);
    assert_eq!(world.report().misbehaved(MisbehaviourKind::VersionsMixed), 3);
}

#[tokio::test]
async fn calls_before_the_time_that_retry_after_told() {
    for header in ["retry-after=1", "retry-after-date=1"] {
        let world = World::new(endless()).await;
        let session = world.session().await;
        let early = |world: &World| world.report().misbehaved(MisbehaviourKind::RetryBeforeRetryAfter);
        world.simulator.control().set_faults(format!("events:429+{header}:@1").parse().unwrap());
        let response = world.try_get(&session, 1).await.unwrap();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        let retry_after = response.headers()["retry-after"].to_str().unwrap().to_owned();
        match header {
            "retry-after=1" => assert_eq!(retry_after, "1"),
            _ => assert!(retry_after.ends_with(" GMT"), "{retry_after}"),
        }
        // Any operation, the token endpoint too, and a fresh token does not help.
        world.create(3, json!({})).await;
        tokio::time::sleep(GRACE).await;
        token(&world.http, &world.simulator).await;
        assert_eq!(early(&world), 2, "{:?}", world.report().misbehaviour_cases);
        // A date is rounded up to a whole second.
        tokio::time::sleep(Duration::from_secs(2)).await;
        world.get(&session, 1).await;
        assert_eq!(early(&world), 2);
    }
}

#[tokio::test]
async fn a_client_that_was_started_anew_cannot_know() {
    let world = World::new(endless()).await;
    let session = world.session().await;
    let control = world.simulator.control();
    control.set_faults("events:503+retry-after=60:@1".parse().unwrap());
    world.try_get(&session, 1).await.unwrap();
    control.forget_retry_after();
    world.get(&session, 1).await;
    assert!(world.report().misbehaviour.is_empty());
}
