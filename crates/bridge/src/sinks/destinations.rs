//! Where a sink's records go, as far as the configuration and the documented event types tell.

use crate::config::{Config, DeadLetter, Route, SinkIndex, Target, Template};
use crate::documented;
use crate::routing::outline;
use crate::sinks::naming;

/// The destinations of one sink.
#[derive(Debug, Default)]
pub(crate) struct Destinations {
    /// Those with a name that is known.
    pub(crate) known: Vec<Destination>,
    /// Templates whose names an event decides, as far as they are known.
    pub(crate) open: Vec<String>,
}

/// A topic, subject or file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    /// Its name.
    pub(crate) name: String,
    /// Whether dead letters go there.
    pub(crate) dead_letters: bool,
    /// Whether some route gives its records no key at all.
    pub(crate) keyless: bool,
}

impl Destinations {
    /// Follows every documented type of every source through the routes, and dead letters too.
    pub(crate) fn of(config: &Config, index: SinkIndex) -> Self {
        let mut found = Self::default();
        let naming = naming(&config.sink(index).kind);
        for event_type in documented::event_types() {
            let applying = Route::applying(&config.routes, event_type);
            let routes = applying.into_iter().filter_map(|route| match &config.routes[route].target {
                Target::Sink { sink, to, key, .. } if *sink == index => Some((to, false, key.is_empty())),
                Target::Sink { .. } | Target::Drop => None,
            });
            let letters = match &config.dead_letter {
                DeadLetter::Sink { sink, to } if *sink == index => Some((to, true, false)),
                DeadLetter::Sink { .. } | DeadLetter::LocalFile => None,
            };
            let targets: Vec<(&Template, bool, bool)> = routes.chain(letters).collect();
            for (to, dead_letters, keyless) in targets {
                for source in &config.sources {
                    let place = Some((source.name.as_str(), source.org_id.as_str()));
                    found.add(outline(to, naming, event_type, place), dead_letters, keyless);
                }
            }
        }
        found
    }

    fn add(&mut self, name: String, dead_letters: bool, keyless: bool) {
        // No name that is known has a brace: it would have been replaced.
        if name.contains('{') {
            if !self.open.contains(&name) {
                self.open.push(name);
            }
            return;
        }
        match self.known.iter_mut().find(|known| known.name == name) {
            Some(known) => {
                known.dead_letters |= dead_letters;
                known.keyless |= keyless;
            }
            None => self.known.push(Destination { name, dead_letters, keyless }),
        }
    }

    /// The names that are known.
    pub(crate) fn names(&self) -> Vec<String> {
        self.known.iter().map(|known| known.name.clone()).collect()
    }
}
