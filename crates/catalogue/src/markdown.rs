//! The catalogue as a page.

use std::fmt::Write as _;

use crate::event::{EventType, Field};
use crate::table::events;

const HEAD: &str = "\
# Events

Every event type of the vendor's document, with its payload: the fields of its table and its example. The page is made
by `viaduct schema events --markdown` from `crates/catalogue/src/events.toml`; JSON Schemas come from the same table, see
[schemas.md](schemas.md).

Where a field has two types, the document contradicts itself: the first is the one in its table, the others are those in
its examples. No field is required. Texts and examples: Alvaria Cloud Streaming Client REST API v2.0/3.0, © Alvaria,
CC BY 4.0.
";

/// `docs/events.md`.
#[must_use]
pub fn markdown() -> String {
    let mut page = HEAD.to_owned();
    let mut category = "";
    for event in events() {
        if event.category() != category {
            category = event.category();
            // Writing to a String cannot fail.
            let _ = writeln!(page, "\n## {category}");
        }
        section(event, &mut page);
    }
    page
}

fn section(event: &EventType, page: &mut String) {
    let EventType { event_type, schema, about, .. } = event;
    let _ = writeln!(page, "\n### {event_type}\n\n{about} (`{schema}`)");
    if !event.listed {
        page.push_str("\nThe document's event list lacks it.\n");
    } else if event.category() == "engagementCenter" && !event.subscribable {
        page.push_str("\nNot among the events that the document lists for subscriptions.\n");
    }
    page.push_str("\n| field | type | |\n| --- | --- | --- |\n");
    for field in event.fields.iter().flat_map(Field::all) {
        let types: Vec<_> = field.types.iter().map(|kind| kind.word()).collect();
        let mut about = field.about.replace('|', "\\|");
        if !field.values.is_empty() {
            let values: Vec<_> = field.values.iter().map(|value| format!("`{value}`")).collect();
            let _ = write!(about, " One of {}.", values.join(", "));
        }
        let _ = writeln!(page, "| {} | {} | {about} |", code(&field.path), types.join(" or "));
    }
    for example in &event.examples {
        let _ = writeln!(page, "\n```json\n{example}\n```");
    }
}

/// Code in a table. A blank at the edge would be stripped in a single pair of backticks, so it is shown in quotes.
fn code(path: &str) -> String {
    if path.trim() == path { format!("`{path}`") } else { format!("`\"{path}\"`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/events.md");
        let page = std::fs::read_to_string(path).expect("docs/events.md can be read");
        assert!(
            page == markdown(),
            "docs/events.md: `cargo run -- schema events --markdown > docs/events.md`"
        );
    }
}
