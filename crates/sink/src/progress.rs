//! What one exactly-once sink knows of one source. Pure: no I/O, no clock.
//!
//! ```text
//!  claim ──▶ recognise(record)? ──▶ known: it is there, nothing to publish
//!                  │ new
//!                  ▼
//!            propose(records) ──▶ Proposal: the checkpoint to store together with them
//!                  │ stored             │ nobody knows                    │ not stored
//!                  ▼                    ▼                                 ▼
//!            commit(proposal)     read it back: recover(checkpoint)   drop the proposal, propose again
//! ```
//!
//! - Only records of a stored checkpoint are recognised, so "published" and "remembered" are one fact.
//! - A checkpoint of another owner means that another instance is alive: [`Progress::recover`] answers with [`Usurped`],
//!   and whoever holds this progress must publish nothing more.
//! - Records leave when the vendor has confirmed their event's acknowledgement, with the next checkpoint that is stored.
//!   What is never confirmed (the vendor lost it with a session) is forgotten oldest first above a fixed number.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::Record;
use crate::checkpoint::{Checkpoint, Held, Owner};

/// Another instance has claimed the source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("instance {0} has taken over")]
pub struct Usurped(pub Owner);

/// The records of an event that the sink holds.
#[derive(Debug, Default)]
struct Entry {
    event: Arc<str>,
    records: Vec<Arc<str>>,
}

/// What a sink knows of a source.
#[derive(Debug)]
pub struct Progress {
    owner: Owner,
    /// Of the last checkpoint that is known to be stored.
    revision: u64,
    session: Option<Box<RawValue>>,
    session_stored: bool,
    /// By age; the stamp of an event is in `stamps`.
    held: BTreeMap<u64, Entry>,
    stamps: HashMap<Arc<str>, u64>,
    next_stamp: u64,
    /// How many events are remembered at most.
    remember: usize,
    /// Acknowledged events that stored checkpoints may still name.
    forgotten: HashSet<Arc<str>>,
}

/// A checkpoint that is to be stored in one step with the records it was proposed for.
#[derive(Debug)]
#[must_use = "what was stored has to be committed, or read back"]
pub struct Proposal {
    revision: u64,
    text: Bytes,
    stored: Vec<Held>,
    forgets: Vec<Arc<str>>,
    session: Option<Box<RawValue>>,
}

impl Proposal {
    /// The checkpoint's text.
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// Whether it says anything new beside the records.
    pub fn records(&self) -> usize {
        self.stored.len()
    }
}

impl Progress {
    /// Takes over from whoever wrote `read`. The claim holds once a proposal (of no records, say) is stored.
    ///
    /// `remember` is how many events are remembered at most; it has to be more than can be unacknowledged at a time.
    pub fn claim(owner: Owner, remember: usize, read: Option<Checkpoint>) -> Self {
        let mut progress = Self {
            owner,
            revision: 0,
            session: None,
            session_stored: false,
            held: BTreeMap::new(),
            stamps: HashMap::new(),
            next_stamp: 0,
            remember,
            forgotten: HashSet::new(),
        };
        if let Some(read) = read {
            progress.session = read.session;
            for held in read.records {
                progress.hold(held);
            }
        }
        progress
    }

    /// Whether the sink holds this record already. An event that comes again counts as new among the remembered.
    pub fn recognise(&mut self, record: &Record) -> bool {
        let Some(&stamp) = self.stamps.get(&record.event) else { return false };
        let known = self.held.get(&stamp).is_some_and(|entry| entry.records.contains(&record.message_id));
        if known && let Some(entry) = self.held.remove(&stamp) {
            self.put(entry);
        }
        known
    }

    /// How many events are remembered.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The vendor's session, as it was claimed or told since.
    pub fn session(&self) -> Option<&RawValue> {
        self.session.as_deref()
    }

    /// Whether the stored checkpoint lacks the session: it should be stored soon, with records or without.
    pub fn is_stale(&self) -> bool {
        !self.session_stored
    }

    /// The source goes on with this session.
    pub fn set_session(&mut self, session: Option<Box<RawValue>>) {
        let text = |session: &Option<Box<RawValue>>| session.as_ref().map(|session| session.get().to_owned());
        if text(&session) != text(&self.session) {
            self.session = session;
            self.session_stored = false;
        }
    }

    /// The vendor will not deliver the event again: its acknowledgement is confirmed.
    pub fn acknowledged(&mut self, event: &str) {
        if let Some((event, stamp)) = self.stamps.remove_entry(event) {
            self.held.remove(&stamp);
            self.forgotten.insert(event);
        }
    }

    /// The checkpoint that tells of `records` too. They have to be stored in one step with it.
    pub fn propose<'a>(&self, records: impl IntoIterator<Item = &'a Record>) -> Proposal {
        let names = |record: &Record| Held { record: record.message_id.clone(), event: record.event.clone() };
        self.propose_named(records.into_iter().map(names).collect())
    }

    /// The same for records that are at hand by name only.
    pub fn propose_named(&self, stored: Vec<Held>) -> Proposal {
        let known = self.held.values().flat_map(|entry| {
            entry.records.iter().map(|record| Held { record: record.clone(), event: entry.event.clone() })
        });
        let checkpoint = Checkpoint {
            owner: self.owner.clone(),
            revision: self.revision + 1,
            session: self.session.clone(),
            records: known.chain(stored.iter().cloned()).collect(),
        };
        Proposal {
            revision: checkpoint.revision,
            text: checkpoint.encode(),
            stored,
            forgets: self.forgotten.iter().cloned().collect(),
            session: checkpoint.session,
        }
    }

    /// The proposal and its records are stored.
    pub fn commit(&mut self, proposal: Proposal) {
        let Proposal { revision, stored, forgets, session, .. } = proposal;
        self.revision = revision;
        for event in forgets {
            self.forgotten.remove(&event);
        }
        self.stored(session.as_deref());
        for held in stored {
            self.hold(held);
        }
    }

    /// Takes in what stands in the destination, after something that nobody knows the end of.
    ///
    /// # Errors
    /// Another instance owns the source.
    pub fn recover(&mut self, read: Option<Checkpoint>) -> Result<(), Usurped> {
        // Somebody removed it. Nobody else has written one, so nobody else is there.
        let Some(read) = read else { return Ok(()) };
        if read.owner != self.owner {
            return Err(Usurped(read.owner));
        }
        self.revision = self.revision.max(read.revision);
        self.stored(read.session.as_deref());
        for held in read.records {
            if !self.forgotten.contains(&held.event) {
                self.hold(held);
            }
        }
        Ok(())
    }

    fn stored(&mut self, session: Option<&RawValue>) {
        self.session_stored = session.map(RawValue::get) == self.session().map(RawValue::get);
    }

    fn hold(&mut self, held: Held) {
        // It came again after it was forgotten.
        self.forgotten.remove(&held.event);
        if let Some(&stamp) = self.stamps.get(&held.event) {
            if let Some(entry) = self.held.get_mut(&stamp)
                && !entry.records.contains(&held.record)
            {
                entry.records.push(held.record);
            }
            return;
        }
        self.put(Entry { event: held.event, records: vec![held.record] });
        while self.held.len() > self.remember
            && let Some((_, oldest)) = self.held.pop_first()
        {
            self.stamps.remove(&oldest.event);
        }
    }

    fn put(&mut self, entry: Entry) {
        self.stamps.insert(entry.event.clone(), self.next_stamp);
        self.held.insert(self.next_stamp, entry);
        self.next_stamp += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(event: &str, letter: Option<&str>) -> Record {
        let message_id = letter.map_or_else(|| event.into(), |letter| format!("{event}#{letter}").into());
        Record {
            destination: "d".into(),
            key: None,
            headers: Vec::new(),
            value: Bytes::new(),
            timestamp_ms: None,
            message_id,
            event: event.into(),
        }
    }

    fn read(text: &Bytes) -> Option<Checkpoint> {
        Some(Checkpoint::decode(text).unwrap())
    }

    fn session(text: &str) -> Option<Box<RawValue>> {
        Some(RawValue::from_string(text.to_owned()).unwrap())
    }

    #[test]
    fn only_what_is_stored_is_recognised_and_only_until_it_is_acknowledged() {
        let mut progress = Progress::claim(Owner::random(), 10, None);
        let one = record("1", None);
        let proposal = progress.propose([&one]);
        assert!(!progress.recognise(&one), "proposed is not stored");
        let text = proposal.text().clone();
        progress.commit(proposal);
        assert!(progress.recognise(&one));
        assert!(!progress.recognise(&record("1", Some("too_large"))), "its dead letter is another record");

        let mut next = Progress::claim(Owner::random(), 10, read(&text));
        assert!(next.recognise(&one), "the next instance knows it too");
        next.acknowledged("1");
        assert!(!next.recognise(&one));
        let proposal = next.propose([]);
        assert!(read(proposal.text()).unwrap().records.is_empty());
    }

    #[test]
    fn an_acknowledgement_takes_an_events_dead_letters_along() {
        let mut progress = Progress::claim(Owner::random(), 10, None);
        let letter = record("1", Some("refused"));
        let proposal = progress.propose([&record("1", None), &letter]);
        progress.commit(proposal);
        assert!(progress.recognise(&letter));
        assert_eq!(progress.len(), 1);
        progress.acknowledged("1");
        assert!(progress.is_empty());
    }

    #[test]
    fn an_unknown_end_is_decided_by_what_stands_there() {
        let mut progress = Progress::claim(Owner::random(), 10, None);
        let (one, two) = (record("1", None), record("2", None));
        let proposal = progress.propose([&one]);
        progress.commit(proposal);
        let unknown = progress.propose([&two]).text().clone();
        // Acknowledged while nobody knew: it must not come back with the checkpoint that is read.
        progress.acknowledged("1");
        progress.recover(read(&unknown)).unwrap();
        assert!(progress.recognise(&two) && !progress.recognise(&one));
        // And a second reading of the same does not bring it back either.
        progress.recover(read(&unknown)).unwrap();
        assert!(!progress.recognise(&one));
        assert_eq!(read(progress.propose([]).text()).unwrap().revision, 3);
    }

    #[test]
    fn another_owner_ends_it() {
        let mut old = Progress::claim(Owner::random(), 10, None);
        let new = Progress::claim(Owner::random(), 10, None);
        let claim = new.propose([]).text().clone();
        assert_eq!(old.recover(read(&claim)), Err(Usurped(new.owner.clone())));
        assert_eq!(old.recover(None), Ok(()));
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_go_first() {
        let mut progress = Progress::claim(Owner::random(), 3, None);
        for event in ["1", "2", "3"] {
            let proposal = progress.propose([&record(event, None)]);
            progress.commit(proposal);
        }
        assert!(progress.recognise(&record("1", None)), "it came again, so it is young");
        let proposal = progress.propose([&record("4", None)]);
        progress.commit(proposal);
        assert_eq!(progress.len(), 3);
        assert!(!progress.recognise(&record("2", None)));
        for event in ["1", "3", "4"] {
            assert!(progress.recognise(&record(event, None)), "{event}");
        }
    }

    #[test]
    fn a_session_that_is_not_stored_is_stale() {
        let mut progress = Progress::claim(Owner::random(), 3, None);
        assert!(progress.is_stale(), "the claim is not stored");
        let claim = progress.propose([]);
        progress.commit(claim);
        assert!(!progress.is_stale());
        progress.set_session(session(r#"{"id":1}"#));
        assert!(progress.is_stale());
        let proposal = progress.propose([]);
        progress.set_session(session(r#"{"id":2}"#));
        let first = proposal.text().clone();
        progress.commit(proposal);
        assert!(progress.is_stale(), "the session changed again meanwhile");
        progress.recover(read(&first)).unwrap();
        assert!(progress.is_stale());
        let proposal = progress.propose([]);
        let text = proposal.text().clone();
        progress.commit(proposal);
        assert!(!progress.is_stale());
        let next = Progress::claim(Owner::random(), 3, read(&text));
        assert_eq!(next.session().map(RawValue::get), Some(r#"{"id":2}"#));
    }
}
