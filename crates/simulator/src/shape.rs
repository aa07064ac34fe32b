//! The shapes of one entry of `events[]`: as documented, and odd ones.

use std::fmt::Write as _;

use crate::catalogue::escape;
use crate::fault::{Fault, Malformed};

/// How an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Plain,
    Malformed(Malformed),
    UnknownFields,
    UnknownType,
    Huge(usize),
    Unicode,
    ControlCharacters,
    DuplicateId,
}

/// The parts of an entry.
#[derive(Debug)]
pub(crate) struct Envelope<'a> {
    pub(crate) kind: &'a str,
    pub(crate) id: &'a str,
    pub(crate) correlation: &'a str,
    pub(crate) event_type: &'a str,
    pub(crate) published: &'a str,
    pub(crate) plain: &'a str,
    pub(crate) escaped: &'a str,
}

/// What was written, where it differs from the envelope.
#[derive(Debug)]
pub(crate) struct Written<'a> {
    pub(crate) event_type: &'a str,
    pub(crate) malformed: bool,
    pub(crate) has_id: bool,
    /// The payload's text, if it is not the envelope's.
    pub(crate) payload: Option<&'a str>,
}

/// Types that the document does not list in its "Event List" (the first is in one of its examples).
const UNKNOWN_TYPES: [&str; 4] =
    ["chat.SendText", "changeNotification.user", "engagementCenter.ToBeAnnounced", "typeWithoutCategory"];

const UNKNOWN_FIELDS: &str = r#"{"list":[1,2.50,12345678901234567890],"nothing":null,"flag":true}"#;
/// Emoji, right to left, combining, line separators that JavaScript minds, and an escaped surrogate pair.
const UNICODE: &str = "\"Grüße, 你好, שלום, e\u{301}, \u{1F600}\u{1F468}\u{200D}\u{1F469}, \u{2028}\u{2029}\u{FEFF}, \\ud83d\\ude00\"";
const CONTROL_CHARACTERS: &str =
    r#""nul \u0000 bell \u0007 tab \t newline \r\n escape \u001b[31m delete \u007f""#;
const NOT_JSON: &str = "{\"userId\": unterminated";

impl Shape {
    /// The shape that a fault asks for, if it is about the shape of an event.
    pub(crate) fn of(fault: &Fault) -> Option<Self> {
        Some(match fault {
            Fault::Malformed(how) => Self::Malformed(*how),
            Fault::UnknownFields => Self::UnknownFields,
            Fault::UnknownType => Self::UnknownType,
            Fault::Huge(bytes) => Self::Huge(*bytes),
            Fault::Unicode => Self::Unicode,
            Fault::ControlCharacters => Self::ControlCharacters,
            Fault::DuplicateId => Self::DuplicateId,
            _ => return None,
        })
    }

    /// Adds to a payload what the shape adds to it.
    pub(crate) fn extend_payload(self, plain: &mut String, escaped: &mut String) {
        match self {
            Self::UnknownFields => add_field("futureField", UNKNOWN_FIELDS, plain, escaped),
            Self::Unicode => add_field("text", UNICODE, plain, escaped),
            Self::ControlCharacters => add_field("text", CONTROL_CHARACTERS, plain, escaped),
            Self::Huge(bytes) => {
                let fill = "huge ".repeat(bytes.saturating_sub(plain.len()).div_ceil(5));
                add_field("text", &format!("\"{fill}\""), plain, escaped);
            }
            Self::Plain | Self::Malformed(_) | Self::UnknownType | Self::DuplicateId => {}
        }
    }

    /// Writes the entry in the v3 shape. `turn` counts odd shapes, for those that come in several kinds.
    pub(crate) fn write<'a>(self, envelope: &Envelope<'a>, turn: u64, out: &mut String) -> Written<'a> {
        let mut written =
            Written { event_type: envelope.event_type, malformed: false, has_id: true, payload: None };
        if let Self::Malformed(how) = self {
            written.malformed = true;
            match how {
                Malformed::NoType | Malformed::TypeNumber => written.event_type = "",
                Malformed::NoId | Malformed::IdNumber => written.has_id = false,
                Malformed::NotAnObject | Malformed::Null => {
                    (written.has_id, written.event_type, written.payload) = (false, "", Some(""));
                }
                Malformed::NoPayload => written.payload = Some(""),
                Malformed::PayloadObject => {}
                Malformed::PayloadText => written.payload = Some(NOT_JSON),
            }
            match how {
                Malformed::Null => out.push_str("null"),
                // Writing to a String cannot fail.
                Malformed::NotAnObject => drop(write!(out, "\"event {}\"", envelope.id)),
                _ => write_malformed(how, envelope, out),
            }
            return written;
        }
        if self == Self::UnknownType {
            written.event_type = UNKNOWN_TYPES[turn as usize % UNKNOWN_TYPES.len()];
            let category = written.event_type.split('.').next().unwrap_or_default();
            let _ = write!(out, "{{\"kind\":\"via#{category}Event");
        } else {
            out.push_str("{\"kind\":\"");
            out.push_str(envelope.kind);
        }
        // The way that nearly every event takes: copies, no formatting.
        for part in [
            "\",\"eventId\":\"",
            envelope.id,
            "\",\"correlationId\":\"",
            envelope.correlation,
            "\",\"eventType\":\"",
            written.event_type,
            "\",\"publishedTime\":\"",
            envelope.published,
            "\",\"schemaVersion\":\"1\"",
        ] {
            out.push_str(part);
        }
        if self == Self::UnknownFields {
            let _ = write!(out, ",\"futureField\":{UNKNOWN_FIELDS}");
        }
        payload(Some(envelope.escaped), out);
        written
    }
}

fn payload(escaped: Option<&str>, out: &mut String) {
    if let Some(escaped) = escaped {
        out.push_str(",\"payload\":\"");
        out.push_str(escaped);
        out.push('"');
    }
    out.push('}');
}

fn write_malformed(how: Malformed, envelope: &Envelope<'_>, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{{\"kind\":\"{}\"", envelope.kind);
    let _ = match how {
        Malformed::NoId => Ok(()),
        Malformed::IdNumber => write!(out, ",\"eventId\":{}", envelope.id.replace('-', "")),
        _ => write!(out, ",\"eventId\":\"{}\"", envelope.id),
    };
    let _ = write!(out, ",\"correlationId\":\"{}\"", envelope.correlation);
    let _ = match how {
        Malformed::NoType => Ok(()),
        Malformed::TypeNumber => write!(out, ",\"eventType\":17"),
        _ => write!(out, ",\"eventType\":\"{}\"", envelope.event_type),
    };
    let _ = write!(out, ",\"publishedTime\":\"{}\",\"schemaVersion\":\"1\"", envelope.published);
    match how {
        Malformed::NoPayload => payload(None, out),
        Malformed::PayloadText => payload(Some(&escape(NOT_JSON)), out),
        Malformed::PayloadObject => {
            let _ = write!(out, ",\"payload\":{}}}", envelope.plain);
        }
        _ => payload(Some(envelope.escaped), out),
    }
}

/// Adds a field at the end of a JSON object that has at least one, in both forms. `value` is JSON.
pub(crate) fn add_field(name: &str, value: &str, plain: &mut String, escaped: &mut String) {
    plain.pop();
    escaped.pop();
    let field = format!(",\"{name}\":{value}}}");
    escaped.push_str(&escape(&field));
    plain.push_str(&field);
}

/// An entry in the v2 shape: `id` and `type` for `eventId` and `eventType`, and no `correlationId`. Vendor document,
/// schemas EventPayload and EventPayloadV3.
pub(crate) fn as_v2(entry: &str) -> String {
    let (head, tail) = entry.split_at(entry.find("\"publishedTime\"").unwrap_or(entry.len()));
    let mut head = head.replacen("\"eventId\":", "\"id\":", 1).replacen("\"eventType\":", "\"type\":", 1);
    if let Some(from) = head.find("\"correlationId\":\"")
        && let Some(length) = head[from + 17..].find("\",")
    {
        head.replace_range(from..from + 17 + length + 2, "");
    }
    head.push_str(tail);
    head
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const PLAIN: &str = r#"{"userId":"u1","payload":{}}"#;

    fn entry(shape: Shape) -> (Value, String) {
        let (mut plain, mut escaped) = (PLAIN.to_owned(), escape(PLAIN));
        shape.extend_payload(&mut plain, &mut escaped);
        let envelope = Envelope {
            kind: "via#engagementCenterEvent",
            id: "1519073278252-0",
            correlation: "def61349",
            event_type: "engagementCenter.Idle",
            published: "2018-01-30T14:04:20.539Z",
            plain: &plain,
            escaped: &escaped,
        };
        let mut out = String::new();
        shape.write(&envelope, 0, &mut out);
        (serde_json::from_str(&out).unwrap(), plain)
    }

    #[test]
    fn the_documented_shapes() {
        let (value, _) = entry(Shape::Plain);
        let keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            ["correlationId", "eventId", "eventType", "kind", "payload", "publishedTime", "schemaVersion"]
        );
        assert_eq!(value["payload"], PLAIN);
        let v2: Value = serde_json::from_str(&as_v2(
            r#"{"kind":"via#x","eventId":"1-0","correlationId":"c","eventType":"a.b","publishedTime":"t","schemaVersion":"1","payload":"{}"}"#,
        ))
        .unwrap();
        let keys: Vec<_> = v2.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["id", "kind", "payload", "publishedTime", "schemaVersion", "type"]);
    }

    #[test]
    fn odd_contents_are_valid_json_all_the_way_down() {
        for shape in [Shape::UnknownFields, Shape::Unicode, Shape::ControlCharacters, Shape::Huge(100_000)] {
            let (value, plain) = entry(shape);
            assert_eq!(value["payload"], plain);
            let inner: Value = serde_json::from_str(value["payload"].as_str().unwrap()).unwrap();
            assert_eq!(inner["userId"], "u1");
        }
        assert!(entry(Shape::Huge(100_000)).1.len() >= 100_000);
        let control: Value = serde_json::from_str(&entry(Shape::ControlCharacters).1).unwrap();
        assert!(control["text"].as_str().unwrap().contains('\0'));
    }

    #[test]
    fn malformed_entries_lack_what_they_say() {
        let malformed = |how| entry(Shape::Malformed(how)).0;
        assert!(malformed(Malformed::NoType).get("eventType").is_none());
        assert!(malformed(Malformed::TypeNumber)["eventType"].is_number());
        assert!(malformed(Malformed::NoId).get("eventId").is_none());
        assert!(malformed(Malformed::IdNumber)["eventId"].is_number());
        assert!(malformed(Malformed::NotAnObject).is_string());
        assert!(malformed(Malformed::Null).is_null());
        assert!(malformed(Malformed::NoPayload).get("payload").is_none());
        assert!(malformed(Malformed::PayloadObject)["payload"].is_object());
        let text = malformed(Malformed::PayloadText)["payload"].as_str().unwrap().to_owned();
        assert!(serde_json::from_str::<Value>(&text).is_err());
    }
}
