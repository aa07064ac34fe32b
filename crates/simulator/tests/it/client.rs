//! A client that does exactly what it is told, right or wrong.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use viaduct_simulator::{Report, Running, Settings, Simulator};

/// A simulator and a client that holds a token for it.
pub(crate) struct World {
    pub(crate) simulator: Running,
    pub(crate) http: reqwest::Client,
    pub(crate) token: String,
}

impl World {
    pub(crate) async fn new(settings: Settings) -> Self {
        let simulator = Simulator::start(settings).await.unwrap();
        let http = http();
        let token = token(&http, &simulator).await;
        Self { simulator, http, token }
    }

    pub(crate) fn report(&self) -> Report {
        self.simulator.report()
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}/via/{path}", self.simulator.url());
        self.http.request(method, url).bearer_auth(&self.token).header("x-api-key", "key")
    }

    /// A request in a session, under `…/streaming/`.
    pub(crate) fn in_session(
        &self,
        method: Method,
        version: u8,
        path: &str,
        session: &str,
    ) -> RequestBuilder {
        self.request(method, &format!("v{version}/organizations/acme/streaming/{path}"))
            .header("via-client-sessionid", session)
    }

    pub(crate) async fn create(&self, version: u8, body: Value) -> Value {
        let path = format!("v{version}/organizations/acme/streaming/session");
        let response = self.request(Method::POST, &path).json(&body).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.json().await.unwrap()
    }

    /// A session of v3 that acknowledges.
    pub(crate) async fn session(&self) -> String {
        let session = self.create(3, json!({"inactivityDelay": 120, "requireAcknowledgement": true})).await;
        session["sessionId"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn try_get(&self, session: &str, max: usize) -> reqwest::Result<Response> {
        self.in_session(Method::GET, 3, &format!("events?maxEvents={max}"), session).send().await
    }

    /// The events of one GET that has to succeed.
    pub(crate) async fn get(&self, session: &str, max: usize) -> Vec<Value> {
        let response = self.try_get(session, max).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["kind"], "via#streamingEventCollection");
        let events = body["events"].as_array().unwrap().clone();
        assert_eq!(body["totalItems"], events.len());
        events
    }

    pub(crate) async fn try_acknowledge(&self, session: &str, ids: &[String]) -> reqwest::Result<Response> {
        let events: Vec<Value> = ids.iter().map(|id| json!({"eventId": id})).collect();
        self.in_session(Method::POST, 3, "acknowledge", session).json(&json!({"events": events})).send().await
    }

    /// An acknowledgement that has to succeed: what was acknowledged, and what was not found.
    pub(crate) async fn acknowledge(&self, session: &str, ids: &[String]) -> (Vec<String>, Vec<String>) {
        let response = self.try_acknowledge(session, ids).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let body: Value = response.json().await.unwrap();
        let list = |name: &str| serde_json::from_value(body[name].clone()).unwrap();
        (list("eventIdsAcknowledged"), list("eventIdsNotFound"))
    }
}

pub(crate) fn http() -> reqwest::Client {
    // A second test of this process finds the provider installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

pub(crate) async fn token(http: &reqwest::Client, simulator: &Running) -> String {
    let request = http.post(simulator.token_url()).basic_auth("me", Some("secret"));
    let response = request
        .form(&[("grant_type", "client_credentials"), ("scope", "streamingapi")])
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let body: Value = response.json().await.unwrap();
    body["access_token"].as_str().unwrap().to_owned()
}

pub(crate) fn ids(events: &[Value]) -> Vec<String> {
    events.iter().filter_map(|event| event["eventId"].as_str()).map(str::to_owned).collect()
}

/// An id in its numeric order.
pub(crate) fn order(id: &str) -> (u64, u64) {
    let (ms, within) = id.split_once('-').unwrap();
    (ms.parse().unwrap(), within.parse().unwrap())
}

/// How often each thing is there.
pub(crate) fn counts<T: Ord>(things: impl IntoIterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for thing in things {
        *counts.entry(thing).or_default() += 1;
    }
    counts
}

/// Waits for something that has to become true soon.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not become true within 10 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A simulation without events but those that a test asks for.
pub(crate) fn quiet() -> Settings {
    Settings { total: Some(0), hold: Duration::from_millis(200), ..Settings::default() }
}

/// A simulation whose queue never runs dry.
pub(crate) fn endless() -> Settings {
    Settings {
        rate: viaduct_simulator::Rate::Unlimited,
        hold: Duration::from_millis(200),
        ..Settings::default()
    }
}
