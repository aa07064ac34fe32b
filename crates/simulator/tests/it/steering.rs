//! Steering a simulation, from the same process and over HTTP.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use viaduct_simulator::{Rate, Report, Settings};

use crate::client::{World, endless, eventually, ids, quiet};

#[tokio::test]
async fn acknowledgements_can_be_held() {
    let world = World::new(endless()).await;
    let session = world.session().await;
    let given = ids(&world.get(&session, 3).await);
    let control = world.simulator.control();
    control.hold_acknowledgements(true);
    let release = async {
        eventually("it is held", || control.held_acknowledgements() == [given.clone()]).await;
        assert_eq!(world.report().acknowledged, 0);
        // A release lets go even if the next hold follows at once.
        control.hold_acknowledgements(false);
        control.hold_acknowledgements(true);
    };
    let ((acknowledged, _), ()) = tokio::join!(world.acknowledge(&session, &given), release);
    assert_eq!(acknowledged, given);
    assert!(control.held_acknowledgements().is_empty());
}

#[tokio::test]
async fn a_held_acknowledgement_of_a_client_that_left_has_no_effect() {
    let world = World::new(endless()).await;
    let session = world.session().await;
    let given = ids(&world.get(&session, 1).await);
    let control = world.simulator.control();
    control.hold_acknowledgements(true);
    let left = tokio::time::timeout(Duration::from_millis(100), world.acknowledge(&session, &given)).await;
    assert!(left.is_err());
    eventually("it is gone", || control.held_acknowledgements().is_empty()).await;
    control.hold_acknowledgements(false);
    assert_eq!(world.report().acknowledged, 0);
    assert_eq!(world.acknowledge(&session, &given).await.0, given);
}

#[tokio::test]
async fn http_does_the_same() {
    let world = World::new(quiet()).await;
    let url = |path: &str| format!("{}/_simulator/{path}", world.simulator.url());
    let post = async |path: &str, body: &str| {
        world.http.post(url(path)).body(body.to_owned()).send().await.unwrap().status()
    };
    let get =
        async |path: &str| world.http.get(url(path)).send().await.unwrap().json::<Value>().await.unwrap();
    let session = world.session().await;

    assert_eq!(post("emit?count=4", "").await, StatusCode::NO_CONTENT);
    assert_eq!(post("emit-raw", r#"{"eventId":"odd","eventType":"x"}"#).await, StatusCode::NO_CONTENT);
    assert_eq!(post("emit-raw", "{").await, StatusCode::BAD_REQUEST);
    let events = world.get(&session, 200).await;
    assert_eq!(events.len(), 5);
    assert!(events.contains(&json!({"eventId": "odd", "eventType": "x"})));

    assert_eq!(post("hold-acknowledgements", "").await, StatusCode::NO_CONTENT);
    let release = async {
        eventually("it is held", || world.report().held_acknowledgements == 1).await;
        assert_eq!(get("held-acknowledgements").await, json!([ids(&events)]));
        assert_eq!(post("release-acknowledgements", "").await, StatusCode::NO_CONTENT);
    };
    let given = ids(&events);
    let ((acknowledged, _), ()) = tokio::join!(world.acknowledge(&session, &given), release);
    assert_eq!(acknowledged.len(), 5);

    let report: Report = serde_json::from_value(get("report").await).unwrap();
    assert_eq!(report, world.report());
    let full: Report = serde_json::from_value(get("report?events=true&from=1&limit=3").await).unwrap();
    let rows: Vec<u64> = full.events.unwrap().iter().map(|row| row.number).collect();
    assert_eq!(rows, [1, 2, 3]);

    assert_eq!(post("faults", "events:503:@1").await, StatusCode::NO_CONTENT);
    assert_eq!(get("faults").await, json!({"faults": "events:503:@1"}));
    assert_eq!(world.try_get(&session, 1).await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(post("faults", "events:nothing:@1").await, StatusCode::BAD_REQUEST);
    assert_eq!(post("faults", "").await, StatusCode::NO_CONTENT);

    assert_eq!(post("rate?value=unlimited", "").await, StatusCode::NO_CONTENT);
    assert_eq!(post("rate?value=-1", "").await, StatusCode::BAD_REQUEST);
    assert_eq!(post("pause", "").await, StatusCode::NO_CONTENT);
    assert_eq!(post("resume", "").await, StatusCode::NO_CONTENT);
    assert_eq!(post("forget-retry-after", "").await, StatusCode::NO_CONTENT);
    assert_eq!(post("expire-sessions", "").await, StatusCode::NO_CONTENT);
    assert_eq!(world.report().sessions_expired, 1);
    assert_eq!(post("revoke-tokens", "").await, StatusCode::NO_CONTENT);
    assert_eq!(world.try_get(&session, 1).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(post("nothing", "").await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn emission_can_be_paused_and_changed() {
    let world = World::new(endless()).await;
    let session = world.session().await;
    let control = world.simulator.control();
    control.pause();
    assert_eq!(world.get(&session, 10).await.len(), 0);
    control.resume();
    assert_eq!(world.get(&session, 10).await.len(), 10);
    control.set_rate(Rate::PerSecond(0.0));
    let rest = world.get(&session, 10).await;
    assert!(rest.is_empty(), "{rest:?}");
}

#[tokio::test]
async fn stopping_ends_polls_and_held_acknowledgements() {
    let world = World::new(Settings { hold: Duration::from_secs(30), ..quiet() }).await;
    let session = world.session().await;
    world.simulator.control().emit(1);
    let given = ids(&world.get(&session, 1).await);
    let control = world.simulator.control();
    control.hold_acknowledgements(true);
    let World { simulator, http, token } = world;
    let url = format!("{}/via/v3/organizations/acme/streaming", simulator.url());
    let call = |request: reqwest::RequestBuilder| {
        request.bearer_auth(&token).header("x-api-key", "k").header("via-client-sessionid", &session).send()
    };
    let acknowledge =
        call(http.post(format!("{url}/acknowledge")).json(&json!({"events": [{"eventId": given[0]}]})));
    let poll = call(http.get(format!("{url}/events")));
    let stop = async {
        eventually("both wait", || {
            control.held_acknowledgements().len() == 1 && control.report().sessions[0].gets == 2
        })
        .await;
        simulator.stop().await
    };
    let (acknowledged, polled, report) = tokio::join!(acknowledge, poll, stop);
    assert_eq!(acknowledged.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(polled.unwrap().json::<Value>().await.unwrap()["totalItems"], 0);
    assert_eq!(report.acknowledged, 0);
    assert!(http.get(url).send().await.is_err_and(|error| error.is_connect()));
}
