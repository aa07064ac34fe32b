//! Templates rendered for an event: destinations, keys, headers.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use viaduct_poller::Event;

use super::fields::{FieldIndex, FieldNames, Fields};
use super::naming::{MISSING, Naming, Place};
use crate::config::{Distinct, FieldName, KeyPart, Segment, Template};

/// An event with everything that a template may ask of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) event: &'a Event,
    pub(super) fields: &'a Fields<'a>,
    pub(super) names: &'a FieldNames,
    pub(super) org: &'a str,
    pub(super) source: &'a str,
}

/// What a template's field stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Org,
    Source,
    Category,
    Name,
    Field { index: FieldIndex, is_type: bool },
}

impl Part {
    fn of(field: &FieldName, names: &mut FieldNames) -> Self {
        match field {
            FieldName::Org => Self::Org,
            FieldName::Source => Self::Source,
            FieldName::Category => Self::Category,
            FieldName::Name => Self::Name,
            FieldName::Event(path) => {
                Self::Field { index: names.intern(path), is_type: path.steps() == ["eventType"] }
            }
        }
    }

    /// The value; `None` where the event lacks it.
    fn value<'a>(self, seen: &Seen<'a>) -> Option<Cow<'a, str>> {
        let text = match self {
            Self::Org => seen.org,
            Self::Source => seen.source,
            Self::Category => seen.event.category(),
            Self::Name => seen.event.name(),
            Self::Field { index, .. } => return seen.fields.get(index, seen.names, seen.event),
        };
        (!text.is_empty()).then_some(Cow::Borrowed(text))
    }

    /// Whether the dots in its value are levels. Of `org` the configuration has the say.
    fn has_levels(self) -> bool {
        matches!(self, Self::Name | Self::Org | Self::Field { is_type: true, .. })
    }
}

#[derive(Debug)]
enum Bound {
    Literal(String),
    Part(Part, Distinct),
}

fn bind(template: &Template, names: &mut FieldNames) -> Vec<Bound> {
    let segments = template.segments().iter().map(|segment| match segment {
        Segment::Literal(text) => Bound::Literal(text.clone()),
        Segment::Field(field, distinct) => Bound::Part(Part::of(field, names), *distinct),
    });
    segments.collect()
}

/// A template of destinations, bound to a destination system.
#[derive(Debug)]
pub(super) struct Destination {
    naming: Naming,
    segments: Vec<Bound>,
    /// Names already made, by the values in them, so that equal names share one allocation. Bounded: a template may name
    /// an interaction.
    known: HashMap<String, Arc<str>, RandomState>,
    scratch: String,
}

/// How many different names of one route are kept.
const KNOWN_NAMES: usize = 1024;

impl Destination {
    /// Binds `template`; fields which only an event knows are added to `names`.
    pub(super) fn new(template: &Template, naming: Naming, names: &mut FieldNames) -> Self {
        let mut segments = bind(template, names);
        for segment in &mut segments {
            if let Bound::Literal(text) = segment {
                *text = naming.literal(text);
            }
        }
        Self { naming, segments, known: HashMap::default(), scratch: String::new() }
    }

    /// The name for one event. A field that the event lacks becomes `_`.
    pub(super) fn render(&mut self, seen: &Seen<'_>) -> Arc<str> {
        self.scratch.clear();
        for segment in &self.segments {
            match segment {
                Bound::Literal(text) => self.scratch.push_str(text),
                Bound::Part(part, distinct) => match part.value(seen) {
                    Some(value) => {
                        let place = Place {
                            first: self.scratch.is_empty(),
                            levels: part.has_levels(),
                            distinct: *distinct == Distinct::Yes,
                        };
                        self.scratch.push_str(&self.naming.fit(&value, place));
                    }
                    None => self.scratch.push_str(MISSING),
                },
            }
        }
        if let Some(known) = self.known.get(&self.scratch) {
            return known.clone();
        }
        let mut name = self.scratch.clone();
        self.naming.complete(&mut name);
        let name: Arc<str> = name.into();
        if self.known.len() < KNOWN_NAMES {
            self.known.insert(self.scratch.clone(), name.clone());
        }
        name
    }
}

/// A template whose text is none without all its fields: a header, or a candidate for the key.
#[derive(Debug)]
pub(super) struct Text(Vec<Bound>);

impl Text {
    /// Binds `template`; fields which only an event knows are added to `names`.
    pub(super) fn new(template: &Template, names: &mut FieldNames) -> Self {
        Self(bind(template, names))
    }

    /// The text for one event; `None` where the event lacks a field of it.
    pub(super) fn render<'a>(&'a self, seen: &Seen<'a>) -> Option<Cow<'a, str>> {
        let one = |bound: &'a Bound| match bound {
            Bound::Literal(text) => Some(Cow::Borrowed(text.as_str())),
            Bound::Part(part, _) => part.value(seen),
        };
        match self.0.as_slice() {
            [only] => one(only),
            several => {
                let mut text = String::new();
                for bound in several {
                    text.push_str(&one(bound)?);
                }
                Some(Cow::Owned(text))
            }
        }
    }
}

/// The candidates for a route's key.
#[derive(Debug)]
pub(super) struct Key(Vec<Text>);

impl Key {
    pub(super) fn new(parts: &[KeyPart], names: &mut FieldNames) -> Self {
        Self(parts.iter().map(|part| Text::new(part.template(), names)).collect())
    }

    /// The first one that the event has.
    pub(super) fn of(&self, seen: &Seen<'_>) -> Option<Arc<str>> {
        self.0.iter().find_map(|part| part.render(seen)).map(Arc::from)
    }
}

/// What a field of a template becomes where there is no event to ask.
#[derive(Debug)]
pub(super) enum Filling<'a> {
    /// A value, to be made fit.
    Value(&'a str),
    /// Text for a person, as it is.
    Verbatim(String),
    /// `_`
    Missing,
}

/// A destination without an event.
pub(super) fn fill<'a>(
    template: &Template,
    naming: Naming,
    filling: impl Fn(&FieldName) -> Filling<'a>,
) -> String {
    let mut name = String::new();
    for segment in template.segments() {
        match segment {
            Segment::Literal(text) => name.push_str(&naming.literal(text)),
            Segment::Field(field, distinct) => match filling(field) {
                Filling::Value(value) => push_value(&mut name, naming, field, *distinct, value),
                Filling::Missing => name.push_str(MISSING),
                Filling::Verbatim(text) => name.push_str(&text),
            },
        }
    }
    naming.complete(&mut name);
    name
}

fn push_value(name: &mut String, naming: Naming, field: &FieldName, distinct: Distinct, value: &str) {
    if value.is_empty() {
        return name.push_str(MISSING);
    }
    let levels = match field {
        FieldName::Org | FieldName::Name => true,
        FieldName::Event(path) => path.steps() == ["eventType"],
        FieldName::Source | FieldName::Category => false,
    };
    let place = Place { first: name.is_empty(), levels, distinct: distinct == Distinct::Yes };
    name.push_str(&naming.fit(value, place));
}

/// What all destinations of a template start with for one source, and whether that is already the whole.
pub(crate) fn prefix(template: &Template, naming: Naming, source: &str, org: &str) -> (String, bool) {
    let mut name = String::new();
    for segment in template.segments() {
        match segment {
            Segment::Literal(text) => name.push_str(&naming.literal(text)),
            Segment::Field(field @ FieldName::Org, distinct) => {
                push_value(&mut name, naming, field, *distinct, org);
            }
            Segment::Field(field @ FieldName::Source, distinct) => {
                push_value(&mut name, naming, field, *distinct, source);
            }
            Segment::Field(..) => return (name, false),
        }
    }
    naming.complete(&mut name);
    (name, true)
}

/// The names of one source's dead letters: `*` stands for what depends on the event.
pub(crate) fn every_name(template: &Template, naming: Naming, source: &str, org: &str) -> String {
    fill(template, naming, |field| match field {
        FieldName::Org => Filling::Value(org),
        FieldName::Source => Filling::Value(source),
        FieldName::Category | FieldName::Name => Filling::Verbatim("*".to_owned()),
        FieldName::Event(_) => Filling::Missing,
    })
}

/// The destination of a type of events, as far as it is known before there is one: what an event decides stands in braces.
/// Without a source, so does what depends on that.
pub(crate) fn outline(
    template: &Template,
    naming: Naming,
    event_type: &str,
    source: Option<(&str, &str)>,
) -> String {
    let (category, name) = match event_type.split_once('.') {
        Some((category, name)) if !category.is_empty() => (category, name),
        _ => ("unknown", event_type),
    };
    fill(template, naming, |field| match (field, source) {
        (FieldName::Org, Some((_, org))) => Filling::Value(org),
        (FieldName::Source, Some((name, _))) => Filling::Value(name),
        (FieldName::Category, _) => Filling::Value(category),
        (FieldName::Name, _) => Filling::Value(name),
        (FieldName::Event(path), _) if path.steps() == ["eventType"] => Filling::Value(event_type),
        (field, _) => Filling::Verbatim(format!("{{{field}}}")),
    })
}
