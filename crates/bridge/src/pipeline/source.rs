//! One source: routes what the poller delivers, and acknowledges what its sinks have confirmed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tracing::warn;
use viaduct_faults::{Mistake, below_high_watermark, makes};
use viaduct_poller::{Deliveries, Delivery, DeliveryStream, Entry, SessionId};
use viaduct_sink::{Record, Rejection};

use super::backlog::Item;
use super::lane::{Fate, LaneSender, Report};
use super::repeats::{Repeats, Saying};
use super::settle::{Creditor, Owed};
use crate::config::SinkIndex;
use crate::routing::{Circumstances, DeadLetterRoute, Masks, Plan, Reason, Router};
use crate::shown::ShownSinks;
use crate::telemetry::{BatchTrace, Telemetry};
use crate::validation::Validator;

/// What a source is built from.
#[derive(Debug)]
pub(crate) struct Source {
    /// The configured name.
    pub(crate) name: Arc<str>,
    /// What the poller hands over.
    pub(crate) deliveries: DeliveryStream,
    /// Compares events with the vendor's document, where the source asks for that.
    pub(crate) validator: Option<Validator>,
    /// What of its events nobody may see.
    pub(crate) masks: Option<Arc<Masks>>,
    /// The routes, bound to this source.
    pub(crate) router: Router,
    /// Those of a reloaded configuration.
    pub(crate) reloads: mpsc::UnboundedReceiver<Box<Rules>>,
    /// A lane per configured sink.
    pub(crate) lanes: Vec<SinkLane>,
    /// The way to the dead letters.
    pub(crate) dead_letters: LaneSender,
    /// Their destination.
    pub(crate) dead_letter_route: DeadLetterRoute,
    /// The way to the local dead-letter file, for what the configured destination refuses.
    pub(crate) last_resort: LaneSender,
    /// Its destination.
    pub(crate) last_resort_route: DeadLetterRoute,
    /// What the lanes say.
    pub(crate) reports: mpsc::UnboundedReceiver<Vec<Report>>,
    /// Counters.
    pub(crate) telemetry: Arc<Telemetry>,
    /// What the log has heard of events that could not be published.
    pub(crate) repeats: Repeats,
}

/// What a reload changes of a source.
#[derive(Debug)]
pub(crate) struct Rules {
    /// The routes.
    pub(crate) router: Router,
    /// The masks.
    pub(crate) masks: Option<Arc<Masks>>,
}

/// A lane, and whether acknowledgements wait for it.
#[derive(Debug)]
pub(crate) struct SinkLane {
    /// The lane.
    pub(crate) sender: LaneSender,
    /// `required` of the sink.
    pub(crate) required: bool,
    /// The sink's name.
    pub(crate) sink: Arc<str>,
}

/// An event that was handed out and is not settled.
#[derive(Debug)]
struct Slot {
    owed: Owed,
    entry: Entry,
    /// Those that the entry is under.
    masks: Option<Arc<Masks>>,
    category: Arc<str>,
    session: SessionId,
    /// The batch that it came in, where that is traced.
    trace: Option<Arc<BatchTrace>>,
}

impl Slot {
    /// Acknowledges the event if nobody owes a receipt; gives itself back otherwise.
    fn settle(self) -> Option<Self> {
        let Self { owed, entry, masks, category, session, trace } = self;
        owed.settle().err().map(|owed| Self { owed, entry, masks, category, session, trace })
    }

    /// How it becomes a dead letter.
    fn dying<'s>(&'s self, reason: Reason, detail: &'s str, intended: Option<&'s str>) -> Circumstances<'s> {
        let (session, masks) = (self.session.as_str(), self.masks.as_deref());
        Circumstances { session, reason, detail, intended, masks, at: Timestamp::now() }
    }
}

/// Slots by sequence number: a queue with gaps, because events settle about in order.
#[derive(Debug, Default)]
pub(super) struct Slots {
    first: u64,
    slots: VecDeque<Option<Slot>>,
}

impl Slots {
    fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    fn push(&mut self, slot: Slot) {
        self.slots.push_back(Some(slot));
    }

    /// Uses up a number for an event that was settled at once.
    fn skip(&mut self) {
        self.slots.push_back(None);
    }

    fn place(&mut self, sequence: u64) -> Option<&mut Option<Slot>> {
        self.slots.get_mut(usize::try_from(sequence.checked_sub(self.first)?).ok()?)
    }

    fn take(&mut self, sequence: u64) -> Option<Slot> {
        self.place(sequence)?.take()
    }

    fn put_back(&mut self, sequence: u64, slot: Slot) {
        if let Some(place) = self.place(sequence) {
            *place = Some(slot);
        }
    }

    fn shrink(&mut self) {
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

impl Source {
    /// Runs until the poller has stopped delivering and everything delivered is settled.
    pub(crate) async fn run(mut self) {
        let mut slots = Slots::default();
        let mut categories = Categories::default();
        let mut polling = true;
        while polling || !slots.is_empty() {
            tokio::select! {
                deliveries = self.deliveries.next(), if polling => match deliveries {
                    Some(deliveries) => self.dispatch(deliveries, &mut slots, &mut categories),
                    None => polling = false,
                },
                Some(reports) = self.reports.recv() => self.account(reports, &mut slots),
                Some(rules) = self.reloads.recv() => {
                    self.router = rules.router;
                    self.masks = rules.masks;
                }
            }
        }
    }

    pub(super) fn dispatch(
        &mut self,
        deliveries: Deliveries,
        slots: &mut Slots,
        categories: &mut Categories,
    ) {
        let telemetry = self.telemetry.clone();
        let mut durable = telemetry.durable(&self.name);
        let mut notes = telemetry.feed.batch(&self.name, deliveries.items.len());
        let shows_records = telemetry.feed.is_followed_for_records();
        let traces = telemetry.traces.as_ref();
        let trace =
            traces.and_then(|traces| traces.batch(&self.name, deliveries.poll, deliveries.items.len()));
        for Delivery { entry, token } in deliveries.items {
            // Before masks change values; of those, nothing goes on from here.
            let unfit = match (&mut self.validator, &entry) {
                (Some(validator), Entry::Event(event)) => validator.look(event),
                _ => None,
            };
            // From here on there is only the masked event: for sinks, keys, dead letters and whoever watches.
            let entry = match &self.masks {
                Some(masks) => masks.apply(entry),
                None => entry,
            };
            let sequence = slots.next();
            let category = categories.of(&entry);
            let mut slot = Slot {
                owed: Owed::new(token),
                entry,
                masks: self.masks.clone(),
                category,
                session: deliveries.session.clone(),
                trace: trace.clone(),
            };
            let plan = match (&slot.entry, unfit) {
                (Entry::Event(event), _) if below_high_watermark(event.id()) => Plan::Dropped,
                (Entry::Event(_), Some(detail)) => Plan::DeadLetter(Reason::Schema, detail),
                (Entry::Event(event), None) => {
                    self.router.plan_traced(event, trace.as_ref().map(|trace| trace.traceparent()))
                }
                (Entry::Malformed(malformed), _) => {
                    Plan::DeadLetter(Reason::from(malformed.reason()), malformed.detail().to_owned())
                }
            };
            notes.add(&slot.entry, &plan, |sink| &self.lanes[sink].sink);
            if shows_records && let (Entry::Event(event), Plan::Records(records)) = (&slot.entry, &plan) {
                let format = |sink| self.router.format(event.event_type(), sink);
                telemetry.feed.show_records(&self.name, &slot.entry, records, format);
            }
            match plan {
                Plan::Records(records) => {
                    for (sink, record) in records {
                        self.offer(sequence, &mut slot, sink, record);
                    }
                }
                Plan::Dropped => {}
                Plan::DeadLetter(reason, detail) => {
                    slot.owed.expect(Creditor::DeadLetters);
                    self.bury(sequence, &slot, Creditor::DeadLetters, reason, &detail, None);
                }
            }
            let category = slot.category.clone();
            if let Some(slot) = slot.settle() {
                slots.push(slot);
            } else {
                durable.count(category);
                slots.skip();
            }
        }
        slots.shrink();
    }

    fn offer(&self, sequence: u64, slot: &mut Slot, sink: SinkIndex, record: Record) {
        if makes(Mistake::DropOneIn500) && sequence % 500 == 499 {
            return;
        }
        let lane = &self.lanes[sink.get()];
        let creditor = Creditor::Sink(sink);
        if lane.required {
            slot.owed.expect(creditor);
        }
        let (category, trace) = (slot.category.clone(), slot.trace.clone());
        let item = Item { sequence, category, creditor, dead_letter: None, trace, record };
        if lane.sender.send(item).is_err() {
            self.telemetry.best_effort_dropped(&self.name, &lane.sink);
        }
    }

    /// Sends an event to the dead letters. The dead letter's receipt stands in for that of `creditor`.
    fn bury(
        &mut self,
        sequence: u64,
        slot: &Slot,
        creditor: Creditor,
        reason: Reason,
        detail: &str,
        intended: Option<&str>,
    ) {
        if let Some(unsaid) = self.repeats.say(Saying::DeadLetter(reason), Instant::now()) {
            warn!(source = %self.name, %reason, destination = intended, detail, unsaid,
                  "event goes to the dead letters");
        }
        let mut record = self.dead_letter_route.record(&slot.entry, &slot.dying(reason, detail, intended));
        if let Creditor::Sink(sink) = creditor {
            // Two sinks may refuse an event for destinations of the same name: that makes two dead letters.
            record.message_id = format!("{}@{}", record.message_id, self.lanes[sink.get()].sink).into();
        }
        self.telemetry.feed.show_dead_letter(
            &self.name,
            &slot.entry,
            reason,
            &record,
            ShownSinks::dead_letter,
        );
        let (category, trace) = (slot.category.clone(), slot.trace.clone());
        let item = Item { sequence, category, creditor, dead_letter: Some(reason), trace, record };
        // Lanes of dead letters have no capacity, so they are never full.
        let _ = self.dead_letters.send(item);
    }

    /// The dead letters' own destination refused this one: the local file is the last resort.
    fn bury_locally(&mut self, report: &Report, slot: &Slot, reason: Reason, rejection: &Rejection) {
        if let Some(unsaid) = self.repeats.say(Saying::LastResort(reason), Instant::now()) {
            warn!(source = %self.name, %reason, detail = rejection.detail, unsaid,
                  "the dead-letter destination refused this one: it goes to the local dead-letter file");
        }
        let circumstances = slot.dying(reason, &rejection.detail, None);
        let record = self.last_resort_route.record(&slot.entry, &circumstances);
        self.telemetry.feed.show_dead_letter(
            &self.name,
            &slot.entry,
            reason,
            &record,
            ShownSinks::local_dead_letter,
        );
        let item = Item {
            sequence: report.sequence,
            category: slot.category.clone(),
            creditor: report.creditor,
            dead_letter: Some(reason),
            trace: slot.trace.clone(),
            record,
        };
        let _ = self.last_resort.send(item);
    }

    pub(super) fn account(&mut self, reports: Vec<Report>, slots: &mut Slots) {
        let mut durable = self.telemetry.durable(&self.name);
        for report in reports {
            let Some(mut slot) = slots.take(report.sequence) else {
                // Settled without waiting for this sink, which is a best-effort one.
                if let (Fate::Rejected(rejection, destination), Creditor::Sink(sink)) =
                    (&report.fate, report.creditor)
                {
                    let sink = &self.lanes[sink.get()].sink;
                    let saying = Saying::BestEffort(rejection.reason);
                    if let Some(unsaid) = self.repeats.say(saying, Instant::now()) {
                        warn!(source = %self.name, %sink, destination = %destination, reason = %rejection.reason,
                              detail = rejection.detail, unsaid, "a best-effort sink rejected an event");
                    }
                    self.telemetry.best_effort_dropped(&self.name, sink);
                }
                continue;
            };
            match &report.fate {
                Fate::Confirmed(receipt) => slot.owed.receive(report.creditor, receipt),
                Fate::Rejected(rejection, destination) => match report.dead_letter {
                    None => {
                        let reason = Reason::Rejected(rejection.reason);
                        let detail = &rejection.detail;
                        self.bury(report.sequence, &slot, report.creditor, reason, detail, Some(destination));
                    }
                    Some(reason) => self.bury_locally(&report, &slot, reason, rejection),
                },
            }
            let category = slot.category.clone();
            match slot.settle() {
                Some(slot) => slots.put_back(report.sequence, slot),
                None => durable.count(category),
            }
        }
        slots.shrink();
    }
}

/// Category names, each allocated once. Bounded by forgetting: they are a handful.
#[derive(Debug, Default)]
pub(super) struct Categories(HashMap<Box<str>, Arc<str>>);

impl Categories {
    const KNOWN: usize = 256;

    fn of(&mut self, entry: &Entry) -> Arc<str> {
        let name = match entry {
            Entry::Event(event) => event.category(),
            Entry::Malformed(_) => "unknown",
        };
        if let Some(known) = self.0.get(name) {
            return known.clone();
        }
        if self.0.len() >= Self::KNOWN {
            self.0.clear();
        }
        let category: Arc<str> = name.into();
        self.0.insert(name.into(), category.clone());
        category
    }
}
