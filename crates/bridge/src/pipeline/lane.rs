//! One source's way into one sink: a batch at a time, in order, retried until its fate is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use viaduct_sink::outcome::Position;
use viaduct_sink::{Batch, Fatal, Outcome, Receipt, Record, Rejection, Retry};

use super::backlog::{Backlog, Item};
use super::queue::{self, queue};
use super::settle::Creditor;
use crate::routing::Reason;
use crate::sinks::SinkHandle;
use crate::telemetry::{BatchTrace, Telemetry};

/// What a lane tells its source about a record.
#[derive(Debug)]
pub(crate) struct Report {
    /// The event's number within its source.
    pub(crate) sequence: u64,
    /// Whose receipt it is about.
    pub(crate) creditor: Creditor,
    /// Set where the record was a dead letter.
    pub(crate) dead_letter: Option<Reason>,
    /// What became of the record.
    pub(crate) fate: Fate,
}

/// The end of a record's way.
#[derive(Debug)]
pub(crate) enum Fate {
    /// Durable.
    Confirmed(Receipt),
    /// Never publishable: a dead letter. With the destination that did not take it.
    Rejected(Rejection, Arc<str>),
}

/// The source's end of a lane.
#[derive(Debug, Clone)]
pub(crate) struct LaneSender {
    items: queue::Sender<Item>,
    waiting: Arc<AtomicUsize>,
    /// How many records may wait here; `None` where the acknowledgement already bounds them.
    capacity: Option<usize>,
}

/// A best-effort lane is full: the record is not published there.
#[derive(Debug)]
pub(crate) struct LaneFull;

impl LaneSender {
    /// Hands over a record.
    ///
    /// The queue has no bound of its own: a record of a required sink is an unacknowledged event, and those are
    /// bounded by `max_in_flight`; a best-effort lane refuses above its capacity.
    pub(crate) fn send(&self, item: Item) -> Result<(), LaneFull> {
        if self.capacity.is_some_and(|capacity| self.waiting.load(Ordering::Relaxed) >= capacity) {
            return Err(LaneFull);
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // A lane ends before its source only when the whole bridge is being torn down.
        self.items.send(item);
        Ok(())
    }
}

/// The way of one source's records into one sink.
#[derive(Debug)]
pub(crate) struct Lane {
    source: Arc<str>,
    sink: Arc<SinkHandle>,
    items: queue::Receiver<Item>,
    waiting: Arc<AtomicUsize>,
    reports: mpsc::UnboundedSender<Vec<Report>>,
    telemetry: Arc<Telemetry>,
}

impl Lane {
    /// A lane and its sender. `capacity` bounds a best-effort lane.
    pub(crate) fn new(
        source: Arc<str>,
        sink: Arc<SinkHandle>,
        capacity: Option<usize>,
        reports: mpsc::UnboundedSender<Vec<Report>>,
        telemetry: Arc<Telemetry>,
    ) -> (LaneSender, Self) {
        let (sender, items) = queue();
        let waiting = Arc::new(AtomicUsize::new(0));
        let lane = Self { source, sink, items, waiting: waiting.clone(), reports, telemetry };
        (LaneSender { items: sender, waiting, capacity }, lane)
    }

    /// Publishes until the sender is gone and everything has met its fate, or the sink can never publish again.
    pub(crate) async fn run(mut self) -> Result<(), Fatal> {
        let mut backlog = Backlog::new(self.sink.refused_after);
        loop {
            let (batch, open) = self.next_batch(&mut backlog, Instant::now());
            if !batch.is_empty() {
                self.publish(batch, &mut backlog).await?;
                continue;
            }
            if !open && backlog.len() == 0 {
                return Ok(());
            }
            let due = backlog.next_try();
            tokio::select! {
                () = self.items.changed(), if open => {}
                () = sleep_until(due), if due.is_some() => {}
            }
        }
    }

    /// What may be published now of all that has arrived while the batch before was under way, up to what the sink takes at
    /// once; and whether more may arrive.
    pub(super) fn next_batch(&mut self, backlog: &mut Backlog, now: Instant) -> (Vec<Item>, bool) {
        let open = self.items.take_all(backlog.items());
        (backlog.take_batch(now, self.sink.sink.batch_limit()), open)
    }

    async fn publish(&self, batch: Vec<Item>, backlog: &mut Backlog) -> Result<(), Fatal> {
        let (tags, records): (Vec<Tag>, Vec<_>) = batch.into_iter().map(Tag::split).unzip();
        let traces = self.telemetry.traces.as_ref();
        let batches = tags.iter().map(|tag| tag.trace.as_ref());
        let trace =
            traces.and_then(|traces| traces.publish(&self.source, &self.sink.name, &records, batches));
        let started = Instant::now();
        let outcomes = self.sink.sink.publish(Batch { source: &self.source, records: &records }).await;
        if let Some(trace) = trace {
            trace.end(&outcomes);
        }
        self.telemetry.publish_took(&self.sink.name, started.elapsed());
        self.settle(tags, records, outcomes, backlog, Instant::now(), rand::random())
    }

    /// What follows from the outcomes: reports to the source, retries to the backlog.
    pub(super) fn settle(
        &self,
        tags: Vec<Tag>,
        records: Vec<Record>,
        outcomes: Vec<Outcome>,
        backlog: &mut Backlog,
        now: Instant,
        jitter: f64,
    ) -> Result<(), Fatal> {
        assert_eq!(outcomes.len(), records.len(), "a sink answers with one outcome per record");

        let mut reports = Vec::with_capacity(records.len());
        let mut retried: Vec<(Item, Retry)> = Vec::new();
        let mut fatal = None;
        let mut published = self.telemetry.published(&self.source, &self.sink.name);
        for ((tag, record), outcome) in tags.into_iter().zip(records).zip(outcomes) {
            match outcome {
                Outcome::Confirmed(receipt) => {
                    if backlog.succeeded(&record.destination) {
                        self.sink.accepts_again(&self.source, &record.destination);
                    }
                    // What an earlier process has stored was counted by it.
                    match tag.dead_letter {
                        _ if receipt.position() == Position::Held => {}
                        Some(reason) => self.telemetry.dead_lettered(&self.source, reason),
                        None => published.count(&tag.category, record.timestamp_ms),
                    }
                    reports.push(tag.report(Fate::Confirmed(receipt)));
                }
                Outcome::Rejected(rejection) => {
                    reports.push(tag.report(Fate::Rejected(rejection, record.destination)))
                }
                Outcome::Retry(retry) => {
                    self.telemetry.sink_retry(&self.sink.name, retry.reason);
                    self.sink.note_retry(&self.source, &record.destination, &retry);
                    retried.push((tag.join(record), retry));
                }
                Outcome::Fatal(reason) => fatal = Some(reason),
            }
        }
        drop(published);
        if !retried.is_empty() {
            for (item, rejection) in backlog.put_back(retried, now, jitter) {
                let (tag, record) = Tag::split(item);
                self.sink.gave_up(&self.source, &record.destination);
                reports.push(tag.report(Fate::Rejected(rejection, record.destination)));
            }
        }
        self.waiting.fetch_sub(reports.len(), Ordering::Relaxed);
        // The source is gone only when the whole bridge is being torn down.
        let _ = self.reports.send(reports);
        fatal.map_or(Ok(()), Err)
    }
}

/// An [`Item`] without its record.
#[derive(Debug)]
pub(super) struct Tag {
    sequence: u64,
    category: Arc<str>,
    creditor: Creditor,
    dead_letter: Option<Reason>,
    trace: Option<Arc<BatchTrace>>,
}

impl Tag {
    pub(super) fn split(item: Item) -> (Self, Record) {
        let Item { sequence, category, creditor, dead_letter, trace, record } = item;
        (Self { sequence, category, creditor, dead_letter, trace }, record)
    }

    fn join(self, record: Record) -> Item {
        let Self { sequence, category, creditor, dead_letter, trace } = self;
        Item { sequence, category, creditor, dead_letter, trace, record }
    }

    fn report(self, fate: Fate) -> Report {
        Report { sequence: self.sequence, creditor: self.creditor, dead_letter: self.dead_letter, fate }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        // A millisecond more than asked, so that the timer's resolution does not make this a busy loop.
        Some(due) => tokio::time::sleep_until((due + Duration::from_millis(1)).into()).await,
        None => std::future::pending().await,
    }
}
