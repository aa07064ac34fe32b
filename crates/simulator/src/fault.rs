//! What can go wrong, and when: the fault plan.

use std::time::Duration;

use crate::settings::named;

/// One operation of the vendor's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// POST /tokenservice/oauth2/access_token
    Token,
    /// POST …/session
    SessionCreate,
    /// DELETE …/session
    SessionDelete,
    /// GET …/events
    Events,
    /// POST …/acknowledge
    Acknowledge,
    /// POST …/subscriptions
    SubscriptionCreate,
    /// GET …/subscriptions
    SubscriptionList,
    /// GET …/subscriptions/{id}
    SubscriptionGet,
    /// PUT …/subscriptions/{id}
    SubscriptionUpdate,
    /// DELETE …/subscriptions/{id}
    SubscriptionDelete,
}

named!(Operation {
    Token = "token",
    SessionCreate = "session_create",
    SessionDelete = "session_delete",
    Events = "events",
    Acknowledge = "acknowledge",
    SubscriptionCreate = "subscription_create",
    SubscriptionList = "subscription_list",
    SubscriptionGet = "subscription_get",
    SubscriptionUpdate = "subscription_update",
    SubscriptionDelete = "subscription_delete",
});

impl Operation {
    /// Whether a successful answer has a JSON body.
    pub(crate) fn answers_json(self) -> bool {
        !matches!(self, Self::SessionDelete | Self::SubscriptionDelete)
    }

    /// Whether the request names a session.
    pub(crate) fn names_session(self) -> bool {
        !matches!(self, Self::Token | Self::SessionCreate)
    }
}

/// The rules of a simulation, in order. For each request the first rule that strikes decides; no request suffers twice.
///
/// Its text form, for the command line and for `/_simulator/faults`:
///
/// ```text
/// plan      := rule { separator rule }                 separators: blanks, line ends, ';'
/// rule      := operation ':' fault ':' when
/// operation := token | session_create | session_delete | events | acknowledge
///            | subscription_create | _list | _get | _update | _delete | *
/// fault     := name { '+' parameter '=' value }        or name '=' value for the one parameter of a fault
/// name      := 400..599 | 5xx                          each also with '-after': the operation takes effect
///            | reset-before | reset-after | cut | slow | token-expiry | session-expiry | html | invalid-json
///            | malformed | unknown-fields | unknown-type | huge | unicode | control-characters
///            | duplicate-id | repeat | any
/// parameter := retry-after=SECONDS | retry-after-date=SECONDS   (a status)
///              slow=DURATION, huge=BYTES, malformed=no-type|type-number|no-id|id-number|not-an-object|null|
///              no-payload|payload-object|payload-text
/// when      := 0.05 | 5% | always | @3,7 (those calls) | @every=10
/// ```
/// For example `events:503:0.05 acknowledge:429+retry-after=2:2% events:reset-after:@3,7 *:any:5%`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FaultPlan {
    /// The rules.
    pub rules: Vec<FaultRule>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultRule {
    /// The operation it is about; `None`: each one that the fault makes sense for.
    pub operation: Option<Operation>,
    /// What goes wrong.
    pub fault: Fault,
    /// When it does.
    pub when: When,
}

impl FaultRule {
    /// Whether the rule is about this operation.
    pub fn concerns(&self, operation: Operation) -> bool {
        self.operation.is_none_or(|named| named == operation) && self.fault.fits(operation)
    }
}

/// When a rule strikes. Calls are those that the rule concerns and that no rule before it took, counted from 1.
#[derive(Debug, Clone, PartialEq)]
pub enum When {
    /// With this probability, 0 to 1, from the simulation's seed.
    Probability(f64),
    /// At exactly these calls.
    Calls(Vec<u64>),
    /// At every n-th call.
    Every(u64),
}

/// Something that goes wrong with one request.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// An error status; after applying means that the operation took effect all the same.
    Status {
        /// Which status.
        status: ErrorStatus,
        /// Whether the operation takes effect.
        after: bool,
        /// The Retry-After header.
        retry_after: Option<RetryAfter>,
    },
    /// The TCP connection is reset instead of an answer.
    Reset {
        /// Whether the operation takes effect.
        after: bool,
    },
    /// The answer stops in the middle of its body, short of its Content-Length, and the connection closes. A body of less
    /// than two bytes is cut after the head.
    Cut,
    /// The body trickles for this long.
    Slow(Duration),
    /// The access token that the request carries is no longer valid.
    TokenExpiry,
    /// The session that the request names is no longer valid.
    SessionExpiry,
    /// 200 with an HTML page, as a gateway in the way would answer; the operation takes effect.
    Html,
    /// The right status and content type, but a body that is not JSON; the operation takes effect.
    InvalidJson,
    /// One event of the answer is not what the document describes; the others are.
    Malformed(Malformed),
    /// One event has fields that the document does not know.
    UnknownFields,
    /// One event is of a type that the document does not list.
    UnknownType,
    /// The payload of one event has about this many bytes.
    Huge(usize),
    /// One payload is full of characters outside ASCII, escaped and not.
    Unicode,
    /// One payload holds (escaped) control characters, NUL included.
    ControlCharacters,
    /// Two different events have the same id.
    DuplicateId,
    /// One event stands in the answer twice, exactly.
    Repeat,
    /// Any of the others that fits the operation, except `huge`.
    Any,
}

/// The status of a [`Fault::Status`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorStatus {
    /// This one, 400 to 599.
    Exactly(u16),
    /// 500, 502, 503 or 504.
    AnyServerError,
}

/// A Retry-After header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// `Retry-After: 2`
    Seconds(u64),
    /// `Retry-After: Wed, 21 Oct 2015 07:28:00 GMT`, this many seconds from now, rounded up to a whole second.
    Date(u64),
}

/// How a malformed event is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Without `eventType`.
    NoType,
    /// `eventType` is a number.
    TypeNumber,
    /// Without `eventId`: it can never be acknowledged. It is given out three times and then forgotten.
    NoId,
    /// `eventId` is a number: as [`Malformed::NoId`].
    IdNumber,
    /// The entry is a string: as [`Malformed::NoId`].
    NotAnObject,
    /// The entry is `null`: as [`Malformed::NoId`].
    Null,
    /// `payload` is missing.
    NoPayload,
    /// `payload` is an object instead of a string.
    PayloadObject,
    /// `payload` is a string, but not of JSON.
    PayloadText,
}

named!(Malformed {
    NoType = "no-type",
    TypeNumber = "type-number",
    NoId = "no-id",
    IdNumber = "id-number",
    NotAnObject = "not-an-object",
    Null = "null",
    NoPayload = "no-payload",
    PayloadObject = "payload-object",
    PayloadText = "payload-text",
});

impl Fault {
    /// Whether the fault makes sense for the operation.
    pub fn fits(&self, operation: Operation) -> bool {
        match self {
            Self::Status { .. } | Self::Reset { .. } | Self::Any => true,
            Self::Cut | Self::Slow(_) | Self::Html | Self::InvalidJson => operation.answers_json(),
            Self::TokenExpiry => operation != Operation::Token,
            Self::SessionExpiry => operation.names_session(),
            Self::Malformed(_)
            | Self::UnknownFields
            | Self::UnknownType
            | Self::Huge(_)
            | Self::Unicode
            | Self::ControlCharacters
            | Self::DuplicateId
            | Self::Repeat => operation == Operation::Events,
        }
    }

    /// What [`Fault::Any`] chooses from.
    pub(crate) fn candidates() -> Vec<Self> {
        let status = |status, after, retry_after| Self::Status { status, after, retry_after };
        vec![
            status(ErrorStatus::AnyServerError, false, None),
            status(ErrorStatus::AnyServerError, true, None),
            status(ErrorStatus::Exactly(429), false, None),
            status(ErrorStatus::Exactly(429), false, Some(RetryAfter::Seconds(1))),
            status(ErrorStatus::Exactly(429), false, Some(RetryAfter::Date(1))),
            status(ErrorStatus::Exactly(401), false, None),
            Self::Reset { after: false },
            Self::Reset { after: true },
            Self::Cut,
            Self::Slow(Duration::from_millis(200)),
            Self::TokenExpiry,
            Self::SessionExpiry,
            Self::Html,
            Self::InvalidJson,
            Self::Malformed(Malformed::NoType),
            Self::UnknownFields,
            Self::UnknownType,
            Self::Unicode,
            Self::ControlCharacters,
            Self::DuplicateId,
            Self::Repeat,
        ]
    }
}
