//! The counters. Metrics, `/status` and the demo read the same ones, so they cannot disagree.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// Everything that is counted, by its labels.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Counts>);

/// The labels of what was published.
type SourceSinkCategory = (Arc<str>, Arc<str>, Arc<str>);

/// The numbers at one moment.
#[derive(Debug, Default, Clone)]
pub(crate) struct Counts {
    /// By source and category.
    pub(crate) categories: BTreeMap<(Arc<str>, Arc<str>), CategoryCounts>,
    /// By source, sink and category.
    pub(crate) published: BTreeMap<SourceSinkCategory, u64>,
    /// By source and reason.
    pub(crate) dead_lettered: BTreeMap<(Arc<str>, &'static str), u64>,
    /// By source and sink: events that a best-effort sink did not get.
    pub(crate) best_effort_dropped: BTreeMap<(Arc<str>, Arc<str>), u64>,
    /// By source, documented event type, documented field and problem.
    pub(crate) schema_drift: BTreeMap<(Arc<str>, &'static str, &'static str, &'static str), u64>,
    /// By sink and reason.
    pub(crate) sink_retries: BTreeMap<(Arc<str>, &'static str), u64>,
    /// By source, operation and status.
    pub(crate) requests: BTreeMap<(Arc<str>, &'static str, Option<u16>), u64>,
    /// By source.
    pub(crate) acknowledge_not_found: BTreeMap<Arc<str>, u64>,
    /// By source.
    pub(crate) token_refreshes: BTreeMap<Arc<str>, u64>,
    /// By source and cause.
    pub(crate) sessions_created: BTreeMap<(Arc<str>, &'static str), u64>,
}

/// What happened to the events of one category.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CategoryCounts {
    /// First deliveries.
    pub(crate) received: u64,
    /// Deliveries of something known.
    pub(crate) redelivered: u64,
    /// Durable in every required sink or in the dead letters, so that they may be acknowledged.
    pub(crate) durable: u64,
    /// Acknowledged to the vendor (v2: gone from the spool).
    pub(crate) acknowledged: u64,
}

impl Tally {
    /// Reads or changes the numbers. Never held across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().expect("no panic while the counters are held")
    }

    /// A copy of all numbers.
    pub(crate) fn snapshot(&self) -> Counts {
        self.lock().clone()
    }

    pub(super) fn published(&self, source: &Arc<str>, sink: &Arc<str>, category: &Arc<str>, count: u64) {
        *self.lock().published.entry((source.clone(), sink.clone(), category.clone())).or_default() += count;
    }

    pub(super) fn durable(&self, source: &Arc<str>, category: Arc<str>, count: u64) {
        self.lock().categories.entry((source.clone(), category)).or_default().durable += count;
    }

    pub(super) fn dead_lettered(&self, source: &Arc<str>, reason: &'static str) {
        *self.lock().dead_lettered.entry((source.clone(), reason)).or_default() += 1;
    }

    pub(super) fn sink_retry(&self, sink: &Arc<str>, reason: &'static str) {
        *self.lock().sink_retries.entry((sink.clone(), reason)).or_default() += 1;
    }

    pub(super) fn schema_drift(
        &self,
        source: &Arc<str>,
        event_type: &'static str,
        field: &'static str,
        problem: &'static str,
    ) {
        *self.lock().schema_drift.entry((source.clone(), event_type, field, problem)).or_default() += 1;
    }

    pub(super) fn best_effort_dropped(&self, source: &Arc<str>, sink: &Arc<str>) {
        *self.lock().best_effort_dropped.entry((source.clone(), sink.clone())).or_default() += 1;
    }
}
