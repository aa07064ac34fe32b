//! The counters as OpenMetrics text.

use std::fmt;
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use viaduct_poller::Cause;
use viaduct_sink::RejectReason;

use super::{Counts, Telemetry};
use crate::routing::Reason;

impl Telemetry {
    /// All metrics, in the OpenMetrics text format.
    pub(crate) fn openmetrics(&self) -> Result<String, fmt::Error> {
        let mut body = String::new();
        let mut now = Registry::default();
        now.register_collector(Box::new(Moment::of(self)));
        text::encode_registry(&mut body, &now)?;
        text::encode_registry(&mut body, &self.registry.lock().expect("not poisoned"))?;
        text::encode_eof(&mut body)?;
        Ok(body)
    }
}

/// The numbers at the moment of a scrape.
#[derive(Debug)]
struct Moment {
    families: Vec<Family>,
}

#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    series: Series,
}

type Labels = Vec<(&'static str, String)>;

#[derive(Debug)]
enum Series {
    Counters(Vec<(Labels, u64)>),
    Gauges(Vec<(Labels, f64)>),
}

impl Moment {
    fn of(telemetry: &Telemetry) -> Self {
        let mut counts = telemetry.tally.snapshot();
        start_at_zero(&mut counts, telemetry);
        let mut families = Vec::new();
        let mut counter = |name, help, series| {
            families.push(Family { name, help, unit: None, series: Series::Counters(series) });
        };
        let by_category = |value: fn(&super::CategoryCounts) -> u64| {
            let categories = counts.categories.iter();
            categories
                .map(|((source, category), counts)| {
                    (vec![("source", source.to_string()), ("category", category.to_string())], value(counts))
                })
                .collect()
        };
        counter(
            "viaduct_events_received",
            "First deliveries of events",
            by_category(|counts| counts.received),
        );
        counter(
            "viaduct_events_redelivered",
            "Deliveries of events that were delivered before",
            by_category(|counts| counts.redelivered),
        );
        counter(
            "viaduct_events_published",
            "Records that a sink has confirmed durable",
            counts
                .published
                .iter()
                .map(|((source, sink, category), count)| {
                    let labels = vec![
                        ("source", source.to_string()),
                        ("sink", sink.to_string()),
                        ("category", category.to_string()),
                    ];
                    (labels, *count)
                })
                .collect(),
        );
        counter(
            "viaduct_events_acknowledged",
            "Events acknowledged to the vendor",
            by_category(|counts| counts.acknowledged),
        );
        counter(
            "viaduct_events_dead_lettered",
            "Events that are durable in the dead letters",
            counts
                .dead_lettered
                .iter()
                .map(|((source, reason), count)| {
                    (vec![("source", source.to_string()), ("reason", (*reason).to_owned())], *count)
                })
                .collect(),
        );
        counter(
            "viaduct_schema_drift",
            "Differences between events and the vendor's document, by type and field (validate of a source)",
            counts
                .schema_drift
                .iter()
                .map(|((source, event_type, field, problem), count)| {
                    let labels = vec![
                        ("source", source.to_string()),
                        ("type", (*event_type).to_owned()),
                        ("field", (*field).to_owned()),
                        ("problem", (*problem).to_owned()),
                    ];
                    (labels, *count)
                })
                .collect(),
        );
        counter(
            "viaduct_events_best_effort_dropped",
            "Events that a best-effort sink did not get",
            counts
                .best_effort_dropped
                .iter()
                .map(|((source, sink), count)| {
                    (vec![("source", source.to_string()), ("sink", sink.to_string())], *count)
                })
                .collect(),
        );
        counter(
            "viaduct_acknowledge_not_found",
            "Acknowledged ids that the vendor did not know",
            counts
                .acknowledge_not_found
                .iter()
                .map(|(source, count)| (vec![("source", source.to_string())], *count))
                .collect(),
        );
        counter(
            "viaduct_sessions_created",
            "Streaming sessions created, by what made it necessary",
            counts
                .sessions_created
                .iter()
                .map(|((source, cause), count)| {
                    (vec![("source", source.to_string()), ("cause", (*cause).to_owned())], *count)
                })
                .collect(),
        );
        counter(
            "viaduct_source_requests",
            "Requests to the vendor, by operation and HTTP status",
            counts
                .requests
                .iter()
                .map(|((source, operation, status), count)| {
                    let status = status.map_or_else(|| "error".to_owned(), |status| status.to_string());
                    let labels = vec![
                        ("source", source.to_string()),
                        ("operation", (*operation).to_owned()),
                        ("status", status),
                    ];
                    (labels, *count)
                })
                .collect(),
        );
        counter(
            "viaduct_token_refreshes",
            "Access tokens fetched",
            counts
                .token_refreshes
                .iter()
                .map(|(source, count)| (vec![("source", source.to_string())], *count))
                .collect(),
        );
        counter(
            "viaduct_sink_retries",
            "Records that a sink could not take at the time",
            counts
                .sink_retries
                .iter()
                .map(|((sink, reason), count)| {
                    (vec![("sink", sink.to_string()), ("reason", (*reason).to_owned())], *count)
                })
                .collect(),
        );

        let now = Instant::now();
        let sources = telemetry.sources();
        let mut gauge = |name, help, unit, series| {
            families.push(Family { name, help, unit, series: Series::Gauges(series) });
        };
        let by_source = |value: &dyn Fn(&viaduct_poller::SourceStatus) -> f64| {
            sources.iter().map(|(name, status)| (vec![("source", name.to_string())], value(status))).collect()
        };
        gauge(
            "viaduct_events_unacknowledged",
            "Events held and not yet acknowledged",
            None,
            by_source(&|status| status.unacknowledged as f64),
        );
        gauge(
            "viaduct_oldest_unacknowledged_age",
            "How long the oldest unacknowledged event has been held",
            Some(Unit::Seconds),
            by_source(&|status| {
                status
                    .oldest_unacknowledged
                    .map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64())
            }),
        );
        gauge(
            "viaduct_session_up",
            "1 while the source has a streaming session",
            None,
            by_source(&|status| f64::from(u8::from(status.session_up))),
        );
        gauge(
            "viaduct_sink_up",
            "1 while the sink takes records",
            None,
            telemetry
                .sinks()
                .iter()
                .map(|sink| (vec![("sink", sink.name.to_string())], f64::from(u8::from(sink.state().up))))
                .collect(),
        );
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        gauge("viaduct_build_info", "The running version", None, vec![(version, 1.0)]);
        Self { families }
    }
}

/// What can be counted is there from the first scrape on: Prometheus does not see the increase of a series that appears
/// with its first event, and an alert on it would miss that one.
fn start_at_zero(counts: &mut Counts, telemetry: &Telemetry) {
    let reasons = [
        Reason::Unrouted,
        Reason::Malformed,
        Reason::NoId,
        Reason::Schema,
        Reason::Rejected(RejectReason::TooLarge),
        Reason::Rejected(RejectReason::InvalidDestination),
        Reason::Rejected(RejectReason::Refused),
    ];
    let causes = [Cause::Start, Cause::Expired, Cause::Lost, Cause::OwnerChange];
    let sinks = telemetry.sinks();
    for (source, _) in telemetry.sources() {
        for reason in reasons {
            counts.dead_lettered.entry((source.clone(), reason.as_str())).or_default();
        }
        for cause in causes {
            counts.sessions_created.entry((source.clone(), cause.as_str())).or_default();
        }
        for sink in sinks.iter().filter(|sink| !sink.required) {
            counts.best_effort_dropped.entry((source.clone(), sink.name.clone())).or_default();
        }
        counts.acknowledge_not_found.entry(source.clone()).or_default();
        counts.token_refreshes.entry(source).or_default();
    }
}

impl Collector for Moment {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in &self.families {
            let metric_type = match family.series {
                Series::Counters(_) => MetricType::Counter,
                Series::Gauges(_) => MetricType::Gauge,
            };
            let mut metrics =
                encoder.encode_descriptor(family.name, family.help, family.unit.as_ref(), metric_type)?;
            match &family.series {
                Series::Counters(series) => {
                    for (labels, value) in series {
                        let labels = LabelSlice(labels);
                        let metric = metrics.encode_family(&labels)?;
                        ConstCounter::new(*value).encode(metric)?;
                    }
                }
                Series::Gauges(series) => {
                    for (labels, value) in series {
                        let labels = LabelSlice(labels);
                        let metric = metrics.encode_family(&labels)?;
                        ConstGauge::new(*value).encode(metric)?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct LabelSlice<'l>(&'l [(&'static str, String)]);

impl EncodeLabelSet for LabelSlice<'_> {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>,
    ) -> Result<(), fmt::Error> {
        self.0.encode(encoder)
    }
}
