//! The reference of the configuration for people, made from [`super::json_schema`]: every key with its type, its default
//! and its meaning.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::json_schema::json_schema;

const HEAD: &str = "\
# Configuration

Every key of `viaduct.toml`. The page is made by `viaduct schema config --markdown` from the program; `viaduct schema config`
prints the JSON Schema of the same for editors. A first file comes from `viaduct init`, and `viaduct check` names every mistake
with its line and a hint.

- **Precedence**: flags (`--set source.main.org_id=acme`), then variables (`VIADUCT__SOURCE__MAIN__ORG_ID=acme`, `__` between
  levels), then the file, then defaults. A value replaces the one below it as a whole; a list is written as in TOML.
- **Unknown keys** are mistakes. Nothing like `${NAME}` is replaced.
- **A secret** is the text itself, `{ env = \"NAME\" }` or `{ file = \"path\" }`. It is never printed.
- **A duration** is text such as `\"15s\"`, `\"200ms\"` or `\"1m30s\"`; **a size** is text such as `\"64MiB\"`, with `B`, `KB`, `MB`,
  `GB`, `KiB`, `MiB` or `GiB`.
- **A name** (`<name>`: of a source or a sink) has letters, digits, `_` and `-`.
- **A relative path** starts at the working directory of the process.
";

/// The tables in the order of the page; others follow.
const ORDER: [&str; 9] =
    ["bridge", "source", "sink", "route", "dead_letter", "mask", "state", "admin", "log"];

/// A table of the configuration.
pub(super) struct Section {
    /// As in `source.<name>.auth`; a list of tables ends with `[]`.
    pub(super) path: String,
    /// The `type` of a sink.
    pub(super) kind: Option<String>,
    about: String,
    /// Required ones first.
    pub(super) keys: Vec<Key>,
}

/// A key that is no table of known keys.
pub(super) struct Key {
    pub(super) name: String,
    /// What it takes, for people.
    pub(super) values: String,
    pub(super) default: Default,
    meaning: String,
}

/// What an absent key means.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Default {
    Required,
    Value(Value),
    InWords(String),
    /// Nobody has said it; a test finds those.
    Unsaid,
}

/// `docs/configuration.md`.
pub(crate) fn reference() -> String {
    let mut page = HEAD.to_owned();
    let sections = sections();
    page.push('\n');
    for section in &sections {
        let heading = section.heading();
        // Writing to a String cannot fail.
        let _ = writeln!(page, "- [{heading}](#{})", slug(&heading));
    }
    for section in &sections {
        let _ = write!(page, "\n## {}\n\n{}\n", section.heading(), section.about);
        if !section.keys.is_empty() {
            page.push_str("\n| key | type | default | |\n| --- | --- | --- | --- |\n");
        }
        for Key { name, values, default, meaning, .. } in &section.keys {
            let default = match default {
                Default::Required => "required".to_owned(),
                Default::Value(value) => format!("`{}`", value.to_string().replace("\",\"", "\", \"")),
                Default::InWords(words) => words.clone(),
                Default::Unsaid => String::new(),
            };
            let cells =
                [&format!("`{name}`"), values, &default, meaning].map(|cell| cell.replace('|', "\\|"));
            let _ = writeln!(page, "| {} |", cells.join(" | "));
        }
    }
    page
}

impl Section {
    fn heading(&self) -> String {
        match (self.path.strip_suffix("[]"), &self.kind) {
            (Some(path), _) => format!("`[[{path}]]`"),
            (None, Some(kind)) => format!("`[{}]` of type `\"{kind}\"`", self.path),
            (None, None) => format!("`[{}]`", self.path),
        }
    }
}

/// The anchor of a heading, as GitHub makes it.
pub(crate) fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).flat_map(char::to_lowercase).collect()
}

/// All tables.
pub(super) fn sections() -> Vec<Section> {
    let schema = json_schema();
    let walk = Walk { defs: schema["$defs"].as_object().expect("there are definitions") };
    let mut tables: Vec<_> = properties(&schema).collect();
    tables.sort_by_key(|(name, _)| ORDER.iter().position(|known| known == name).unwrap_or(ORDER.len()));
    let mut sections = Vec::new();
    for (name, table) in tables {
        walk.table(name.clone(), table, &mut sections);
    }
    sections
}

struct Walk<'s> {
    defs: &'s Map<String, Value>,
}

impl<'s> Walk<'s> {
    /// What a `$ref` stands for.
    fn resolved(&self, schema: &'s Value) -> &'s Value {
        let name = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/"));
        name.and_then(|name| self.defs.get(name)).unwrap_or(schema)
    }

    /// A table, a table of tables by name, or a list of tables.
    fn table(&self, path: String, schema: &'s Value, sections: &mut Vec<Section>) {
        let about = text(schema);
        let target = self.resolved(schema);
        let (path, target) = match (&target["additionalProperties"], &target["items"]) {
            (named @ Value::Object(_), _) => (format!("{path}.<name>"), self.resolved(named)),
            (_, items @ Value::Object(_)) => (format!("{path}[]"), self.resolved(items)),
            _ => (path, target),
        };
        let Some(kinds) = target["oneOf"].as_array() else {
            return self.section(path, None, about, target, sections);
        };
        for kind in kinds {
            let word = kind["properties"]["type"]["const"].as_str().expect("a sink has a type");
            self.section(path.clone(), Some(word.to_owned()), text(kind), kind, sections);
        }
    }

    fn section(
        &self,
        path: String,
        kind: Option<String>,
        about: String,
        schema: &'s Value,
        sections: &mut Vec<Section>,
    ) {
        let base = path.trim_end_matches("[]").to_owned();
        let (tables, plain): (Vec<_>, Vec<_>) = properties(schema)
            .filter(|(name, _)| name.as_str() != "type")
            .partition(|(_, schema)| self.is_table(schema));
        let mut keys: Vec<_> = plain.into_iter().map(|(name, schema)| self.key(name, schema)).collect();
        keys.sort_by_key(|key| key.default != Default::Required);
        sections.push(Section { path, kind, about, keys });
        for (name, table) in tables {
            self.table(format!("{base}.{name}"), table, sections);
        }
    }

    fn is_table(&self, schema: &'s Value) -> bool {
        let target = self.resolved(schema);
        let has_keys = |schema: &'s Value| self.resolved(schema).get("properties").is_some();
        has_keys(target) || has_keys(&target["items"])
    }

    fn key(&self, name: &str, schema: &'s Value) -> Key {
        let description = text(schema);
        let (mut meaning, default) = match description.rsplit_once("\n\n") {
            Some((meaning, "Required.")) => (meaning.to_owned(), Default::Required),
            Some((meaning, last)) if last.starts_with("Default: ") => {
                let words = last.trim_start_matches("Default: ").trim_end_matches('.');
                (meaning.to_owned(), Default::InWords(words.to_owned()))
            }
            _ => match schema.get("default") {
                Some(value) => (description, Default::Value(value.clone())),
                None => (description, Default::Unsaid),
            },
        };
        for (value, about) in self.words(schema) {
            if let Some(about) = about {
                let _ = write!(meaning, " `\"{value}\"`: {}", lower_first(about));
            }
        }
        Key { name: name.to_owned(), values: self.values(schema), default, meaning }
    }

    /// What a key takes.
    fn values(&self, schema: &'s Value) -> String {
        match schema["$ref"].as_str() {
            Some("#/$defs/Secret") => return "secret".to_owned(),
            Some("#/$defs/Property") => return "text, number, boolean or secret".to_owned(),
            _ => {}
        }
        let words = self.words(schema);
        if !words.is_empty() {
            let words: Vec<_> = words.into_iter().map(|(word, _)| format!("`\"{word}\"`")).collect();
            let table = if schema["additionalProperties"].is_object() { "table of " } else { "" };
            return format!("{table}{}", words.join(", "));
        }
        if let Some(title) = schema["title"].as_str() {
            return title.to_owned();
        }
        match schema["type"].as_str().expect("a key has a type") {
            "string" => "text".to_owned(),
            "integer" => match (&schema["minimum"], &schema["maximum"]) {
                (Value::Null, _) | (_, Value::Null) => "number".to_owned(),
                (least, most) => format!("number, {least} to {most}"),
            },
            "array" => format!("list of {}", self.values(&schema["items"])),
            "object" => format!("table of {}", self.values(&schema["additionalProperties"])),
            other => other.to_owned(),
        }
    }

    /// The words that a key takes, with what each means.
    fn words(&self, schema: &'s Value) -> Vec<(&'s str, Option<&'s str>)> {
        let target = match &schema["additionalProperties"] {
            of @ Value::Object(_) => self.resolved(of),
            _ => self.resolved(schema),
        };
        let one_of = target["oneOf"].as_array().into_iter().flatten();
        one_of.filter_map(|word| Some((word["const"].as_str()?, word["description"].as_str()))).collect()
    }
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

/// A description as running text; paragraphs stay apart.
fn text(schema: &Value) -> String {
    let description = schema["description"].as_str().unwrap_or_default();
    let paragraphs: Vec<_> =
        description.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect();
    paragraphs.join("\n\n")
}

fn lower_first(text: &str) -> String {
    let mut rest = text.chars();
    let is_word = text.split(' ').next().is_some_and(|word| word.chars().skip(1).all(char::is_lowercase));
    match rest.next() {
        Some(first) if is_word => first.to_lowercase().chain(rest).collect(),
        _ => text.to_owned(),
    }
}
