//! From the tree to raw structs, with serde.
//!
//! serde stops at the first error; a person wants all of them. So every value of a raw struct sits in a [`Field`],
//! which notes what is wrong with its own value and lets the struct go on. The structs' own keys are the list of known
//! ones, enums' own variants the list of words: unknown ones are noted with the nearest known one. No note contains a
//! value, because any value may be a secret in the wrong place.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::{StrDeserializer, StringDeserializer, U32Deserializer};
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::field::{FIELD, Field, PROPERTY, SECRET};
use super::mistake::closest;
use super::tree::{Entry, Node, Origin, Value};

/// What is wrong, by origin.
#[derive(Debug, Clone)]
pub(super) struct Note {
    pub(super) at: Origin,
    pub(super) message: String,
    pub(super) hint: String,
    /// Whether it says that something is not there.
    pub(super) missing: bool,
}

/// Reads a raw struct; what is wrong goes to `notes`.
pub(super) fn read<'t, T: Deserialize<'t>>(root: &'t Node, notes: &'t RefCell<Vec<Note>>) -> Field<T> {
    let reader = Reader { node: root, section: String::new(), key: String::new(), notes, tag: None };
    Field::deserialize(reader).unwrap_or_default()
}

/// How a table is called in a message: `[source.main]`, `[[route]] number 2`.
pub(super) fn label(path: &str) -> String {
    let path = path.escape_debug().to_string();
    match path.rsplit_once('#') {
        _ if path.is_empty() => "the configuration".to_owned(),
        Some((list, number)) => format!("[[{list}]] number {number}"),
        None => format!("[{path}]"),
    }
}

#[derive(Clone)]
struct Reader<'t> {
    node: &'t Node,
    /// The path of the table in which the node stands.
    section: String,
    /// The key under which it stands.
    key: String,
    notes: &'t RefCell<Vec<Note>>,
    /// A key that has been read already: the one that chose an enum's variant.
    tag: Option<&'static str>,
}

/// The reason is noted, or is the message.
#[derive(Debug)]
enum ReadError {
    Noted,
    Message(String),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Noted => f.write_str("already noted"),
            Self::Message(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Message(message.to_string())
    }
}

impl<'t> Reader<'t> {
    fn note(&self, at: Origin, message: String, hint: impl Into<String>) -> ReadError {
        self.notes.borrow_mut().push(Note { at, message, hint: hint.into(), missing: false });
        ReadError::Noted
    }

    /// The path of the node itself.
    fn path(&self) -> String {
        if self.section.is_empty() { self.key.clone() } else { format!("{}.{}", self.section, self.key) }
    }

    fn subject(&self) -> String {
        let key = self.key.escape_debug().to_string();
        match (key.rsplit_once('#'), &self.node.value) {
            (Some(_), Value::Table(_)) => label(&self.path()),
            (Some((list, number)), _) => format!("number {number} of `{list}` in {}", label(&self.section)),
            (None, _) => format!("`{key}` in {}", label(&self.section)),
        }
    }

    fn wrong(&self, wanted: &str, hint: &str) -> ReadError {
        let message = format!("{} must be {wanted}, not {}", self.subject(), self.node.value.noun());
        self.note(self.node.at, message, hint)
    }

    /// The node's text where text is wanted; numbers and the like count where they were given as text.
    fn text(&self) -> Option<&'t str> {
        match (&self.node.value, &self.node.text) {
            (Value::Text(text), _) => Some(text),
            (Value::Table(_) | Value::List(_), _) => None,
            (_, text) => text.as_deref(),
        }
    }

    fn child(&self, key: String, node: &'t Node) -> Self {
        Reader { node, section: self.path(), key, notes: self.notes, tag: None }
    }

    fn unknown_key(&self, entry: &Entry, known: &[&str]) {
        let hint = match closest(&entry.key, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the keys here are {}", known.join(", ")),
        };
        let message = format!("unknown key `{}` in {}", entry.key.escape_debug(), label(&self.path()));
        self.note(entry.at, message, hint);
    }

    fn struct_map<V: Visitor<'t>>(
        self,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let Value::Table(table) = &self.node.value else {
            return Err(self.wrong("a table", &format!("write it as a table: [{}]", self.path())));
        };
        let mut entries = Vec::new();
        for entry in table.0.iter().filter(|entry| self.tag != Some(entry.key.as_str())) {
            if known.contains(&entry.key.as_str()) {
                entries.push((entry.key.clone(), self.child(entry.key.clone(), &entry.node)));
            } else {
                let mut all: Vec<_> = self.tag.into_iter().collect();
                all.extend(known);
                self.unknown_key(entry, &all);
            }
        }
        visitor.visit_map(Entries { left: entries.into_iter(), value: None })
    }
}

impl<'t> Deserializer<'t> for Reader<'t> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_str(text),
            Value::Integer(Some(number)) => visitor.visit_i64(*number),
            Value::Integer(None) => Err(self.wrong("a number that fits", "take a smaller number")),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(yes) => visitor.visit_bool(*yes),
            Value::Date => visitor.visit_unit(),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Table(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.node.value {
            Value::Boolean(yes) => visitor.visit_bool(yes),
            _ => Err(self.wrong("true or false", "write true or false, without quotes")),
        }
    }

    fn deserialize_i64<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.node.value {
            Value::Integer(Some(number)) => visitor.visit_i64(number),
            Value::Integer(None) => Err(self.note(
                self.node.at,
                format!("{} is too large", self.subject()),
                "take a smaller number",
            )),
            _ => Err(self.wrong("a whole number", "write digits, without quotes")),
        }
    }

    fn deserialize_str<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.text() {
            Some(text) => visitor.visit_str(text),
            None => Err(self.wrong("a string", "write it in \"quotes\"")),
        }
    }

    fn deserialize_string<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_seq<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let Value::List(items) = &self.node.value else {
            let hint = match &self.node.value {
                Value::Table(_) => format!("write [[{}]] with two brackets", self.path()),
                _ => "write it in brackets, as in [\"one\", \"two\"]".to_owned(),
            };
            return Err(self.wrong("a list", &hint));
        };
        let items: Vec<_> = items
            .iter()
            .enumerate()
            .map(|(index, node)| Reader {
                node,
                section: self.section.clone(),
                key: format!("{}#{}", self.key, index + 1),
                notes: self.notes,
                tag: None,
            })
            .collect();
        visitor.visit_seq(Items(items.into_iter()))
    }

    fn deserialize_map<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let Value::Table(table) = &self.node.value else {
            return Err(self.wrong("a table", &format!("write it as a table: [{}.<name>]", self.path())));
        };
        let entries: Vec<_> = table
            .0
            .iter()
            .map(|entry| (entry.key.clone(), self.child(entry.key.clone(), &entry.node)))
            .collect();
        visitor.visit_map(Entries { left: entries.into_iter(), value: None })
    }

    fn deserialize_tuple_struct<V: Visitor<'t>>(
        self,
        name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        if name == FIELD {
            visitor.visit_seq(Located { reader: self, step: 0 })
        } else {
            self.deserialize_seq(visitor)
        }
    }

    fn deserialize_struct<V: Visitor<'t>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        if name != SECRET && name != PROPERTY {
            return self.struct_map(fields, visitor);
        }
        match (&self.node.value, self.text()) {
            (_, Some(text)) => visitor.visit_str(text),
            (Value::Table(_), _) => visitor.visit_newtype_struct(self),
            (Value::Integer(Some(number)), _) if name == PROPERTY => visitor.visit_string(number.to_string()),
            (Value::Float(number), _) if name == PROPERTY => visitor.visit_string(number.to_string()),
            (Value::Boolean(yes), _) if name == PROPERTY => visitor.visit_string(yes.to_string()),
            _ => Err(self.wrong(
                "a string or a reference",
                "write \"text\", { env = \"NAME\" } or { file = \"path\" }",
            )),
        }
    }

    fn deserialize_enum<V: Visitor<'t>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let word = match &self.node.value {
            // A table is the variant that its `type` names.
            Value::Table(table) => match table.get("type") {
                Some(entry) => self.child("type".to_owned(), &entry.node),
                None => {
                    let message = format!("`type` is missing in {}", label(&self.path()));
                    let hint = format!("write type = \"{}\"", variants.join("\" or \""));
                    self.notes.borrow_mut().push(Note { at: self.node.at, message, hint, missing: true });
                    return Err(ReadError::Noted);
                }
            },
            _ => self.clone(),
        };
        let Some(text) = word.text() else {
            return Err(word.wrong("a string", &format!("write \"{}\"", variants.join("\" or \""))));
        };
        match variants.iter().find(|variant| **variant == text) {
            Some(variant) => visitor.visit_enum(Variant { variant, reader: self }),
            None => {
                let hint = match closest(text, variants.iter().copied()) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("write \"{}\"", variants.join("\" or \"")),
                };
                let known = variants.join("`, `");
                Err(word.note(word.node.at, format!("{} must be one of `{known}`", word.subject()), hint))
            }
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'t>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        <V: Visitor<'t>>
        i8 i16 i32 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf option unit unit_struct tuple identifier
    }
}

/// The origin of a node, then the node; an error of the node is noted here, at its origin.
struct Located<'t> {
    reader: Reader<'t>,
    step: u8,
}

impl<'t> SeqAccess<'t> for Located<'t> {
    type Error = ReadError;

    fn next_element_seed<S: DeserializeSeed<'t>>(&mut self, seed: S) -> Result<Option<S::Value>, ReadError> {
        self.step += 1;
        if self.step == 1 {
            let origin: U32Deserializer<ReadError> = self.reader.node.at.0.into_deserializer();
            return seed.deserialize(origin).map(Some);
        }
        seed.deserialize(self.reader.clone()).map(Some).map_err(|error| match error {
            ReadError::Noted => ReadError::Noted,
            ReadError::Message(message) => {
                let message = format!("{} {message}", self.reader.subject());
                self.reader.note(self.reader.node.at, message, "see the documentation of this key")
            }
        })
    }
}

struct Items<'t>(std::vec::IntoIter<Reader<'t>>);

impl<'t> SeqAccess<'t> for Items<'t> {
    type Error = ReadError;

    fn next_element_seed<S: DeserializeSeed<'t>>(&mut self, seed: S) -> Result<Option<S::Value>, ReadError> {
        self.0.next().map(|reader| seed.deserialize(reader)).transpose()
    }
}

struct Entries<'t> {
    left: std::vec::IntoIter<(String, Reader<'t>)>,
    value: Option<Reader<'t>>,
}

impl<'t> MapAccess<'t> for Entries<'t> {
    type Error = ReadError;

    fn next_key_seed<S: DeserializeSeed<'t>>(&mut self, seed: S) -> Result<Option<S::Value>, ReadError> {
        let Some((key, value)) = self.left.next() else { return Ok(None) };
        self.value = Some(value);
        let key: StringDeserializer<ReadError> = key.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'t>>(&mut self, seed: S) -> Result<S::Value, ReadError> {
        match self.value.take() {
            Some(reader) => seed.deserialize(reader),
            None => Err(ReadError::Message("has no value".to_owned())),
        }
    }
}

struct Variant<'t> {
    variant: &'static str,
    reader: Reader<'t>,
}

impl<'t> EnumAccess<'t> for Variant<'t> {
    type Error = ReadError;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'t>>(self, seed: S) -> Result<(S::Value, Self), ReadError> {
        let word: StrDeserializer<'_, ReadError> = self.variant.into_deserializer();
        Ok((seed.deserialize(word)?, self))
    }
}

impl<'t> VariantAccess<'t> for Variant<'t> {
    type Error = ReadError;

    fn unit_variant(self) -> Result<(), ReadError> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'t>>(self, seed: S) -> Result<S::Value, ReadError> {
        seed.deserialize(Reader { tag: Some("type"), ..self.reader })
    }

    fn tuple_variant<V: Visitor<'t>>(self, _len: usize, visitor: V) -> Result<V::Value, ReadError> {
        self.reader.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'t>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        Reader { tag: Some("type"), ..self.reader }.struct_map(fields, visitor)
    }
}
