//! From a response body to its entries.
//!
//! ```text
//! body ──▶ valid JSON ──────────────▶ events[] ──▶ entry ──▶ Event
//!   │                                   ▲            └─────▶ Malformed (no id, wrong shape)
//!   └────▶ not valid: split by hand ────┘  └──▶ Malformed (the broken piece alone)
//! ```
//!
//! Nearly every response is a list of objects: such a one is read in a single pass ([`Parser::at_once`]). Whatever is
//! not one goes the long way, which comes to the same and can tell what is wrong.
//!
//! One bad entry never holds back the others of its response. Rules that the JSON standard leaves open: of a field
//! that occurs twice the last one counts (as in Java and JavaScript); bytes that are not UTF-8 become U+FFFD before
//! anything is parsed; escapes that are no character become U+FFFD in decoded values, while [`Event::raw`] keeps them.
//! Fields that are unknown are not looked at, types that are unknown are events like all others.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::{Entry, Event, Fields, Malformed, PayloadText, Span, Text};
use crate::json_text::{decode, text_of};
use crate::scan::Scanner;
use crate::settings::ApiVersion;
use crate::split::{self, Piece};

/// A body that no entry could be taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is not JSON, and no `events` array was found in it either.
    #[error("the response is not JSON with an events array")]
    NotJson,
    /// It is JSON without an `events` array.
    #[error("the response has no events array")]
    NoEvents,
    /// It ends within the `events` array.
    #[error("the response ends in the middle")]
    Cut,
}

/// Parses the body of a GET /events response (vendor document, EventResponse and EventResponseV3).
///
/// An empty body, and `"events": null`, are an empty list.
///
/// # Errors
/// Nothing in it can be understood; the call should be repeated.
pub fn parse_response(
    body: Vec<u8>,
    api: ApiVersion,
    received_at: Instant,
) -> Result<Vec<Entry>, Unreadable> {
    parse(body, api, received_at, Completeness::Whole)
}

/// Parses one entry by itself, e.g. the raw event of a dead letter.
#[must_use]
pub fn parse_entry(raw: String, api: ApiVersion, received_at: Instant) -> Entry {
    let body = Arc::new(raw);
    // The white space of JSON: other one is none between the entries of a response either.
    Parser { body: &body, api, received_at }.entry(body.trim_matches([' ', '\t', '\n', '\r']))
}

/// Whether the whole body arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completeness {
    Whole,
    /// The connection broke within it. What came is still worth something where the vendor will not send it again (v2):
    /// the complete entries flow, and the torn last one is malformed.
    Cut,
}

pub(crate) fn parse(
    body: Vec<u8>,
    api: ApiVersion,
    received_at: Instant,
    completeness: Completeness,
) -> Result<Vec<Entry>, Unreadable> {
    let body = match String::from_utf8(body) {
        Ok(body) => body,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    };
    let body = Arc::new(body);
    let parser = Parser { body: &body, api, received_at };
    if body.trim().is_empty() {
        return Ok(Vec::new());
    }
    if let Some(entries) = parser.at_once() {
        return Ok(entries);
    }
    match serde_json::from_str::<Envelope<'_>>(&body) {
        Ok(Envelope { events: Some(Events::List(entries)) }) => {
            Ok(entries.iter().map(|entry| parser.entry(entry.get())).collect())
        }
        Ok(Envelope { events: Some(Events::Null) }) => Ok(Vec::new()),
        Ok(Envelope { events: Some(Events::Other) | None }) => Err(Unreadable::NoEvents),
        Err(_) => {
            let pieces = split::split(&body, parser.id_key(), completeness)?;
            Ok(pieces.into_iter().map(|piece| parser.piece(piece)).collect())
        }
    }
}

struct Parser<'a> {
    body: &'a Arc<String>,
    api: ApiVersion,
    received_at: Instant,
}

impl Parser<'_> {
    fn id_key(&self) -> &'static str {
        match self.api {
            ApiVersion::V3 => "eventId",
            ApiVersion::V2 => "id",
        }
    }

    /// The entries of a body that is an object with a list of objects. `None` says nothing about it.
    fn at_once(&self) -> Option<Vec<Entry>> {
        let mut scanner = Scanner::new(self.body);
        let mut entries = None;
        scanner.object(|name, scanner| {
            if !name_is(name, "events") {
                return scanner.value().map(drop);
            }
            let mut list = Vec::new();
            scanner.list(|scanner| self.entry_at(scanner).map(|entry| list.push(entry)))?;
            entries = Some(list);
            Some(())
        })?;
        scanner.end()?;
        entries
    }

    fn entry_at(&self, scanner: &mut Scanner<'_>) -> Option<Entry> {
        scanner.peek()?;
        let start = scanner.place();
        let mut members = Members::default();
        scanner.object(|name, scanner| {
            if name == "\"payload\"" && scanner.peek()? == b'"' {
                let (literal, decoded) = scanner.string_decoded()?;
                (members.payload, members.decoded) = (Some(literal), decoded);
            } else {
                members.set(self.api, name, scanner.value()?);
            }
            Some(())
        })?;
        Some(self.made_of(&self.body[start..scanner.place()], members))
    }

    fn type_key(&self) -> &'static str {
        match self.api {
            ApiVersion::V3 => "eventType",
            ApiVersion::V2 => "type",
        }
    }

    fn piece(&self, piece: Piece<'_>) -> Entry {
        match piece {
            Piece::Valid(raw) => self.entry(raw),
            Piece::Broken { raw, detail } => self.malformed(raw, split::id_in(raw, self.id_key()), detail),
        }
    }

    fn malformed(&self, raw: &str, id: Option<String>, detail: impl Into<Box<str>>) -> Entry {
        let id = id.filter(|id| !id.is_empty()).map(Into::into);
        Entry::Malformed(Malformed::new(self.body.clone(), Span::of(raw, self.body), id, detail))
    }

    /// `raw` is a slice of the body, mostly valid JSON.
    fn entry(&self, raw: &str) -> Entry {
        let mut deserializer = serde_json::Deserializer::from_str(raw);
        let members = MembersSeed(self.api).deserialize(&mut deserializer);
        match members.and_then(|members| deserializer.end().map(|()| members)) {
            Ok(members) => self.made_of(raw, members),
            Err(_) if raw.starts_with('{') => {
                self.malformed(raw, split::id_in(raw, self.id_key()), "the entry is not valid JSON")
            }
            Err(_) => self.malformed(raw, None, "the entry is not an object"),
        }
    }

    /// `raw` is an object with these members.
    fn made_of(&self, raw: &str, members: Members<'_>) -> Entry {
        let id = match members.id {
            None | Some("null") => None,
            Some(value) if value.starts_with('"') => Some(decode(value)),
            Some(_) => return self.malformed(raw, None, format!("{} is not a string", self.id_key())),
        };
        let event_type = match members.event_type {
            Some(value) if value.starts_with('"') && value != "\"\"" => text_of(value, self.body),
            Some(value) if value.starts_with('"') => {
                let id = id.map(Into::into);
                return self.malformed(raw, id, format!("{} is empty", self.type_key()));
            }
            Some(_) => {
                let id = id.map(Into::into);
                return self.malformed(raw, id, format!("{} is not a string", self.type_key()));
            }
            None => {
                let id = id.map(Into::into);
                return self.malformed(raw, id, format!("{} is missing", self.type_key()));
            }
        };
        let payload = members.payload;
        let event = Event::new(Fields {
            body: self.body.clone(),
            entry: Span::of(raw, self.body),
            id: id.as_deref().unwrap_or_default().into(),
            event_type,
            kind: self.scalar(members.kind),
            correlation_id: self.scalar(members.correlation_id),
            published_time: self.scalar(members.published_time),
            schema_version: self.scalar(members.schema_version),
            payload: match payload {
                None => PayloadText::Missing,
                Some("null") => PayloadText::Null,
                Some(value) if value.starts_with('"') => {
                    let decoded = members.decoded.map(Text::Owned);
                    PayloadText::Text(decoded.unwrap_or_else(|| text_of(value, self.body)))
                }
                Some(_) => PayloadText::Json,
            },
            payload_span: payload.map(|value| Span::of(value, self.body)),
            api: self.api,
            received_at: self.received_at,
        });
        if event.id().is_empty() {
            let what = if id.is_some() { "is empty" } else { "is missing" };
            return Entry::Malformed(Malformed::without_id(event, format!("{} {what}", self.id_key())));
        }
        Entry::Event(event)
    }

    /// A string's value, or the text of a number or a boolean.
    fn scalar(&self, value: Option<&str>) -> Option<Text> {
        match value? {
            "null" => None,
            value if value.starts_with('"') => Some(text_of(value, self.body)),
            value if value.starts_with(['{', '[']) => None,
            value => Some(Text::Span(Span::of(value, self.body))),
        }
    }
}

/// The members of an entry that mean something, as raw text.
#[derive(Default)]
struct Members<'a> {
    id: Option<&'a str>,
    event_type: Option<&'a str>,
    kind: Option<&'a str>,
    correlation_id: Option<&'a str>,
    published_time: Option<&'a str>,
    schema_version: Option<&'a str>,
    payload: Option<&'a str>,
    /// What the payload says, where it is a string with escapes that has been decoded already.
    decoded: Option<String>,
}

impl<'a> Members<'a> {
    /// `name` is a literal with its quotes. Of a name that occurs twice the last one counts.
    fn set(&mut self, api: ApiVersion, name: &'a str, value: &'a str) {
        let plain = &name[1..name.len() - 1];
        let decoded;
        let plain = if plain.contains('\\') {
            decoded = decode(name);
            &*decoded
        } else {
            plain
        };
        let place = match (plain, api) {
            ("eventId", ApiVersion::V3) | ("id", ApiVersion::V2) => &mut self.id,
            ("eventType", ApiVersion::V3) | ("type", ApiVersion::V2) => &mut self.event_type,
            ("kind", _) => &mut self.kind,
            ("correlationId", _) => &mut self.correlation_id,
            ("publishedTime", _) => &mut self.published_time,
            ("schemaVersion", _) => &mut self.schema_version,
            ("payload", _) => {
                self.decoded = None;
                &mut self.payload
            }
            _ => return,
        };
        *place = Some(value);
    }
}

/// Reads the members of an entry.
struct MembersSeed(ApiVersion);

impl<'de> DeserializeSeed<'de> for MembersSeed {
    type Value = Members<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Members<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MembersSeed {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Members::default();
        // Names are taken raw too: a lone surrogate in an unknown one is nobody's business.
        while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            members.set(self.0, name.get(), value.get());
        }
        Ok(members)
    }
}

/// Whether the literal `name` (with quotes) is `key`.
fn name_is(name: &str, key: &str) -> bool {
    let plain = name.len() == key.len() + 2 && &name[1..name.len() - 1] == key;
    plain || (name.contains('\\') && decode(name) == key)
}

/// The fields of an object in order, values as raw text.
struct Scan<'a> {
    fields: Vec<(&'a str, &'a str)>,
}

impl<'de> Deserialize<'de> for Scan<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScanVisitor;
        impl<'de> Visitor<'de> for ScanVisitor {
            type Value = Scan<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scan<'de>, A::Error> {
                let mut fields = Vec::with_capacity(8);
                // Keys are taken raw too: a lone surrogate in an unknown key is nobody's business.
                while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    fields.push((key.get(), value.get()));
                }
                Ok(Scan { fields })
            }
        }
        deserializer.deserialize_map(ScanVisitor)
    }
}

struct Envelope<'a> {
    events: Option<Events<'a>>,
}

enum Events<'a> {
    List(Vec<&'a RawValue>),
    Null,
    Other,
}

impl<'de> Deserialize<'de> for Envelope<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let scan = Scan::deserialize(deserializer)?;
        let events = scan.fields.iter().rev().find(|(name, _)| name_is(name, "events"));
        let events = events.map(|(_, value)| match *value {
            "null" => Ok(Events::Null),
            value if value.starts_with('[') => serde_json::from_str(value).map(Events::List),
            _ => Ok(Events::Other),
        });
        Ok(Self { events: events.transpose().map_err(serde::de::Error::custom)? })
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
