//! Traces for OpenTelemetry: a span per poll, per batch and per publish. Never one per event.
//!
//! ```text
//! poll main                       GET events, from the request to the answer
//! └─ process main                 what of it is fresh: from routing until the last of its records has met its fate
//!    ├─ publish via.messaging     one `publish` of a sink, retries being further ones
//!    └─ publish acme.via
//! ```
//!
//! A publish takes everything that has arrived in its lane: it is a child of the first batch in it, and linked to the
//! others. The context of a batch is what its records carry as `traceparent`; it is put into them when they are made, so
//! that a retried record keeps its bytes.
//!
//! Attributes follow the semantic conventions for messaging and HTTP. None of them is a payload, a key, an id of an event
//! or a secret. Where tracing is off, or a poll is not sampled, all that remains of it is a `None`.

mod collector;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, Tracer as _, TracerProvider,
};
use opentelemetry::{Array, Context, InstrumentationScope, Key, KeyValue, StringValue, Value};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span};
use tokio::runtime::Handle;
use tracing::{info, warn};
use viaduct_poller::{Observation, Operation};
use viaduct_sink::{Outcome, Record};

use self::collector::Collector;
use crate::config::{Config, Tracing};
use crate::exit::{Exit, Failure};

/// What the source is to `messaging.system`.
const VENDOR: &str = "alvaria";
/// How many answered polls may wait for their batch: the pipeline is behind the poller by a few at most.
const POLLS_KEPT: usize = 64;
/// The most batches that a publish is linked to, which is the most links that a span has by default.
const LINKS: usize = 128;
/// The most destinations that a publish names.
const DESTINATIONS: usize = 16;
/// How long an export may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the end of the bridge waits for the last export.
const FAREWELL: Duration = Duration::from_secs(2);

/// The spans of one bridge.
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    sources: HashMap<String, SourceTraces>,
    /// `messaging.system` of each sink.
    systems: HashMap<String, &'static str>,
}

/// What is kept of one source's polls.
struct SourceTraces {
    /// `server.address` and `server.port` of the vendor.
    server: Vec<KeyValue>,
    polls: Mutex<Polls>,
}

#[derive(Default)]
struct Polls {
    /// The last GET that ended, whose answer nobody has looked into.
    request: Option<Request>,
    /// Polls whose batch has not been seen, by their number.
    answered: VecDeque<(u64, SpanContext)>,
}

struct Request {
    status: Option<u16>,
    started: SystemTime,
}

/// The span of a batch. It lasts as long as somebody holds it: the events that are not settled, the records that are not
/// published.
pub(crate) struct BatchTrace {
    /// Its dropping ends it.
    _span: Span,
    context: SpanContext,
    traceparent: Arc<str>,
}

impl BatchTrace {
    /// What the batch's records carry (W3C Trace Context, section 3.2).
    pub(crate) fn traceparent(&self) -> &Arc<str> {
        &self.traceparent
    }
}

/// The span of a publish under way.
pub(crate) struct PublishTrace(Span);

impl Traces {
    /// Starts what `[tracing]` asks for; to be called in a tokio runtime, which the exports use.
    ///
    /// # Errors
    /// 78 for settings that no exporter can be made of.
    pub(crate) fn start(config: &Config) -> Result<Option<Self>, Failure> {
        let Some(tracing) = &config.tracing else { return Ok(None) };
        let refused = |error: &dyn std::fmt::Display| {
            Failure::new(
                Exit::Config,
                format!("tracing cannot be started: {error}"),
                "correct [tracing], or the OTEL_ variables of this process",
            )
        };
        let collector = Collector::new(tracing, Handle::current()).map_err(|error| refused(&error))?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(collector)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(tracing.endpoint.as_str())
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(|error| refused(&error))?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(tracing.sample_ratio))))
            .with_resource(resource(tracing, &config.bridge.name))
            .build();
        info!(endpoint = %tracing.endpoint, sample_ratio = tracing.sample_ratio, "tracing is on");
        Ok(Some(Self::new(provider, config)))
    }

    fn new(provider: SdkTracerProvider, config: &Config) -> Self {
        // The last owner's drop waits for an export of five seconds, and an end that is in a hurry has none to spare.
        std::mem::forget(provider.clone());
        let scope = InstrumentationScope::builder("viaduct").with_version(env!("CARGO_PKG_VERSION")).build();
        let sources = config.sources.iter().map(|source| {
            let mut server = Vec::new();
            server.extend(source.api_url.host_str().map(|host| text("server.address", host)));
            let port = source.api_url.port_or_known_default();
            server.extend(port.map(|port| KeyValue::new("server.port", i64::from(port))));
            (source.name.clone(), SourceTraces { server, polls: Mutex::default() })
        });
        let systems = config.sinks.iter().map(|sink| (sink.name.clone(), sink.kind.word()));
        Self {
            tracer: provider.tracer_with_scope(scope),
            provider,
            sources: sources.collect(),
            systems: systems.collect(),
        }
    }

    /// Something happened in the poller of `source`: what concerns polls becomes their spans.
    pub(crate) fn observe(&self, source: &str, observation: &Observation<'_>) {
        let Some(known) = self.sources.get(source) else { return };
        let mut polls = known.polls.lock().unwrap_or_else(PoisonError::into_inner);
        match *observation {
            Observation::Request { operation: Operation::Events, status, took } => {
                polls.request = Some(Request { status, started: SystemTime::now() - took });
            }
            Observation::Polled { number, entries } => {
                let Some(request) = polls.request.take() else { return };
                let attributes = vec![count("messaging.batch.message_count", entries)];
                let span = self.poll(source, known, &request, attributes);
                let context = span.span_context().clone();
                if context.is_sampled() && entries > 0 {
                    polls.answered.truncate(POLLS_KEPT - 1);
                    polls.answered.push_front((number, context));
                }
            }
            Observation::PollFailed { kind } => {
                let Some(request) = polls.request.take() else { return };
                let status = request.status.filter(|&status| status >= 300);
                let error = status.map_or_else(|| kind.as_str().to_owned(), |status| status.to_string());
                let mut span = self.poll(source, known, &request, vec![text("error.type", &error)]);
                span.set_status(Status::error(kind.as_str()));
            }
            _ => {}
        }
    }

    fn poll(
        &self,
        source: &str,
        known: &SourceTraces,
        request: &Request,
        mut attributes: Vec<KeyValue>,
    ) -> Span {
        attributes.extend([
            text("messaging.system", VENDOR),
            text("messaging.operation.name", "poll"),
            text("messaging.operation.type", "receive"),
            text("messaging.destination.name", source),
            text("viaduct.source", source),
            text("http.request.method", "GET"),
        ]);
        attributes.extend_from_slice(&known.server);
        let status =
            request.status.map(|status| KeyValue::new("http.response.status_code", i64::from(status)));
        attributes.extend(status);
        self.tracer.build_with_context(
            SpanBuilder::from_name(format!("poll {source}"))
                .with_kind(SpanKind::Client)
                .with_start_time(request.started)
                .with_attributes(attributes),
            &Context::new(),
        )
    }

    /// A batch of `events` events came; `poll` is the number of the poll that brought it, if it is known. `None` where
    /// it is not sampled.
    pub(crate) fn batch(&self, source: &str, poll: Option<u64>, events: usize) -> Option<Arc<BatchTrace>> {
        let parent = match poll {
            Some(number) => Context::new().with_remote_span_context(self.answered(source, number)?),
            // Read back from the spool: the poll was long ago, perhaps in another process.
            None => Context::new(),
        };
        let span = self.tracer.build_with_context(
            SpanBuilder::from_name(format!("process {source}"))
                .with_kind(SpanKind::Consumer)
                .with_attributes(vec![
                    text("messaging.system", VENDOR),
                    text("messaging.operation.name", "process"),
                    text("messaging.operation.type", "process"),
                    text("messaging.destination.name", source),
                    text("viaduct.source", source),
                    count("messaging.batch.message_count", events),
                ]),
            &parent,
        );
        let context = span.span_context().clone();
        let traceparent =
            format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8());
        context
            .is_sampled()
            .then(|| Arc::new(BatchTrace { _span: span, context, traceparent: traceparent.into() }))
    }

    /// The span of an answered poll, if it is sampled. Asked for once.
    fn answered(&self, source: &str, number: u64) -> Option<SpanContext> {
        let mut polls = self.sources.get(source)?.polls.lock().unwrap_or_else(PoisonError::into_inner);
        let position = polls.answered.iter().position(|(known, _)| *known == number)?;
        polls.answered.remove(position).map(|(_, context)| context)
    }

    /// A publish begins. `batches` are those that its records came in, one per record. `None` where none is sampled.
    pub(crate) fn publish<'t>(
        &self,
        source: &str,
        sink: &str,
        records: &[Record],
        batches: impl Iterator<Item = Option<&'t Arc<BatchTrace>>>,
    ) -> Option<PublishTrace> {
        let mut contexts: Vec<&SpanContext> = Vec::new();
        for batch in batches.flatten() {
            // Batches stand together, but for what is retried.
            if contexts.len() <= LINKS && !contexts.contains(&&batch.context) {
                contexts.push(&batch.context);
            }
        }
        let (&first, others) = contexts.split_first()?;
        let destinations: BTreeSet<&str> = records.iter().map(|record| &*record.destination).collect();
        let mut attributes = vec![
            text("messaging.system", self.systems.get(sink).copied().unwrap_or("file")),
            text("messaging.operation.name", "publish"),
            text("messaging.operation.type", "send"),
            count("messaging.batch.message_count", records.len()),
            text("viaduct.source", source),
            text("viaduct.sink", sink),
        ];
        let name = match destinations.first() {
            Some(only) if destinations.len() == 1 => {
                attributes.push(text("messaging.destination.name", only));
                format!("publish {only}")
            }
            _ => {
                let names = destinations.iter().take(DESTINATIONS);
                let names: Vec<StringValue> =
                    names.map(|name| StringValue::from((*name).to_owned())).collect();
                attributes.push(KeyValue::new("viaduct.destinations", Value::Array(Array::String(names))));
                format!("publish {sink}")
            }
        };
        let links = others.iter().map(|&context| Link::with_context(context.clone())).collect();
        let span = self.tracer.build_with_context(
            SpanBuilder::from_name(name)
                // Not a producer: the context that travels in the records is their batch's.
                .with_kind(SpanKind::Client)
                .with_attributes(attributes)
                .with_links(links),
            &Context::new().with_remote_span_context(first.clone()),
        );
        Some(PublishTrace(span))
    }

    /// Exports what is left, for a moment: a collector that does not answer holds up nobody.
    pub(crate) async fn close(&self) {
        let provider = self.provider.clone();
        let closed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FAREWELL));
        match tokio::time::timeout(FAREWELL, closed).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(_)) | Err(_)) | Err(_) => warn!("the last spans were not exported"),
        }
    }
}

impl PublishTrace {
    /// It has ended like this. A sink's words about a record stay out: they are for the log.
    pub(crate) fn end(mut self, outcomes: &[Outcome]) {
        let span = &mut self.0;
        let mut confirmed = 0;
        let mut first = None;
        for outcome in outcomes {
            match outcome {
                Outcome::Confirmed(_) => confirmed += 1,
                Outcome::Retry(retry) => drop(first.get_or_insert(retry.reason)),
                Outcome::Rejected(rejection) => drop(first.get_or_insert(rejection.reason.as_str())),
                Outcome::Fatal(_) => drop(first.get_or_insert("fatal")),
            }
        }
        span.set_attribute(count("viaduct.confirmed", confirmed));
        if let Some(reason) = first {
            span.set_attribute(text("error.type", reason));
            let unpublished = outcomes.len() - confirmed;
            span.set_status(Status::error(format!(
                "{unpublished} of {} records not published",
                outcomes.len()
            )));
        }
    }
}

/// What the spans are of. The configuration wins over the `OTEL_` variables, which win over the default.
fn resource(tracing: &Tracing, bridge: &str) -> Resource {
    let named = match &tracing.service_name {
        Some(name) => Some(name.as_str()),
        None => {
            let service = Resource::builder().build().get(&Key::from_static_str("service.name"));
            service.is_none_or(|name| name.as_str().starts_with("unknown_service")).then_some("viaduct")
        }
    };
    let builder = Resource::builder().with_attributes([
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("viaduct.bridge", bridge),
    ]);
    match named {
        Some(name) => builder.with_service_name(name.to_owned()).build(),
        None => builder.build(),
    }
}

fn text(key: &'static str, value: &str) -> KeyValue {
    KeyValue::new(key, value.to_owned())
}

fn count(key: &'static str, value: usize) -> KeyValue {
    KeyValue::new(key, i64::try_from(value).unwrap_or(i64::MAX))
}

impl std::fmt::Debug for Traces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Traces").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for BatchTrace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("BatchTrace").field(&self.traceparent).finish()
    }
}

#[cfg(test)]
mod tests;
