//! The configuration as a tree of values that know where they come from: the file's, with what the environment and
//! the flags lay over it (see [`super::overlay`]).
//!
//! The file is parsed with recovery, so that one forgotten quote does not hide the mistakes behind it.

use std::mem;
use std::ops::{Range, RangeInclusive};
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::mistake::{Mistake, Place};

/// A value with its origin.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) at: Origin,
    /// The text of a variable or flag: what a key that takes text gets, even where it looks like a number.
    pub(super) text: Option<String>,
}

/// A TOML value.
#[derive(Clone)]
pub(super) enum Value {
    Text(String),
    /// `None`: a number that does not fit.
    Integer(Option<i64>),
    Float(f64),
    Boolean(bool),
    Date,
    List(Vec<Node>),
    Table(Table),
}

/// Keys in the order of the file.
#[derive(Clone, Default)]
pub(super) struct Table(pub(super) Vec<Entry>);

/// One key of a table.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Where the key stands.
    pub(super) at: Origin,
    pub(super) node: Node,
}

/// A number for a place, small enough to travel through serde.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin(pub(super) u32);

/// The places behind the numbers.
pub(super) struct Origins(Vec<Place>);

impl Origins {
    /// The place of what nobody wrote.
    pub(super) const NOWHERE: Origin = Origin(0);

    pub(super) fn new() -> Self {
        Self(vec![Place::Nowhere])
    }

    pub(super) fn add(&mut self, place: Place) -> Origin {
        self.0.push(place);
        Origin(u32::try_from(self.0.len() - 1).unwrap_or(0))
    }

    pub(super) fn place(&self, origin: Origin) -> Place {
        self.0.get(origin.0 as usize).cloned().unwrap_or(Place::Nowhere)
    }
}

impl Table {
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.key == key)
    }
}

impl Value {
    /// What it is, for "must be …, not …".
    pub(super) const fn noun(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number with a fraction",
            Self::Boolean(_) => "a boolean",
            Self::Date => "a date or time",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// What came of a file's text.
pub(super) struct Parsed {
    pub(super) root: Node,
    /// Where the text is not TOML, and keys that stand twice.
    pub(super) mistakes: Vec<Mistake>,
    /// Whether something may be absent only because it could not be read.
    pub(super) incomplete: bool,
    /// The lines of which nothing should be believed, because they are no TOML or belong to a list that never ends.
    pub(super) garbled: Vec<RangeInclusive<usize>>,
}

impl Parsed {
    /// What there is without a file.
    pub(super) fn nothing() -> Self {
        let root = Node { value: Value::Table(Table::default()), at: Origins::NOWHERE, text: None };
        Self { root, mistakes: Vec::new(), incomplete: false, garbled: Vec::new() }
    }
}

/// How often a text is parsed anew for what the parser did not look at.
const MAX_PASSES: usize = 100;

/// Parses the text of a configuration file. No message contains a piece of the text other than the name of a key.
pub(super) fn parse_file(text: &str, file: &Path, origins: &mut Origins) -> Parsed {
    let lines = Lines::of(text, file);
    let mut readable = text.to_owned();
    let mut flaws = Vec::new();
    for _ in 0..MAX_PASSES {
        let errors = DeTable::parse_recoverable(&readable).1;
        let found = without_echoes(errors, &readable, &lines);
        flaws.retain(|flaw: &Flaw| matches!(flaw.what, What::Syntax(_)));
        let before = flaws.len();
        for flaw in found {
            if !flaws.iter().any(|known| known.line == flaw.line && known.what.same_kind(&flaw.what)) {
                flaws.push(flaw);
            }
        }
        // The parser gives up at some lines. Without them it finds the mistakes behind.
        let spoilt: Vec<_> = flaws[before..]
            .iter()
            .filter(|flaw| matches!(flaw.what, What::Syntax(_)))
            .map(|flaw| lines.range(flaw.line))
            .filter(|range| !readable[range.clone()].trim_start().starts_with('['))
            .collect();
        if spoilt.is_empty() {
            break;
        }
        for range in spoilt {
            let blank = " ".repeat(range.len());
            readable.replace_range(range, &blank);
        }
    }

    let mut parsed = Parsed {
        root: Node {
            value: Value::Table(table(DeTable::parse_recoverable(&readable).0.get_ref(), &lines, origins)),
            at: origins.add(Place::File { file: file.to_owned() }),
            text: None,
        },
        mistakes: Vec::new(),
        incomplete: false,
        garbled: Vec::new(),
    };
    for flaw in flaws {
        let (message, hint) = match flaw.what {
            What::Duplicate(key) => (format!("duplicate key `{key}`"), "keep one of the two"),
            What::Unclosed => {
                ("not valid TOML: a list before this place is not closed".to_owned(), "close it with `]`")
            }
            What::Syntax(message) => (
                format!("not valid TOML: {message}"),
                "strings stand in \"quotes\", lists in [brackets], one key = value per line",
            ),
        };
        parsed.mistakes.push(Mistake { place: flaw.place, message, hint: hint.to_owned() });
        parsed.garbled.extend(flaw.garbled);
    }
    parsed.incomplete = !parsed.garbled.is_empty();
    parsed
}

/// An error of the parser.
struct Flaw {
    line: usize,
    place: Place,
    what: What,
    /// The lines that it spoils.
    garbled: Option<RangeInclusive<usize>>,
}

enum What {
    Duplicate(String),
    Unclosed,
    Syntax(String),
}

impl What {
    fn same_kind(&self, other: &Self) -> bool {
        mem::discriminant(self) == mem::discriminant(other)
    }
}

/// The errors of which each is a mistake of its own: one per line, and one for a list that is never closed, which makes
/// everything behind it look wrong.
fn without_echoes(errors: Vec<toml::de::Error>, text: &str, lines: &Lines<'_>) -> Vec<Flaw> {
    let unclosed = errors.iter().any(|error| error.message().starts_with("unclosed array"));
    let goes_wrong = errors.iter().filter(|error| error.message().contains("array")).map(start).min();
    let mut flaws: Vec<_> = errors
        .iter()
        .map(|error| {
            let (line, place) = lines.place(start(error));
            if error.message() == "duplicate key" {
                let key = error.span().and_then(|span| text.get(span)).unwrap_or_default();
                Flaw { line, place, what: What::Duplicate(key.to_owned()), garbled: None }
            } else {
                Flaw {
                    line,
                    place,
                    what: What::Syntax(error.message().to_owned()),
                    garbled: Some(line..=line),
                }
            }
        })
        .collect();
    if let (true, Some(offset)) = (unclosed, goes_wrong) {
        let (line, place) = lines.place(offset);
        flaws.retain(|flaw| flaw.line < line);
        flaws.push(Flaw { line, place, what: What::Unclosed, garbled: Some(line..=usize::MAX) });
    }
    flaws.sort_by(|one, other| one.place.cmp(&other.place));
    let mut last = 0;
    flaws.retain(|flaw| {
        let echo = flaw.line == last && !matches!(flaw.what, What::Duplicate(_));
        last = flaw.line;
        !echo
    });
    flaws
}

fn start(error: &toml::de::Error) -> usize {
    error.span().map_or(0, |span| span.start)
}

/// Parses the value of a variable or flag: as TOML where it is TOML, otherwise as the text that it is.
pub(super) fn parse_value(text: &str, at: Origin) -> Node {
    let value = DeValue::parse(text)
        .map_or_else(|_| Value::Text(text.to_owned()), |parsed| value(parsed.get_ref(), &mut |_| at));
    Node { value, at, text: Some(text.to_owned()) }
}

fn table(parsed: &DeTable<'_>, lines: &Lines<'_>, origins: &mut Origins) -> Table {
    entries(parsed, &mut |offset| origins.add(lines.place(offset).1))
}

fn entries(parsed: &DeTable<'_>, origin: &mut impl FnMut(usize) -> Origin) -> Table {
    Table(
        parsed
            .iter()
            .map(|(key, item)| Entry {
                key: key.get_ref().to_string(),
                at: origin(key.span().start),
                node: Node {
                    at: origin(item.span().start),
                    value: value(item.get_ref(), origin),
                    text: None,
                },
            })
            .collect(),
    )
}

fn value(parsed: &DeValue<'_>, origin: &mut dyn FnMut(usize) -> Origin) -> Value {
    match parsed {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok()),
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(yes) => Value::Boolean(*yes),
        DeValue::Datetime(_) => Value::Date,
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .map(|item| Node {
                    at: origin(item.span().start),
                    value: value(item.get_ref(), origin),
                    text: None,
                })
                .collect(),
        ),
        DeValue::Table(inner) => Value::Table(entries(inner, &mut |offset| origin(offset))),
    }
}

/// From offsets to lines and columns.
struct Lines<'t> {
    text: &'t str,
    file: &'t Path,
    /// Where each line starts.
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str, file: &'t Path) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, file, starts }
    }

    /// The line from 1, without its end.
    fn range(&self, line: usize) -> Range<usize> {
        let start = self.starts.get(line - 1).copied().unwrap_or(self.text.len());
        let end = self.starts.get(line).map_or(self.text.len(), |next| next - 1);
        start..end.max(start)
    }

    fn place(&self, offset: usize) -> (usize, Place) {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(1, |before| before.chars().count() + 1);
        (line, Place::Line { file: self.file.to_owned(), line, column })
    }
}
