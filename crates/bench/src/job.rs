//! What a child process of the bench is asked to do: a contender runs alone in its process, so that its CPU time and its
//! memory are its own.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::{floor, limit};

/// One contender's work.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) kind: Kind,
    pub(crate) vendor: VendorAddress,
    pub(crate) target: Target,
    /// Sessions of the floor.
    pub(crate) sessions: usize,
    /// Events per GET; records per atomic batch or transaction.
    pub(crate) batch: usize,
    /// How long the limit publishes.
    pub(crate) seconds: f64,
}

/// Which contender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// The hand-written loop.
    Floor,
    /// The broker's client, fed from memory.
    Limit,
    /// The same in JetStream's atomic batches.
    LimitInBatches,
    /// The same in Kafka's transactions.
    LimitInTransactions,
}

/// Where the vendor's API is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct VendorAddress {
    pub(crate) api_url: String,
    pub(crate) token_url: String,
}

/// Where records go.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Target {
    Kafka { bootstrap: String, topic: String },
    Nats { url: String, stream: String, subject: String },
}

/// Does it.
pub(crate) fn run(job: &str) -> Result<()> {
    let job: Job = serde_json::from_str(job)?;
    // One thread: the loop has nothing to do in parallel, and the brokers' clients bring threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match job.kind {
            Kind::Floor => floor::run(&job.vendor, &job.target, job.sessions, job.batch).await,
            Kind::Limit | Kind::LimitInBatches | Kind::LimitInTransactions => limit::run(&job).await,
        }
    })
}
