//! An event's records as text for a person.

use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;
use viaduct_poller::Entry;
use viaduct_sink::record::HeaderStyle;
use viaduct_sink::{HeaderName, Record};

use crate::config::{Config, DeadLetter, SinkKind, Source};
use crate::routing::{Circumstances, DeadLetterRoute, Masks, Plan, Reason, Router};
use crate::sinks::naming;

/// Shows the events of one source.
#[derive(Debug)]
pub(crate) struct Shower {
    source: String,
    masks: Option<Arc<Masks>>,
    router: Router,
    dead_letters: DeadLetterRoute,
    dead_letter_sink: Option<usize>,
    sinks: Vec<(String, SinkKind)>,
}

impl Shower {
    /// For one of the sources of `config`.
    pub(crate) fn new(config: &Config, source: &Source, masks: Option<Arc<Masks>>) -> Self {
        let naming_of: Vec<_> = config.sinks.iter().map(|sink| naming(&sink.kind)).collect();
        let (dead_letters, dead_letter_sink) = match &config.dead_letter {
            DeadLetter::LocalFile => (DeadLetterRoute::local(&source.name, &source.org_id), None),
            DeadLetter::Sink { sink, to } => {
                let naming = naming_of[sink.get()];
                (DeadLetterRoute::sink(&source.name, &source.org_id, to, naming), Some(sink.get()))
            }
        };
        Self {
            source: source.name.clone(),
            router: Router::new(&source.name, &source.org_id, &source.source_uri, &config.routes, &naming_of),
            dead_letters,
            masks,
            dead_letter_sink,
            sinks: config.sinks.iter().map(|sink| (sink.name.clone(), sink.kind.clone())).collect(),
        }
    }

    /// What becomes of an entry, at that time: a headline, and its records below.
    pub(crate) fn show(&mut self, entry: Entry, session: &str, at: Timestamp) -> String {
        let entry = match &self.masks {
            Some(masks) => masks.apply(entry),
            None => entry,
        };
        self.show_masked(&entry, session, at)
    }

    /// The same of an entry that is masked already.
    pub(crate) fn show_masked(&mut self, entry: &Entry, session: &str, at: Timestamp) -> String {
        let mut text = String::new();
        let (id, event_type, plan) = match entry {
            Entry::Event(event) => (event.id(), event.event_type(), self.router.plan(event)),
            Entry::Malformed(malformed) => (
                malformed.id().unwrap_or("without an id"),
                "malformed",
                Plan::DeadLetter(Reason::from(malformed.reason()), malformed.detail().to_owned()),
            ),
        };
        line(&mut text, 0, &format!("{} {id} {event_type}", self.source));
        match plan {
            Plan::Records(records) => {
                for (sink, record) in records {
                    let (name, kind) = &self.sinks[sink.get()];
                    push_record(&mut text, name, Some(kind), &record);
                }
            }
            Plan::Dropped => line(&mut text, 2, "-> dropped"),
            Plan::DeadLetter(reason, detail) => {
                let masks = self.masks.as_deref();
                let circumstances =
                    Circumstances { session, reason, detail: &detail, intended: None, masks, at };
                let record = self.dead_letters.record(entry, &circumstances);
                let sink = self.dead_letter_sink.map(|index| &self.sinks[index]);
                let name = sink.map_or("local dead letters", |(name, _)| name);
                push_record(&mut text, name, sink.map(|(_, kind)| kind), &record);
            }
        }
        text.push('\n');
        text
    }
}

/// Destination, key, headers as this kind of sink spells them, value.
fn push_record(text: &mut String, sink: &str, kind: Option<&SinkKind>, record: &Record) {
    line(text, 2, &format!("-> {sink} {}", record.destination));
    let style = match kind {
        Some(SinkKind::Kafka(_)) => Some(HeaderStyle::Kafka),
        Some(SinkKind::Nats(_)) => Some(HeaderStyle::Nats),
        // A line of a file is the value alone.
        Some(SinkKind::File(_) | SinkKind::Stdout) | None => None,
    };
    if let Some(style) = style {
        match &record.key {
            Some(key) => line(text, 5, &format!("key: {key}")),
            None => line(text, 5, "no key"),
        }
        for header in &record.headers {
            line(text, 5, &format!("{}: {}", HeaderName::spelled(&header.name, style), header.value));
        }
    }
    if let Some(SinkKind::Nats(nats)) = kind {
        line(text, 5, &format!("Nats-Msg-Id: {}", record.message_id));
        line(text, 5, &format!("Nats-Expected-Stream: {}", nats.stream));
    }
    line(text, 5, &String::from_utf8_lossy(&record.value));
}

/// A line of its own, whatever is in it: line breaks between the tokens of JSON become blanks, as in files, and other
/// control characters are no business of a terminal.
fn line(text: &mut String, indent: usize, content: &str) {
    text.extend(std::iter::repeat_n(' ', indent));
    for character in content.chars() {
        match character {
            '\n' | '\r' | '\t' => text.push(' '),
            // Writing to a String cannot fail.
            control if control.is_control() => drop(write!(text, "\\u{:04x}", u32::from(control))),
            other => text.push(other),
        }
    }
    text.push('\n');
}
