//! Brokers that form a cluster, in which leaders and coordinators can move.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::broker::refuse;
use super::install;
use super::process::{Process, Seat};
use super::topics::{in_sync, leader};

/// How long replicas may take to be in sync again.
const CATCH_UP: Duration = Duration::from_secs(60);
/// The topic of the transaction coordinators; it has one partition here, so all transactions have one coordinator.
const TRANSACTIONS: &str = "__transaction_state";

/// Three brokers. Topics get three replicas, and a record is acknowledged by two of them at least.
#[derive(Debug)]
pub struct KafkaCluster {
    bootstrap: String,
    nodes: Vec<Mutex<Process>>,
}

impl KafkaCluster {
    /// A cluster of the test's own. Blocks for some seconds; panics with one line where it cannot be had.
    pub fn start_own() -> Self {
        Self::launch().unwrap_or_else(|error| refuse(&error))
    }

    fn launch() -> Result<Self> {
        let properties = [
            ("default.replication.factor", "3"),
            ("min.insync.replicas", "2"),
            ("offsets.topic.replication.factor", "3"),
            ("transaction.state.log.replication.factor", "3"),
            ("transaction.state.log.min.isr", "2"),
        ];
        let class_path = install::class_path()?;
        let seats = Seat::free(3)?;
        let mut nodes = Vec::new();
        for seat in &seats {
            nodes.push(Process::prepare(class_path.clone(), &seats, *seat, &properties)?);
        }
        // None of them gets ready alone.
        nodes.iter_mut().try_for_each(Process::spawn)?;
        nodes.iter().try_for_each(|node| node.wait(seats.len()))?;
        let addresses: Vec<_> = nodes.iter().map(Process::bootstrap).collect();
        Ok(Self { bootstrap: addresses.join(","), nodes: nodes.into_iter().map(Mutex::new).collect() })
    }

    /// The addresses of all brokers for clients, `HOST:PORT,…`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The number of the broker that coordinates transactions. An error where there has not been one yet.
    pub fn coordinator(&self) -> Result<usize> {
        usize::try_from(leader(&self.bootstrap, TRANSACTIONS, 0)?)
            .ok()
            .filter(|id| (1..=self.nodes.len()).contains(id))
            .context("nobody coordinates transactions at the moment")
    }

    /// SIGKILL, and waits until the process is gone. The data stays.
    pub fn kill(&self, number: usize) -> Result<()> {
        self.node(number).kill()
    }

    /// SIGTERM, and waits until the process is gone: it hands over what it leads. The data stays.
    pub fn stop(&self, number: usize) -> Result<()> {
        self.node(number).stop()
    }

    /// Starts it again with the same data, and waits until every replica in the cluster is in sync.
    pub fn restart(&self, number: usize) -> Result<()> {
        self.node(number).start().context("the broker does not come back")?;
        let deadline = Instant::now() + CATCH_UP;
        while !in_sync(&self.bootstrap)? {
            ensure!(Instant::now() < deadline, "the replicas of broker {number} do not catch up");
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn node(&self, number: usize) -> MutexGuard<'_, Process> {
        self.nodes[number - 1].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
