//! The CloudEvents 1.0 attributes of an event: as headers beside its value, or around it as structured JSON.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use jiff::Timestamp;
use viaduct_poller::Event;
use viaduct_sink::{Attribute, Header, HeaderName};

use super::json::push_literal;

/// Makes the headers of one source's records; what repeats from event to event is allocated once.
#[derive(Debug)]
pub(crate) struct Headers {
    spec_version: Arc<str>,
    source: Arc<str>,
    json: Arc<str>,
    structured: Arc<str>,
    types: HashMap<Box<str>, Arc<str>, RandomState>,
    schema_versions: HashMap<Box<str>, Arc<str>, RandomState>,
}

/// What the context of a trace is called, as a header and as an attribute.
const TRACEPARENT: &str = "traceparent";

/// How many different event types, and schema versions, are kept.
const KNOWN: usize = 1024;

/// How many attributes and other headers there are room for at first.
const USUAL: usize = 10;

impl Headers {
    /// For a source whose CloudEvents `source` is `source_uri`.
    pub(crate) fn new(source_uri: &str) -> Self {
        Self {
            spec_version: "1.0".into(),
            source: source_uri.into(),
            json: "application/json".into(),
            structured: "application/cloudevents+json".into(),
            types: HashMap::default(),
            schema_versions: HashMap::default(),
        }
    }

    /// The attributes of `event`, in order. An attribute that would be empty is left out, as CloudEvents asks. `published` is
    /// its time, where that is one.
    fn attributes(
        &mut self,
        event: &Event,
        published: Option<Timestamp>,
        key: Option<&Arc<str>>,
        mut each: impl FnMut(Attribute, Arc<str>),
    ) {
        each(Attribute::SpecVersion, self.spec_version.clone());
        each(Attribute::Id, event.shared_id());
        each(Attribute::Source, self.source.clone());
        let ce_type =
            shared(&mut self.types, event.event_type(), |name| format!("com.alvaria.{name}").into());
        each(Attribute::Type, ce_type);
        if let Some(key) = key {
            each(Attribute::Subject, key.clone());
        }
        if let (Some(time), Some(published)) = (event.published_time(), published) {
            each(Attribute::Time, rfc3339(time, published).as_ref().into());
        }
        if let Some(correlation) = event.correlation_id().filter(|id| !id.is_empty()) {
            each(Attribute::CorrelationId, correlation.into());
        }
        if let Some(version) = event.schema_version().filter(|version| !version.is_empty()) {
            let version = shared(&mut self.schema_versions, version, |version| version.into());
            each(Attribute::SchemaVersion, version);
        }
    }

    /// The headers of a record of `event` with `key`: attributes, then the media type of its value.
    pub(crate) fn binary(
        &mut self,
        event: &Event,
        published: Option<Timestamp>,
        key: Option<&Arc<str>>,
    ) -> Vec<Header> {
        let mut headers = Vec::with_capacity(USUAL);
        self.attributes(event, published, key, |attribute, value| {
            headers.push(Header { name: HeaderName::CloudEvent(attribute), value });
        });
        headers.push(Header { name: HeaderName::ContentType, value: self.json.clone() });
        headers
    }

    /// The headers beside a structured value.
    pub(crate) fn beside_structured(&self) -> Vec<Header> {
        vec![Header { name: HeaderName::ContentType, value: self.structured.clone() }]
    }

    /// The event as structured CloudEvents JSON (CloudEvents JSON format 1.0.2), `data` being JSON text.
    pub(crate) fn structured(
        &mut self,
        event: &Event,
        published: Option<Timestamp>,
        key: Option<&Arc<str>>,
        traceparent: Option<&Arc<str>>,
        data: &str,
    ) -> Bytes {
        let mut value = String::with_capacity(data.len() + 512);
        value.push('{');
        self.attributes(event, published, key, |attribute, text| {
            push_literal(&mut value, attribute.name());
            value.push(':');
            push_literal(&mut value, &text);
            value.push(',');
        });
        if let Some(traceparent) = traceparent {
            // CloudEvents, "Distributed Tracing Extension".
            push_literal(&mut value, TRACEPARENT);
            value.push(':');
            push_literal(&mut value, traceparent);
            value.push(',');
        }
        value.push_str("\"datacontenttype\":\"application/json\",\"data\":");
        value.push_str(data);
        value.push('}');
        Bytes::from(value.into_bytes())
    }
}

/// Adds the context of the trace (W3C Trace Context, section 3.2), where a route does not write that header itself.
pub(super) fn add_trace(headers: &mut Vec<Header>, traceparent: &Arc<str>) {
    let is_ours = |header: &Header| matches!(&header.name, HeaderName::Literal(name) if name.eq_ignore_ascii_case(TRACEPARENT));
    if !headers.iter().any(is_ours) {
        headers.push(Header { name: HeaderName::Literal(TRACEPARENT.into()), value: traceparent.clone() });
    }
}

/// A time as RFC 3339, which CloudEvents asks for: as the vendor wrote it where it is that, else the same instant.
fn rfc3339(time: &str, instant: Timestamp) -> Cow<'_, str> {
    let is_strict = || {
        let bytes = time.as_bytes();
        let shape = |text: &[u8], shape: &[u8]| {
            text.len() == shape.len()
                && text.iter().zip(shape).all(|(c, s)| if *s == b'0' { c.is_ascii_digit() } else { c == s })
        };
        let rest = bytes.get(19..)?;
        let rest = match rest.strip_prefix(b".") {
            Some(fraction) => {
                let digits = fraction.iter().take_while(|c| c.is_ascii_digit()).count();
                if digits == 0 { return None } else { &fraction[digits..] }
            }
            None => rest,
        };
        let offset = rest == b"Z" || shape(rest, b"+00:00") || shape(rest, b"-00:00");
        (shape(&bytes[..19], b"0000-00-00T00:00:00") && offset).then_some(())
    };
    if is_strict().is_some() { Cow::Borrowed(time) } else { Cow::Owned(instant.to_string()) }
}

fn shared(
    known: &mut HashMap<Box<str>, Arc<str>, RandomState>,
    name: &str,
    make: impl Fn(&str) -> Arc<str>,
) -> Arc<str> {
    if let Some(value) = known.get(name) {
        return value.clone();
    }
    let value = make(name);
    if known.len() < KNOWN {
        known.insert(name.into(), value.clone());
    }
    value
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use viaduct_poller::{ApiVersion, Entry, parse_entry};

    use super::*;

    fn structured(raw: &str, key: Option<&str>, data: &str) -> String {
        let Entry::Event(event) = parse_entry(raw.to_owned(), ApiVersion::V3, Instant::now()) else {
            panic!("no event")
        };
        let key = key.map(Arc::from);
        let published = event.published_time().and_then(|time| time.parse().ok());
        let value = Headers::new("via://acme").structured(&event, published, key.as_ref(), None, data);
        String::from_utf8(value.to_vec()).unwrap()
    }

    #[test]
    fn a_structured_event_has_the_attributes_around_the_payload() {
        let raw = r#"{"eventId":"1-\"0","correlationId":"","eventType":"a.B","publishedTime":"2018-01-30T14:04:20.539Z","schemaVersion":1}"#;
        assert_eq!(
            structured(raw, Some("k\n"), r#"{"n":1.0}"#),
            r#"{"specversion":"1.0","id":"1-\"0","source":"via://acme","type":"com.alvaria.a.B","subject":"k\n","time":"2018-01-30T14:04:20.539Z","schemaversion":"1","datacontenttype":"application/json","data":{"n":1.0}}"#
        );
        let least = r#"{"eventId":"1","eventType":"a.B","publishedTime":"yesterday","schemaVersion":""}"#;
        assert_eq!(
            structured(least, None, "null"),
            r#"{"specversion":"1.0","id":"1","source":"via://acme","type":"com.alvaria.a.B","datacontenttype":"application/json","data":null}"#
        );
    }

    #[test]
    fn a_route_keeps_its_own_trace_header() {
        let header = |name: &str| Header { name: HeaderName::Literal(name.into()), value: "own".into() };
        let mut headers = vec![header("x")];
        add_trace(&mut headers, &"00-1".into());
        assert_eq!(headers.iter().map(|header| &*header.value).collect::<Vec<_>>(), ["own", "00-1"]);
        let mut headers = vec![header("TraceParent")];
        add_trace(&mut headers, &"00-1".into());
        assert_eq!(headers, [header("TraceParent")]);
    }

    #[test]
    fn a_time_is_one_of_rfc_3339_or_none() {
        let rfc3339 = |time: &str| Some(super::rfc3339(time, time.parse().ok()?).into_owned());
        for strict in ["2018-01-30T14:04:20Z", "2018-01-30T14:04:20.539123Z", "2018-01-30T14:04:20-05:00"] {
            assert_eq!(rfc3339(strict).as_deref(), Some(strict));
        }
        assert_eq!(rfc3339("2018-01-30 14:04:20+0100").as_deref(), Some("2018-01-30T13:04:20Z"));
        assert_eq!(rfc3339("20180130T140420Z").as_deref(), Some("2018-01-30T14:04:20Z"));
        for none in ["", "1517321060539", "yesterday", "2018-13-30T14:04:20Z", "2018-01-30T14:04:20"] {
            assert_eq!(rfc3339(none), None, "{none}");
        }
    }
}
