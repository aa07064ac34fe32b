//! Records to NATS JetStream, each confirmed only by a PubAck with a stream sequence.
//!
//! **Guarantee.** [`viaduct_sink::Outcome::Confirmed`] means that the stream answered with `seq > 0`: it stored the
//! record, or knew its `Nats-Msg-Id` already. Everything else (no answer, an error, an answer without a sequence) is
//! not a confirmation.
//!
//! **Recovery.** A broken connection and a missing answer look the same: the record may be stored or not. Then the
//! client is dropped with all that it still holds, a new one connects (for ever, with backoff), and the batch goes on
//! from its first unconfirmed record, in order. `Nats-Msg-Id` lets the server drop those it has, within the stream's
//! duplicate window; after a longer outage they stand twice. An outage is never an outcome: [`NatsSink::publish`]
//! waits, and [`NatsSink::health`] says what for.
//!
//! **Order** of records of one key (without a key: of one subject):
//!
//! - Over reconnects it is kept because the client never sends anything a second time by itself: one client per
//!   connection (`epoch`).
//! - On a single server a connection's records are stored in the order in which they were sent, and only a lost
//!   connection, which cuts off a suffix, can leave one out. So up to [`NatsSettings::window`] records are in flight.
//! - In a cluster, with replicas, or where a stream at its limit refuses new messages, record *k* may be refused (503
//!   in a leader election, "maximum messages exceeded") and *k + 1* be stored. So two records of the same key are
//!   never in flight together there (`schedule`). The same care holds on any server from the first refusal until a
//!   whole batch went through. What remains: an account's storage limit that is lifted within the milliseconds
//!   between two records of a window.
//!
//! **A "no" that somebody can mend** (no stream for the subject, not permitted, full) is a retry with its refusal;
//! what can never be stored (too large, not a subject) is rejected and holds nothing back.
//!
//! All of this is delivery at least once. With [`NatsSettings::exactly_once`] records go in atomic batches together with
//! a checkpoint that names them, and the checkpoint decides after every failure: `exactly_once`.
//!
//! - [`settings`]: what a caller gives; all mistakes that need no server to be seen
//! - `supervisor`: connects, creates or verifies the stream, connects again
//! - `epoch`: one connection, its answers and its end
//! - `publish`: one batch over as many epochs as it takes
//! - `exactly_once`: sources that own a checkpoint, and batches that are stored whole or not at all
//! - `schedule`: which record may be sent next
//! - `answer`: what the server's answers mean
//! - `message`, `subject`: headers and subjects
//! - `archive`: records read back, and marks beside them
//! - [`stream`]: the stream, created, completed, verified, described
//! - `durability`: where it is less durable than the guarantee assumes
//! - [`inspect`]: what a sink would find at its servers

mod answer;
mod archive;
mod durability;
mod epoch;
mod exactly_once;
pub mod inspect;
mod message;
mod publish;
mod schedule;
pub mod settings;
pub mod stream;
mod subject;
mod supervisor;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::DropGuard;
use viaduct_sink::{Batch, Checkpoints, HealthWatch, Outcome, Sink, Weakness};

pub use archive::NatsArchive;
pub use inspect::{AccountFacts, Connected, Inspector, MayPublish, NoServer, Permissions, ServerFacts};
pub use settings::{NatsAuth, NatsSettings, NatsSinkError, NatsTls, Secret, Storage};
pub use stream::{InspectError, StreamReport};

use exactly_once::ExactlyOnce;
use supervisor::Shared;

/// How long closing waits for the connection to end in good order.
const FAREWELL: Duration = Duration::from_secs(2);

/// The sink. Dropping it ends its connection.
#[derive(Debug)]
pub struct NatsSink {
    shared: Arc<Shared>,
    exactly_once: Option<ExactlyOnce>,
    supervisor: Mutex<Option<JoinHandle<()>>>,
    _closes: DropGuard,
}

impl NatsSink {
    /// Checks the settings and starts connecting. Does not wait for a server and does not fail because there is none:
    /// [`Sink::health`] tells.
    pub async fn connect(settings: NatsSettings) -> Result<Self, NatsSinkError> {
        let shared = Arc::new(Shared::new(settings.check()?));
        let closes = shared.closing.clone().drop_guard();
        let supervisor = tokio::spawn(supervisor::run(shared.clone()));
        let identity = shared.checked.settings.exactly_once.as_ref();
        let exactly_once = identity.map(|identity| ExactlyOnce::start(&shared, identity));
        Ok(Self { shared, exactly_once, supervisor: Mutex::new(Some(supervisor)), _closes: closes })
    }

    /// Describes the stream, waiting up to `wait` for a connection. Changes nothing.
    pub async fn inspect(&self, wait: Duration) -> Result<StreamReport, InspectError> {
        let mut current = self.shared.current.subscribe();
        let connected = tokio::time::timeout(wait, current.wait_for(Option::is_some)).await;
        let epoch = connected.ok().and_then(Result::ok).and_then(|epoch| epoch.clone());
        match epoch {
            Some(epoch) => stream::inspect(epoch.client(), &self.shared.checked.settings.stream).await,
            None => Err(InspectError::Unreachable(self.shared.health.watch().borrow().reason.clone())),
        }
    }
}

#[async_trait]
impl Sink for NatsSink {
    async fn publish(&self, batch: Batch<'_>) -> Vec<Outcome> {
        match &self.exactly_once {
            Some(exactly_once) => exactly_once.publish(batch).await,
            None => publish::publish(&self.shared, batch.records).await,
        }
    }

    fn health(&self) -> HealthWatch {
        self.shared.health.watch()
    }

    fn checkpoints(&self) -> Option<&dyn Checkpoints> {
        self.exactly_once.as_ref().map(|exactly_once| exactly_once as &dyn Checkpoints)
    }

    fn weaknesses(&self) -> Vec<Weakness> {
        self.shared.weaknesses()
    }

    /// Every destination of this sink is in its one stream.
    async fn assess(&self, _destinations: &[String]) -> Vec<Weakness> {
        self.shared.assess().await
    }

    async fn close(&self) {
        if let Some(exactly_once) = &self.exactly_once {
            exactly_once.close(FAREWELL).await;
        }
        let epoch = self.shared.current.send_replace(None);
        self.shared.closing.cancel();
        if let Some(supervisor) = self.supervisor.lock().await.take() {
            // It ends at once; only a panic in it could be told here, and the process hears of that anyway.
            let _ = supervisor.await;
        }
        if let Some(exactly_once) = &self.exactly_once {
            exactly_once.join().await;
        }
        if let Some(epoch) = epoch {
            let _ = tokio::time::timeout(FAREWELL, epoch.client().drain()).await;
        }
        self.shared.health.down("closed");
    }
}
