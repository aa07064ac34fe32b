//! What became of a record. Errors carry the decision: the place that meets an error classifies it once, and nobody
//! matches strings later.

use std::fmt;
use std::time::Duration;

/// The fate of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "an error is an outcome that somebody must handle"]
pub enum Outcome {
    /// The destination holds the record durably.
    Confirmed(Receipt),
    /// The record is not durable, or nobody knows. Offer it again, in order.
    Retry(Retry),
    /// The destination will never take this record as it stands: a dead letter.
    Rejected(Rejection),
    /// The sink can never publish again in this process.
    Fatal(Fatal),
}

/// Evidence that a destination holds a record durably. Sinks make it, and only after the destination said so; the
/// bridge turns it into the right to acknowledge the event.
///
/// It can be neither copied from nothing nor defaulted: code that holds one has met a sink that confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    position: Position,
}

/// Where the record stands in the destination, as far as the destination says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Kafka: partition and offset from the delivery report.
    Kafka {
        /// The partition.
        partition: i32,
        /// The offset in it.
        offset: i64,
    },
    /// JetStream: the stream sequence of the PubAck, always greater than 0.
    Stream {
        /// The sequence in the stream.
        sequence: u64,
        /// The server knew the message id already and stored nothing (`duplicate: true`).
        duplicate: bool,
    },
    /// The sink's checkpoint names the record: an earlier publish, of this process or another one, has stored it.
    Held,
    /// File: the byte behind the record's line, synced. Stdout: bytes written so far, flushed.
    File {
        /// The offset in bytes.
        end: u64,
    },
}

impl Receipt {
    /// For implementations of [`crate::Sink`] alone: attests that the destination holds the record durably.
    pub fn attest(position: Position) -> Self {
        Self { position }
    }

    /// Where the record stands.
    pub fn position(&self) -> Position {
        self.position
    }
}

/// Why a record has to be offered again, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// A short label for metrics, from a small fixed set (`fatal_producer`, `timeout`, `no_responders` …).
    pub reason: &'static str,
    /// What happened, for a person. Never a secret, never a payload.
    pub detail: String,
    /// How long to wait before the next try; the caller adds jitter.
    pub after: Duration,
    /// Set where the destination answered "no" for a reason that an operator can mend (topic missing, not permitted,
    /// no stream for the subject). After `refused_after` of nothing else the caller makes a dead letter of it.
    pub refusal: Option<Refusal>,
}

/// A mendable "no" of the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The topic or stream does not exist.
    Missing,
    /// The credentials do not permit it.
    NotPermitted,
    /// The destination is full by its own limits.
    Full,
    /// It is less durable than the configuration demands.
    NotDurable,
}

/// Why a record can never be published as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The reason, as it stands in the dead letter's `viaduct-reason`.
    pub reason: RejectReason,
    /// What the destination or its client said. Never a secret, never a payload.
    pub detail: String,
}

/// The reasons of dead letters that a sink gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// Larger than the destination takes.
    TooLarge,
    /// The topic, subject or file name is not one that the destination can have.
    InvalidDestination,
    /// The destination refused the record itself.
    Refused,
}

impl RejectReason {
    /// The word in metrics and in dead letters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::InvalidDestination => "invalid_destination",
            Self::Refused => "refused",
        }
    }
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The sink cannot go on in this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fatal {
    /// Another instance owns this identity now: publish nothing more, exit 75.
    Fenced(String),
    /// Anything else that a new client cannot mend.
    Broken(String),
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fenced(detail) => write!(f, "fenced by another instance: {detail}"),
            Self::Broken(detail) => f.write_str(detail),
        }
    }
}
