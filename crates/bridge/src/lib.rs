//! `viaduct`: a bridge from the Alvaria Cloud event stream to Kafka and NATS JetStream.
//!
//! ARCHITECTURE.md tells how the parts work together; `engine` is where they meet. The library is there for the program
//! `viaduct` and for the fuzz targets; nobody else should depend on it.

mod admin;
mod check;
mod checkpoints;
mod cli;
mod config;
mod console;
mod danger;
mod demo;
mod dlq;
#[cfg(test)]
mod docs;
mod documented;
mod dry_run;
mod durability;
mod engine;
mod exit;
#[doc(hidden)]
pub mod fuzzing;
mod init;
mod logging;
mod manual;
mod pipeline;
mod reload;
mod routing;
mod run;
mod schema;
mod service;
mod shown;
mod signals;
mod simulate;
mod sinks;
mod source_settings;
mod state;
mod subscriptions;
mod telemetry;
mod validation;

use std::io::stdout;
use std::process::ExitCode;

use tracing::warn;

use crate::cli::{Command, ConfigArgs};
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::logging::LogLevel;
use crate::reload::Reload;

/// Runs the command that the arguments of this process ask for.
pub fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match command(cli.command) {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            eprintln!("viaduct: {failure}");
            failure.exit().into()
        }
    }
}

fn command(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(args) => {
            let (config, level) = configured(&args.config)?;
            if args.dry_run {
                block_on(dry_run::dry_run(&config))
            } else {
                let reload = Reload::new(&args.config, &config, level);
                block_on(run::run(&config, reload))
            }
        }
        Command::Demo(args) => block_on(demo::demo(&args)),
        Command::Simulate(args) => block_on(simulate::simulate(*args)),
        Command::Check(args) if args.online => {
            block_on(async { check::check_online(&args, &mut stdout()).await })
        }
        Command::Check(args) => check::check(&args, &mut stdout()),
        Command::Init(args) => init::init(&args, &mut stdout()),
        Command::Status(args) => block_on(console::status(&args)),
        Command::Tap(args) => block_on(console::tap(&args)),
        Command::Completions { shell } => manual::completions(shell, &mut stdout()),
        Command::Man { output } => manual::man(output.as_deref(), &mut stdout()),
        Command::Subscriptions { command } => {
            block_on(async { subscriptions::subscriptions(&command, &mut stdout()).await })
        }
        Command::Dlq { command } => block_on(async { dlq::dlq(&command, &mut stdout()).await }),
        Command::Schema { command } => schema::schema(&command, &mut stdout()),
    }
}

/// Loads the configuration and starts logging as it says.
fn configured(args: &ConfigArgs) -> Result<(Config, LogLevel), Failure> {
    let loaded = config::load(args.load_input()?)?;
    let level = logging::init(&loaded.config.log);
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    Ok((loaded.config, level))
}

fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
        Failure::new(
            Exit::Software,
            format!("the runtime cannot be started: {error}"),
            "check the limits of the process",
        )
    })?;
    let ended = runtime.block_on(command);
    // A blocking call of a broker's client that waits for an answer must not hold up the end of the process.
    runtime.shutdown_background();
    ended
}
