//! What of a record anybody may see who reaches the admin port: what an event is and how it is built, not what it says.
//!
//! What stays is listed, everything else is covered: a field that the vendor adds tomorrow is covered tomorrow.

use serde::de::IgnoredAny;

use super::Content;
use crate::config::Format;

/// Stands for a text.
pub(super) const COVER: &str = "•••";

/// Members of the vendor's event object that stay, in the words of v3 and v2 (vendor document, "Event").
const ENVELOPE: &[&str] = &["kind", "eventId", "id", "eventType", "type", "publishedTime", "schemaVersion"];
/// Attributes of a structured event that stay.
const ATTRIBUTES: &[&str] =
    &["specversion", "id", "source", "type", "time", "schemaversion", "datacontenttype", "traceparent"];
/// Headers that stay beside those of the attributes. Not among them are the subject, which is the key, and `Nats-Msg-Id`,
/// whose hash could be used to try what the payload may be.
const HEADERS: &[&str] = &[
    "content-type",
    "traceparent",
    "Nats-Expected-Stream",
    "viaduct-source",
    "viaduct-reason",
    "viaduct-destination",
    "viaduct-time",
    "viaduct-masks",
    "__connect.errors.topic",
    "__connect.errors.class.name",
    "__connect.errors.exception.message",
    "__connect.errors.stage",
];

/// Whether the value of a header stays.
pub(super) fn is_plain_header(name: &str) -> bool {
    let own = name.strip_prefix("ce_").or_else(|| name.strip_prefix("ce-"));
    match own {
        Some(attribute) => ATTRIBUTES.contains(&attribute),
        None => HEADERS.contains(&name),
    }
}

/// A value with every text, number and truth covered, but for the members of the envelope that stay.
pub(super) fn value(value: &str, content: Content) -> String {
    let plain = match content {
        Content::Event(Format::Unwrapped | Format::Raw) | Content::DeadLetter => ENVELOPE,
        Content::Event(Format::CloudEvents) => ATTRIBUTES,
        Content::Event(Format::Payload) => &[],
    };
    if serde_json::from_str::<IgnoredAny>(value).is_err() {
        return COVER.to_owned();
    }
    cover(value, plain)
}

/// JSON text, token by token. Members of the outermost object whose names are `plain` keep values that have no members.
fn cover(json: &str, plain: &[&str]) -> String {
    let mut covered = String::with_capacity(json.len());
    let mut rest = json;
    let mut depth = 0usize;
    let mut member = "";
    while let Some(first) = rest.chars().next() {
        let length = token(rest, first);
        let (text, after) = rest.split_at(length);
        rest = after;
        let stays = depth == 1 && plain.contains(&member);
        match first {
            '"' if after.trim_start().starts_with(':') => {
                if depth == 1 {
                    member = &text[1..text.len() - 1];
                }
                covered.push_str(text);
            }
            '{' | '[' => {
                depth += 1;
                covered.push_str(text);
            }
            '}' | ']' => {
                depth -= 1;
                covered.push_str(text);
            }
            '"' if !stays => {
                covered.push('"');
                covered.push_str(COVER);
                covered.push('"');
            }
            't' | 'f' if !stays => covered.push_str("false"),
            '-' | '0'..='9' if !stays => covered.push('0'),
            _ => covered.push_str(text),
        }
    }
    covered
}

/// How many bytes the token takes that begins the text with `first`.
fn token(text: &str, first: char) -> usize {
    match first {
        '"' => {
            let mut escaped = false;
            let end = text.bytes().skip(1).position(|byte| {
                let is_end = byte == b'"' && !escaped;
                escaped = byte == b'\\' && !escaped;
                is_end
            });
            end.map_or(text.len(), |end| end + 2)
        }
        '-' | '0'..='9' | 'a'..='z' => {
            let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
            text.bytes().take_while(|&byte| is_part(byte)).count()
        }
        other => other.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const EVENT: Content = Content::Event(Format::Unwrapped);

    #[test]
    fn the_envelope_stays_and_the_payload_is_its_structure() {
        let event = r#"{"eventId":"7-0", "eventType":"a.B","correlationId":"c","publishedTime":"2018","schemaVersion":1,
            "payload":{"eventType":"x\"{","phone":"+49","n":[-1.5e+3,true,null,{}],"a b":""},"type":{"id":"x"},"kind":[1]}"#;
        assert_eq!(
            value(event, EVENT),
            r#"{"eventId":"7-0", "eventType":"a.B","correlationId":"•••","publishedTime":"2018","schemaVersion":1,
            "payload":{"eventType":"•••","phone":"•••","n":[0,false,null,{}],"a b":"•••"},"type":{"id":"•••"},"kind":[0]}"#
        );
        let raw = r#"{"eventId":"7-0","payload":"{\"phone\":\"+49\"}","event\u0054ype":"x"}"#;
        assert_eq!(
            value(raw, Content::Event(Format::Raw)),
            r#"{"eventId":"7-0","payload":"•••","event\u0054ype":"•••"}"#
        );
    }

    #[test]
    fn a_payload_has_no_envelope() {
        let payload = r#"{"id":"x","eventType":1}"#;
        assert_eq!(value(payload, Content::Event(Format::Payload)), r#"{"id":"•••","eventType":0}"#);
        for (text, covered) in
            [("\"x\"", "\"•••\""), ("12", "0"), ("null", "null"), ("no JSON", "•••"), ("", "•••")]
        {
            assert_eq!(value(text, Content::Event(Format::Payload)), covered);
        }
    }

    #[test]
    fn of_a_structured_event_the_subject_goes() {
        let event = r#"{"specversion":"1.0","id":"7","subject":"k","correlationid":"c","data":{"id":"x"}}"#;
        let covered =
            r#"{"specversion":"1.0","id":"7","subject":"•••","correlationid":"•••","data":{"id":"•••"}}"#;
        assert_eq!(value(event, Content::Event(Format::CloudEvents)), covered);
    }

    #[test]
    fn headers_that_say_what_the_event_is_stay() {
        for name in
            ["ce_id", "ce-type", "content-type", "traceparent", "viaduct-reason", "Nats-Expected-Stream"]
        {
            assert!(is_plain_header(name), "{name}");
        }
        for name in
            ["ce_subject", "ce-correlationid", "Nats-Msg-Id", "viaduct-session", "x-agent", "id", "source"]
        {
            assert!(!is_plain_header(name), "{name}");
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// The same without what it says.
    fn bare(value: &Value) -> Value {
        match value {
            Value::Null => Value::Null,
            Value::Bool(_) => false.into(),
            Value::Number(_) => 0.into(),
            Value::String(_) => COVER.into(),
            Value::Array(items) => items.iter().map(bare).collect(),
            Value::Object(members) => {
                Value::Object(members.iter().map(|(name, value)| (name.clone(), bare(value))).collect())
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_json_it_is_only_its_structure_stays(json in json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&json) } else { serde_json::to_string(&json) }.unwrap();
            let covered: Value = serde_json::from_str(&value(&text, Content::Event(Format::Payload))).unwrap();
            prop_assert_eq!(covered, bare(&json));
        }
    }
}
