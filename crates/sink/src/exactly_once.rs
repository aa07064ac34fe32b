//! What a sink with `delivery = "exactly_once"` does beyond publishing.

use std::num::NonZeroU32;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64;

use crate::checkpoint::Owner;
use crate::outcome::Fatal;

/// Who publishes, and for which sources. A sink that is given one delivers exactly once.
#[derive(Debug, Clone)]
pub struct Identity {
    /// `bridge.name`.
    pub bridge: String,
    /// The sink's configured name.
    pub sink: String,
    /// This process.
    pub owner: Owner,
    /// The sources that may publish.
    pub sources: Vec<Member>,
}

/// A source of an exactly-once sink.
#[derive(Debug, Clone)]
pub struct Member {
    /// The configured name.
    pub source: Arc<str>,
    /// How many events its checkpoint and its pages remember at most: more than can be unacknowledged at the vendor at a
    /// time. A process leaves up to `max_in_flight` when it dies, and a busy vendor may deliver new events first for long.
    pub remember: usize,
}

impl Identity {
    /// The key of a source's checkpoint: `<bridge>.<sink>.<source>`. The names have no dots, so no two keys are equal.
    pub fn checkpoint_key(&self, source: &str) -> String {
        format!("{}.{}.{source}", self.bridge, self.sink)
    }
}

/// The shard of a source: a stable hash (XXH3, 64 bits) of its name, over the number of shards.
pub fn shard_of(source: &str, shards: NonZeroU32) -> u32 {
    let shard = xxh3_64(source.as_bytes()) % u64::from(shards.get());
    u32::try_from(shard).expect("less than the number of shards")
}

/// A sink's memory of what it holds, kept in the destination with the data.
///
/// Contract, beyond that of [`crate::Sink`]:
///
/// - A record whose `message_id` the checkpoint names is answered with [`crate::Outcome::Confirmed`] (position
///   [`crate::outcome::Position::Held`]) and not published again.
/// - Records and the checkpoint that names them become readable in one step, or not at all.
/// - `publish` for a source that is not claimed claims it first.
/// - After anything whose end is not known the checkpoint is read before anything is published again. Another owner in it:
///   [`Fatal::Fenced`] for every record, now and ever after, and nothing is published.
#[async_trait]
pub trait Checkpoints: Send + Sync {
    /// Makes this process the owner of the source: fences other instances, reads the checkpoint to its end, writes the
    /// claim. Waits while the destination is away. Returns the same again when it is called again.
    ///
    /// # Errors
    /// The sink can never publish: the checkpoint is not readable, or another instance took over meanwhile.
    async fn claim(&self, source: &str) -> Result<Claim, Fatal>;

    /// The vendor has confirmed the acknowledgement of the event ([`crate::Record::event`]): its records need not be
    /// remembered any more. Returns at once; takes effect with the next checkpoint.
    fn acknowledged(&self, source: &str, event: &str);

    /// The source goes on with another session. Returns at once; it is written soon, with records or without.
    fn session(&self, source: &str, session: Option<Box<RawValue>>);
}

/// What a claim found.
#[derive(Debug, Clone, Default)]
pub struct Claim {
    /// The session that the owner before went on with, as it described it.
    pub session: Option<Box<RawValue>>,
    /// How many events it had published that it did not know to be acknowledged.
    pub remembered: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shard_of_a_source_never_changes() {
        let shards = |count| NonZeroU32::new(count).unwrap();
        assert_eq!(shard_of("main", shards(1)), 0);
        // Written down: a deployment's checkpoints and transactional ids depend on it.
        let found: Vec<u32> = ["main", "emea", "apac", "a", ""].map(|name| shard_of(name, shards(8))).into();
        assert_eq!(found, FOUND);
    }

    const FOUND: [u32; 5] = [5, 2, 6, 7, 2];
}
