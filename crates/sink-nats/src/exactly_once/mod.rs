//! Exactly-once delivery: the records of a source and its checkpoint in one atomic batch.
//!
//! **Guarantee.** A record stands in the stream exactly once per `message_id` that its source's checkpoint remembers,
//! whatever dies, freezes, or is answered late, and however many instances run. Three facts carry it:
//!
//! 1. The server stores a batch whole or not at all, and only if the checkpoint that its last message replaces is the
//!    one that the batch was made for ([`batch`]). So a record stands in the stream if and only if a stored checkpoint
//!    has named it, and of two batches that were made for the same checkpoint at most one is stored.
//! 2. After every end but a commit the checkpoint is read again before anything else is published ([`standing`]). What
//!    it names is confirmed, the rest is offered again with the sequence that was read.
//! 3. Whoever claims a source replaces its checkpoint by one with another owner. From then on no batch of the instance
//!    before is stored, and with its next reading that instance knows and stops for good.
//!
//! **One task per source** owns what is known of it ([`source`]) and takes its orders from a queue: publishing,
//! claims, acknowledgements, sessions. So two publishes of a source are never under way together, what waits meanwhile
//! goes into one batch, and an abandoned publish is brought to its end all the same.
//!
//! ```text
//!  publish(events) ────────┐                        ┌─▶ recognise, hold back, reject ─▶ batch ─▶ commit ─┐
//!  publish(dead letters) ──┼─▶ queue ─▶ task ─▶ round ◀──────────── anything else: read, recover ◀────────┤
//!  acknowledged, session ──┘                        └─────────────────── next batch ◀────────────────────┘
//! ```
//!
//! **Assumed of the server.** An acknowledged batch survives what the stream's replicas and storage survive; one server
//! syncs its files to disk every two minutes by default (`sync_interval`), so that a power failure, unlike a killed
//! process, can take acknowledged batches back together with their checkpoint. A disk that fails in the middle of a
//! commit may leave a part of a batch in the stream of a single server until that server is restarted.

mod batch;
mod bisect;
pub(crate) mod checkpoint;
mod lanes;
mod round;
mod source;
mod standing;
mod verdict;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::value::RawValue;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;
use viaduct_sink::{Batch, Checkpoints, Claim, Fatal, Identity, Outcome};

use self::source::{Order, Request, Source};
use crate::answer;
use crate::supervisor::Shared;

/// The sources of a sink with exactly-once delivery.
#[derive(Debug)]
pub(crate) struct ExactlyOnce {
    sources: HashMap<Arc<str>, mpsc::UnboundedSender<Order>>,
    tasks: Mutex<JoinSet<()>>,
}

impl ExactlyOnce {
    /// Starts the tasks.
    pub(crate) fn start(shared: &Arc<Shared>, identity: &Identity) -> Self {
        let mut tasks = JoinSet::new();
        let mut sources = HashMap::new();
        for member in &identity.sources {
            let (orders, queue) = mpsc::unbounded_channel();
            tasks.spawn(Source::new(shared.clone(), identity, member).run(queue));
            sources.insert(member.source.clone(), orders);
        }
        Self { sources, tasks: Mutex::new(tasks) }
    }

    /// Publishes by way of the source's task.
    pub(crate) async fn publish(&self, batch: Batch<'_>) -> Vec<Outcome> {
        let (reply, answer) = oneshot::channel();
        let order = Order::Publish(Request { records: batch.records.to_vec(), reply });
        let fate = match self.tell(batch.source, order) {
            Ok(()) => match answer.await {
                Ok(fates) => return fates,
                Err(_) => closed(),
            },
            Err(Untold::Closed) => closed(),
            Err(Untold::Unknown(fatal)) => Outcome::Fatal(fatal),
        };
        vec![fate; batch.records.len()]
    }

    /// Writes what is not written yet, and ends the tasks; gives them `patience`.
    pub(crate) async fn close(&self, patience: Duration) {
        let ended: Vec<_> = self
            .sources
            .values()
            .filter_map(|orders| {
                let (done, ended) = oneshot::channel();
                orders.send(Order::Close(done)).is_ok().then_some(ended)
            })
            .collect();
        let all = async {
            for end in ended {
                let _ = end.await;
            }
        };
        let _ = tokio::time::timeout(patience, all).await;
    }

    /// Waits for the tasks, which have been told to end.
    pub(crate) async fn join(&self) {
        let mut tasks = self.tasks.lock().await;
        // A panic in one of them is told where it happens.
        while tasks.join_next().await.is_some() {}
    }

    fn tell(&self, source: &str, order: Order) -> Result<(), Untold> {
        let Some(orders) = self.sources.get(source) else {
            return Err(Untold::Unknown(Fatal::Broken(format!("{source:?} is not a source of this sink"))));
        };
        orders.send(order).map_err(|_| Untold::Closed)
    }
}

/// Why an order reaches nobody.
enum Untold {
    /// The sink was closed.
    Closed,
    /// There is no such source.
    Unknown(Fatal),
}

fn closed() -> Outcome {
    answer::retry("closed", "the sink was closed".to_owned())
}

#[async_trait]
impl Checkpoints for ExactlyOnce {
    async fn claim(&self, source: &str) -> Result<Claim, Fatal> {
        let (reply, answer) = oneshot::channel();
        let told = self.tell(source, Order::Claim(reply));
        match (told, answer.await) {
            (Err(Untold::Unknown(fatal)), _) => Err(fatal),
            (Ok(()), Ok(answer)) => answer,
            (_, Err(_)) | (Err(Untold::Closed), _) => Err(Fatal::Broken("the sink was closed".to_owned())),
        }
    }

    fn acknowledged(&self, source: &str, event: &str) {
        // A source that is not known, or a sink that is closed: there is nothing to forget.
        let _ = self.tell(source, Order::Acknowledged(event.to_owned()));
    }

    fn session(&self, source: &str, session: Option<Box<RawValue>>) {
        let _ = self.tell(source, Order::Session(session));
    }
}
