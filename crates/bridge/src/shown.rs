//! A record as a person sees it: in the dry run, and in `tap --records`.

mod cover;

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use viaduct_sink::record::HeaderStyle;
use viaduct_sink::{HeaderName, Record};

use crate::config::{Config, DeadLetter, Format, RecordsShown, SinkKind};

/// What the local dead-letter file is called.
const LOCAL_DEAD_LETTERS: &str = "local dead letters";
/// Larger values are not shown to followers: they would have to be kept for the slowest of them.
const MOST_SHOWN: usize = 64 << 10;

/// A record with everything that its destination gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShownRecord {
    /// The sink.
    pub(crate) sink: String,
    /// Topic, subject or file.
    pub(crate) destination: String,
    /// Where there is one.
    pub(crate) key: Option<String>,
    /// As this kind of sink spells them; `None` where it has neither headers nor keys.
    pub(crate) headers: Option<Vec<(String, String)>>,
    /// As text.
    pub(crate) value: String,
}

/// What the value of a record is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// An event in this format.
    Event(Format),
    /// The vendor's text, as a dead letter.
    DeadLetter,
}

/// How records of each sink look.
#[derive(Debug, Clone, Default)]
pub(crate) struct ShownSinks {
    sinks: Vec<(String, SinkKind)>,
    dead_letters: Option<usize>,
    /// Whether followers see what records say.
    clear: bool,
}

impl ShownSinks {
    /// Of a configuration.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            sinks: config.sinks.iter().map(|sink| (sink.name.clone(), sink.kind.clone())).collect(),
            dead_letters: match &config.dead_letter {
                DeadLetter::LocalFile => None,
                DeadLetter::Sink { sink, .. } => Some(sink.get()),
            },
            clear: config.records == RecordsShown::Clear,
        }
    }

    /// A record for the sink of this position.
    pub(crate) fn record(&self, sink: usize, record: &Record) -> ShownRecord {
        let known = self.sinks.get(sink);
        shown(known.map_or("?", |(name, _)| name), known.map(|(_, kind)| kind), record)
    }

    /// A record for the dead letters.
    pub(crate) fn dead_letter(&self, record: &Record) -> ShownRecord {
        match self.dead_letters {
            Some(sink) => self.record(sink, record),
            None => self.local_dead_letter(record),
        }
    }

    /// A record for the local dead-letter file.
    pub(crate) fn local_dead_letter(&self, record: &Record) -> ShownRecord {
        shown(LOCAL_DEAD_LETTERS, None, record)
    }

    /// A record as those may see it who reach the admin port: unless the configuration says otherwise, of its payload only
    /// the structure stays, and of the rest what names the event. `show` is one of the above.
    pub(crate) fn to_followers(
        &self,
        record: &Record,
        content: Content,
        show: impl Fn(&Self, &Record) -> ShownRecord,
    ) -> ShownRecord {
        let size = record.value.len();
        let mut shown = if size > MOST_SHOWN {
            let value = format!("({size} bytes: too large to be shown)").into();
            show(self, &Record { value, ..record.clone() })
        } else {
            show(self, record)
        };
        if !self.clear {
            shown.cover();
            if size <= MOST_SHOWN {
                shown.value = cover::value(&shown.value, content);
            }
        }
        shown
    }
}

fn shown(sink: &str, kind: Option<&SinkKind>, record: &Record) -> ShownRecord {
    let style = match kind {
        Some(SinkKind::Kafka(_)) => Some(HeaderStyle::Kafka),
        Some(SinkKind::Nats(_)) => Some(HeaderStyle::Nats),
        // A line of a file is the value alone.
        Some(SinkKind::File(_) | SinkKind::Stdout) | None => None,
    };
    let spelled = |style| {
        let own = record.headers.iter().map(move |header| {
            (HeaderName::spelled(&header.name, style).to_owned(), header.value.to_string())
        });
        let mut headers: Vec<(String, String)> = own.collect();
        if let Some(SinkKind::Nats(nats)) = kind {
            headers.push(("Nats-Msg-Id".to_owned(), record.message_id.to_string()));
            headers.push(("Nats-Expected-Stream".to_owned(), nats.stream.clone()));
        }
        headers
    };
    ShownRecord {
        sink: sink.to_owned(),
        destination: record.destination.to_string(),
        key: style.and(record.key.as_ref()).map(ToString::to_string),
        headers: style.map(spelled),
        value: String::from_utf8_lossy(&record.value).into_owned(),
    }
}

impl ShownRecord {
    fn cover(&mut self) {
        self.key = self.key.take().map(|_| cover::COVER.to_owned());
        for (name, value) in self.headers.iter_mut().flatten() {
            if !cover::is_plain_header(name) {
                cover::COVER.clone_into(value);
            }
        }
    }

    /// Destination, key, headers, value, each on lines of their own.
    pub(crate) fn push(&self, text: &mut String) {
        push_line(text, 2, &format!("-> {} {}", self.sink, self.destination));
        if let Some(headers) = &self.headers {
            match &self.key {
                Some(key) => push_line(text, 5, &format!("key: {key}")),
                None => push_line(text, 5, "no key"),
            }
            for (name, value) in headers {
                push_line(text, 5, &format!("{name}: {value}"));
            }
        }
        push_line(text, 5, &self.value);
    }
}

/// A line of its own, whatever is in it: line breaks between the tokens of JSON become blanks, as in files, and other
/// control characters are no business of a terminal.
pub(crate) fn push_line(text: &mut String, indent: usize, content: &str) {
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
