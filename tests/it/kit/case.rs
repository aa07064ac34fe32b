//! What a fault scenario runs under: broker, delivery, the vendor's models, a seed. And running many of them at once.

use std::fmt;

use rand::SeedableRng;
use rand::rngs::StdRng;
use viaduct_faults::Mistake;
use viaduct_simulator::{Redelivery, Requeue};

use super::invariants::Findings;

/// The system at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broker {
    /// Apache Kafka.
    Kafka,
    /// NATS JetStream.
    Nats,
}

/// `delivery` of the sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// `at_least_once`
    AtLeastOnce,
    /// `exactly_once`
    ExactlyOnce,
}

/// One row of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) broker: Broker,
    pub(crate) delivery: Delivery,
    pub(crate) redelivery: Redelivery,
    pub(crate) requeue: Requeue,
    /// What everything random in the scenario comes from.
    pub(crate) seed: u64,
    /// What the bridge does wrong, on purpose.
    pub(crate) mistake: Option<Mistake>,
}

impl Case {
    /// Under the seed that the environment asks for.
    pub(crate) fn new(broker: Broker, delivery: Delivery) -> Self {
        Self {
            broker,
            delivery,
            redelivery: Redelivery::PerSessionNewThenPending,
            requeue: Requeue::SameId,
            seed: seed(),
            mistake: None,
        }
    }

    /// The same with another redelivery model.
    pub(crate) fn redelivery(self, redelivery: Redelivery) -> Self {
        Self { redelivery, ..self }
    }

    /// The same with another answer to what becomes of the unacknowledged events of a lost session.
    pub(crate) fn requeue(self, requeue: Requeue) -> Self {
        Self { requeue, ..self }
    }

    /// The same with a bridge that makes a mistake.
    pub(crate) fn mistaken(self, mistake: Mistake) -> Self {
        Self { mistake: Some(mistake), ..self }
    }

    /// Whether the sink delivers exactly once.
    pub(crate) fn exactly_once(self) -> bool {
        self.delivery == Delivery::ExactlyOnce
    }

    /// What everything random in the scenario comes from.
    pub(crate) fn random(self) -> StdRng {
        StdRng::seed_from_u64(self.seed)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { broker, delivery, redelivery, requeue, seed, mistake } = self;
        write!(f, "{broker:?}, {delivery:?}, {redelivery}, requeue {requeue}, seed {seed}")?;
        mistake.map_or(Ok(()), |mistake| write!(f, ", mistake {}", mistake.as_str()))
    }
}

/// Both deliveries under both redelivery models.
pub(crate) fn both_models(broker: Broker) -> Vec<Case> {
    let mut cases = Vec::new();
    for delivery in [Delivery::AtLeastOnce, Delivery::ExactlyOnce] {
        for redelivery in [Redelivery::PerSessionNewThenPending, Redelivery::FromHead] {
            cases.push(Case::new(broker, delivery).redelivery(redelivery));
        }
    }
    cases
}

/// `VIADUCT_FAULT_SEED`, by default 1: the same seed makes the same faults.
pub(crate) fn seed() -> u64 {
    number("VIADUCT_FAULT_SEED").unwrap_or(1)
}

/// `VIADUCT_FAULT_ROUNDS`: how often a scenario that repeats itself does so; `default` sizes it for every test run.
pub(crate) fn rounds(default: u64) -> u64 {
    number("VIADUCT_FAULT_ROUNDS").unwrap_or(default)
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// Runs a scenario for each case, at the same time, and ends the test where any of them found something.
///
/// Scenarios mostly wait, so a few of them at once take hardly longer than one.
pub(crate) fn hold<F: Future<Output = Findings>>(
    cases: Vec<Case>,
    scenario: impl Fn(Case) -> F + Copy + Send + 'static,
) {
    let mut text = String::new();
    let running: Vec<_> =
        cases.into_iter().map(|case| (case, std::thread::spawn(move || block_on(scenario(case))))).collect();
    for (case, running) in running {
        match running.join() {
            Ok(findings) if findings.0.is_empty() => {}
            Ok(findings) => text.push_str(&format!("-- {case}:\n{findings}")),
            Err(_) => text.push_str(&format!("-- {case}: panicked, see above\n")),
        }
    }
    assert!(text.is_empty(), "\n{text}");
}

/// Runs a scenario on a runtime of its own.
pub(crate) fn block_on<T>(scenario: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(scenario)
}
