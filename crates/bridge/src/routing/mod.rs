//! From an event to records: which routes apply, and what each makes of it. Pure: no I/O, no clock.
//!
//! - [`mask`]: what of an event nobody may see, gone before anything else happens
//! - [`fields`]: the values that keys and templates name
//! - [`rendering`]: templates rendered to destinations ([`naming`]), keys and headers
//! - [`mod@format`]: the values of records
//! - [`headers`]: CloudEvents attributes
//! - [`dead_letter`]: what an event that cannot be published becomes
//! - [`json`]: JSON text looked at and edited without being parsed into values

pub(crate) mod dead_letter;
mod fields;
mod format;
mod headers;
#[cfg(test)]
mod instructions;
mod json;
mod mask;
mod naming;
mod rendering;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use jiff::Timestamp;
use viaduct_poller::{ContentHash, Event};
use viaduct_sink::{Header, HeaderName, Record};

pub(crate) use self::dead_letter::{Circumstances, DeadLetterRoute, Reason};
use self::fields::{FieldNames, Fields};
use self::headers::Headers;
pub(crate) use self::mask::Masks;
pub(crate) use self::naming::Naming;
use self::rendering::{Destination, Key, Seen, Text};
pub(crate) use self::rendering::{every_name, outline, prefix};
use crate::config::{Format, Route, SinkIndex, Target, Template};

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
    routes: Vec<Route>,
    /// What each route makes of its events; `None` for `sink = "none"`.
    targets: Vec<Option<BoundTarget>>,
    names: FieldNames,
    headers: Headers,
    /// Event type → the routes that apply. Bounded, see [`KNOWN_TYPES`].
    by_type: HashMap<Box<str>, Arc<[usize]>, RandomState>,
}

#[derive(Debug)]
struct BoundTarget {
    sink: SinkIndex,
    destination: Destination,
    key: Key,
    format: Format,
    headers: Vec<(HeaderName, Text)>,
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
        let mut bind = |route: &Route| match &route.target {
            Target::Drop => None,
            Target::Sink { sink, to, key, format, headers } => {
                let header = |(name, value): &(String, Template)| {
                    (HeaderName::Literal(name.as_str().into()), Text::new(value, &mut names))
                };
                let headers = headers.iter().map(header).collect();
                let destination = Destination::new(to, naming[sink.get()], &mut names);
                let key = Key::new(key, &mut names);
                Some(BoundTarget { sink: *sink, destination, key, format: *format, headers })
            }
        };
        let targets = routes.iter().map(&mut bind).collect();
        Self {
            source: source.into(),
            org: org.into(),
            routes: routes.to_vec(),
            targets,
            names,
            headers: Headers::new(source_uri),
            by_type: HashMap::default(),
        }
    }

    /// Makes the records of `event`.
    pub(crate) fn plan(&mut self, event: &Event) -> Plan {
        self.plan_traced(event, None)
    }

    /// The same, with the context of its trace in them.
    pub(crate) fn plan_traced(&mut self, event: &Event, traceparent: Option<&Arc<str>>) -> Plan {
        let matching = self.matching(event.event_type());
        if matching.is_empty() {
            return Plan::DeadLetter(Reason::Unrouted, "no route matches this event type".to_owned());
        }
        let fields = Fields::of(event, &self.names);
        let seen = Seen { event, fields: &fields, names: &self.names, org: &self.org, source: &self.source };
        let published = event.published_time().and_then(|time| time.parse::<Timestamp>().ok());
        // Kafka has no timestamps before 1970.
        let timestamp_ms = published.map(Timestamp::as_millisecond).filter(|ms| *ms >= 0);
        let identity = event.identity();
        let name = event_name(&self.org, event.id(), identity.hash());
        // Where fields are masked, readers get no hash of what they hide: it could be guessed.
        let message_id = match event.content_hash() {
            hash if hash == identity.hash() => name.clone(),
            masked => event_name(&self.org, event.id(), masked),
        };
        let mut records: Vec<(SinkIndex, Record)> = Vec::with_capacity(matching.len());
        let mut values = Values { published, shared: matching.len() > 1, made: Vec::new() };
        for &index in matching.iter() {
            let Some(target) = &mut self.targets[index] else { continue };
            let key = target.key.of(&seen);
            let destination = target.destination.render(&seen);
            let value = values.of(target.format, &seen, key.as_ref(), traceparent, &mut self.headers);
            let mut headers = match target.format {
                Format::CloudEvents => self.headers.beside_structured(),
                Format::Unwrapped | Format::Raw | Format::Payload => {
                    self.headers.binary(event, published, key.as_ref())
                }
            };
            let own = target.headers.iter().filter_map(|(name, text)| {
                let value: Arc<str> = text.render(&seen)?.as_ref().into();
                Some(Header { name: name.clone(), value })
            });
            headers.extend(own);
            // A structured event has it inside, as CloudEvents' extension.
            if let Some(traceparent) = traceparent.filter(|_| target.format != Format::CloudEvents) {
                headers::add_trace(&mut headers, traceparent);
            }
            let record = Record {
                destination,
                key,
                headers,
                value,
                timestamp_ms,
                message_id: message_id.clone(),
                event: name.clone(),
            };
            records.push((target.sink, record));
        }
        if records.is_empty() { Plan::Dropped } else { Plan::Records(records) }
    }

    /// The format of the record that this sink gets of events of this type.
    pub(crate) fn format(&mut self, event_type: &str, sink: SinkIndex) -> Option<Format> {
        let matching = self.matching(event_type);
        let mut targets = matching.iter().filter_map(|&index| self.targets[index].as_ref());
        targets.find(|target| target.sink == sink).map(|target| target.format)
    }

    /// [`Route::applying`], remembered.
    fn matching(&mut self, event_type: &str) -> Arc<[usize]> {
        if let Some(known) = self.by_type.get(event_type) {
            return known.clone();
        }
        let matching = Route::applying(&self.routes, event_type);
        let matching: Arc<[usize]> = matching.into();
        if self.by_type.len() < KNOWN_TYPES {
            self.by_type.insert(event_type.into(), matching.clone());
        }
        matching
    }
}

/// The values made of one event so far: routes that ask for the same share it.
#[derive(Debug)]
struct Values {
    published: Option<Timestamp>,
    /// Whether there are several routes.
    shared: bool,
    made: Vec<(Format, Option<Arc<str>>, Bytes)>,
}

impl Values {
    fn of(
        &mut self,
        format: Format,
        seen: &Seen<'_>,
        key: Option<&Arc<str>>,
        traceparent: Option<&Arc<str>>,
        headers: &mut Headers,
    ) -> Bytes {
        // Of a structured event the key is a part.
        let key = key.filter(|_| format == Format::CloudEvents);
        let known = self.made.iter().find(|(known, its_key, _)| *known == format && its_key.as_ref() == key);
        if let Some((.., value)) = known {
            return value.clone();
        }
        let value = match format {
            Format::Raw => format::raw(seen.event),
            Format::Unwrapped => format::unwrapped(seen.event, seen.fields),
            Format::Payload => format::payload(seen.event, seen.fields),
            Format::CloudEvents => {
                let data = format::payload_text(seen.event, seen.fields);
                headers.structured(seen.event, self.published, key, traceparent, data)
            }
        };
        if self.shared {
            self.made.push((format, key.cloned(), value.clone()));
        }
        value
    }
}

/// What an event of an organisation is called in checkpoints and in NATS' duplicate detection:
/// `<org>.<eventId>.<first 16 hex of the content hash>`. The id is empty where the vendor sent none.
pub(crate) fn event_name(org: &str, id: &str, hash: ContentHash) -> Arc<str> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut name = String::with_capacity(org.len() + id.len() + 18);
    name.push_str(org);
    name.push('.');
    name.push_str(id);
    name.push('.');
    // Made for every event: formatting would take as long as all the rest of it.
    let hash = hash.as_u128();
    let digits: [u8; 16] = std::array::from_fn(|place| HEX[(hash >> (124 - 4 * place)) as usize & 15]);
    name.push_str(std::str::from_utf8(&digits).unwrap_or_default());
    name.into()
}
