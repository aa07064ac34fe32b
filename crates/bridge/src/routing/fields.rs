//! Finds the fields that keys and templates name, in one pass over a payload and without building a tree.
//!
//! A field is looked up in the inner `payload.payload`, then in `payload`, then in the envelope; the first usable
//! value counts. Usable means: a scalar that is present and not null, empty, `0` or `"0"`, because the vendor writes 0
//! for "no interaction". Numbers keep their text, so an integer and its string twin give the same value.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use viaduct_poller::{Event, Payload};

/// The names that any key or template of a source's routes mentions.
#[derive(Debug, Default)]
pub(crate) struct FieldNames {
    names: Vec<Box<str>>,
}

/// The place of a name in [`FieldNames`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FieldIndex(usize);

impl FieldNames {
    /// Adds a name, once.
    pub(crate) fn intern(&mut self, name: &str) -> FieldIndex {
        let position = self.names.iter().position(|known| **known == *name).unwrap_or_else(|| {
            self.names.push(name.into());
            self.names.len() - 1
        });
        FieldIndex(position)
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| **known == *name)
    }
}

/// The values found in one event.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    inner: Vec<Option<Cow<'a, str>>>,
    outer: Vec<Option<Cow<'a, str>>>,
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
        let mut fields = Self {
            inner: vec![None; names.names.len()],
            outer: vec![None; names.names.len()],
            payload_json: None,
        };
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let read = if text.trim_start().starts_with('{') {
            let mut inner_object = None;
            let object = Object { names, into: &mut fields.outer, inner: Some(&mut inner_object) };
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
                    let object = Object { names, into: &mut fields.inner, inner: None };
                    // It was scanned as valid JSON a moment ago.
                    let _ = object.deserialize(&mut serde_json::Deserializer::from_str(inner));
                }
            }
            // Half an object is no object: a field of it would be a guess.
            Err(_) => fields.outer.fill(None),
        }
        fields
    }

    /// The first usable value of a field in payload or envelope.
    pub(crate) fn get<'s>(
        &'s self,
        index: FieldIndex,
        names: &FieldNames,
        event: &'s Event,
    ) -> Option<&'s str> {
        usable(self.inner[index.0].as_deref())
            .or_else(|| usable(self.outer[index.0].as_deref()))
            .or_else(|| usable(envelope(&names.names[index.0], event)))
    }
}

fn usable(value: Option<&str>) -> Option<&str> {
    value.filter(|value| !value.is_empty() && *value != "0")
}

fn envelope<'e>(name: &str, event: &'e Event) -> Option<&'e str> {
    match name {
        "eventId" => Some(event.id()),
        "eventType" => Some(event.event_type()),
        "kind" => event.kind(),
        "correlationId" => event.correlation_id(),
        "publishedTime" => event.published_time(),
        "schemaVersion" => event.schema_version(),
        _ => None,
    }
}

/// Reads one JSON object, keeps the scalars that are asked for, skips the rest.
struct Object<'n, 'o, 'de> {
    names: &'n FieldNames,
    into: &'o mut Vec<Option<Cow<'de, str>>>,
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
        while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
            let wanted = self.names.find(&key);
            let nested = self.inner.is_some() && key == "payload";
            if wanted.is_none() && !nested {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let raw = map.next_value::<&'de RawValue>()?.get();
            if let Some(index) = wanted {
                self.into[index] = scalar(raw);
            }
            if nested && let Some(inner) = &mut self.inner {
                **inner = raw.starts_with('{').then_some(raw);
            }
        }
        Ok(())
    }
}

/// A member name, borrowed unless it has escapes.
struct Key<'de>(Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// The text of a scalar; `None` for null, objects and arrays.
fn scalar(raw: &str) -> Option<Cow<'_, str>> {
    match raw.as_bytes().first()? {
        b'"' => {
            let plain = &raw[1..raw.len() - 1];
            if plain.contains('\\') {
                serde_json::from_str(raw).ok().map(Cow::Owned)
            } else {
                Some(Cow::Borrowed(plain))
            }
        }
        b'{' | b'[' | b'n' => None,
        _ => Some(Cow::Borrowed(raw)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, name: &str) -> (Option<String>, Option<String>, bool) {
        let mut names = FieldNames::default();
        let index = names.intern(name);
        let fields = Fields::of_text(text, &names);
        (
            fields.inner[index.0].as_deref().map(str::to_owned),
            fields.outer[index.0].as_deref().map(str::to_owned),
            fields.payload_json.is_some(),
        )
    }

    #[test]
    fn finds_scalars_on_both_levels_with_their_text() {
        let text =
            r#"{"userId":"u","interactionId":1,"payload":{"interactionId":12345678901234567890,"x":1.0}}"#;
        assert_eq!(
            read(text, "interactionId"),
            (Some("12345678901234567890".into()), Some("1".into()), true)
        );
        assert_eq!(read(text, "x"), (Some("1.0".into()), None, true));
        assert_eq!(read(text, "userId"), (None, Some("u".into()), true));
    }

    #[test]
    fn escapes_are_decoded_and_structures_are_no_values() {
        assert_eq!(read(r#"{"a":"x\u00e9\n"}"#, "a").1.as_deref(), Some("xé\n"));
        assert_eq!(read(r#"{"\u0061":"x"}"#, "a").1.as_deref(), Some("x"));
        assert_eq!(read(r#"{"a":{}}"#, "a").1, None);
        assert_eq!(read(r#"{"a":[1]}"#, "a").1, None);
        assert_eq!(read(r#"{"a":null}"#, "a").1, None);
        assert_eq!(read(r#"{"a":true}"#, "a").1.as_deref(), Some("true"));
    }

    #[test]
    fn what_is_not_json_has_no_fields() {
        assert_eq!(read(r#"{"a":"x","b":"#, "a"), (None, None, false));
        assert_eq!(read(r#"{"a":"x"} trailing"#, "a"), (None, None, false));
        assert_eq!(read("plain text", "a"), (None, None, false));
        assert_eq!(read("", "a"), (None, None, false));
    }

    #[test]
    fn any_json_is_json() {
        for text in
            ["123", "1e999", "null", "\"s\"", "[1,2]", " {} ", r#"{"payload":1e999}"#, r#"{"s":"\ud800"}"#]
        {
            assert!(read(text, "a").2, "{text}");
        }
    }

    #[test]
    fn zero_and_empty_are_not_usable() {
        assert_eq!(usable(Some("0")), None);
        assert_eq!(usable(Some("")), None);
        assert_eq!(usable(Some("00")), Some("00"));
    }
}
