//! What the events of one source are replayed with.

use std::collections::HashMap;
use std::sync::Arc;

use viaduct_poller::{ApiVersion, Entry};

use super::letter::Letter;
use crate::config::{Api, Config, DeadLetter, SinkIndex};
use crate::dry_run::Shower;
use crate::pipeline::lane::LaneSender;
use crate::routing::{DeadLetterRoute, Masks, Router};
use crate::sinks;
use crate::telemetry::Telemetry;
use crate::validation::Validator;

/// What belongs to one source.
pub(super) struct Line {
    /// The API that its events most likely came through.
    pub(super) api: ApiVersion,
    /// The routes.
    pub(super) router: Router,
    /// Compares events with the vendor's document, where the source asks for that.
    pub(super) validator: Option<Validator>,
    /// What a new dead letter is made with.
    pub(super) dead_letter_route: DeadLetterRoute,
    /// The ways into the sinks that were needed so far.
    pub(super) lanes: HashMap<SinkIndex, LaneSender>,
    /// The way to the dead letters, once it was needed.
    pub(super) dead_letters: Option<LaneSender>,
    /// Shows what would be published.
    pub(super) shower: Shower,
}

impl Line {
    /// `None`: the configuration has no such source.
    pub(super) fn new(
        config: &Config,
        source: &str,
        masks: Option<&Arc<Masks>>,
        telemetry: &Arc<Telemetry>,
    ) -> Option<Self> {
        let source = config.sources.iter().find(|one| one.name == source)?;
        let naming: Vec<_> = config.sinks.iter().map(|sink| sinks::naming(&sink.kind)).collect();
        let dead_letter_route = match &config.dead_letter {
            DeadLetter::LocalFile => DeadLetterRoute::local(&source.name, &source.org_id),
            DeadLetter::Sink { sink, to } => {
                DeadLetterRoute::sink(&source.name, &source.org_id, to, naming[sink.get()])
            }
        };
        Some(Self {
            api: match source.api {
                Api::V2 => ApiVersion::V2,
                Api::V3 => ApiVersion::V3,
            },
            router: Router::new(&source.name, &source.org_id, &source.source_uri, &config.routes, &naming),
            validator: Validator::new(source.name.as_str().into(), source.validate, telemetry.clone()),
            dead_letter_route,
            lanes: HashMap::new(),
            dead_letters: None,
            shower: Shower::new(config, source, masks.cloned()),
        })
    }

    /// The letter's event; the error says why it is none.
    pub(super) fn entry(&self, letter: &Letter) -> Result<Entry, String> {
        match letter.entry(self.api) {
            event @ Entry::Event(_) => Ok(event),
            Entry::Malformed(malformed) => Err(malformed.detail().to_owned()),
        }
    }
}
