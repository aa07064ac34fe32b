//! Where a payload is not as the table says.
//!
//! What is reported as [`Problem::WrongType`] or [`Problem::UnknownValue`] is what [`crate::payload_schema`] refuses;
//! [`Problem::UnknownField`] is what it lets through, because the vendor may add fields. A test holds both to that.

use std::fmt;

use serde_json::{Map, Value};

use crate::event::{EventType, Field};

/// One difference between a payload and the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Drift<'p> {
    /// The documented field that it is about; for an unknown field, the one that it stands in. `$` is the payload itself.
    /// One of a bounded set of names, whatever the payload says.
    pub field: &'static str,
    /// What is wrong.
    pub problem: Problem,
    /// The key of an unknown field, as the payload has it.
    pub unknown_key: Option<&'p str>,
}

/// What is wrong about a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Problem {
    /// Its value has another type than the document's table and examples show.
    WrongType,
    /// Its value is not in the document's list.
    UnknownValue,
    /// It holds a member that the document does not know.
    UnknownField,
}

impl Problem {
    /// The word for labels and logs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::WrongType => "wrong_type",
            Self::UnknownValue => "unknown_value",
            Self::UnknownField => "unknown_field",
        }
    }

    /// Whether the type's JSON Schema refuses a payload for it.
    #[must_use]
    pub const fn is_mismatch(self) -> bool {
        !matches!(self, Self::UnknownField)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl fmt::Display for Drift<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

/// The payload itself.
const ROOT: &str = "$";

impl EventType {
    /// Where `payload` is not as documented; empty: nowhere.
    #[must_use]
    pub fn drift<'p>(&'static self, payload: &'p Value) -> Vec<Drift<'p>> {
        let mut found = Vec::new();
        match payload {
            Value::Object(members) => object(ROOT, &self.fields, members, &mut found),
            _ => found.push(Drift { field: ROOT, problem: Problem::WrongType, unknown_key: None }),
        }
        found
    }
}

fn object<'p>(
    at: &'static str,
    known: &'static [Field],
    members: &'p Map<String, Value>,
    found: &mut Vec<Drift<'p>>,
) {
    for (key, value) in members {
        match known.iter().find(|field| field.name == *key) {
            Some(documented) => field(documented, value, found),
            None => found.push(Drift { field: at, problem: Problem::UnknownField, unknown_key: Some(key) }),
        }
    }
}

fn field<'p>(documented: &'static Field, value: &'p Value, found: &mut Vec<Drift<'p>>) {
    let at = documented.path.as_str();
    if !documented.types.iter().any(|kind| kind.fits(value)) {
        return found.push(Drift { field: at, problem: Problem::WrongType, unknown_key: None });
    }
    if !documented.values.is_empty() && !documented.values.contains(value) {
        found.push(Drift { field: at, problem: Problem::UnknownValue, unknown_key: None });
    }
    match value {
        Value::Object(members) => object(at, &documented.members, members, found),
        Value::Array(elements) => {
            for element in elements {
                match element {
                    Value::Object(members) => object(at, &documented.members, members, found),
                    _ => found.push(Drift { field: at, problem: Problem::WrongType, unknown_key: None }),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{JsonType, events, find};

    fn drift(event_type: &str, payload: &Value) -> Vec<String> {
        let event = find(event_type).expect("a known type");
        event.drift(payload).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn no_example_of_the_document_drifts() {
        for event in events() {
            for example in event.examples.iter().chain(&event.described) {
                let payload: Value = serde_json::from_str(example).expect("JSON");
                assert_eq!(event.drift(&payload), [], "{}: {example}", event.event_type);
            }
        }
    }

    #[test]
    fn every_kind_of_drift_is_named_with_its_field() {
        let none: [&str; 0] = [];
        assert_eq!(drift("engagementCenter.Idle", &json!({})), none);
        assert_eq!(drift("engagementCenter.Idle", &json!([])), ["$: wrong_type"]);
        assert_eq!(drift("engagementCenter.Idle", &json!({"userId": null})), ["userId: wrong_type"]);
        assert_eq!(drift("engagementCenter.Idle", &json!({"new": 1})), ["$: unknown_field"]);
        assert_eq!(
            drift("engagementCenter.Dialing", &json!({"payload": {"mediaType": "Smoke"}})),
            ["payload.mediaType: unknown_value"]
        );
        let data = json!({"payload": {"interactionData": [{"key": 1, "more": 2}, "x"]}});
        assert_eq!(
            drift("engagementCenter.ConsultInitiated", &data),
            [
                "payload.interactionData[].key: wrong_type",
                "payload.interactionData: unknown_field",
                "payload.interactionData: wrong_type"
            ]
        );
    }

    #[test]
    fn an_integer_is_what_json_schema_calls_one() {
        for (value, fits) in [("1", true), ("1.0", true), ("12345678901234567890123", true), ("1.5", false)] {
            let value: Value = serde_json::from_str(value).expect("JSON");
            assert_eq!(JsonType::Integer.fits(&value), fits, "{value}");
        }
    }
}
