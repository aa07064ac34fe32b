//! The configured sinks: opened ([`mod@open`]), and in the state in which people see them.

mod destinations;
mod open;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tracing::{info, warn};
use viaduct_sink::{Health, HealthWatch, Retry, Sink};

pub(crate) use self::destinations::{Destination, Destinations};
pub(crate) use self::open::{
    identity, kafka_settings, local_dead_letters, naming, nats_settings, open, refused,
};
use crate::config::RefusedAfter;

/// A sink with its name and its state.
pub(crate) struct SinkHandle {
    /// The configured name.
    pub(crate) name: Arc<str>,
    /// Whether acknowledgements wait for it.
    pub(crate) required: bool,
    /// How long a "no" is retried.
    pub(crate) refused_after: RefusedAfter,
    /// The sink.
    pub(crate) sink: Arc<dyn Sink>,
    health: HealthWatch,
    refusals: Mutex<Refusals>,
}

/// By source and destination.
type Refusals = BTreeMap<(Arc<str>, Arc<str>), Refused>;

#[derive(Debug)]
struct Refused {
    since: Instant,
    detail: String,
}

impl SinkHandle {
    /// Names a sink.
    pub(crate) fn new(
        name: &str,
        required: bool,
        refused_after: RefusedAfter,
        sink: Arc<dyn Sink>,
    ) -> Arc<Self> {
        let health = sink.health();
        Arc::new(Self {
            name: name.into(),
            required,
            refused_after,
            sink,
            health,
            refusals: Mutex::default(),
        })
    }

    /// Whether it takes records: reachable, and no destination says no.
    pub(crate) fn state(&self) -> Health {
        let health = self.health.borrow().clone();
        if !health.up {
            return health;
        }
        let refusals = self.refusals.lock().expect("no panic while held");
        let oldest = refusals.values().min_by_key(|refused| refused.since);
        match oldest {
            None => health,
            Some(refused) => Health { up: false, since: refused.since, reason: refused.detail.clone() },
        }
    }

    /// A destination did not take a record of `source`.
    pub(crate) fn note_retry(&self, source: &Arc<str>, destination: &Arc<str>, retry: &Retry) {
        if retry.refusal.is_none() {
            return;
        }
        let mut refusals = self.refusals.lock().expect("no panic while held");
        refusals.entry((source.clone(), destination.clone())).or_insert_with(|| {
            warn!(sink = %self.name, %source, %destination, reason = retry.reason, detail = retry.detail,
                  "the sink refuses records; they are retried");
            Refused { since: Instant::now(), detail: retry.detail.clone() }
        });
    }

    /// The records that a destination refused were given up for dead letters: nothing waits for it any more.
    pub(crate) fn gave_up(&self, source: &Arc<str>, destination: &Arc<str>) {
        let mut refusals = self.refusals.lock().expect("no panic while held");
        if let Some(refused) = refusals.remove(&(source.clone(), destination.clone())) {
            let seconds = refused.since.elapsed().as_secs();
            warn!(sink = %self.name, %source, %destination, seconds, detail = refused.detail,
                  "refused for too long: the records become dead letters");
        }
    }

    /// A destination that said no takes records of `source` again.
    pub(crate) fn accepts_again(&self, source: &Arc<str>, destination: &Arc<str>) {
        let mut refusals = self.refusals.lock().expect("no panic while held");
        if let Some(refused) = refusals.remove(&(source.clone(), destination.clone())) {
            let seconds = refused.since.elapsed().as_secs();
            info!(sink = %self.name, %source, %destination, seconds, "the sink takes records again");
        }
    }

    /// Logs every change between up and down, with the duration of the outage, until the sink is gone.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut health = self.health.clone();
        let mut before = health.borrow_and_update().clone();
        while health.changed().await.is_ok() {
            let now = health.borrow_and_update().clone();
            if now.up && !before.up {
                let seconds = before.since.elapsed().as_secs();
                info!(sink = %self.name, seconds, "sink is up");
            } else if !now.up && before.up {
                warn!(sink = %self.name, reason = now.reason, "sink is down");
            }
            before = now;
        }
    }
}

impl std::fmt::Debug for SinkHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SinkHandle").field("name", &self.name).finish_non_exhaustive()
    }
}
