//! An event's records as text for a person.

use std::sync::Arc;

use jiff::Timestamp;
use viaduct_poller::Entry;

use crate::config::{Config, DeadLetter, Source};
use crate::routing::{Circumstances, DeadLetterRoute, Masks, Plan, Reason, Router};
use crate::shown::{ShownSinks, push_line};
use crate::sinks::naming;

/// Shows the events of one source.
#[derive(Debug)]
pub(crate) struct Shower {
    source: String,
    masks: Option<Arc<Masks>>,
    router: Router,
    dead_letters: DeadLetterRoute,
    sinks: ShownSinks,
}

impl Shower {
    /// For one of the sources of `config`.
    pub(crate) fn new(config: &Config, source: &Source, masks: Option<Arc<Masks>>) -> Self {
        let naming_of: Vec<_> = config.sinks.iter().map(|sink| naming(&sink.kind)).collect();
        let dead_letters = match &config.dead_letter {
            DeadLetter::LocalFile => DeadLetterRoute::local(&source.name, &source.org_id),
            DeadLetter::Sink { sink, to } => {
                DeadLetterRoute::sink(&source.name, &source.org_id, to, naming_of[sink.get()])
            }
        };
        Self {
            source: source.name.clone(),
            router: Router::new(&source.name, &source.org_id, &source.source_uri, &config.routes, &naming_of),
            dead_letters,
            masks,
            sinks: ShownSinks::of(config),
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
        push_line(&mut text, 0, &format!("{} {id} {event_type}", self.source));
        match plan {
            Plan::Records(records) => {
                for (sink, record) in records {
                    self.sinks.record(sink.get(), &record).push(&mut text);
                }
            }
            Plan::Dropped => push_line(&mut text, 2, "-> dropped"),
            Plan::DeadLetter(reason, detail) => {
                let masks = self.masks.as_deref();
                let circumstances =
                    Circumstances { session, reason, detail: &detail, intended: None, masks, at };
                let record = self.dead_letters.record(entry, &circumstances);
                self.sinks.dead_letter(&record).push(&mut text);
            }
        }
        text.push('\n');
        text
    }
}
