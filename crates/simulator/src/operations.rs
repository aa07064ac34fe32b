//! The operations of the vendor's API but for GET /events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::header::{CACHE_CONTROL, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::acknowledging;
use crate::answer::{Answer, INVALID_SESSION, Refusal};
use crate::call::Call;
use crate::clock;
use crate::fault::Operation;
use crate::generator::uuid;
use crate::polling;
use crate::session::{End, Version};
use crate::simulation::Simulation;
use crate::subscription::Subscription;

/// Does what a call asks for, unless its caller may not.
pub(crate) async fn perform(simulation: &Arc<Simulation>, call: &Call) -> Answer {
    let operation = call.operation();
    if operation == Operation::Token {
        return token(simulation, call);
    }
    let admitted = call.admit(&simulation.settings, &simulation.core(), Instant::now());
    if let Err(refusal) = admitted {
        return refusal.into();
    }
    match operation {
        Operation::Token => token(simulation, call),
        Operation::SessionCreate => session_create(simulation, call),
        Operation::SessionDelete => session_delete(simulation, call),
        Operation::Events => polling::events(simulation, call).await,
        Operation::Acknowledge => acknowledging::acknowledge(simulation, call).await,
        Operation::SubscriptionCreate
        | Operation::SubscriptionList
        | Operation::SubscriptionGet
        | Operation::SubscriptionUpdate
        | Operation::SubscriptionDelete => subscription(simulation, call).unwrap_or_else(Answer::from),
    }
}

/// OAuth2 client credentials (RFC 6749, sections 4.4 and 5). A realm, in the form or in the query, is accepted and ignored.
fn token(simulation: &Simulation, call: &Call) -> Answer {
    let refuse = |status: StatusCode, error: &str| {
        let mut answer = Answer::json(status, json!({ "error": error }).to_string());
        if status == StatusCode::UNAUTHORIZED && call.basic.is_some() {
            answer.headers.push((WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"tokenservice\"")));
        }
        answer
    };
    match call.form("grant_type").as_deref() {
        Some("client_credentials") => {}
        Some(_) => return refuse(StatusCode::BAD_REQUEST, "unsupported_grant_type"),
        None => return refuse(StatusCode::BAD_REQUEST, "invalid_request"),
    }
    let posted = || Some((call.form("client_id")?, call.form("client_secret")?));
    let Some((id, secret)) = call.basic.clone().or_else(posted) else {
        return refuse(StatusCode::UNAUTHORIZED, "invalid_client");
    };
    let fits = |given: &str, accepted: &Option<String>| match accepted {
        Some(accepted) => given == accepted,
        None => !given.is_empty(),
    };
    let settings = &simulation.settings;
    if !fits(&id, &settings.client_id) || !fits(&secret, &settings.client_secret) {
        return refuse(StatusCode::UNAUTHORIZED, "invalid_client");
    }
    let token = simulation.core().tokens.issue(&id, settings.token_ttl, Instant::now());
    let body = json!({
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": settings.token_ttl.as_secs(),
        "scope": call.form("scope").unwrap_or_else(|| "streamingapi".to_owned()),
    });
    let mut answer = Answer::json(StatusCode::OK, body.to_string());
    answer.headers.push((CACHE_CONTROL, HeaderValue::from_static("no-store")));
    answer
}

/// Vendor document, schemas NewSession and NewSessionV3.
fn session_create(simulation: &Simulation, call: &Call) -> Answer {
    let asked = match call.target.version {
        Version::V2 => read_properties(&call.body).map(|delay| (delay, false)),
        Version::V3 => read_new_session(&call.body),
    };
    let (delay, require_acknowledgement) = match asked {
        Ok(asked) => asked,
        Err(problem) => return Answer::bad_request(&problem),
    };
    let granted = simulation.settings.granted_inactivity.unwrap_or(delay);
    let now = Instant::now();
    let id = simulation.core().sessions.create(call.target.version, require_acknowledgement, granted, now);
    let mut body = json!({
        "sessionId": id,
        "creationTime": clock::iso8601(clock::now_ms()),
        "inactivityDelay": granted.as_secs() + u64::from(granted.subsec_nanos() > 0),
    });
    if call.target.version == Version::V3 {
        body["requireAcknowledgement"] = Value::Bool(require_acknowledgement);
    }
    Answer::json(StatusCode::OK, body.to_string())
}

fn read_new_session(body: &[u8]) -> Result<(Duration, bool), String> {
    if body.is_empty() {
        return Ok((inactivity_delay(60)?, false));
    }
    let body: Value = serde_json::from_slice(body).map_err(|_| "the body is not JSON")?;
    if !body.is_object() {
        return Err("the body is not an object".to_owned());
    }
    let delay = match &body["inactivityDelay"] {
        Value::Null => 60,
        number => number.as_u64().ok_or("inactivityDelay is not an integer")?,
    };
    let require_acknowledgement = match &body["requireAcknowledgement"] {
        Value::Null => false,
        flag => flag.as_bool().ok_or("requireAcknowledgement is not a boolean")?,
    };
    Ok((inactivity_delay(delay)?, require_acknowledgement))
}

/// The document's example of a list of properties is a JSON string that holds the list; both forms are accepted. Properties
/// other than `inactivityDelay` are accepted too: the document says that they are stored in the session.
fn read_properties(body: &[u8]) -> Result<Duration, String> {
    if body.is_empty() {
        return inactivity_delay(60);
    }
    let mut body: Value = serde_json::from_slice(body).map_err(|_| "the body is not JSON")?;
    if let Value::String(inner) = &body {
        body = serde_json::from_str(inner).map_err(|_| "the string in the body is not JSON")?;
    }
    let mut delay = 60;
    for property in body.as_array().ok_or("the body is not a list of properties")? {
        let name = property["propertyName"].as_str().ok_or("propertyName is missing")?;
        let value = property["propertyValue"].as_str().ok_or("propertyValue is not a string")?;
        if name == "inactivityDelay" {
            delay = value.parse().map_err(|_| "inactivityDelay is not a number")?;
        }
    }
    inactivity_delay(delay)
}

fn inactivity_delay(seconds: u64) -> Result<Duration, String> {
    match seconds {
        60..=600 => Ok(Duration::from_secs(seconds)),
        _ => Err("inactivityDelay must be from 60 to 600".to_owned()),
    }
}

fn session_delete(simulation: &Simulation, call: &Call) -> Answer {
    let mut core = simulation.core();
    match core.session_of(call, true) {
        Ok(id) => core.end_session(&id, End::Deleted),
        Err(refusal) => return refusal.into(),
    }
    drop(core);
    simulation.wake.notify_waiters();
    Answer::empty(StatusCode::NO_CONTENT)
}

fn subscription(simulation: &Simulation, call: &Call) -> Result<Answer, Refusal> {
    let mut core = simulation.core();
    let session_id = core.session_of(call, false)?;
    let Some(session) = core.sessions.get(&session_id) else {
        return Err(Refusal::bad_request(INVALID_SESSION));
    };
    let subscriptions = &mut session.subscriptions;
    let read = || {
        Subscription::read(&call.body, &simulation.settings.catalog_types, clock::now_ms())
            .map_err(Refusal::bad_request)
    };
    let ok = |status: StatusCode, value: Value| Ok(Answer::json(status, value.to_string()));
    let unknown = || Refusal::new(StatusCode::NOT_FOUND, "Subscription not found");
    let id = call.target.subscription.clone().unwrap_or_default();
    match call.operation() {
        Operation::SubscriptionCreate => {
            let subscription = read()?;
            let id = uuid(rand::random(), rand::random())[..8].to_owned();
            let shown = subscription.as_json(&id);
            subscriptions.insert(id, subscription);
            ok(StatusCode::OK, shown)
        }
        Operation::SubscriptionUpdate => {
            let subscription = read()?;
            let (status, subscription) = match subscriptions.get(&id) {
                Some(older) => (StatusCode::OK, subscription.replace(older)),
                None => (StatusCode::CREATED, subscription),
            };
            let shown = subscription.as_json(&id);
            subscriptions.insert(id, subscription);
            ok(status, shown)
        }
        Operation::SubscriptionGet => {
            let subscription = subscriptions.get(&id).ok_or_else(unknown)?;
            ok(StatusCode::OK, subscription.as_json(&id))
        }
        Operation::SubscriptionDelete => {
            subscriptions.remove(&id).ok_or_else(unknown)?;
            Ok(Answer::empty(StatusCode::NO_CONTENT))
        }
        _ => {
            let all: Vec<Value> = subscriptions.iter().map(|(id, one)| one.as_json(id)).collect();
            ok(StatusCode::OK, json!({ "kind": "via#subscriptionsCollection", "subscriptions": all }))
        }
    }
}
