//! Where dead letters stand: the configured destination, and the local file, which takes what that refuses.

use std::fmt;
use std::sync::Arc;

use viaduct_sink::{Archive, ArchiveError, Kept, Marks, Names, Place};
use viaduct_sink_file::FileArchive;
use viaduct_sink_kafka::KafkaArchive;
use viaduct_sink_nats::NatsArchive;

use crate::config::{Config, DeadLetter, Pattern, SinkKind, Template};
use crate::exit::{Exit, Failure};
use crate::routing::dead_letter::LOCAL_FILE;
use crate::routing::{Naming, every_name, prefix};
use crate::sinks::{kafka_settings, naming, nats_settings, refused};

/// One of the places.
pub(super) struct Shelf {
    /// What it is, for people.
    pub(super) name: String,
    pub(super) archive: Box<dyn Archive>,
    /// How ids look there.
    form: &'static str,
    is_local: bool,
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Shelf {
    /// All of a configuration's: the destination of `[dead_letter]` first.
    ///
    /// # Errors
    /// 78 for settings that cannot be used. Nobody is connected to yet.
    pub(super) fn all(config: &Config) -> Result<Vec<Self>, Failure> {
        let directory = config.state_dir.join("dead-letters");
        let local = Self {
            name: format!("{}", directory.join(format!("{LOCAL_FILE}.jsonl")).display()),
            archive: Box::new(FileArchive::new(directory, Names::One(LOCAL_FILE.into()), Some("local"))),
            form: "local:17 (a line)",
            is_local: true,
        };
        let mut shelves = match &config.dead_letter {
            DeadLetter::LocalFile => Vec::new(),
            DeadLetter::Sink { sink, to } => {
                let index = *sink;
                let sink = config.sink(index);
                let names = names(config, to, naming(&sink.kind));
                let what = match &names {
                    Names::One(name) => name.to_string(),
                    Names::Like { .. } => to.to_string(),
                };
                let failed = |error: &dyn fmt::Display| refused(&sink.name, error);
                let (archive, place, form): (Box<dyn Archive>, _, _) = match &sink.kind {
                    SinkKind::Kafka(options) => {
                        let settings = kafka_settings(config, index, options, None)?;
                        let archive = KafkaArchive::new(&settings, names).map_err(|error| failed(&error))?;
                        (Box::new(archive), format!("topic {what}"), "0:17 (partition and offset)")
                    }
                    SinkKind::Nats(options) => {
                        let settings = nats_settings(config, index, options, None);
                        let archive = NatsArchive::new(settings, names).map_err(|error| failed(&error))?;
                        (Box::new(archive), format!("subject {what}"), "17 (a sequence)")
                    }
                    SinkKind::File(options) => {
                        let archive = FileArchive::new(&options.dir, names, None);
                        let place = format!("{}/{what}.jsonl", options.dir.display());
                        (Box::new(archive), place, "dead-letter.000001:17 (file and line)")
                    }
                    SinkKind::Stdout => {
                        // The configuration's checks refuse it.
                        return Err(failed(&"standard output keeps no dead letters"));
                    }
                };
                let name = format!("{place} (sink {})", sink.name);
                vec![Self { name, archive, form, is_local: matches!(sink.kind, SinkKind::File(_)) }]
            }
        };
        shelves.push(local);
        Ok(shelves)
    }

    /// The one that `id` belongs to.
    ///
    /// # Errors
    /// 64: none has ids of that form.
    pub(super) fn of_id<'s>(shelves: &'s [Self], id: &str) -> Result<&'s Self, Failure> {
        shelves.iter().find(|shelf| shelf.archive.knows(id)).ok_or_else(|| {
            let forms: Vec<_> = shelves.iter().map(|shelf| shelf.form).collect();
            Failure::new(
                Exit::Usage,
                format!("{id:?} is no id of a dead letter"),
                format!("ids look like {}; `viaduct dlq list` shows them", forms.join(" or ")),
            )
        })
    }

    /// Reads the record with this id.
    ///
    /// # Errors
    /// 65: there is none; and what [`Shelf::failure`] is about.
    pub(super) async fn find(&self, id: &str) -> Result<Kept, Failure> {
        let found = self.archive.find(id).await.map_err(|error| self.failure(&error))?;
        found.ok_or_else(|| {
            Failure::new(
                Exit::DataErr,
                format!("there is no dead letter {id} in {}", self.name),
                "`viaduct dlq list --all` shows those that there are",
            )
        })
    }

    /// 69 where a broker does not answer or permit it, 73 where files cannot be used.
    pub(super) fn failure(&self, error: &ArchiveError) -> Failure {
        let (exit, hint) = match error {
            ArchiveError::Unreachable(_) => {
                (Exit::Unavailable, "check that it runs and can be reached, and try again")
            }
            ArchiveError::Refused(_) if self.is_local => {
                (Exit::CantCreate, "check the permissions of this user")
            }
            ArchiveError::Refused(_) => (
                Exit::Unavailable,
                "check the permissions of these credentials: to read dead letters, and to write marks",
            ),
        };
        Failure::new(exit, format!("{}: {error}", self.name), hint)
    }
}

/// Whether a record was replayed.
pub(super) fn is_marked(marks: &Marks, place: &Place) -> bool {
    marks.get(&place.log).is_some_and(|numbers| numbers.contains(place.number))
}

/// What the template of dead letters can become.
fn names(config: &Config, to: &Template, naming: Naming) -> Names {
    let sources = || config.sources.iter().map(|source| (source.name.as_str(), source.org_id.as_str()));
    let mut patterns: Vec<String> =
        sources().map(|(source, org)| every_name(to, naming, source, org)).collect();
    patterns.sort();
    patterns.dedup();
    match patterns.as_slice() {
        [one] if !one.contains('*') => Names::One(one.as_str().into()),
        _ => {
            let patterns: Vec<Pattern> = patterns.iter().map(|pattern| Pattern::of(pattern)).collect();
            Names::Like {
                prefixes: sources().map(|(source, org)| prefix(to, naming, source, org).0).collect(),
                matches: Arc::new(move |name| patterns.iter().any(|pattern| pattern.matches(name))),
            }
        }
    }
}
