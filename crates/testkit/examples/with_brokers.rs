//! Runs a command beside a real Kafka and a real NATS with JetStream, and ends with its exit code.
//!
//! ```sh
//! cargo run -p viaduct-testkit --example with_brokers -- env
//! ```
//!
//! The command finds the brokers as tests do, in `VIADUCT_TEST_KAFKA` and `VIADUCT_TEST_NATS`, and the Java tools of Kafka
//! on the class path `VIADUCT_TEST_KAFKA_CLASS_PATH`. When it ends, the brokers end.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use viaduct_testkit::kafka::{self, KafkaBroker};
use viaduct_testkit::nats::NatsServer;

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().context("usage: with_brokers COMMAND [ARGUMENT]...")?;
    let broker = KafkaBroker::start_own();
    let server = NatsServer::start_own();
    let status = Command::new(&program)
        .args(arguments)
        .env("VIADUCT_TEST_KAFKA", broker.bootstrap())
        .env("VIADUCT_TEST_NATS", server.url())
        .env("VIADUCT_TEST_KAFKA_CLASS_PATH", kafka::class_path()?)
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    // A command that a signal ended has no code.
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
