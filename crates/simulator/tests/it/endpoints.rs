//! Every endpoint and every status.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use viaduct_simulator::{CatalogType, Settings, Simulator};

use crate::client::{World, http, quiet};

const SUBSCRIPTIONS: &str = "subscriptions";

fn subscription(description: &str) -> Value {
    json!({"description": description, "filterCriteria": {
        "catalogType": "engagementCenterThirdParty", "catalogTypeEvents": ["ScreenPop", "Idle", "NotReady"],
        "resources": {"resourceType": "users", "resourceIds": ["ef3084eba0ea470", "2d890d0d2a6ac46"]}}})
}

#[tokio::test]
async fn tokens_are_given_to_the_right_client_only() {
    let settings = Settings {
        client_id: Some("right:id".to_owned()),
        client_secret: Some("se cret".to_owned()),
        token_ttl: Duration::from_secs(300),
        ..quiet()
    };
    let simulator = Simulator::start(settings).await.unwrap();
    let http = http();
    let post = |form: &[(&str, &str)]| http.post(simulator.token_url()).form(form);
    let grant = ("grant_type", "client_credentials");

    let body = post(&[grant, ("client_id", "right:id"), ("client_secret", "se cret"), ("realm", "acme")]);
    let body: Value = body.send().await.unwrap().json().await.unwrap();
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["expires_in"], 300);
    assert!(body["access_token"].as_str().is_some_and(|token| !token.is_empty()));

    // Basic authentication: both parts are form-encoded first (RFC 6749, section 2.3.1).
    let encoded = post(&[grant]).basic_auth("right%3Aid", Some("se+cret")).query(&[("realm", "acme")]);
    assert_eq!(encoded.send().await.unwrap().status(), StatusCode::OK);

    let wrong = post(&[grant]).basic_auth("right%3Aid", Some("wrong")).send().await.unwrap();
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    assert!(wrong.headers().contains_key("www-authenticate"));
    assert_eq!(wrong.json::<Value>().await.unwrap()["error"], "invalid_client");
    let posted = post(&[grant, ("client_id", "wrong"), ("client_secret", "se cret")]).send().await.unwrap();
    assert_eq!(posted.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(post(&[grant]).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);

    let other = post(&[("grant_type", "password")]).send().await.unwrap();
    assert_eq!(other.status(), StatusCode::BAD_REQUEST);
    assert_eq!(other.json::<Value>().await.unwrap()["error"], "unsupported_grant_type");
    assert_eq!(post(&[]).send().await.unwrap().json::<Value>().await.unwrap()["error"], "invalid_request");

    let get = http.get(simulator.token_url()).send().await.unwrap();
    assert_eq!(get.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(get.headers()["allow"], "POST");
    assert_eq!(simulator.report().tokens_issued, 2);
}

#[tokio::test]
async fn the_api_asks_for_token_key_organisation_path_and_method() {
    let world = World::new(Settings { api_key: Some("right".to_owned()), ..quiet() }).await;
    let url = |path: &str| format!("{}/via/{path}", world.simulator.url());
    let session = "v3/organizations/acme/streaming/session";
    let post = |path: &str| world.http.post(url(path));

    for unauthorized in [
        post(session).header("x-api-key", "right"),
        post(session).bearer_auth(&world.token),
        post(session).bearer_auth(&world.token).header("x-api-key", "wrong"),
        post(session).bearer_auth("made up").header("x-api-key", "right"),
        post(session).basic_auth("me", Some("secret")).header("x-api-key", "right"),
    ] {
        let response = unauthorized.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(response.text().await.unwrap(), "", "the document lists no schema for 401");
    }

    let allowed = |method: Method, path: &str| {
        world.http.request(method, url(path)).bearer_auth(&world.token).header("x-api-key", "right")
    };
    assert_eq!(allowed(Method::POST, session).send().await.unwrap().status(), StatusCode::OK);

    let other = allowed(Method::POST, "v3/organizations/other/streaming/session").send().await.unwrap();
    assert_eq!(other.status(), StatusCode::NOT_FOUND);
    let error: Value = other.json().await.unwrap();
    assert_eq!(error["code"], 404);
    assert!(error["message"].is_string() && error["errors"][0]["reason"].is_string());

    for unknown in [
        "v4/organizations/acme/streaming/session",
        "v3/organizations/acme/streaming/subscriptions",
        "v2/organizations/acme/streaming/acknowledge",
        "v3",
    ] {
        let response = allowed(Method::GET, unknown).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{unknown}");
    }
    for (method, path, methods) in [
        (Method::GET, "v3/organizations/acme/streaming/session", "POST, DELETE"),
        (Method::POST, "v2/organizations/acme/streaming/events", "GET"),
        (Method::GET, "v3/organizations/acme/streaming/acknowledge", "POST"),
        (Method::PATCH, "v2/organizations/acme/streaming/subscriptions", "POST, GET"),
        (Method::POST, "v2/organizations/acme/streaming/subscriptions/1", "GET, PUT, DELETE"),
    ] {
        let response = allowed(method, path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()["allow"], methods);
        assert_eq!(response.json::<Value>().await.unwrap()["code"], 405);
    }
}

#[tokio::test]
async fn a_token_expires() {
    let world = World::new(Settings { token_ttl: Duration::from_millis(300), ..quiet() }).await;
    let session = world.session().await;
    tokio::time::sleep(Duration::from_millis(301)).await;
    let response = world.try_get(&session, 1).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn sessions_of_v3() {
    let world = World::new(quiet()).await;
    let path = "v3/organizations/acme/streaming/session";
    let asked = world.create(3, json!({"inactivityDelay": 300, "requireAcknowledgement": true})).await;
    assert_eq!(asked["inactivityDelay"], 300);
    assert_eq!(asked["requireAcknowledgement"], true);
    assert!(asked["creationTime"].as_str().is_some_and(|time| time.len() == 24 && time.ends_with('Z')));
    let defaults: Value = world.request(Method::POST, path).send().await.unwrap().json().await.unwrap();
    assert_eq!(
        (&defaults["inactivityDelay"], &defaults["requireAcknowledgement"]),
        (&json!(60), &json!(false))
    );
    assert_ne!(asked["sessionId"], defaults["sessionId"]);

    for wrong in [
        "{\"inactivityDelay\":59}",
        "{\"inactivityDelay\":601}",
        "{\"inactivityDelay\":\"90\"}",
        "{\"requireAcknowledgement\":1}",
        "[]",
        "<",
    ] {
        let response = world.request(Method::POST, path).body(wrong).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{wrong}");
        assert_eq!(response.json::<Value>().await.unwrap()["code"], 400);
    }

    let session = asked["sessionId"].as_str().unwrap();
    let deleted = world.in_session(Method::DELETE, 3, "session", session).send().await.unwrap();
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    let after = world.try_get(session, 1).await.unwrap();
    assert_eq!(after.status(), StatusCode::BAD_REQUEST);
    assert_eq!(after.json::<Value>().await.unwrap()["message"], "Invalid or expired session");
    let without = world.request(Method::GET, "v3/organizations/acme/streaming/events").send().await.unwrap();
    assert_eq!(without.status(), StatusCode::BAD_REQUEST);

    let report = world.report();
    assert_eq!((report.sessions_created, report.sessions_deleted, report.sessions_expired), (2, 1, 0));
    assert_eq!(report.answered("session_delete", "204"), 1);
    assert_eq!(report.answered("session_create", "400"), 6);
}

#[tokio::test]
async fn sessions_of_v2_take_properties_as_a_list_and_as_the_string_of_the_document() {
    let world = World::new(quiet()).await;
    let properties = json!([{"propertyName": "inactivityDelay", "propertyValue": "300"},
        {"propertyName": "somethingElse", "propertyValue": "x"}]);
    let session = world.create(2, properties.clone()).await;
    assert_eq!(session["inactivityDelay"], 300);
    assert!(session.get("requireAcknowledgement").is_none());
    let session = world.create(2, Value::String(properties.to_string())).await;
    assert_eq!(session["inactivityDelay"], 300);
    let wrong = json!([{"propertyName": "inactivityDelay", "propertyValue": "5"}]);
    let request = world.request(Method::POST, "v2/organizations/acme/streaming/session").json(&wrong);
    assert_eq!(request.send().await.unwrap().status(), StatusCode::BAD_REQUEST);
    let session = session["sessionId"].as_str().unwrap();
    let deleted = world.in_session(Method::DELETE, 2, "session", session).send().await.unwrap();
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn max_events_is_one_to_two_hundred() {
    let world = World::new(quiet()).await;
    let session = world.session().await;
    for wrong in ["0", "201", "-1", "many"] {
        let request = world.in_session(Method::GET, 3, &format!("events?maxEvents={wrong}"), &session);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::BAD_REQUEST, "{wrong}");
    }
    world.simulator.control().emit(500);
    assert_eq!(world.get(&session, 200).await.len(), 200);
    let default = world.in_session(Method::GET, 3, "events", &session).send().await.unwrap();
    assert_eq!(default.json::<Value>().await.unwrap()["totalItems"], 1);
}

#[tokio::test]
async fn subscriptions_live_and_die_with_their_session() {
    let world = World::new(quiet()).await;
    let (one, other) = (world.session().await, world.session().await);
    let call = |method: Method, path: &str, session: &str| world.in_session(method, 2, path, session);

    let created = call(Method::POST, SUBSCRIPTIONS, &one).json(&subscription("first")).send().await.unwrap();
    assert_eq!(created.status(), StatusCode::OK);
    let created: Value = created.json().await.unwrap();
    assert_eq!(created["kind"], "via#subscription");
    assert_eq!(created["filterCriteria"], subscription("")["filterCriteria"]);
    let id = created["subscriptionId"].as_str().unwrap();
    let path = format!("{SUBSCRIPTIONS}/{id}");

    let one_by_one: Value = call(Method::GET, &path, &one).send().await.unwrap().json().await.unwrap();
    assert_eq!(one_by_one, created);
    assert_eq!(call(Method::GET, &path, &other).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    let all: Value = call(Method::GET, SUBSCRIPTIONS, &one).send().await.unwrap().json().await.unwrap();
    assert_eq!(all, json!({"kind": "via#subscriptionsCollection", "subscriptions": [created]}));

    let updated = call(Method::PUT, &path, &one).json(&subscription("second")).send().await.unwrap();
    assert_eq!(updated.status(), StatusCode::OK);
    let updated: Value = updated.json().await.unwrap();
    assert_eq!(updated["description"], "second");
    assert_eq!(updated["creationTime"], created["creationTime"]);
    let upsert =
        call(Method::PUT, "subscriptions/mine", &one).json(&subscription("third")).send().await.unwrap();
    assert_eq!(upsert.status(), StatusCode::CREATED);
    assert_eq!(upsert.json::<Value>().await.unwrap()["subscriptionId"], "mine");

    let wrong =
        call(Method::POST, SUBSCRIPTIONS, &one).json(&json!({"description": "x"})).send().await.unwrap();
    assert_eq!(wrong.status(), StatusCode::BAD_REQUEST);
    assert_eq!(call(Method::DELETE, &path, &one).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(call(Method::DELETE, &path, &one).send().await.unwrap().status(), StatusCode::NOT_FOUND);

    world.get(&one, 1).await;
    let report = world.report();
    let at_first_get = report.sessions[0].subscriptions_at_first_get.as_ref().unwrap();
    assert_eq!(at_first_get.len(), 1);
    assert_eq!(at_first_get[0]["subscriptionId"], "mine");
    assert_eq!(report.sessions[1].subscriptions_at_first_get, None);

    world.simulator.control().expire_all_sessions();
    let dead = call(Method::GET, SUBSCRIPTIONS, &one).send().await.unwrap();
    assert_eq!(dead.json::<Value>().await.unwrap()["message"], "Invalid or expired session");
    let fresh = world.session().await;
    let all: Value = call(Method::GET, SUBSCRIPTIONS, &fresh).send().await.unwrap().json().await.unwrap();
    assert_eq!(all["subscriptions"], json!([]));
}

#[tokio::test]
async fn a_catalog_type_may_not_be_enabled() {
    let catalog_types = vec![CatalogType::ChangeNotification];
    let world = World::new(Settings { catalog_types, ..quiet() }).await;
    let session = world.session().await;
    let request = world.in_session(Method::POST, 2, SUBSCRIPTIONS, &session).json(&subscription("x"));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let message = response.json::<Value>().await.unwrap()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("not enabled"), "{message}");
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused() {
    let refused = async |settings: Settings| Simulator::start(settings).await.unwrap_err().to_string();
    assert_eq!(refused(Settings { burst: 0, ..quiet() }).await, "--burst: must be at least 1");
    let types = "engagementCenter.*,chat.SendText".parse().unwrap();
    let error = refused(Settings { types, ..quiet() }).await;
    assert_eq!(error, "--types: chat.SendText matches no event type of the vendor document");
    let simulator = Simulator::start(quiet()).await.unwrap();
    let taken = refused(Settings { listen: simulator.addr(), ..quiet() }).await;
    assert!(taken.starts_with("failed to listen on 127.0.0.1:"), "{taken}");
}
