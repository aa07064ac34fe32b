//! Where checkpoints stand, and how they are read.
//!
//! **Which read.** `$JS.API.STREAM.MSG.GET.<stream>` is answered by the stream's leader alone. A direct get
//! (`$JS.API.DIRECT.GET`) may be answered by any replica, which may lag behind: it could lack a batch that was
//! committed before, and what that batch holds would be published again. A leader that is cut off from the others may
//! answer from the past too, for a while. Therefore nothing is decided by a read alone: the next batch carries the
//! sequence that was read, and the server stores it only if that is still the checkpoint's.

use std::collections::HashMap;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::RequestErrorKind;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::RawMessage;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use viaduct_sink::{Checkpoint, Fatal, Identity, Unreadable};

use crate::epoch::Epoch;
use crate::supervisor::Shared;

/// What the subjects of all checkpoints start with.
pub(crate) const ROOT: &str = "_viaduct.checkpoint.";

/// The subjects of the checkpoints of one sink: narrow, because streams must not share a subject.
pub(crate) fn filter(identity: &Identity) -> String {
    subject(identity, ">")
}

/// The subject of a source's checkpoint.
pub(crate) fn subject(identity: &Identity, source: &str) -> String {
    format!("{ROOT}{}", identity.checkpoint_key(source))
}

/// The subject of a page of the checkpoint on `subject`.
pub(crate) fn page_subject(subject: &str, page: u32) -> String {
    format!("{subject}.{page}")
}

/// How often a checkpoint is read again whose pages do not fit: another instance may be writing.
const READINGS: usize = 5;

/// What stands there.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    /// Its sequence in the stream; 0 where there is none.
    pub(crate) sequence: u64,
    /// The checkpoint.
    pub(crate) checkpoint: Option<Checkpoint>,
}

/// Why it could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// Nobody answered, or nobody can now.
    Away(String),
    /// There is no such stream now.
    NoStream,
    /// The server said no.
    Refused(String),
    /// It stands there and means nothing to this program.
    Fatal(Fatal),
}

#[derive(Deserialize)]
struct Found {
    message: RawMessage,
}

/// Reads the checkpoint on `subject` and its pages from the leader of the stream.
pub(crate) async fn read(shared: &Shared, epoch: &Epoch, subject: &str) -> Result<Stored, ReadError> {
    let mut before = None;
    for _ in 0..READINGS {
        let Some((sequence, text)) = last(shared, epoch, subject).await? else {
            return Ok(Stored::default());
        };
        let mut pages = HashMap::new();
        let numbers = Checkpoint::pages(&text);
        for &page in numbers.iter().flatten() {
            if let Some((_, text)) = last(shared, epoch, &page_subject(subject, page)).await? {
                pages.insert(page, text);
            }
        }
        match Checkpoint::decode(&text, |page| pages.remove(&page)) {
            Ok(checkpoint) => return Ok(Stored { sequence, checkpoint: Some(checkpoint) }),
            // The pages are of another checkpoint than the one that was read before them.
            Err(Unreadable::Page(_)) if before != Some(sequence) => before = Some(sequence),
            Err(error) => {
                let stream = &shared.checked.settings.stream;
                return Err(ReadError::Fatal(Fatal::Broken(format!(
                    "the checkpoint on {subject} (stream {stream}, sequence {sequence}) cannot be used: {error}. If nothing \
                     else writes there, remove it; events that the vendor delivers again are then published again"
                ))));
            }
        }
    }
    Err(ReadError::Away("the checkpoint changes while it is read".to_owned()))
}

/// The last message on `subject`: its sequence and its text.
async fn last(shared: &Shared, epoch: &Epoch, subject: &str) -> Result<Option<(u64, Bytes)>, ReadError> {
    let stream = &shared.checked.settings.stream;
    let context = async_nats::jetstream::new(epoch.client().clone());
    let request = json!({ "last_by_subj": subject });
    let answer = tokio::select! {
        biased;
        answer = context.request(format!("STREAM.MSG.GET.{stream}"), &request) => answer,
        () = epoch.broken() => return Err(ReadError::Away(epoch.reason())),
        () = epoch.api_denied() => return Err(ReadError::Refused(format!(
            "the server does not permit to read from stream {stream} ($JS.API.STREAM.MSG.GET.{stream})"
        ))),
    };
    let found: Found = match answer {
        Ok(Response::Ok(found)) => found,
        Ok(Response::Err { error }) if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => {
            return Ok(None);
        }
        Ok(Response::Err { error }) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
            return Err(ReadError::NoStream);
        }
        Ok(Response::Err { error }) => {
            let detail = format!("cannot read the checkpoint from stream {stream}: {error}");
            return Err(match error.code() {
                500.. => ReadError::Away(detail),
                _ => ReadError::Refused(detail),
            });
        }
        Err(error) => {
            let what = match error.kind() {
                RequestErrorKind::NoResponders => "JetStream does not answer",
                RequestErrorKind::TimedOut => {
                    shared.no_answer(epoch);
                    "the server did not answer in time"
                }
                _ => "the connection broke",
            };
            return Err(ReadError::Away(format!("cannot read the checkpoint from stream {stream}: {what}")));
        }
    };
    let sequence = found.message.sequence;
    let message = StreamMessage::try_from(found.message).map_err(|error| {
        ReadError::Away(format!("cannot read the checkpoint from stream {stream}: {error}"))
    })?;
    Ok(Some((sequence, message.payload)))
}
