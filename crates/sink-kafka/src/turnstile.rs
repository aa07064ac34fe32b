//! Bulks of several sources for one topic go in groups, one group after the other.
//!
//! A partition has one request of a producer under way at a time, so records that are handed over meanwhile wait in librdkafka,
//! and its thread spins until they can go ([`crate::producer`]): four saturated sources cost a third of their CPU time that way.
//! Here they wait without any. A topic lets as many groups be under way as it has partitions.
//!
//! A group is what came while the one before it was under way, as far as it fits into one request: small bulks share one
//! instead of taking a round trip each.
//!
//! This orders nothing and guarantees nothing. So nobody waits for long behind a topic that takes nothing at the moment: it must
//! not hold up sources that share another one with the source that waits for it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// The longest wait for a topic of which no group has ended meanwhile.
const PATIENCE: Duration = Duration::from_millis(100);

/// What a bulk brings to a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// How many partitions the topic has.
    pub(crate) partitions: usize,
    /// How many of the bulk's records are for it.
    pub(crate) records: usize,
}

/// Lets bulks pass in the order in which they come.
#[derive(Debug)]
pub(crate) struct Turnstile {
    /// Most records of a group with more than one bulk.
    most: usize,
    topics: Mutex<HashMap<Arc<str>, Arc<Topic>>>,
}

/// The right to go, until it is dropped. Empty where somebody has waited for long enough.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Turn(#[expect(dead_code, reason = "held")] Vec<Arc<Group>>);

#[derive(Debug)]
struct Topic {
    partitions: usize,
    most: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug)]
struct Queue {
    /// Groups under way.
    under_way: usize,
    waiting: VecDeque<Waiting>,
    /// When a group ended last.
    moved: Instant,
}

#[derive(Debug)]
struct Waiting {
    records: usize,
    go: oneshot::Sender<Arc<Group>>,
}

/// Under way until the last of its bulks has dropped it.
#[derive(Debug)]
struct Group {
    topic: Arc<Topic>,
}

impl Drop for Group {
    fn drop(&mut self) {
        self.topic.ended();
    }
}

impl Turnstile {
    /// With groups of `most` records.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, topics: Mutex::default() }
    }

    /// Waits until it is the bulk's turn for all `topics`. All callers take the topics in the same order, so no two wait for each
    /// other.
    pub(crate) async fn pass(&self, topics: &BTreeMap<&str, Share>) -> Turn {
        let mut held = Vec::with_capacity(topics.len());
        for (name, share) in topics {
            let topic = self.topic(name, share.partitions);
            match topic.enter(share.records).await {
                Some(group) => held.push(group),
                None => return Turn::default(),
            }
        }
        Turn(held)
    }

    fn topic(&self, name: &str, partitions: usize) -> Arc<Topic> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        match topics.get(name) {
            Some(known) if known.partitions == partitions => known.clone(),
            _ => {
                let queue = Queue { under_way: 0, waiting: VecDeque::new(), moved: Instant::now() };
                let topic = Arc::new(Topic { partitions, most: self.most, queue: Mutex::new(queue) });
                topics.insert(name.into(), topic.clone());
                topic
            }
        }
    }
}

impl Topic {
    /// A place in a group; `None` where nothing has moved for too long.
    async fn enter(self: &Arc<Self>, records: usize) -> Option<Arc<Group>> {
        let mut gone = {
            let mut queue = self.queue();
            if queue.under_way < self.partitions {
                queue.under_way += 1;
                return Some(Arc::new(Group { topic: self.clone() }));
            }
            let (go, gone) = oneshot::channel();
            queue.waiting.push_back(Waiting { records, go });
            gone
        };
        let mut moved = Instant::now();
        loop {
            if let Ok(group) = timeout_at(moved + PATIENCE, &mut gone).await {
                return group.ok();
            }
            let last = self.queue().moved;
            if last <= moved {
                return None;
            }
            moved = last;
        }
    }

    /// A group has ended: those who wait go, as many as fit.
    fn ended(self: &Arc<Self>) {
        let mut members = Vec::new();
        {
            let mut queue = self.queue();
            queue.moved = Instant::now();
            let mut records = 0;
            // The first one always goes, so that nobody is passed over for long.
            let waiting = std::mem::take(&mut queue.waiting);
            for next in waiting.into_iter().filter(|next| !next.go.is_closed()) {
                if records == 0 || records + next.records <= self.most {
                    records += next.records;
                    members.push(next.go);
                } else {
                    queue.waiting.push_back(next);
                }
            }
            if members.is_empty() {
                queue.under_way -= 1;
                return;
            }
        }
        // Whoever is gone meanwhile drops it, and where all are, the next ones go.
        let group = Arc::new(Group { topic: self.clone() });
        for go in members {
            let _ = go.send(group.clone());
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const MOST: usize = 600;

    fn one(topic: &str, records: usize) -> BTreeMap<&str, Share> {
        BTreeMap::from([(topic, Share { partitions: 1, records })])
    }

    /// What it comes to without a wait.
    async fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
        timeout(Duration::ZERO, future).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_bulk_waits_for_the_one_before_it() {
        let turnstile = Turnstile::new(MOST);
        let topics = one("a", MOST);
        let first = turnstile.pass(&topics).await;
        let mut second = Box::pin(turnstile.pass(&topics));
        assert!(at_once(&mut second).await.is_none());
        drop(first);
        let began = Instant::now();
        let _second = second.await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn small_bulks_that_wait_go_together_as_far_as_they_fit() {
        let turnstile = Turnstile::new(MOST);
        let topics = one("a", 200);
        let first = turnstile.pass(&topics).await;
        let mut others: Vec<_> = (0..4).map(|_| Box::pin(turnstile.pass(&topics))).collect();
        for other in &mut others {
            assert!(at_once(other).await.is_none());
        }
        drop(first);
        let mut fourth = others.pop().expect("there are four");
        let mut group = Vec::new();
        for other in others {
            group.push(at_once(other).await.expect("three fit"));
        }
        assert!(at_once(&mut fourth).await.is_none());
        group.truncate(1);
        assert!(at_once(&mut fourth).await.is_none(), "one of the group is still under way");
        group.clear();
        assert!(at_once(&mut fourth).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_fit_is_passed_over_once() {
        let turnstile = Turnstile::new(MOST);
        let [few, many] = [200, 500].map(|records| one("a", records));
        let first = turnstile.pass(&few).await;
        let mut small = Box::pin(turnstile.pass(&few));
        let mut large = Box::pin(turnstile.pass(&many));
        let mut late = Box::pin(turnstile.pass(&few));
        for waiting in [&mut small, &mut large, &mut late] {
            assert!(at_once(waiting).await.is_none());
        }
        drop(first);
        let group = [at_once(small).await, at_once(late).await];
        assert!(group.iter().all(Option::is_some));
        assert!(at_once(&mut large).await.is_none());
        drop(group);
        assert!(at_once(large).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_pass_as_there_are_partitions_and_topics_do_not_concern_each_other() {
        let turnstile = Turnstile::new(MOST);
        let topics = BTreeMap::from([("a", Share { partitions: 2, records: 200 })]);
        let _first = turnstile.pass(&topics).await;
        let _second = at_once(turnstile.pass(&topics)).await.expect("there are two partitions");
        assert!(at_once(turnstile.pass(&topics)).await.is_none());
        assert!(at_once(turnstile.pass(&one("b", 200))).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_long_behind_what_does_not_move() {
        let turnstile = Turnstile::new(MOST);
        let both = BTreeMap::from(["a", "b"].map(|topic| (topic, Share { partitions: 1, records: 200 })));
        let _stuck = turnstile.pass(&both).await;
        let began = Instant::now();
        let _turn = turnstile.pass(&one("b", 200)).await;
        assert_eq!(began.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn as_long_as_others_get_their_turn_one_waits() {
        let turnstile = Turnstile::new(MOST);
        let topics = one("a", MOST);
        let mut under_way = turnstile.pass(&topics).await;
        let mut next = Box::pin(turnstile.pass(&topics));
        assert!(at_once(&mut next).await.is_none());
        let mut last = Box::pin(turnstile.pass(&topics));
        for _ in 0..5 {
            assert!(timeout(PATIENCE * 2 / 3, &mut last).await.is_err());
            drop(under_way);
            under_way = next.await;
            next = last;
            last = Box::pin(turnstile.pass(&topics));
        }
        let _ = under_way;
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_holds_nothing_and_is_not_waited_for() {
        let turnstile = Turnstile::new(MOST);
        let both = BTreeMap::from(["a", "b"].map(|topic| (topic, Share { partitions: 1, records: 200 })));
        let stuck = turnstile.pass(&one("b", 200)).await;
        let _gone = turnstile.pass(&both).await;
        assert!(at_once(turnstile.pass(&one("a", 200))).await.is_some());
        drop(stuck);
        assert!(at_once(turnstile.pass(&one("b", 200))).await.is_some());
    }
}
