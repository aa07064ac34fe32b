//! The exactly-once checks must be able to fail: sinks with one deliberate fault each, and what catches it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use serde_json::value::RawValue;

use super::exactly_once::{Instances, exactly_once};
use crate::outcome::Position;
use crate::{
    Batch, Checkpoint, Checkpoints, Claim, Fatal, HealthReporter, HealthWatch, Outcome, Owner, Progress,
    Proposal, Receipt, Sink,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Publishes what the checkpoint names.
    PublishesAgain,
    /// Says "held" of everything.
    HoldsEverything,
    /// Starts with an empty memory.
    ReadsNothing,
    /// Never lets an acknowledged event go.
    ForgetsNothing,
    /// Lets go of everything at the first acknowledgement.
    ForgetsAll,
    /// Does not look whose checkpoint it is.
    IgnoresOwner,
    /// Looks, and takes it back.
    TakesBack,
    /// Stores the checkpoint only behind every second batch.
    StoresSeldom,
    /// Writes no session.
    LosesSession,
    /// Stores the checkpoint without its pages.
    LosesPages,
    /// Never removes a session.
    KeepsSession,
    /// Writes the batch back to front.
    Reorders,
    /// Writes nothing when it is closed.
    ClosesAtOnce,
}

/// A destination in memory.
#[derive(Debug, Default)]
struct Destination {
    records: HashMap<Arc<str>, Vec<Vec<u8>>>,
    checkpoints: HashMap<String, Bytes>,
    pages: HashMap<(String, u32), Bytes>,
}

impl Destination {
    fn checkpoint(&self, source: &str) -> Option<Checkpoint> {
        let page = |page| self.pages.get(&(source.to_owned(), page)).cloned();
        let text = self.checkpoints.get(source)?;
        Some(Checkpoint::decode(text, page).unwrap_or_else(|error| panic!("exactly once: {error}")))
    }

    fn keep(&mut self, source: &str, proposal: &Proposal, fault: Fault) {
        for (number, page) in proposal.pages().iter().filter(|_| fault != Fault::LosesPages) {
            let key = (source.to_owned(), *number);
            match page {
                Some(page) => self.pages.insert(key, page.clone()),
                None => self.pages.remove(&key),
            };
        }
        self.checkpoints.insert(source.to_owned(), proposal.text().clone());
    }
}

struct Memory {
    fault: Fault,
    owner: Owner,
    destination: Arc<Mutex<Destination>>,
    progress: Mutex<HashMap<String, Progress>>,
    batches: Mutex<usize>,
    health: HealthReporter,
}

impl Memory {
    /// Stores records and checkpoint in one step, unless another instance owns the source.
    fn store(&self, source: &str, batch: Option<Batch<'_>>) -> Result<Vec<Outcome>, Fatal> {
        let mut destination = self.destination.lock().unwrap();
        let mut known = self.progress.lock().unwrap();
        let progress = known.entry(source.to_owned()).or_insert_with(|| {
            let read = destination.checkpoint(source).filter(|_| self.fault != Fault::ReadsNothing);
            let progress = Progress::claim(self.owner.clone(), 20_000, read);
            destination.keep(source, &progress.propose([]), self.fault);
            progress
        });
        if self.fault != Fault::IgnoresOwner
            && let Err(usurped) = progress.recover(destination.checkpoint(source))
            && self.fault != Fault::TakesBack
        {
            return Err(Fatal::Fenced(usurped.to_string()));
        }
        let mut outcomes = Vec::new();
        let mut fresh = Vec::new();
        for record in batch.map_or(&[][..], |batch| batch.records) {
            let held = match self.fault {
                Fault::PublishesAgain => false,
                Fault::HoldsEverything => true,
                _ => progress.recognise(record),
            };
            if !held {
                fresh.push(record);
            }
            let position =
                if held { Position::Held } else { Position::Stream { sequence: 1, duplicate: false } };
            outcomes.push(Outcome::Confirmed(Receipt::attest(position)));
        }
        let proposal = progress.propose(fresh.iter().copied());
        if self.fault == Fault::Reorders {
            fresh.reverse();
        }
        for record in fresh {
            destination.records.entry(record.destination.clone()).or_default().push(record.value.to_vec());
        }
        let mut batches = self.batches.lock().unwrap();
        *batches += 1;
        if self.fault != Fault::StoresSeldom || batches.is_multiple_of(2) {
            destination.keep(source, &proposal, self.fault);
        }
        progress.commit(proposal);
        Ok(outcomes)
    }

    fn with(&self, source: &str, change: impl FnOnce(&mut Progress)) {
        if let Some(progress) = self.progress.lock().unwrap().get_mut(source) {
            change(progress);
        }
    }
}

#[async_trait]
impl Sink for Memory {
    async fn publish(&self, batch: Batch<'_>) -> Vec<Outcome> {
        tokio::task::yield_now().await;
        match self.store(batch.source, Some(batch)) {
            Ok(outcomes) => outcomes,
            Err(fatal) => vec![Outcome::Fatal(fatal); batch.records.len()],
        }
    }

    fn health(&self) -> HealthWatch {
        self.health.watch()
    }

    fn checkpoints(&self) -> Option<&dyn Checkpoints> {
        Some(self)
    }

    async fn close(&self) {
        if self.fault == Fault::ClosesAtOnce {
            return;
        }
        let sources: Vec<String> = self.progress.lock().unwrap().keys().cloned().collect();
        for source in sources {
            let _ = self.store(&source, None);
        }
    }
}

#[async_trait]
impl Checkpoints for Memory {
    async fn claim(&self, source: &str) -> Result<Claim, Fatal> {
        self.store(source, None)?;
        let known = self.progress.lock().unwrap();
        let progress = &known[source];
        Ok(Claim { session: progress.session().map(ToOwned::to_owned), remembered: progress.len() })
    }

    fn acknowledged(&self, source: &str, event: &str) {
        self.with(source, |progress| match self.fault {
            Fault::ForgetsNothing => {}
            Fault::ForgetsAll => *progress = Progress::claim(self.owner.clone(), 20_000, None),
            _ => progress.acknowledged(event),
        });
    }

    fn session(&self, source: &str, session: Option<Box<RawValue>>) {
        if self.fault == Fault::LosesSession || (self.fault == Fault::KeepsSession && session.is_none()) {
            return;
        }
        self.with(source, |progress| progress.set_session(session));
    }
}

struct MemoryInstances {
    fault: Fault,
    destination: Arc<Mutex<Destination>>,
}

#[async_trait]
impl Instances for MemoryInstances {
    async fn start(&self) -> Arc<dyn Sink> {
        Arc::new(Memory {
            fault: self.fault,
            owner: Owner::random(),
            destination: self.destination.clone(),
            progress: Mutex::default(),
            batches: Mutex::default(),
            health: HealthReporter::new("starting"),
        })
    }

    async fn destination(&self, n: usize) -> Arc<str> {
        format!("d{n}").into()
    }

    async fn read(&self, destination: &str) -> Vec<Vec<u8>> {
        self.destination.lock().unwrap().records.get(destination).cloned().unwrap_or_default()
    }
}

#[tokio::test]
async fn every_fault_is_caught() {
    let run = |fault| {
        let instances = MemoryInstances { fault, destination: Arc::default() };
        std::panic::AssertUnwindSafe(async move { exactly_once(&instances).await }).catch_unwind()
    };
    run(Fault::None).await.expect("a right sink passes");
    for fault in [
        Fault::PublishesAgain,
        Fault::HoldsEverything,
        Fault::ReadsNothing,
        Fault::ForgetsNothing,
        Fault::ForgetsAll,
        Fault::IgnoresOwner,
        Fault::TakesBack,
        Fault::StoresSeldom,
        Fault::LosesSession,
        Fault::KeepsSession,
        Fault::LosesPages,
        Fault::Reorders,
        Fault::ClosesAtOnce,
    ] {
        let caught = run(fault).await.expect_err(&format!("{fault:?} is not caught"));
        let words = caught.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| caught.downcast_ref::<&str>().copied()).unwrap_or_default();
        assert!(words.contains("exactly once"), "{fault:?} is caught by something else: {words:?}");
    }
}
