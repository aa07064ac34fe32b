//! `/_simulator/…`: steering and reading a simulation over HTTP. Needs no token, suffers no faults, is not counted.
//! The table of requests stands at [`Control`].

use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use serde::Serialize;
use serde_json::json;
use url::form_urlencoded;

use crate::answer::{Answer, Refusal};
use crate::control::Control;
use crate::fault::FaultPlan;
use crate::settings::Rate;
use crate::simulation::Simulation;

const PAGE: usize = 100_000;

pub(crate) fn serve(simulation: &Arc<Simulation>, parts: &Parts, path: &str, body: &[u8]) -> Answer {
    perform(simulation, parts, path, body).unwrap_or_else(Answer::from)
}

fn perform(simulation: &Arc<Simulation>, parts: &Parts, path: &str, body: &[u8]) -> Result<Answer, Refusal> {
    let control = Control::new(simulation.clone());
    let query = parts.uri.query().unwrap_or_default();
    let body = || std::str::from_utf8(body).map_err(|_| Refusal::bad_request("the body is not UTF-8"));
    match (&parts.method, path) {
        (&Method::GET, "report") => {
            let mut report = control.report();
            if parameter(query, "events").is_some_and(|value| value != "false") {
                report.events =
                    Some(control.events(number(query, "from", 0)?, number(query, "limit", PAGE)?));
            }
            return Ok(shown(&report));
        }
        (&Method::GET, "held-acknowledgements") => return Ok(shown(&control.held_acknowledgements())),
        (&Method::GET, "faults") => return Ok(shown(&json!({ "faults": control.faults().to_string() }))),
        (&Method::POST, "faults") => {
            let plan: FaultPlan = body()?.parse().map_err(|error| refuse(&error))?;
            control.set_faults(plan);
        }
        (&Method::POST, "hold-acknowledgements") => control.hold_acknowledgements(true),
        (&Method::POST, "release-acknowledgements") => control.hold_acknowledgements(false),
        (&Method::POST, "expire-sessions") => control.expire_all_sessions(),
        (&Method::POST, "revoke-tokens") => control.revoke_tokens(),
        (&Method::POST, "emit") => control.emit(number(query, "count", 1)? as u64),
        (&Method::POST, "emit-raw") => control.emit_raw(body()?).map_err(|error| refuse(&error))?,
        (&Method::POST, "pause") => control.pause(),
        (&Method::POST, "resume") => control.resume(),
        (&Method::POST, "rate") => {
            let rate: Rate =
                parameter(query, "value").unwrap_or_default().parse().map_err(|error| refuse(&error))?;
            if matches!(rate, Rate::PerSecond(rate) if !(0.0..=1e9).contains(&rate)) {
                return Err(Refusal::bad_request("value must be from 0 to 1000000000, or unlimited"));
            }
            control.set_rate(rate);
        }
        (&Method::POST, "forget-retry-after") => control.forget_retry_after(),
        _ => return Err(Refusal::new(StatusCode::NOT_FOUND, "the simulator has no such operation")),
    }
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

fn shown(value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => Answer::json(StatusCode::OK, body),
        Err(error) => Answer::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn refuse(problem: &impl ToString) -> Refusal {
    Refusal::bad_request(problem.to_string())
}

fn parameter(query: &str, name: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn number(query: &str, name: &str, default: usize) -> Result<usize, Refusal> {
    match parameter(query, name) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| Refusal::bad_request(format!("{name} is not a number"))),
    }
}
