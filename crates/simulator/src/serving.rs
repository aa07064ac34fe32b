//! From a request to its answer: route, blame, fault before, operation, fault after.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;

use crate::answer::Answer;
use crate::call::Call;
use crate::conduct::Told;
use crate::connection::Connection;
use crate::control_http;
use crate::fault::{ErrorStatus, Fault, Operation, RetryAfter};
use crate::operations;
use crate::route::{NoTarget, Target};
use crate::session::End;
use crate::shape::Shape;
use crate::simulation::Simulation;

const BODY_LIMIT: usize = 16 << 20;
const HTML: &[u8] =
    b"<!DOCTYPE html><html><head><title>Service</title></head><body><h1>It works!</h1></body></html>\n";
/// A slow body comes in this many pieces.
const PIECES: usize = 10;

/// Answers every request.
pub(crate) async fn serve(
    State(simulation): State<Arc<Simulation>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY_LIMIT).await else {
        return Answer::bad_request("the body cannot be read").into_response();
    };
    let path = parts.uri.path();
    if let Some(path) = path.strip_prefix("/_simulator/") {
        return control_http::serve(&simulation, &parts, path, &body).into_response();
    }
    let target = match Target::of(&parts.method, path) {
        Ok(target) => target,
        Err(no_target) => {
            let answer = match no_target {
                NoTarget::NotFound => Answer::error(StatusCode::NOT_FOUND, "Not Found"),
                NoTarget::MethodNotAllowed(methods) => Answer::method_not_allowed(methods),
            };
            simulation.core().count_request("unknown", answer.status.as_str());
            return answer.into_response();
        }
    };
    travel(&simulation).await;
    let mut tally =
        Tally { simulation: simulation.clone(), operation: target.operation, status: "gone".to_owned() };
    let mut call = Call::new(target, &parts, body, connection);
    let fault = arrive(&simulation, &mut call);
    let response = match refuse_first(&simulation, &call, fault.as_ref()) {
        Some(response) => response,
        None => {
            let answer = operations::perform(&simulation, &call).await;
            spoil(&simulation, &call, fault, answer)
        }
    };
    tally.status = match &response {
        Outcome::Sent(response) => response.status().as_str().to_owned(),
        Outcome::Reset => "reset".to_owned(),
    };
    travel(&simulation).await;
    match response {
        Outcome::Sent(response) => response,
        Outcome::Reset => {
            call.connection.reset();
            Response::default()
        }
    }
}

/// Half of the way to a client far away.
async fn travel(simulation: &Simulation) {
    let half = simulation.settings.round_trip / 2;
    if !half.is_zero() {
        tokio::time::sleep(half).await;
    }
}

enum Outcome {
    Sent(Response),
    Reset,
}

/// Counts a request when it is over, however it ends.
struct Tally {
    simulation: Arc<Simulation>,
    operation: Operation,
    status: String,
}

impl Drop for Tally {
    fn drop(&mut self) {
        let operation = self.operation.to_string();
        self.simulation.core().count_request(&operation, &self.status);
    }
}

/// Notes the arrival of a call, and chooses the fault that it suffers. What has to be broken before the operation is broken
/// here.
fn arrive(simulation: &Simulation, call: &mut Call) -> Option<Fault> {
    let now = Instant::now();
    let operation = call.operation();
    let mut core = simulation.core();
    if let Some(client) = call.client(&core) {
        core.conduct.called(&client, operation, call.connection.number, now);
    }
    let fault = core.picker.pick(operation)?;
    tracing::debug!(%operation, %fault, "fault");
    core.count_fault(operation, &fault.to_string());
    match &fault {
        Fault::TokenExpiry => {
            if let Some(token) = &call.token {
                core.tokens.revoke(token, now);
            }
        }
        Fault::SessionExpiry => {
            if let Some(session) = call.session.clone() {
                core.end_session(&session, End::Expired);
                drop(core);
                simulation.wake.notify_waiters();
            }
        }
        Fault::Repeat => call.repeat = true,
        other => {
            if let Some(shape) = Shape::of(other) {
                core.organisation.generator.shape_next(shape);
            }
        }
    }
    Some(fault)
}

/// The answer of a fault that strikes before the operation.
fn refuse_first(simulation: &Simulation, call: &Call, fault: Option<&Fault>) -> Option<Outcome> {
    match fault? {
        Fault::Status { status, after: false, retry_after } => {
            Some(Outcome::Sent(error(simulation, call, *status, *retry_after).into_response()))
        }
        Fault::Reset { after: false } => Some(Outcome::Reset),
        _ => None,
    }
}

fn error(
    simulation: &Simulation,
    call: &Call,
    status: ErrorStatus,
    retry_after: Option<RetryAfter>,
) -> Answer {
    let number = match status {
        ErrorStatus::Exactly(number) => number,
        // The picker has decided already; 500 is what the document lists.
        ErrorStatus::AnyServerError => 500,
    };
    let status = StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = Answer::error(status, status.canonical_reason().unwrap_or("Error"));
    let now = Instant::now();
    let (header, until) = match retry_after {
        None => return answer,
        Some(RetryAfter::Seconds(seconds)) => {
            (HeaderValue::from(seconds), now + Duration::from_secs(seconds))
        }
        Some(RetryAfter::Date(seconds)) => {
            let (date, wait) = whole_second_after(SystemTime::now(), seconds);
            let text = httpdate::fmt_http_date(date);
            (HeaderValue::from_str(&text).unwrap_or(HeaderValue::from(seconds)), now + wait)
        }
    };
    answer.headers.push((RETRY_AFTER, header));
    let mut core = simulation.core();
    if let Some(client) = call.client(&core) {
        core.conduct.silence(&client, until, Told::new(now, call.connection.number));
    }
    answer
}

/// The first whole second that is at least so many seconds away, and how far it is: HTTP dates know no fractions.
fn whole_second_after(now: SystemTime, seconds: u64) -> (SystemTime, Duration) {
    let date = now + Duration::from_secs(seconds);
    let fraction = date.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let up = Duration::from_nanos(u64::from((1_000_000_000 - fraction) % 1_000_000_000));
    (date + up, Duration::from_secs(seconds) + up)
}

/// Does to an answer what the fault does to it.
fn spoil(simulation: &Simulation, call: &Call, fault: Option<Fault>, mut answer: Answer) -> Outcome {
    let destroys = matches!(
        fault,
        Some(Fault::Status { .. } | Fault::Reset { .. } | Fault::Cut | Fault::Html | Fault::InvalidJson)
    );
    if destroys && !answer.consumed.is_empty() {
        simulation.core().organisation.lose(&answer.consumed);
    }
    // There is nothing to spoil in the body of an error.
    let successful = answer.status.is_success();
    let response = match fault {
        Some(Fault::Status { status, retry_after, .. }) => {
            let under_way = answer.under_way.take();
            let mut answer = error(simulation, call, status, retry_after);
            answer.under_way = under_way;
            answer.into_response()
        }
        Some(Fault::Reset { .. }) => {
            if let Some(mut under_way) = answer.under_way.take() {
                under_way.finish();
            }
            return Outcome::Reset;
        }
        Some(Fault::Html) if successful => {
            (answer.status, answer.content_type, answer.body) = (StatusCode::OK, "text/html", HTML.to_vec());
            answer.into_response()
        }
        Some(Fault::InvalidJson) if successful => {
            answer.body.truncate(answer.body.len() / 2);
            answer.body.extend_from_slice(b"\x01<");
            answer.into_response()
        }
        Some(Fault::Cut) if successful => cut(answer),
        Some(Fault::Slow(time)) if successful => trickle(answer, time),
        _ => answer.into_response(),
    };
    Outcome::Sent(response)
}

/// The first half of the body, then the end of the connection.
fn cut(mut answer: Answer) -> Response {
    let mut under_way = answer.under_way.take();
    let half = Bytes::copy_from_slice(&answer.body[..answer.body.len() / 2]);
    let body = stream::unfold(Some(half), move |half| {
        // An answer that is cut is over for its client, too.
        if let Some(mut under_way) = under_way.take() {
            under_way.finish();
        }
        async move {
            match half {
                Some(half) => Some((Ok(half), None)),
                None => {
                    // The pause makes the server send what it has before it meets the error.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Some((Err("the answer is cut here"), None))
                }
            }
        }
    });
    answer.with_body(Body::from_stream(body))
}

/// The body in pieces over a stretch of time.
fn trickle(mut answer: Answer, time: Duration) -> Response {
    let under_way = answer.under_way.take();
    let body = Bytes::copy_from_slice(&answer.body);
    let piece = body.len().div_ceil(PIECES).max(1);
    let stream = stream::unfold((body, under_way), move |(mut rest, mut under_way)| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(time / PIECES as u32).await;
        let piece = rest.split_to(piece.min(rest.len()));
        if rest.is_empty()
            && let Some(under_way) = &mut under_way
        {
            under_way.finish();
        }
        Some((Ok::<_, Infallible>(piece), (rest, under_way)))
    });
    answer.with_body(Body::from_stream(stream))
}
