//! Reads `events.toml`, once.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

use crate::event::{EventType, Field, JsonType};

const TABLE: &str = include_str!("events.toml");

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| match read(TABLE) {
    Ok(catalogue) => catalogue,
    Err(error) => panic!("events.toml: {error}"),
});

struct Catalogue {
    events: Vec<EventType>,
    envelope: Vec<Field>,
}

/// Every event type, in the order of the document; those that its "Event List" lacks come last.
#[must_use]
pub fn events() -> &'static [EventType] {
    &CATALOGUE.events
}

/// The event types of the document's "Event List", in its order.
pub fn listed() -> impl Iterator<Item = &'static EventType> {
    events().iter().filter(|event| event.listed)
}

/// The event type with this `eventType`.
#[must_use]
pub fn find(event_type: &str) -> Option<&'static EventType> {
    events().iter().find(|event| event.event_type == event_type)
}

/// `catalogTypeEvents` of the catalog type `engagementCenterThirdParty` (vendor document, FilterCriteria).
pub fn third_party_events() -> impl Iterator<Item = &'static str> {
    listed().filter(|event| event.subscribable).map(EventType::name)
}

/// The members of an event, in the names of v3. Their payload is a string of JSON.
#[must_use]
pub fn envelope() -> &'static [Field] {
    &CATALOGUE.envelope
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTable {
    values: BTreeMap<String, Vec<Value>>,
    fields: BTreeMap<String, Vec<RawField>>,
    event: Vec<RawEvent>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEvent {
    #[serde(rename = "type")]
    event_type: String,
    schema: String,
    #[serde(default = "yes")]
    listed: bool,
    #[serde(default = "yes")]
    subscribable: bool,
    about: String,
    #[serde(default)]
    with: Vec<String>,
    #[serde(default)]
    fields: Vec<RawField>,
    examples: Vec<String>,
    #[serde(default)]
    described: Vec<String>,
}

/// Path, types, description, and the name of a list of values.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum RawField {
    Plain(String, String, String),
    WithValues(String, String, String, String),
}

fn yes() -> bool {
    true
}

fn read(text: &str) -> Result<Catalogue, String> {
    let table: RawTable = toml::from_str(text).map_err(|error| error.to_string())?;
    let events = table.event.iter().map(|raw| {
        let fields = fields_of(raw, &table).map_err(|error| format!("{}: {error}", raw.event_type))?;
        Ok(EventType {
            event_type: raw.event_type.clone(),
            schema: raw.schema.clone(),
            about: raw.about.clone(),
            listed: raw.listed,
            subscribable: raw.subscribable && raw.event_type.starts_with("engagementCenter."),
            fields,
            examples: raw.examples.clone(),
            described: raw.described.clone(),
        })
    });
    let envelope = table.fields.get("envelope").ok_or("[fields] lacks `envelope`")?;
    Ok(Catalogue { events: events.collect::<Result<_, String>>()?, envelope: tree(envelope, &table.values)? })
}

/// The groups' fields, then the type's own; a field of its own takes the place of a group's.
fn fields_of(raw: &RawEvent, table: &RawTable) -> Result<Vec<Field>, String> {
    let mut all: Vec<RawField> = Vec::new();
    let groups = raw.with.iter().map(|name| table.fields.get(name).ok_or_else(|| format!("no group {name}")));
    for group in groups.chain([Ok(&raw.fields)]) {
        for field in group? {
            match all.iter_mut().find(|known| known.path() == field.path()) {
                Some(known) => *known = field.clone(),
                None => all.push(field.clone()),
            }
        }
    }
    tree(&all, &table.values)
}

impl RawField {
    fn path(&self) -> &str {
        match self {
            Self::Plain(path, ..) | Self::WithValues(path, ..) => path,
        }
    }
}

fn tree(raw: &[RawField], values: &BTreeMap<String, Vec<Value>>) -> Result<Vec<Field>, String> {
    let mut root = Vec::new();
    for field in raw {
        let (path, types, about, list) = match field {
            RawField::Plain(path, types, about) => (path, types, about, None),
            RawField::WithValues(path, types, about, list) => (path, types, about, Some(list)),
        };
        let types = types
            .split('|')
            .map(|word| JsonType::ALL.into_iter().find(|known| known.word() == word))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| format!("{path}: no such type: {types}"))?;
        let values = match list {
            Some(list) => values.get(list).cloned().ok_or_else(|| format!("{path}: no list {list}"))?,
            None => Vec::new(),
        };
        let mut into = &mut root;
        let mut steps = path.split('.').peekable();
        while let Some(step) = steps.next() {
            if steps.peek().is_none() {
                let (name, path, about) = (step.to_owned(), path.clone(), about.clone());
                into.push(Field { name, path, types, about, values, members: Vec::new() });
                break;
            }
            let (name, kind) = match step.strip_suffix("[]") {
                Some(name) => (name, JsonType::Array),
                None => (step, JsonType::Object),
            };
            let parent = into
                .iter_mut()
                .find(|parent| parent.name == name && parent.types.contains(&kind))
                .ok_or_else(|| format!("{path}: {step} does not stand above it as {kind}"))?;
            into = &mut parent.members;
        }
    }
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_lists_67_types_and_shows_one_more() {
        assert_eq!(listed().count(), 67);
        let others: Vec<_> = events().iter().filter(|event| !event.listed).collect();
        assert_eq!(others.iter().map(|event| &*event.event_type).collect::<Vec<_>>(), ["chat.SendText"]);
        for category in [("engagementCenter", 58), ("outreach", 3), ("messaging", 6)] {
            assert_eq!(listed().filter(|event| event.category() == category.0).count(), category.1);
        }
    }

    #[test]
    fn the_document_lists_57_events_for_third_parties() {
        assert_eq!(third_party_events().count(), 57);
        assert!(third_party_events().all(|name| name != "MultiTaskingStatus"));
    }

    #[test]
    fn no_type_and_no_field_stands_twice() {
        for (index, event) in events().iter().enumerate() {
            assert!(events()[..index].iter().all(|other| other.event_type != event.event_type));
            let mut paths: Vec<_> =
                event.fields.iter().flat_map(Field::all).map(|field| &field.path).collect();
            let count = paths.len();
            paths.sort_unstable();
            paths.dedup();
            assert_eq!(paths.len(), count, "{}", event.event_type);
        }
    }

    #[test]
    fn a_field_of_its_own_takes_the_place_of_the_groups() {
        let idle = find("engagementCenter.Idle").expect("listed");
        let twin = idle.fields.iter().find(|field| field.name == "ehubSessionIdRev").expect("documented");
        assert_eq!(twin.types, [JsonType::String, JsonType::Integer]);
    }

    #[test]
    fn a_table_that_does_not_hold_together_is_refused() {
        let broken = |fields: &str| {
            let text = format!(
                "[values]\n[fields]\nenvelope = []\n[[event]]\ntype = \"a.b\"\nschema = \"S\"\nabout = \"\"\nexamples = []\n{fields}"
            );
            read(&text).map(drop).expect_err("refused")
        };
        assert_eq!(broken("with = [\"nobody\"]"), "a.b: no group nobody");
        assert_eq!(broken("fields = [[\"x\", \"number\", \"\"]]"), "a.b: x: no such type: number");
        assert_eq!(broken("fields = [[\"x\", \"string\", \"\", \"none\"]]"), "a.b: x: no list none");
        assert_eq!(
            broken("fields = [[\"x\", \"string\", \"\"], [\"x.y\", \"string\", \"\"]]"),
            "a.b: x.y: x does not stand above it as object"
        );
    }
}
