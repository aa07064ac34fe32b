//! The organisation's event queue, and what each session has been given of it.
//!
//! An event goes to one session: the one that asks first. With several live sessions the stream is therefore split among
//! them; the document recommends one session. Subscriptions do not filter: what they would add (events of other agents)
//! looks exactly like what is there.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::emission::Emission;
use crate::generator::{Generator, Made};
use crate::journal::{Journal, RowNumber, State};
use crate::session::Version;
use crate::settings::{Rate, Redelivery, Requeue, Settings};
use crate::stock::Stock;

/// How often an event that shows no id, and can therefore not be acknowledged, is given out.
const DELIVERIES_WITHOUT_ID: u16 = 3;

/// An event on its way: its row in the journal and its text in the v3 shape.
pub(crate) type Item = (RowNumber, Bytes);

/// The queue of one organisation.
#[derive(Debug)]
pub(crate) struct Organisation {
    redelivery: Redelivery,
    redelivery_delay: Duration,
    requeue: Requeue,
    pub(crate) generator: Generator,
    pub(crate) emission: Emission,
    pub(crate) journal: Journal,
    /// Events that exist and that no session holds; they go out before new ones are made.
    backlog: VecDeque<Item>,
    /// With [`Rate::Saturated`], where all events come from.
    pub(crate) stock: Option<Stock>,
}

/// What a session was given and has not acknowledged.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// Whether the session acknowledges; if not, nothing stays here.
    keeps: bool,
    pending: BTreeMap<RowNumber, Pending>,
    /// The same events by time of their last delivery; those that are no longer pending, or were given out again since,
    /// are skipped when their turn comes.
    by_time: VecDeque<(Instant, RowNumber)>,
}

#[derive(Debug)]
struct Pending {
    text: Bytes,
    given_at: Instant,
}

impl Inbox {
    pub(crate) fn new(keeps: bool) -> Self {
        Self { keeps, pending: BTreeMap::new(), by_time: VecDeque::new() }
    }

    /// Drops what is stale at the front of `by_time`: it must not grow with a client that acknowledges everything.
    fn forget_stale(&mut self) {
        while let Some((given_at, row)) = self.by_time.front() {
            match self.pending.get(row) {
                Some(pending) if pending.given_at == *given_at => break,
                _ => drop(self.by_time.pop_front()),
            }
        }
    }
}

/// What an acknowledgement of one id came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acknowledged {
    Now,
    Before,
    /// It was given out, but this session does not hold it.
    NotHeld,
    NeverGivenOut,
}

impl Organisation {
    pub(crate) fn new(settings: &Settings, now: Instant, now_ms: u64) -> Self {
        let mut generator =
            Generator::new(settings.seed, settings.interactions, &settings.types, settings.payload_bytes);
        Self {
            redelivery: settings.redelivery,
            redelivery_delay: settings.redelivery_delay,
            requeue: settings.requeue,
            stock: (settings.rate == Rate::Saturated).then(|| Stock::new(&mut generator, now_ms)),
            generator,
            emission: Emission::new(settings.rate, settings.burst, settings.total, now, now_ms),
            journal: Journal::new(settings.seed, settings.keep_entries, settings.keep_deliveries, now),
            backlog: VecDeque::new(),
        }
    }

    /// What a GET /events returns now. Two events of one id are never parted, so that acknowledging the id means both:
    /// the answer may hold one more than `max`.
    pub(crate) fn take(&mut self, inbox: &mut Inbox, max: usize, now: Instant, now_ms: u64) -> Vec<Item> {
        let mut taken = Vec::with_capacity(max.min(256));
        if self.redelivery == Redelivery::FromHead {
            for (row, pending) in &mut inbox.pending {
                if taken.len() >= max && !self.journal.is_twin(*row) {
                    break;
                }
                pending.given_at = now;
                taken.push((*row, pending.text.clone()));
            }
        }
        while taken.len() < max || self.backlog.front().is_some_and(|(row, _)| self.journal.is_twin(*row)) {
            let Some(item) = self.next_item(taken.last().map(|(row, _)| *row), now, now_ms) else { break };
            taken.push(item);
        }
        if taken.is_empty() {
            self.take_due(inbox, max, now, &mut taken);
        }
        inbox.forget_stale();
        for (row, text) in &taken {
            self.journal.delivered(*row, inbox.keeps, now);
            if !inbox.keeps {
                continue;
            }
            if !self.journal.has_id(*row) && self.journal.deliveries(*row) >= DELIVERIES_WITHOUT_ID {
                inbox.pending.remove(row);
                self.journal.set(*row, State::Forgotten);
                continue;
            }
            inbox.pending.insert(*row, Pending { text: text.clone(), given_at: now });
            if self.redelivery == Redelivery::PerSessionNewThenPending {
                inbox.by_time.push_back((now, *row));
            }
        }
        taken
    }

    /// With [`Rate::Saturated`]: the body of an answer with events that were prepared ahead; `None` where none may be given out now.
    pub(crate) fn take_prepared(
        &mut self,
        max: usize,
        version: Version,
        now: Instant,
        now_ms: u64,
    ) -> Option<Vec<u8>> {
        let stock = self.stock.as_mut()?;
        let count = (0..max).map_while(|_| self.emission.take(now, now_ms)).count();
        (count > 0).then(|| stock.take(count, version))
    }

    /// Gives the first event of an answer once more, in the same answer.
    pub(crate) fn repeat_first(&mut self, inbox: &Inbox, items: &mut Vec<Item>, now: Instant) {
        // Only of an event that is still there: a second delivery changes nothing about it.
        if let Some((row, text)) = items.first().cloned()
            && (!inbox.keeps || inbox.pending.contains_key(&row))
        {
            self.journal.delivered(row, inbox.keeps, now);
            items.push((row, text));
        }
    }

    fn next_item(&mut self, before: Option<RowNumber>, now: Instant, now_ms: u64) -> Option<Item> {
        if let Some(item) = self.backlog.pop_front() {
            return Some(item);
        }
        if self.stock.is_some() {
            return None;
        }
        let published = self.emission.take(now, now_ms)?;
        let shared = match before {
            Some(before) if self.generator.twin_is_next() => {
                self.journal.made_id_of(before).map(|id| (id, before))
            }
            _ => None,
        };
        match shared {
            Some((id, before)) => {
                let made = self.generator.make(&id, true, published);
                Some((self.journal.made_twin(&made, before), made.text))
            }
            None => {
                let made = self.generator.make(&self.journal.next_id(), false, published);
                Some((self.journal.made(&made), made.text))
            }
        }
    }

    /// Unacknowledged events whose time has come, the longest waiting first.
    fn take_due(&mut self, inbox: &mut Inbox, max: usize, now: Instant, taken: &mut Vec<Item>) {
        while let Some((given_at, row)) = inbox.by_time.front().copied() {
            match inbox.pending.get(&row).filter(|pending| pending.given_at == given_at) {
                Some(_) if now.duration_since(given_at) < self.redelivery_delay => break,
                Some(_) if taken.len() >= max && !self.journal.is_twin(row) => break,
                Some(pending) => taken.push((row, pending.text.clone())),
                None => {}
            }
            inbox.by_time.pop_front();
        }
    }

    /// When a session that finds nothing now should look again; `None`: only when it is told to.
    pub(crate) fn next_look(&self, inbox: &Inbox, now: Instant) -> Option<Instant> {
        // Only what is in front can be stale, and taking has just dropped that.
        let redelivery = inbox.by_time.front().map(|(given_at, _)| *given_at + self.redelivery_delay);
        self.emission.next(now).into_iter().chain(redelivery).min()
    }

    /// Removes an event from the queue for good. An id that several events have removes those that the session was given.
    pub(crate) fn acknowledge(&mut self, inbox: &mut Inbox, id: &str, now: Instant) -> Acknowledged {
        if let Some(stock) = &mut self.stock {
            return stock.acknowledge(id);
        }
        let (first, others) = self.journal.rows_of(id);
        let rows: Vec<RowNumber> = first.into_iter().chain(others.iter().copied()).collect();
        let mut outcome = Acknowledged::NeverGivenOut;
        for row in rows {
            if inbox.pending.remove(&row).is_some() {
                self.journal.acknowledged(row, now);
                outcome = Acknowledged::Now;
            } else if outcome != Acknowledged::Now && self.journal.deliveries(row) > 0 {
                outcome = match self.journal.state(row) {
                    State::Acknowledged => Acknowledged::Before,
                    _ => Acknowledged::NotHeld,
                };
            }
        }
        outcome
    }

    /// Takes back what a session held when it ended.
    pub(crate) fn take_back(&mut self, inbox: Inbox) {
        let mut back = Vec::with_capacity(inbox.pending.len());
        for (row, pending) in inbox.pending {
            match self.requeue {
                Requeue::Lost => self.journal.set(row, State::Lost),
                Requeue::SameId => {
                    self.journal.set(row, State::Queued);
                    back.push((row, pending.text));
                }
                Requeue::NewId => back.push(self.under_a_new_id(row, &pending.text)),
            }
        }
        for item in back.into_iter().rev() {
            self.backlog.push_front(item);
        }
    }

    fn under_a_new_id(&mut self, row: RowNumber, text: &Bytes) -> Item {
        let text = match (self.journal.made_id_of(row), std::str::from_utf8(text)) {
            (Some(old), Ok(entry)) => {
                let (old, new) =
                    (format!("\"eventId\":\"{old}\""), format!("\"eventId\":\"{}\"", self.journal.next_id()));
                Bytes::from(entry.replacen(&old, &new, 1))
            }
            _ => text.clone(),
        };
        (self.journal.replaced(row, &text), text)
    }

    /// Notes that events given to a session that does not acknowledge never reached it.
    pub(crate) fn lose(&mut self, rows: &[RowNumber]) {
        for row in rows {
            self.journal.set(*row, State::Lost);
        }
    }

    /// Queues an event from outside, behind everything that exists already.
    pub(crate) fn give(&mut self, made: &Made, id: Option<&str>) {
        let row = self.journal.given(made, id);
        self.backlog.push_back((row, made.text.clone()));
    }
}
