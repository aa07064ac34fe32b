//! What Viaduct takes while nothing happens, and how fast it starts.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::brokers::Broker;
use crate::scene::{self, Binaries, Case, Contender};

/// A long poll and a bit, so that every source is seen to poll again.
const WATCHED: Duration = Duration::from_secs(20);

/// Idle sources.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Idle {
    pub(crate) resident_mib: f64,
    /// What of it is not the program's file, which the system can drop and share.
    pub(crate) anonymous_mib: f64,
    pub(crate) peak_mib: f64,
    /// Of one core, in percent.
    pub(crate) cpu_percent: f64,
}

/// So many sources whose vendor has nothing.
pub(crate) async fn idle(sources: usize, binaries: &Binaries, broker: &Broker) -> Result<Idle> {
    let case = Case { sources, ..Case::default() };
    let vendor = scene::vendor(&case).await?;
    vendor.control().pause();
    let target = broker.target().await?;
    let folder = TempDir::new()?;
    let mut process = scene::contender(Contender::Viaduct, &case, binaries, &vendor, &target, &folder)?;
    scene::everybody_waits(&vendor, &case, &mut process).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (cpu, since) = (process.cpu()?, Instant::now());
    tokio::time::sleep(WATCHED).await;
    let idle = Idle {
        cpu_percent: (process.cpu()? - cpu) / since.elapsed().as_secs_f64() * 100.0,
        resident_mib: process.resident_mib()?,
        anonymous_mib: process.anonymous_mib()?,
        peak_mib: process.peak_mib()?,
    };
    drop(process);
    broker.discard(&target).await?;
    Ok(idle)
}

/// Milliseconds from starting the process until the vendor is asked for events.
pub(crate) async fn start(binaries: &Binaries, broker: &Broker) -> Result<f64> {
    let case = Case::default();
    let vendor = scene::vendor(&case).await?;
    vendor.control().pause();
    let target = broker.target().await?;
    let folder = TempDir::new()?;
    let mut process = scene::contender(Contender::Viaduct, &case, binaries, &vendor, &target, &folder)?;
    while vendor.report().sessions.iter().all(|session| session.gets == 0) {
        process.check()?;
        ensure!(process.started.elapsed() < Duration::from_secs(30), "it does not start");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = process.started.elapsed().as_secs_f64() * 1_000.0;
    drop(process);
    broker.discard(&target).await?;
    Ok(took)
}
