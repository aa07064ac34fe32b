//! Values: the vendor's event as a route asks for it.
//!
//! Nothing here parses a payload into values and prints them again: pieces of the vendor's text are put together, so
//! that numbers, escapes, the order of members and members that occur twice stay as they were.

use bytes::Bytes;
use viaduct_poller::{ApiVersion, Event, Payload};

use super::fields::Fields;
use super::json::{self, Edit};

/// The vendor's event object, byte for byte.
pub(super) fn raw(event: &Event) -> Bytes {
    Bytes::copy_from_slice(event.raw().as_bytes())
}

/// The payload alone: its JSON; `null` where there is none; the string that the vendor sent where that is not JSON.
pub(super) fn payload(event: &Event, fields: &Fields<'_>) -> Bytes {
    Bytes::copy_from_slice(payload_text(event, fields).as_bytes())
}

/// The JSON text of the payload, see [`payload`].
pub(super) fn payload_text<'a>(event: &'a Event, fields: &Fields<'a>) -> &'a str {
    match (event.payload(), fields.payload_json, event.payload_span()) {
        (Payload::Missing | Payload::Null, ..) => "null",
        (Payload::Json(text), ..) | (Payload::Text(_), Some(text), _) => text,
        (Payload::Text(_), None, Some(literal)) => &event.raw()[literal],
        (Payload::Text(_), None, None) => "\"\"",
    }
}

/// The event object with `payload` as JSON instead of a string of JSON. A payload that is not JSON stays a string;
/// nothing else changes, but for the names of v2.
pub(super) fn unwrapped(event: &Event, fields: &Fields<'_>) -> Bytes {
    let raw = event.raw();
    let value = match (event.api(), event.payload_span(), fields.payload_json) {
        (ApiVersion::V2, ..) => json::edited(raw, &v3_edits(event, fields)),
        (ApiVersion::V3, Some(span), Some(json)) => {
            // The very size: what has room to spare costs an allocation more when it is shared.
            let mut value = String::with_capacity(span.start + json.len() + raw.len() - span.end);
            value.push_str(&raw[..span.start]);
            value.push_str(json);
            value.push_str(&raw[span.end..]);
            value
        }
        (ApiVersion::V3, ..) => raw.to_owned(),
    };
    Bytes::from(value.into_bytes())
}

/// What makes a v2 event one of v3: `id` → `eventId`, `type` → `eventType` (vendor document, "Migrating from V2 to V3
/// API"), and the payload unwrapped.
fn v3_edits(event: &Event, fields: &Fields<'_>) -> Vec<Edit> {
    let raw = event.raw();
    let span = event.payload_span();
    let mut edits = Vec::with_capacity(3);
    for member in json::members(raw, json::skip_space(raw, 0)) {
        let name = &raw[member.name.clone()];
        let v3_name = match name {
            name if json::is_name(name, "id") => Some("\"eventId\""),
            name if json::is_name(name, "type") => Some("\"eventType\""),
            _ => None,
        };
        edits.extend(v3_name.map(|name| Edit { place: member.name, text: name.to_owned() }));
        if let Some(json) = fields.payload_json
            && Some(&member.value) == span.as_ref()
        {
            edits.push(Edit { place: member.value, text: json.to_owned() });
        }
    }
    edits
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
