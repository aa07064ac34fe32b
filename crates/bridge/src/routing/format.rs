//! Values: the vendor's event as a route asks for it.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use viaduct_poller::{ApiVersion, Event};

use super::fields::Fields;
use crate::config::Format;

/// The value of `event` in `format`.
pub(crate) fn value(format: Format, event: &Event, fields: &Fields<'_>) -> Bytes {
    match format {
        Format::Raw => Bytes::copy_from_slice(event.raw().as_bytes()),
        Format::Unwrapped => Bytes::from(unwrapped(event, fields).into_bytes()),
    }
}

/// The event object with `payload` as JSON instead of a string of JSON. A payload that is not JSON stays a string;
/// nothing else changes, number text and key order included.
fn unwrapped(event: &Event, fields: &Fields<'_>) -> String {
    let raw = event.raw();
    let value = match (event.payload_span(), fields.payload_json) {
        (Some(span), Some(json)) => {
            let mut value = String::with_capacity(raw.len());
            value.push_str(&raw[..span.start]);
            value.push_str(json);
            value.push_str(&raw[span.end..]);
            Cow::Owned(value)
        }
        _ => Cow::Borrowed(raw),
    };
    match event.api() {
        ApiVersion::V3 => value.into_owned(),
        ApiVersion::V2 => with_v3_names(&value).unwrap_or_else(|_| value.into_owned()),
    }
}

/// A v2 event with the member names of v3: `id` → `eventId`, `type` → `eventType` (vendor document, "Migrating from V2
/// to V3 API").
fn with_v3_names(object: &str) -> Result<String, serde_json::Error> {
    struct Members<'de>(Vec<(String, &'de RawValue)>);

    impl<'de> serde::Deserialize<'de> for Members<'de> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct MembersVisitor;
            impl<'de> Visitor<'de> for MembersVisitor {
                type Value = Members<'de>;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a JSON object")
                }

                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                    let mut members = Vec::with_capacity(8);
                    while let Some(member) = map.next_entry()? {
                        members.push(member);
                    }
                    Ok(Members(members))
                }
            }
            deserializer.deserialize_map(MembersVisitor)
        }
    }

    let members: Members<'_> = serde_json::from_str(object)?;
    let mut out = String::with_capacity(object.len() + 16);
    out.push('{');
    for (position, (name, value)) in members.0.iter().enumerate() {
        if position > 0 {
            out.push(',');
        }
        let name = match name.as_str() {
            "id" => "eventId",
            "type" => "eventType",
            other => other,
        };
        out.push_str(&serde_json::to_string(name)?);
        out.push(':');
        out.push_str(value.get());
    }
    out.push('}');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v2_names_become_v3_names_and_nothing_else_changes() {
        let v2 = r#"{"kind":"k","id":"1","type":"chat.SendText","n":1.0,"big":12345678901234567890,"payload":{"id":"x","type":1}}"#;
        assert_eq!(
            with_v3_names(v2).unwrap(),
            r#"{"kind":"k","eventId":"1","eventType":"chat.SendText","n":1.0,"big":12345678901234567890,"payload":{"id":"x","type":1}}"#
        );
    }
}
