//! Headers: the CloudEvents 1.0 attributes of an event, beside its value.

use std::collections::HashMap;
use std::sync::Arc;

use viaduct_poller::Event;
use viaduct_sink::{Attribute, Header, HeaderName};

/// Makes the headers of one source's records; what repeats from event to event is allocated once.
#[derive(Debug)]
pub(crate) struct Headers {
    spec_version: Arc<str>,
    source: Arc<str>,
    json: Arc<str>,
    types: HashMap<Box<str>, Arc<str>>,
    schema_versions: HashMap<Box<str>, Arc<str>>,
}

/// How many different event types, and schema versions, are kept.
const KNOWN: usize = 1024;

impl Headers {
    /// For a source whose CloudEvents `source` is `source_uri`.
    pub(crate) fn new(source_uri: &str) -> Self {
        Self {
            spec_version: "1.0".into(),
            source: source_uri.into(),
            json: "application/json".into(),
            types: HashMap::new(),
            schema_versions: HashMap::new(),
        }
    }

    /// The headers of a record of `event` with `key`.
    pub(crate) fn of(&mut self, event: &Event, key: Option<&Arc<str>>) -> Vec<Header> {
        let mut headers = Vec::with_capacity(9);
        let mut attribute = |name, value| headers.push(Header { name: HeaderName::CloudEvent(name), value });
        attribute(Attribute::SpecVersion, self.spec_version.clone());
        attribute(Attribute::Id, event.id().into());
        attribute(Attribute::Source, self.source.clone());
        attribute(
            Attribute::Type,
            shared(&mut self.types, event.event_type(), |name| format!("com.alvaria.{name}").into()),
        );
        if let Some(key) = key {
            attribute(Attribute::Subject, key.clone());
        }
        if let Some(time) = event.published_time() {
            attribute(Attribute::Time, time.into());
        }
        if let Some(correlation) = event.correlation_id() {
            attribute(Attribute::CorrelationId, correlation.into());
        }
        if let Some(version) = event.schema_version() {
            attribute(
                Attribute::SchemaVersion,
                shared(&mut self.schema_versions, version, |version| version.into()),
            );
        }
        headers.push(Header { name: HeaderName::ContentType, value: self.json.clone() });
        headers
    }
}

fn shared(known: &mut HashMap<Box<str>, Arc<str>>, name: &str, make: impl Fn(&str) -> Arc<str>) -> Arc<str> {
    if let Some(value) = known.get(name) {
        return value.clone();
    }
    let value = make(name);
    if known.len() < KNOWN {
        known.insert(name.into(), value.clone());
    }
    value
}
