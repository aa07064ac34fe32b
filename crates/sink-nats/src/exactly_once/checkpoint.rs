//! Where checkpoints stand, and how they are read.
//!
//! **Which read.** `$JS.API.STREAM.MSG.GET.<stream>` is answered by the stream's leader alone. A direct get
//! (`$JS.API.DIRECT.GET`) may be answered by any replica, which may lag behind: it could lack a batch that was
//! committed before, and what that batch holds would be published again. A leader that is cut off from the others may
//! answer from the past too, for a while. Therefore nothing is decided by a read alone: the next batch carries the
//! sequence that was read, and the server stores it only if that is still the checkpoint's.
//!
//! **Fences.** A claim replaces the checkpoint that was read. Where the instance before goes on committing, and the line
//! is slow, another checkpoint stands there each time, and the claim never comes in. Then the claimer first puts a fence
//! behind the checkpoint: a message on its subject, under no condition, that removes nothing. It rejects whatever the
//! instance before sends from now on, so that the checkpoint before it cannot change any more.
//!
//! ```text
//!  checkpoint (A) ─▶ fence (B) ─▶ A: rejected, reads, stops      B: reads the checkpoint before its fence, claims
//! ```

use std::collections::HashMap;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::RequestErrorKind;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::RawMessage;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use viaduct_sink::{Checkpoint, Fatal, Identity, Owner, Unreadable};

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

/// The header that makes a message on a checkpoint's subject a fence.
pub(crate) const FENCE: &str = "Viaduct-Fence";

/// What stands there.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    /// The last sequence of the subject; 0 where there is none.
    pub(crate) sequence: u64,
    /// Who has put a fence behind the checkpoint.
    pub(crate) fence: Option<Owner>,
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
        let Some(last) = get(shared, epoch, json!({ "last_by_subj": subject })).await? else {
            return Ok(Stored::default());
        };
        let sequence = last.sequence;
        let (fence, message) = match is_fence(&last) {
            false => (None, Some(last)),
            true => {
                let owner =
                    decode(&last, &mut HashMap::new()).map_err(|error| broken(shared, &last, &error))?.owner;
                (Some(owner), before_fences(shared, epoch, subject, sequence).await?)
            }
        };
        let Some(message) = message else { return Ok(Stored { sequence, fence, checkpoint: None }) };
        let mut pages = HashMap::new();
        for page in Checkpoint::pages(&message.payload).map_err(|error| broken(shared, &message, &error))? {
            let subject = page_subject(subject, page);
            if let Some(found) = get(shared, epoch, json!({ "last_by_subj": subject })).await? {
                pages.insert(page, found.payload);
            }
        }
        match decode(&message, &mut pages) {
            Ok(checkpoint) => return Ok(Stored { sequence, fence, checkpoint: Some(checkpoint) }),
            // The pages may be those of a checkpoint that was written since.
            Err(Unreadable::Page(_)) if before != Some(sequence) => before = Some(sequence),
            Err(error) => return Err(broken(shared, &message, &error)),
        }
    }
    Err(ReadError::Away("the checkpoint changes while it is read".to_owned()))
}

/// The last message on `subject` before `end` that is no fence.
async fn before_fences(
    shared: &Shared,
    epoch: &Epoch,
    subject: &str,
    end: u64,
) -> Result<Option<StreamMessage>, ReadError> {
    let mut found = None;
    let mut from = 1;
    while let Some(earlier) = get(shared, epoch, json!({ "seq": from, "next_by_subj": subject })).await?
        && earlier.sequence < end
    {
        from = earlier.sequence + 1;
        if !is_fence(&earlier) {
            found = Some(earlier);
        }
    }
    Ok(found)
}

fn is_fence(message: &StreamMessage) -> bool {
    message.headers.get(FENCE).is_some()
}

fn decode(message: &StreamMessage, pages: &mut HashMap<u32, Bytes>) -> Result<Checkpoint, Unreadable> {
    Checkpoint::decode(&message.payload, |page| pages.remove(&page))
}

fn broken(shared: &Shared, message: &StreamMessage, error: &Unreadable) -> ReadError {
    ReadError::Fatal(Fatal::Broken(format!(
        "the checkpoint on {} (stream {}, sequence {}) cannot be used: {error}. If nothing else writes there, remove it; \
         events that the vendor delivers again are then published again",
        message.subject, shared.checked.settings.stream, message.sequence
    )))
}

async fn get(shared: &Shared, epoch: &Epoch, request: Value) -> Result<Option<StreamMessage>, ReadError> {
    let stream = &shared.checked.settings.stream;
    let context = async_nats::jetstream::new(epoch.client().clone());
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
    let message = StreamMessage::try_from(found.message);
    message
        .map(Some)
        .map_err(|_| ReadError::Away(format!("the server's answer about stream {stream} cannot be read")))
}
