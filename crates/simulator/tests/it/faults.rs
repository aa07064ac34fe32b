//! Each fault, as a client sees it, and what it leaves behind.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use viaduct_simulator::{Operation, Settings};

use crate::client::{World, endless, eventually, ids, quiet};

async fn world(faults: &str) -> (World, String) {
    let world = World::new(endless()).await;
    let session = world.session().await;
    world.simulator.control().set_faults(faults.parse().unwrap());
    (world, session)
}

/// One GET /events over a bare socket: what was read, and how the connection ended.
async fn bare_get(world: &World, session: &str) -> (String, std::io::Result<()>) {
    let mut stream = TcpStream::connect(world.simulator.addr()).await.unwrap();
    let request = format!(
        "GET /via/v3/organizations/acme/streaming/events?maxEvents=10 HTTP/1.1\r\nHost: localhost\r\n\
         Authorization: Bearer {}\r\nx-api-key: k\r\nvia-client-sessionid: {session}\r\n\r\n",
        world.token
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    let end = loop {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await {
            Ok(0) => break Ok(()),
            Ok(count) => read.extend_from_slice(&buffer[..count]),
            Err(error) => break Err(error),
        }
    };
    (String::from_utf8_lossy(&read).into_owned(), end)
}

#[tokio::test]
async fn statuses_before_and_after_applying() {
    let (world, session) = world("events:503:@1 events:500-after:@1 events:403:@1 events:429:@1").await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let response = world.try_get(&session, 10).await.unwrap();
        statuses.push(response.status().as_u16());
        assert!(!response.headers().contains_key("retry-after"));
        let error: Value = response.json().await.unwrap();
        assert_eq!(error["code"], *statuses.last().unwrap());
    }
    assert_eq!(statuses, [503, 500, 403, 429]);
    let report = world.report();
    assert_eq!(report.delivered, 10, "only the one after applying gave events out");
    assert_eq!(report.answered("events", "503"), 1);
    assert_eq!(report.faults["events:500-after"], 1);

    world.simulator.control().set_faults("events:5xx:always".parse().unwrap());
    for _ in 0..20 {
        let status = world.try_get(&session, 1).await.unwrap().status().as_u16();
        assert!([500, 502, 503, 504].contains(&status));
    }
    world.simulator.control().set_faults("events:401:@1".parse().unwrap());
    let response = world.try_get(&session, 1).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.text().await.unwrap(), "");
}

#[tokio::test]
async fn an_acknowledgement_can_be_applied_and_yet_fail() {
    let (world, session) =
        world("acknowledge:503-after:@1 acknowledge:reset-after:@1 acknowledge:503:@1").await;
    let given = ids(&world.get(&session, 3).await);
    let failed = world.try_acknowledge(&session, &given[..1]).await.unwrap();
    assert_eq!(failed.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(world.report().acknowledged, 1);
    assert!(world.try_acknowledge(&session, &given[1..2]).await.is_err());
    assert_eq!(world.report().acknowledged, 2);
    world.try_acknowledge(&session, &given[2..]).await.unwrap();
    assert_eq!(world.report().acknowledged, 2);
    let (acknowledged, not_found) = world.acknowledge(&session, &given).await;
    assert_eq!((&acknowledged[..], &not_found[..]), (&given[2..], &given[..2]));
}

#[tokio::test]
async fn connections_are_really_reset() {
    for (fault, delivered) in [("reset-before", 0), ("reset-after", 10)] {
        let (world, session) = world(&format!("events:{fault}:always")).await;
        let (read, end) = bare_get(&world, &session).await;
        assert_eq!(read, "");
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        eventually("it is counted", || world.report().answered("events", "reset") == 1).await;
        assert_eq!(world.report().delivered, delivered);
        assert!(world.try_get(&session, 1).await.is_err());
    }
}

#[tokio::test]
async fn an_answer_is_cut_in_the_middle() {
    let (world, session) = world("events:cut:always").await;
    let (read, _) = bare_get(&world, &session).await;
    let (head, body) = read.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"));
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    assert_eq!(body.len(), length.parse::<usize>().unwrap() / 2);
    let response = world.try_get(&session, 5).await.unwrap();
    assert!(response.bytes().await.is_err());
    assert_eq!(world.report().unacknowledged, 15);
    // The journal does not take the next attempt for a concurrent one.
    assert!(world.report().misbehaviour.is_empty());
}

#[tokio::test]
async fn a_body_trickles() {
    let (world, session) = world("events:slow=400ms:@1").await;
    let started = Instant::now();
    assert_eq!(world.get(&session, 20).await.len(), 20);
    assert!(started.elapsed() >= Duration::from_millis(400));
    assert!(world.report().misbehaviour.is_empty());
}

#[tokio::test]
async fn bodies_that_are_not_what_they_should_be() {
    let (world, session) = world("events:html:@1 events:invalid-json:@1").await;
    let html = world.try_get(&session, 5).await.unwrap();
    assert_eq!(
        (html.status(), html.headers()["content-type"].to_str().unwrap()),
        (StatusCode::OK, "text/html")
    );
    assert!(html.text().await.unwrap().starts_with("<!DOCTYPE html>"));
    let invalid = world.try_get(&session, 5).await.unwrap();
    assert_eq!(invalid.headers()["content-type"], "application/json");
    let text = invalid.text().await.unwrap();
    assert!(text.starts_with("{\"kind\"") && serde_json::from_str::<Value>(&text).is_err());
    assert_eq!(world.report().unacknowledged, 10);
}

#[tokio::test]
async fn tokens_and_sessions_end_in_mid_stream() {
    let (world, session) = world("events:token-expiry:@1").await;
    assert_eq!(world.try_get(&session, 1).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(world.try_get(&session, 1).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let token = crate::client::token(&world.http, &world.simulator).await;
    let world = World { token, ..world };
    assert_eq!(world.get(&session, 1).await.len(), 1);

    world.simulator.control().set_faults("acknowledge:session-expiry:@1".parse().unwrap());
    let response = world.try_acknowledge(&session, &["1519073278252-0".to_owned()]).await.unwrap();
    assert_eq!(response.json::<Value>().await.unwrap()["message"], "Invalid or expired session");
    let report = world.report();
    assert_eq!((report.sessions_expired, report.queued), (1, 1));
}

#[tokio::test]
async fn what_was_not_to_be_acknowledged_is_lost_with_its_answer() {
    for fault in ["reset-after", "cut", "html", "invalid-json", "500-after"] {
        let world = World::new(Settings { total: Some(8), ..endless() }).await;
        let session = world.create(3, json!({})).await["sessionId"].as_str().unwrap().to_owned();
        world.simulator.control().set_faults(format!("events:{fault}:@1").parse().unwrap());
        if let Ok(response) = world.try_get(&session, 5).await {
            let _ = response.bytes().await;
        }
        assert_eq!(world.get(&session, 5).await.len(), 3);
        let report = world.report();
        assert_eq!((report.lost, report.consumed), (5, 3), "{fault}");
    }
}

#[tokio::test]
async fn every_operation_can_fail() {
    let world = World::new(quiet()).await;
    let session = world.session().await;
    world.simulator.control().set_faults("*:500:always".parse().unwrap());
    let call = |method: Method, version: u8, path: &str| world.in_session(method, version, path, &session);
    let requests = [
        (Operation::Token, world.http.post(world.simulator.token_url())),
        (Operation::SessionCreate, call(Method::POST, 3, "session")),
        (Operation::SessionDelete, call(Method::DELETE, 3, "session")),
        (Operation::Events, call(Method::GET, 2, "events")),
        (Operation::Acknowledge, call(Method::POST, 3, "acknowledge")),
        (Operation::SubscriptionCreate, call(Method::POST, 2, "subscriptions")),
        (Operation::SubscriptionList, call(Method::GET, 2, "subscriptions")),
        (Operation::SubscriptionGet, call(Method::GET, 2, "subscriptions/1")),
        (Operation::SubscriptionUpdate, call(Method::PUT, 2, "subscriptions/1")),
        (Operation::SubscriptionDelete, call(Method::DELETE, 2, "subscriptions/1")),
    ];
    for (operation, request) in requests {
        assert_eq!(request.send().await.unwrap().status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(world.report().answered(&operation.to_string(), "500"), 1, "{operation}");
        assert_eq!(world.report().faults[&format!("{operation}:500")], 1);
    }
}

/// A client that does everything right gets everything, whatever goes wrong.
#[tokio::test]
async fn a_well_behaved_client_gets_through_anything() {
    let settings = Settings {
        total: Some(1_000),
        redelivery_delay: Duration::from_millis(20),
        faults: "events:any:20% acknowledge:any:20%".parse().unwrap(),
        ..endless()
    };
    let mut world = World::new(settings).await;
    let mut session = world.session().await;
    let deadline = Instant::now() + Duration::from_secs(100);
    let mut owed: Vec<String> = Vec::new();
    while world.report().acknowledged < 1_000 {
        assert!(Instant::now() < deadline, "{:#?}", world.report());
        let result = match owed.is_empty() {
            true => world.try_get(&session, 10).await,
            false => world.try_acknowledge(&session, &owed).await,
        };
        let Ok(response) = result else { continue };
        let status = response.status();
        let retry_after = response.headers().get("retry-after").is_some();
        let Ok(body) = response.text().await else { continue };
        match (status, serde_json::from_str::<Value>(&body)) {
            (StatusCode::OK, Ok(body)) if owed.is_empty() => owed = ids(body["events"].as_array().unwrap()),
            (StatusCode::OK, Ok(_)) => owed.clear(),
            (StatusCode::UNAUTHORIZED, _) => {
                world.token = crate::client::token(&world.http, &world.simulator).await
            }
            (StatusCode::BAD_REQUEST, _) => {
                session = world.session().await;
                owed.clear();
            }
            _ if retry_after => tokio::time::sleep(Duration::from_millis(2_100)).await,
            _ => {}
        }
    }
    let report = world.report();
    assert!(report.misbehaviour.is_empty(), "{:?}", report.misbehaviour_cases);
    assert_eq!((report.emitted, report.unacknowledged, report.queued, report.lost), (1_000, 0, 0, 0));
    assert!(report.redelivered > 0, "{report:#?}");
    let faults: u64 = report.faults.values().sum();
    assert!(faults > 30 && report.faults.len() > 15, "{:?}", report.faults);
}
