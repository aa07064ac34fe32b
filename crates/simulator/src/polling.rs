//! GET /events: the long poll, and the watch for two of them at once.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use axum::http::StatusCode;

use crate::answer::{Answer, INVALID_SESSION};
use crate::call::Call;
use crate::clock;
use crate::conduct::GRACE;
use crate::fault::Operation;
use crate::organisation::Item;
use crate::report::MisbehaviourKind;
use crate::session::Version;
use crate::settings::EmptyPoll;
use crate::shape;
use crate::simulation::Simulation;

const MAX_EVENTS: usize = 200;

/// A GET /events between its arrival and the end of its answer. Dropped unfinished, the client went away; then a GET that
/// came at almost the same time was not concurrent, but the next attempt.
pub(crate) struct GetUnderWay {
    simulation: Arc<Simulation>,
    session: String,
    serial: u64,
    finished: bool,
}

impl GetUnderWay {
    /// Notes the arrival of a GET for a live session.
    fn begin(simulation: &Arc<Simulation>, session_id: &str, now: Instant) -> Self {
        let mut core = simulation.core();
        let serial = core.next_serial();
        core.sessions.received_get(session_id, now);
        let others = core.sessions.get(session_id).map_or(Vec::new(), |session| session.in_flight.clone());
        for other in others {
            let detail = format!("session {session_id:?}");
            let case = core.conduct.note(MisbehaviourKind::ConcurrentGets, Operation::Events, detail, now);
            if let Some(session) = core.sessions.get(session_id) {
                session.overlaps.push((other, now, case));
            }
        }
        if let Some(session) = core.sessions.get(session_id) {
            session.in_flight.push(serial);
        }
        drop(core);
        Self { simulation: simulation.clone(), session: session_id.to_owned(), serial, finished: false }
    }

    /// The answer is complete.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }
}

impl Drop for GetUnderWay {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut core = self.simulation.core();
        let Some(session) = core.sessions.get(&self.session) else { return };
        session.in_flight.retain(|serial| *serial != self.serial);
        let mine = |overlap: &(u64, Instant, u64)| overlap.0 == self.serial;
        let overlaps: Vec<_> = session.overlaps.extract_if(.., |overlap| mine(overlap)).collect();
        for (_, at, case) in overlaps {
            if !self.finished && now.duration_since(at) < GRACE {
                core.conduct.take_back(MisbehaviourKind::ConcurrentGets, case);
            }
        }
    }
}

impl fmt::Debug for GetUnderWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetUnderWay").field("session", &self.session).field("serial", &self.serial).finish()
    }
}

/// Answers a GET /events whose caller was let in.
pub(crate) async fn events(simulation: &Arc<Simulation>, call: &Call) -> Answer {
    let max = match call.query("maxEvents").as_deref().map(str::parse) {
        None => 1,
        Some(Ok(max @ 1..=MAX_EVENTS)) => max,
        Some(_) => return Answer::bad_request("maxEvents must be a number from 1 to 200"),
    };
    let arrived = Instant::now();
    let (id, inactivity) = {
        let mut core = simulation.core();
        let id = match core.session_of(call, true) {
            Ok(id) => id,
            Err(refusal) => return refusal.into(),
        };
        let inactivity = core.sessions.get(&id).map(|session| session.inactivity);
        (id, inactivity.unwrap_or_default())
    };
    let under_way = GetUnderWay::begin(simulation, &id, arrived);
    let give_up = arrived + simulation.settings.hold.min(inactivity / 4);
    loop {
        // Listening starts before looking: what happens in between is heard.
        let woken = simulation.wake.notified();
        tokio::pin!(woken);
        woken.as_mut().enable();
        let now = Instant::now();
        let next_look = match look(simulation, call, &id, max, now, now >= give_up) {
            Look::Gone => return Answer::bad_request(INVALID_SESSION),
            Look::Answer(mut answer) => {
                answer.under_way = Some(under_way);
                return answer;
            }
            Look::Wait(next_look) => next_look,
        };
        let until = next_look.map_or(give_up, |next| next.min(give_up));
        tokio::select! {
            () = tokio::time::sleep_until(until.into()) => {}
            () = woken => {}
            () = simulation.shutdown.cancelled() => {}
        }
    }
}

/// What a look into the queue came to.
enum Look {
    /// The session ended.
    Gone,
    Answer(Answer),
    /// Look again when woken, or at this time.
    Wait(Option<Instant>),
}

fn look(simulation: &Simulation, call: &Call, id: &str, max: usize, now: Instant, over: bool) -> Look {
    let mut core = simulation.core();
    let core = &mut *core;
    let Some(session) = core.sessions.get(id) else {
        core.refuse_session(id, Operation::Events, call.connection.number, now);
        return Look::Gone;
    };
    if let Some(body) = core.organisation.take_prepared(max, session.version, now, clock::now_ms()) {
        return Look::Answer(Answer::json(StatusCode::OK, body));
    }
    let mut items = core.organisation.take(&mut session.inbox, max, now, clock::now_ms());
    if items.is_empty() && !over && !simulation.shutdown.is_cancelled() {
        return Look::Wait(core.organisation.next_look(&session.inbox, now));
    }
    if call.repeat {
        core.organisation.repeat_first(&session.inbox, &mut items, now);
    }
    let mut answer = collection(simulation, &items, session.version);
    if !session.require_acknowledgement {
        answer.consumed = items.iter().map(|(row, _)| *row).collect();
    }
    Look::Answer(answer)
}

/// Vendor document, schemas EventResponse and EventResponseV3.
fn collection(simulation: &Simulation, items: &[Item], version: Version) -> Answer {
    if items.is_empty() && simulation.settings.empty_poll == EmptyPoll::NoContent {
        return Answer::empty(StatusCode::NO_CONTENT);
    }
    let head =
        format!("{{\"kind\":\"via#streamingEventCollection\",\"totalItems\":{},\"events\":[", items.len());
    let mut body =
        Vec::with_capacity(head.len() + items.iter().map(|(_, text)| text.len() + 1).sum::<usize>() + 2);
    body.extend_from_slice(head.as_bytes());
    for (index, (_, text)) in items.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        match (version, std::str::from_utf8(text)) {
            (Version::V2, Ok(entry)) => body.extend_from_slice(shape::as_v2(entry).as_bytes()),
            _ => body.extend_from_slice(text),
        }
    }
    body.extend_from_slice(b"]}");
    Answer::json(StatusCode::OK, body)
}
