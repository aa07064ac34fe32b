//! POST /acknowledge, and the holding back of it.

use std::sync::Arc;
use std::time::Instant;

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::answer::{Answer, INVALID_SESSION};
use crate::call::Call;
use crate::organisation::Acknowledged;
use crate::report::MisbehaviourKind;
use crate::simulation::Simulation;

/// Vendor document, schema AcknowledgePayload.
#[derive(Debug, Deserialize)]
struct Payload {
    events: Vec<Event>,
}

#[derive(Debug, Deserialize)]
struct Event {
    #[serde(rename = "eventId")]
    event_id: String,
}

/// Vendor document, schema AcknowledgeResponse.
#[derive(Debug, Default, Serialize)]
struct Response<'a> {
    #[serde(rename = "eventIdsAcknowledged")]
    acknowledged: Vec<&'a str>,
    #[serde(rename = "eventIdsNotFound")]
    not_found: Vec<&'a str>,
}

/// An acknowledge request that is held back. Dropped without a release when its client goes away: then it has no effect.
struct Held {
    simulation: Arc<Simulation>,
    serial: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.simulation.core().held.remove(&self.serial);
    }
}

/// Answers a POST /acknowledge whose caller was let in.
pub(crate) async fn acknowledge(simulation: &Arc<Simulation>, call: &Call) -> Answer {
    let ids: Vec<String> = match serde_json::from_slice::<Payload>(&call.body) {
        Ok(payload) if payload.events.is_empty() => return Answer::bad_request("events names no event"),
        Ok(payload) => payload.events.into_iter().map(|event| event.event_id).collect(),
        Err(_) => return Answer::bad_request("the body is not {\"events\":[{\"eventId\":\"...\"}]}"),
    };
    if !wait_while_held(simulation, &ids).await {
        return Answer::error(StatusCode::SERVICE_UNAVAILABLE, "The service is shutting down");
    }
    let mut core = simulation.core();
    let core = &mut *core;
    let session_id = match core.session_of(call, true) {
        Ok(id) => id,
        Err(refusal) => return refusal.into(),
    };
    let now = Instant::now();
    let Some(session) = core.sessions.get(&session_id) else { return Answer::bad_request(INVALID_SESSION) };
    if !session.require_acknowledgement {
        let detail = format!("session {session_id:?}");
        core.conduct.note(MisbehaviourKind::AcknowledgeNotEnabled, call.operation(), detail, now);
        return Answer::bad_request("Acknowledgement is not enabled for this session");
    }
    let mut response = Response::default();
    for id in &ids {
        match core.organisation.acknowledge(&mut session.inbox, id, now) {
            Acknowledged::Now => {
                response.acknowledged.push(id);
                continue;
            }
            Acknowledged::Before => core.acknowledged_again += 1,
            Acknowledged::NotHeld => {}
            Acknowledged::NeverGivenOut => {
                let kind = MisbehaviourKind::UnknownAcknowledged;
                core.conduct.note(kind, call.operation(), format!("event id {id:?}"), now);
            }
        }
        core.acknowledge_not_found += 1;
        response.not_found.push(id);
    }
    match serde_json::to_vec(&response) {
        Ok(body) => Answer::json(StatusCode::OK, body),
        Err(_) => Answer::error(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error"),
    }
}

/// Waits until acknowledgements are let through; false: the simulator stops.
async fn wait_while_held(simulation: &Arc<Simulation>, ids: &[String]) -> bool {
    let mut hold = simulation.hold.subscribe();
    let before = *hold.borrow_and_update();
    if !before.on {
        return true;
    }
    let held = {
        let mut core = simulation.core();
        let serial = core.next_serial();
        core.held.insert(serial, ids.to_vec());
        drop(core);
        Held { simulation: simulation.clone(), serial }
    };
    let released = tokio::select! {
        released = hold.wait_for(|now| now.releases > before.releases) => released.is_ok(),
        () = simulation.shutdown.cancelled() => false,
    };
    drop(held);
    released
}
