//! Whether the brokers can be reached and confirm what they are given: the sink's health.
//!
//! Signs of life come from delivery reports (up), librdkafka's error events (down), and a metadata request now and then
//! while nothing is published or while it is down. Brokers that answer but confirm nothing (too few in-sync replicas)
//! are down too: a record never expires, so nobody else would tell.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::Producer as _;
use tracing::debug;
use viaduct_sink::{HealthReporter, HealthWatch};

use crate::producer::{Lane, Producers};
use crate::topics::Topics;

/// How often the state is looked at.
const TICK: Duration = Duration::from_millis(250);
/// How long one metadata request may take.
const PROBE: Duration = Duration::from_secs(3);
/// How long the brokers may be silent before they are asked whether they are there.
const SILENCE: Duration = Duration::from_secs(10);
/// How long records may wait without any being confirmed.
const STALL: Duration = Duration::from_secs(10);
/// Asked for where no topic is known yet; every answer will do, "unknown" too.
const ANY_TOPIC: &str = "__consumer_offsets";

const STALLED: &str = "the brokers answer but have confirmed no record for over 10 s: \
                       too few in-sync replicas, or a partition without a leader";

/// Where all producers of a sink report to.
#[derive(Debug)]
pub(crate) struct Vitals {
    health: HealthReporter,
    /// Mirrors the health, so that a delivery report costs no lock.
    up: AtomicBool,
    confirmed: AtomicU64,
    /// Why no broker can be used, as far as it is known.
    trouble: Mutex<Trouble>,
    /// Shards that cannot publish though brokers answer, and why.
    held_up: Mutex<BTreeMap<u32, String>>,
}

/// What stands between this sink and the brokers.
#[derive(Debug, Default)]
enum Trouble {
    #[default]
    None,
    /// What librdkafka said last about a broker it cannot reach.
    Unreachable(String),
    /// A whole sentence about somebody who refuses.
    Refused(String),
    /// The same, where it is the credentials that are refused.
    Credentials(String),
}

impl Vitals {
    pub(crate) fn new() -> Self {
        Self {
            health: HealthReporter::new("connecting to Kafka"),
            up: AtomicBool::new(false),
            confirmed: AtomicU64::new(0),
            trouble: Mutex::default(),
            held_up: Mutex::default(),
        }
    }

    pub(crate) fn watch(&self) -> HealthWatch {
        self.health.watch()
    }

    /// A record was confirmed. Called for each one.
    pub(crate) fn confirmed(&self) {
        self.confirmed.fetch_add(1, Ordering::Relaxed);
        self.up();
    }

    /// A broker answered.
    pub(crate) fn up(&self) {
        if !self.up.load(Ordering::Relaxed) {
            let held_up = self.held_up().values().next().cloned();
            if let Some(reason) = held_up {
                self.health.down(reason);
                return;
            }
            self.up.store(true, Ordering::Relaxed);
            *self.trouble() = Trouble::None;
            self.health.up();
        }
    }

    pub(crate) fn down(&self, reason: impl Into<String>) {
        self.health.down(reason);
        // After the health: should a confirmation come between the two, the next tick finds out.
        self.up.store(false, Ordering::Relaxed);
    }

    /// librdkafka reports an error that concerns no record.
    pub(crate) fn error(&self, error: &KafkaError, reason: &str) {
        debug!(%error, reason, "librdkafka reports an error");
        let reason = without_times(reason);
        match error.rdkafka_error_code() {
            Some(Code::AllBrokersDown) => self.down(self.unreachable()),
            Some(Code::Authentication) => {
                self.credentials_refused(format!("the Kafka brokers refuse the credentials: {reason}"))
            }
            Some(Code::SSL) => self.refused(format!("TLS to the Kafka brokers fails: {reason}")),
            Some(Code::BrokerTransportFailure | Code::Resolve) => {
                let mut trouble = self.trouble();
                // What follows a refusal (connections that break off) explains less than the refusal.
                if !matches!(*trouble, Trouble::Refused(_) | Trouble::Credentials(_)) {
                    *trouble = Trouble::Unreachable(reason.to_owned());
                }
            }
            _ => {}
        }
    }

    /// The sentence for "no broker answers".
    pub(crate) fn unreachable(&self) -> String {
        match &*self.trouble() {
            Trouble::None => "no Kafka broker answers".to_owned(),
            Trouble::Unreachable(reason) => format!("no Kafka broker answers: {reason}"),
            Trouble::Refused(sentence) | Trouble::Credentials(sentence) => sentence.clone(),
        }
    }

    /// Whether that is because the credentials are refused.
    pub(crate) fn refuses_credentials(&self) -> bool {
        matches!(*self.trouble(), Trouble::Credentials(_))
    }

    fn credentials_refused(&self, sentence: String) {
        *self.trouble() = Trouble::Credentials(sentence.clone());
        self.down(sentence);
    }

    /// Somebody said no, and `sentence` tells who and why. It stays the reason until a broker can be used again.
    pub(crate) fn refused(&self, sentence: String) {
        *self.trouble() = Trouble::Refused(sentence.clone());
        self.down(sentence);
    }

    /// The shard cannot publish, for this reason, until it is released. Why brokers cannot be reached is told first.
    pub(crate) fn hold_up(&self, shard: u32, reason: impl Into<String>) {
        let reason = reason.into();
        self.held_up().insert(shard, reason.clone());
        if self.up.load(Ordering::Relaxed) {
            self.down(reason);
        }
    }

    /// The shard goes on.
    pub(crate) fn release(&self, shard: u32) {
        if self.held_up().remove(&shard).is_some() {
            self.up();
        }
    }

    fn held_up(&self) -> MutexGuard<'_, BTreeMap<u32, String>> {
        self.held_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// librdkafka adds how long a connection lived and how often a message was repeated; then every reason is another one.
fn without_times(reason: &str) -> &str {
    reason.split(" (after ").next().unwrap_or(reason)
}

/// Looks after the health for as long as the sink is open. `producers` ask the brokers; `waiting` counts the records whose
/// fate is not known yet.
pub(crate) async fn watch_over(
    producers: Arc<Producers>,
    waiting: impl Fn() -> usize + Send,
    topics: Arc<Topics>,
    vitals: Arc<Vitals>,
) {
    let mut confirmed = 0;
    let mut progress = Instant::now();
    let mut heard = Instant::now();
    loop {
        let now = vitals.confirmed.load(Ordering::Relaxed);
        if now != confirmed {
            (confirmed, progress, heard) = (now, Instant::now(), Instant::now());
        }
        if waiting() == 0 {
            progress = Instant::now();
        }
        let stalled = progress.elapsed() > STALL;
        if stalled || !vitals.up.load(Ordering::Relaxed) || heard.elapsed() > SILENCE {
            match probe(&producers, &topics).await {
                Ok(()) => {
                    heard = Instant::now();
                    if stalled && vitals.confirmed.load(Ordering::Relaxed) == confirmed {
                        vitals.down(STALLED);
                    } else {
                        vitals.up();
                    }
                }
                Err(error) => {
                    debug!(error, "no Kafka broker answers");
                    vitals.down(vitals.unreachable());
                }
            }
        }
        tokio::time::sleep(TICK).await;
    }
}

async fn probe(producers: &Arc<Producers>, topics: &Topics) -> Result<(), String> {
    let generation = producers.current(Lane::Pipelined).await?;
    let topic = topics.any().unwrap_or_else(|| Arc::from(ANY_TOPIC));
    let answer = tokio::task::spawn_blocking(move || {
        generation.producer().client().fetch_metadata(Some(&topic), PROBE)
    });
    match answer.await {
        Ok(answer) => answer.map(drop).map_err(|error| error.to_string()),
        Err(stopped) => Err(stopped.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_broker_is_named() {
        let vitals = Vitals::new();
        vitals.up();
        let transport = KafkaError::Global(Code::BrokerTransportFailure);
        vitals.error(&transport, "kafka:9092/bootstrap: Connect to kafka:9092 failed: Connection refused (after 3ms in state CONNECT)");
        assert!(vitals.watch().borrow().up, "one broker of several is no outage");
        vitals.error(&KafkaError::Global(Code::AllBrokersDown), "1/1 brokers are down");
        let health = vitals.watch().borrow().clone();
        assert!(!health.up);
        assert_eq!(
            health.reason,
            "no Kafka broker answers: kafka:9092/bootstrap: Connect to kafka:9092 failed: Connection refused"
        );
        vitals.confirmed();
        assert!(vitals.watch().borrow().up);
    }
}
