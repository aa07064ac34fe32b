//! JSON Schemas (2020-12) of payloads and of the records that carry them.
//!
//! They are open: no field is required and unknown ones are allowed, as the vendor's document has it.

use serde_json::{Map, Value, json};

use crate::event::{EventType, Field, JsonType};
use crate::table::{envelope, events};

/// The dialect of every schema here.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// How a record's value carries an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The event object, its payload as JSON.
    Unwrapped,
    /// The event object, its payload as a string of JSON.
    Raw,
    /// The payload alone.
    Payload,
    /// Structured CloudEvents 1.0, the payload as `data`.
    CloudEvents,
}

/// The schema of a type's payload.
#[must_use]
pub fn payload_schema(event: &EventType) -> Value {
    let mut schema = payload(event);
    schema.insert("$schema".to_owned(), DIALECT.into());
    Value::Object(schema)
}

/// All payload schemas in one document, under `$defs` by event type.
#[must_use]
pub fn bundle() -> Value {
    let definitions: Map<_, _> =
        events().iter().map(|event| (event.event_type.clone(), Value::Object(payload(event)))).collect();
    json!({
        "$schema": DIALECT,
        "title": "Payloads of the Alvaria Cloud event stream",
        "description": "One definition per eventType. From the Alvaria Cloud Streaming Client REST API, © Alvaria, CC BY 4.0.",
        "$defs": definitions,
    })
}

/// The schema of a record's value that carries an event of this type. `payload` is what stands for the payload's schema:
/// the schema itself, or a reference to it.
#[must_use]
pub fn record_schema(event: &EventType, form: Form, payload: Value) -> Value {
    match form {
        Form::Payload => payload,
        Form::Unwrapped | Form::Raw => {
            let mut members = properties(envelope());
            members.insert("eventType".to_owned(), json!({"const": event.event_type}));
            let payload = match form {
                Form::Raw => json!({
                    "type": "string", "contentMediaType": "application/json", "contentSchema": payload,
                }),
                _ => payload,
            };
            members.insert("payload".to_owned(), payload);
            // Not correlationId: events of v2 have none.
            let required = ["kind", "eventId", "eventType", "publishedTime", "schemaVersion", "payload"];
            json!({"type": "object", "properties": members, "required": required})
        }
        Form::CloudEvents => json!({
            "type": "object",
            "properties": {
                "specversion": {"const": "1.0"},
                "id": {"type": "string", "minLength": 1},
                "source": {"type": "string", "format": "uri-reference"},
                "type": {"const": format!("com.alvaria.{}", event.event_type)},
                "subject": {"type": "string"},
                "time": {"type": "string", "format": "date-time"},
                "datacontenttype": {"type": "string"},
                "correlationid": {"type": "string"},
                "schemaversion": {"type": "string"},
                "data": payload,
            },
            "required": ["specversion", "id", "source", "type"],
        }),
    }
}

fn payload(event: &EventType) -> Map<String, Value> {
    let examples: Vec<Value> =
        event.examples.iter().filter_map(|example| serde_json::from_str(example).ok()).collect();
    let mut schema = Map::new();
    schema.insert("title".to_owned(), event.event_type.clone().into());
    schema.insert("description".to_owned(), event.about.clone().into());
    schema.insert("type".to_owned(), "object".into());
    schema.insert("properties".to_owned(), properties(&event.fields).into());
    schema.insert("examples".to_owned(), examples.into());
    schema
}

fn properties(fields: &[Field]) -> Map<String, Value> {
    fields.iter().map(|field| (field.name.clone(), Value::Object(property(field)))).collect()
}

fn property(field: &Field) -> Map<String, Value> {
    let mut schema = Map::new();
    let types: Vec<Value> = field.types.iter().map(|kind| kind.schema_word().into()).collect();
    let types = match types.as_slice() {
        [one] => one.clone(),
        _ => types.into(),
    };
    schema.insert("type".to_owned(), types);
    if !field.about.is_empty() {
        schema.insert("description".to_owned(), field.about.clone().into());
    }
    if field.is_deprecated() {
        schema.insert("deprecated".to_owned(), true.into());
    }
    if field.types.contains(&JsonType::DateTime) {
        schema.insert("format".to_owned(), "date-time".into());
    }
    if !field.values.is_empty() {
        schema.insert("enum".to_owned(), field.values.clone().into());
    }
    if field.types.contains(&JsonType::Object) {
        schema.insert("properties".to_owned(), properties(&field.members).into());
    } else if field.types.contains(&JsonType::Array) {
        schema
            .insert("items".to_owned(), json!({"type": "object", "properties": properties(&field.members)}));
    }
    schema
}

#[cfg(test)]
mod tests;
