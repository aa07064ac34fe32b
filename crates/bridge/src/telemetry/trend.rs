//! The last minute: events per second of each category, and how long events took from `publishedTime` to a sink.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::Counts;

/// A tick's length.
pub(crate) const TICK: Duration = Duration::from_secs(1);
/// How many ticks are remembered.
pub(crate) const TICKS: usize = 60;
/// A histogram covers so many ticks; so many histograms are the last minute.
const TICKS_PER_HISTOGRAM: usize = 10;
const HISTOGRAMS: usize = TICKS / TICKS_PER_HISTOGRAM;
/// Two digits: 1 % of a latency is more than anybody reads off a page.
const DIGITS: u8 = 2;

/// What changes with time. Moved on by [`Trend::tick`].
#[derive(Debug, Default)]
pub(crate) struct Trend(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    ticks: usize,
    /// By source and category.
    rates: BTreeMap<(Arc<str>, Arc<str>), Rate>,
    /// By source; the newest first, in milliseconds.
    latencies: HashMap<Arc<str>, VecDeque<Histogram<u32>>>,
}

#[derive(Debug, Default)]
struct Rate {
    received: u64,
    ticks: VecDeque<u32>,
}

/// Quantiles of the last minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Latency {
    /// Half of the events were faster.
    pub(crate) p50: Duration,
    /// One of a hundred was slower.
    pub(crate) p99: Duration,
}

impl Trend {
    /// A second is over, and this is what was counted until now.
    pub(crate) fn tick(&self, counts: &Counts) {
        let mut inner = self.lock();
        inner.ticks += 1;
        for (key, count) in &counts.categories {
            let rate = inner.rates.entry(key.clone()).or_default();
            let fresh = count.received.saturating_sub(rate.received);
            rate.received = count.received;
            if rate.ticks.len() == TICKS {
                rate.ticks.pop_front();
            }
            rate.ticks.push_back(u32::try_from(fresh).unwrap_or(u32::MAX));
        }
        if inner.ticks.is_multiple_of(TICKS_PER_HISTOGRAM) {
            for histograms in inner.latencies.values_mut() {
                histograms.truncate(HISTOGRAMS - 1);
                histograms.push_front(histogram());
            }
        }
    }

    /// Events of `source` took this long, in milliseconds.
    pub(super) fn took(&self, source: &Arc<str>, milliseconds: &[u64]) {
        if milliseconds.is_empty() {
            return;
        }
        let mut inner = self.lock();
        let histograms = inner.latencies.entry(source.clone()).or_default();
        if histograms.is_empty() {
            histograms.push_front(histogram());
        }
        if let Some(current) = histograms.front_mut() {
            for &value in milliseconds {
                current.saturating_record(value);
            }
        }
    }

    /// Events per second, oldest second first; at most [`TICKS`].
    pub(crate) fn rate(&self, source: &Arc<str>, category: &Arc<str>) -> Vec<u32> {
        let inner = self.lock();
        let rate = inner.rates.get(&(source.clone(), category.clone()));
        rate.map_or_else(Vec::new, |rate| rate.ticks.iter().copied().collect())
    }

    /// How long the events of the last minute took; `None` where there was none.
    pub(crate) fn latency(&self, source: &str) -> Option<Latency> {
        let inner = self.lock();
        let mut all = histogram();
        for one in inner.latencies.get(source)? {
            // Both resize themselves, so nothing is too large to be added.
            let _ = all.add(one);
        }
        let quantile = |quantile| Duration::from_millis(all.value_at_quantile(quantile));
        (!all.is_empty()).then(|| Latency { p50: quantile(0.5), p99: quantile(0.99) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no panic while held")
    }
}

fn histogram() -> Histogram<u32> {
    Histogram::new(DIGITS).expect("this many digits are allowed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::CategoryCounts;

    #[test]
    fn rates_are_what_came_in_each_second_of_the_last_minute() {
        let (trend, mut counts) = (Trend::default(), Counts::default());
        let key: (Arc<str>, Arc<str>) = ("main".into(), "chat".into());
        for second in 0..70_u64 {
            let received = second * (second + 1) / 2;
            counts.categories.insert(key.clone(), CategoryCounts { received, ..CategoryCounts::default() });
            trend.tick(&counts);
        }
        let rates = trend.rate(&key.0, &key.1);
        assert_eq!(rates, (10..70).collect::<Vec<u32>>());
        assert!(trend.rate(&key.0, &"outreach".into()).is_empty());
    }

    #[test]
    fn latencies_are_those_of_the_last_minute() {
        let trend = Trend::default();
        let source: Arc<str> = "main".into();
        assert_eq!(trend.latency("main"), None);
        trend.took(&source, &(1..=100).collect::<Vec<u64>>());
        let latency = trend.latency("main").unwrap();
        assert_eq!(latency.p50, Duration::from_millis(50));
        assert!(latency.p99 >= Duration::from_millis(99) && latency.p99 <= Duration::from_millis(100));
        for _ in 0..TICKS {
            trend.tick(&Counts::default());
        }
        assert_eq!(trend.latency("main"), None, "a minute later they are forgotten");
    }
}
