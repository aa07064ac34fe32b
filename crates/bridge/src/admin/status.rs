//! `/status`: the state of the bridge as JSON.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use viaduct_poller::SourceStatus;

use crate::sinks::SinkHandle;
use crate::telemetry::{CategoryCounts, Counts, Telemetry};

/// The whole answer.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    version: &'static str,
    sources: BTreeMap<String, SourceState>,
    sinks: BTreeMap<String, SinkState>,
}

#[derive(Debug, Serialize)]
struct SourceState {
    phase: String,
    session_up: bool,
    /// Why the session is not up.
    reason: Option<String>,
    session_age_seconds: Option<f64>,
    /// How long until the vendor would drop the session if no further poll came.
    session_expires_in_seconds: Option<f64>,
    token_expires_in_seconds: Option<f64>,
    unacknowledged: usize,
    oldest_unacknowledged_seconds: Option<f64>,
    received: u64,
    redelivered: u64,
    acknowledged: u64,
    dead_lettered: BTreeMap<&'static str, u64>,
    categories: BTreeMap<String, Category>,
}

#[derive(Debug, Default, Serialize)]
struct Category {
    received: u64,
    redelivered: u64,
    acknowledged: u64,
    /// By sink.
    published: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct SinkState {
    up: bool,
    required: bool,
    since_seconds: f64,
    reason: Option<String>,
    published: u64,
    retries: BTreeMap<&'static str, u64>,
}

/// Answers `GET /status`.
pub(crate) async fn status(State(telemetry): State<Arc<Telemetry>>) -> Json<Status> {
    Json(Status::of(&telemetry))
}

impl Status {
    /// The state at this moment.
    fn of(telemetry: &Telemetry) -> Self {
        let counts = telemetry.tally.snapshot();
        let sources = telemetry.sources();
        let sinks = telemetry.sinks();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            sources: sources
                .iter()
                .map(|(name, status)| (name.to_string(), source_state(name, status, &counts)))
                .collect(),
            sinks: sinks.iter().map(|sink| (sink.name.to_string(), sink_state(sink, &counts))).collect(),
        }
    }
}

fn source_state(name: &Arc<str>, status: &SourceStatus, counts: &Counts) -> SourceState {
    let now = Instant::now();
    let until = |instant: Instant| {
        if instant >= now { (instant - now).as_secs_f64() } else { -(now - instant).as_secs_f64() }
    };
    let mut categories: BTreeMap<String, Category> = BTreeMap::new();
    let mut total = CategoryCounts::default();
    for ((source, category), count) in &counts.categories {
        if source == name {
            total.received += count.received;
            total.redelivered += count.redelivered;
            total.acknowledged += count.acknowledged;
            let entry = categories.entry(category.to_string()).or_default();
            (entry.received, entry.redelivered, entry.acknowledged) =
                (count.received, count.redelivered, count.acknowledged);
        }
    }
    for ((source, sink, category), count) in &counts.published {
        if source == name {
            categories.entry(category.to_string()).or_default().published.insert(sink.to_string(), *count);
        }
    }
    let dead_lettered = counts.dead_lettered.iter().filter(|((source, _), _)| source == name);
    SourceState {
        phase: status.phase.to_string(),
        session_up: status.session_up,
        reason: status.reason.clone(),
        session_age_seconds: status
            .session_created_at
            .and_then(|created| SystemTime::now().duration_since(created).ok())
            .map(|age| age.as_secs_f64()),
        session_expires_in_seconds: status
            .last_poll_at
            .zip(status.granted_inactivity)
            .map(|(polled, delay)| until(polled + delay)),
        token_expires_in_seconds: status.token_expires_at.map(until),
        unacknowledged: status.unacknowledged,
        oldest_unacknowledged_seconds: status.oldest_unacknowledged.map(|since| (now - since).as_secs_f64()),
        received: total.received,
        redelivered: total.redelivered,
        acknowledged: total.acknowledged,
        dead_lettered: dead_lettered.map(|((_, reason), count)| (*reason, *count)).collect(),
        categories,
    }
}

fn sink_state(sink: &SinkHandle, counts: &Counts) -> SinkState {
    let state = sink.state();
    let published =
        counts.published.iter().filter(|((_, name, _), _)| *name == sink.name).map(|(_, count)| count);
    let retries = counts.sink_retries.iter().filter(|((name, _), _)| *name == sink.name);
    SinkState {
        up: state.up,
        required: sink.required,
        since_seconds: state.since.elapsed().as_secs_f64(),
        reason: (!state.up).then_some(state.reason),
        published: published.sum(),
        retries: retries.map(|((_, reason), count)| (*reason, *count)).collect(),
    }
}
