//! What a lane still has to publish, in order, and what has to wait for a retry. Pure: the clock is an argument.
//!
//! A record that has to be retried parks its destination: records of the same destination stay behind it, in order,
//! while those of other destinations flow. So one missing topic holds back itself alone.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use viaduct_faults::{Mistake, makes};
use viaduct_sink::{Record, RejectReason, Rejection, Retry};

use super::settle::Creditor;
use crate::config::RefusedAfter;
use crate::routing::Reason;
use crate::telemetry::BatchTrace;

/// A record on its way through a lane.
#[derive(Debug)]
pub(crate) struct Item {
    /// The event's number within its source.
    pub(crate) sequence: u64,
    /// The event's category, for counting.
    pub(crate) category: Arc<str>,
    /// Whose receipt the confirmation of this record is.
    pub(crate) creditor: Creditor,
    /// Set where this record is a dead letter.
    pub(crate) dead_letter: Option<Reason>,
    /// The batch that it came in, where that is traced.
    pub(crate) trace: Option<Arc<BatchTrace>>,
    /// What to publish.
    pub(crate) record: Record,
}

/// The records of one source for one sink.
#[derive(Debug)]
pub(crate) struct Backlog {
    items: VecDeque<Item>,
    parked: HashMap<Arc<str>, Parked>,
    refused_after: RefusedAfter,
}

/// A destination that did not take a record.
#[derive(Debug)]
struct Parked {
    until: Instant,
    tries: u32,
    /// Since when it says no; `None` while it only failed.
    refused_since: Option<Instant>,
}

/// The longest wait before a destination is tried again.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
const FIRST_WAIT: Duration = Duration::from_millis(50);

impl Backlog {
    /// An empty one, for a sink with this patience.
    pub(crate) fn new(refused_after: RefusedAfter) -> Self {
        Self { items: VecDeque::new(), parked: HashMap::new(), refused_after }
    }

    /// Those that wait. New ones go behind all others.
    pub(super) fn items(&mut self) -> &mut VecDeque<Item> {
        &mut self.items
    }

    /// How many records wait.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Takes up to `limit` records that may be published now, in order.
    pub(crate) fn take_batch(&mut self, now: Instant, limit: usize) -> Vec<Item> {
        if self.parked.is_empty() {
            if self.items.len() <= limit {
                return std::mem::take(&mut self.items).into();
            }
            return self.items.drain(..limit).collect();
        }
        let mut batch = Vec::new();
        let mut rest = VecDeque::with_capacity(self.items.len());
        for item in self.items.drain(..) {
            let waits = self.parked.get(&item.record.destination).is_some_and(|parked| parked.until > now);
            if waits || batch.len() == limit {
                rest.push_back(item);
            } else {
                batch.push(item);
            }
        }
        self.items = rest;
        batch
    }

    /// Puts records back in front, in the order in which they were taken, and parks their destinations.
    ///
    /// `jitter` in 0..1 spreads the retries of many lanes. Returns the records whose destination has said no for
    /// longer than the configuration allows: those are dead letters now.
    pub(crate) fn put_back(
        &mut self,
        retried: Vec<(Item, Retry)>,
        now: Instant,
        jitter: f64,
    ) -> Vec<(Item, Rejection)> {
        let mut given_up = Vec::new();
        let mut parked_now: Vec<Arc<str>> = Vec::new();
        let mut front = Vec::with_capacity(retried.len());
        for (item, retry) in retried {
            let destination = &item.record.destination;
            let parked = self.parked.entry(destination.clone()).or_insert(Parked {
                until: now,
                tries: 0,
                refused_since: None,
            });
            if retry.refusal.is_some() {
                let since = *parked.refused_since.get_or_insert(now);
                if let RefusedAfter::After(patience) = self.refused_after
                    && now.duration_since(since) >= patience
                {
                    given_up.push((item, Rejection { reason: RejectReason::Refused, detail: retry.detail }));
                    continue;
                }
            } else {
                parked.refused_since = None;
            }
            if !parked_now.contains(destination) {
                parked_now.push(destination.clone());
                let wait = FIRST_WAIT.saturating_mul(1 << parked.tries.min(10)).min(LONGEST_WAIT);
                parked.until = now + wait.mul_f64(0.5 + jitter / 2.0).max(retry.after);
                parked.tries += 1;
            }
            front.push(item);
        }
        if makes(Mistake::ReorderOnRetry) {
            front.reverse();
        }
        for item in front.into_iter().rev() {
            self.items.push_front(item);
        }
        given_up
    }

    /// The destination took a record: it is no longer parked. Returns whether it was.
    pub(crate) fn succeeded(&mut self, destination: &Arc<str>) -> bool {
        !self.parked.is_empty() && self.parked.remove(destination).is_some()
    }

    /// When the next parked destination may be tried; `None` if nothing that waits is parked.
    pub(crate) fn next_try(&self) -> Option<Instant> {
        self.items
            .iter()
            .filter_map(|item| self.parked.get(&item.record.destination))
            .map(|parked| parked.until)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use viaduct_sink::Refusal;

    use super::*;

    fn item(sequence: u64, destination: &str) -> Item {
        Item {
            sequence,
            category: "c".into(),
            creditor: Creditor::DeadLetters,
            dead_letter: None,
            trace: None,
            record: Record {
                destination: destination.into(),
                key: None,
                headers: Vec::new(),
                value: bytes::Bytes::new(),
                timestamp_ms: None,
                message_id: "id".into(),
                event: "id".into(),
            },
        }
    }

    fn retry(refusal: Option<Refusal>) -> Retry {
        Retry { reason: "test", detail: "no".into(), after: Duration::from_millis(1), refusal }
    }

    fn sequences(items: &[Item]) -> Vec<u64> {
        items.iter().map(|item| item.sequence).collect()
    }

    #[test]
    fn a_parked_destination_holds_back_itself_alone_and_keeps_its_order() {
        let now = Instant::now();
        let mut backlog = Backlog::new(RefusedAfter::Never);
        for (sequence, destination) in [(1, "a"), (2, "b"), (3, "a"), (4, "b")] {
            backlog.items().push_back(item(sequence, destination));
        }
        let batch = backlog.take_batch(now, 3);
        assert_eq!(sequences(&batch), [1, 2, 3]);
        let retried =
            batch.into_iter().filter(|item| &*item.record.destination == "a").map(|item| (item, retry(None)));
        assert!(backlog.put_back(retried.collect(), now, 0.0).is_empty());
        backlog.items().push_back(item(5, "a"));
        assert_eq!(sequences(&backlog.take_batch(now, 10)), [4]);
        let due = backlog.next_try().unwrap();
        assert!(due > now);
        assert_eq!(sequences(&backlog.take_batch(due, 10)), [1, 3, 5]);
        assert!(backlog.succeeded(&"a".into()));
        assert_eq!(backlog.next_try(), None);
    }

    #[test]
    fn a_refusal_becomes_a_rejection_when_patience_ends_and_only_then() {
        let now = Instant::now();
        let mut backlog = Backlog::new(RefusedAfter::After(Duration::from_secs(60)));
        backlog.items().push_back(item(1, "a"));
        let mut at = now;
        loop {
            let batch = backlog.take_batch(at, 10);
            let retried = batch.into_iter().map(|item| (item, retry(Some(Refusal::Missing)))).collect();
            let given_up = backlog.put_back(retried, at, 0.5);
            if let [(item, rejection)] = given_up.as_slice() {
                assert_eq!((item.sequence, rejection.reason), (1, RejectReason::Refused));
                break;
            }
            assert!(at.duration_since(now) < Duration::from_secs(60));
            at = backlog.next_try().unwrap();
        }
        assert!(at.duration_since(now) >= Duration::from_secs(60));
        assert!(at.duration_since(now) < Duration::from_secs(66));
    }

    #[test]
    fn an_outage_between_refusals_starts_patience_anew() {
        let now = Instant::now();
        let mut backlog = Backlog::new(RefusedAfter::After(Duration::from_secs(10)));
        let steps = [(0, true), (9, false), (11, true), (20, true)];
        backlog.items().push_back(item(1, "a"));
        for (seconds, refused) in steps {
            let at = now + Duration::from_secs(seconds);
            let batch = backlog.take_batch(at, 10);
            let refusal = refused.then_some(Refusal::NotPermitted);
            let retried = batch.into_iter().map(|item| (item, retry(refusal))).collect();
            assert!(backlog.put_back(retried, at, 0.0).is_empty(), "at {seconds} s");
        }
        let at = now + Duration::from_secs(31);
        let batch = backlog.take_batch(at, 10);
        let retried = batch.into_iter().map(|item| (item, retry(Some(Refusal::NotPermitted)))).collect();
        assert_eq!(backlog.put_back(retried, at, 0.0).len(), 1);
    }
}
