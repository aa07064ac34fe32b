//! The destinations: what is readable in them, and what they make of requests.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use viaduct_sink::Record;

/// The rules of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rules {
    /// Transactions, fenced by the producer's epoch; as Kafka.
    Transactions,
    /// Atomic batches whose checkpoint names the sequence of the one before; as JetStream.
    Batches,
    /// One record after the other: at least once.
    Plain,
}

/// What a client sends.
#[derive(Debug, Clone)]
pub(super) enum Request {
    /// Ends whatever producers before have under way.
    Fence,
    /// Reads the checkpoint, committed data only.
    Read,
    /// Stores records and their checkpoint in one step.
    Commit {
        token: Option<u64>,
        records: Vec<Record>,
        pages: Vec<(u32, Option<Bytes>)>,
        checkpoint: Bytes,
        claim: bool,
    },
    /// Stores records one by one.
    Append(Vec<Record>),
}

/// A checkpoint and its pages.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    pub(super) text: Bytes,
    pub(super) pages: BTreeMap<u32, Bytes>,
}

/// What a destination answers.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// The producer's epoch.
    Fenced(u64),
    /// The checkpoint with its sequence.
    Read(u64, Option<Found>),
    /// It is stored; the sequence.
    Committed(u64),
    /// Another producer, or another checkpoint, came in between. Nothing is stored.
    Stale,
    /// The record at this place is refused. Nothing is stored.
    Culprit(usize),
    /// For each of the first records whether it was taken; the others were not tried.
    Appended(Vec<bool>),
}

/// A record that can be read.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) record: Record,
    /// The instance that sent it.
    pub(super) by: usize,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Broker {
    pub(super) rules: Rules,
    pub(super) log: Vec<Stored>,
    checkpoint: Option<Found>,
    sequence: u64,
    epoch: u64,
    /// The instance whose claim was stored last.
    pub(super) owner: Option<usize>,
    pub(super) away: bool,
    /// Destinations that do not exist now.
    pub(super) missing: HashSet<&'static str>,
    /// How often each record can be read.
    pub(super) counts: HashMap<std::sync::Arc<str>, usize>,
}

impl Broker {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            log: Vec::new(),
            checkpoint: None,
            sequence: 0,
            epoch: 0,
            owner: None,
            away: false,
            missing: HashSet::new(),
            counts: HashMap::new(),
        }
    }

    pub(super) fn is_missing(&self, destination: &str) -> bool {
        self.missing.contains(destination)
    }

    /// Whether the record can be read here.
    pub(super) fn holds(&self, name: &str) -> bool {
        self.counts.contains_key(name)
    }

    /// Whether a dead letter can be read here of that event, which `destination` did not take (or any, where it is empty).
    pub(super) fn holds_letter(&self, event: &str, destination: &str) -> bool {
        let of = |stored: &&Stored| {
            *stored.record.event == *event && stored.record.message_id != stored.record.event
        };
        self.log.iter().filter(of).any(|stored| {
            // Behind the destination stands the sink that refused it.
            let id = &*stored.record.message_id;
            let id = id.rsplit_once('@').map_or(id, |(id, _)| id);
            // What the dead letters' own destination refuses does not name the one that it was for.
            destination.is_empty() || id.ends_with('.') || id.ends_with(&format!(".{destination}"))
        })
    }

    /// A destination never takes what is too large for it, nor, unless it is one for dead letters, what is odd.
    fn refuses(record: &Record) -> bool {
        let says = |what: &[u8]| record.value.windows(what.len()).any(|part| part == what);
        says(b"huge") || (says(b"odd") && !record.destination.contains("dead-letter"))
    }

    /// `limit`: how many records of an [`Request::Append`] it comes to.
    pub(super) fn apply(&mut self, request: &Request, by: usize, limit: usize) -> Answer {
        match request {
            Request::Fence => {
                self.epoch += 1;
                Answer::Fenced(self.epoch)
            }
            Request::Read => Answer::Read(self.sequence, self.checkpoint.clone()),
            Request::Commit { token, records, pages, checkpoint, claim } => {
                let current = if self.rules == Rules::Transactions { self.epoch } else { self.sequence };
                if token.is_some_and(|token| token != current) {
                    return Answer::Stale;
                }
                if let Some(at) = records.iter().position(Self::refuses) {
                    return Answer::Culprit(at);
                }
                for record in records {
                    self.store(record.clone(), by);
                }
                let found = self.checkpoint.get_or_insert_default();
                found.text = checkpoint.clone();
                for (page, text) in pages {
                    match text {
                        Some(text) => drop(found.pages.insert(*page, text.clone())),
                        None => drop(found.pages.remove(page)),
                    }
                }
                self.sequence += records.len() as u64 + 1;
                if *claim {
                    self.owner = Some(by);
                }
                Answer::Committed(self.sequence)
            }
            Request::Append(records) => {
                let file =
                    self.rules == Rules::Plain && records.iter().all(|r| &*r.destination == "dead-letters");
                let mut taken = Vec::new();
                for record in records.iter().take(limit) {
                    let takes = file || !Self::refuses(record);
                    if takes {
                        self.store(record.clone(), by);
                    }
                    taken.push(takes);
                }
                Answer::Appended(taken)
            }
        }
    }

    fn store(&mut self, record: Record, by: usize) {
        *self.counts.entry(record.message_id.clone()).or_default() += 1;
        self.log.push(Stored { record, by });
    }
}
