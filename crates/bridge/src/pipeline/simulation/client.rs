//! A sink of one instance: the rules of exactly-once sinks around the real [`Progress`], without a network.
//!
//! ```text
//!  fence (transactions only) ─▶ read ─▶ claim ─▶ owner ─▶ commit ─▶ answered: stored, refused in part, or stale
//!    ▲                                             ▲         │ no answer, or stale
//!    └─────────────────────────────────────────────┴─ read, recover ◀──┘
//! ```

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use viaduct_faults::{Mistake, makes};
use viaduct_sink::outcome::Position;
use viaduct_sink::{
    Checkpoint, Fatal, Outcome, Owner, Progress, Proposal, Receipt, Record, Refusal, RejectReason, Rejection,
    Retry,
};

use super::broker::{Answer, Broker, Found, Request, Rules};

/// How many events stand in a checkpoint itself and in each of its pages: few, so that there are pages.
const PAGES: (usize, usize) = (4, 2);
/// How many records go into an atomic batch.
const BATCH: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Fence,
    Read,
    Claim,
    Owner,
    /// Somebody fenced this producer: who?
    Look,
    Lost,
}

/// Publishes that are under way together.
#[derive(Debug)]
struct Round {
    /// Lane and number of records of each publish.
    publishes: Vec<(usize, usize)>,
    records: Vec<Record>,
    fates: Vec<Option<Outcome>>,
    /// Destinations that did not exist when they were looked at.
    refused: HashSet<Arc<str>>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Client {
    rules: Rules,
    owner: Owner,
    remember: usize,
    standing: Standing,
    claimed: bool,
    progress: Option<Progress>,
    told: Option<Option<Box<RawValue>>>,
    /// What was read before fencing, by mistake.
    early: Option<(u64, Option<Found>)>,
    /// The epoch, or the checkpoint's sequence.
    token: u64,
    queue: Vec<(usize, Vec<Record>)>,
    round: Option<Round>,
    proposal: Option<Proposal>,
    sent: Vec<usize>,
    /// A request is under way.
    pub(super) busy: bool,
    done: Vec<(usize, Vec<Outcome>)>,
}

impl Client {
    pub(super) fn new(rules: Rules, remember: usize) -> Self {
        let standing = match rules {
            Rules::Transactions => Standing::Fence,
            Rules::Batches => Standing::Read,
            Rules::Plain => Standing::Owner,
        };
        Self {
            rules,
            owner: Owner::random(),
            remember,
            standing,
            claimed: rules == Rules::Plain,
            progress: None,
            told: None,
            early: None,
            token: 0,
            queue: Vec::new(),
            round: None,
            proposal: None,
            sent: Vec::new(),
            busy: false,
            done: Vec::new(),
        }
    }

    /// Once it is claimed: the session of the owner before.
    pub(super) fn claimed(&self) -> Option<Option<&RawValue>> {
        self.claimed.then(|| self.progress.as_ref().and_then(Progress::session))
    }

    pub(super) fn set_session(&mut self, session: Option<Box<RawValue>>) {
        match &mut self.progress {
            Some(progress) => progress.set_session(session),
            None => self.told = Some(session),
        }
    }

    pub(super) fn forget(&mut self, event: &str) {
        if let Some(progress) = &mut self.progress {
            progress.acknowledged(event);
        }
    }

    pub(super) fn publish(&mut self, lane: usize, records: Vec<Record>) {
        self.queue.push((lane, records));
    }

    /// Publishes that have come to their end.
    pub(super) fn take_done(&mut self) -> Vec<(usize, Vec<Outcome>)> {
        std::mem::take(&mut self.done)
    }

    /// Whether some have.
    pub(super) fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    /// What it sends next, if anything.
    pub(super) fn next(&mut self, broker: &Broker) -> Option<Request> {
        if self.busy {
            return None;
        }
        let request = match self.standing {
            Standing::Fence if makes(Mistake::ReadBeforeFencing) && self.early.is_none() && !self.claimed => {
                Request::Read
            }
            Standing::Fence => Request::Fence,
            Standing::Read | Standing::Look => Request::Read,
            Standing::Claim => self.commit(Vec::new(), true)?,
            Standing::Owner => self.build(broker)?,
            Standing::Lost => {
                self.fail();
                return None;
            }
        };
        self.busy = true;
        Some(request)
    }

    fn fail(&mut self) {
        let fenced = || Outcome::Fatal(Fatal::Fenced("another instance has taken over".to_owned()));
        if let Some(round) = &mut self.round {
            round.fates.fill_with(|| Some(fenced()));
        }
        self.finish();
        let queue = std::mem::take(&mut self.queue);
        self.done.extend(queue.into_iter().map(|(lane, records)| (lane, vec![fenced(); records.len()])));
    }

    fn commit(&mut self, records: Vec<Record>, claim: bool) -> Option<Request> {
        let proposal = self.progress.as_ref()?.propose(&records);
        let (checkpoint, pages) = (proposal.text().clone(), proposal.pages().to_vec());
        self.proposal = Some(proposal);
        let blind = claim && self.rules == Rules::Batches && makes(Mistake::ReadBeforeFencing);
        Some(Request::Commit { token: (!blind).then_some(self.token), records, pages, checkpoint, claim })
    }

    /// The next part of the round under way, or of a new one.
    fn build(&mut self, broker: &Broker) -> Option<Request> {
        loop {
            if self.round.is_none() {
                if self.queue.is_empty() {
                    let stale = self.progress.as_ref().is_some_and(Progress::is_stale);
                    return if stale { self.commit(Vec::new(), false) } else { None };
                }
                let mut round = Round {
                    publishes: Vec::new(),
                    records: Vec::new(),
                    fates: Vec::new(),
                    refused: HashSet::new(),
                };
                for (lane, records) in self.queue.drain(..) {
                    round.publishes.push((lane, records.len()));
                    round.fates.extend(records.iter().map(|_| None));
                    round.records.extend(records);
                }
                self.round = Some(round);
            }
            let (round, progress) = (self.round.as_mut()?, &mut self.progress);
            self.sent.clear();
            let mut names = HashSet::new();
            for (index, record) in round.records.iter().enumerate() {
                if round.fates[index].is_some() {
                    continue;
                }
                if progress.as_mut().is_some_and(|progress| progress.recognise(record)) {
                    round.fates[index] = Some(confirmed(Position::Held));
                    continue;
                }
                if broker.is_missing(&record.destination) {
                    round.refused.insert(record.destination.clone());
                }
                if round.refused.contains(&record.destination) {
                    round.fates[index] = Some(retry(Some(Refusal::Missing)));
                    continue;
                }
                let full = self.rules == Rules::Batches && self.sent.len() == BATCH;
                // The same record twice: once the first one is stored, the second one is known.
                if full || (self.rules != Rules::Plain && !names.insert(&record.message_id)) {
                    break;
                }
                self.sent.push(index);
            }
            if self.sent.is_empty() {
                self.finish();
                continue;
            }
            let records = self.sent.iter().map(|index| round.records[*index].clone()).collect();
            return if self.rules == Rules::Plain {
                Some(Request::Append(records))
            } else {
                self.commit(records, false)
            };
        }
    }

    /// Every record of the round has its fate.
    fn finish(&mut self) {
        let Some(round) = self.round.take() else { return };
        let mut fates = round.fates.into_iter().flatten();
        for (lane, count) in round.publishes {
            self.done.push((lane, fates.by_ref().take(count).collect()));
        }
    }

    fn settle(&mut self, place: usize, fate: Outcome) {
        if let (Some(round), Some(index)) = (&mut self.round, self.sent.get(place)) {
            round.fates[*index] = Some(fate);
        }
    }

    /// The request under way was answered. Returns what that means, for the story.
    pub(super) fn answered(&mut self, answer: Answer) -> &'static str {
        self.busy = false;
        match answer {
            Answer::Fenced(epoch) => {
                self.token = epoch;
                if self.claimed && makes(Mistake::AssumeNotCommitted) {
                    self.standing = Standing::Owner;
                    return "goes on";
                }
                self.standing = Standing::Read;
                match self.early.take() {
                    Some((sequence, read)) => self.read(sequence, read),
                    None => "reads",
                }
            }
            Answer::Read(sequence, read) if self.standing == Standing::Fence => {
                self.early = Some((sequence, read));
                "has read too early"
            }
            Answer::Read(sequence, read) => self.read(sequence, read),
            Answer::Committed(sequence) => {
                if self.rules == Rules::Batches {
                    self.token = sequence;
                }
                if let (Some(progress), Some(proposal)) = (&mut self.progress, self.proposal.take()) {
                    progress.commit(proposal);
                }
                if self.standing == Standing::Claim {
                    self.standing = Standing::Owner;
                    self.claimed = true;
                    if let (Some(progress), Some(told)) = (&mut self.progress, self.told.take()) {
                        progress.set_session(told);
                    }
                    return "owns the source";
                }
                for place in 0..self.sent.len() {
                    self.settle(place, confirmed(Position::Stream { sequence, duplicate: false }));
                }
                self.sent.clear();
                "knows"
            }
            Answer::Stale => {
                self.proposal = None;
                self.standing = match (self.claimed, self.rules) {
                    (true, Rules::Transactions) => Standing::Look,
                    (false, Rules::Transactions) => Standing::Fence,
                    _ => Standing::Read,
                };
                "was overtaken"
            }
            Answer::Culprit(place) => {
                self.proposal = None;
                self.settle(place, rejected());
                self.sent.clear();
                "leaves one out"
            }
            Answer::Appended(taken) => {
                for place in 0..self.sent.len() {
                    let fate = match taken.get(place) {
                        Some(true) => confirmed(Position::File { end: 1 }),
                        Some(false) => rejected(),
                        None => retry(None),
                    };
                    self.settle(place, fate);
                }
                self.sent.clear();
                "knows"
            }
        }
    }

    fn read(&mut self, sequence: u64, found: Option<Found>) -> &'static str {
        if self.rules == Rules::Batches {
            self.token = sequence;
        }
        let read = found.map(|mut found| {
            Checkpoint::decode(&found.text, |page| found.pages.remove(&page))
                .expect("what was written can be read")
        });
        if !self.claimed {
            self.progress = Some(Progress::claim_in_pages(self.owner.clone(), self.remember, PAGES, read));
            self.standing = Standing::Claim;
            return "claims";
        }
        let looking = self.standing == Standing::Look;
        let foreign = read.as_ref().is_some_and(|read| read.owner != self.owner);
        if looking && !foreign {
            self.standing = Standing::Fence;
            return "fences in turn";
        }
        let recovered = match &mut self.progress {
            Some(progress) if !makes(Mistake::AssumeNotCommitted) => progress.recover(read),
            _ => Ok(()),
        };
        if recovered.is_err() && !makes(Mistake::IgnoreOwner) {
            self.standing = Standing::Lost;
            return "is lost";
        }
        self.standing = if looking { Standing::Fence } else { Standing::Owner };
        "goes on"
    }

    /// Nobody knows what became of the request under way.
    pub(super) fn unanswered(&mut self) {
        self.busy = false;
        if self.rules == Rules::Plain {
            for place in 0..self.sent.len() {
                self.settle(place, retry(None));
            }
            self.sent.clear();
            return;
        }
        self.proposal = None;
        // A question is asked again; after anything else, everything is looked at anew.
        if matches!(self.standing, Standing::Claim | Standing::Owner) {
            self.standing = if self.rules == Rules::Transactions { Standing::Fence } else { Standing::Read };
        }
    }
}

fn confirmed(position: Position) -> Outcome {
    Outcome::Confirmed(Receipt::attest(position))
}

fn rejected() -> Outcome {
    Outcome::Rejected(Rejection { reason: RejectReason::TooLarge, detail: "it does not fit".to_owned() })
}

fn retry(refusal: Option<Refusal>) -> Outcome {
    Outcome::Retry(Retry { reason: "test", detail: "not now".to_owned(), after: Duration::ZERO, refusal })
}
