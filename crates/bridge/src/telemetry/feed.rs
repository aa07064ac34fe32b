//! What has just come: the last events, and those that follow them. Of an event that is what it is called, where it goes and
//! how large it is, never a value and never a key. Whoever asks for records gets those besides, as [`ShownSinks`] shows
//! them to followers; while nobody asks, nobody makes them.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use viaduct_poller::Entry;
use viaduct_sink::Record;

use crate::config::{Format, SinkIndex};
use crate::routing::{Plan, Reason};
use crate::shown::{Content, ShownRecord, ShownSinks};

/// How many events are remembered for somebody who starts to look.
pub(crate) const REMEMBERED: usize = 50;
/// How far a follower may be behind before it misses events.
const FOLLOWER_LAG: usize = 4096;

/// How far one that follows records may be behind: with the largest value that is shown, 16 MiB.
const RECORDS_LAG: usize = 256;

/// The latest events of all sources.
#[derive(Debug)]
pub(crate) struct Feed {
    recent: Mutex<Recent>,
    followers: broadcast::Sender<Arc<Note>>,
    records: broadcast::Sender<Arc<RecordNote>>,
    sinks: ShownSinks,
    /// Keys are shown as a hash that is another one in every process, so that it cannot be looked up.
    keys: RandomState,
}

#[derive(Debug, Default)]
struct Recent {
    notes: VecDeque<Arc<Note>>,
    last: HashMap<Arc<str>, Instant>,
}

/// An event as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// When it was routed, as RFC 3339 in UTC.
    pub(crate) time: String,
    /// The source.
    pub(crate) source: String,
    /// `eventType`; `None` for what is not an event.
    #[serde(rename = "type")]
    pub(crate) event_type: Option<String>,
    /// `eventId`, where it has one.
    pub(crate) id: Option<String>,
    /// Bytes, as the vendor sent it.
    pub(crate) size: usize,
    /// What the routes made of it; empty for dead letters, and where a route says to drop it.
    pub(crate) records: Vec<NotedRecord>,
    /// Why it goes to the dead letters.
    pub(crate) dead_letter: Option<String>,
}

/// A record as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NotedRecord {
    /// The sink.
    pub(crate) sink: String,
    /// Topic, subject or file.
    pub(crate) destination: String,
    /// A hash of the key: equal keys of one run of the bridge have equal hashes.
    pub(crate) key_hash: Option<String>,
    /// Bytes of the value.
    pub(crate) size: usize,
}

/// The records of an event as they may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordNote {
    /// When they were handed to their sinks, as RFC 3339 in UTC.
    pub(crate) time: String,
    /// The source.
    pub(crate) source: String,
    /// `eventType`; `None` for what is not an event.
    #[serde(rename = "type")]
    pub(crate) event_type: Option<String>,
    /// `eventId`, where it has one.
    pub(crate) id: Option<String>,
    /// At least one.
    pub(crate) records: Vec<ShownRecord>,
    /// Why it goes to the dead letters.
    pub(crate) dead_letter: Option<String>,
}

impl Default for Feed {
    fn default() -> Self {
        Self::new(ShownSinks::default())
    }
}

impl Feed {
    /// Nothing has come yet. `sinks` says how records look.
    pub(crate) fn new(sinks: ShownSinks) -> Self {
        Self {
            recent: Mutex::default(),
            followers: broadcast::Sender::new(FOLLOWER_LAG),
            records: broadcast::Sender::new(RECORDS_LAG),
            sinks,
            keys: RandomState::new(),
        }
    }

    /// A batch of `source` has come. The answer notes those of its events that somebody will want to see.
    pub(crate) fn batch(&self, source: &Arc<str>, events: usize) -> Notes<'_> {
        if events > 0 {
            self.lock().last.insert(source.clone(), Instant::now());
        }
        let unseen = if self.followers.receiver_count() > 0 { 0 } else { events.saturating_sub(REMEMBERED) };
        Notes { feed: self, source: source.clone(), unseen, notes: Vec::new() }
    }

    /// The last events, oldest first, and everything that comes after them.
    pub(crate) fn follow(&self) -> (Vec<Arc<Note>>, broadcast::Receiver<Arc<Note>>) {
        let recent = self.lock();
        // Under the lock that every addition takes, so that nothing is missed or seen twice.
        (recent.notes.iter().cloned().collect(), self.followers.subscribe())
    }

    /// The records that come from now on.
    pub(crate) fn follow_records(&self) -> broadcast::Receiver<Arc<RecordNote>> {
        self.records.subscribe()
    }

    /// Whether somebody follows records.
    pub(crate) fn is_followed_for_records(&self) -> bool {
        self.records.receiver_count() > 0
    }

    /// Shows the records of an event. `format` says what is in that of a sink.
    pub(crate) fn show_records(
        &self,
        source: &str,
        entry: &Entry,
        records: &[(SinkIndex, Record)],
        mut format: impl FnMut(SinkIndex) -> Option<Format>,
    ) {
        let shown = records.iter().map(|(sink, record)| {
            // A payload has no envelope that could stay, so that is what an unknown format is taken for.
            let content = Content::Event(format(*sink).unwrap_or(Format::Payload));
            self.sinks.to_followers(record, content, |sinks, record| sinks.record(sink.get(), record))
        });
        self.show(source, entry, shown.collect(), None);
    }

    /// Shows a dead letter, where somebody follows records.
    pub(crate) fn show_dead_letter(
        &self,
        source: &str,
        entry: &Entry,
        reason: Reason,
        record: &Record,
        show: impl Fn(&ShownSinks, &Record) -> ShownRecord,
    ) {
        if self.is_followed_for_records() {
            let shown = self.sinks.to_followers(record, Content::DeadLetter, show);
            self.show(source, entry, vec![shown], Some(reason.as_str().to_owned()));
        }
    }

    fn show(&self, source: &str, entry: &Entry, records: Vec<ShownRecord>, dead_letter: Option<String>) {
        let (event_type, id) = names(entry);
        let source = source.to_owned();
        let note = RecordNote { time: now_text(), source, event_type, id, records, dead_letter };
        // Nobody follows any more: nothing to tell.
        let _ = self.records.send(Arc::new(note));
    }

    /// When the last event of a source came.
    pub(crate) fn last_event(&self, source: &str) -> Option<Instant> {
        self.lock().last.get(source).copied()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.recent.lock().expect("no panic while held")
    }

    fn key_hash(&self, key: &str) -> String {
        format!("{:08x}", self.keys.hash_one(key) as u32)
    }
}

/// Its type and its id, as far as it has them.
fn names(entry: &Entry) -> (Option<String>, Option<String>) {
    match entry {
        Entry::Event(event) => (Some(event.event_type().to_owned()), Some(event.id().to_owned())),
        Entry::Malformed(malformed) => {
            (malformed.event().map(|event| event.event_type().to_owned()), malformed.id().map(str::to_owned))
        }
    }
}

/// Notes the events of one batch, and shows them when dropped.
#[derive(Debug)]
pub(crate) struct Notes<'f> {
    feed: &'f Feed,
    source: Arc<str>,
    /// So many of the batch would be forgotten at once, so they are not written down.
    unseen: usize,
    notes: Vec<Arc<Note>>,
}

impl Notes<'_> {
    /// Notes an event and what the routes make of it. `sink` names the sinks.
    pub(crate) fn add<'s>(&mut self, entry: &Entry, plan: &Plan, sink: impl Fn(usize) -> &'s str) {
        if self.unseen > 0 {
            self.unseen -= 1;
            return;
        }
        let (event_type, id) = names(entry);
        let noted = |(index, record): &(crate::config::SinkIndex, Record)| NotedRecord {
            sink: sink(index.get()).to_owned(),
            destination: record.destination.to_string(),
            key_hash: record.key.as_ref().map(|key| self.feed.key_hash(key)),
            size: record.value.len(),
        };
        let (records, dead_letter) = match plan {
            Plan::Records(records) => (records.iter().map(noted).collect(), None),
            Plan::Dropped => (Vec::new(), None),
            Plan::DeadLetter(reason, _) => (Vec::new(), Some(reason.as_str().to_owned())),
        };
        self.notes.push(Arc::new(Note {
            time: now_text(),
            source: self.source.to_string(),
            event_type,
            id,
            size: entry.raw().len(),
            records,
            dead_letter,
        }));
    }
}

impl Drop for Notes<'_> {
    fn drop(&mut self) {
        if self.notes.is_empty() {
            return;
        }
        let mut recent = self.feed.lock();
        for note in self.notes.drain(..) {
            if recent.notes.len() == REMEMBERED {
                recent.notes.pop_front();
            }
            recent.notes.push_back(note.clone());
            // Nobody follows: nothing to tell.
            let _ = self.feed.followers.send(note);
        }
    }
}

/// This moment as RFC 3339 in UTC, to the millisecond.
pub(crate) fn now_text() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use viaduct_poller::ApiVersion;

    use super::*;

    fn note(feed: &Feed, source: &Arc<str>, count: usize) {
        let mut notes = feed.batch(source, count);
        for _ in 0..count {
            let raw = r#"{"eventId":"7","eventType":"engagementCenter.Idle","payload":"{\"phoneNumber\":\"hunter2\"}"}"#;
            let entry = viaduct_poller::parse_entry(raw.to_owned(), ApiVersion::V3, Instant::now());
            notes.add(&entry, &Plan::DeadLetter(crate::routing::Reason::Unrouted, String::new()), |_| "lake");
        }
    }

    #[test]
    fn the_last_events_are_remembered_and_followers_see_all() {
        let (feed, source): (Feed, Arc<str>) = (Feed::default(), "main".into());
        note(&feed, &source, 200);
        let (recent, mut follower) = feed.follow();
        assert_eq!(recent.len(), REMEMBERED);
        note(&feed, &source, 120);
        let mut seen = 0;
        while follower.try_recv().is_ok() {
            seen += 1;
        }
        assert_eq!(seen, 120);
        assert!(feed.last_event("main").is_some() && feed.last_event("other").is_none());
    }

    #[test]
    fn records_are_made_for_those_who_follow_them_alone() {
        let feed = Feed::default();
        let raw = r#"{"eventId":"7","eventType":"chat.New","payload":"hunter2"}"#;
        let entry = viaduct_poller::parse_entry(raw.to_owned(), ApiVersion::V3, Instant::now());
        let route = crate::routing::DeadLetterRoute::local("main", "acme");
        let circumstances = crate::routing::Circumstances {
            session: "s",
            reason: Reason::Unrouted,
            detail: "",
            intended: None,
            masks: None,
            at: jiff::Timestamp::now(),
        };
        let record = route.record(&entry, &circumstances);
        let _notes_only = feed.follow();
        assert!(!feed.is_followed_for_records());
        feed.show_dead_letter("main", &entry, Reason::Unrouted, &record, |_, _| panic!("nobody looks"));
        let mut follower = feed.follow_records();
        assert!(feed.is_followed_for_records());
        feed.show_dead_letter("main", &entry, Reason::Unrouted, &record, ShownSinks::dead_letter);
        let note = follower.try_recv().unwrap();
        assert_eq!((note.id.as_deref(), note.dead_letter.as_deref()), (Some("7"), Some("unrouted")));
        assert!(!note.records[0].value.contains("hunter2"), "{note:?}");
        let large = Record { value: vec![b'x'; 1 << 20].into(), ..record };
        feed.show_dead_letter("main", &entry, Reason::Unrouted, &large, ShownSinks::dead_letter);
        assert_eq!(follower.try_recv().unwrap().records[0].value, "(1048576 bytes: too large to be shown)");
        drop(follower);
        assert!(!feed.is_followed_for_records());
    }

    #[test]
    fn nothing_of_the_payload_is_noted() {
        let feed = Feed::default();
        note(&feed, &"main".into(), 1);
        let text = serde_json::to_string(&*feed.follow().0[0]).unwrap();
        assert!(
            text.contains("\"type\":\"engagementCenter.Idle\"") && text.contains("\"id\":\"7\""),
            "{text}"
        );
        assert!(!text.contains("hunter2") && !text.contains("phoneNumber"), "{text}");
    }

    #[test]
    fn equal_keys_have_equal_hashes_that_another_process_does_not_share() {
        let (one, other) = (Feed::default(), Feed::default());
        assert_eq!(one.key_hash("4711"), one.key_hash("4711"));
        assert_ne!(one.key_hash("4711"), one.key_hash("4712"));
        assert_ne!(one.key_hash("4711"), other.key_hash("4711"));
    }
}
