//! The suite must be able to fail: sinks with one deliberate fault each, and the check that has to catch it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use super::{Abilities, Harness, Observed};
use crate::outcome::Position;
use crate::record::HeaderStyle;
use crate::{
    Batch, HealthReporter, HealthWatch, Outcome, Receipt, Record, RejectReason, Rejection, Retry, Sink,
};

const LIMIT: usize = 1_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Writes the batch back to front.
    Reorders,
    /// Loses every hundredth record and says it is there.
    Drops,
    /// Confirms first and stores when the next batch comes.
    ConfirmsEarly,
    /// Forgets the last outcome.
    WrongLength,
    /// Writes every hundredth record twice.
    Doubles,
    /// Leaves out headers without a value.
    DropsHeaders,
    /// Takes an empty key for none, and every key for upper case.
    ChangesKeys,
    /// Cuts large values.
    CutsValues,
    /// Rejects the rest of the batch behind a rejected record.
    HoldsBack,
    /// Gives the same reason for everything.
    WrongReason,
    /// Says "retry" for a record and confirms its successor of the same key.
    Overtakes,
    /// Mixes two batches that come at the same time.
    MixesSources,
    /// Answers during an outage.
    DoesNotWait,
    /// Never says that it is down.
    HealthAlwaysUp,
    /// Says down for no reason.
    HealthWithoutReason,
    /// Never says that it is up again.
    HealthStaysDown,
    /// Forgets what it was waiting with when the destination went.
    ForgetsInOutage,
    /// Confirms without storing what is under way when the destination goes.
    LosesUnderWay,
    /// Writes back to front what is under way when the destination goes.
    ReordersUnderWay,
    /// Closing takes away what was stored last.
    CloseLoses,
    /// The second close never ends.
    CloseHangs,
    /// Writes half of a batch's value when it is abandoned.
    TearsAbandoned,
}

struct MemorySink {
    fault: Fault,
    stored: Mutex<HashMap<String, Vec<Observed>>>,
    late: Mutex<Vec<Record>>,
    written: AtomicUsize,
    closes: AtomicUsize,
    away: watch::Sender<bool>,
    health: HealthReporter,
}

impl MemorySink {
    fn store(&self, record: &Record) {
        let number = self.written.fetch_add(1, Ordering::SeqCst);
        if self.fault == Fault::Drops && number % 100 == 99 {
            return;
        }
        let mut observed = Observed {
            key: record.key.as_deref().map(str::to_owned),
            headers: record
                .headers
                .iter()
                .map(|header| (header.name.spelled(HeaderStyle::Kafka).to_owned(), header.value.to_string()))
                .collect(),
            value: record.value.clone(),
        };
        match self.fault {
            Fault::DropsHeaders => observed.headers.retain(|(_, value)| !value.is_empty()),
            Fault::ChangesKeys => observed.key = observed.key.map(|key| key.to_uppercase()),
            Fault::CutsValues => observed.value = observed.value.slice(..observed.value.len().min(65_536)),
            _ => {}
        }
        let mut stored = self.stored.lock().unwrap();
        let destination = stored.entry(record.destination.to_string()).or_default();
        if self.fault == Fault::Doubles && number % 100 == 99 {
            destination.push(observed.clone());
        }
        destination.push(observed);
    }

    fn reject(&self, record: &Record) -> Option<Outcome> {
        let reason = if record.value.len() > LIMIT {
            RejectReason::TooLarge
        } else if record.destination.contains('/') {
            RejectReason::InvalidDestination
        } else {
            return None;
        };
        let reason = if self.fault == Fault::WrongReason { RejectReason::Refused } else { reason };
        Some(Outcome::Rejected(Rejection { reason, detail: "memory says no".to_owned() }))
    }
}

fn retry() -> Outcome {
    let after = std::time::Duration::ZERO;
    Outcome::Retry(Retry { reason: "away", detail: "away".to_owned(), after, refusal: None })
}

#[async_trait]
impl Sink for MemorySink {
    async fn publish(&self, batch: Batch<'_>) -> Vec<Outcome> {
        if *self.away.borrow() {
            if self.fault == Fault::DoesNotWait {
                return batch.records.iter().map(|_| retry()).collect();
            }
            match self.fault {
                Fault::HealthAlwaysUp => {}
                Fault::HealthWithoutReason => self.health.down(""),
                _ => self.health.down("memory is away"),
            }
            self.away.subscribe().wait_for(|away| !away).await.unwrap();
            if self.fault == Fault::ForgetsInOutage {
                self.health.up();
                return batch.records.iter().map(|_| confirmed()).collect();
            }
        }
        if self.fault != Fault::HealthStaysDown || self.health.watch().borrow().reason == "starting" {
            self.health.up();
        }
        for record in self.late.lock().unwrap().drain(..) {
            self.store(&record);
        }
        if self.fault == Fault::TearsAbandoned {
            let mut torn = batch.records[0].clone();
            torn.value = torn.value.slice(..torn.value.len() / 2);
            self.store(&torn);
        }
        tokio::task::yield_now().await;
        let left = *self.away.borrow();
        if left && self.fault == Fault::LosesUnderWay {
            return batch.records.iter().map(|_| confirmed()).collect();
        }
        if self.fault == Fault::ConfirmsEarly {
            self.late.lock().unwrap().extend(batch.records.iter().cloned());
            return batch.records.iter().map(|_| confirmed()).collect();
        }
        let mut outcomes: Vec<Outcome> = Vec::new();
        let mut order: Vec<&Record> = Vec::new();
        for (index, record) in batch.records.iter().enumerate() {
            if self.fault == Fault::MixesSources {
                tokio::task::yield_now().await;
            }
            let held = self.fault == Fault::HoldsBack
                && outcomes.iter().any(|outcome| matches!(outcome, Outcome::Rejected(_)));
            if let Some(rejected) = self.reject(record) {
                outcomes.push(rejected);
            } else if held {
                outcomes.push(Outcome::Rejected(Rejection {
                    reason: RejectReason::TooLarge,
                    detail: "a neighbour is too large".to_owned(),
                }));
            } else if self.fault == Fault::Overtakes && index == 0 && batch.records.len() > 5 {
                outcomes.push(retry());
            } else {
                order.push(record);
                outcomes.push(confirmed());
            }
        }
        match self.fault {
            Fault::Reorders => order.reverse(),
            Fault::ReordersUnderWay if left => order.reverse(),
            Fault::MixesSources if batch.source.starts_with("concurrent") => order.rotate_left(1),
            _ => {}
        }
        order.into_iter().for_each(|record| self.store(record));
        if self.fault == Fault::WrongLength {
            outcomes.pop();
        }
        outcomes
    }

    fn health(&self) -> HealthWatch {
        self.health.watch()
    }

    async fn close(&self) {
        let closes = self.closes.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::CloseLoses => {
                self.stored.lock().unwrap().values_mut().for_each(|stored| drop(stored.pop()));
            }
            Fault::CloseHangs if closes > 0 => std::future::pending().await,
            _ => {}
        }
    }
}

fn confirmed() -> Outcome {
    Outcome::Confirmed(Receipt::attest(Position::File { end: 1 }))
}

struct MemoryHarness(Arc<MemorySink>);

impl MemoryHarness {
    fn new(fault: Fault) -> Self {
        Self(Arc::new(MemorySink {
            fault,
            stored: Mutex::default(),
            late: Mutex::default(),
            written: AtomicUsize::new(0),
            closes: AtomicUsize::new(0),
            away: watch::Sender::new(false),
            health: HealthReporter::new("starting"),
        }))
    }
}

#[async_trait]
impl Harness for MemoryHarness {
    fn sink(&self) -> Arc<dyn Sink> {
        Arc::clone(&self.0) as Arc<dyn Sink>
    }

    fn abilities(&self) -> Abilities {
        Abilities { keys: true, headers: Some(HeaderStyle::Kafka), any_bytes: true, largest_value: LIMIT }
    }

    async fn destination(&self, n: usize) -> Arc<str> {
        Arc::from(format!("memory-{n}"))
    }

    async fn read(&self, destination: &str) -> Vec<Observed> {
        self.0.stored.lock().unwrap().get(destination).cloned().unwrap_or_default()
    }

    async fn break_destination(&self) -> bool {
        self.0.away.send_replace(true);
        true
    }

    async fn heal_destination(&self) {
        self.0.away.send_replace(false);
    }

    fn too_large(&self) -> Option<usize> {
        Some(LIMIT + 1)
    }

    fn invalid_destination(&self) -> Option<Arc<str>> {
        Some(Arc::from("no/such"))
    }
}

/// What the suite says about a sink with this fault.
async fn verdict(fault: Fault) -> Option<String> {
    let run = tokio::spawn(async move { super::run_all(&MemoryHarness::new(fault)).await });
    let failure = run.await.err()?.into_panic();
    let text = failure.downcast_ref::<String>().cloned();
    Some(text.or_else(|| failure.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn a_sink_without_fault_passes() {
    assert_eq!(verdict(Fault::None).await, None);
}

#[tokio::test(start_paused = true)]
async fn every_fault_is_caught_for_what_it_is() {
    for (fault, words) in [
        (Fault::Reorders, "order:"),
        (Fault::Drops, "lost:"),
        (Fault::ConfirmsEarly, "lost:"),
        (Fault::WrongLength, "one outcome per record"),
        (Fault::Doubles, "twice:"),
        (Fault::DropsHeaders, "header empty"),
        (Fault::ChangesKeys, "the key of"),
        (Fault::CutsValues, "lost:"),
        (Fault::HoldsBack, "rejection:"),
        (Fault::WrongReason, "rejection:"),
        (Fault::Overtakes, "order:"),
        (Fault::MixesSources, "order:"),
        (Fault::DoesNotWait, "health: not down"),
        (Fault::HealthAlwaysUp, "health: not down"),
        (Fault::HealthWithoutReason, "down without a reason"),
        (Fault::HealthStaysDown, "health: not up"),
        (Fault::ForgetsInOutage, "lost:"),
        (Fault::LosesUnderWay, "lost: load."),
        (Fault::ReordersUnderWay, "order: load."),
        (Fault::CloseLoses, "lost:"),
        (Fault::CloseHangs, "close: the second close"),
        (Fault::TearsAbandoned, "abandoned:"),
    ] {
        match verdict(fault).await {
            None => panic!("the suite passes a sink that {fault:?}"),
            Some(text) => assert!(text.contains(words), "{fault:?} was caught with: {text}"),
        }
    }
}

#[tokio::test]
async fn an_answer_during_an_outage_is_caught() {
    let harness = MemoryHarness::new(Fault::DoesNotWait);
    let health = Arc::clone(&harness.0);
    let away = harness.0.away.subscribe();
    tokio::spawn(async move {
        let mut away = away;
        away.wait_for(|away| *away).await.unwrap();
        health.health.down("told by somebody else");
    });
    let run = tokio::spawn(async move { super::outage(&harness).await });
    let failure = run.await.expect_err("caught").into_panic();
    let text = failure.downcast_ref::<String>().expect("a sentence");
    assert!(text.contains("ended while the destination was away"), "{text}");
}

#[tokio::test]
async fn values_are_stored_as_given() {
    let harness = MemoryHarness::new(Fault::None);
    let record = super::offer::record(&Arc::from("memory-1"), "self", "s", None, 1);
    super::offer::confirm(&*harness.sink(), "s", std::slice::from_ref(&record)).await;
    let found = harness.read("memory-1").await;
    assert_eq!(found[0].value, Bytes::from_static(br#"{"check":"self","source":"s","key":"-","number":1}"#));
}
