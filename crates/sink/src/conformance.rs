//! The checks that every sink has to pass, run against its real destination.
//!
//! A sink's crate implements [`Harness`] for its destination (a broker, a directory) and calls [`run_all`], or the
//! checks one by one. The suite trusts nothing that the sink says: what counts is what [`Harness::read`], a reader
//! that shares no code with the sink, finds in the destination. A check panics with a sentence that names the broken
//! rule of the contract (see [`crate::Sink`]).
//!
//! | check | rule |
//! | --- | --- |
//! | [`one_outcome_per_record`] | as many outcomes as records, and each belongs to the record at its index |
//! | [`order_per_key`] | order per destination and key, over successive batches; nothing lost, nothing twice |
//! | [`confirmed_is_readable`] | a confirmed record is readable the moment the sink says so |
//! | [`content_unchanged`] | keys, headers, unicode, empty and large values arrive as they are |
//! | [`rejected_record_holds_nobody_back`] | too large, or no possible destination: the neighbours pass, in order |
//! | [`concurrent_sources`] | sources that publish at the same time keep their own order each |
//! | [`dropped_publish`] | abandoning a publish harms neither what was confirmed nor what follows |
//! | [`outage`] | destination away: publish waits, health says why; afterwards all is there, in order, by itself |
//! | [`outage_under_load`] | the same while sources publish without a pause, with one publish abandoned in the outage |
//! | [`close`] | closing twice is closing once; what was confirmed stays |

mod content;
mod exactly_once;
mod lifecycle;
mod offer;
mod order;
mod outage;
mod rejection;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::Sink;
use crate::record::HeaderStyle;

pub use content::{confirmed_is_readable, content_unchanged};
pub use exactly_once::{
    Instances, a_usurped_instance_publishes_nothing, exactly_once, forgets_what_is_acknowledged,
    hands_on_the_session, remembers_much, takes_over_what_is_stored, two_lanes_of_one_source,
};
pub use lifecycle::{close, dropped_publish};
pub use order::{concurrent_sources, one_outcome_per_record, order_per_key};
pub use outage::{outage, outage_under_load};
pub use rejection::rejected_record_holds_nobody_back;

/// A sink together with its real destination.
#[async_trait]
pub trait Harness: Send + Sync {
    /// The sink under test, always the same one.
    fn sink(&self) -> Arc<dyn Sink>;

    /// What the destination can keep.
    fn abilities(&self) -> Abilities;

    /// The `n`-th destination: existing, writable, and for no other test's use. The same name for the same `n`.
    async fn destination(&self, n: usize) -> Arc<str>;

    /// Everything that stands in the destination now, in the order in which it stands there (Kafka: per partition).
    /// Reads with a client or file handle of its own and panics when it cannot.
    async fn read(&self, destination: &str) -> Vec<Observed>;

    /// Takes the destination away (stops the broker, …) and returns when it is gone. `false`: this destination cannot
    /// be taken away, and [`outage`] and [`outage_under_load`] have nothing to check.
    async fn break_destination(&self) -> bool;

    /// Gives the destination back with its data and returns when it answers again.
    async fn heal_destination(&self);

    /// A length of value that the destination, not only the sink's client, refuses as too large. `None`: there is no
    /// limit.
    fn too_large(&self) -> Option<usize>;

    /// A name which the destination can never have. `None`: it can have every name.
    fn invalid_destination(&self) -> Option<Arc<str>>;
}

/// What a destination keeps of a record beside its value.
#[derive(Debug, Clone, Copy)]
pub struct Abilities {
    /// It keeps the key.
    pub keys: bool,
    /// It keeps headers, with the CloudEvents attributes spelled this way.
    pub headers: Option<HeaderStyle>,
    /// It can keep a value of no bytes and one with line breaks in it.
    pub any_bytes: bool,
    /// A length of value in bytes which it surely takes; the suite writes one value of that length.
    pub largest_value: usize,
}

/// A record as an independent reader found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The key, where the destination keeps it.
    pub key: Option<String>,
    /// The headers, with those that the sink adds by itself.
    pub headers: Vec<(String, String)>,
    /// The value.
    pub value: Bytes,
}

/// Runs every check; [`close`] comes last and leaves the sink closed.
///
/// # Panics
///
/// When the sink breaks a rule.
pub async fn run_all(harness: &dyn Harness) {
    one_outcome_per_record(harness).await;
    order_per_key(harness).await;
    confirmed_is_readable(harness).await;
    content_unchanged(harness).await;
    rejected_record_holds_nobody_back(harness).await;
    concurrent_sources(harness).await;
    dropped_publish(harness).await;
    outage(harness).await;
    outage_under_load(harness).await;
    close(harness).await;
}

#[cfg(test)]
mod broken;
#[cfg(test)]
mod broken_exactly_once;
