//! What the server's answer to a record means: the one place where JetStream's errors are classified.
//!
//! Codes: nats-server `server/errors.json`, API reference of JetStream publish acknowledgements.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::{Message, StatusCode};
use serde::Deserialize;
use viaduct_sink::outcome::Position;
use viaduct_sink::{Outcome, Receipt, Refusal, RejectReason, Rejection, Retry};

/// How long to wait after an error that passes by itself.
const SOON: Duration = Duration::from_millis(250);
/// How long to wait after a "no" that somebody has to mend.
const LATER: Duration = Duration::from_secs(1);

/// The two shapes of an answer: a PubAck, or an error.
#[derive(Deserialize)]
struct PubAck {
    error: Option<ApiError>,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
}

/// JetStream's "no".
#[derive(Debug, Deserialize)]
pub(crate) struct ApiError {
    #[serde(default)]
    pub(crate) code: u16,
    #[serde(default)]
    pub(crate) err_code: u64,
    #[serde(default)]
    pub(crate) description: String,
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The fate is known.
    Fate(Outcome),
    /// Nobody listens on the subject: no stream has it, or its leader is being elected. The stream's own information
    /// tells which.
    NoResponders,
}

/// Reads the answer to one record.
pub(crate) fn read(message: &Message) -> Answer {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Answer::NoResponders;
    }
    let fate = match serde_json::from_slice::<PubAck>(&message.payload) {
        Ok(PubAck { error: Some(error), .. }) => classify(&error),
        Ok(PubAck { error: None, seq: sequence @ 1.., duplicate, .. }) => {
            Outcome::Confirmed(Receipt::attest(Position::Stream { sequence, duplicate }))
        }
        // No sequence: whoever answered, it was not a stream that stored the record.
        Ok(_) | Err(_) => retry("no_sequence", "the answer carries no stream sequence".to_owned()),
    };
    Answer::Fate(fate)
}

/// What it means for a record.
pub(crate) fn classify(error: &ApiError) -> Outcome {
    let detail = format!("{} (JetStream error {})", error.description, error.err_code);
    match ErrorCode(error.err_code) {
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
            Outcome::Rejected(Rejection { reason: RejectReason::TooLarge, detail })
        }
        // One code for every failure to store. A limit of the stream is the operator's, an I/O error passes or shows
        // elsewhere.
        ErrorCode::STREAM_STORE_FAILED if error.description.contains("exceeded") => full(detail),
        ErrorCode::STREAM_STORE_FAILED => retry("store_failed", detail),
        ErrorCode::STREAM_MAX_STREAM_BYTES_EXCEEDED
        | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
        | ErrorCode::STORAGE_RESOURCES_EXCEEDED
        | ErrorCode::MEMORY_RESOURCES_EXCEEDED
        | ErrorCode::INSUFFICIENT_RESOURCES => full(detail),
        ErrorCode::STREAM_NOT_MATCH => refused(
            "other_stream",
            Refusal::Missing,
            format!("the subject belongs to another stream: {detail}"),
        ),
        ErrorCode::STREAM_NOT_FOUND
        | ErrorCode::JETSTREAM_NOT_ENABLED
        | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => refused("no_stream", Refusal::Missing, detail),
        ErrorCode::STREAM_SEALED => refused("sealed", Refusal::NotPermitted, detail),
        _ if error.code == 400 => Outcome::Rejected(Rejection { reason: RejectReason::Refused, detail }),
        _ => retry("server_error", detail),
    }
}

/// Offer it again; nobody has to do anything.
pub(crate) fn retry(reason: &'static str, detail: String) -> Outcome {
    Outcome::Retry(Retry { reason, detail, after: SOON, refusal: None })
}

/// Somebody has to mend it.
pub(crate) fn refused(reason: &'static str, refusal: Refusal, detail: String) -> Outcome {
    Outcome::Retry(Retry { reason, detail, after: LATER, refusal: Some(refusal) })
}

fn full(detail: String) -> Outcome {
    refused("full", Refusal::Full, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &str, status: Option<StatusCode>) -> Message {
        Message {
            subject: "_INBOX.x".into(),
            reply: None,
            payload: payload.to_owned().into(),
            headers: None,
            status,
            description: None,
            length: 0,
        }
    }

    fn error(code: u16, err_code: u64, description: &str) -> Answer {
        let json = format!(
            r#"{{"error":{{"code":{code},"err_code":{err_code},"description":"{description}"}},"stream":"VIA","seq":0}}"#
        );
        read(&message(&json, None))
    }

    fn refusal(answer: &Answer) -> Option<Refusal> {
        match answer {
            Answer::Fate(Outcome::Retry(retry)) => retry.refusal,
            other => panic!("not a retry: {other:?}"),
        }
    }

    #[test]
    fn only_a_sequence_confirms() {
        let confirmed = |duplicate| {
            Answer::Fate(Outcome::Confirmed(Receipt::attest(Position::Stream { sequence: 7, duplicate })))
        };
        assert_eq!(read(&message(r#"{"stream":"VIA","seq":7}"#, None)), confirmed(false));
        assert_eq!(read(&message(r#"{"stream":"VIA","seq":7,"duplicate":true}"#, None)), confirmed(true));
        for nothing in ["", "+OK", "{}", r#"{"stream":"VIA","seq":0}"#, r#"{"stream":"VIA"}"#] {
            assert_eq!(refusal(&read(&message(nothing, None))), None, "{nothing}");
        }
        assert_eq!(read(&message("", Some(StatusCode::NO_RESPONDERS))), Answer::NoResponders);
    }

    #[test]
    fn errors_carry_the_decision() {
        assert!(matches!(
            error(400, 10054, "message size exceeds maximum allowed"),
            Answer::Fate(Outcome::Rejected(Rejection { reason: RejectReason::TooLarge, .. }))
        ));
        assert!(matches!(
            error(400, 10165, "invalid per-message TTL"),
            Answer::Fate(Outcome::Rejected(Rejection { reason: RejectReason::Refused, .. }))
        ));
        assert_eq!(refusal(&error(503, 10077, "maximum messages exceeded")), Some(Refusal::Full));
        assert_eq!(refusal(&error(503, 10077, "write: input/output error")), None);
        assert_eq!(
            refusal(&error(400, 10047, "insufficient storage resources available")),
            Some(Refusal::Full)
        );
        assert_eq!(refusal(&error(400, 10060, "expected stream does not match")), Some(Refusal::Missing));
        assert_eq!(
            refusal(&error(400, 10109, "invalid operation on sealed stream")),
            Some(Refusal::NotPermitted)
        );
        assert_eq!(refusal(&error(503, 10008, "JetStream system temporarily unavailable")), None);
        assert_eq!(refusal(&error(409, 10158, "duplicate message id is in process")), None);
    }
}
