//! The building blocks of the raw structs: values that are absent, wrong, or given at some place.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::tree::Origin;

/// The names of the shapes that [`super::reader`] treats in its own way; no user can write them.
pub(super) const FIELD: &str = "$field";
pub(super) const SECRET: &str = "$secret";
pub(super) const PROPERTY: &str = "$property";

/// What a raw struct knows about one key.
#[derive(Debug, Clone, Default)]
pub(super) enum Field<T> {
    /// The key is not there.
    #[default]
    Absent,
    /// It is, with a value that is no `T`; noted already.
    Wrong,
    /// It is.
    Given(Given<T>),
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Given<T> {
    pub(super) value: T,
    pub(super) at: Origin,
}

/// Text from a variable or file, as a secret or a property is given.
#[derive(Debug, Clone)]
pub(super) enum TextOrReference {
    Text(String),
    Reference(Reference),
}

/// `{ env = "…" }` or `{ file = "…" }`.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Reference {
    pub(super) env: Field<String>,
    pub(super) file: Field<String>,
}

/// A table whose keys are names that the user chose, in the order of the file.
#[derive(Debug, Clone)]
pub(super) struct Named<T>(pub(super) Vec<(String, Field<T>)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for FieldVisitor<T> {
            type Value = Field<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Field<T>, A::Error> {
                let at = Origin(seq.next_element()?.unwrap_or_default());
                Ok(match seq.next_element() {
                    Ok(Some(value)) => Field::Given(Given { value, at }),
                    _ => Field::Wrong,
                })
            }
        }

        deserializer.deserialize_tuple_struct(FIELD, 2, FieldVisitor(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamedVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for NamedVisitor<T> {
            type Value = Named<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<T>, A::Error> {
                let mut named = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    named.push(entry);
                }
                Ok(Named(named))
            }
        }

        deserializer.deserialize_map(NamedVisitor(PhantomData))
    }
}

/// A secret: text, or a reference.
#[derive(Debug, Clone)]
pub(super) struct Secret(pub(super) TextOrReference);

/// A librdkafka property: text, a number, a boolean, or a reference.
#[derive(Debug, Clone)]
pub(super) struct Property(pub(super) TextOrReference);

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct(SECRET, &[], TextVisitor).map(Self)
    }
}

impl<'de> Deserialize<'de> for Property {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct(PROPERTY, &[], TextVisitor).map(Self)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = TextOrReference;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a reference")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<TextOrReference, E> {
        Ok(TextOrReference::Text(text.to_owned()))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, reference: D) -> Result<TextOrReference, D::Error> {
        Reference::deserialize(reference).map(TextOrReference::Reference)
    }
}
