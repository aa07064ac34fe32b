//! `/status`: the state of the bridge as JSON. `viaduct status` reads the same structure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde::{Deserialize, Serialize};
use viaduct_poller::{Phase, SourceStatus};

use super::verdict::Verdict;
use crate::sinks::SinkHandle;
use crate::telemetry::{CategoryCounts, Counts, Telemetry, now_text};

/// The whole answer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Status {
    /// `bridge.name`.
    pub(crate) bridge: String,
    pub(crate) version: String,
    /// When this was true, as RFC 3339 in UTC.
    pub(crate) time: String,
    pub(crate) uptime_seconds: f64,
    /// All of it in a sentence.
    pub(crate) verdict: Verdict,
    /// Certificates that are not verified, each in a sentence.
    #[serde(default)]
    pub(crate) dangers: Vec<String>,
    /// By name.
    pub(crate) sources: BTreeMap<String, SourceState>,
    /// By name.
    pub(crate) sinks: BTreeMap<String, SinkState>,
}

/// One source.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct SourceState {
    /// `starting`, `polling`, `stalled`, `backing off`, `recreating`, `stopping`, `stopped`.
    pub(crate) phase: String,
    pub(crate) session_up: bool,
    /// Why the session is not up, or what is wrong all the same.
    pub(crate) reason: Option<String>,
    pub(crate) session_age_seconds: Option<f64>,
    /// How long until the vendor would drop the session if no further poll came.
    pub(crate) session_expires_in_seconds: Option<f64>,
    pub(crate) token_expires_in_seconds: Option<f64>,
    /// Held, and not yet acknowledged to the vendor.
    pub(crate) unacknowledged: usize,
    pub(crate) oldest_unacknowledged_seconds: Option<f64>,
    /// Since the last event came.
    pub(crate) last_event_seconds: Option<f64>,
    /// First deliveries.
    pub(crate) received: u64,
    /// Deliveries of something that was known.
    pub(crate) redelivered: u64,
    /// Events that every required destination holds, or the dead letters.
    pub(crate) published: u64,
    pub(crate) acknowledged: u64,
    /// By reason.
    pub(crate) dead_lettered: BTreeMap<String, u64>,
    /// Of the last minute, from `publishedTime` until a sink confirmed; `None` where nothing was published in it.
    pub(crate) latency: Option<LatencyState>,
    /// By name.
    pub(crate) categories: BTreeMap<String, Category>,
}

/// Quantiles.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct LatencyState {
    pub(crate) p50_seconds: f64,
    pub(crate) p99_seconds: f64,
}

/// One category of a source.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Category {
    pub(crate) received: u64,
    pub(crate) redelivered: u64,
    pub(crate) acknowledged: u64,
    /// Records by sink.
    pub(crate) published: BTreeMap<String, u64>,
    /// First deliveries in each second of the last minute, the oldest first.
    pub(crate) rate: Vec<u32>,
}

/// One sink.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct SinkState {
    pub(crate) up: bool,
    pub(crate) required: bool,
    /// Since when it is up, or down.
    pub(crate) since_seconds: f64,
    /// Why it is down.
    pub(crate) reason: Option<String>,
    /// Records.
    pub(crate) published: u64,
    /// Records that it could not take at the time, by reason.
    pub(crate) retries: BTreeMap<String, u64>,
    /// Events that a best-effort sink did not get.
    pub(crate) dropped: u64,
    /// Where its destinations are less durable than the guarantee assumes, each in a sentence.
    #[serde(default)]
    pub(crate) weaknesses: Vec<String>,
}

impl Status {
    /// The state at this moment.
    pub(crate) fn of(telemetry: &Telemetry) -> Self {
        let counts = telemetry.tally.snapshot();
        let sources = telemetry.sources();
        let sinks = telemetry.sinks();
        let mut status = Self {
            bridge: telemetry.bridge.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: now_text(),
            uptime_seconds: telemetry.started.elapsed().as_secs_f64(),
            verdict: Verdict::default(),
            dangers: telemetry.dangers.clone(),
            sources: sources
                .iter()
                .map(|(name, status)| (name.to_string(), source_state(name, status, &counts, telemetry)))
                .collect(),
            sinks: sinks.iter().map(|sink| (sink.name.to_string(), sink_state(sink, &counts))).collect(),
        };
        status.verdict = Verdict::of(&status);
        status
    }
}

impl SourceState {
    /// Whether it was asked to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        [Phase::Stopping, Phase::Stopped].iter().any(|phase| phase.as_str() == self.phase)
    }

    /// Whether it is over.
    pub(crate) fn is_stopped(&self) -> bool {
        Phase::Stopped.as_str() == self.phase
    }
}

fn source_state(
    name: &Arc<str>,
    status: &SourceStatus,
    counts: &Counts,
    telemetry: &Telemetry,
) -> SourceState {
    let now = Instant::now();
    let until = |instant: Instant| {
        if instant >= now { (instant - now).as_secs_f64() } else { -(now - instant).as_secs_f64() }
    };
    let since = |instant: Instant| now.saturating_duration_since(instant).as_secs_f64();
    let mut categories: BTreeMap<String, Category> = BTreeMap::new();
    let mut total = CategoryCounts::default();
    for ((source, category), count) in &counts.categories {
        if source == name {
            total.received += count.received;
            total.redelivered += count.redelivered;
            total.durable += count.durable;
            total.acknowledged += count.acknowledged;
            let entry = categories.entry(category.to_string()).or_default();
            (entry.received, entry.redelivered, entry.acknowledged) =
                (count.received, count.redelivered, count.acknowledged);
            entry.rate = telemetry.trend.rate(name, category);
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
        oldest_unacknowledged_seconds: status.oldest_unacknowledged.map(since),
        last_event_seconds: telemetry.feed.last_event(name).map(since),
        received: total.received,
        redelivered: total.redelivered,
        published: total.durable,
        acknowledged: total.acknowledged,
        dead_lettered: dead_lettered.map(|((_, reason), count)| ((*reason).to_owned(), *count)).collect(),
        latency: telemetry.trend.latency(name).map(|latency| LatencyState {
            p50_seconds: latency.p50.as_secs_f64(),
            p99_seconds: latency.p99.as_secs_f64(),
        }),
        categories,
    }
}

fn sink_state(sink: &SinkHandle, counts: &Counts) -> SinkState {
    let state = sink.state();
    let published =
        counts.published.iter().filter(|((_, name, _), _)| *name == sink.name).map(|(_, count)| count);
    let retries = counts.sink_retries.iter().filter(|((name, _), _)| *name == sink.name);
    let dropped = counts.best_effort_dropped.iter().filter(|((_, name), _)| *name == sink.name);
    SinkState {
        up: state.up,
        required: sink.required,
        since_seconds: state.since.elapsed().as_secs_f64(),
        reason: (!state.up).then_some(state.reason),
        published: published.sum(),
        retries: retries.map(|((_, reason), count)| ((*reason).to_owned(), *count)).collect(),
        dropped: dropped.map(|(_, count)| count).sum(),
        weaknesses: sink.sink.weaknesses().iter().map(ToString::to_string).collect(),
    }
}
