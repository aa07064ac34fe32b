//! What the bridge tells about itself: counters that metrics, `/status` and the demo share, and timings.
//!
//! - [`tally`]: the counters, one source of truth
//! - [`exposition`]: the counters as OpenMetrics text
//! - [`observer`]: from the poller's observations to the counters

mod exposition;
mod observer;
mod tally;

use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::watch;
use viaduct_poller::SourceStatus;

pub(crate) use self::observer::SourceObserver;
pub(crate) use self::tally::{CategoryCounts, Counts, Tally};
use crate::routing::Reason;
use crate::sinks::SinkHandle;

/// Counters, timings and states of one running bridge.
pub(crate) struct Telemetry {
    pub(crate) tally: Arc<Tally>,
    publish_duration: Family<SinkLabel, Histogram, fn() -> Histogram>,
    latency: Family<LatencyLabels, Histogram, fn() -> Histogram>,
    request_duration: Family<RequestLabels, Histogram, fn() -> Histogram>,
    registry: Mutex<Registry>,
    sources: RwLock<Vec<(Arc<str>, watch::Receiver<SourceStatus>)>>,
    sinks: RwLock<Vec<Arc<SinkHandle>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SinkLabel {
    sink: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LatencyLabels {
    source: String,
    sink: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    source: String,
    operation: &'static str,
}

impl Telemetry {
    /// All zero.
    pub(crate) fn new() -> Arc<Self> {
        let publish_duration = Family::new_with_constructor(fast_histogram as fn() -> Histogram);
        let latency = Family::new_with_constructor(latency_histogram as fn() -> Histogram);
        let request_duration = Family::new_with_constructor(request_histogram as fn() -> Histogram);
        let mut registry = Registry::default();
        let seconds = Unit::Seconds;
        registry.register_with_unit(
            "viaduct_publish_duration",
            "From handing a batch to a sink until the fate of all its records is known",
            seconds.clone(),
            publish_duration.clone(),
        );
        registry.register_with_unit(
            "viaduct_end_to_end_latency",
            "From publishedTime of an event until a sink has confirmed it durable",
            seconds.clone(),
            latency.clone(),
        );
        registry.register_with_unit(
            "viaduct_source_request_duration",
            "Duration of requests to the vendor",
            seconds,
            request_duration.clone(),
        );
        Arc::new(Self {
            tally: Arc::new(Tally::default()),
            publish_duration,
            latency,
            request_duration,
            registry: Mutex::new(registry),
            sources: RwLock::default(),
            sinks: RwLock::default(),
        })
    }

    /// Adds a source's state, for metrics and `/status`.
    pub(crate) fn add_source(&self, name: Arc<str>, status: watch::Receiver<SourceStatus>) {
        self.sources.write().expect("not poisoned").push((name, status));
    }

    /// Adds a sink's state.
    pub(crate) fn add_sink(&self, sink: Arc<SinkHandle>) {
        self.sinks.write().expect("not poisoned").push(sink);
    }

    /// The sources with their current state.
    pub(crate) fn sources(&self) -> Vec<(Arc<str>, SourceStatus)> {
        let sources = self.sources.read().expect("not poisoned");
        sources.iter().map(|(name, status)| (name.clone(), status.borrow().clone())).collect()
    }

    /// The sinks.
    pub(crate) fn sinks(&self) -> Vec<Arc<SinkHandle>> {
        self.sinks.read().expect("not poisoned").clone()
    }

    /// A `publish` of a sink took this long.
    pub(crate) fn publish_took(&self, sink: &Arc<str>, took: Duration) {
        self.publish_duration
            .get_or_create(&SinkLabel { sink: sink.to_string() })
            .observe(took.as_secs_f64());
    }

    /// Counts the confirmed records of one batch.
    pub(crate) fn published<'t>(&'t self, source: &'t Arc<str>, sink: &'t Arc<str>) -> Published<'t> {
        let latency = LatencyLabels { source: source.to_string(), sink: sink.to_string() };
        let now_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1000.0);
        Published {
            tally: &self.tally,
            source,
            sink,
            counts: Vec::with_capacity(4),
            latency: self.latency.get_or_create_owned(&latency),
            now_ms,
        }
    }

    /// A dead letter is durable.
    pub(crate) fn dead_lettered(&self, source: &Arc<str>, reason: Reason) {
        self.tally.dead_lettered(source, reason.as_str());
    }

    /// An event is not as the vendor's document has it; all but the source are names of the document.
    pub(crate) fn schema_drift(
        &self,
        source: &Arc<str>,
        event_type: &'static str,
        field: &'static str,
        problem: &'static str,
    ) {
        self.tally.schema_drift(source, event_type, field, problem);
    }

    /// A sink could not take a record now.
    pub(crate) fn sink_retry(&self, sink: &Arc<str>, reason: &'static str) {
        self.tally.sink_retry(sink, reason);
    }

    /// A best-effort sink did not get an event.
    pub(crate) fn best_effort_dropped(&self, source: &Arc<str>, sink: &Arc<str>) {
        self.tally.best_effort_dropped(source, sink);
    }

    fn request_took(&self, source: &str, operation: &'static str, took: Duration) {
        let labels = RequestLabels { source: source.to_owned(), operation };
        self.request_duration.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

/// Counts confirmed records by category, and adds them up when dropped.
pub(crate) struct Published<'t> {
    tally: &'t Tally,
    source: &'t Arc<str>,
    sink: &'t Arc<str>,
    counts: Vec<(Arc<str>, u64)>,
    latency: Histogram,
    now_ms: f64,
}

impl Published<'_> {
    /// One more. `published_ms` is the event's `publishedTime`.
    pub(crate) fn count(&mut self, category: &Arc<str>, published_ms: Option<i64>) {
        match self.counts.iter_mut().find(|(known, _)| known == category) {
            Some((_, count)) => *count += 1,
            None => self.counts.push((category.clone(), 1)),
        }
        if let Some(published_ms) = published_ms {
            // Clocks differ: an event from the future was not published in negative time.
            self.latency.observe((self.now_ms - published_ms as f64).max(0.0) / 1000.0);
        }
    }
}

impl Drop for Published<'_> {
    fn drop(&mut self) {
        for (category, count) in &self.counts {
            self.tally.published(self.source, self.sink, category, *count);
        }
    }
}

/// 0.25 ms to 8 s.
fn fast_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 16))
}

/// 1 ms to about 9 hours: an outage belongs into it, too.
fn latency_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 26))
}

/// 1 ms to 32 s: a long poll takes 15.
fn request_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}
