//! What the simulator saw, in a form that can be read by a program: `GET /_simulator/report`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

/// The journal in numbers, and, where asked for, event by event.
///
/// Every event made is in exactly one state: `emitted = queued + unacknowledged + acknowledged + consumed + lost + forgotten`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The organisation.
    pub org: String,
    /// The seed.
    pub seed: u64,
    /// Events made. An event that got a new id counts once.
    pub emitted: u64,
    /// Events that have arisen but are made only when somebody asks; `None`: there is no end to them.
    pub waiting: Option<u64>,
    /// Events made that no session holds: not given out yet, or taken back from a lost session.
    pub queued: u64,
    /// Events given out at least once.
    pub delivered: u64,
    /// Deliveries of events beyond the first of each, those under a new id included.
    pub redelivered: u64,
    /// Events acknowledged.
    pub acknowledged: u64,
    /// Events that a session holds and has not acknowledged.
    pub unacknowledged: u64,
    /// Events given to a session without acknowledgement: gone from the vendor.
    pub consumed: u64,
    /// Events that the vendor lost: unacknowledged when their session ended, with the requeue model `lost`, or given to a
    /// session without acknowledgement in an answer that a fault destroyed.
    pub lost: u64,
    /// Ids that were given up for new ones when their session ended.
    pub replaced: u64,
    /// Events without an id that were given out three times.
    pub forgotten: u64,
    /// Events made malformed.
    pub malformed: u64,
    /// Acknowledgements of ids that had been acknowledged before; answered as not found.
    pub acknowledged_again: u64,
    /// Ids answered as not found, in all.
    pub acknowledge_not_found: u64,
    /// Acknowledge requests held back at the moment.
    pub held_acknowledgements: u64,
    /// By category; what has no `.` in its type is `unknown`.
    pub categories: BTreeMap<String, CategoryReport>,
    /// Requests by operation and status; `reset` is a connection reset by a fault, `gone` a client that went away before
    /// its answer. An answer that a fault cut, or slowed down, counts with its status.
    pub requests: BTreeMap<String, BTreeMap<String, u64>>,
    /// Faults made, by operation and fault.
    pub faults: BTreeMap<String, u64>,
    /// Access tokens given out.
    pub tokens_issued: u64,
    /// Sessions created.
    pub sessions_created: u64,
    /// Sessions that expired: by inactivity, by a fault, or by hand.
    pub sessions_expired: u64,
    /// Sessions deleted by the client.
    pub sessions_deleted: u64,
    /// The sessions, in order of creation.
    pub sessions: Vec<SessionReport>,
    /// What the client did wrong, counted by kind; empty: nothing.
    pub misbehaviour: BTreeMap<String, u64>,
    /// The first 1,000 cases.
    pub misbehaviour_cases: Vec<Misbehaviour>,
    /// Event by event, in order of making, where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<EventReport>>,
}

impl Report {
    /// How often the client did this wrong.
    pub fn misbehaved(&self, kind: MisbehaviourKind) -> u64 {
        self.misbehaviour.get(kind.name()).copied().unwrap_or(0)
    }

    /// How many requests of an operation were answered with a status.
    pub fn answered(&self, operation: &str, status: &str) -> u64 {
        self.requests.get(operation).and_then(|statuses| statuses.get(status)).copied().unwrap_or(0)
    }
}

/// Events of one category.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CategoryReport {
    /// Made. An event that got a new id counts once.
    pub emitted: u64,
    /// Given out at least once.
    pub delivered: u64,
    /// Acknowledged.
    pub acknowledged: u64,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionReport {
    /// Its id.
    pub session_id: String,
    /// 2 or 3.
    pub version: u8,
    /// Whether it acknowledges.
    pub require_acknowledgement: bool,
    /// `live`, `expired` or `deleted`.
    pub state: String,
    /// GET /events received for it.
    pub gets: u64,
    /// The subscriptions it had when its first GET /events came; `None`: none came.
    pub subscriptions_at_first_get: Option<Vec<Value>>,
    /// The subscriptions it has, or had at its end.
    pub subscriptions: Vec<Value>,
}

/// What happened when, in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Counts from 1: the n-th first delivery, or the n-th acknowledgement.
    pub order: u32,
    /// Milliseconds since the simulator started.
    pub ms: u64,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventReport {
    /// Its number in the journal.
    pub number: u64,
    /// Its id; `None`: it shows none.
    pub event_id: Option<String>,
    /// Its type; empty: it shows none.
    pub event_type: String,
    /// What stands before the first `.` of the type; `unknown` where there is none.
    pub category: String,
    /// `userId` of the payload.
    pub user_id: Option<String>,
    /// `interactionId` of the payload, unless it is 0.
    pub interaction_id: Option<u64>,
    /// `sessionId` of the payload.
    pub session_id: Option<String>,
    /// Identity of the content: [`payload_hash`] of the text inside the JSON string `payload`.
    pub payload_hash: String,
    /// Made malformed by a fault.
    pub malformed: bool,
    /// Another event, made before, has the same id.
    pub shares_id: bool,
    /// `queued`, `pending`, `acknowledged`, `consumed`, `lost`, `replaced` or `forgotten`; see the fields of [`Report`].
    pub state: String,
    /// How often it was given out.
    pub deliveries: u64,
    /// When it was first given out.
    pub first_delivery: Option<Moment>,
    /// When it was acknowledged.
    pub acknowledged: Option<Moment>,
    /// Number of the row that goes on with this event under another id.
    pub replaced_by: Option<u64>,
    /// Number of the row in which this event stood under its first id.
    pub replaces: Option<u64>,
    /// The entry of `events[]` in the v3 shape, where [`crate::Settings::keep_entries`] is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
}

/// Identity of a payload: XXH3 (64 bits) of its text, as 16 hexadecimal digits.
pub fn payload_hash(payload: &str) -> String {
    format!("{:016x}", xxh3_64(payload.as_bytes()))
}

/// One thing that the client did wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Misbehaviour {
    /// What.
    pub kind: MisbehaviourKind,
    /// Milliseconds since the simulator started.
    pub ms: u64,
    /// The operation that did it.
    pub operation: String,
    /// Which session, id or client, and by how much.
    pub detail: String,
}

/// What a client must not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MisbehaviourKind {
    /// Two GET /events at once for one session (vendor document, "API Client Implementation Recommendations").
    ConcurrentGets,
    /// A session id used after it was answered with "Invalid or expired session" (same place).
    DeadSessionUsed,
    /// An acknowledgement of an id that was never given out.
    UnknownAcknowledged,
    /// An acknowledgement for a session that was created without `requireAcknowledgement` (section "Acknowledge").
    AcknowledgeNotEnabled,
    /// Any call of a client before the time that a Retry-After told it. A client is a client id, whatever token it uses: sources
    /// that share a simulator need ids of their own.
    RetryBeforeRetryAfter,
    /// V2 and V3 used in combination (section "Migrating from V2 to V3 API").
    VersionsMixed,
}

impl MisbehaviourKind {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::ConcurrentGets => "concurrent_gets",
            Self::DeadSessionUsed => "dead_session_used",
            Self::UnknownAcknowledged => "unknown_acknowledged",
            Self::AcknowledgeNotEnabled => "acknowledge_not_enabled",
            Self::RetryBeforeRetryAfter => "retry_before_retry_after",
            Self::VersionsMixed => "versions_mixed",
        }
    }
}
