//! Measures Viaduct beside a hand-written loop (the floor) and the limit of the broker's client, on real brokers and in one
//! run: the contenders take turns, and ratios are taken within a round, because a machine is never the same twice.
//! docs/performance.md tells the method and what came of it.
//!
//! ```text
//! cargo run --release -p viaduct-bench -- kafka                          # at least once, 1 KiB, five rounds
//! cargo run --release -p viaduct-bench -- kafka nats --suite all --json results.json
//! cargo run --release -p viaduct-bench -- kafka --compare results.json
//! cargo run --release -p viaduct-bench -- kafka --viaduct new/viaduct --other old/viaduct     # two builds in turn
//! ```

mod brokers;
mod floor;
mod job;
mod latency;
mod limit;
mod machine;
mod paced;
mod process;
mod results;
mod scene;
mod standing;
mod suites;
mod throughput;
mod vendor;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use crate::brokers::{Broker, System};
use crate::results::Book;
use crate::scene::Binaries;
use crate::suites::{Plan, Suite};

/// Measures Viaduct beside the floor and the limit
#[derive(Debug, Parser)]
struct Args {
    /// Brokers to measure with, one after the other
    #[arg(value_enum)]
    systems: Vec<System>,
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',', default_value = "throughput")]
    suite: Vec<Suite>,
    /// How often each contender runs
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Rounds of Kafka before those that count, while its JIT compiles
    #[arg(long, default_value_t = 3)]
    warm_up: usize,
    /// How long the vendor gives events in one run
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Leave exactly once out
    #[arg(long)]
    at_least_once: bool,
    /// The binary to measure, instead of one that is built now
    #[arg(long, value_name = "FILE")]
    viaduct: Option<PathBuf>,
    /// Another build of it, to run in turn with the first
    #[arg(long, value_name = "FILE")]
    other: Option<PathBuf>,
    /// Events that a source of Viaduct may hold, instead of the default
    #[arg(long, value_name = "COUNT")]
    max_in_flight: Option<usize>,
    /// Where to write the results
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Earlier results to compare with
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
}

fn main() -> Result<()> {
    // reqwest is built without a choice of its own.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut words = std::env::args().skip(1);
    // A contender in a process of its own: the bench calls itself.
    if words.next().as_deref() == Some("contend") {
        return job::run(&words.next().context("no job")?);
    }
    let args = Args::parse();
    let before = args.compare.as_deref().map(Book::load).transpose()?;
    let binaries =
        Binaries { viaduct: args.viaduct.clone().map_or_else(build, Ok)?, other: args.other.clone() };
    let mut book = Book::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for system in &args.systems {
        let broker = Broker::start(*system);
        let plan = Plan {
            binaries: &binaries,
            broker: &broker,
            rounds: args.rounds,
            seconds: args.seconds,
            exactly_once: !args.at_least_once,
            max_in_flight: args.max_in_flight,
        };
        if *system == System::Kafka {
            runtime.block_on(plan.warm_up(args.warm_up))?;
        }
        for suite in &args.suite {
            runtime.block_on(plan.measure(*suite, &mut book))?;
        }
    }
    println!("{}", book.table());
    if let Some(before) = before {
        println!("{}", book.compared(&before));
    }
    args.json.as_deref().map_or(Ok(()), |file| book.save(file))
}

/// Builds the real binary, alone: built together with the tests' own crates it could be told to fail.
fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // `cargo run` tells this program of its own package, and build scripts run again where they are told of another one.
    let told = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(told)) {
        build.env_remove(name);
    }
    let status = build
        .args(["build", "--release", "--locked", "--package", "viaduct"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .status()
        .context("cargo cannot be run")?;
    ensure!(status.success(), "viaduct cannot be built");
    let folder = std::env::current_exe()?.parent().context("no folder")?.to_owned();
    Ok(folder.join("viaduct"))
}
