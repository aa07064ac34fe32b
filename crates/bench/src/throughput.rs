//! How many events per second, at what price.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::brokers::{Broker, Readable};
use crate::machine;
use crate::scene::{self, Binaries, Case, Contender};

/// How long the end has to stay what it is, to be the end.
const QUIET: Duration = Duration::from_millis(100);
const DEADLINE: Duration = Duration::from_secs(120);

/// One run.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Until the last record could be read.
    pub(crate) events_per_second: f64,
    /// CPU seconds of the contender alone, user and system.
    pub(crate) cpu_per_million: f64,
    /// CPU seconds of everything else on the machine: the broker, the simulator, the consumer that looks for the end.
    pub(crate) others_cpu_per_million: f64,
    /// Of all cores, by everything.
    pub(crate) busy_percent: f64,
    pub(crate) peak_mib: f64,
}

/// Lets a contender run for a while and waits until everything that it was given can be read.
pub(crate) async fn run(
    contender: Contender,
    case: &Case,
    binaries: &Binaries,
    broker: &Broker,
) -> Result<Run> {
    let vendor = scene::vendor(case).await?;
    let control = vendor.control();
    let target = broker.target().await?;
    let readable = Readable::of(&target).await?;
    let folder = TempDir::new()?;
    if !contender.is_limit() {
        control.pause();
    }
    let mut process = scene::contender(contender, case, binaries, &vendor, &target, &folder)?;
    if contender.is_limit() {
        ensure!(process.line()? == "ready", "the contender is not ready");
    } else {
        scene::everybody_waits(&vendor, case, &mut process).await?;
        // Producers and connections come to rest.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }

    let empty = readable.end().await?;
    let (cpu, busy, started) = (process.cpu()?, machine::busy()?, Instant::now());
    let expected = if contender.is_limit() {
        process.go()?;
        let published = tokio::task::block_in_place(|| process.line())?;
        published.parse().context("the contender does not say how much it published")?
    } else {
        control.resume();
        tokio::time::sleep(Duration::from_secs_f64(case.seconds)).await;
        control.pause();
        0
    };
    let mut end = (0, Instant::now());
    let (cpu, busy, watched) = loop {
        let now = readable.end().await? - empty;
        if now != end.0 {
            end = (now, Instant::now());
        }
        let report = vendor.report();
        let settled = contender.is_limit() || report.unacknowledged == 0;
        let expected = if contender.is_limit() { expected } else { report.emitted };
        if settled && now >= expected && end.1.elapsed() >= QUIET {
            break (process.cpu()? - cpu, machine::busy()? - busy, started.elapsed().as_secs_f64());
        }
        process.check()?;
        ensure!(started.elapsed() < DEADLINE, "{now} of {expected} records are there at the end");
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    let report = vendor.report();
    ensure!(
        report.misbehaviour.is_empty(),
        "the contender broke the vendor's rules: {:?}",
        report.misbehaviour
    );
    let events = if contender.is_limit() { expected } else { report.emitted } as f64;
    let run = Run {
        events_per_second: events / (end.1 - started).as_secs_f64(),
        cpu_per_million: cpu / events * 1e6,
        others_cpu_per_million: (busy - cpu) / events * 1e6,
        busy_percent: busy / watched / machine::cores() as f64 * 100.0,
        peak_mib: process.peak_mib()?,
    };
    drop(process);
    broker.discard(&target).await?;
    Ok(run)
}
