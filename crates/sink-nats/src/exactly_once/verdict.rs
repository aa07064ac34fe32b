//! What became of an atomic batch: the one place where the server's answers to its messages are classified.
//!
//! Answers (ADR-50, nats-server `server/stream.go` and `server/errors.json`): a message that is staged is answered with
//! nothing in it, where it asked for an answer; the committing one with a PubAck of the last message's sequence, or an
//! error for the whole batch. Errors in staging come to the message that caused them; whatever follows it in the same
//! batch is answered with "incomplete" (10176).

use async_nats::jetstream::ErrorCode;
use async_nats::{Message, StatusCode};
use serde::Deserialize;
use viaduct_sink::{Outcome, Refusal};

use crate::answer::{self, ApiError};

/// The end of a batch. Only [`Verdict::Committed`] means that anything is stored; whether [`Verdict::Unknown`] does, the
/// checkpoint tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All of it is stored; the sequence is that of the checkpoint, its last message.
    Committed(u64),
    /// Nobody knows.
    Unknown(String),
    /// The checkpoint is not the one that was expected, or is being changed.
    Moved,
    /// It passes by itself.
    Again(&'static str, String),
    /// A message is missing, nobody says which: lost with the leader, or never arrived for a reason of its own.
    Incomplete,
    /// More messages than the server takes in one batch; its limit, where it says so.
    TooMany(Option<usize>),
    /// The stream is not what this sink needs it to be; its own information tells why.
    Unfit(String),
    /// The message at this index is to blame.
    Named(usize, Outcome),
    /// Nobody listens on the subject of the message at this index.
    Unheard(usize),
    /// The checkpoint's subject may not be published to.
    Denied(Box<str>),
    /// A record of the batch is to blame, nobody says which.
    Culprit(Outcome),
    /// The stream takes nothing now.
    Full(Outcome),
    /// The server stores messages of a batch one by one.
    NotAtomic,
}

/// What an answer to one message says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It is staged.
    Staged,
    /// The batch has ended.
    End(Verdict),
}

#[derive(Deserialize)]
struct PubAck {
    error: Option<ApiError>,
    #[serde(default)]
    stream: String,
    #[serde(default)]
    seq: u64,
}

/// Reads the answer to the message at `index` of a batch for `stream` whose committing message is at `last`.
pub(crate) fn read(message: &Message, index: usize, last: usize, stream: &str) -> Heard {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Heard::End(Verdict::Unheard(index));
    }
    if message.payload.is_empty() && index < last {
        return Heard::Staged;
    }
    let Ok(ack) = serde_json::from_slice::<PubAck>(&message.payload) else {
        return Heard::End(Verdict::Unknown("the server's answer cannot be read".to_owned()));
    };
    Heard::End(match ack {
        PubAck { error: Some(error), stream: other, .. } if !other.is_empty() && other != stream => {
            let detail = format!("the subject belongs to stream {other}: {}", error.description);
            match index < last {
                true => Verdict::Named(index, answer::refused("other_stream", Refusal::Missing, detail)),
                false => Verdict::Unfit(detail),
            }
        }
        PubAck { error: Some(error), .. } => judge(&error, index, last),
        PubAck { seq: 1.., .. } if index < last => Verdict::NotAtomic,
        PubAck { seq: sequence @ 1.., .. } => Verdict::Committed(sequence),
        PubAck { .. } => Verdict::Unknown("the server's answer carries no stream sequence".to_owned()),
    })
}

fn judge(error: &ApiError, index: usize, last: usize) -> Verdict {
    let detail = || format!("{} (JetStream error {})", error.description, error.err_code);
    match ErrorCode(error.err_code) {
        ErrorCode::STREAM_WRONG_LAST_SEQUENCE | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT => {
            Verdict::Moved
        }
        ErrorCode::ATOMIC_PUBLISH_INCOMPLETE_BATCH => Verdict::Incomplete,
        ErrorCode::ATOMIC_PUBLISH_TOO_MANY_INFLIGHT => Verdict::Again("too_many_batches", detail()),
        ErrorCode::ATOMIC_PUBLISH_TOO_LARGE_BATCH => {
            Verdict::TooMany(error.description.rsplit(' ').next().and_then(|number| number.parse().ok()))
        }
        // Batches carry no message ids. Whoever added them, the batch may be stored.
        ErrorCode::ATOMIC_PUBLISH_CONTAINS_DUPLICATE_MESSAGE => Verdict::Unknown(detail()),
        ErrorCode::ATOMIC_PUBLISH_DISABLED
        | ErrorCode::STREAM_ROLLUP_FAILED
        | ErrorCode::STREAM_NOT_FOUND
        | ErrorCode::STREAM_SEALED
        | ErrorCode::JETSTREAM_NOT_ENABLED
        | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => Verdict::Unfit(detail()),
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM if index == last => Verdict::Again(
            "checkpoint_too_large",
            format!("the checkpoint is too large for the stream: {}", detail()),
        ),
        _ => match answer::classify(error) {
            // "maximum messages per subject exceeded": the others have room.
            fate @ Outcome::Retry(_) if error.description.contains("per subject") => Verdict::Culprit(fate),
            Outcome::Retry(retry) if retry.refusal == Some(Refusal::Full) => {
                Verdict::Full(Outcome::Retry(retry))
            }
            fate if index < last && error.code < 500 => Verdict::Named(index, fate),
            Outcome::Retry(retry) if retry.refusal.is_some() => Verdict::Unfit(retry.detail),
            Outcome::Retry(retry) => Verdict::Again(retry.reason, retry.detail),
            fate => Verdict::Culprit(fate),
        },
    }
}

#[cfg(test)]
mod tests {
    use viaduct_sink::{RejectReason, Rejection};

    use super::*;

    fn heard(payload: &str, index: usize) -> Heard {
        let message = Message {
            subject: "_INBOX.x".into(),
            reply: None,
            payload: payload.to_owned().into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        };
        read(&message, index, 9, "VIA")
    }

    fn error(code: u16, err_code: u64, description: &str, index: usize) -> Verdict {
        let json = format!(
            r#"{{"error":{{"code":{code},"err_code":{err_code},"description":"{description}"}},"stream":"VIA","seq":0}}"#
        );
        match heard(&json, index) {
            Heard::End(verdict) => verdict,
            Heard::Staged => panic!("an error is not nothing"),
        }
    }

    #[test]
    fn only_the_committing_message_commits() {
        assert_eq!(heard("", 3), Heard::Staged);
        let ack = r#"{"stream":"VIA","seq":700,"batch":"x","count":10}"#;
        assert_eq!(heard(ack, 9), Heard::End(Verdict::Committed(700)));
        assert_eq!(heard(ack, 3), Heard::End(Verdict::NotAtomic), "a server that knows no batches");
        for nothing in ["", "+OK", "{}", r#"{"stream":"VIA","seq":0}"#] {
            assert!(matches!(heard(nothing, 9), Heard::End(Verdict::Unknown(_))), "{nothing}");
        }
    }

    #[test]
    fn errors_carry_the_decision() {
        assert_eq!(error(400, 10071, "wrong last sequence: 7", 9), Verdict::Moved);
        assert_eq!(error(400, 10164, "wrong last sequence", 9), Verdict::Moved);
        assert_eq!(error(400, 10176, "atomic publish batch is incomplete", 9), Verdict::Incomplete);
        assert_eq!(
            error(400, 10199, "atomic publish batch is too large: 100", 9),
            Verdict::TooMany(Some(100))
        );
        assert!(matches!(error(429, 10210, "too many inflight", 0), Verdict::Again("too_many_batches", _)));
        assert!(matches!(error(400, 10201, "duplicate", 9), Verdict::Unknown(_)));
        assert!(matches!(error(400, 10174, "atomic publish is disabled", 0), Verdict::Unfit(_)));
        assert!(matches!(error(500, 10111, "rollup not permitted", 9), Verdict::Unfit(_)));
        assert!(matches!(
            error(400, 10054, "message size exceeds maximum allowed", 4),
            Verdict::Named(4, Outcome::Rejected(Rejection { reason: RejectReason::TooLarge, .. }))
        ));
        assert!(matches!(error(400, 10054, "", 9), Verdict::Again("checkpoint_too_large", _)));
        assert!(matches!(error(400, 10097, "header size", 9), Verdict::Culprit(Outcome::Rejected(_))));
        assert!(matches!(error(503, 10077, "maximum messages exceeded", 9), Verdict::Full(_)));
        assert!(matches!(
            error(503, 10077, "maximum messages per subject exceeded", 9),
            Verdict::Culprit(Outcome::Retry(_))
        ));
        assert!(matches!(error(503, 10008, "temporarily unavailable", 0), Verdict::Again("server_error", _)));
    }

    #[test]
    fn another_streams_no_is_told_as_such() {
        let json =
            r#"{"error":{"code":400,"err_code":10176,"description":"incomplete"},"stream":"OTHER","seq":0}"#;
        let Heard::End(Verdict::Named(4, Outcome::Retry(retry))) = heard(json, 4) else { panic!() };
        assert_eq!(retry.refusal, Some(Refusal::Missing));
        assert!(matches!(heard(json, 9), Heard::End(Verdict::Unfit(_))));
    }
}
