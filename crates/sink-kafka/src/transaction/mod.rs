//! Exactly once: records and the checkpoints that name them become readable in one transaction.
//!
//! ```text
//!            publish (source a) ─┐  each hands over its own records,          ┌─ coordinator of the shard
//!            publish (source b) ─┼─▶ and a checkpoint of its source ─▶ Round ─┤  begins, commits, aborts,
//!            publish (source a) ─┘                                            └─ fences, reads, recovers
//! ```
//!
//! **Guarantee.** A record is in a committed transaction if and only if a checkpoint in that topic names it, for as long as
//! it is not acknowledged. What the checkpoint names is never sent again.
//!
//! **Recovery.** After anything whose end is not known (a commit without an answer, a lost connection, a fatal error) the
//! producers are thrown away. New ones fence what may be left of them, *then* the checkpoints are read to their end, and only
//! then does anybody publish: first looking which of its records stand there.
//!
//! **Fencing.** `transactional.id` is `<bridge>.<sink>.<shard>`, and with `.second` behind it that of the producer that it
//! takes turns with (`shard::Turns`). Whoever initialises them last ends the transactions of those before. That alone is not
//! enough (a zombie that initialises them again would fence its heir), so the checkpoint names its owner: an instance that
//! finds another owner there publishes nothing more, for good.
//!
//! **Two ids.** Two instances that fence at the same time may end up with one id each, and one that published then would
//! publish what the other does not know of. So nobody publishes before it has committed a claim under the id that it fenced
//! *first*, after it has fenced the second: that shows that nobody has fenced the first one in between. Whoever had both
//! before has lost both by then, and its last commit stands in what was read; whoever takes the first one later reads after
//! it has fenced the second one too, and so finds all that was committed here.
//!
//! - `coordinator`: begins and ends the transactions of a shard
//! - `round`: one transaction, shared by those that take part
//! - `publish`: one participant
//! - `fence`: new producers, from fencing to the claim
//! - `checkpoints`: the topic, read to its end
//! - `ledger`: what is known of the sources (no I/O)
//! - `probe`: finds the records that a topic refuses

mod checkpoints;
mod coordinator;
mod fence;
mod ledger;
mod probe;
mod publish;
mod round;
mod shard;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::ClientConfig;
use serde_json::value::RawValue;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use viaduct_sink::{Batch, Checkpoints, Claim, Fatal, Identity, Member, Outcome, shard_of};

use crate::durability::Durability;
use crate::settings::{self, KafkaSettings};
use crate::tokens::Tokens;
use crate::topics::Topics;
use crate::vitals::Vitals;

use shard::Shard;

/// All shards of a sink.
pub(crate) struct Transactions {
    shards: Vec<Arc<Shard>>,
    count: NonZeroU32,
    closing: CancellationToken,
    coordinators: Mutex<Vec<JoinHandle<()>>>,
}

/// What the shards share with the rest of the sink.
pub(crate) struct Parts {
    pub(crate) tokens: Option<Arc<Tokens>>,
    pub(crate) topics: Arc<Topics>,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) durability: Arc<Durability>,
}

impl Transactions {
    /// Starts a coordinator for each shard that has sources. `config` is that of all producers. To be called in a tokio
    /// runtime.
    pub(crate) fn start(
        settings: &KafkaSettings,
        identity: &Identity,
        config: &ClientConfig,
        parts: Parts,
    ) -> Self {
        let Parts { tokens, topics, vitals, durability } = parts;
        let closing = CancellationToken::new();
        let checkpoints = Arc::new(checkpoints::Checkpoints::new(
            settings::admin_config(settings),
            tokens.clone(),
            vitals,
            durability,
            settings.replication_factor,
            closing.clone(),
        ));
        let shards: Vec<Arc<Shard>> = (0..settings.shards.get())
            .map(|number| {
                let of_shard = |member: &&Member| shard_of(&member.source, settings.shards) == number;
                let members = identity.sources.iter().filter(of_shard).cloned();
                Arc::new(Shard::new(
                    number,
                    identity,
                    members,
                    config.clone(),
                    tokens.clone(),
                    Arc::clone(&topics),
                    Arc::clone(&checkpoints),
                    closing.clone(),
                ))
            })
            .collect();
        let busy = shards.iter().filter(|shard| !shard.ledger().names().is_empty());
        let coordinators = busy.map(|shard| tokio::spawn(coordinator::run(Arc::clone(shard)))).collect();
        Self { shards, count: settings.shards, closing, coordinators: Mutex::new(coordinators) }
    }

    fn shard(&self, source: &str) -> &Arc<Shard> {
        &self.shards[shard_of(source, self.count) as usize]
    }

    pub(crate) async fn publish(&self, batch: Batch<'_>) -> Vec<Outcome> {
        self.shard(batch.source).publish(batch.source, batch.records).await
    }

    /// Records handed over whose fate is not known yet.
    pub(crate) fn waiting(&self) -> usize {
        self.shards.iter().map(|shard| shard.waiting()).sum()
    }

    /// Writes what is to be told, and ends within `patience`.
    pub(crate) async fn close(&self, patience: Duration) {
        self.closing.cancel();
        let mut coordinators = self.coordinators.lock().await;
        let deadline = tokio::time::Instant::now() + patience;
        for coordinator in coordinators.iter_mut() {
            if tokio::time::timeout_at(deadline, &mut *coordinator).await.is_err() {
                coordinator.abort();
            }
        }
        coordinators.clear();
        for shard in &self.shards {
            shard.end(Fatal::Broken("the sink is closed".to_owned())).await;
        }
    }
}

impl Drop for Transactions {
    fn drop(&mut self) {
        // The coordinators end by themselves.
        self.closing.cancel();
    }
}

#[async_trait]
impl Checkpoints for Transactions {
    async fn claim(&self, source: &str) -> Result<Claim, Fatal> {
        self.shard(source).claimed(source).await
    }

    fn acknowledged(&self, source: &str, event: &str) {
        self.shard(source).ledger().acknowledged(source, event);
    }

    fn session(&self, source: &str, session: Option<Box<RawValue>>) {
        let shard = self.shard(source);
        shard.ledger().session(source, session);
        shard.wake();
    }
}
