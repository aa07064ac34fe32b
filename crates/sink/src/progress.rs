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
//! - A checkpoint stays small, however much is remembered: see `memory`.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::Record;
use crate::checkpoint::{Checkpoint, Owner, Remembered, VERSION, Written, WrittenPage, text};
use crate::memory::{Limits, Memory, Turn};

/// Events that stand in the checkpoint itself, at most: about 200 KB of text.
const YOUNG: usize = 4096;
/// Events of a page: about 50 KB.
const PAGE: usize = 1024;

/// Another instance has claimed the source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("instance {0} has taken over")]
pub struct Usurped(pub Owner);

/// A record by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Held {
    /// The record's own name ([`Record::message_id`]).
    pub record: Arc<str>,
    /// The name of its event ([`Record::event`]).
    pub event: Arc<str>,
}

/// What a sink knows of a source.
#[derive(Debug)]
pub struct Progress {
    owner: Owner,
    /// Of the last checkpoint that is known to be stored.
    revision: u64,
    session: Option<Box<RawValue>>,
    session_stored: bool,
    memory: Memory,
    /// Acknowledged events that stored checkpoints may still name.
    forgotten: HashSet<Arc<str>>,
}

/// A checkpoint that is to be stored in one step with the records it was proposed for.
#[derive(Debug)]
#[must_use = "what was stored has to be committed, or read back"]
pub struct Proposal {
    revision: u64,
    text: Bytes,
    pages: Vec<(u32, Option<Bytes>)>,
    stored: Vec<Held>,
    turns: Vec<Turn>,
    removes: Vec<u32>,
    forgets: Vec<Arc<str>>,
    session: Option<Box<RawValue>>,
}

impl Proposal {
    /// The checkpoint's text.
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// The pages that have to be stored in the same step, before the checkpoint; `None`: the page is to be removed. Nearly
    /// always there are none.
    pub fn pages(&self) -> &[(u32, Option<Bytes>)] {
        &self.pages
    }
}

impl Progress {
    /// Takes over from whoever wrote `read`. The claim holds once a proposal (of no records, say) is stored.
    ///
    /// `remember` is how many events are remembered at most; it has to be more than can be unacknowledged at a time.
    pub fn claim(owner: Owner, remember: usize, read: Option<Checkpoint>) -> Self {
        Self::with_limits(owner, Limits { young: YOUNG, page: PAGE, all: remember }, read)
    }

    /// The same with `young` events in the checkpoint itself and `page` events in a page, so that tests with few events have
    /// pages, too.
    #[doc(hidden)]
    pub fn claim_in_pages(
        owner: Owner,
        remember: usize,
        (young, page): (usize, usize),
        read: Option<Checkpoint>,
    ) -> Self {
        Self::with_limits(owner, Limits { young, page, all: remember }, read)
    }

    fn with_limits(owner: Owner, limits: Limits, read: Option<Checkpoint>) -> Self {
        let mut memory = Memory::new(limits);
        let session = read.as_ref().and_then(|read| read.session.clone());
        if let Some(read) = read {
            memory.load(read);
        }
        Self { owner, revision: 0, session, session_stored: false, memory, forgotten: HashSet::new() }
    }

    /// Whether the sink holds this record already. An event that comes again counts as new among the remembered.
    pub fn recognise(&mut self, record: &Record) -> bool {
        self.memory.recognise(&record.event, &record.message_id)
    }

    /// How many events are remembered.
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The vendor's session, as it was claimed or told since.
    pub fn session(&self) -> Option<&RawValue> {
        self.session.as_deref()
    }

    /// Whether the stored checkpoint lacks the session: it should be stored soon, with records or without.
    pub fn is_stale(&self) -> bool {
        !self.session_stored
    }

    /// Whether the stored checkpoint tells all: the session, and no event that is acknowledged. Whoever closes should leave
    /// it so; what still stands there is remembered by all that come after.
    pub fn is_told(&self) -> bool {
        self.session_stored && self.forgotten.is_empty()
    }

    /// The source goes on with this session.
    pub fn set_session(&mut self, session: Option<Box<RawValue>>) {
        if session.as_deref().map(RawValue::get) != self.session().map(RawValue::get) {
            self.session = session;
            self.session_stored = false;
        }
    }

    /// The vendor will not deliver the event again: its acknowledgement is confirmed.
    pub fn acknowledged(&mut self, event: &str) {
        if let Some(remembered) = self.memory.forget(event) {
            self.forgotten.insert(remembered.event);
        }
    }

    /// The checkpoint that tells of `records` too. They have to be stored in one step with it.
    pub fn propose<'a>(&self, records: impl IntoIterator<Item = &'a Record>) -> Proposal {
        let names = |record: &Record| Held { record: record.message_id.clone(), event: record.event.clone() };
        self.propose_named(records.into_iter().map(names).collect())
    }

    /// The same for records that are at hand by name only.
    pub fn propose_named(&self, stored: Vec<Held>) -> Proposal {
        let turns = self.memory.turns(stored.len());
        let removes = self.memory.empty(&turns);
        let turned = turns.iter().map(|turn| {
            let page = WrittenPage { version: VERSION, page: turn.page, records: &self.memory.turned(turn) };
            (turn.page, Some(text(&page)))
        });
        let pages = turned.chain(removes.iter().map(|page| (*page, None))).collect();
        let fresh: Vec<Remembered> = stored
            .iter()
            .map(|held| Remembered { event: held.event.clone(), records: vec![held.record.clone()] })
            .collect();
        let mut records = self.memory.young(&turns);
        records.extend(&fresh);
        let revision = self.revision + 1;
        let (owner, session) = (&self.owner, &self.session);
        let pages_entries = self.memory.index(&turns);
        let text = text(&Written {
            version: VERSION,
            owner,
            revision,
            session,
            records: &records,
            pages: pages_entries,
        });
        let forgets = self.forgotten.iter().cloned().collect();
        Proposal { revision, text, pages, stored, turns, removes, forgets, session: session.clone() }
    }

    /// The proposal and its records are stored.
    pub fn commit(&mut self, proposal: Proposal) {
        let Proposal { revision, stored, turns, removes, forgets, session, .. } = proposal;
        self.revision = revision;
        for event in forgets {
            self.forgotten.remove(&event);
        }
        self.session_stored(session.as_deref());
        self.memory.removed(&removes);
        for turn in turns {
            self.memory.turn(turn);
        }
        for Held { record, event } in stored {
            // It came again after it was forgotten.
            self.forgotten.remove(&event);
            self.memory.hold(&event, &record);
        }
    }

    /// Takes in what stands in the destination, after something that nobody knows the end of.
    ///
    /// # Errors
    /// Another instance owns the source.
    pub fn recover(&mut self, read: Option<Checkpoint>) -> Result<(), Usurped> {
        let Some(read) = read else {
            // Somebody removed it. Nobody else has written one, so nobody else is there.
            self.memory.lose_pages();
            self.session_stored = false;
            return Ok(());
        };
        if read.owner != self.owner {
            return Err(Usurped(read.owner));
        }
        self.revision = self.revision.max(read.revision);
        self.session_stored(read.session.as_deref());
        self.memory.load(read);
        for event in std::mem::take(&mut self.forgotten) {
            self.acknowledged(&event);
        }
        Ok(())
    }

    fn session_stored(&mut self, stored: Option<&RawValue>) {
        self.session_stored = stored.map(RawValue::get) == self.session().map(RawValue::get);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use proptest::prelude::*;

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
        Some(Checkpoint::decode(text, |_| None).unwrap())
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

    /// A destination: the checkpoint and its pages.
    #[derive(Default)]
    struct Stored {
        text: Option<Bytes>,
        pages: HashMap<u32, Bytes>,
    }

    impl Stored {
        fn store(&mut self, proposal: &Proposal) {
            self.text = Some(proposal.text().clone());
            for (number, page) in proposal.pages() {
                match page {
                    Some(page) => self.pages.insert(*number, page.clone()),
                    None => self.pages.remove(number),
                };
            }
        }

        fn read(&self) -> Option<Checkpoint> {
            let text = self.text.as_ref()?;
            assert!(Checkpoint::pages(text).unwrap().iter().all(|page| self.pages.contains_key(page)));
            Some(Checkpoint::decode(text, |page| self.pages.get(&page).cloned()).unwrap())
        }
    }

    const LIMITS: Limits = Limits { young: 6, page: 3, all: 40 };

    #[test]
    fn what_is_old_stands_in_pages_and_the_checkpoint_stays_small() {
        let mut stored = Stored::default();
        let mut progress = Progress::with_limits(Owner::random(), LIMITS, None);
        for number in 0..20 {
            let proposal = progress.propose([&record(&number.to_string(), None)]);
            stored.store(&proposal);
            progress.commit(proposal);
            let read = stored.read().unwrap();
            assert!(read.records.len() <= LIMITS.young, "{} young events", read.records.len());
            assert_eq!(read.events().count(), number + 1);
        }
        assert_eq!(stored.pages.len(), 5);
        let mut next = Progress::with_limits(Owner::random(), LIMITS, stored.read());
        for number in 0..20 {
            assert!(next.recognise(&record(&number.to_string(), None)), "{number}");
        }
        // A dead letter makes an old event young again.
        let proposal = next.propose([&record("1", Some("letter"))]);
        stored.store(&proposal);
        next.commit(proposal);
        for number in (0..20).filter(|number| ![1, 4, 17].contains(number)) {
            next.acknowledged(&number.to_string());
        }
        let proposal = next.propose([]);
        stored.store(&proposal);
        next.commit(proposal);
        assert_eq!(stored.pages.len(), 1, "pages without events are removed");
        let names: Vec<String> =
            stored.read().unwrap().events().map(|event| event.event.to_string()).collect();
        assert_eq!(names, ["4", "17", "1"].map(String::from));
        assert!(next.recognise(&record("1", None)) && next.recognise(&record("1", Some("letter"))));
    }

    /// A killed process leaves names that no acknowledgement takes away any more.
    #[test]
    fn what_a_process_before_left_is_written_once_more_and_not_with_every_batch() {
        let mut stored = Stored::default();
        let mut before = Progress::claim(Owner::random(), 1 << 17, None);
        let left: Vec<Record> = (0..1_500).map(|number| record(&format!("left-{number}"), None)).collect();
        let proposal = before.propose(&left);
        stored.store(&proposal);
        before.commit(proposal);

        let mut next = Progress::claim(Owner::random(), 1 << 17, stored.read());
        let claim = next.propose([]);
        assert_eq!(claim.pages().len(), 2, "a full page and the rest");
        stored.store(&claim);
        next.commit(claim);
        for number in 0..100 {
            let event = record(&number.to_string(), None);
            let proposal = next.propose([&event]);
            assert!(proposal.pages().is_empty() && proposal.text().len() < 1_000, "{:?}", proposal.text());
            stored.store(&proposal);
            next.commit(proposal);
            next.acknowledged(&event.event);
        }
        let mut third = Progress::claim(Owner::random(), 1 << 17, stored.read());
        assert!(left.iter().all(|record| third.recognise(record)), "remembered all the same");
        let claim = third.propose([]);
        assert!(claim.pages().is_empty(), "one event is not worth a page");
    }

    proptest! {
        /// Whatever happens between two checkpoints, and whichever of them was stored: a reader of the destination knows
        /// exactly what was published and not acknowledged.
        #[test]
        fn the_destination_always_tells_what_it_holds(steps in proptest::collection::vec(any::<u8>(), 1..400)) {
            let mut stored = Stored::default();
            let mut truth: BTreeMap<String, bool> = BTreeMap::new();
            let mut progress = Progress::with_limits(Owner::random(), LIMITS, None);
            let claim = progress.propose([]);
            stored.store(&claim);
            progress.commit(claim);
            let mut number = 0;
            for step in steps {
                // Events that are published, of which at most a few dozen are open.
                let open: Vec<String> = truth.iter().filter(|(_, open)| **open).map(|(event, _)| event.clone()).collect();
                let fresh = usize::from(step % 4).min(LIMITS.all - open.len());
                let batch: Vec<Record> = (number..number + fresh).map(|n| record(&format!("{n:05}"), None)).collect();
                number += fresh;
                let proposal = progress.propose(&batch);
                // While it is under way, some are acknowledged and some come again.
                for (index, event) in open.iter().enumerate() {
                    if (index + usize::from(step)) % 3 == 0 {
                        progress.acknowledged(event);
                        truth.insert(event.clone(), false);
                    } else if index % 5 == 0 {
                        prop_assert!(progress.recognise(&record(event, None)));
                    }
                }
                let is_stored = step & 0x10 == 0;
                if is_stored {
                    stored.store(&proposal);
                    truth.extend(batch.iter().map(|record| (record.event.to_string(), true)));
                }
                match step >> 5 {
                    // The answer came.
                    0..=3 if is_stored => progress.commit(proposal),
                    // A new process takes over.
                    4 => {
                        progress = Progress::with_limits(Owner::random(), LIMITS, stored.read());
                        let claim = progress.propose([]);
                        stored.store(&claim);
                        progress.commit(claim);
                        // It does not know what was acknowledged since the last checkpoint: that is no harm.
                        for (event, _) in truth.iter().filter(|(_, open)| !**open) {
                            progress.acknowledged(event);
                        }
                    }
                    // Nobody knows, and it is read back.
                    _ => progress.recover(stored.read()).unwrap(),
                }
                for (event, open) in &truth {
                    prop_assert_eq!(progress.recognise(&record(event, None)), *open, "event {}", event);
                }
                prop_assert!(stored.read().unwrap().records.len() <= LIMITS.young);
            }
        }
    }
}
