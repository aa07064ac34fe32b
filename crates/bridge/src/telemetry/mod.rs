//! What the bridge tells about itself: counters that metrics, `/status` and the demo share, and timings.
//!
//! - [`tally`]: the counters, one source of truth
//! - [`exposition`]: the counters as OpenMetrics text
//! - [`feed`]: the last events, for people who look on
//! - [`traces`]: spans for OpenTelemetry
//! - [`trend`]: the last minute in numbers
//! - [`observer`]: from the poller's observations to the counters

mod exposition;
mod feed;
mod observer;
mod tally;
mod traces;
mod trend;

use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::watch;
use viaduct_poller::SourceStatus;

pub(crate) use self::feed::{Feed, Note, REMEMBERED, RecordNote, now_text};
pub(crate) use self::observer::SourceObserver;
pub(crate) use self::tally::{CategoryCounts, Counts, Tally};
pub(crate) use self::traces::{BatchTrace, Traces};
pub(crate) use self::trend::Trend;
use crate::config::Config;
use crate::danger;
use crate::exit::Failure;
use crate::routing::Reason;
use crate::shown::ShownSinks;
use crate::sinks::SinkHandle;

/// Counters, timings and states of one running bridge.
pub(crate) struct Telemetry {
    /// `bridge.name`.
    pub(crate) bridge: Arc<str>,
    pub(crate) started: Instant,
    pub(crate) tally: Arc<Tally>,
    pub(crate) feed: Feed,
    pub(crate) trend: Trend,
    /// `None`: off.
    pub(crate) traces: Option<Traces>,
    /// What is not verified, see [`danger`].
    pub(crate) dangers: Vec<String>,
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
    /// All zero, for the bridge of this name, of which nobody looks at the records; without traces.
    pub(crate) fn new(bridge: &str) -> Arc<Self> {
        Self::from_parts(bridge, Feed::default(), None, Vec::new())
    }

    /// All zero, for the bridge of this configuration.
    ///
    /// # Errors
    /// Those of [`Traces::start`].
    pub(crate) fn of(config: &Config) -> Result<Arc<Self>, Failure> {
        let feed = Feed::new(ShownSinks::of(config));
        Ok(Self::from_parts(&config.bridge.name, feed, Traces::start(config)?, danger::of(config)))
    }

    fn from_parts(bridge: &str, feed: Feed, traces: Option<Traces>, dangers: Vec<String>) -> Arc<Self> {
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
            bridge: bridge.into(),
            started: Instant::now(),
            feed,
            trend: Trend::default(),
            traces,
            dangers,
            tally: Arc::new(Tally::default()),
            publish_duration,
            latency,
            request_duration,
            registry: Mutex::new(registry),
            sources: RwLock::default(),
            sinks: RwLock::default(),
        })
    }

    /// Repeats in the log what is not verified, for ever.
    pub(crate) async fn remind_of_dangers(self: Arc<Self>) {
        danger::remind(self.dangers.clone()).await;
    }

    /// Moves the last minute on, for ever.
    pub(crate) async fn keep_time(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(trend::TICK);
        loop {
            ticks.tick().await;
            self.trend.tick(&self.tally.snapshot());
        }
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
            trend: &self.trend,
            source,
            sink,
            counts: Vec::with_capacity(4),
            milliseconds: Vec::new(),
            latency: self.latency.get_or_create_owned(&latency),
            now_ms,
        }
    }

    /// Counts the events of one batch that are durable in every required sink, or as a dead letter.
    pub(crate) fn durable(self: &Arc<Self>, source: &Arc<str>) -> Durable {
        Durable { telemetry: self.clone(), source: source.clone(), counts: Vec::new() }
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

/// Counts the events of one batch that are durable wherever they have to be, and adds them up when dropped.
#[derive(Debug)]
pub(crate) struct Durable {
    telemetry: Arc<Telemetry>,
    source: Arc<str>,
    counts: Vec<(Arc<str>, u64)>,
}

impl Durable {
    /// One more.
    pub(crate) fn count(&mut self, category: Arc<str>) {
        match self.counts.iter_mut().find(|(known, _)| *known == category) {
            Some((_, count)) => *count += 1,
            None => self.counts.push((category, 1)),
        }
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        for (category, count) in self.counts.drain(..) {
            self.telemetry.tally.durable(&self.source, category, count);
        }
    }
}

/// Counts confirmed records by category, and adds them up when dropped.
pub(crate) struct Published<'t> {
    tally: &'t Tally,
    trend: &'t Trend,
    source: &'t Arc<str>,
    sink: &'t Arc<str>,
    milliseconds: Vec<u64>,
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
            let took_ms = (self.now_ms - published_ms as f64).max(0.0);
            self.latency.observe(took_ms / 1000.0);
            self.milliseconds.push(took_ms as u64);
        }
    }
}

impl Drop for Published<'_> {
    fn drop(&mut self) {
        for (category, count) in &self.counts {
            self.tally.published(self.source, self.sink, category, *count);
        }
        self.trend.took(self.source, &self.milliseconds);
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
