//! Crash points and deliberate mistakes, for the tests that show what the bridge survives, and that the tests would see it
//! if it did not.
//!
//! The code of the bridge names its decisive moments ([`crash_point`]) and the places where a well-known mistake could
//! be made ([`makes`]). Without the feature `enabled`, which the test kit alone asks for, both are nothing at all. With it,
//! the variable `VIADUCT_FAULTS` decides, a comma-separated list:
//!
//! ```text
//! VIADUCT_FAULTS=crash:after_get:7            the process dies at once when it comes there for the seventh time
//! VIADUCT_FAULTS=mistake:acknowledge_first    it makes this mistake
//! ```

#[cfg(any(feature = "enabled", test))]
mod plan;

/// Moments at which a process may die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Moment {
    /// A GET has brought events; nothing is done with them yet.
    AfterGet,
    /// A part of a batch is handed to the destination.
    MidPublish,
    /// The destination has taken all records of a batch (Kafka: delivery reports are in, the transaction is open; JetStream:
    /// all but the committing message is sent; file: written, not synced).
    AfterPublish,
    /// The transaction or the batch is committed (file: synced); nobody has been told yet.
    AfterCommit,
    /// An acknowledgement is about to be sent; in a replay of dead letters: a mark is about to be written.
    BeforeAcknowledge,
    /// The vendor has answered an acknowledgement; nobody has been told yet. In a replay: the mark is durable.
    AfterAcknowledge,
}

impl Moment {
    /// All of them, in the order of an event's way.
    pub const ALL: [Self; 6] = [
        Self::AfterGet,
        Self::MidPublish,
        Self::AfterPublish,
        Self::AfterCommit,
        Self::BeforeAcknowledge,
        Self::AfterAcknowledge,
    ];

    /// The word in `VIADUCT_FAULTS`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AfterGet => "after_get",
            Self::MidPublish => "mid_publish",
            Self::AfterPublish => "after_publish",
            Self::AfterCommit => "after_commit",
            Self::BeforeAcknowledge => "before_acknowledge",
            Self::AfterAcknowledge => "after_acknowledge",
        }
    }
}

/// Mistakes that bridges have made, each of which the tests must see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mistake {
    /// Acknowledge before the sink has confirmed.
    AcknowledgeFirst,
    /// Lose one record in 500.
    DropOneIn500,
    /// Put retried records behind those that came later.
    ReorderOnRetry,
    /// Take an event for known because its id is not above the highest one seen.
    HighWatermark,
    /// Create no subscriptions in a new session.
    NoSubscriptions,
    /// Read the checkpoint before other instances are fenced.
    ReadBeforeFencing,
    /// Take what an own checkpoint says for what another instance's says: go on after it took over.
    IgnoreOwner,
    /// Take a commit for failed whose answer is lost, and publish again without reading the checkpoint.
    AssumeNotCommitted,
}

impl Mistake {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::AcknowledgeFirst,
        Self::DropOneIn500,
        Self::ReorderOnRetry,
        Self::HighWatermark,
        Self::NoSubscriptions,
        Self::ReadBeforeFencing,
        Self::IgnoreOwner,
        Self::AssumeNotCommitted,
    ];

    /// The word in `VIADUCT_FAULTS`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AcknowledgeFirst => "acknowledge_first",
            Self::DropOneIn500 => "drop_one_in_500",
            Self::ReorderOnRetry => "reorder_on_retry",
            Self::HighWatermark => "high_watermark",
            Self::NoSubscriptions => "no_subscriptions",
            Self::ReadBeforeFencing => "read_before_fencing",
            Self::IgnoreOwner => "ignore_owner",
            Self::AssumeNotCommitted => "assume_not_committed",
        }
    }
}

/// The process is at this moment; a test may have asked for it to die here, as from SIGKILL.
#[cfg(not(any(feature = "enabled", test)))]
#[inline(always)]
pub fn crash_point(_: Moment) {}

/// Whether a test has asked for this mistake.
#[cfg(not(any(feature = "enabled", test)))]
#[inline(always)]
pub fn makes(_: Mistake) -> bool {
    false
}

/// Whether a test has asked for [`Mistake::HighWatermark`], and an event of a higher id has been here before.
#[cfg(not(any(feature = "enabled", test)))]
#[inline(always)]
pub fn below_high_watermark(_: &str) -> bool {
    false
}

#[cfg(any(feature = "enabled", test))]
pub use plan::{below_high_watermark, crash_point, makes};
