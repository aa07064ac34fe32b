//! Topic, subject and file names: a template rendered for an event, free of characters that the destination forbids.

use std::collections::HashMap;
use std::sync::Arc;

use viaduct_poller::Event;

use super::fields::{FieldIndex, FieldNames, Fields};
use crate::config::{Segment, Template};

/// Which names a destination system can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// Kafka topics: `[A-Za-z0-9._-]` (Kafka `Topic.LEGAL_CHARS`).
    Kafka,
    /// NATS subjects: tokens between dots without white space, `*`, `>` and control characters (ADR-6).
    Nats,
    /// File names, kept to what every file system takes: `[A-Za-z0-9._-]`, no dot in front.
    File,
}

impl Naming {
    fn allows(self, character: char) -> bool {
        match self {
            Self::Kafka | Self::File => {
                character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-')
            }
            Self::Nats => {
                !character.is_whitespace() && !character.is_control() && !matches!(character, '*' | '>')
            }
        }
    }

    /// Replaces by `_` what cannot stand in a name, and what would make an empty subject token.
    pub(crate) fn clean(self, name: &mut String) {
        if !name.chars().all(|character| self.allows(character)) {
            *name = name.chars().map(|c| if self.allows(c) { c } else { '_' }).collect();
        }
        match self {
            Self::Nats if name.is_empty() || name.split('.').any(str::is_empty) => {
                let tokens: Vec<&str> =
                    name.split('.').map(|token| if token.is_empty() { "_" } else { token }).collect();
                *name = tokens.join(".");
            }
            Self::File if name.starts_with('.') => name.replace_range(0..1, "_"),
            Self::Kafka if matches!(name.as_str(), "." | "..") => *name = "_".repeat(name.len()),
            _ if name.is_empty() => name.push('_'),
            _ => {}
        }
    }
}

/// What a template's field stands for.
#[derive(Debug, Clone, Copy)]
enum Part {
    Org,
    Source,
    Category,
    Name,
    Field(FieldIndex),
}

/// A template bound to a source and a destination system.
#[derive(Debug)]
pub(crate) struct Destination {
    naming: Naming,
    segments: Vec<Bound>,
    /// Names already rendered, so that equal names share one allocation. Bounded: a template may name an interaction.
    known: HashMap<String, Arc<str>>,
    scratch: String,
}

#[derive(Debug)]
enum Bound {
    Literal(String),
    Part(Part),
}

/// How many different names of one route are kept.
const KNOWN_NAMES: usize = 1024;

impl Destination {
    /// Binds `template`; fields which only an event knows are added to `names`.
    pub(crate) fn new(template: &Template, naming: Naming, names: &mut FieldNames) -> Self {
        let segments = template
            .segments()
            .iter()
            .map(|segment| match segment {
                Segment::Literal(text) => Bound::Literal(text.clone()),
                Segment::Field(field) => Bound::Part(match field.as_str() {
                    "org" => Part::Org,
                    "source" => Part::Source,
                    "category" => Part::Category,
                    "name" => Part::Name,
                    other => Part::Field(names.intern(other)),
                }),
            })
            .collect();
        Self { naming, segments, known: HashMap::new(), scratch: String::new() }
    }

    /// The name for one event. A field that the event lacks becomes `_`.
    pub(crate) fn render(
        &mut self,
        event: &Event,
        fields: &Fields<'_>,
        names: &FieldNames,
        org: &str,
        source: &str,
    ) -> Arc<str> {
        self.scratch.clear();
        for segment in &self.segments {
            let text = match segment {
                Bound::Literal(text) => text,
                Bound::Part(Part::Org) => org,
                Bound::Part(Part::Source) => source,
                Bound::Part(Part::Category) => event.category(),
                Bound::Part(Part::Name) => event.name(),
                Bound::Part(Part::Field(index)) => fields.get(*index, names, event).unwrap_or("_"),
            };
            self.scratch.push_str(if text.is_empty() { "_" } else { text });
        }
        if let Some(known) = self.known.get(&self.scratch) {
            return known.clone();
        }
        let mut name = self.scratch.clone();
        self.naming.clean(&mut name);
        let name: Arc<str> = name.into();
        if self.known.len() < KNOWN_NAMES {
            self.known.insert(self.scratch.clone(), name.clone());
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(naming: Naming, name: &str) -> String {
        let mut name = name.to_owned();
        naming.clean(&mut name);
        name
    }

    #[test]
    fn forbidden_characters_become_underscores() {
        assert_eq!(clean(Naming::Kafka, "via.chat room/1é"), "via.chat_room_1_");
        assert_eq!(clean(Naming::Nats, "via.a b.*.>"), "via.a_b._._");
        assert_eq!(clean(Naming::Nats, "via.é"), "via.é");
        assert_eq!(clean(Naming::File, "../etc/passwd"), "_._etc_passwd");
    }

    #[test]
    fn no_name_is_empty_or_special() {
        assert_eq!(clean(Naming::Nats, "a..b."), "a._.b._");
        assert_eq!(clean(Naming::Nats, ""), "_");
        assert_eq!(clean(Naming::Kafka, ".."), "__");
        assert_eq!(clean(Naming::Kafka, ""), "_");
        assert_eq!(clean(Naming::File, ".hidden"), "_hidden");
    }
}
