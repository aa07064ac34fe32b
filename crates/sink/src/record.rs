//! A record: what a route makes of an event for one sink.

use std::sync::Arc;

use bytes::Bytes;

/// One message for one destination. Cheap to clone: everything large is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Kafka topic, NATS subject, file name without directory and suffix; already free of characters which the
    /// destination does not allow.
    pub destination: Arc<str>,
    /// The key that decides order and, on Kafka, the partition. `None`: no key.
    pub key: Option<Arc<str>>,
    /// Headers in the order in which they are written.
    pub headers: Vec<Header>,
    /// The value; never absent, because a null value is a tombstone on a compacted topic.
    pub value: Bytes,
    /// `publishedTime` in milliseconds since the Unix epoch; becomes the Kafka timestamp. `None` where the event has no
    /// readable time: the producer's clock then.
    pub timestamp_ms: Option<i64>,
    /// Names this record for the destination's own duplicate detection (`Nats-Msg-Id`):
    /// `<org>.<eventId>.<first 16 hex of the content hash>`.
    pub message_id: Arc<str>,
    /// Names the event that the record tells of: the same in every sink, and for its dead letters. Equal to `message_id`
    /// save for dead letters.
    pub event: Arc<str>,
}

/// A header of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The name, before the destination's way of spelling it.
    pub name: HeaderName,
    /// The value.
    pub value: Arc<str>,
}

/// A header's name. Kafka and NATS spell the CloudEvents attributes differently, so a sink does the spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderName {
    /// A CloudEvents attribute: `ce_<name>` on Kafka, `ce-<name>` on NATS.
    CloudEvent(Attribute),
    /// The media type of the value: `content-type` on both.
    ContentType,
    /// Anything else, spelled as it stands.
    Literal(Arc<str>),
}

/// The CloudEvents 1.0 attributes and extensions that Viaduct writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    /// `specversion`
    SpecVersion,
    /// `id`
    Id,
    /// `source`
    Source,
    /// `type`
    Type,
    /// `subject`
    Subject,
    /// `time`
    Time,
    /// extension `correlationid`
    CorrelationId,
    /// extension `schemaversion`
    SchemaVersion,
}

impl HeaderName {
    /// The name with the prefix that the protocol binding asks for: `ce_` (Kafka) or `ce-` (NATS).
    pub fn spelled(&self, style: HeaderStyle) -> &str {
        match (self, style) {
            (Self::CloudEvent(attribute), HeaderStyle::Kafka) => attribute.kafka(),
            (Self::CloudEvent(attribute), HeaderStyle::Nats) => attribute.nats(),
            (Self::ContentType, _) => "content-type",
            (Self::Literal(name), _) => name,
        }
    }
}

/// Whose spelling of the CloudEvents attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderStyle {
    /// CloudEvents Kafka protocol binding 3.2.3: `ce_`.
    Kafka,
    /// CloudEvents NATS protocol binding: `ce-`.
    Nats,
}

impl Attribute {
    /// The attribute's own name, as the CloudEvents JSON format writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SpecVersion => "specversion",
            Self::Id => "id",
            Self::Source => "source",
            Self::Type => "type",
            Self::Subject => "subject",
            Self::Time => "time",
            Self::CorrelationId => "correlationid",
            Self::SchemaVersion => "schemaversion",
        }
    }

    const fn kafka(self) -> &'static str {
        match self {
            Self::SpecVersion => "ce_specversion",
            Self::Id => "ce_id",
            Self::Source => "ce_source",
            Self::Type => "ce_type",
            Self::Subject => "ce_subject",
            Self::Time => "ce_time",
            Self::CorrelationId => "ce_correlationid",
            Self::SchemaVersion => "ce_schemaversion",
        }
    }

    /// The name of its header by the CloudEvents NATS protocol binding: `ce-` and the attribute's own.
    pub const fn nats(self) -> &'static str {
        match self {
            Self::SpecVersion => "ce-specversion",
            Self::Id => "ce-id",
            Self::Source => "ce-source",
            Self::Type => "ce-type",
            Self::Subject => "ce-subject",
            Self::Time => "ce-time",
            Self::CorrelationId => "ce-correlationid",
            Self::SchemaVersion => "ce-schemaversion",
        }
    }
}
