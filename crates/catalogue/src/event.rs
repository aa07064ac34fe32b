//! What the table says of one event type.

use std::fmt;

use serde_json::Value;

/// An event type of the vendor's document.
#[derive(Debug)]
pub struct EventType {
    /// `eventType`, as in `engagementCenter.Idle`.
    pub event_type: String,
    /// The name of its schema in the document.
    pub schema: String,
    /// The document's description.
    pub about: String,
    /// Whether the document's "Event List" has it; otherwise only an example shows it.
    pub listed: bool,
    /// Whether the document lists it for subscriptions of `engagementCenterThirdParty`.
    pub subscribable: bool,
    /// The payload's members, in the order of the document.
    pub fields: Vec<Field>,
    /// The document's own examples of the payload, as JSON text; never empty.
    pub examples: Vec<String>,
    /// Payloads that the document tells of in words and does not show, as JSON text.
    pub described: Vec<String>,
}

impl EventType {
    /// What stands before the first dot.
    #[must_use]
    pub fn category(&self) -> &str {
        self.event_type.split_once('.').map_or("unknown", |(category, _)| category)
    }

    /// What stands after the first dot.
    #[must_use]
    pub fn name(&self) -> &str {
        self.event_type.split_once('.').map_or(&*self.event_type, |(_, name)| name)
    }
}

/// A field of a payload.
#[derive(Debug)]
pub struct Field {
    /// Its key. Some of the document's keys have blanks around them.
    pub name: String,
    /// Where it stands, from the payload's root: `payload.interactionData[].key`.
    pub path: String,
    /// The type in the document's table, then those that its examples show beside it; never empty.
    pub types: Vec<JsonType>,
    /// The document's description.
    pub about: String,
    /// The document's list of its values; empty: any.
    pub values: Vec<Value>,
    /// The members of an object, or of each element of a list.
    pub members: Vec<Field>,
}

impl Field {
    /// Whether the document says that the field will go.
    #[must_use]
    pub fn is_deprecated(&self) -> bool {
        ["To be deprecated", "This value has been deprecated"].iter().any(|text| self.about.starts_with(text))
    }

    /// This field and everything below it, in the order of the document.
    pub fn all(&self) -> impl Iterator<Item = &Self> {
        let mut open = vec![self];
        std::iter::from_fn(move || {
            let field = open.pop()?;
            open.extend(field.members.iter().rev());
            Some(field)
        })
    }
}

/// The type of a JSON value, in the words of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonType {
    /// An object.
    Object,
    /// A list of objects.
    Array,
    /// A string.
    String,
    /// A string that is a time in ISO 8601.
    DateTime,
    /// A number without a fraction.
    Integer,
    /// `true` or `false`.
    Boolean,
}

impl JsonType {
    pub(crate) const ALL: [Self; 6] =
        [Self::Object, Self::Array, Self::String, Self::DateTime, Self::Integer, Self::Boolean];

    /// The word in the table.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::DateTime => "date-time",
            other => other.schema_word(),
        }
    }

    /// The word of JSON Schema.
    #[must_use]
    pub const fn schema_word(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String | Self::DateTime => "string",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
        }
    }

    /// Whether `value` is of this type, by the rules of JSON Schema: `1.0` is an integer.
    #[must_use]
    pub fn fits(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Object, Value::Object(_))
            | (Self::Array, Value::Array(_))
            | (Self::String | Self::DateTime, Value::String(_))
            | (Self::Boolean, Value::Bool(_)) => true,
            (Self::Integer, Value::Number(number)) => {
                number.is_i64()
                    || number.is_u64()
                    || number.as_f64().is_some_and(|number| number.fract() == 0.0)
            }
            _ => false,
        }
    }
}

impl fmt::Display for JsonType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
