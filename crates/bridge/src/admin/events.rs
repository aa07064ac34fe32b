//! `/events`: what comes through the bridge, as server-sent events. Never a value, never a key, unless records are asked
//! for, and the configuration shows them in clear.
//!
//! | event | data |
//! | --- | --- |
//! | `event` | one event: the fields of [`Note`]; first the last 50, then what comes |
//! | `skipped` | a number: so many were left out, because the reader was too slow |
//! | `status` | with `?status` only: what `/status` answers, each second |
//! | `events` | with `?status` in place of `event`: at most 50 of them, as an array, four times a second |
//! | `records` | with `?records` in place of `event`: the records of one event, as [`crate::telemetry::RecordNote`] has them; only what comes |
//! | `stopped` | the last `status`; the bridge has stopped in order, and the stream ends |
//!
//! `source=`, `type=` (a pattern) and `sink=` choose among events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, stream};
use serde::Serialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::filter::Filter;
use super::status::Status;
use super::{Shared, has_parameter, records};
use crate::telemetry::{Note, REMEMBERED, Telemetry};

/// So many may look on at a time.
pub(super) const FOLLOWERS: usize = 16;
/// How often a page gets the state.
const STATUS_EACH: Duration = Duration::from_secs(1);
/// How often a page gets events.
const EVENTS_EACH: Duration = Duration::from_millis(250);
/// A comment goes out where nothing else does, so that both ends notice when the other one is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Who may still look on.
#[derive(Debug, Clone)]
pub(super) struct Seats(Arc<Semaphore>);

impl Default for Seats {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(FOLLOWERS)))
    }
}

/// Answers `GET /events`.
pub(super) async fn events(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let Ok(seat) = shared.seats.0.clone().try_acquire_owned() else {
        let body = format!("{FOLLOWERS} readers follow the events already; close one of them\n");
        return (StatusCode::SERVICE_UNAVAILABLE, body).into_response();
    };
    let filter = match Filter::of(query.as_deref()) {
        Ok(filter) => filter,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    };
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let Shared { telemetry, closing, .. } = shared;
    if has_parameter(query.as_deref(), "records") {
        return Sse::new(records::follow(telemetry, closing, filter, seat))
            .keep_alive(keep_alive)
            .into_response();
    }
    let page = has_parameter(query.as_deref(), "status");
    Sse::new(follow(telemetry, closing, page, filter, seat)).keep_alive(keep_alive).into_response()
}

/// One reader.
struct Follower {
    telemetry: Arc<Telemetry>,
    closing: CancellationToken,
    notes: Receiver<Arc<Note>>,
    filter: Filter,
    /// To be shown next.
    waiting: VecDeque<Arc<Note>>,
    skipped: u64,
    /// `None` where every event is told by itself.
    page: Option<Page>,
    over: bool,
    _seat: OwnedSemaphorePermit,
}

/// The clocks of a reader that wants summaries.
struct Page {
    status: Interval,
    events: Interval,
}

fn follow(
    telemetry: Arc<Telemetry>,
    closing: CancellationToken,
    page: bool,
    filter: Filter,
    seat: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let (mut recent, notes) = telemetry.feed.follow();
    recent.retain(|note| wanted(&filter, note));
    let page = page.then(|| Page { status: each(STATUS_EACH), events: each(EVENTS_EACH) });
    let follower = Follower {
        telemetry,
        closing,
        notes,
        filter,
        waiting: recent.into(),
        skipped: 0,
        page,
        over: false,
        _seat: seat,
    };
    stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok(event), follower))
    })
}

fn each(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

impl Follower {
    async fn next(&mut self) -> Option<Event> {
        if self.over {
            return None;
        }
        loop {
            if self.page.is_none() {
                if self.skipped > 0 {
                    return Some(message("skipped", &std::mem::take(&mut self.skipped)));
                }
                if let Some(note) = self.waiting.pop_front() {
                    return Some(message("event", &*note));
                }
            }
            let (status, events) = match &mut self.page {
                Some(Page { status, events }) => (Some(status), Some(events)),
                None => (None, None),
            };
            let summaries = status.is_some();
            tokio::select! {
                biased;
                () = self.closing.cancelled() => {
                    self.over = true;
                    return Some(message("stopped", &Status::of(&self.telemetry)));
                }
                () = due(status) => {
                    return Some(message("status", &Status::of(&self.telemetry)));
                }
                () = due(events), if !self.waiting.is_empty() => {
                    let notes: Vec<Arc<Note>> = self.waiting.drain(..).collect();
                    return Some(message("events", &notes));
                }
                note = self.notes.recv() => match note {
                    Ok(note) if !wanted(&self.filter, &note) => {}
                    Ok(note) => {
                        // A page shows the last ones only.
                        if summaries && self.waiting.len() == REMEMBERED {
                            self.waiting.pop_front();
                        }
                        self.waiting.push_back(note);
                    }
                    Err(RecvError::Lagged(count)) => self.skipped += count,
                    // The feed lives as long as the bridge, and this holds on to it.
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }
}

async fn due(ticks: Option<&mut Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}

fn wanted(filter: &Filter, note: &Note) -> bool {
    filter.wants(&note.source, note.event_type.as_deref())
        && (!filter.is_about_a_sink() || note.records.iter().any(|record| filter.wants_sink(&record.sink)))
}

/// A server-sent event.
pub(super) fn message(name: &str, data: &impl Serialize) -> Event {
    // What is told here has string keys and finite numbers alone, so it is always JSON.
    let data = serde_json::to_string(data).unwrap_or_else(|error| format!("\"{error}\""));
    Event::default().event(name).data(data)
}
