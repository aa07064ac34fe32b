//! Records read back from their stream, and marks of those that were replayed.
//!
//! **Reading** is an ordered consumer (ephemeral, in memory, acknowledging nothing) up to the last sequence that the
//! subjects had when it began. Ids are stream sequences.
//!
//! **Marks** are messages on the subject of what they mark, because that is a subject which the stream surely holds: the
//! header `viaduct-replayed` lists sequences, the payload repeats it as JSON.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_STREAM;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::context::{Context, GetStreamErrorKind};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{RawMessage, RetentionPolicy, Stream};
use async_nats::jetstream::{self, ErrorCode, Message};
use async_trait::async_trait;
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, mpsc};
use viaduct_sink::archive::{MARK, READ_AHEAD, marks_among};
use viaduct_sink::{Archive, ArchiveError, Kept, Mark, Marks, Names, Place, Reading};

use crate::epoch::Epoch;
use crate::settings::{Checked, NatsSettings, NatsSinkError};
use crate::subject::covers;

/// How long the server may leave a request, or a reader, without an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The records of some subjects of a stream.
pub struct NatsArchive {
    checked: Checked,
    names: Names,
    connection: OnceCell<Arc<Epoch>>,
}

impl std::fmt::Debug for NatsArchive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsArchive").field("names", &self.names).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Found {
    message: RawMessage,
}

impl NatsArchive {
    /// The subjects of these names in the stream that the settings are about, which is never made or changed here.
    /// Connects to nobody yet.
    ///
    /// # Errors
    /// Settings that cannot be used.
    pub fn new(mut settings: NatsSettings, names: Names) -> Result<Self, NatsSinkError> {
        settings.create_stream = false;
        settings.exactly_once = None;
        Ok(Self { checked: settings.check()?, names, connection: OnceCell::new() })
    }

    async fn connection(&self) -> Result<&Arc<Epoch>, ArchiveError> {
        let connect = async || {
            let mut reason = String::new();
            for server in &self.checked.servers {
                match Epoch::open(&self.checked, server).await {
                    Ok(epoch) => return Ok(Arc::new(epoch)),
                    Err(why) => reason = why,
                }
            }
            Err(ArchiveError::Unreachable(reason))
        };
        self.connection.get_or_try_init(connect).await
    }

    async fn context(&self) -> Result<Context, ArchiveError> {
        Ok(jetstream::new(self.connection().await?.client().clone()))
    }

    fn stream_name(&self) -> &str {
        &self.checked.settings.stream
    }

    fn failed(&self, what: &str, error: &dyn std::fmt::Display) -> ArchiveError {
        let text = format!("{what} stream {}: {error}", self.stream_name());
        match self.connection.get() {
            Some(epoch) if epoch.is_broken() => {
                ArchiveError::Unreachable(format!("{text} ({})", epoch.reason()))
            }
            _ => ArchiveError::Refused(text),
        }
    }

    /// The stream; `None` where there is none.
    async fn stream(&self) -> Result<Option<Stream>, ArchiveError> {
        let context = self.context().await?;
        let answer = tokio::time::timeout(PATIENCE, context.get_stream(self.stream_name())).await;
        match answer {
            Ok(Ok(stream)) => Ok(Some(stream)),
            Ok(Err(error)) => match error.kind() {
                GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    Ok(None)
                }
                GetStreamErrorKind::Request => {
                    Err(ArchiveError::Unreachable(format!("stream {}: {error}", self.stream_name())))
                }
                _ => Err(self.failed("cannot look up", &error)),
            },
            Err(_) => Err(self.silent()),
        }
    }

    fn silent(&self) -> ArchiveError {
        ArchiveError::Unreachable(format!("no answer about stream {} in time", self.stream_name()))
    }

    /// What the consumer has to ask for: no two of them overlap.
    fn filters(&self) -> Vec<String> {
        match &self.names {
            Names::One(subject) => vec![subject.to_string()],
            Names::Like { prefixes, .. } => {
                let mut filters: Vec<String> = prefixes
                    .iter()
                    .map(|prefix| format!("{}>", prefix.rfind('.').map_or("", |dot| &prefix[..=dot])))
                    .collect();
                filters.sort();
                filters.dedup();
                let all = filters.clone();
                filters.retain(|one| !all.iter().any(|other| other != one && covers(other, one)));
                filters
            }
        }
    }

    /// A message, from the stream's leader.
    async fn get(&self, request: Value) -> Result<Option<StreamMessage>, ArchiveError> {
        let context = self.context().await?;
        let subject = format!("STREAM.MSG.GET.{}", self.stream_name());
        let answer = tokio::time::timeout(PATIENCE, context.request(subject, &request)).await;
        let found: Found = match answer {
            Ok(Ok(Response::Ok(found))) => found,
            Ok(Ok(Response::Err { error }))
                if [ErrorCode::NO_MESSAGE_FOUND, ErrorCode::STREAM_NOT_FOUND]
                    .contains(&error.error_code()) =>
            {
                return Ok(None);
            }
            Ok(Ok(Response::Err { error })) => return Err(self.failed("cannot read from", &error)),
            Ok(Err(error)) => {
                let text = format!("cannot read from stream {}: {error}", self.stream_name());
                return Err(ArchiveError::Unreachable(text));
            }
            Err(_) => return Err(self.silent()),
        };
        let message = StreamMessage::try_from(found.message);
        message.map(Some).map_err(|error| self.failed("cannot understand a message of", &error))
    }

    /// Sends what stands there to `send`, without payloads where those are of no use.
    async fn begin(&self, since_ms: Option<i64>, headers_only: bool) -> Result<Reading, ArchiveError> {
        let (send, reading) = mpsc::channel(READ_AHEAD);
        let Some(stream) = self.stream().await? else { return Ok(reading) };
        let retention = stream.cached_info().config.retention;
        if retention != RetentionPolicy::Limits {
            return Err(ArchiveError::Refused(format!(
                "stream {} has the retention {retention:?}: reading its messages would remove them",
                self.stream_name()
            )));
        }
        let filters = self.filters();
        let mut end = 0;
        for filter in &filters {
            let last = self.get(json!({ "last_by_subj": filter })).await?;
            end = end.max(last.map_or(0, |last| last.sequence));
        }
        if end == 0 {
            return Ok(reading);
        }
        let start = since_ms.and_then(|ms| async_nats::datetime::from_nanos(i128::from(ms) * 1_000_000).ok());
        let config = OrderedConfig {
            filter_subjects: filters,
            headers_only,
            deliver_policy: start
                .map_or(DeliverPolicy::All, |start_time| DeliverPolicy::ByStartTime { start_time }),
            ..OrderedConfig::default()
        };
        let consumer =
            stream.create_consumer(config).await.map_err(|error| self.failed("cannot read", &error))?;
        // Nothing is as young as asked for: no message would ever come.
        if consumer.cached_info().num_pending == 0 {
            return Ok(reading);
        }
        let mut messages = consumer.messages().await.map_err(|error| self.failed("cannot read", &error))?;
        let (names, name) = (self.names.clone(), self.stream_name().to_owned());
        let connection = Arc::clone(self.connection().await?);
        tokio::spawn(async move {
            let unreachable = |why: &dyn std::fmt::Display| {
                Err(ArchiveError::Unreachable(format!("reading stream {name} broke off: {why}")))
            };
            loop {
                let next = tokio::select! {
                    next = tokio::time::timeout(PATIENCE, messages.next()) => next,
                    () = connection.broken() => {
                        let _ = send.send(unreachable(&connection.reason())).await;
                        return;
                    }
                };
                let message = match next {
                    Ok(Some(Ok(message))) => message,
                    Ok(Some(Err(error))) => return drop(send.send(unreachable(&error)).await),
                    Ok(None) | Err(_) => {
                        return drop(send.send(unreachable(&"the server fell silent")).await);
                    }
                };
                let Ok(info) = message.info() else { continue };
                let (sequence, pending) = (info.stream_sequence, info.pending);
                let time_ms = i64::try_from(info.published.unix_timestamp_nanos() / 1_000_000).ok();
                if sequence <= end && names.matches(&message.subject) {
                    let kept = kept_of(&message, sequence, time_ms);
                    if send.send(Ok(kept)).await.is_err() {
                        return;
                    }
                }
                if sequence >= end || pending == 0 {
                    return;
                }
            }
        });
        Ok(reading)
    }
}

fn kept_of(message: &Message, sequence: u64, time_ms: Option<i64>) -> Kept {
    let headers = message.headers.as_ref().map_or_else(Vec::new, list);
    let place = place(&message.subject, sequence);
    Kept { place, time_ms, headers, value: message.payload.clone() }
}

fn place(subject: &str, sequence: u64) -> Place {
    Place { id: sequence.to_string(), log: subject.into(), number: sequence }
}

/// Headers by name, because the client keeps no order.
fn list(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut list: Vec<(String, String)> = headers
        .iter()
        .flat_map(|(name, values)| {
            values.iter().map(move |value| (name.to_string(), value.as_str().to_owned()))
        })
        .collect();
    list.sort();
    list
}

#[async_trait]
impl Archive for NatsArchive {
    async fn marks(&self) -> Result<Marks, ArchiveError> {
        marks_among(self.begin(None, true).await?).await
    }

    async fn read(&self, since_ms: Option<i64>) -> Result<Reading, ArchiveError> {
        self.begin(since_ms, false).await
    }

    fn knows(&self, id: &str) -> bool {
        id.parse::<u64>().is_ok_and(|sequence| sequence > 0)
    }

    async fn find(&self, id: &str) -> Result<Option<Kept>, ArchiveError> {
        let Ok(sequence) = id.parse::<u64>() else { return Ok(None) };
        let message = self.get(json!({ "seq": sequence })).await?;
        Ok(message.filter(|message| self.names.matches(&message.subject)).map(|message| Kept {
            place: place(&message.subject, message.sequence),
            time_ms: i64::try_from(message.time.unix_timestamp_nanos() / 1_000_000).ok(),
            headers: list(&message.headers),
            value: message.payload,
        }))
    }

    async fn prepare(&self) -> Result<(), ArchiveError> {
        self.connection().await.map(drop)
    }

    async fn mark(&self, marks: &[Mark]) -> Result<(), ArchiveError> {
        let context = self.context().await?;
        for mark in marks {
            let numbers = mark.numbers.to_string();
            let mut headers = HeaderMap::new();
            headers.insert(MARK, numbers.as_str());
            headers.insert(NATS_EXPECTED_STREAM, self.stream_name());
            let payload = json!({ "replayed": numbers }).to_string();
            let published = async {
                let sent =
                    context.publish_with_headers(mark.log.to_string(), headers, payload.into()).await?;
                sent.await
            };
            match tokio::time::timeout(PATIENCE, published).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    return Err(self.failed("the mark of what was replayed cannot be written to", &error));
                }
                Err(_) => return Err(self.silent()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(prefixes: &[&str]) -> Vec<String> {
        let prefixes = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
        let names = Names::Like { prefixes, matches: Arc::new(|_: &str| true) };
        let settings = NatsSettings::new(vec!["nats://localhost:1".to_owned()], "VIA");
        NatsArchive::new(settings, names).expect("good settings").filters()
    }

    #[test]
    fn filters_do_not_overlap() {
        assert_eq!(filters(&["via.dead.acme.", "via.dead.other."]), ["via.dead.acme.>", "via.dead.other.>"]);
        assert_eq!(filters(&["via.dead-", "via.dead.acme."]), ["via.>"]);
        assert_eq!(filters(&["dead-"]), [">"]);
    }
}
