//! Routes dead letters as new events are routed, and publishes them.
//!
//! The way is the bridge's own from the masks on: router, lanes, sinks. Two things are different. Sinks deliver at least
//! once, whatever they are configured for: a transactional id or a checkpoint would take the place of the bridge that runs.
//! And a destination that says no is asked for [`PATIENCE`] only: somebody waits.
//!
//! **What fails again** never makes more dead letters than there were. A letter that fails as it failed before stays as it
//! is. One that fails in another way is replaced by one new letter with the new reason; where that cannot be written, it
//! stays, too.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use viaduct_poller::{ApiVersion, Entry};
use viaduct_sink::{Fatal, Owner, Record};

use super::letter::Letter;
use super::line::Line;
use crate::config::{Config, DeadLetter, RefusedAfter, SinkIndex};
use crate::exit::{Exit, Failure};
use crate::pipeline::backlog::Item;
use crate::pipeline::lane::{Fate, Lane, LaneSender, Report};
use crate::pipeline::settle::Creditor;
use crate::routing::dead_letter::header;
use crate::routing::{Circumstances, Masks, Plan, Reason};
use crate::sinks::{self, SinkHandle};
use crate::telemetry::Telemetry;

/// How long a destination is asked again that says no.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a sink may be unreachable.
const OUTAGE: Duration = Duration::from_secs(20);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long closing a sink may take.
const CLOSE: Duration = Duration::from_secs(5);

/// What became of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Done {
    /// Every required sink that its routes name holds it.
    Published,
    /// Only a route with `sink = "none"` matches: nothing is to be published.
    Dropped,
    /// It failed in another way than before, and a new dead letter says so.
    Again(Reason, String),
    /// It failed, and stays the dead letter that it is.
    Stays(&'static str, String),
}

impl Done {
    /// Whether the letter has nothing left to be replayed for.
    pub(super) fn is_over(&self) -> bool {
        !matches!(self, Self::Stays(..))
    }
}

/// Why a letter's event cannot be published as routed.
#[derive(Debug)]
struct Failing {
    reason: Reason,
    detail: String,
    destination: Option<Arc<str>>,
}

/// Publishes dead letters.
pub(super) struct Press {
    config: Config,
    masks: Option<Arc<Masks>>,
    telemetry: Arc<Telemetry>,
    lines: HashMap<String, Line>,
    sinks: HashMap<SinkIndex, Arc<SinkHandle>>,
    local: Option<Arc<SinkHandle>>,
    lanes: JoinSet<(Arc<str>, Result<(), Fatal>)>,
    reports: mpsc::UnboundedReceiver<Vec<Report>>,
    reporter: mpsc::UnboundedSender<Vec<Report>>,
    next: u64,
    /// Records that are under way to best-effort sinks.
    underway: u64,
    /// Records that a best-effort sink did not take.
    pub(super) missed: u64,
}

/// A letter on its way.
struct Job<'l> {
    letter: &'l Letter,
    entry: Entry,
    waiting: Vec<SinkIndex>,
    failing: Option<Failing>,
    done: Option<Done>,
}

impl Press {
    /// For a configuration. Opens nothing yet.
    ///
    /// # Errors
    /// 78: the key of the masks cannot be read.
    pub(super) fn new(config: &Config) -> Result<Self, Failure> {
        let mut config = config.clone();
        config.bridge.name.push_str(".dlq");
        config.bridge.shards = NonZeroU32::MIN;
        for sink in &mut config.sinks {
            sink.exactly_once = false;
            sink.refused_after = RefusedAfter::After(PATIENCE);
        }
        let masks = Masks::of(&config)?;
        let (reporter, reports) = mpsc::unbounded_channel();
        let telemetry = Telemetry::new(&config.bridge.name);
        Ok(Self {
            config,
            masks,
            telemetry,
            lines: HashMap::new(),
            sinks: HashMap::new(),
            local: None,
            lanes: JoinSet::new(),
            reports,
            reporter,
            next: 0,
            underway: 0,
            missed: 0,
        })
    }

    /// What `run --dry-run` would print of the letter's event; the error says why it cannot be replayed at all.
    pub(super) fn show(&mut self, letter: &Letter) -> Result<String, String> {
        let line = self.line(letter.source())?;
        let entry = line.entry(letter)?;
        let masked = self.masked(letter, entry);
        let line = self.line(letter.source())?;
        let session = letter.header(header::SESSION).unwrap_or_default();
        Ok(line.shower.show_masked(&masked, session, Timestamp::now()))
    }

    /// Publishes letters, in their order, and tells what became of each.
    ///
    /// # Errors
    /// 69: a required sink stays unreachable. Then nobody knows of these letters what was published.
    pub(super) async fn publish(&mut self, letters: &[&Letter]) -> Result<Vec<Done>, Failure> {
        let first = self.next;
        self.next += letters.len() as u64;
        let mut jobs: Vec<Job<'_>> = Vec::with_capacity(letters.len());
        for (sequence, letter) in (first..).zip(letters) {
            let job = self.begin(sequence, letter).await?;
            jobs.push(job);
        }
        self.settle(first, &mut jobs, false).await?;
        for (index, job) in jobs.iter_mut().enumerate() {
            self.bury_again(first + index as u64, job).await?;
        }
        self.settle(first, &mut jobs, true).await?;
        Ok(jobs.into_iter().map(|job| job.done.unwrap_or(Done::Published)).collect())
    }

    /// Routes a letter, and hands its records to their lanes.
    async fn begin<'l>(&mut self, sequence: u64, letter: &'l Letter) -> Result<Job<'l>, Failure> {
        let parsed = self.line(letter.source()).and_then(|line| line.entry(letter));
        let (entry, unplayable) = match parsed {
            Ok(entry) => (entry, None),
            Err(why) => (letter.entry(ApiVersion::V3), Some(why)),
        };
        let mut job = Job { letter, entry, waiting: Vec::new(), failing: None, done: None };
        if let Some(why) = unplayable {
            job.done = Some(Done::Stays("cannot be replayed", why));
            return Ok(job);
        }
        let unfit = self.unfit(letter, &job.entry);
        job.entry = self.masked(letter, job.entry);
        let plan = match (&job.entry, unfit) {
            (_, Some(detail)) => Plan::DeadLetter(Reason::Schema, detail),
            (Entry::Event(event), None) => match self.lines.get_mut(letter.source()) {
                Some(line) => line.router.plan(event),
                None => Plan::Dropped,
            },
            (Entry::Malformed(malformed), None) => {
                Plan::DeadLetter(malformed.reason().into(), malformed.detail().to_owned())
            }
        };
        match plan {
            Plan::Dropped => job.done = Some(Done::Dropped),
            Plan::DeadLetter(reason, detail) => {
                job.failing = Some(Failing { reason, detail, destination: None });
            }
            Plan::Records(records) => {
                let category: Arc<str> = job.entry.category().into();
                for (sink, record) in records {
                    let handle = self.sink(sink).await?;
                    if !handle.required && !handle.state().up {
                        self.missed += 1;
                        continue;
                    }
                    let lane = self.lane(letter.source(), sink, &handle);
                    match handle.required {
                        true => job.waiting.push(sink),
                        false => self.underway += 1,
                    }
                    let creditor = Creditor::Sink(sink);
                    let item = Item {
                        sequence,
                        category: category.clone(),
                        creditor,
                        dead_letter: None,
                        record,
                        trace: None,
                    };
                    // Without a capacity a lane is never full.
                    let _ = lane.send(item);
                }
            }
        }
        Ok(job)
    }

    /// Waits for the records of these jobs; `burying`: for their new dead letters.
    async fn settle(&mut self, first: u64, jobs: &mut [Job<'_>], burying: bool) -> Result<(), Failure> {
        let is_open = |job: &Job<'_>| match burying {
            true => job.done.is_none() && job.failing.is_some(),
            false => !job.waiting.is_empty(),
        };
        let mut look = tokio::time::interval(LOOK);
        while jobs.iter().any(is_open) {
            tokio::select! {
                Some(reports) = self.reports.recv() => {
                    for report in reports {
                        let index = report.sequence.checked_sub(first).and_then(|index| usize::try_from(index).ok());
                        match index.and_then(|index| jobs.get_mut(index)) {
                            Some(job) => self.account(report, job),
                            // Of an earlier batch, which did not wait for a best-effort sink.
                            None => self.account_best_effort(&report.fate),
                        }
                    }
                }
                Some(ended) = self.lanes.join_next() => return Err(broken(ended)),
                _ = look.tick() => self.reachable()?,
            }
        }
        Ok(())
    }

    fn account(&mut self, report: Report, job: &mut Job<'_>) {
        match (report.creditor, report.fate) {
            (Creditor::Sink(sink), fate) => {
                let before = job.waiting.len();
                job.waiting.retain(|waiting| *waiting != sink);
                let required = job.waiting.len() < before;
                match fate {
                    fate if !required => self.account_best_effort(&fate),
                    Fate::Confirmed(_) => {}
                    Fate::Rejected(rejection, destination) => {
                        let reason = Reason::Rejected(rejection.reason);
                        let detail = rejection.detail;
                        let destination = Some(destination);
                        job.failing.get_or_insert(Failing { reason, detail, destination });
                    }
                }
            }
            (Creditor::DeadLetters, fate) => {
                let Some(failing) = job.failing.take() else { return };
                job.done = Some(match fate {
                    Fate::Confirmed(_) => Done::Again(failing.reason, failing.detail),
                    // The letter that there is holds the event all the same.
                    Fate::Rejected(..) => Done::Stays(failing.reason.as_str(), failing.detail),
                });
            }
        }
    }

    fn account_best_effort(&mut self, fate: &Fate) {
        self.underway = self.underway.saturating_sub(1);
        self.missed += u64::from(matches!(fate, Fate::Rejected(..)));
    }

    /// Where a letter failed in another way than before, hands a new one to the dead letters.
    async fn bury_again(&mut self, sequence: u64, job: &mut Job<'_>) -> Result<(), Failure> {
        let Some(failing) = &job.failing else { return Ok(()) };
        let letter = job.letter;
        let as_before = failing.reason.as_str() == letter.reason()
            && failing.destination.as_deref() == letter.destination();
        let Some(lane) = (if as_before { None } else { self.dead_letters(letter.source()).await? }) else {
            job.done = Some(Done::Stays(failing.reason.as_str(), failing.detail.clone()));
            job.failing = None;
            return Ok(());
        };
        let record = self.again(letter, &job.entry, failing);
        let item = Item {
            sequence,
            category: job.entry.category().into(),
            creditor: Creditor::DeadLetters,
            dead_letter: Some(failing.reason),
            record,
            trace: None,
        };
        let _ = lane.send(item);
        Ok(())
    }

    /// The new dead letter.
    fn again(&self, letter: &Letter, entry: &Entry, failing: &Failing) -> Record {
        let circumstances = Circumstances {
            session: letter.header(header::SESSION).unwrap_or_default(),
            reason: failing.reason,
            detail: &failing.detail,
            intended: failing.destination.as_deref(),
            masks: self.masks.as_deref(),
            at: Timestamp::now(),
        };
        let route = &self.lines[letter.source()].dead_letter_route;
        let mut record = route.record(entry, &circumstances);
        // It must not be taken for an earlier letter of the same event, which may be marked: a server that recognises
        // duplicates would store nothing.
        record.message_id = format!("{}~{}", record.message_id, letter.place.id).into();
        record
    }

    /// What an event of a source that validates is refused for. A masked event is no longer what the vendor documents.
    fn unfit(&mut self, letter: &Letter, entry: &Entry) -> Option<String> {
        if letter.header(header::MASKS).is_some() {
            return None;
        }
        match (self.lines.get_mut(letter.source())?.validator.as_mut()?, entry) {
            (validator, Entry::Event(event)) => validator.look(event),
            (_, Entry::Malformed(_)) => None,
        }
    }

    /// The event under today's masks. What these have masked already would only be masked twice.
    fn masked(&self, letter: &Letter, entry: Entry) -> Entry {
        match &self.masks {
            Some(masks) if letter.header(header::MASKS) != Some(&**masks.fingerprint()) => masks.apply(entry),
            _ => entry,
        }
    }

    fn line(&mut self, source: &str) -> Result<&mut Line, String> {
        if !self.lines.contains_key(source) {
            let line = Line::new(&self.config, source, self.masks.as_ref(), &self.telemetry)
                .ok_or_else(|| format!("there is no source {source:?} in the configuration"))?;
            self.lines.insert(source.to_owned(), line);
        }
        self.lines.get_mut(source).ok_or_else(|| "it was inserted above".to_owned())
    }

    /// A sink, opened when it is first needed.
    async fn sink(&mut self, index: SinkIndex) -> Result<Arc<SinkHandle>, Failure> {
        if let Some(handle) = self.sinks.get(&index) {
            return Ok(handle.clone());
        }
        let handle = sinks::open(&self.config, index, &Owner::random()).await?;
        if !handle.required {
            // Whether it is there decides whether it gets anything.
            let mut health = handle.sink.health();
            let _ = tokio::time::timeout(PATIENCE, health.wait_for(|health| health.up)).await;
        }
        self.sinks.insert(index, handle.clone());
        Ok(handle)
    }

    fn lane(&mut self, source: &str, sink: SinkIndex, handle: &Arc<SinkHandle>) -> LaneSender {
        if let Some(lane) = self.lines.get(source).and_then(|line| line.lanes.get(&sink)) {
            return lane.clone();
        }
        let sender = self.spawn(source, handle);
        if let Some(line) = self.lines.get_mut(source) {
            line.lanes.insert(sink, sender.clone());
        }
        sender
    }

    /// The way to the dead letters.
    async fn dead_letters(&mut self, source: &str) -> Result<Option<LaneSender>, Failure> {
        match self.lines.get(source) {
            None => return Ok(None),
            Some(line) if line.dead_letters.is_some() => return Ok(line.dead_letters.clone()),
            Some(_) => {}
        }
        let handle = match &self.config.dead_letter {
            DeadLetter::Sink { sink, .. } => {
                let sink = *sink;
                self.sink(sink).await?
            }
            DeadLetter::LocalFile => match &self.local {
                Some(local) => local.clone(),
                None => {
                    let directory = self.config.state_dir.join("dead-letters");
                    let opened = sinks::local_dead_letters(&directory, RefusedAfter::After(PATIENCE))?;
                    self.local.insert(opened).clone()
                }
            },
        };
        let sender = self.spawn(source, &handle);
        if let Some(line) = self.lines.get_mut(source) {
            line.dead_letters = Some(sender.clone());
        }
        Ok(Some(sender))
    }

    fn spawn(&mut self, source: &str, handle: &Arc<SinkHandle>) -> LaneSender {
        let (sender, lane) =
            Lane::new(source.into(), handle.clone(), None, self.reporter.clone(), self.telemetry.clone());
        let name = handle.name.clone();
        self.lanes.spawn(async move { (name, lane.run().await) });
        sender
    }

    /// # Errors
    /// A required sink has been unreachable for too long.
    fn reachable(&self) -> Result<(), Failure> {
        for handle in self.sinks.values().chain(&self.local).filter(|handle| handle.required) {
            let health = handle.sink.health().borrow().clone();
            if !health.up && health.since.elapsed() > OUTAGE {
                return Err(Failure::new(
                    Exit::Unavailable,
                    format!("sink {} is not reachable: {}", handle.name, health.reason),
                    "run the replay again when it is: what was replayed until now is marked",
                ));
            }
        }
        Ok(())
    }

    /// Flushes and closes the sinks. Best-effort ones are waited for a moment.
    pub(super) async fn close(&mut self) {
        let deadline = tokio::time::Instant::now() + CLOSE;
        while self.underway > 0
            && let Ok(Some(reports)) = tokio::time::timeout_at(deadline, self.reports.recv()).await
        {
            reports.iter().for_each(|report| self.account_best_effort(&report.fate));
        }
        self.missed += std::mem::take(&mut self.underway);
        for handle in self.sinks.values().chain(&self.local) {
            // What counts is confirmed already.
            let _ = tokio::time::timeout(CLOSE, handle.sink.close()).await;
        }
        self.lanes.shutdown().await;
    }
}

fn broken(ended: Result<(Arc<str>, Result<(), Fatal>), tokio::task::JoinError>) -> Failure {
    match ended {
        Ok((sink, Err(fatal))) => Failure::new(
            Exit::Unavailable,
            format!("sink {sink} can publish nothing more: {fatal}"),
            "run the replay again: what was replayed until now is marked",
        ),
        Ok((sink, Ok(()))) => Failure::new(
            Exit::Software,
            format!("the way to sink {sink} ended too early"),
            "please report this",
        ),
        Err(error) => {
            Failure::new(Exit::Software, format!("the replay broke: {error}"), "please report this")
        }
    }
}
