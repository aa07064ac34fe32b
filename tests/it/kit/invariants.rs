//! The invariants, checked on what independent readers found and on the simulator's journal.

use std::collections::{BTreeMap, HashMap, HashSet};

use viaduct_simulator::{EventReport, Report};

/// The simulator's journal, whole.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    /// The numbers.
    pub(crate) report: Report,
    /// Event by event.
    pub(crate) events: Vec<EventReport>,
    /// Numbers of events in the order of deliveries, repetitions included.
    pub(crate) deliveries: Vec<u32>,
}

/// A record as an independent client read it, in the order of its destination (Kafka: of its partition).
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Topic and partition, subject, or file.
    pub(crate) place: String,
    /// The Kafka key, or `ce-subject`, or nothing.
    pub(crate) key: Option<String>,
    /// `eventId` of the value.
    pub(crate) event_id: String,
}

/// I1: every event that the vendor made and did not lose itself is here. `buried` are ids in the dead letters.
pub(crate) fn nothing_lost(what: &str, journal: &Journal, seen: &[Seen], buried: &HashSet<String>) {
    let ids: HashSet<&str> = seen.iter().map(|seen| seen.event_id.as_str()).collect();
    let missing: Vec<&EventReport> = journal
        .events
        .iter()
        .filter(|event| !matches!(event.state.as_str(), "lost" | "replaced" | "queued"))
        .filter(|event| event.event_id.as_deref().is_some_and(|id| !ids.contains(id) && !buried.contains(id)))
        .collect();
    assert!(
        missing.is_empty(),
        "{what}: {} events are lost, the first: {:?}",
        missing.len(),
        missing.first()
    );
}

/// I3 where nothing crashed: nothing stands here twice.
pub(crate) fn no_duplicates(what: &str, seen: &[Seen]) {
    let repeated = repeated(seen);
    assert!(
        repeated.is_empty(),
        "{what}: {} ids stand here twice, one: {:?}",
        repeated.len(),
        repeated.iter().next()
    );
}

/// The ids that stand here more than once, and how often more.
pub(crate) fn repeated(seen: &[Seen]) -> BTreeMap<&str, usize> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for record in seen {
        *counts.entry(&record.event_id).or_default() += 1;
    }
    counts.retain(|_, count| *count > 1);
    counts
}

/// I4: records of one key stand in the order in which the vendor returned them.
///
/// A running process publishes each event once, in the order in which it first got it; over restarts these orders follow
/// each other. So what stands in one place under one key must be a subsequence of the vendor's deliveries, repetitions
/// included.
pub(crate) fn in_order_per_key(what: &str, journal: &Journal, seen: &[Seen]) {
    let mut of_id: HashMap<&str, Vec<usize>> = HashMap::new();
    for (position, number) in journal.deliveries.iter().enumerate() {
        if let Some(id) = journal.events[*number as usize].event_id.as_deref() {
            of_id.entry(id).or_default().push(position);
        }
    }
    let mut last: HashMap<(&str, &str), (usize, &str)> = HashMap::new();
    for record in seen {
        let Some(key) = &record.key else { continue };
        let (after, before) =
            last.get(&(record.place.as_str(), key.as_str())).copied().unwrap_or((0, "the beginning"));
        let positions = of_id.get(record.event_id.as_str());
        let found = positions.and_then(|positions| positions.iter().find(|position| **position >= after));
        let Some(found) = found else {
            panic!(
                "{what}: in {} under key {key}, {} stands behind {before}, but the vendor returned it at {positions:?} \
                 only, before {after}",
                record.place, record.event_id
            );
        };
        last.insert((&record.place, key), (found + 1, &record.event_id));
    }
}

/// I5 and the rest of what a client must not do.
pub(crate) fn well_behaved(report: &Report) {
    assert!(
        report.misbehaviour.is_empty(),
        "the client misbehaved: {:?}, first cases: {:?}",
        report.misbehaviour,
        &report.misbehaviour_cases[..report.misbehaviour_cases.len().min(5)]
    );
}
