//! Handing out what responses carry, and taking in what becomes of it.
//!
//! For v2 every response stands in the spool before it gets here. It is handed out at once where there is room and
//! nothing older waits; else it stays on disk and its turn comes. It leaves the spool when all its tokens are settled;
//! where one of them was dropped, what is not durable of it is handed out again from the disk.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::warn;

use crate::delivery::{AckToken, Deliveries, Delivery, Ends, Settled};
use crate::event::{Entry, Identity};
use crate::failure::FailureKind;
use crate::ledger::{Confirmed, Ledger, Receipt, Settlement};
use crate::observe::{Observation, Observer};
use crate::settings::{ApiVersion, SourceSettings};
use crate::spool::Waiting;
use crate::store::SessionId;

/// How long a spooled response rests after a consumer gave some of it back.
const GIVEN_BACK_REST: Duration = Duration::from_secs(1);

/// A response whose entries were taken in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) total: usize,
    pub(crate) fresh: usize,
}

/// Entries by category. A response has few of them.
#[derive(Debug, Default)]
struct Tally(Vec<(Box<str>, usize)>);

impl Tally {
    fn count(&mut self, category: &str) {
        match self.0.iter_mut().find(|(known, _)| **known == *category) {
            Some((_, count)) => *count += 1,
            None => self.0.push((category.into(), 1)),
        }
    }
}

/// A spooled response that waits for its turn.
#[derive(Debug, Clone, Copy)]
struct Turn {
    waiting: Waiting,
    not_before: Option<Instant>,
}

/// A spooled response whose entries are handed out.
#[derive(Debug, Default)]
struct OnHand {
    /// Those that are durable.
    identities: Vec<Identity>,
    unsettled: usize,
    given_back: bool,
    entries: usize,
}

pub(crate) struct HandOut {
    source: Arc<str>,
    pub(crate) ledger: Ledger,
    v2: bool,
    max_in_flight: usize,
    end_events: Vec<String>,
    observer: Arc<dyn Observer>,
    /// `None` once polling is over.
    deliveries: Option<mpsc::UnboundedSender<Box<Deliveries>>>,
    ends: Arc<Ends>,
    /// How many GETs were answered.
    polls: u64,
    told_no_room: bool,
    end_event_done: bool,
    turns: VecDeque<Turn>,
    on_hand: HashMap<u64, OnHand>,
    spooled_in: HashMap<u64, u64>,
    done: Vec<u64>,
    /// What is durable of spooled responses, until they have left the disk.
    leaving: HashMap<u64, Vec<Identity>>,
}

impl HandOut {
    pub(crate) fn new(
        settings: &SourceSettings,
        observer: Arc<dyn Observer>,
        deliveries: mpsc::UnboundedSender<Box<Deliveries>>,
        ends: Arc<Ends>,
        spooled: &[Waiting],
    ) -> Self {
        let v2 = settings.api == ApiVersion::V2;
        Self {
            source: settings.name.as_str().into(),
            ledger: Ledger::new(settings.max_in_flight, !v2),
            v2,
            max_in_flight: settings.max_in_flight,
            end_events: settings.session.end_events.clone(),
            observer,
            deliveries: Some(deliveries),
            ends,
            polls: 0,
            told_no_room: false,
            end_event_done: false,
            turns: spooled.iter().map(|&waiting| Turn { waiting, not_before: None }).collect(),
            on_hand: HashMap::new(),
            spooled_in: HashMap::new(),
            done: Vec::new(),
            leaving: HashMap::new(),
        }
    }

    /// The answer to a GET: handed out, or left for its turn where it stands in the spool (v2).
    pub(crate) fn take(
        &mut self,
        session: &SessionId,
        entries: Vec<Entry>,
        spooled: Option<Waiting>,
        now: Instant,
    ) -> Taken {
        self.polls += 1;
        let poll = Some(self.polls);
        self.observer.observe(Observation::Polled { number: self.polls, entries: entries.len() });
        let Some(waiting) = spooled else {
            if self.deliveries.is_none() {
                // It came between the stop and its being dropped: as if it had been, its events come again.
                return Taken { total: entries.len(), fresh: 0 };
            }
            return self.hand_out(session, entries, poll, None, now);
        };
        let room = self.has_room_for(entries.len());
        if self.turns.is_empty() && self.deliveries.is_some() && room {
            return self.hand_out(session, entries, poll, Some(waiting.number), now);
        }
        self.turns.push_back(Turn { waiting, not_before: None });
        Taken { total: entries.len(), fresh: entries.len() }
    }

    /// A GET brought nothing.
    pub(crate) fn poll_failed(&self, kind: FailureKind) {
        self.observer.observe(Observation::PollFailed { kind });
    }

    /// A response that was read back from the spool.
    pub(crate) fn take_turn(&mut self, session: &SessionId, entries: Vec<Entry>, number: u64, now: Instant) {
        if self.deliveries.is_some() {
            self.hand_out(session, entries, None, Some(number), now);
        } else {
            self.put_back(Waiting { number, entries: entries.len() });
        }
    }

    /// The response whose turn it is, if there is room for it; else when to ask again.
    pub(crate) fn next_turn(&mut self, now: Instant) -> Result<Waiting, Option<Instant>> {
        let Some(turn) = self.turns.front().copied().filter(|_| self.deliveries.is_some()) else {
            return Err(None);
        };
        if let Some(rest) = turn.not_before.filter(|&rest| now < rest) {
            return Err(Some(rest));
        }
        if !self.has_room_for(turn.waiting.entries) {
            return Err(None);
        }
        self.turns.pop_front();
        Ok(turn.waiting)
    }

    /// Entries of responses that wait for their turn and were not handed out before; what was, the ledger knows.
    pub(crate) fn waiting(&self) -> usize {
        let first = |turn: &&Turn| !self.leaving.contains_key(&turn.waiting.number);
        self.turns.iter().filter(first).map(|turn| turn.waiting.entries).sum()
    }

    /// Responses wait for their turn.
    pub(crate) fn has_turns(&self) -> bool {
        !self.turns.is_empty()
    }

    fn has_room_for(&self, entries: usize) -> bool {
        let held = self.ledger.held();
        held == 0 || held + entries <= self.max_in_flight
    }

    fn hand_out(
        &mut self,
        session: &SessionId,
        entries: Vec<Entry>,
        poll: Option<u64>,
        spooled: Option<u64>,
        now: Instant,
    ) -> Taken {
        let total = entries.len();
        let mut items = Vec::with_capacity(total);
        let (mut handed, mut redelivered) = (Tally::default(), Tally::default());
        let mut no_room = 0usize;
        for entry in entries {
            let end = matches!(&entry, Entry::Event(event) if self.end_events.iter().any(|end| end == event.event_type()));
            let category = entry.category();
            match self.ledger.receive(&entry.identity(), category, end, self.v2, now) {
                Receipt::HandOut(handle) => {
                    handed.count(category);
                    if let Some(number) = spooled {
                        self.spooled_in.insert(handle, number);
                    }
                    items.push(Delivery { entry, token: AckToken::new(handle, self.ends.clone()) });
                }
                Receipt::Redelivered => redelivered.count(category),
                Receipt::NoRoom => no_room += 1,
            }
        }
        for (tally, redelivered) in [(handed, false), (redelivered, true)] {
            for (category, count) in tally.0 {
                self.observer.observe(Observation::Received { category: &category, redelivered, count });
            }
        }
        if no_room > 0 && !self.told_no_room {
            self.told_no_room = true;
            warn!(
                source = %self.source, events = no_room,
                "everything that may be held is held; events beyond it stay at the vendor until something is acknowledged"
            );
        }
        let fresh = items.len();
        if let Some(number) = spooled {
            if fresh == 0 {
                self.done.push(number);
            } else {
                self.on_hand.insert(number, OnHand { unsettled: fresh, entries: total, ..OnHand::default() });
            }
        }
        if fresh > 0
            && let Some(deliveries) = &self.deliveries
        {
            // A consumer that is gone drops the tokens with the message: they come back as released.
            let _ = deliveries.send(Box::new(Deliveries { session: session.clone(), poll, items }));
        }
        Taken { total, fresh }
    }

    /// Tokens came to their ends.
    pub(crate) fn settle(&mut self, settled: &mut Vec<Settled>, now: Instant) {
        let mut done = Tally::default();
        for settled in settled.drain(..) {
            self.settle_one(settled, &mut done, now);
        }
        self.tell_confirmed(done);
    }

    fn settle_one(&mut self, settled: Settled, done: &mut Tally, now: Instant) {
        let settlement = self.ledger.settle(settled.handle, settled.durable, now);
        if let Settlement::Done(confirmed) = &settlement {
            self.end_event_done |= confirmed.end;
            done.count(&confirmed.category);
        }
        let Some(number) = self.spooled_in.remove(&settled.handle) else { return };
        let Some(response) = self.on_hand.get_mut(&number) else { return };
        response.unsettled -= 1;
        response.given_back |= settlement == Settlement::Released;
        if let Settlement::Done(Confirmed { identity, .. }) = settlement {
            response.identities.push(identity);
        }
        if response.unsettled > 0 {
            return;
        }
        self.leaving.entry(number).or_default().append(&mut response.identities);
        if response.given_back {
            let waiting = Waiting { number, entries: response.entries };
            self.turns.push_back(Turn { waiting, not_before: Some(now + GIVEN_BACK_REST) });
        } else {
            self.done.push(number);
        }
        self.on_hand.remove(&number);
    }

    /// The vendor answered for a batch of ids. Returns what has to be told.
    pub(crate) fn acknowledged(
        &mut self,
        ids: &[Arc<str>],
        verdict: impl Fn(&str) -> Option<bool>,
        now: Instant,
    ) {
        let result = self.ledger.answered(ids, verdict, now);
        let mut done = Tally::default();
        for confirmed in &result.confirmed {
            self.end_event_done |= confirmed.end;
            done.count(&confirmed.category);
            self.observer.observe(Observation::Forgotten { identity: &confirmed.identity });
        }
        self.tell_confirmed(done);
        if result.not_found > 0 {
            self.observer.observe(Observation::AcknowledgeNotFound { count: result.not_found });
        }
        if result.given_up > 0 {
            warn!(
                source = %self.source, ids = result.given_up,
                "the vendor's answers never mention some acknowledged ids; they are acknowledged again when delivered again"
            );
        }
        self.told_no_room = false;
    }

    fn tell_confirmed(&self, done: Tally) {
        for (category, count) in done.0 {
            self.observer.observe(Observation::Acknowledged { category: &category, count });
        }
    }

    /// An event that ends the session is done since the last call.
    pub(crate) fn take_end_event(&mut self) -> bool {
        std::mem::take(&mut self.end_event_done)
    }

    /// Spooled responses that may leave the disk.
    pub(crate) fn take_done(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.done)
    }

    /// Responses have left the disk.
    pub(crate) fn left(&mut self, numbers: &[u64]) {
        for number in numbers {
            for identity in self.leaving.remove(number).unwrap_or_default() {
                self.observer.observe(Observation::Forgotten { identity: &identity });
            }
        }
    }

    /// A turn came to nothing (its response could not be read, or polling is over): it is the first again.
    pub(crate) fn put_back(&mut self, turn: Waiting) {
        self.turns.push_front(Turn { waiting: turn, not_before: None });
    }

    /// Waits until nobody takes deliveries any more.
    pub(crate) fn abandoned(&self) -> impl Future<Output = ()> + Send + use<> {
        let deliveries = self.deliveries.clone();
        async move {
            match deliveries {
                Some(deliveries) => deliveries.closed().await,
                None => std::future::pending().await,
            }
        }
    }

    /// Polling is over: the stream ends behind what was handed out.
    pub(crate) fn close(&mut self) {
        self.deliveries = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::NoObserver;
    use crate::parse::parse_response;

    /// A GET that is answered between the stop and its being dropped.
    #[test]
    fn what_comes_after_the_end_is_nobodys() {
        let (deliver, mut deliveries) = mpsc::unbounded_channel();
        let mut hand_out = HandOut {
            source: "main".into(),
            ledger: Ledger::new(10, true),
            v2: false,
            max_in_flight: 10,
            end_events: vec![],
            observer: Arc::new(NoObserver),
            deliveries: Some(deliver),
            ends: Arc::new(Ends::default()),
            polls: 0,
            told_no_room: false,
            end_event_done: false,
            turns: VecDeque::new(),
            on_hand: HashMap::new(),
            spooled_in: HashMap::new(),
            done: vec![],
            leaving: HashMap::new(),
        };
        hand_out.ledger.begin_session();
        let body = r#"{"totalItems":1,"events":[{"eventId":"1","eventType":"a.B","payload":"{}"}]}"#;
        let entries = parse_response(body.into(), ApiVersion::V3, Instant::now()).expect("a response");
        hand_out.close();
        let taken = hand_out.take(&SessionId::from("s"), entries, None, Instant::now());
        assert_eq!(taken, Taken { total: 1, fresh: 0 });
        assert_eq!((hand_out.ledger.held(), hand_out.ledger.unacknowledged()), (0, 0));
        assert!(deliveries.try_recv().is_err());
    }
}
