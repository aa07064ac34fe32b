//! From an event to records: which routes apply, and what each makes of it. Pure: no I/O, no clock.
//!
//! - [`fields`]: the values that keys and templates name
//! - [`destination`]: templates rendered to topic, subject and file names
//! - [`mod@format`]: the values of records
//! - [`headers`]: CloudEvents attributes
//! - [`dead_letter`]: what an event that cannot be published becomes

mod dead_letter;
mod destination;
mod fields;
mod format;
mod headers;

use std::collections::HashMap;
use std::sync::Arc;

use viaduct_poller::{ContentHash, Event};
use viaduct_sink::Record;

pub(crate) use self::dead_letter::{DeadLetterRoute, Reason};
use self::destination::Destination;
pub(crate) use self::destination::Naming;
use self::fields::{FieldIndex, FieldNames, Fields};
use self::headers::Headers;
use crate::config::{Format, Route, SinkIndex, Target};

/// What the routes make of an event.
#[derive(Debug)]
pub(crate) enum Plan {
    /// A record for each sink that a route names.
    Records(Vec<(SinkIndex, Record)>),
    /// Only a route with `sink = "none"` matches.
    Dropped,
    /// It cannot be published: why, as a label and in words.
    DeadLetter(Reason, String),
}

/// The routes of the configuration, bound to one source.
#[derive(Debug)]
pub(crate) struct Router {
    source: Arc<str>,
    org: Arc<str>,
    routes: Vec<BoundRoute>,
    names: FieldNames,
    headers: Headers,
    /// Event type → the routes that apply. Bounded, see [`KNOWN_TYPES`].
    by_type: HashMap<Box<str>, Arc<[usize]>>,
}

#[derive(Debug)]
struct BoundRoute {
    route: Route,
    /// `None` for `sink = "none"`.
    target: Option<BoundTarget>,
}

#[derive(Debug)]
struct BoundTarget {
    sink: SinkIndex,
    destination: Destination,
    key: Vec<FieldIndex>,
    format: Format,
}

/// How many event types are remembered; the document has 67.
const KNOWN_TYPES: usize = 1024;

impl Router {
    /// Binds `routes` to the source `source` of organisation `org`; `naming` has an entry for every configured sink.
    pub(crate) fn new(
        source: &str,
        org: &str,
        source_uri: &str,
        routes: &[Route],
        naming: &[Naming],
    ) -> Self {
        let mut names = FieldNames::default();
        let routes = routes
            .iter()
            .map(|route| BoundRoute {
                route: route.clone(),
                target: match &route.target {
                    Target::Drop => None,
                    Target::Sink { sink, to, key, format } => Some(BoundTarget {
                        sink: *sink,
                        destination: Destination::new(to, naming[sink.get()], &mut names),
                        key: key.iter().map(|field| names.intern(field)).collect(),
                        format: *format,
                    }),
                },
            })
            .collect();
        Self {
            source: source.into(),
            org: org.into(),
            routes,
            names,
            headers: Headers::new(source_uri),
            by_type: HashMap::new(),
        }
    }

    /// Makes the records of `event`.
    pub(crate) fn plan(&mut self, event: &Event) -> Plan {
        let matching = self.matching(event.event_type());
        if matching.is_empty() {
            return Plan::DeadLetter(Reason::Unrouted, "no route matches this event type".to_owned());
        }
        let fields = Fields::of(event, &self.names);
        let timestamp_ms = event.published_time().and_then(milliseconds);
        let name = event_name(&self.org, event.id(), event.content_hash());
        let mut records: Vec<(SinkIndex, Record)> = Vec::with_capacity(matching.len());
        let mut values: Vec<(Format, bytes::Bytes)> = Vec::with_capacity(1);
        for &index in matching.iter() {
            let Some(target) = &mut self.routes[index].target else { continue };
            let key: Option<Arc<str>> =
                target.key.iter().find_map(|field| fields.get(*field, &self.names, event)).map(Arc::from);
            let destination = target.destination.render(event, &fields, &self.names, &self.org, &self.source);
            let value = match values.iter().find(|(format, _)| *format == target.format) {
                Some((_, value)) => value.clone(),
                None => {
                    let value = format::value(target.format, event, &fields);
                    values.push((target.format, value.clone()));
                    value
                }
            };
            let headers = self.headers.of(event, key.as_ref());
            let record = Record {
                destination,
                key,
                headers,
                value,
                timestamp_ms,
                message_id: name.clone(),
                event: name.clone(),
            };
            records.push((target.sink, record));
        }
        if records.is_empty() { Plan::Dropped } else { Plan::Records(records) }
    }

    /// The routes that apply to a type: all that match, but the first one per sink alone. A route with `sink = "none"`
    /// counts only where nothing else matches.
    fn matching(&mut self, event_type: &str) -> Arc<[usize]> {
        if let Some(known) = self.by_type.get(event_type) {
            return known.clone();
        }
        let mut taken: Vec<SinkIndex> = Vec::new();
        let mut matching = Vec::new();
        for (index, bound) in self.routes.iter().enumerate() {
            if !bound.route.matches(event_type) {
                continue;
            }
            match &bound.target {
                Some(target) if taken.contains(&target.sink) => {}
                Some(target) => {
                    taken.push(target.sink);
                    matching.push(index);
                }
                None => matching.push(index),
            }
        }
        let matching: Arc<[usize]> = matching.into();
        if self.by_type.len() < KNOWN_TYPES {
            self.by_type.insert(event_type.into(), matching.clone());
        }
        matching
    }
}

/// What an event of an organisation is called in checkpoints and in NATS' duplicate detection:
/// `<org>.<eventId>.<first 16 hex of the content hash>`. The id is empty where the vendor sent none.
pub(crate) fn event_name(org: &str, id: &str, hash: ContentHash) -> Arc<str> {
    format!("{org}.{id}.{}", hash.prefix16()).into()
}

/// An ISO 8601 time as milliseconds since the Unix epoch; `None` where it is not one, or before 1970, which Kafka has no
/// timestamps for.
fn milliseconds(time: &str) -> Option<i64> {
    time.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond).filter(|ms| *ms >= 0)
}
