//! What the publishes of a shard and its coordinator share.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::ClientConfig;
use rdkafka::producer::Producer as _;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use viaduct_sink::{Claim, Fatal, Identity, Member};

use super::checkpoints::Checkpoints;
use super::ledger::Ledger;
use super::probe::Probe;
use super::round::{Round, Seat};
use crate::isolation::Isolation;
use crate::producer::Generation;
use crate::settings;
use crate::tokens::Tokens;
use crate::topics::Topics;
use crate::vitals::Vitals;

/// Whether publishes may take part in a transaction.
#[derive(Clone)]
pub(super) enum Gate {
    /// The sources are not claimed yet.
    Unclaimed,
    /// Between two transactions, or while a producer is replaced.
    Shut,
    /// In this one.
    Open(Arc<Round>),
    /// Never again.
    Ended(Fatal),
}

/// The transactional producers of a shard, which take turns.
///
/// A commit is answered before the coordinator has told the partitions of it (KIP-98, "control messages"). Whoever begins
/// another transaction under the same id in that time is sent back, and librdkafka waits for 20 ms then. With two ids the
/// next transaction begins at once. There is never more than one under way. The first of them is fenced first, and shows
/// with a claim that both are held.
pub(super) type Turns = [Arc<Generation>; 2];

/// A slice of the sources, with producers of its own.
pub(super) struct Shard {
    pub(super) number: u32,
    /// Those of [`Turns`].
    pub(super) transactional_ids: [String; 2],
    /// Of the producers; without a transactional id.
    pub(super) config: ClientConfig,
    pub(super) tokens: Option<Arc<Tokens>>,
    pub(super) topics: Arc<Topics>,
    pub(super) vitals: Arc<Vitals>,
    pub(super) checkpoints: Arc<Checkpoints>,
    pub(super) closing: CancellationToken,
    pub(super) isolation: Isolation,
    pub(super) probe: Probe,
    /// Held while a checkpoint is made and handed over: the later one has to name what the earlier one does.
    pub(super) sealing: tokio::sync::Mutex<()>,
    ledger: Mutex<Ledger>,
    gate: watch::Sender<Gate>,
    producers: Mutex<Option<Turns>>,
    wake: Notify,
    batch_bytes: AtomicUsize,
    /// The producers are to be replaced, because batches have to be smaller.
    renew: AtomicBool,
}

impl Shard {
    #[expect(clippy::too_many_arguments, reason = "called once; each is of a type of its own")]
    pub(super) fn new(
        number: u32,
        identity: &Identity,
        members: impl IntoIterator<Item = Member>,
        mut config: ClientConfig,
        tokens: Option<Arc<Tokens>>,
        topics: Arc<Topics>,
        checkpoints: Arc<Checkpoints>,
        closing: CancellationToken,
    ) -> Self {
        // The time-out of the transaction takes its place: what is late is aborted and sent again.
        config.remove("message.timeout.ms");
        let vitals = Arc::clone(&checkpoints.vitals);
        let transactional_id = format!("{}.{}.{number}", identity.bridge, identity.sink);
        let probe = Probe::new(
            format!("{transactional_id}.probe"),
            config.clone(),
            tokens.clone(),
            Arc::clone(&vitals),
        );
        Self {
            number,
            transactional_ids: [transactional_id.clone(), format!("{transactional_id}.second")],
            batch_bytes: AtomicUsize::new(settings::batch_bytes(&config)),
            config,
            tokens,
            topics,
            vitals,
            checkpoints,
            closing,
            isolation: Isolation::default(),
            probe,
            sealing: tokio::sync::Mutex::default(),
            ledger: Mutex::new(Ledger::new(identity, members)),
            gate: watch::Sender::new(Gate::Unclaimed),
            producers: Mutex::default(),
            wake: Notify::new(),
            renew: AtomicBool::new(false),
        }
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the source is claimed.
    pub(super) async fn claimed(&self, source: &str) -> Result<Claim, Fatal> {
        if !self.ledger().knows(source) {
            return Err(Fatal::Broken(format!(
                "source {source} is not one of those that this sink was made for"
            )));
        }
        let mut gate = self.gate.subscribe();
        let gate = gate.wait_for(|gate| !matches!(gate, Gate::Unclaimed)).await;
        match gate.map(|gate| gate.clone()) {
            Ok(Gate::Ended(fatal)) => Err(fatal),
            _ => Ok(self.ledger().claimed(source)),
        }
    }

    /// Takes part in the next transaction.
    pub(super) async fn enter(&self) -> Result<Seat, Fatal> {
        let mut gate = self.gate.subscribe();
        loop {
            let now = gate.borrow_and_update().clone();
            match now {
                Gate::Ended(fatal) => return Err(fatal),
                Gate::Open(round) => {
                    if let Some(seat) = round.join() {
                        return Ok(seat);
                    }
                }
                Gate::Unclaimed | Gate::Shut => {}
            }
            if gate.changed().await.is_err() {
                return Err(Fatal::Broken("the sink is closed".to_owned()));
            }
        }
    }

    pub(super) fn set_gate(&self, gate: Gate) {
        self.gate.send_if_modified(|now| {
            let ended = matches!(now, Gate::Ended(_));
            if !ended {
                *now = gate;
            }
            !ended
        });
    }

    /// Nobody publishes any more.
    pub(super) async fn end(&self, fatal: Fatal) {
        self.set_gate(Gate::Ended(fatal));
        self.set_producers(None);
        self.probe.retire().await;
    }

    pub(super) fn set_producers(&self, producers: Option<Turns>) {
        *self.producers.lock().unwrap_or_else(PoisonError::into_inner) = producers;
    }

    /// Records handed over whose fate is not known yet.
    pub(super) fn waiting(&self) -> usize {
        let producers = self.producers.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = producers.iter().flatten().map(|generation| generation.producer().in_flight_count());
        counts.filter_map(|count| usize::try_from(count).ok()).sum()
    }

    /// There is something for the coordinator to do.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits for [`Shard::wake`].
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// How many bytes of records go into one batch at most.
    pub(super) fn batch_bytes(&self) -> usize {
        self.batch_bytes.load(Ordering::Relaxed)
    }

    /// A batch of at most so many bytes was too large, though none of its records is: the next producer makes smaller ones.
    pub(super) fn shrink_batches(&self, refused: usize) {
        let smaller = (refused.min(self.batch_bytes()) / 2).max(1);
        tracing::info!(bytes = smaller, "a topic takes less than a batch of records: batches get smaller");
        self.batch_bytes.store(smaller, Ordering::Relaxed);
        self.renew.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether the producers are to be replaced. Asked once.
    pub(super) fn renew(&self) -> bool {
        self.renew.swap(false, Ordering::AcqRel)
    }
}
