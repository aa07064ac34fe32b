//! `viaduct dlq show`: one dead letter, for a person; or its event alone, for a program.

use std::fmt::Write as _;
use std::io::Write;

use viaduct_poller::{ApiVersion, Entry, Payload};
use viaduct_sink::Marks;

use super::args::ShowArgs;
use super::letter::Letter;
use super::shelf::{Shelf, is_marked};
use super::{plain, unwritable};
use crate::exit::{Exit, Failure};
use crate::routing::Reason;
use crate::routing::dead_letter::header;

/// How many characters of a session's id are shown: it gives access to events.
const SHOWN_OF_SESSION: usize = 8;
/// The width of the names.
const WIDTH: usize = 14;

/// Shows the dead letter that was asked for.
///
/// # Errors
/// 64 and 65: there is no such id; and a place that cannot be read.
pub(super) async fn show(args: &ShowArgs, shelves: &[Shelf], out: &mut impl Write) -> Result<(), Failure> {
    let shelf = Shelf::of_id(shelves, &args.id)?;
    let kept = shelf.find(&args.id).await?;
    let letter = Letter::of(kept).ok_or_else(|| {
        Failure::new(
            Exit::DataErr,
            format!("{} in {} is no dead letter", args.id, shelf.name),
            "`viaduct dlq list --all` shows those that there are",
        )
    })?;
    let text = if args.raw {
        format!("{}\n", letter.event)
    } else {
        let marks = shelf.archive.marks().await.map_err(|error| shelf.failure(&error))?;
        page(&letter, &shelf.name, &marks)
    };
    out.write_all(text.as_bytes()).map_err(|error| unwritable(&error))
}

fn page(letter: &Letter, place: &str, marks: &Marks) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<WIDTH$}{}", plain(value));
    };
    line("id", &letter.place.id);
    line("in", place);
    line("since", &letter.time.map_or("-".to_owned(), |time| time.to_string()));
    line("reason", &format!("{}: {}", letter.reason(), Reason::meaning(letter.reason())));
    line("message", letter.message());
    line("source", letter.source());
    if let Some(destination) = letter.destination() {
        line("destination", destination);
    }
    line("event", letter.event_id().unwrap_or("without an id"));
    line("event type", letter.event_type().unwrap_or("-"));
    if let Some(session) = letter.header(header::SESSION) {
        let start: String = session.chars().take(SHOWN_OF_SESSION).collect();
        line("session", &if start.len() < session.len() { format!("{start}…") } else { start });
    }
    if let Some(stage) = letter.header(header::STAGE) {
        line("stage", stage);
    }
    if letter.header(header::MASKS).is_some() {
        line("masked", "yes; replayed, it is published as it stands here");
    }
    line("replayed", if is_marked(marks, &letter.place) { "yes" } else { "no" });
    let known = [
        header::REASON,
        header::MESSAGE,
        header::SOURCE,
        header::DESTINATION,
        header::SESSION,
        header::STAGE,
        header::MASKS,
        header::TIME,
        // They say again what stands above.
        "__connect.errors.topic",
        "__connect.errors.class.name",
    ];
    for (name, value) in letter.headers.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
        line(&format!("{name} "), value);
    }
    text.push('\n');
    text.push_str(&pretty(&readable(letter)));
    text.push('\n');
    text
}

/// The event with its payload as JSON instead of a string of JSON.
fn readable(letter: &Letter) -> String {
    let entry = letter.entry(ApiVersion::V3);
    let event = match &entry {
        Entry::Event(event) => Some(event),
        Entry::Malformed(malformed) => malformed.event(),
    };
    let Some(event) = event else { return letter.event.clone() };
    match (event.payload(), event.payload_span()) {
        (Payload::Text(payload), Some(span)) if is_json(payload) => {
            let mut text = event.raw().to_owned();
            text.replace_range(span, payload);
            text
        }
        _ => event.raw().to_owned(),
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// JSON with a line per member; nothing but the space between its tokens changes. What is no JSON stays.
fn pretty(text: &str) -> String {
    if !is_json(text) {
        return plain(text);
    }
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut in_string, mut escaped, mut opened) = (0_usize, false, false, false);
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    for character in text.chars() {
        if in_string {
            out.push(character);
            (in_string, escaped) = match character {
                _ if escaped => (true, false),
                '\\' => (true, true),
                '"' => (false, false),
                _ => (true, false),
            };
            continue;
        }
        if character.is_ascii_whitespace() {
            continue;
        }
        if matches!(character, '}' | ']') {
            depth -= 1;
            if !opened {
                line(&mut out, depth);
            }
        } else if opened {
            line(&mut out, depth);
        }
        opened = matches!(character, '{' | '[');
        out.push(character);
        match character {
            '{' | '[' => depth += 1,
            ',' => line(&mut out, depth),
            ':' => out.push(' '),
            '"' => in_string = true,
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pretty_changes_space_alone() {
        let text = r#"{"n":1.0,"big":12345678901234567890,"s":"a, \"b\": {}","o":{},"l":[1,[],{"x":null}]}"#;
        let printed = pretty(text);
        insta::assert_snapshot!(printed, @r#"
        {
          "n": 1.0,
          "big": 12345678901234567890,
          "s": "a, \"b\": {}",
          "o": {},
          "l": [
            1,
            [],
            {
              "x": null
            }
          ]
        }
        "#);
        assert_eq!(pretty("{ \"a\" :\n1 }"), "{\n  \"a\": 1\n}");
        assert_eq!(pretty("7"), "7");
        assert_eq!(pretty("{no\tJSON"), "{no JSON");
    }
}
