//! The configuration after every check: past this file nothing is a string that might mean something, and `None`
//! only ever means "the user chose to have none".

mod mask;
mod sink;
mod source;
mod tracing;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

pub(crate) use self::mask::*;
pub(crate) use self::sink::*;
pub(crate) use self::source::*;
pub(crate) use self::tracing::*;

use super::pattern::Pattern;
use super::template::{KeyPart, Template};

/// A whole, valid configuration.
///
/// Paths stand as they were written: relative ones are relative to the working directory of the process.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// `[bridge]`
    pub(crate) bridge: Bridge,
    /// `[source.*]`, in the order of the file; never empty, names unique.
    pub(crate) sources: Vec<Source>,
    /// `[sink.*]`, in the order of the file; never empty, names unique.
    pub(crate) sinks: Vec<Sink>,
    /// `[[route]]`, in the order of the file, or the default ones; never empty.
    pub(crate) routes: Vec<Route>,
    /// `[dead_letter]`
    pub(crate) dead_letter: DeadLetter,
    /// `[mask]`; `None`: nothing is masked.
    pub(crate) mask: Option<Mask>,
    /// `state.dir`
    pub(crate) state_dir: PathBuf,
    /// `admin.listen`; `None`: `"off"`.
    pub(crate) admin: Option<SocketAddr>,
    /// `admin.records`
    pub(crate) records: RecordsShown,
    /// `[log]`
    pub(crate) log: Log,
    /// `[tracing]`; `None`: off.
    pub(crate) tracing: Option<Tracing>,
}

impl Config {
    /// The positions of all sinks, in order.
    pub(crate) fn sink_indices(&self) -> impl Iterator<Item = SinkIndex> + use<> {
        (0..self.sinks.len()).map(SinkIndex)
    }

    /// The sink that a route or the dead letters name.
    pub(crate) fn sink(&self, index: SinkIndex) -> &Sink {
        &self.sinks[index.0]
    }
}

/// `[bridge]`: the deployment as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Bridge {
    /// Identity of this deployment: two running bridges of one name fence each other.
    pub(crate) name: String,
    /// Into how many slices the sources are divided, each with a producer of its own.
    pub(crate) shards: NonZeroU32,
    /// How long a shutdown waits for publishes in flight and their acknowledgements.
    pub(crate) shutdown_timeout: Duration,
}

/// One `[[route]]`.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    /// The route applies when one of them matches the `eventType`; never empty.
    pub(crate) patterns: Vec<Pattern>,
    /// The `!` patterns: the route does not apply when one of them matches.
    pub(crate) exclusions: Vec<Pattern>,
    /// What becomes of the events.
    pub(crate) target: Target,
}

impl Route {
    /// Whether the route applies to events of this type.
    pub(crate) fn matches(&self, event_type: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(event_type))
            && !self.exclusions.iter().any(|pattern| pattern.matches(event_type))
    }

    /// The positions of the routes that apply to a type: all that match, but the first one per sink alone. A route with
    /// `sink = "none"` counts only where nothing else matches, but is among them.
    pub(crate) fn applying(routes: &[Self], event_type: &str) -> Vec<usize> {
        let mut taken: Vec<SinkIndex> = Vec::new();
        let mut applying = Vec::new();
        for (index, route) in routes.iter().enumerate().filter(|(_, route)| route.matches(event_type)) {
            match &route.target {
                Target::Sink { sink, .. } if taken.contains(sink) => continue,
                Target::Sink { sink, .. } => taken.push(*sink),
                Target::Drop => {}
            }
            applying.push(index);
        }
        applying
    }

    /// `match` as it was written, exclusions last.
    pub(crate) fn match_texts(&self) -> Vec<String> {
        let excluded = self.exclusions.iter().map(|pattern| format!("!{pattern}"));
        self.patterns.iter().map(ToString::to_string).chain(excluded).collect()
    }
}

/// What a route makes of its events.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// `sink = "none"`: an event that matches nothing else is acknowledged and forgotten.
    Drop,
    /// A record for a sink.
    Sink {
        /// Which of [`Config::sinks`].
        sink: SinkIndex,
        /// Topic, subject or file name.
        to: Template,
        /// Of which the first usable one is the key; empty: no key.
        key: Vec<KeyPart>,
        /// The form of the record's value.
        format: Format,
        /// Further headers of the record, by name; names are unique, whatever their case.
        headers: Vec<(String, Template)>,
    },
}

/// A position in [`Config::sinks`]; only the checks make one, so that it always points at a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SinkIndex(pub(in crate::config) usize);

impl SinkIndex {
    /// The position.
    pub(crate) const fn get(self) -> usize {
        self.0
    }
}

/// The form of a record's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// The vendor's event object with the payload as JSON.
    Unwrapped,
    /// The vendor's event object, byte for byte.
    Raw,
    /// The payload alone.
    Payload,
    /// Structured CloudEvents JSON.
    CloudEvents,
}

impl Format {
    /// The word that `format` takes.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Unwrapped => "unwrapped",
            Self::Raw => "raw",
            Self::Payload => "payload",
            Self::CloudEvents => "cloudevents",
        }
    }
}

/// Where events go that can never be published as routed.
#[derive(Debug, Clone)]
pub(crate) enum DeadLetter {
    /// JSON Lines under `state.dir`.
    LocalFile,
    /// A sink; what it refuses too goes to the local file.
    Sink {
        /// Which of [`Config::sinks`]; never stdout.
        sink: SinkIndex,
        /// Topic, subject or file name.
        to: Template,
    },
}

/// What the admin port shows of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RecordsShown {
    /// What an event is and how it is built, not what it says.
    Masked,
    /// All that the destinations get.
    Clear,
}

/// `[log]`
#[derive(Debug, Clone)]
pub(crate) struct Log {
    /// A level or `target=level` directives, in the words of `tracing_subscriber::EnvFilter`; always parses there.
    pub(crate) level: String,
    /// How lines look.
    pub(crate) format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Text on a terminal, otherwise JSON.
    Auto,
    /// For people.
    Text,
    /// For machines.
    Json,
}
