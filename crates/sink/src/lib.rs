//! What a destination is to Viaduct.
//!
//! **The guarantee lives in one rule:** a [`Sink`] answers [`Outcome::Confirmed`] for a record only after
//! the destination holds it durably (Kafka: the acks=all delivery report; JetStream: a PubAck with `seq > 0`;
//! file: fsync). The [`Receipt`] inside is the only evidence that the bridge accepts before it lets an event
//! be acknowledged to the vendor.
//!
//! ```text
//!            records of one source, in order            one outcome per record, same order
//! pipeline ───────────────────────────────▶ Sink::publish ───────────────────────────────▶ settle
//!                                             Confirmed(Receipt)   durable, may count for the acknowledgement
//!                                             Retry(..)            not durable, or not known: offer it again, in order
//!                                             Rejected(..)         never as it stands: dead letter
//!                                             Fatal(..)            this instance must stop publishing
//! ```
//!
//! - [`record`]: [`Record`], its headers and the CloudEvents attributes
//! - [`outcome`]: [`Outcome`], [`Receipt`], [`Rejection`], [`Retry`]
//! - [`exactly_once`]: what a sink with `delivery = "exactly_once"` does beyond publishing
//! - [`checkpoint`], [`progress`]: its memory of what it holds, as it is stored, and the rules of its changes
//! - [`archive`]: records read back, and marks beside them
//! - [`health`]: whether the destination is reachable, and since when not
//! - [`durability`]: destinations that are less durable than the guarantee assumes
//! - [`conformance`]: the checks that every sink has to pass

pub mod archive;
pub mod checkpoint;
pub mod conformance;
pub mod durability;
pub mod exactly_once;
pub mod health;
mod memory;
pub mod outcome;
pub mod progress;
pub mod record;

use async_trait::async_trait;

pub use archive::{Archive, ArchiveError, Kept, Mark, Marks, Names, Numbers, Place, Reading};
pub use checkpoint::{Checkpoint, Owner, Remembered, Unreadable};
pub use durability::Weakness;
pub use exactly_once::{Checkpoints, Claim, Identity, Member, shard_of};
pub use health::{Health, HealthReporter, HealthWatch};
pub use outcome::{Fatal, Outcome, Receipt, Refusal, RejectReason, Rejection, Retry};
pub use progress::{Held, Progress, Proposal, Usurped};
pub use record::{Attribute, Header, HeaderName, Record};

/// Records of one source for one sink, in the order in which they must stand in the destination.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// The configured name of the source: the unit of order, and of the checkpoint beside the data.
    pub source: &'a str,
    /// The records, in order; never empty.
    pub records: &'a [Record],
}

/// The most records of a batch, where the sink has no reason for another number.
pub const BATCH_LIMIT: usize = 1000;

/// A destination system: Kafka, JetStream, files, stdout.
///
/// Contract, checked for every implementation by [`conformance`]:
///
/// - `publish` returns exactly one [`Outcome`] per record, at the same index.
/// - Records of one batch with the same destination and key keep their order, and the order over successive
///   batches of one source too, whatever is retried inside. A record whose outcome is [`Outcome::Retry`] leaves no
///   later record of the same destination and key confirmed behind it, so that offering the retried ones again, in
///   order, restores the order.
/// - The caller has at most one `publish` per source under way; calls of different sources run concurrently.
/// - `publish` waits while the destination is away (backpressure, no time-out of its own): an outage is not an
///   outcome. [`Sink::health`] tells about it meanwhile. Dropping the future abandons the batch; its records may or
///   may not have been published.
/// - A rejected record never holds back the records behind it.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Publishes a batch and waits until the fate of every record is known.
    async fn publish(&self, batch: Batch<'_>) -> Vec<Outcome>;

    /// The most records that a batch should have. Where a batch is a transaction, more of them share its price.
    fn batch_limit(&self) -> usize {
        BATCH_LIMIT
    }

    /// The current state of the destination, and its changes.
    fn health(&self) -> HealthWatch;

    /// The sink's memory of what it holds, where it keeps one with the data: `delivery = "exactly_once"`.
    fn checkpoints(&self) -> Option<&dyn Checkpoints> {
        None
    }

    /// Where the destinations that it has met so far are less durable than the guarantee assumes.
    fn weaknesses(&self) -> Vec<Weakness> {
        Vec::new()
    }

    /// Meets those of `destinations` that exist, before anything is published to them, and tells their weaknesses. Waits
    /// while the destination system is away.
    async fn assess(&self, _destinations: &[String]) -> Vec<Weakness> {
        Vec::new()
    }

    /// Flushes and closes; no `publish` may follow. Idempotent.
    async fn close(&self);
}
