//! Which entries are known, and which ids may be acknowledged. No I/O and no clock of its own.
//!
//! ```text
//!            handed out            durable                   vendor confirmed
//!   fresh ──▶ InFlight ─────────────▶ Durable ──(POST)────────▶ Known ──▶ forgotten (oldest first)
//!     ▲          │ token dropped        │ the session is gone ────▲ │
//!     └─────── Released ◀───────────────┘ a sibling is released     │
//!                                       ▲───────────────────────────┘ delivered again: acknowledged again
//! ```
//!
//! Rules it keeps:
//! - An entry is recognised by id *and* content, never by one of the two. One id with two contents is two entries, and
//!   the id is acknowledged only when both are durable.
//! - An entry in flight is not handed out again. One that is durable is never handed out again (as long as it is
//!   remembered); when the vendor delivers it again, only its acknowledgement is sent again.
//! - An id is acknowledged only in a session that delivered it.
//! - Memory: at most `max_in_flight` entries are handed out or await their acknowledgement, and a fixed number beyond
//!   that is remembered. What the vendor confirmed does not displace what it did not: that comes again for certain, perhaps
//!   behind everything that is newer.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use crate::event::{ContentHash, Identity};

/// How often an id is sent again that an answer says nothing about.
pub(crate) const MAX_SILENT_ANSWERS: u8 = 5;

/// Categories that share one string; further ones are kept per entry.
const MAX_SHARED_CATEGORIES: usize = 1024;

/// What becomes of an entry that a response carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receipt {
    /// Fresh: it is to be handed out under this handle.
    HandOut(u64),
    /// Known: nothing is to be done (its acknowledgement may be queued again).
    Redelivered,
    /// Fresh, but there is no room: it stays at the vendor.
    NoRoom,
}

/// What a settled token led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settlement {
    /// It awaits its acknowledgement, or will be acknowledged when the vendor delivers it again.
    Durable,
    /// It needs no acknowledgement (v2, or there is no id): the source is done with it.
    Done(Confirmed),
    /// Nothing will be acknowledged; it may be handed out again.
    Released,
}

/// One entry the source is done with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Confirmed {
    pub(crate) identity: Identity,
    pub(crate) category: Arc<str>,
    /// It was an event that ends the session.
    pub(crate) end: bool,
}

/// What an answer to an acknowledgement led to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// Entries the vendor confirmed.
    pub(crate) confirmed: Vec<Confirmed>,
    /// Ids the vendor did not know.
    pub(crate) not_found: usize,
    /// Ids that answers kept silent about too often; they are not sent again until they are delivered again.
    pub(crate) given_up: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    InFlight,
    Durable,
    Known,
    Released,
}

#[derive(Debug)]
struct Content {
    hash: ContentHash,
    state: State,
    handed_at: Instant,
    category: Arc<str>,
    end: bool,
    /// It was handed out at least once, so somebody may hold it.
    handed_out: bool,
    acknowledged: bool,
    /// Distinguishes this stay among the remembered from an earlier one.
    stamp: u64,
}

#[derive(Debug)]
struct Record {
    /// Hardly ever more than one.
    contents: SmallVec<[Content; 1]>,
    /// The last session that delivered this id.
    seen_in: u64,
    /// False for entries without an id.
    acknowledgeable: bool,
    queued: bool,
    silent_answers: u8,
}

/// What is neither in flight nor to be acknowledged now, in the order in which it is forgotten.
#[derive(Debug)]
struct Memory {
    /// How many are remembered of each of the two kinds.
    max: usize,
    next_stamp: u64,
    /// What the vendor confirmed, and what was released.
    confirmed: VecDeque<(u64, Arc<str>, ContentHash)>,
    /// What is durable without the vendor's confirmation, for which it has to be delivered again.
    unconfirmed: VecDeque<(u64, Arc<str>, ContentHash)>,
}

/// The identities of one source.
#[derive(Debug)]
pub(crate) struct Ledger {
    max_in_flight: usize,
    /// v3: durable entries need an acknowledgement.
    acknowledges: bool,
    session: u64,
    session_alive: bool,
    next_handle: u64,
    records: HashMap<Arc<str>, Record, RandomState>,
    handles: HashMap<u64, (Arc<str>, ContentHash), RandomState>,
    ready: VecDeque<Arc<str>>,
    oldest_ready: Option<Instant>,
    sending: Vec<Arc<str>>,
    durable: usize,
    end_events_held: usize,
    memory: Memory,
    hand_outs: VecDeque<(Instant, Arc<str>, ContentHash)>,
    categories: HashMap<Arc<str>, (), RandomState>,
}

impl Ledger {
    pub(crate) fn new(max_in_flight: usize, acknowledges: bool) -> Self {
        Self {
            max_in_flight,
            acknowledges,
            session: 0,
            session_alive: false,
            next_handle: 1,
            records: HashMap::default(),
            handles: HashMap::default(),
            ready: VecDeque::new(),
            oldest_ready: None,
            sending: Vec::new(),
            durable: 0,
            end_events_held: 0,
            memory: Memory::new((4 * max_in_flight).max(4096)),
            hand_outs: VecDeque::new(),
            categories: HashMap::default(),
        }
    }

    /// A session begins: nothing was seen in it yet.
    pub(crate) fn begin_session(&mut self) {
        self.end_session();
        self.session += 1;
        self.session_alive = true;
    }

    /// The session is gone: nothing can be acknowledged any more. What is durable stays known, so that the next session
    /// only acknowledges it.
    pub(crate) fn end_session(&mut self) {
        self.session_alive = false;
        self.ready.clear();
        self.oldest_ready = None;
        self.sending.clear();
        let mut durable = Vec::new();
        for (id, record) in &mut self.records {
            record.queued = false;
            record.silent_answers = 0;
            if record.contents.iter().any(|content| content.state == State::Durable) {
                durable.push(id.clone());
            }
        }
        for id in durable {
            self.remember_durable(&id);
        }
    }

    /// A response carried this entry. `unlimited` takes it whatever is held (v2, where it exists nowhere else).
    pub(crate) fn receive(
        &mut self,
        identity: &Identity,
        category: &str,
        end: bool,
        unlimited: bool,
        now: Instant,
    ) -> Receipt {
        let key = key_of(identity);
        let room = unlimited || self.held() < self.max_in_flight;
        let category = self.category(category);
        let (session, hash) = (self.session, identity.hash());
        let record = self.records.entry(key.clone()).or_insert_with(|| Record {
            contents: SmallVec::new(),
            seen_in: session,
            acknowledgeable: !identity.id().is_empty(),
            queued: false,
            silent_answers: 0,
        });
        record.seen_in = session;
        let content = match record.contents.iter_mut().position(|content| content.hash == hash) {
            Some(index) => &mut record.contents[index],
            None => {
                record.contents.push(Content {
                    hash,
                    state: State::Released,
                    handed_at: now,
                    category,
                    end,
                    handed_out: false,
                    acknowledged: false,
                    stamp: 0,
                });
                let last = record.contents.len() - 1;
                &mut record.contents[last]
            }
        };
        match content.state {
            State::InFlight | State::Durable => Receipt::Redelivered,
            State::Known => {
                if self.acknowledges && self.session_alive && record.acknowledgeable {
                    content.state = State::Durable;
                    content.stamp = 0;
                    content.handed_at = now;
                    self.durable += 1;
                    self.end_events_held += usize::from(content.end);
                    self.hand_outs.push_back((now, key.clone(), hash));
                    self.settle_siblings(&key, now);
                }
                Receipt::Redelivered
            }
            State::Released if !room => {
                self.remember(&key, hash, State::Released);
                Receipt::NoRoom
            }
            State::Released => {
                content.state = State::InFlight;
                content.handed_at = now;
                content.handed_out = true;
                content.stamp = 0;
                self.end_events_held += usize::from(content.end);
                let handle = self.next_handle;
                self.next_handle += 1;
                self.hand_outs.push_back((now, key.clone(), hash));
                self.handles.insert(handle, (key, hash));
                Receipt::HandOut(handle)
            }
        }
    }

    /// A token came to its end.
    pub(crate) fn settle(&mut self, handle: u64, durable: bool, now: Instant) -> Settlement {
        let Some((key, hash)) = self.handles.remove(&handle) else { return Settlement::Released };
        let (acknowledges, deliverable) = (self.acknowledges, self.session_alive);
        let session = self.session;
        let Some(record) = self.records.get_mut(&key) else { return Settlement::Released };
        let acknowledgeable = acknowledges && record.acknowledgeable;
        let in_session = deliverable && record.seen_in == session;
        let Some(content) = record.contents.iter_mut().find(|content| content.hash == hash) else {
            return Settlement::Released;
        };
        let id = if record.acknowledgeable { key.clone() } else { Arc::default() };
        let confirmed = content.confirmed(Identity::new(id, hash));
        if durable && acknowledgeable && in_session {
            content.state = State::Durable;
            self.durable += 1;
            self.settle_siblings(&key, now);
            return Settlement::Durable;
        }
        self.end_events_held -= usize::from(content.end);
        if durable && acknowledgeable {
            self.remember(&key, hash, State::Known);
            return Settlement::Durable;
        }
        if durable {
            content.acknowledged = true;
            self.remember(&key, hash, State::Known);
            return Settlement::Done(confirmed);
        }
        self.remember(&key, hash, State::Released);
        self.settle_siblings(&key, now);
        Settlement::Released
    }

    /// The next ids to acknowledge, at most `limit`; one batch at a time. It may be empty: an id of which another content
    /// came meanwhile has to wait for that one.
    pub(crate) fn take_batch(&mut self, limit: usize, now: Instant) -> Vec<Arc<str>> {
        debug_assert!(self.sending.is_empty());
        while self.sending.len() < limit
            && let Some(id) = self.ready.pop_front()
        {
            let Some(record) = self.records.get_mut(&id) else { continue };
            if record
                .contents
                .iter()
                .any(|content| matches!(content.state, State::InFlight | State::Released))
            {
                record.queued = false;
                self.settle_siblings(&id, now);
            } else {
                self.sending.push(id);
            }
        }
        if self.ready.is_empty() {
            self.oldest_ready = None;
        }
        self.sending.clone()
    }

    /// The vendor answered the batch `ids`. `verdict` tells of an id whether the vendor confirmed it (`Some(true)`), did
    /// not find it (`Some(false)`), or said nothing of it. An answer of a session that ended meanwhile counts too.
    pub(crate) fn answered(
        &mut self,
        ids: &[Arc<str>],
        verdict: impl Fn(&str) -> Option<bool>,
        now: Instant,
    ) -> Acknowledged {
        let mut result = Acknowledged::default();
        let in_time = !std::mem::take(&mut self.sending).is_empty();
        for id in ids {
            let Some(record) = self.records.get_mut(id) else { continue };
            let verdict = verdict(id);
            if let Some(found) = verdict {
                result.not_found += usize::from(!found);
                let durable = |content: &&mut Content| matches!(content.state, State::Durable | State::Known);
                for content in record.contents.iter_mut().filter(durable) {
                    if !content.acknowledged {
                        content.acknowledged = true;
                        result.confirmed.push(content.confirmed(Identity::new(id.clone(), content.hash)));
                    }
                }
            }
            if !in_time {
                continue;
            }
            if verdict.is_none() && record.silent_answers + 1 < MAX_SILENT_ANSWERS {
                record.silent_answers += 1;
                self.ready.push_back(id.clone());
                self.oldest_ready.get_or_insert(now);
                continue;
            }
            result.given_up += usize::from(verdict.is_none());
            record.queued = false;
            record.silent_answers = 0;
            self.remember_durable(id);
        }
        result
    }

    /// The batch has no answer; it will be sent again, which is safe: acknowledging twice does nothing.
    pub(crate) fn not_answered(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.sending).into_iter().rev() {
            self.ready.push_front(id);
        }
        if !self.ready.is_empty() {
            self.oldest_ready.get_or_insert(now);
        }
    }

    /// Entries handed out or awaiting their acknowledgement.
    pub(crate) fn held(&self) -> usize {
        self.handles.len() + self.durable
    }

    /// Entries handed out and not settled.
    pub(crate) fn in_flight(&self) -> usize {
        self.handles.len()
    }

    /// Ids that may be acknowledged now.
    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Since when the first of them waits.
    pub(crate) fn oldest_ready(&self) -> Option<Instant> {
        self.oldest_ready
    }

    /// An event that ends the session is held.
    pub(crate) fn ending(&self) -> bool {
        self.end_events_held > 0
    }

    /// When the oldest held entry was handed out.
    pub(crate) fn oldest_held(&mut self) -> Option<Instant> {
        while let Some((at, key, hash)) = self.hand_outs.front() {
            let held = self
                .records
                .get(key)
                .and_then(|record| record.contents.iter().find(|content| content.hash == *hash))
                .is_some_and(|content| {
                    content.handed_at == *at && matches!(content.state, State::InFlight | State::Durable)
                });
            if held {
                return Some(*at);
            }
            self.hand_outs.pop_front();
        }
        None
    }

    /// Entries that were handed out and are not done: not durable, or durable with the acknowledgement still to come.
    ///
    /// What is durable and lost its session is not among them: nobody can acknowledge it any more. If the vendor delivers
    /// it again, in another session, it is acknowledged there.
    pub(crate) fn unacknowledged(&self) -> usize {
        let here = |record: &Record| self.session_alive && record.seen_in == self.session;
        let records = self.records.values().filter(|record| record.acknowledgeable);
        let open = |content: &&Content| content.handed_out && !content.acknowledged;
        records
            .map(|record| {
                let contents = record.contents.iter().filter(open);
                contents.filter(|content| content.state != State::Known || here(record)).count()
            })
            .sum()
    }

    /// Entries that the consumer gave back and that were not handed out again.
    pub(crate) fn released(&self) -> usize {
        let contents = self.records.values().flat_map(|record| &record.contents);
        contents.filter(|content| content.handed_out && content.state == State::Released).count()
    }

    /// After a change of one content: decides what that means for the acknowledgement of the whole id.
    fn settle_siblings(&mut self, key: &Arc<str>, now: Instant) {
        let Some(record) = self.records.get_mut(key) else { return };
        let has = |state| record.contents.iter().any(|content| content.state == state);
        if !has(State::Durable) || record.queued {
            return;
        }
        if has(State::Released) {
            // The released sibling will be delivered again, and this one with it: nothing is lost by letting go.
            self.remember_durable(key);
        } else if !has(State::InFlight) && self.session_alive && record.seen_in == self.session {
            record.queued = true;
            self.ready.push_back(key.clone());
            self.oldest_ready.get_or_insert(now);
        }
    }

    /// Moves the durable contents of an id to the remembered ones.
    fn remember_durable(&mut self, key: &Arc<str>) {
        let Some(record) = self.records.get_mut(key) else { return };
        for content in record.contents.iter_mut().filter(|content| content.state == State::Durable) {
            self.durable -= 1;
            self.end_events_held -= usize::from(content.end);
            self.memory.keep(key, content, State::Known);
        }
        self.forget_oldest();
    }

    /// Puts a content among the remembered, and forgets the oldest of them.
    fn remember(&mut self, key: &Arc<str>, hash: ContentHash, state: State) {
        let Some(record) = self.records.get_mut(key) else { return };
        let Some(content) = record.contents.iter_mut().find(|content| content.hash == hash) else { return };
        self.memory.keep(key, content, state);
        self.forget_oldest();
    }

    /// Forgets the oldest of the remembered, where they are too many.
    fn forget_oldest(&mut self) {
        while let Some((stamp, key, hash)) = self.memory.surplus() {
            let Entry::Occupied(mut record) = self.records.entry(key) else { continue };
            record.get_mut().contents.retain(|content| content.hash != hash || content.stamp != stamp);
            if record.get().contents.is_empty() {
                record.remove();
            }
        }
    }

    fn category(&mut self, category: &str) -> Arc<str> {
        if let Some((shared, ())) = self.categories.get_key_value(category) {
            return shared.clone();
        }
        let category: Arc<str> = category.into();
        if self.categories.len() < MAX_SHARED_CATEGORIES {
            self.categories.insert(category.clone(), ());
        }
        category
    }
}

impl Memory {
    fn new(max: usize) -> Self {
        Self { max, next_stamp: 1, confirmed: VecDeque::new(), unconfirmed: VecDeque::new() }
    }

    /// A content gets this state, and is the last to be forgotten.
    fn keep(&mut self, key: &Arc<str>, content: &mut Content, state: State) {
        content.state = state;
        content.stamp = self.next_stamp;
        self.next_stamp += 1;
        let comes_again = state == State::Known && !content.acknowledged;
        let among = if comes_again { &mut self.unconfirmed } else { &mut self.confirmed };
        among.push_back((content.stamp, key.clone(), content.hash));
    }

    /// What has to be forgotten next, if anything: it has to go unless its stamp is not its content's any more.
    fn surplus(&mut self) -> Option<(u64, Arc<str>, ContentHash)> {
        let full =
            [&mut self.confirmed, &mut self.unconfirmed].into_iter().find(|kept| kept.len() > self.max);
        full?.pop_front()
    }
}

impl Content {
    fn confirmed(&self, identity: Identity) -> Confirmed {
        Confirmed { identity, category: self.category.clone(), end: self.end }
    }
}

/// Entries with an id are found by it, entries without one by their content.
fn key_of(identity: &Identity) -> Arc<str> {
    if identity.id().is_empty() {
        format!("\0{}", identity.hash()).into()
    } else {
        identity.shared_id().clone()
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
