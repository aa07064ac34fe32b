//! `/events?records`: records as they are handed to their sinks, for one follower.

use std::convert::Infallible;
use std::sync::Arc;

use axum::response::sse::Event;
use futures_util::{Stream, stream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::events::message;
use super::filter::Filter;
use super::status::Status;
use crate::telemetry::{RecordNote, Telemetry};

struct Follower {
    telemetry: Arc<Telemetry>,
    closing: CancellationToken,
    records: Receiver<Arc<RecordNote>>,
    filter: Filter,
    over: bool,
    _seat: OwnedSemaphorePermit,
}

/// What comes from now on and fits the filter.
pub(super) fn follow(
    telemetry: Arc<Telemetry>,
    closing: CancellationToken,
    filter: Filter,
    seat: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let records = telemetry.feed.follow_records();
    let follower = Follower { telemetry, closing, records, filter, over: false, _seat: seat };
    stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok(event), follower))
    })
}

impl Follower {
    async fn next(&mut self) -> Option<Event> {
        if self.over {
            return None;
        }
        loop {
            tokio::select! {
                biased;
                () = self.closing.cancelled() => {
                    self.over = true;
                    return Some(message("stopped", &Status::of(&self.telemetry)));
                }
                note = self.records.recv() => match note {
                    Ok(note) => {
                        if let Some(note) = wanted(&self.filter, &note) {
                            return Some(message("records", &note));
                        }
                    }
                    Err(RecvError::Lagged(count)) => return Some(message("skipped", &count)),
                    // The feed lives as long as the bridge, and this holds on to it.
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }
}

/// What of an event's records is wanted, if any.
fn wanted(filter: &Filter, note: &RecordNote) -> Option<RecordNote> {
    if !filter.wants(&note.source, note.event_type.as_deref()) {
        return None;
    }
    let mut note = note.clone();
    note.records.retain(|record| filter.wants_sink(&record.sink));
    (!note.records.is_empty()).then_some(note)
}
