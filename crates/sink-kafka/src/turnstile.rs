//! Bulks of several sources for one topic go one after the other.
//!
//! A partition has one request of a producer under way at a time, so records that are handed over meanwhile wait in librdkafka,
//! and its thread spins until they can go ([`crate::producer`]): four saturated sources cost a third of their CPU time that way.
//! Here they wait without any. A topic lets as many bulks pass as it has partitions.
//!
//! This orders nothing and guarantees nothing. So nobody waits for long: a topic that takes nothing at the moment must not hold
//! up sources that share another one with the source that waits for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The longest wait.
const PATIENCE: Duration = Duration::from_millis(100);

/// Lets bulks pass in the order in which they come.
#[derive(Debug, Default)]
pub(crate) struct Turnstile {
    topics: Mutex<HashMap<Arc<str>, Topic>>,
}

#[derive(Debug)]
struct Topic {
    partitions: usize,
    turns: Arc<Semaphore>,
}

/// The right to go, until it is dropped. Empty where somebody has waited for long enough.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Turn(#[expect(dead_code, reason = "held")] Vec<OwnedSemaphorePermit>);

impl Turnstile {
    /// Waits until it is the bulk's turn for all `topics`, which are given with their partitions. All callers take the topics in
    /// the same order, so no two wait for each other.
    pub(crate) async fn pass(&self, topics: &BTreeMap<&str, usize>) -> Turn {
        let in_turn = async {
            let mut held = Vec::with_capacity(topics.len());
            for (topic, partitions) in topics {
                // Never closed.
                held.extend(self.turns(topic, *partitions).acquire_owned().await);
            }
            Turn(held)
        };
        timeout(PATIENCE, in_turn).await.unwrap_or_default()
    }

    fn turns(&self, topic: &str, partitions: usize) -> Arc<Semaphore> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        match topics.get(topic) {
            Some(known) if known.partitions == partitions => Arc::clone(&known.turns),
            _ => {
                let turns = Arc::new(Semaphore::new(partitions));
                topics.insert(topic.into(), Topic { partitions, turns: Arc::clone(&turns) });
                turns
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn one(topic: &str) -> BTreeMap<&str, usize> {
        BTreeMap::from([(topic, 1)])
    }

    /// What it comes to without a wait.
    async fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
        timeout(Duration::ZERO, future).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_bulk_waits_for_the_one_before_it() {
        let turnstile = Turnstile::default();
        let topics = one("a");
        let first = turnstile.pass(&topics).await;
        let mut second = Box::pin(turnstile.pass(&topics));
        assert!(at_once(&mut second).await.is_none());
        drop(first);
        let began = Instant::now();
        let _second = second.await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_pass_as_there_are_partitions_and_topics_do_not_concern_each_other() {
        let turnstile = Turnstile::default();
        let topics = BTreeMap::from([("a", 2)]);
        let _first = turnstile.pass(&topics).await;
        let _second = at_once(turnstile.pass(&topics)).await.expect("there are two partitions");
        assert!(at_once(turnstile.pass(&topics)).await.is_none());
        assert!(at_once(turnstile.pass(&one("b"))).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_long() {
        let turnstile = Turnstile::default();
        let _stuck = turnstile.pass(&BTreeMap::from([("a", 1), ("b", 1)])).await;
        let began = Instant::now();
        let _turn = turnstile.pass(&one("b")).await;
        assert_eq!(began.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_holds_nothing() {
        let turnstile = Turnstile::default();
        let (a, both) = (one("a"), BTreeMap::from([("a", 1), ("b", 1)]));
        let stuck = turnstile.pass(&one("b")).await;
        let _gone = turnstile.pass(&both).await;
        assert!(at_once(turnstile.pass(&a)).await.is_some());
        drop(stuck);
    }
}
