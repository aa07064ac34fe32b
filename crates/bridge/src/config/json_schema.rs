//! The JSON Schema of the configuration, made from the raw structs: the same structs from which [`super::reader`] takes
//! the list of known keys, so that the two cannot differ.

use std::borrow::Cow;
use std::time::Duration;

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value};

use super::field::{Field, Named, Property, Reference, Secret};
use super::raw;
use super::units::{duration_text, size_text};

/// The JSON Schema (2020-12) of a configuration file.
pub(crate) fn json_schema() -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<raw::Config>();
    schema.insert("title".to_owned(), "viaduct.toml".into());
    schema.insert("description".to_owned(), "The configuration of Viaduct.".into());
    RecursiveTransform(close).transform(&mut schema);
    schema.to_value()
}

/// Unknown keys are errors.
fn close(schema: &mut Schema) {
    if schema.get("properties").is_some() && schema.get("additionalProperties").is_none() {
        schema.insert("additionalProperties".to_owned(), false.into());
    }
}

/// How a duration between two numbers of milliseconds is described.
pub(super) struct Span<const LEAST: u64, const MOST: u64>;

impl<const LEAST: u64, const MOST: u64> JsonSchema for Span<LEAST, MOST> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Duration_{LEAST}_{MOST}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let [least, most] = [LEAST, MOST].map(|limit| duration_text(Duration::from_millis(limit)));
        json_schema!({ "type": "string", "title": format!("duration, {least} to {most}") })
    }
}

/// How a size between two numbers of bytes is described.
pub(super) struct Size<const LEAST: u64, const MOST: u64>;

impl<const LEAST: u64, const MOST: u64> JsonSchema for Size<LEAST, MOST> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Size_{LEAST}_{MOST}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let [least, most] = [LEAST, MOST].map(size_text);
        json_schema!({ "type": "string", "title": format!("size, {least} to {most}") })
    }
}

impl<T: JsonSchema> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Named_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": generator.subschema_for::<T>() })
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A secret: the text itself, or where it is.",
            "anyOf": [{ "type": "string" }, generator.subschema_for::<Reference>()],
        })
    }
}

impl JsonSchema for Property {
    fn schema_name() -> Cow<'static, str> {
        "Property".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A property of librdkafka. A dotted key may be written as nested tables.",
            "anyOf": [
                { "type": ["string", "number", "boolean"] },
                generator.subschema_for::<Reference>(),
                { "type": "object", "additionalProperties": generator.subschema_for::<Self>() },
            ],
        })
    }
}

impl JsonSchema for Reference {
    fn schema_name() -> Cow<'static, str> {
        "Reference".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Where a secret is: in an environment variable or in a file.",
            "oneOf": [
                { "type": "object", "properties": { "env": { "type": "string" } }, "required": ["env"] },
                { "type": "object", "properties": { "file": { "type": "string" } }, "required": ["file"] },
            ],
        })
    }
}

/// A sink's struct, with the `type` that chooses it.
impl JsonSchema for raw::Sink {
    fn schema_name() -> Cow<'static, str> {
        "Sink".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let kinds = [
            ("kafka", raw::Kafka::json_schema(generator)),
            ("nats", raw::Nats::json_schema(generator)),
            ("file", raw::File::json_schema(generator)),
            ("stdout", raw::Stdout::json_schema(generator)),
        ];
        let kinds: Vec<Schema> = kinds
            .into_iter()
            .map(|(kind, mut schema)| {
                let properties =
                    schema.ensure_object().entry("properties").or_insert_with(|| Map::new().into());
                if let Value::Object(properties) = properties {
                    properties.insert("type".to_owned(), serde_json::json!({ "const": kind }));
                }
                schema.insert("required".to_owned(), vec!["type"].into());
                schema
            })
            .collect();
        json_schema!({ "description": "A destination system; `type` says which.", "oneOf": kinds })
    }
}
