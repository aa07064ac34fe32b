//! Finds the fields that keys and templates name, in one pass over a payload and without building a tree.
//!
//! A field is looked up in the inner `payload.payload`, then in `payload`, then in the envelope; the first usable
//! value counts. A path that starts with `payload.` is looked up from the envelope alone. Usable means: a scalar that
//! is present and not null, blank, `0` or `"0"`, because the vendor writes 0 for "no interaction" and `" "` for
//! "nothing". Numbers keep their text, so an integer and its string twin give the same value.
//!
//! Of a member that occurs twice the last one counts (as in Java and JavaScript). A path goes through objects, through
//! arrays by number, and through strings that hold a JSON object (the vendor's `entity`).

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use viaduct_poller::{Event, Payload, Scanner};

use super::json;
use crate::config::FieldPath;

/// The paths that any key or template of a source's routes mentions.
#[derive(Debug, Default)]
pub(crate) struct FieldNames {
    /// Members of payload and inner payload that are asked for, or have something in them that is.
    members: Vec<Box<str>>,
    paths: Vec<Path>,
}

#[derive(Debug, PartialEq, Eq)]
struct Path {
    /// The place in [`FieldNames::members`] of the first step.
    member: usize,
    /// The further steps.
    rest: Box<[String]>,
    /// Whether it is looked up in the payload alone.
    anchored: bool,
    /// The envelope's field of this name.
    envelope: Option<Envelope>,
}

/// The fields of an envelope, by the names of v3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Envelope {
    EventId,
    EventType,
    Kind,
    CorrelationId,
    PublishedTime,
    SchemaVersion,
}

/// The place of a path in [`FieldNames`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FieldIndex(usize);

impl FieldNames {
    /// Adds a path, once.
    pub(crate) fn intern(&mut self, path: &FieldPath) -> FieldIndex {
        let (anchored, steps) = match path.steps() {
            [payload, rest @ ..] if payload == "payload" && !rest.is_empty() => (true, rest),
            steps => (false, steps),
        };
        let Some((first, rest)) = steps.split_first() else { unreachable!("a path has a step") };
        let member = self.members.iter().position(|known| **known == **first).unwrap_or_else(|| {
            self.members.push(first.as_str().into());
            self.members.len() - 1
        });
        let envelope = if anchored || !rest.is_empty() { None } else { Envelope::of(first) };
        let path = Path { member, rest: rest.into(), anchored, envelope };
        let position = self.paths.iter().position(|known| *known == path).unwrap_or_else(|| {
            self.paths.push(path);
            self.paths.len() - 1
        });
        FieldIndex(position)
    }

    /// The member that a name literal (with its quotes) names.
    fn find(&self, literal: &str) -> Option<usize> {
        let plain = json::inner(literal);
        if memchr::memchr(b'\\', plain.as_bytes()).is_none() {
            return self.members.iter().position(|known| **known == *plain);
        }
        let decoded = json::decode(literal);
        self.members.iter().position(|known| **known == *decoded)
    }
}

impl Envelope {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "eventId" => Self::EventId,
            "eventType" => Self::EventType,
            "kind" => Self::Kind,
            "correlationId" => Self::CorrelationId,
            "publishedTime" => Self::PublishedTime,
            "schemaVersion" => Self::SchemaVersion,
            _ => return None,
        })
    }

    fn value(self, event: &Event) -> Option<&str> {
        match self {
            Self::EventId => Some(event.id()),
            Self::EventType => Some(event.event_type()),
            Self::Kind => event.kind(),
            Self::CorrelationId => event.correlation_id(),
            Self::PublishedTime => event.published_time(),
            Self::SchemaVersion => event.schema_version(),
        }
    }
}

/// In the payload's own member `payload`.
const INNER: usize = 0;
/// In the payload.
const OUTER: usize = 1;

/// The values found in one event, as their JSON text.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    /// By member, then by level: [`INNER`], [`OUTER`].
    found: Vec<[Option<&'a str>; 2]>,
    /// The payload as JSON text, where it is JSON: what `unwrapped` puts in place of the string.
    pub(crate) payload_json: Option<&'a str>,
}

impl<'a> Fields<'a> {
    /// Reads the payload of `event`.
    pub(crate) fn of(event: &'a Event, names: &FieldNames) -> Self {
        let text = match event.payload() {
            Payload::Text(text) | Payload::Json(text) => text,
            Payload::Missing | Payload::Null => "",
        };
        Self::of_text(text, names)
    }

    fn of_text(text: &'a str, names: &FieldNames) -> Self {
        Self::scanned(text, names).unwrap_or_else(|| Self::parsed(text, names))
    }

    fn none(names: &FieldNames) -> Self {
        Self { found: vec![[None; 2]; names.members.len()], payload_json: None }
    }

    fn forget(&mut self, level: usize) {
        self.found.iter_mut().for_each(|found| found[level] = None);
    }

    /// In one pass, where the text is an object.
    fn scanned(text: &'a str, names: &FieldNames) -> Option<Self> {
        let mut fields = Self::none(names);
        let mut scanner = Scanner::new(text);
        scanner.object(|name, scanner| {
            let wanted = names.find(name);
            let nested = json::is_name(name, "payload");
            if nested {
                fields.forget(INNER);
            }
            scanner.peek()?;
            let start = scanner.place();
            if nested && scanner.peek()? == b'{' {
                scanner.object(|name, scanner| {
                    let value = scanner.value()?;
                    if let Some(index) = names.find(name) {
                        fields.found[index][INNER] = Some(value);
                    }
                    Some(())
                })?;
            } else {
                scanner.value()?;
            }
            if let Some(index) = wanted {
                fields.found[index][OUTER] = Some(&text[start..scanner.place()]);
            }
            Some(())
        })?;
        scanner.end()?;
        fields.payload_json = Some(text);
        Some(fields)
    }

    /// Whatever it is.
    fn parsed(text: &'a str, names: &FieldNames) -> Self {
        let mut fields = Self::none(names);
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let read = if text.trim_start().starts_with('{') {
            let mut inner_object = None;
            let (into, inner) = (&mut fields.found, Some(&mut inner_object));
            let object = Object { names, into, level: OUTER, inner };
            object.deserialize(&mut deserializer).and_then(|()| deserializer.end()).map(|()| inner_object)
        } else {
            serde::Deserialize::deserialize(&mut deserializer)
                .and_then(|IgnoredAny| deserializer.end())
                .map(|()| None)
        };
        match read {
            Ok(inner_object) => {
                fields.payload_json = Some(text);
                if let Some(inner) = inner_object {
                    let object = Object { names, into: &mut fields.found, level: INNER, inner: None };
                    // It was scanned as valid JSON a moment ago.
                    let _ = object.deserialize(&mut serde_json::Deserializer::from_str(inner));
                }
            }
            // Half an object is no object: a field of it would be a guess.
            Err(_) => fields.forget(OUTER),
        }
        fields
    }

    /// The first usable value of a field in payload or envelope.
    pub(super) fn get<'s>(
        &'s self,
        index: FieldIndex,
        names: &FieldNames,
        event: &'s Event,
    ) -> Option<Cow<'s, str>> {
        let path = &names.paths[index.0];
        let inside = |level: usize| {
            let value = self.found[path.member][level]?;
            descend(value, &path.rest).filter(|value| is_usable(value))
        };
        let inner = if path.anchored { None } else { inside(INNER) };
        inner.or_else(|| inside(OUTER)).or_else(|| {
            let value = path.envelope?.value(event)?;
            is_usable(value).then_some(Cow::Borrowed(value))
        })
    }
}

fn is_usable(value: &str) -> bool {
    value != "0" && !value.trim_ascii().is_empty()
}

/// What stands under `steps` in the JSON text `value`.
fn descend<'t>(value: &'t str, steps: &[String]) -> Option<Cow<'t, str>> {
    let Some((step, rest)) = steps.split_first() else { return scalar(value) };
    match value.as_bytes().first()? {
        b'{' => {
            let member =
                json::members(value, 0).filter(|member| json::is_name(&value[member.name.clone()], step));
            descend(&value[member.last()?.value], rest)
        }
        b'[' => descend(&value[json::elements(value, 0).nth(step.parse().ok()?)?], rest),
        b'"' => {
            let text = json::decode(value);
            let text = text.trim_ascii();
            let holds_object = text.starts_with(['{', '[']) && json::is_json(text);
            holds_object.then(|| descend(text, steps).map(|found| Cow::Owned(found.into_owned())))?
        }
        _ => None,
    }
}

/// The text of a scalar; `None` for null, objects and arrays.
fn scalar(value: &str) -> Option<Cow<'_, str>> {
    match value.as_bytes().first()? {
        b'"' => Some(json::decode(value)),
        b'{' | b'[' | b'n' => None,
        _ => Some(Cow::Borrowed(value)),
    }
}

/// Reads one JSON object, keeps the members that are asked for, skips the rest.
struct Object<'n, 'o, 'de> {
    names: &'n FieldNames,
    into: &'o mut Vec<[Option<&'de str>; 2]>,
    level: usize,
    /// Where to leave the text of the member `payload`, if that is an object.
    inner: Option<&'o mut Option<&'de str>>,
}

impl<'de> DeserializeSeed<'de> for Object<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        // Names are taken raw: one with a lone surrogate is a name that nobody asked for, and no reason to give up.
        while let Some(name) = map.next_key::<&'de RawValue>()? {
            let wanted = self.names.find(name.get());
            let nested = self.inner.is_some() && json::is_name(name.get(), "payload");
            if wanted.is_none() && !nested {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = map.next_value::<&'de RawValue>()?.get();
            if let Some(index) = wanted {
                self.into[index][self.level] = Some(value);
            }
            if nested && let Some(inner) = &mut self.inner {
                **inner = value.starts_with('{').then_some(value);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;
    use viaduct_poller::{ApiVersion, Entry, parse_entry};

    use super::*;
    use crate::config::FieldName;

    /// What a key finds in an event with this payload.
    fn found(payload: &str, path: &str) -> Option<String> {
        let Some(FieldName::Event(path)) = FieldName::parse(path) else { panic!("{path} is no path") };
        let mut names = FieldNames::default();
        let index = names.intern(&path);
        let raw =
            serde_json::json!({"eventId": "1-0", "eventType": "a.B", "schemaVersion": 1, "payload": payload});
        let entry = parse_entry(raw.to_string(), ApiVersion::V3, Instant::now());
        let Entry::Event(event) = entry else { panic!("no event") };
        let fields = Fields::of(&event, &names);
        fields.get(index, &names, &event).map(Cow::into_owned)
    }

    #[test]
    fn finds_scalars_on_all_levels_with_their_text() {
        let text =
            r#"{"userId":"u","interactionId":1,"payload":{"interactionId":12345678901234567890,"x":1.0}}"#;
        assert_eq!(found(text, "interactionId").as_deref(), Some("12345678901234567890"));
        assert_eq!(found(text, "payload.interactionId").as_deref(), Some("1"));
        assert_eq!(found(text, "payload.payload.interactionId").as_deref(), Some("12345678901234567890"));
        assert_eq!(found(text, "x").as_deref(), Some("1.0"));
        assert_eq!(found(text, "payload.x"), None);
        assert_eq!(found(text, "userId").as_deref(), Some("u"));
        assert_eq!(found(text, "eventId").as_deref(), Some("1-0"));
        assert_eq!(found(text, "schemaVersion").as_deref(), Some("1"));
        assert_eq!(found(text, "kind"), None);
    }

    #[test]
    fn a_path_goes_through_objects_arrays_and_strings_of_json() {
        let text = r#"{"payload":{"a":{"b":[{"c":7},{"c":"x","c":"y"}]},"entity":"{\"id\":\"user1\",\"n\":{\"v\":2}}"}}"#;
        assert_eq!(found(text, "a.b.0.c").as_deref(), Some("7"));
        assert_eq!(found(text, "a.b.1.c").as_deref(), Some("y"), "the last one counts");
        assert_eq!(found(text, "a.b.2.c"), None);
        assert_eq!(found(text, "payload.payload.a.b.0.c").as_deref(), Some("7"));
        assert_eq!(found(text, "entity.id").as_deref(), Some("user1"));
        assert_eq!(found(text, "entity.n.v").as_deref(), Some("2"));
        assert_eq!(found(text, "a.b"), None);
        let spaced = r#"{" automationScriptId ":"1030"}"#;
        assert_eq!(found(spaced, "\" automationScriptId \"").as_deref(), Some("1030"));
    }

    #[test]
    fn what_says_nothing_is_passed_over() {
        for nothing in ["null", "0", "\"0\"", "\"\"", "\" \"", "{}", "[1]"] {
            let text = format!(r#"{{"id":"outer","payload":{{"id":{nothing}}}}}"#);
            assert_eq!(found(&text, "id").as_deref(), Some("outer"), "{nothing}");
        }
        assert_eq!(found(r#"{"id":"00"}"#, "id").as_deref(), Some("00"));
        assert_eq!(found(r#"{"id":false}"#, "id").as_deref(), Some("false"));
    }

    #[test]
    fn integers_and_their_string_twins_are_equal() {
        let twins = r#"{"payload":{"interactionId":1030,"interactionIdRev":"1030"}}"#;
        assert_eq!(found(twins, "interactionId"), found(twins, "interactionIdRev"));
    }

    #[test]
    fn escapes_are_decoded_in_names_and_values() {
        assert_eq!(found(r#"{"a":"x\u00e9\n"}"#, "a").as_deref(), Some("xé\n"));
        assert_eq!(found(r#"{"\u0061":"x"}"#, "a").as_deref(), Some("x"));
        assert_eq!(found(r#"{"\ud800":1,"a":"\ud800"}"#, "a").as_deref(), Some("\u{fffd}"));
    }

    #[test]
    fn what_is_not_json_has_no_fields() {
        for text in [r#"{"a":"x","b":"#, r#"{"a":"x"} trailing"#, "plain text", ""] {
            assert_eq!(found(text, "a"), None, "{text}");
            assert_eq!(Fields::of_text(text, &FieldNames::default()).payload_json, None);
        }
    }

    #[test]
    fn any_json_is_json() {
        for text in [
            "123",
            "1e999",
            "null",
            "\"s\"",
            "[1,2]",
            " {} ",
            r#"{"payload":1e999}"#,
            r#"{"s":"\ud800"}"#,
            r#"{"\ud800":1}"#,
        ] {
            assert!(Fields::of_text(text, &FieldNames::default()).payload_json.is_some(), "{text}");
        }
    }

    fn member() -> impl Strategy<Value = String> {
        let value = prop_oneof![
            Just("1.0"),
            Just("\"x\""),
            Just("\"\\ud800\\n\""),
            Just("null"),
            Just("[1,{\"a\":2}]"),
            Just("01"),
            Just("\"\n\""),
        ];
        let name = || {
            prop_oneof![
                Just("a"),
                Just("b"),
                Just("payload"),
                Just("\\u0061"),
                Just("pay\\u006coad"),
                Just("c")
            ]
        };
        let inner = prop::collection::vec((name(), value.clone()), 0..4).prop_map(|members| {
            let members: Vec<_> =
                members.iter().map(|(name, value)| format!("\"{name}\" :{value}")).collect();
            format!("{{{}}}", members.join(","))
        });
        let value = prop_oneof![value.prop_map(str::to_owned), inner];
        (name(), value).prop_map(|(name, value)| format!("\"{name}\": {value}"))
    }

    proptest! {
        #[test]
        fn one_pass_finds_what_serde_json_does(members in prop::collection::vec(member(), 0..6), cut in 0usize..3) {
            let mut names = FieldNames::default();
            for path in ["a", "b", "payload"] {
                let Some(FieldName::Event(path)) = FieldName::parse(path) else { panic!("{path} is no path") };
                names.intern(&path);
            }
            let text = format!(" {{{}}} ", members.join(" ,"));
            let text = &text[..text.len() - cut];
            let parsed = Fields::parsed(text, &names);
            if let Some(scanned) = Fields::scanned(text, &names) {
                prop_assert_eq!(&scanned.found, &parsed.found);
                prop_assert_eq!(scanned.payload_json, parsed.payload_json);
            } else {
                prop_assert_eq!(parsed.payload_json, None, "the scanner gave up on {}", text);
            }
        }
    }
}
