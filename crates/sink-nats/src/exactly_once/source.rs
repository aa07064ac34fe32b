//! The task of one source: it alone knows what the stream holds of it, and takes orders one after the other.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use viaduct_sink::{Claim, Fatal, Identity, Member, Outcome, Owner, Record};

use super::checkpoint;
use super::standing::{Obstacle, Standing};
use crate::epoch::Epoch;
use crate::supervisor::Shared;

/// A new session is written with the next records, or after this time without any.
const SOON: Duration = Duration::from_millis(100);
/// When a claim or a session that could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// What the task is asked for.
#[derive(Debug)]
pub(crate) enum Order {
    /// Publish records.
    Publish(Request),
    /// Take the source over.
    Claim(oneshot::Sender<Result<Claim, Fatal>>),
    /// The vendor has confirmed the acknowledgement of this event.
    Acknowledged(String),
    /// The source goes on with this session.
    Session(Option<Box<RawValue>>),
    /// Write what is not written, and end.
    Close(oneshot::Sender<()>),
}

/// Records to publish, in order, and where their fates go.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) records: Vec<Record>,
    pub(crate) reply: oneshot::Sender<Vec<Outcome>>,
}

/// The task's state.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) shared: Arc<Shared>,
    pub(crate) owner: Owner,
    pub(crate) remember: usize,
    /// The configured name.
    pub(crate) name: Arc<str>,
    /// Where the checkpoint stands.
    pub(crate) subject: String,
    pub(crate) standing: Standing,
    /// A session that was told before the source was claimed.
    pub(crate) early_session: Option<Option<Box<RawValue>>>,
    claims: Vec<oneshot::Sender<Result<Claim, Fatal>>>,
}

impl Source {
    pub(crate) fn new(shared: Arc<Shared>, identity: &Identity, member: &Member) -> Self {
        Self {
            shared,
            owner: identity.owner.clone(),
            remember: member.remember,
            name: member.source.clone(),
            subject: checkpoint::subject(identity, &member.source),
            standing: Standing::Unclaimed,
            early_session: None,
            claims: Vec::new(),
        }
    }

    /// Works until the sink closes or is gone.
    pub(crate) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let shared = self.shared.clone();
        tokio::select! {
            biased;
            () = shared.closing.cancelled() => {}
            () = self.work(&mut orders) => {}
        }
    }

    async fn work(&mut self, orders: &mut mpsc::UnboundedReceiver<Order>) {
        let mut wake = None;
        loop {
            let mut order = tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(order) => Some(order),
                    None => return,
                },
                () = at(wake) => None,
            };
            let (due, mut requests, mut farewell) = (order.is_none(), Vec::new(), None);
            // Everything that waits goes into one round.
            while let Some(next) = order {
                match next {
                    Order::Publish(request) => requests.push(request),
                    Order::Claim(reply) => self.claims.push(reply),
                    Order::Acknowledged(event) => self.acknowledged(&event),
                    Order::Session(session) => self.session(session),
                    Order::Close(done) => farewell = Some(done),
                }
                order = orders.try_recv().ok();
            }
            wake = None;
            if !self.claims.is_empty() && !self.answer_claims().await {
                wake = Some(AGAIN);
            }
            if !requests.is_empty() {
                self.publish(requests).await;
            }
            if let Some(done) = farewell {
                if matches!(&self.standing, Standing::Owner(owned) if !owned.progress.is_told()) {
                    self.write_now().await;
                }
                let _ = done.send(());
                return;
            }
            if self.is_stale() {
                wake = match due && !self.write_now().await {
                    true => Some(AGAIN),
                    false => self.is_stale().then_some(SOON).or(wake),
                };
            }
        }
    }

    fn acknowledged(&mut self, event: &str) {
        if let Standing::Owner(owned) = &mut self.standing {
            owned.progress.acknowledged(event);
        }
    }

    fn session(&mut self, session: Option<Box<RawValue>>) {
        match &mut self.standing {
            Standing::Owner(owned) => owned.progress.set_session(session),
            Standing::Unclaimed => self.early_session = Some(session),
            Standing::Lost(_) => {}
        }
    }

    fn is_stale(&self) -> bool {
        matches!(&self.standing, Standing::Owner(owned) if owned.progress.is_stale())
    }

    /// The next usable connection.
    pub(crate) async fn connected(&self) -> Arc<Epoch> {
        let mut current = self.shared.current.subscribe();
        let usable = |epoch: &Option<Arc<Epoch>>| epoch.as_ref().is_some_and(|epoch| !epoch.is_broken());
        loop {
            let epoch = current.wait_for(usable).await.map(|epoch| epoch.clone());
            match epoch {
                Ok(Some(epoch)) => return epoch,
                Ok(None) => {}
                // The sender lives as long as this task's `shared`.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Answers those who wait for the source to be claimed; `false`: they have to wait longer.
    async fn answer_claims(&mut self) -> bool {
        let answer = loop {
            match &self.standing {
                Standing::Owner(owned) => break Ok(owned.claim.clone()),
                Standing::Lost(fatal) => break Err(fatal.clone()),
                Standing::Unclaimed => {}
            }
            let epoch = self.connected().await;
            match self.own(&epoch).await {
                Ok(_) | Err(Obstacle::Lost) => {}
                Err(Obstacle::Away(..)) if epoch.is_broken() => {}
                Err(Obstacle::Away(_, detail)) => {
                    tracing::debug!(source = &*self.name, detail, "the source cannot be claimed yet");
                    return false;
                }
                Err(Obstacle::Refused(outcome)) => {
                    tracing::debug!(source = &*self.name, ?outcome, "the source cannot be claimed yet");
                    return false;
                }
            }
        };
        for claim in self.claims.drain(..) {
            // Whoever asked may have gone.
            let _ = claim.send(answer.clone());
        }
        true
    }

    /// Writes the checkpoint without records; `false`: it has to be tried again.
    async fn write_now(&mut self) -> bool {
        let epoch = self.connected().await;
        match self.write(&epoch).await {
            Ok(()) | Err(Obstacle::Lost) => true,
            Err(Obstacle::Away(_, _) | Obstacle::Refused(_)) => false,
        }
    }
}

async fn at(wake: Option<Duration>) {
    match wake {
        Some(wake) => sleep_until(Instant::now() + wake).await,
        None => std::future::pending().await,
    }
}
